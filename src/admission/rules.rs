//! The webhook configurations: which requests the API server sends here. They are written from the same
//! table that reads them.

use std::collections::BTreeSet;

use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhook, MutatingWebhookConfiguration, ValidatingWebhook, ValidatingWebhookConfiguration,
    WebhookClientConfig,
};
use rampart_reach::NAMESPACE_NAME;
use serde_json::{Value, json};

use super::target::TEMPLATES;
use crate::{
    GROUP,
    api::labels::{MANAGED_BY, MANAGER, PART, WEBHOOK},
    hardening::{SYSTEM_NAMESPACES, significant},
};

/// Name of the configuration that is shipped.
pub const WEBHOOK_CONFIGURATION: &str = "rampart";
/// Name of the one that exists while something is refused by the webhook alone.
pub const ENFORCE_CONFIGURATION: &str = "rampart-enforce";
/// Name of the one that exists while some policy completes pods.
pub const FIX_CONFIGURATION: &str = "rampart-fix";
/// Name of the webhook's Service, in the install namespace.
pub const WEBHOOK_SERVICE: &str = "rampart-webhook";
/// Path of what judges.
pub const VALIDATE: &str = "/validate";
/// Path of what judges where nothing else refuses; beside [`VALIDATE`], so that nothing is counted twice.
pub const ENFORCE: &str = "/enforce";
/// Path of what completes pods.
pub const MUTATE: &str = "/mutate";
/// The webhook that is asked about pods, in the configuration that is shipped.
const PODS: &str = "pods";
/// What every pod of a namespace waits for, at most, in seconds.
const TIMEOUT: i32 = 3;
/// Asks the admissions enforcer of AKS to leave a configuration alone. It would add to every `namespaceSelector`, and
/// own that: the operator would take it out again for ever, and `helm upgrade` end in a conflict. AKS names a label and
/// an annotation, and says of either that it is enough.
const AKS_ENFORCER_DISABLED: &str = "admissions.enforcer/disabled";

/// The ValidatingWebhookConfiguration, for a webhook behind `client_config`. The operator adds the
/// `caBundle`; every other default of the API server is spelled out, so that GitOps sees no drift.
#[must_use]
pub fn webhook_configuration(client_config: &Value) -> Value {
    let everywhere = json!({"key": NAMESPACE_NAME, "operator": "NotIn", "values": SYSTEM_NAMESPACES});
    let webhook = |name: &str, failure_policy: &str, rules: Value| {
        webhook((name, failure_policy), client_config, &everywhere, &rules)
    };
    let rule = |groups: &[&str], versions: &[&str], operations: &[&str], resources: &[&str]| {
        scoped(groups, versions, operations, resources, "Namespaced")
    };
    let both = ["CREATE", "UPDATE"];
    let own = ["securitypolicies", "policyexceptions", "apikeys", "retentionpolicies", "legalholds"];
    let own = rule(&[GROUP], &["v1alpha1"], &both, &own);
    let cluster_wide = ["clustersecuritypolicies", "clusterlegalholds"];
    let cluster_wide = scoped(&[GROUP], &["v1alpha1"], &both, &cluster_wide, "Cluster");
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
        "metadata": {
            "name": WEBHOOK_CONFIGURATION,
            "labels": {"app.kubernetes.io/name": "rampart", AKS_ENFORCER_DISABLED: "true"},
            "annotations": {AKS_ENFORCER_DISABLED: "true"},
        },
        "webhooks": [
            webhook("own-kinds", "Fail", json!([own, cluster_wide])),
            webhook(PODS, "Ignore", json!(pods)),
            webhook("templates", "Ignore", json!(templates)),
            webhook("namespaces", "Ignore", json!([scoped(&[""], &["v1"], &["UPDATE"], &["namespaces"], "Cluster")])),
        ],
    })
}

fn scoped(groups: &[&str], versions: &[&str], operations: &[&str], resources: &[&str], scope: &str) -> Value {
    json!({"apiGroups": groups, "apiVersions": versions, "operations": operations, "resources": resources,
           "scope": scope})
}

/// A webhook as the API server stores it, asked about the namespaces of which an expression on their labels holds.
fn webhook((name, failure_policy): (&str, &str), client: &Value, namespaces: &Value, rules: &Value) -> Value {
    json!({
        "name": format!("{name}.{GROUP}"),
        "admissionReviewVersions": ["v1"],
        "clientConfig": client,
        "failurePolicy": failure_policy,
        "matchPolicy": "Equivalent",
        "objectSelector": {},
        "sideEffects": "None",
        "timeoutSeconds": TIMEOUT,
        "rules": rules,
        "namespaceSelector": {"matchExpressions": [namespaces]},
    })
}

/// Where the API server finds the webhook that it asks about pods, if it can trust it.
#[must_use]
pub fn pods_client(shipped: &ValidatingWebhookConfiguration) -> Option<&WebhookClientConfig> {
    let pods = shipped.webhooks.iter().flatten().find(|webhook| webhook.name.starts_with(&format!("{PODS}.")));
    pods.map(|webhook| &webhook.client_config).filter(|client| client.ca_bundle.is_some())
}

/// The ValidatingWebhookConfiguration `rampart-enforce`, for namespaces where a webhook alone refuses: there no
/// pod is made without its word; but what changes neither what runs nor where it may, such as the removal of a
/// finalizer, never waits for it. `None` where `shipped` says no path that another can stand for.
#[must_use]
pub fn enforce_configuration(
    shipped: &WebhookClientConfig,
    namespaces: &BTreeSet<String>,
) -> Option<ValidatingWebhookConfiguration> {
    let pods = json!([pods(&["CREATE", "UPDATE"], "pods"), pods(&["UPDATE"], "pods/ephemeralcontainers")]);
    let webhook = named(("enforce", "Fail"), (shipped, ENFORCE), namespaces, &pods)?;
    let match_conditions = Some(vec![significant()]);
    let webhook = ValidatingWebhook { match_conditions, ..serde_json::from_value(webhook).ok()? };
    serde_json::from_value(json!({"metadata": metadata(ENFORCE_CONFIGURATION), "webhooks": [webhook]})).ok()
}

/// The MutatingWebhookConfiguration `rampart-fix`, for namespaces where pods are completed. What a later webhook
/// adds to a pod is completed, too. `None` as [`enforce_configuration`].
#[must_use]
pub fn fix_configuration(
    shipped: &WebhookClientConfig,
    namespaces: &BTreeSet<String>,
) -> Option<MutatingWebhookConfiguration> {
    let webhook = named(("fix", "Ignore"), (shipped, MUTATE), namespaces, &json!([pods(&["CREATE"], "pods")]))?;
    let webhook =
        MutatingWebhook { reinvocation_policy: Some("IfNeeded".into()), ..serde_json::from_value(webhook).ok()? };
    serde_json::from_value(json!({"metadata": metadata(FIX_CONFIGURATION), "webhooks": [webhook]})).ok()
}

fn pods(operations: &[&str], resource: &str) -> Value {
    scoped(&[""], &["v1"], operations, &[resource], "Namespaced")
}

fn metadata(name: &str) -> Value {
    json!({"name": name,
           "labels": {"app.kubernetes.io/name": "rampart", MANAGED_BY: MANAGER, PART: WEBHOOK,
                      AKS_ENFORCER_DISABLED: "true"},
           "annotations": {AKS_ENFORCER_DISABLED: "true"}})
}

/// A webhook at another path of the shipped server, asked about namespaces by name.
fn named(
    webhook: (&str, &str),
    (shipped, path): (&WebhookClientConfig, &str),
    namespaces: &BTreeSet<String>,
    rules: &Value,
) -> Option<Value> {
    let client = serde_json::to_value(at(shipped, path)?).ok()?;
    let namespaces = json!({"key": NAMESPACE_NAME, "operator": "In", "values": namespaces});
    Some(self::webhook(webhook, &client, &namespaces, rules))
}

/// The same server, at another path.
fn at(shipped: &WebhookClientConfig, path: &str) -> Option<WebhookClientConfig> {
    let moved = |from: &str| Some(format!("{}{path}", from.strip_suffix(VALIDATE)?));
    let mut client = shipped.clone();
    match (&mut client.url, &mut client.service) {
        (Some(url), _) => *url = moved(url)?,
        (None, Some(service)) => service.path = Some(moved(service.path.as_deref()?)?),
        (None, None) => return None,
    }
    Some(client)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_configuration_asks_the_enforcer_of_aks_to_leave_it_alone() {
        let client = json!({"url": "https://127.0.0.1/validate"});
        let shipped: WebhookClientConfig = serde_json::from_value(client.clone()).unwrap();
        let namespaces = BTreeSet::from(["shop".to_owned()]);
        let enforce = enforce_configuration(&shipped, &namespaces).unwrap();
        let fix = fix_configuration(&shipped, &namespaces).unwrap();
        for (name, configuration) in [
            (WEBHOOK_CONFIGURATION, webhook_configuration(&client)),
            (ENFORCE_CONFIGURATION, serde_json::to_value(enforce).unwrap()),
            (FIX_CONFIGURATION, serde_json::to_value(fix).unwrap()),
        ] {
            let metadata = &configuration["metadata"];
            assert_eq!(metadata["name"], name);
            for place in ["labels", "annotations"] {
                assert_eq!(metadata[place]["admissions.enforcer/disabled"], "true", "{name}: {metadata}");
            }
        }
    }

    #[test]
    fn what_changes_nothing_that_runs_does_not_wait_for_the_webhook() {
        let shipped = serde_json::from_value(json!({"url": "https://127.0.0.1/validate"})).unwrap();
        let configuration = enforce_configuration(&shipped, &["shop".to_owned()].into()).unwrap();
        let webhook = serde_json::to_value(configuration).unwrap()["webhooks"][0].take();
        let conditions = webhook["matchConditions"].as_array().unwrap();
        assert_eq!(conditions.len(), 1, "{webhook}");
        let expression = conditions[0]["expression"].as_str().unwrap();
        for of_update in ["containers", "?initContainers", "?ephemeralContainers"] {
            assert!(expression.contains(&format!("object.spec.{of_update}")), "{expression}");
        }
        assert!(expression.starts_with("request.operation == 'CREATE' || "), "no pod is made without its word");
        assert_eq!((&webhook["failurePolicy"], &webhook["timeoutSeconds"]), (&json!("Fail"), &json!(TIMEOUT)));
    }
}
