//! The workloads that own pods, read once each: a pod may say anything of its owner.

use std::time::Duration;

use futures::{StreamExt as _, stream};
use k8s_openapi::{
    api::{
        apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet},
        batch::v1::{CronJob, Job},
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
pub(super) const DEADLINE: Duration = Duration::from_secs(5);

/// Reads the workloads of controllers. Returns also whether something is left for the next time.
///
/// Where owners are `proven`, so is what they say stands above them: what refers to an owner that is not there is
/// collected as garbage.
pub(super) async fn read(client: Client, new: Vec<Controller>, proven: bool) -> (Owners, bool) {
    let (client, mut owners) = (&client, Owners::new());
    let reads = new.into_iter().map(|it| async move {
        let read = workload(client, &it, proven).await;
        (it, read)
    });
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
    (owners, unread.is_some())
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
async fn workload(client: &Client, controller: &Controller, proven: bool) -> Result<Option<Workload>> {
    let Controller { namespace, kind, name, uid } = controller;
    let resource = resource(*kind);
    let live = live(client, namespace, &resource, name).await?.filter(|live| live.uid.as_ref() == Some(uid));
    let Some(live) = live else { return Ok(None) };
    let owner = live.owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
    let (api_version, kind) = (resource.api_version, resource.kind);
    let own = Workload { api_version, kind, name: name.clone(), uid: uid.clone() };
    let Some(above) = owner.and_then(Workload::above) else { return Ok(Some(own)) };
    Ok(Some(if !proven || is_there(client, namespace, &above).await? { above } else { own }))
}

async fn is_there(client: &Client, namespace: &str, above: &Workload) -> Result<bool> {
    let resource = match above.kind.as_str() {
        "CronJob" => ApiResource::erase::<CronJob>(&()),
        _ => ApiResource::erase::<Deployment>(&()),
    };
    let live = live(client, namespace, &resource, &above.name).await?;
    Ok(live.is_some_and(|live| live.uid.as_ref() == Some(&above.uid)))
}

async fn live(client: &Client, namespace: &str, resource: &ApiResource, name: &str) -> Result<Option<ObjectMeta>> {
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, resource);
    let doing = || format!("reading {} {namespace}/{name}", resource.kind);
    Ok(found(call(doing, api.get_metadata(name)).await)?.map(|live| live.metadata))
}
