//! Revocations go before the queue: however many keys wait for their visit, verifiers are to know at once.

use std::{panic::AssertUnwindSafe, time::Duration};

use futures::{FutureExt as _, StreamExt as _, stream};
use kube::{Api, ResourceExt as _};
use tokio::sync::mpsc;

use super::{ApiKeys, visits::Name};
use crate::{
    api::ApiKey,
    cluster::{
        Result,
        error::{call, found},
        kept_secrets::KeptSecrets,
    },
    controllers::Root,
    keys::{Caps, Spec},
};

/// Keys that are ended at once besides those that are visited.
const AT_ONCE: usize = 4;
/// How often it is tried before the visit of the key has to do it.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(300);

/// Has all keys told of that are to end and have not, as soon as the watch tells of them, or lists them.
pub(super) fn notice(root: Root<ApiKey>) -> (Root<ApiKey>, mpsc::UnboundedReceiver<Name>) {
    let (told, revoked) = mpsc::unbounded_channel();
    let root = root.telling(move |key: &ApiKey| {
        if is_to_end(key) {
            let _ = told.send((key.namespace().unwrap_or_default(), key.name_any()));
        }
    });
    (root, revoked)
}

/// Whether somebody revoked it, and its status does not say that all of it has ended.
fn is_to_end(key: &ApiKey) -> bool {
    let left = key.status.as_ref().is_none_or(|status| {
        status.next_version.is_some() || status.versions.iter().any(|version| !version.state.has_ended())
    });
    key.spec.revocation.is_some() && left
}

impl ApiKeys {
    /// Ends the records of keys that are told of, for as long as the future runs. All else of them is their visit's.
    pub(super) async fn end_at_once(&self, revoked: mpsc::UnboundedReceiver<Name>) {
        self.record_names.listed().await;
        let revoked = stream::unfold(revoked, |mut revoked| async move { Some((revoked.recv().await?, revoked)) });
        revoked.for_each_concurrent(AT_ONCE, |name| self.end_one(name)).await;
    }

    async fn end_one(&self, (namespace, name): Name) {
        for left in (0..TRIES).rev() {
            // What panics is counted by the visit, which does the same.
            let ended = AssertUnwindSafe(self.end_records(&namespace, &name)).catch_unwind().await;
            match ended {
                Ok(Err(error)) if left == 0 => {
                    tracing::warn!(namespace, name, %error, "a revoked key did not end at once: its visit tries again");
                }
                Ok(Err(_)) => tokio::time::sleep(PAUSE).await,
                Ok(Ok(())) | Err(_) => return,
            }
        }
    }

    async fn end_records(&self, namespace: &str, name: &str) -> Result<()> {
        let api: Api<ApiKey> = Api::namespaced(self.context.client.clone(), namespace);
        let Some(mut key) = found(call(|| format!("reading ApiKey {name}"), api.get(name)).await)? else {
            return Ok(());
        };
        // No cap keeps a key from its end.
        let Ok(spec) = Spec::parse(&key, &Caps::default()) else { return Ok(()) };
        self.end_revoked(&mut key, (&spec, &KeptSecrets::default())).await
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn only_what_is_revoked_and_lives_goes_before_all_others() {
        let is_to_end_since = |deleted: Value, revocation: Value, status: Value| {
            is_to_end(
                &serde_json::from_value(json!({
                    "apiVersion": "rampart.dev/v1alpha1", "kind": "ApiKey",
                    "metadata": {"name": "k", "namespace": "n", "deletionTimestamp": deleted},
                    "spec": {"owner": {"customerId": "n"}, "audiences": ["a"], "role": "Viewer", "secret": {"name": "s"},
                             "revocation": revocation},
                    "status": status,
                }))
                .unwrap(),
            )
        };
        let is_to_end = |revocation: Value, status: Value| is_to_end_since(Value::Null, revocation, status);
        let status = |state: &str, next: Value| {
            let version = json!({"n": 1, "id": "a", "state": state, "createdAt": "2026-01-01T00:00:00Z",
                                 "expiresAt": "2027-01-01T00:00:00Z"});
            json!({"versions": [version], "nextVersion": next})
        };
        let leaked = || json!({"reason": "Leaked"});
        assert!(is_to_end(leaked(), status("Current", Value::Null)));
        assert!(is_to_end(leaked(), status("Revoked", json!(2))), "one is on its way");
        assert!(is_to_end(leaked(), Value::Null), "nobody knows");
        let deleted = json!("2026-01-01T00:00:00Z");
        assert!(is_to_end_since(deleted, leaked(), status("Current", Value::Null)), "a finalizer may keep it for long");
        assert!(!is_to_end(leaked(), status("Revoked", Value::Null)), "it has ended");
        assert!(!is_to_end(Value::Null, status("Current", Value::Null)));
    }
}
