//! The API server's audit log: the one witness of what was written, by whom.

use std::{collections::BTreeMap, fs, path::PathBuf};

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::witness;

/// The audit log of an instance; of reads, at most those that [`crate::witness`] gathers are in it.
#[derive(Debug, Clone)]
pub struct AuditLog {
    path: PathBuf,
}

/// One request that may have written.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// `create`, `update`, `patch`, `delete` or `deletecollection`.
    pub verb: String,
    /// Who asked.
    pub user: User,
    /// What it was about.
    #[serde(default)]
    pub object_ref: ObjectRef,
    /// The answer.
    #[serde(default)]
    pub response_status: ResponseStatus,
    /// Stage, of which only the completed counts.
    pub stage: String,
}

/// Who asked.
#[derive(Debug, Clone, Deserialize)]
pub struct User {
    /// User name.
    pub username: String,
}

/// What a request was about.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ObjectRef {
    /// Resource, plural.
    pub resource: String,
    /// Subresource.
    pub subresource: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// The answer to a request.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct ResponseStatus {
    /// HTTP status code.
    #[serde(default)]
    pub code: u16,
}

/// The audit policy of an instance: writes, by whomever; reads only where they are gathered.
pub(crate) fn policy() -> Value {
    let mut rules = witness::audit_rules();
    rules.extend([
        json!({"level": "None", "verbs": ["get", "list", "watch"]}),
        json!({"level": "None", "userGroups": ["system:nodes"]}),
        json!({"level": "Metadata"}),
    ]);
    json!({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"], "rules": rules})
}

impl AuditLog {
    pub(crate) fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// The text, for tests that look for what must not be there.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn text(&self) -> Result<String> {
        fs::read_to_string(&self.path).with_context(|| format!("reading {}", self.path.display()))
    }

    /// Every completed write of `user` that the API server accepted.
    ///
    /// # Errors
    /// When the log can't be read.
    pub fn writes_of(&self, user: &str) -> Result<Vec<Event>> {
        let accepted = |event: &Event| {
            event.stage == "ResponseComplete"
                && !["get", "list", "watch"].contains(&event.verb.as_str())
                && event.user.username == user
                && (200..300).contains(&event.response_status.code)
        };
        // The last line may be half written.
        let events = self.text()?.lines().filter_map(|line| serde_json::from_str(line).ok()).collect::<Vec<Event>>();
        Ok(events.into_iter().filter(accepted).collect())
    }

    /// How often `user` wrote each kind of thing: `patch networkpolicies` and the like.
    ///
    /// # Errors
    /// When the log can't be read.
    pub fn counts_of(&self, user: &str) -> Result<BTreeMap<String, usize>> {
        let mut counts = BTreeMap::new();
        for event in self.writes_of(user)? {
            let mut what = format!("{} {}", event.verb, event.object_ref.resource);
            if !event.object_ref.subresource.is_empty() {
                what = what + "/" + &event.object_ref.subresource;
            }
            *counts.entry(what).or_default() += 1;
        }
        Ok(counts)
    }
}
