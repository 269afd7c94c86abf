//! Workloads that are restarted when a key has changed.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use kube::{
    Api, Client, Resource,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::{
    Result,
    error::{call, found},
};
use crate::{
    api::{RestartKind, RestartTarget, labels::RESTART_ON_ROTATION},
    keys::{
        Spec, Workload, WorkloadSeen, coalesce,
        rollout::{of_daemon_set, of_deployment, of_stateful_set, version_annotation},
    },
};

/// Field manager of the annotations by which workloads are restarted: one for all keys, which share restarts.
const RESTARTS: &str = "rampart-restart";
/// A workload that rolls out changes often.
const TRIES: usize = 5;

/// Reads a workload that a spec names.
///
/// # Errors
/// When a call fails; that there is none, or that it may not be read, is not an error.
pub async fn observe(client: &Client, spec: &Spec, target: &RestartTarget) -> Result<WorkloadSeen> {
    let read = match target.kind {
        RestartKind::Deployment => {
            read::<Deployment>(client, spec, target, |it| it.spec.template.metadata.as_ref(), of_deployment).await
        }
        RestartKind::StatefulSet => {
            read::<StatefulSet>(client, spec, target, |it| it.spec.template.metadata.as_ref(), of_stateful_set).await
        }
        RestartKind::DaemonSet => {
            read::<DaemonSet>(client, spec, target, |it| it.spec.template.metadata.as_ref(), of_daemon_set).await
        }
    };
    let forbidden = matches!(&read, Err(error) if error.code() == Some(403));
    let workload = if forbidden { None } else { read? };
    Ok(WorkloadSeen { target: target.clone(), workload, forbidden })
}

async fn read<K>(
    client: &Client,
    spec: &Spec,
    target: &RestartTarget,
    template: fn(&K) -> Option<&kube::api::ObjectMeta>,
    waits_for: fn(&K) -> Option<String>,
) -> Result<Option<Workload>>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), &spec.namespace);
    let name = &target.name;
    let Some(it) = found(call(|| format!("reading {:?} {name}", target.kind), api.get(name)).await)? else {
        return Ok(None);
    };
    let annotation = |metadata: &kube::api::ObjectMeta, name: &str| metadata.annotations.as_ref()?.get(name).cloned();
    let ours = it.meta().managed_fields.iter().flatten().filter(|it| it.manager.as_deref() == Some(RESTARTS));
    let restarted_at = ours.filter_map(|it| it.time.clone()).max();
    Ok(Some(Workload {
        opted_in: annotation(it.meta(), RESTART_ON_ROTATION).is_some_and(|value| value == "true"),
        version: template(&it).and_then(|metadata| annotation(metadata, &version_annotation(&spec.name))),
        restarted_at: restarted_at.map(|time| time.0),
        waits_for: waits_for(&it),
    }))
}

/// Asks a workload to start its pods anew, for a version and what comes with it of other keys.
///
/// # Errors
/// When a call fails; that the workload is gone is not an error.
pub async fn restart(
    client: &Client,
    spec: &Spec,
    target: &RestartTarget,
    (version, others): (&str, &BTreeMap<String, String>),
) -> Result<()> {
    let resource = match target.kind {
        RestartKind::Deployment => ApiResource::erase::<Deployment>(&()),
        RestartKind::StatefulSet => ApiResource::erase::<StatefulSet>(&()),
        RestartKind::DaemonSet => ApiResource::erase::<DaemonSet>(&()),
    };
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &spec.namespace, &resource);
    let name = &target.name;
    let doing = || format!("restarting {:?} {name}", target.kind);
    let own = (version_annotation(&spec.name), version.to_owned());
    let mut tries = 0;
    loop {
        // Applying would make what is not there.
        let Some(live) = found(call(doing, api.get(name)).await)? else { return Ok(()) };
        let stands = live.data.pointer("/spec/template/metadata/annotations").cloned().unwrap_or_default();
        let stands: BTreeMap<String, String> = serde_json::from_value(stands).unwrap_or_default();
        let patch = json!({
            "apiVersion": resource.api_version, "kind": resource.kind,
            // Only what was read: another key may be restarting it.
            "metadata": {"name": name, "uid": live.metadata.uid, "resourceVersion": live.metadata.resource_version},
            "spec": {"template": {"metadata": {"annotations": coalesce::annotations(&stands, own.clone(), others)}}},
        });
        let params = PatchParams::apply(RESTARTS).force();
        tries += 1;
        match call(doing, api.patch(name, &params, &Patch::Apply(&patch))).await {
            Err(error) if error.code() == Some(409) && tries < TRIES => {}
            result => return found(result).map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{api::ApiKey, cluster::client::tests::forbidden, keys::Caps};

    #[tokio::test]
    async fn what_may_not_be_read_keeps_nothing_else_from_being_seen() {
        let key: ApiKey = serde_json::from_value(json!({
            "metadata": {"name": "k", "namespace": "n"},
            "spec": {"owner": {"customerId": "n"}, "audiences": ["a"], "role": "Viewer", "prefix": "ab",
                     "secret": {"name": "s"}},
        }))
        .unwrap();
        let spec = Spec::parse(&key, &Caps::default()).unwrap();
        for kind in ["Deployment", "StatefulSet", "DaemonSet"] {
            let target: RestartTarget = serde_json::from_value(json!({"kind": kind, "name": "web"})).unwrap();
            let seen = observe(&forbidden(), &spec, &target).await.unwrap();
            assert!(seen.forbidden && seen.workload.is_none(), "{kind}");
        }
    }
}
