//! The workloads that own pods, read once each: a pod may say anything of its owner.

use std::collections::BTreeSet;

use futures::{StreamExt as _, stream};
use k8s_openapi::{
    api::{
        apps::v1::{DaemonSet, ReplicaSet, StatefulSet},
        batch::v1::Job,
        core::v1::ReplicationController,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Api, Client, api::ApiResource};

use crate::{
    cluster::{
        Result,
        error::{call, found},
    },
    hardening::{Owners, Workload},
};

/// Reads that are under way at once.
const AT_ONCE: usize = 8;

/// Reads what is new of `wanted` (namespace, kind, name and UID), and forgets the rest. What can't be read
/// is tried again the next time; returns whether there is such.
pub(super) async fn follow(
    client: &Client,
    wanted: &BTreeSet<(String, &str, &str, &str)>,
    owners: &mut Owners,
) -> bool {
    let uids: BTreeSet<&str> = wanted.iter().map(|(.., uid)| *uid).collect();
    owners.retain(|uid, _| uids.contains(uid.as_str()));
    let new = wanted.iter().filter(|(.., uid)| !owners.contains_key(*uid));
    let reads = new.filter_map(|(namespace, kind, name, uid)| {
        let resource = resource(kind)?;
        Some(async move { ((*uid).to_owned(), workload(client, namespace, &resource, (name, uid)).await) })
    });
    let reads: Vec<_> = stream::iter(reads.collect::<Vec<_>>()).buffer_unordered(AT_ONCE).collect().await;
    let mut unread = false;
    for (uid, read) in reads {
        match read {
            Ok(workload) => drop(owners.insert(uid, workload)),
            Err(error) => {
                tracing::warn!(%error, "the owner of pods could not be read");
                unread = true;
            }
        }
    }
    unread
}

/// Kinds of the cluster's own that make pods. Pods of any other are shown one by one.
fn resource(kind: &str) -> Option<ApiResource> {
    match kind {
        "ReplicaSet" => Some(ApiResource::erase::<ReplicaSet>(&())),
        "StatefulSet" => Some(ApiResource::erase::<StatefulSet>(&())),
        "DaemonSet" => Some(ApiResource::erase::<DaemonSet>(&())),
        "Job" => Some(ApiResource::erase::<Job>(&())),
        "ReplicationController" => Some(ApiResource::erase::<ReplicationController>(&())),
        _ => None,
    }
}

/// The workload on top: a Deployment of a ReplicaSet, a CronJob of a Job, or the controller itself.
async fn workload(
    client: &Client,
    namespace: &str,
    resource: &ApiResource,
    (name, uid): (&str, &str),
) -> Result<Option<Workload>> {
    let api: Api<kube::api::DynamicObject> = Api::namespaced_with(client.clone(), namespace, resource);
    let doing = || format!("reading {} {namespace}/{name}", resource.kind);
    let live = found(call(doing, api.get_metadata(name)).await)?.map(|live| live.metadata);
    Ok(live.filter(|live| live.uid.as_deref() == Some(uid)).map(|live| top(live, resource, name)))
}

fn top(live: ObjectMeta, resource: &ApiResource, name: &str) -> Workload {
    let mut owners = live.owner_references.into_iter().flatten();
    match owners.find(|owner| owner.controller == Some(true)) {
        Some(owner) => Workload { kind: owner.kind, name: owner.name },
        None => Workload { kind: resource.kind.clone(), name: name.into() },
    }
}
