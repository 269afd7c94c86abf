//! Writing status: by server-side apply, and only when it changed.

use std::collections::BTreeMap;

use kube::{
    Client, Resource, ResourceExt as _,
    api::{Patch, PatchParams},
    core::{Request, object::HasStatus},
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Error, Result, error::call};

/// Field manager of statuses.
const MANAGER: &str = "rampart-status";

/// Writes `status` where it is the machine's memory: only over the very object that was read, and if that
/// has changed or gone since, it is an error, so that nothing goes on from what did not happen.
///
/// Returns the resourceVersion after it.
///
/// # Errors
/// When the call fails, the object was changed meanwhile, or it is gone.
pub async fn remember<K>(client: &Client, root: &K, status: &K::Status) -> Result<Option<String>>
where
    K: Resource<DynamicType = ()> + HasStatus,
    K::Status: PartialEq + Serialize,
{
    if root.status() == Some(status) {
        return Ok(root.resource_version());
    }
    apply(client, root, root.resource_version(), status).await
}

/// Writes `status` if it differs from what `root` was last seen to have. Returns whether it wrote.
///
/// # Errors
/// When the call fails; that the object is gone is not an error.
pub async fn report<K>(client: &Client, root: &K, status: &K::Status) -> Result<bool>
where
    K: Resource<DynamicType = ()> + HasStatus,
    K::Status: PartialEq + Serialize,
{
    if root.status() == Some(status) {
        return Ok(false);
    }
    match apply(client, root, None, status).await {
        Err(error) if matches!(error.code(), Some(404 | 409)) => Ok(false),
        other => other.map(|_| true),
    }
}

/// What is read of the answer.
#[derive(Deserialize)]
struct Written {
    metadata: Version,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    resource_version: Option<String>,
}

async fn apply<K>(client: &Client, root: &K, version: Option<String>, status: &K::Status) -> Result<Option<String>>
where
    K: Resource<DynamicType = ()> + HasStatus,
    K::Status: Serialize,
{
    let name = root.name_any();
    // The UID keeps a resource that was deleted and made anew from getting its predecessor's status.
    let mut metadata =
        BTreeMap::from([("name", Some(name.clone())), ("uid", root.uid()), ("resourceVersion", version)]);
    metadata.retain(|_, value| value.is_some());
    let patch = json!({
        "apiVersion": K::api_version(&()), "kind": K::kind(&()), "metadata": metadata, "status": status,
    });
    let params = PatchParams::apply(MANAGER).force();
    let doing = || format!("writing the status of {} {name}", K::kind(&()));
    let request = Request::new(K::url_path(&(), root.namespace().as_deref()))
        .patch_subresource("status", &name, &params, &Patch::Apply(&patch))
        .map_err(|error| Error::Unexpected(format!("{}: {error}", doing())))?;
    let written: Written = call(doing, client.request(request)).await?;
    Ok(written.metadata.resource_version)
}
