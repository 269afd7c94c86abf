//! What Rampart's accounts asked of every API server of a process, gathered from the audit logs when instances end.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, OnceLock, PoisonError},
};

use serde::Deserialize;
use serde_json::{Value, json};

/// Rampart's accounts in tests: `rampart` has the rights of controller and webhook at once.
pub const ACCOUNTS: [&str; 4] = ["rampart", "rampart-controller", "rampart-webhook", "rampart-verifier"];
const PREFIX: &str = "system:serviceaccount:rampart-system:";

/// A thing that an account asked for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Asked {
    /// Which of [`ACCOUNTS`].
    pub account: String,
    /// The verb; `impersonate` where it asked as somebody else.
    pub verb: String,
    /// API group; empty for the core.
    pub group: String,
    /// Resource, with its subresource after a slash.
    pub resource: String,
    /// Namespace; empty for all of them and for what is in none.
    pub namespace: String,
    /// Name; empty where it asked for many.
    pub name: String,
    /// Whether authorisation refused it.
    pub forbidden: bool,
}

static SEEN: OnceLock<Mutex<BTreeMap<Asked, usize>>> = OnceLock::new();

/// From now on instances log what the accounts read, too, and what they asked for is gathered.
pub fn begin() {
    let _ = SEEN.set(Mutex::default());
}

/// Everything that was asked on instances that have ended, with how often; nothing before [`begin`].
#[must_use]
pub fn seen() -> BTreeMap<Asked, usize> {
    SEEN.get().map(|seen| seen.lock().unwrap_or_else(PoisonError::into_inner).clone()).unwrap_or_default()
}

/// The rules of an audit policy that log our accounts' reads, where they are gathered: metadata alone. A watch is
/// logged when it begins, since its end may be that of the API server.
pub(crate) fn audit_rules() -> Vec<Value> {
    let users: Vec<String> = ACCOUNTS.iter().map(|account| format!("{PREFIX}{account}")).collect();
    let rule = json!({"level": "Metadata", "users": users, "verbs": ["get", "list", "watch"]});
    if SEEN.get().is_some() { vec![rule] } else { vec![] }
}

/// Takes the logs of an instance that has ended: one that grew beyond its bound has a name with its date.
pub(crate) fn take(directory: &Path) {
    let Some(seen) = SEEN.get() else { return };
    let is_log = |path: &PathBuf| path.file_name().is_some_and(|it| it.as_encoded_bytes().starts_with(b"audit"));
    let files = fs::read_dir(directory).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    for file in files.filter(is_log) {
        let Ok(text) = fs::read_to_string(file) else { continue };
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        for asked in text.lines().flat_map(asked) {
            *seen.entry(asked).or_default() += 1;
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    verb: String,
    user: User,
    impersonated_user: Option<User>,
    object_ref: Option<ObjectRef>,
    #[serde(default)]
    response_status: ResponseStatus,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ObjectRef {
    resource: String,
    subresource: String,
    api_group: String,
    namespace: String,
    name: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ResponseStatus {
    code: u16,
}

/// What a line says was asked for.
fn asked(line: &str) -> Vec<Asked> {
    // The last one may be half written.
    let Ok(event) = serde_json::from_str::<Event>(line) else { return vec![] };
    // Applying what is not there takes the right to create it.
    let is_creation = event.verb == "patch" && event.response_status.code == 201;
    let asked = of(event);
    let created = asked.clone().filter(|_| is_creation).map(|asked| Asked { verb: "create".into(), ..asked });
    asked.into_iter().chain(created).collect()
}

fn of(event: Event) -> Option<Asked> {
    let account = event.user.username.strip_prefix(PREFIX)?.to_owned();
    if let Some(as_whom) = event.impersonated_user {
        // What the other may is the other's affair.
        let (namespace, name) = as_whom.username.strip_prefix("system:serviceaccount:")?.split_once(':')?;
        return Some(Asked {
            account,
            verb: "impersonate".into(),
            group: String::new(),
            resource: "serviceaccounts".into(),
            namespace: namespace.into(),
            name: name.into(),
            forbidden: false,
        });
    }
    let of = event.object_ref?;
    let resource = if of.subresource.is_empty() { of.resource } else { format!("{}/{}", of.resource, of.subresource) };
    Some(Asked {
        account,
        verb: event.verb,
        group: of.api_group,
        resource,
        namespace: of.namespace,
        name: of.name,
        forbidden: event.annotations.get("authorization.k8s.io/decision").is_some_and(|it| it == "forbid"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_as_another_counts_as_asking_as_another() {
        let line = |user: &str, more: &str| {
            format!(
                r#"{{"verb": "delete", "user": {{"username": "{user}"}}, "stage": "ResponseComplete", {more}
                "objectRef": {{"resource": "jobs", "apiGroup": "batch", "namespace": "shop", "name": "a"}}}}"#
            )
        };
        let controller = "system:serviceaccount:rampart-system:rampart-controller";
        let own = asked(&line(controller, r#""annotations": {"authorization.k8s.io/decision": "forbid"},"#)).remove(0);
        assert_eq!((own.verb.as_str(), own.resource.as_str(), own.forbidden), ("delete", "jobs", true));
        let other = r#""impersonatedUser": {"username": "system:serviceaccount:shop:cleaner"},"#;
        let other = asked(&line(controller, other)).remove(0);
        assert_eq!((other.verb.as_str(), other.name.as_str(), other.forbidden), ("impersonate", "cleaner", false));
        assert_eq!(asked(&line("system:admin", "")), []);
    }

    #[test]
    fn applying_what_is_not_there_is_creating_it() {
        let line = |code: u16| {
            format!(
                r#"{{"verb": "patch", "user": {{"username": "system:serviceaccount:rampart-system:rampart-verifier"}},
                "objectRef": {{"resource": "verifierreports"}}, "responseStatus": {{"code": {code}}}}}"#
            )
        };
        let verbs = |code| asked(&line(code)).into_iter().map(|asked| asked.verb).collect::<Vec<_>>();
        assert_eq!(verbs(200), ["patch"]);
        assert_eq!(verbs(201), ["patch", "create"]);
    }
}
