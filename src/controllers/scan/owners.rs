//! The workloads that own pods, read once each: a pod may say anything of its owner.

use std::{collections::BTreeSet, time::Duration};

use futures::{StreamExt as _, stream};
use k8s_openapi::{
    api::{
        apps::v1::{DaemonSet, ReplicaSet, StatefulSet},
        batch::v1::Job,
        core::v1::ReplicationController,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject},
};
use tokio::time::{Instant, timeout_at};

use crate::{
    cluster::{
        Result,
        error::{call, found},
    },
    hardening::{Controller, ControllerKind, Owners, Workload},
};

/// Reads that are under way at once.
const AT_ONCE: usize = 8;
/// All of them together: pods are not counted meanwhile.
const DEADLINE: Duration = Duration::from_secs(5);

/// Reads what is new of `wanted`, and forgets the rest. Returns whether something is left for the next time.
pub(super) async fn follow(client: &Client, wanted: &BTreeSet<Controller>, owners: &mut Owners) -> bool {
    owners.retain(|controller, _| wanted.contains(controller));
    let new: Vec<&Controller> = wanted.iter().filter(|it| !owners.contains_key(*it)).collect();
    let reads = new.into_iter().map(|it| async move { (it.clone(), workload(client, it).await) });
    let mut reads = std::pin::pin!(stream::iter(reads.collect::<Vec<_>>()).buffer_unordered(AT_ONCE));
    let (deadline, mut unread) = (Instant::now() + DEADLINE, None);
    loop {
        match timeout_at(deadline, reads.next()).await {
            Ok(Some((controller, Ok(workload)))) => drop(owners.insert(controller, workload)),
            // The API server has answered, and will answer the same again.
            Ok(Some((controller, Err(error)))) if error.code().is_some_and(|it| (400..429).contains(&it)) => {
                owners.insert(controller, None);
            }
            Ok(Some((_, Err(error)))) => unread = Some(error.to_string()),
            Ok(None) => break,
            Err(_) => {
                unread = Some(format!("not all could be read in {DEADLINE:?}"));
                break;
            }
        }
    }
    if let Some(error) = &unread {
        tracing::warn!(error, "owners of pods could not be read: their pods are shown one by one");
    }
    unread.is_some()
}

fn resource(kind: ControllerKind) -> ApiResource {
    match kind {
        ControllerKind::ReplicaSet => ApiResource::erase::<ReplicaSet>(&()),
        ControllerKind::StatefulSet => ApiResource::erase::<StatefulSet>(&()),
        ControllerKind::DaemonSet => ApiResource::erase::<DaemonSet>(&()),
        ControllerKind::Job => ApiResource::erase::<Job>(&()),
        ControllerKind::ReplicationController => ApiResource::erase::<ReplicationController>(&()),
    }
}

/// The workload on top: a Deployment of a ReplicaSet, a CronJob of a Job, or the controller itself.
async fn workload(client: &Client, controller: &Controller) -> Result<Option<Workload>> {
    let Controller { namespace, kind, name, uid } = controller;
    let resource = resource(*kind);
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    let doing = || format!("reading {} {namespace}/{name}", resource.kind);
    let live = found(call(doing, api.get_metadata(name)).await)?.map(|live| live.metadata);
    Ok(live.filter(|live| live.uid.as_ref() == Some(uid)).map(|live| top(&live, controller, &resource)))
}

fn top(live: &ObjectMeta, controller: &Controller, resource: &ApiResource) -> Workload {
    let owner = live.owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
    owner
        .and_then(Workload::above)
        .unwrap_or_else(|| Workload { kind: resource.kind.clone(), name: controller.name.clone() })
}
