//! The webhook configuration: which requests the API server sends here. It is written from the same
//! table that reads them.

use serde_json::{Value, json};

use super::target::TEMPLATES;
use crate::{GROUP, hardening::SYSTEM_NAMESPACES};

/// Name of the configuration.
pub const WEBHOOK_CONFIGURATION: &str = "rampart";

/// The ValidatingWebhookConfiguration, for a webhook behind `client_config`. The operator adds the
/// `caBundle`; every other default of the API server is spelled out, so that GitOps sees no drift.
#[must_use]
pub fn webhook_configuration(client_config: &Value) -> Value {
    let webhook = |name: &str, failure_policy: &str, rules: Value| {
        json!({
            "name": format!("{name}.{GROUP}"),
            "admissionReviewVersions": ["v1"],
            "clientConfig": client_config,
            "failurePolicy": failure_policy,
            "matchPolicy": "Equivalent",
            "objectSelector": {},
            "sideEffects": "None",
            "timeoutSeconds": 3,
            "rules": rules,
            "namespaceSelector": {"matchExpressions": [
                {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": SYSTEM_NAMESPACES},
            ]},
        })
    };
    let scoped = |groups: &[&str], versions: &[&str], operations: &[&str], resources: &[&str], scope: &str| {
        json!({"apiGroups": groups, "apiVersions": versions, "operations": operations, "resources": resources,
               "scope": scope})
    };
    let rule = |groups: &[&str], versions: &[&str], operations: &[&str], resources: &[&str]| {
        scoped(groups, versions, operations, resources, "Namespaced")
    };
    let both = ["CREATE", "UPDATE"];
    let own =
        rule(&[GROUP], &["v1alpha1"], &both, &["securitypolicies", "policyexceptions", "apikeys", "retentionpolicies"]);
    let cluster_wide = scoped(&[GROUP], &["v1alpha1"], &both, &["clustersecuritypolicies"], "Cluster");
    let pods = [
        rule(&[""], &["v1"], &both, &["pods"]),
        rule(&[""], &["v1"], &["UPDATE"], &["pods/ephemeralcontainers", "pods/resize"]),
    ];
    let templates: Vec<Value> = ["", "apps", "batch"]
        .iter()
        .map(|group| {
            let resources: Vec<&str> =
                TEMPLATES.iter().filter(|(of, ..)| of == group).map(|(_, _, plural, _)| *plural).collect();
            rule(&[group], &["v1"], &both, &resources)
        })
        .collect();
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": WEBHOOK_CONFIGURATION, "labels": {"app.kubernetes.io/name": "rampart"}},
        "webhooks": [
            webhook("own-kinds", "Fail", json!([own, cluster_wide])),
            webhook("pods", "Ignore", json!(pods)),
            webhook("templates", "Ignore", json!(templates)),
            webhook("namespaces", "Ignore", json!([scoped(&[""], &["v1"], &["UPDATE"], &["namespaces"], "Cluster")])),
        ],
    })
}
