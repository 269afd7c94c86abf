//! An ApiKey: whose it is, what it may do, and what the caps of its namespace say.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::ResourceExt as _;
use serde::Serialize;

use super::{
    known::{Extent, Known},
    policy::{Told, outdated},
};
use crate::{
    api::{ApiKey, Limits, Verb, VersionStatus},
    keys::{Grant, Spec},
};

/// What is said of an ApiKey; never key material.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Credential {
    /// What to know before the rest.
    pub(super) notes: Vec<String>,
    /// Conditions that tell of trouble, or of work.
    pub(super) conditions: Vec<Told>,
    pub(super) owner: String,
    pub(super) audiences: Vec<String>,
    /// ClusterSecurityPolicies that cap it.
    pub(super) capped_by: Vec<String>,
    /// What a version that is issued now may do; absent where none is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) grant: Option<Granted>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next_rotation_time: Option<Time>,
    pub(super) versions: Vec<VersionStatus>,
}

/// What a key may do.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Granted {
    pub(super) role: String,
    pub(super) verbs: Vec<Verb>,
    pub(super) permissions: Vec<String>,
    pub(super) limits: Limits,
}

/// What there is to say of an ApiKey.
pub(super) fn api_key(key: &ApiKey, known: &Known) -> Credential {
    let namespace = key.namespace().unwrap_or_default();
    let status = key.status.clone().unwrap_or_default();
    let mut told = Credential {
        notes: notes(key),
        conditions: status.conditions.iter().filter(|it| matters(it)).map(Told::of).collect(),
        owner: key.spec.owner.customer_id.clone(),
        audiences: key.spec.audiences.clone(),
        next_rotation_time: status.next_rotation_time,
        versions: status.versions,
        ..Credential::default()
    };
    // Without all of them, less may be told than is capped.
    if known.seen.hardening != Extent::Whole {
        told.notes.push("what caps it could not be read: what it may do is not told".into());
        return told;
    }
    let (policies, broken) = known.hardening();
    told.notes.extend(broken);
    let caps = policies.key_caps(&namespace, known.labels(&namespace));
    told.capped_by = caps.policies().map(ToOwned::to_owned).collect();
    match Spec::tolerate(key, &caps) {
        Ok((spec, None)) => {
            let granted = |Grant { role, verbs, permissions, limits }| Granted { role, verbs, permissions, limits };
            told.grant = spec.grant.filter(|_| spec.imported.is_none()).map(granted);
        }
        Ok((_, Some(beyond))) => {
            told.notes.push(format!("no new version is issued: {beyond}; versions that live stay valid"));
        }
        Err(invalid) => told.notes.push(format!("it can't be read: {invalid}")),
    }
    told
}

fn notes(key: &ApiKey) -> Vec<String> {
    let (spec, observed) = (&key.spec, key.status.as_ref().and_then(|status| status.observed_generation));
    let mut notes: Vec<String> = outdated(key, observed).into_iter().collect();
    if let Some(revocation) = &spec.revocation {
        notes.push(format!("it is revoked, for ever: {}", revocation.reason));
    }
    if let Some(imported) = spec.imported() {
        let from = &imported.secret_ref;
        notes.push(format!(
            "its token is imported from entry {} of Secret {}: you put successors there, and no verifier knows it",
            from.key, from.name
        ));
    }
    if spec.suspended == Some(true) {
        notes.push("it is suspended: verifiers refuse every version".into());
    }
    if spec.suspend == Some(true) {
        let rest = if spec.revocation.is_some() {
            "its revocation is carried out all the same"
        } else {
            "nothing is issued, rotated or destroyed; a revocation would be carried out"
        };
        notes.push(format!("the operator leaves it alone (spec.suspend): {rest}"));
    }
    notes
}

/// What should be true and is not, and work or trouble that is.
fn matters(condition: &Condition) -> bool {
    let is_told_when_true = ["Rotating", "Reconciling", "Stalled", "Revoked", "Expiring", "ClockSuspect"];
    is_told_when_true.contains(&condition.type_.as_str()) == (condition.status == "True")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_key_that_is_left_alone_is_revoked_all_the_same() {
        let note = |revocation: Value| {
            let key = json!({"metadata": {"name": "k"}, "spec": {
                "owner": {"customerId": "shop"}, "audiences": ["a"], "role": "Viewer", "prefix": "shop",
                "secret": {"name": "s"}, "suspend": true, "revocation": revocation}});
            notes(&serde_json::from_value(key).unwrap()).pop().unwrap()
        };
        let left_alone = "the operator leaves it alone (spec.suspend): ";
        let rest = "nothing is issued, rotated or destroyed; a revocation would be carried out";
        assert_eq!(note(Value::Null), format!("{left_alone}{rest}"));
        let revoked = "its revocation is carried out all the same";
        assert_eq!(note(json!({"reason": "Leaked"})), format!("{left_alone}{revoked}"));
    }
}
