//! Retention.

use anyhow::{Context as _, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use rampart::api::{RetentionPolicy, condition};
use serde_json::{Value, json};

use super::{REPORTS, checked, ready, title};
use crate::{fixtures, wait};

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

/// A dry run, then the real one.
///
/// # Errors
/// When a step does not go as it must.
pub async fn tell(client: &Client) -> Result<()> {
    title("Retention: a plan that names what it would delete, then deletes within its caps");
    fixtures::namespace(client, REPORTS, json!({"rampart.dev/retention": "allowed"})).await?;
    for object in retention_fixtures(REPORTS, 4, 6)? {
        fixtures::apply(client, &object).await?;
    }
    fixtures::apply(client, &retention_policy(REPORTS, "DryRun")).await?;
    ready::<RetentionPolicy>(client, REPORTS, "exports").await?;
    let policies: Api<RetentionPolicy> = Api::namespaced(client.clone(), REPORTS);
    let plan = policies.get("exports").await?.status.and_then(|status| status.plan).context("a plan")?;
    for object in &plan.samples {
        println!("   {} {}: {}", object.kind, object.name, object.decision);
    }
    ensure!((plan.listed, plan.would_delete) == (10, 4), "the plan is {plan:?}");
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), REPORTS);
    let left = || async {
        let exports = maps.list(&ListParams::default().labels("data=export")).await?;
        anyhow::Ok(exports.items.iter().map(ResourceExt::name_any).collect::<Vec<_>>())
    };
    ensure!(left().await?.len() == 10, "a dry run deleted something");
    checked("a dry run named 4 of 10 exports, and deleted none");

    let enforce = json!({"spec": {"mode": "Enforce"}});
    policies.patch("exports", &PatchParams::default(), &Patch::Merge(&enforce)).await?;
    wait::until("the four to go", wait::SOON, || async {
        let left = left().await?;
        let done = left.len() == 6 && left.iter().all(|name| name.starts_with("new-"));
        ensure!(done, "left are {left:?}, and the policy's status is {:?}", policies.get("exports").await?.status);
        Ok(())
    })
    .await?;
    ready::<RetentionPolicy>(client, REPORTS, "exports").await?;
    let status = policies.get("exports").await?.status.unwrap_or_default();
    ensure!(!condition::is_true(&status.conditions, condition::Type::BlastRadiusExceeded), "the caps tripped");
    checked("enforced: they were marked, and after the grace period exactly those 4 went");
    Ok(())
}
