//! The stories that demo and tests tell: one for each kind.

use std::fmt::Debug;

use anyhow::{Context as _, Result, bail, ensure};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{core::v1::Pod, networking::v1::NetworkPolicy},
};
use kube::{Api, Client, Resource, api::ListParams};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::wait;

/// Namespace of the sample network intent (values.md).
pub const WEB: &str = "ai-marketing-platform";
/// Namespace of hardening and keys.
pub const SHOP: &str = "shop";
/// Namespace of retention.
pub const REPORTS: &str = "reports";

/// Waits until a resource is Ready for its newest spec.
///
/// # Errors
/// When it is not in time; the text holds its conditions.
pub async fn ready<K>(client: &Client, namespace: &str, name: &str) -> Result<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + serde::Serialize,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    wait::until(&format!("{} {name} to be ready", K::kind(&())), wait::SOON, || async {
        let object = api.get(name).await?;
        let json = serde_json::to_value(&object)?;
        let condition = condition(&json, "Ready").unwrap_or_default();
        let observed = json.pointer("/status/observedGeneration").and_then(Value::as_i64);
        ensure!(observed == object.meta().generation, "its status is about generation {observed:?}");
        ensure!(condition["status"] == "True", "Ready is {condition}");
        Ok(object)
    })
    .await
}

/// A condition of an object.
#[must_use]
pub fn condition(object: &Value, kind: &str) -> Option<Value> {
    object.pointer("/status/conditions")?.as_array()?.iter().find(|condition| condition["type"] == kind).cloned()
}

/// The main NetworkPolicy that a SecurityPolicy became.
///
/// # Errors
/// When there is not exactly one.
pub async fn rendered(client: &Client, namespace: &str, policy: &str) -> Result<NetworkPolicy> {
    let api: Api<NetworkPolicy> = Api::namespaced(client.clone(), namespace);
    let selector = format!("rampart.dev/owner-name={policy},!rampart.dev/part");
    let mut found = api.list(&ListParams::default().labels(&selector)).await?.items;
    match (found.pop(), found.is_empty()) {
        (Some(policy), true) => Ok(policy),
        (None, _) => bail!("no NetworkPolicy of {policy}"),
        (Some(_), false) => bail!("several NetworkPolicies of {policy}"),
    }
}

fn workload(app: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": app, "namespace": WEB},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": app}},
            "template": {
                "metadata": {"labels": {"app": app}},
                "spec": {"containers": [{"name": "main", "image": format!("registry.example.com/{app}:1")}]},
            },
        },
    })
}

fn default_deny(app: &str) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": format!("{app}-default-deny"), "namespace": WEB},
        "spec": {"podSelector": {"matchLabels": {"app": app}}, "policyTypes": ["Ingress"]},
    })
}

/// The four workloads of the sample intent, and the default deny of its servers.
#[must_use]
pub fn sample_workloads() -> Vec<Value> {
    let mut objects: Vec<Value> = ["ai-marketing-platform", "frontend", "postgres", "redis"].map(workload).into();
    objects.extend(["postgres", "redis"].map(default_deny));
    objects
}

/// The sample intent of values.md.
#[must_use]
pub fn sample_policy() -> Value {
    let app = |app: &str| json!({"pods": {"selector": {"matchLabels": {"app": app}}}});
    json!({
        "apiVersion": "rampart.dev/v1alpha1", "kind": "SecurityPolicy",
        "metadata": {"name": "web", "namespace": WEB},
        "spec": {"network": {
            "mode": "Enforce",
            "podSelector": {"matchLabels": {"app": "ai-marketing-platform"}},
            "isolate": ["Ingress", "Egress"],
            "ingress": [{
                "name": "web",
                "peers": [{"entity": "SameNamespace"}, app("frontend"), {"external": {"cidrs": ["10.0.0.0/8"]}}],
                "ports": [{"port": 8000}],
            }],
            "egress": [
                {"name": "pg", "peers": [app("postgres")], "ports": [{"port": 5432}]},
                {"name": "cache", "peers": [app("redis")], "ports": [{"port": 6379}]},
                {"name": "out", "peers": [{"external": {"cidrs": ["0.0.0.0/0"]}}], "ports": [{"port": 443}, {"port": 80}]},
                {"name": "dns", "peers": [{"entity": "DNS"}]},
            ],
            "reciprocal": "Generate",
        }},
    })
}

/// A policy that asks for restricted:latest.
#[must_use]
pub fn hardening_policy(namespace: &str, mode: &str) -> Value {
    json!({
        "apiVersion": "rampart.dev/v1alpha1", "kind": "SecurityPolicy",
        "metadata": {"name": "hardened", "namespace": namespace},
        "spec": {"hardening": {"mode": mode, "podSecurity": {"level": "restricted"}}},
    })
}

/// A pod that runs as root.
///
/// # Errors
/// None: the JSON is a pod.
pub fn root_pod() -> Result<Pod> {
    Ok(serde_json::from_value(json!({
        "metadata": {"name": "root"},
        "spec": {"containers": [{"name": "main", "image": "registry.example.com/app:1", "securityContext": {"runAsUser": 0}}]},
    }))?)
}

/// A pod that meets the restricted standard.
///
/// # Errors
/// None: the JSON is a pod.
pub fn good_pod() -> Result<Pod> {
    Ok(serde_json::from_value(json!({
        "metadata": {"name": "good"},
        "spec": {
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "main", "image": "registry.example.com/app:1",
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
            }],
        },
    }))?)
}

/// An ApiKey of the namespace.
#[must_use]
pub fn api_key(namespace: &str) -> Value {
    json!({
        "apiVersion": "rampart.dev/v1alpha1", "kind": "ApiKey",
        "metadata": {"name": "orders", "namespace": namespace},
        "spec": {
            "owner": {"customerId": namespace, "contact": "ops@example.com"},
            "audiences": ["orders-api"], "role": "Viewer", "prefix": "shop_live",
            "secret": {"name": "orders-key"},
        },
    })
}

/// ConfigMaps that are too old and ones that are not, and an account that may delete them.
///
/// # Errors
/// When the clock is beyond all bounds.
pub fn retention_fixtures(namespace: &str, old: usize, new: usize) -> Result<Vec<Value>> {
    let ages = [("old", old, 60 * 24), ("new", new, 1)];
    let mut objects = vec![
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "retention", "namespace": namespace}}),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": {"name": "retention", "namespace": namespace},
            "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list", "patch", "delete"]}],
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": "retention", "namespace": namespace},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "retention"},
            "subjects": [{"kind": "ServiceAccount", "name": "retention", "namespace": namespace}],
        }),
    ];
    for (name, count, hours) in ages {
        let made = Timestamp::now().checked_sub(SignedDuration::from_hours(hours)).context("a time in the past")?;
        objects.extend((0..count).map(|nth| {
            json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {
                    "name": format!("{name}-{nth}"), "namespace": namespace,
                    "labels": {"data": "export"}, "annotations": {"example.com/exported-at": made.to_string()},
                },
            })
        }));
    }
    Ok(objects)
}

/// A policy that lets exports live for 30 days.
#[must_use]
pub fn retention_policy(namespace: &str, mode: &str) -> Value {
    json!({
        "apiVersion": "rampart.dev/v1alpha1", "kind": "RetentionPolicy",
        "metadata": {"name": "exports", "namespace": namespace},
        "spec": {
            "mode": mode, "serviceAccountName": "retention", "maxAge": "720h",
            "targets": [{"resources": {
                "apiVersion": "v1", "kind": "ConfigMap", "selector": {"matchLabels": {"data": "export"}},
                "ageFrom": "Annotation", "annotation": "example.com/exported-at",
            }}],
            "safety": {"maxDeletionsPerRun": 20, "maxPercentPerRun": 50, "gracePeriod": "1s"},
        },
    })
}
