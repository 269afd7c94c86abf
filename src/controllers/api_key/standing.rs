//! How ApiKeys stand, for metrics.

use kube::ResourceExt as _;

use crate::{
    api::{ApiKey, condition::Type},
    keys::is_stopped,
    runtime::metrics::{ApiKeyStanding, ObjectLabels},
};

/// How an ApiKey stands, for metrics.
pub(super) fn stand(key: &ApiKey) -> Option<ApiKeyStanding> {
    let status = key.status.as_ref()?;
    let current = status.current();
    let ready = status.conditions.iter().find(|it| it.type_ == Type::Ready.as_str());
    Some(ApiKeyStanding {
        labels: ObjectLabels { namespace: key.namespace().unwrap_or_default(), name: key.name_any() },
        expires: current.map(|current| current.expires_at.0.as_second()),
        next_rotation: status.next_rotation_time.as_ref().map(|at| at.0.as_second()),
        ready: ready.filter(|it| !is_stopped(&it.reason)).map(|it| it.status == "True"),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_key_that_is_stopped_on_purpose_is_none_that_is_not_ready() {
        let ready = |status: &str, reason: &str| {
            let it = json!({"type": "Ready", "status": status, "reason": reason, "message": "",
                            "lastTransitionTime": "2026-01-01T00:00:00Z"});
            let key = serde_json::from_value(json!({
                "apiVersion": "rampart.dev/v1alpha1", "kind": "ApiKey", "metadata": {"name": "k", "namespace": "n"},
                "spec": {"owner": {"customerId": "n"}, "audiences": ["a"], "role": "Viewer", "secret": {"name": "s"}},
                "status": {"conditions": [it]},
            }));
            stand(&key.unwrap()).unwrap().ready
        };
        assert_eq!([ready("True", "Ready"), ready("False", "TestFailed")], [Some(true), Some(false)]);
        assert_eq!(["Revoked", "Suspended", "Idle"].map(|reason| ready("False", reason)), [None; 3]);
    }
}
