//! Writing status: by server-side apply, and only when it changed.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{Patch, PatchParams},
    core::object::HasStatus,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

use super::{Result, error::call};

/// Field manager of statuses.
const MANAGER: &str = "rampart-status";

/// Writes `status` if it differs from what `root` was last seen to have. Returns whether it wrote.
///
/// # Errors
/// When the call fails; that the object is gone is not an error.
pub async fn report<K>(client: &Client, root: &K, status: &K::Status) -> Result<bool>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + HasStatus + Clone + Debug + DeserializeOwned,
    K::Status: PartialEq + Serialize,
{
    if root.status() == Some(status) {
        return Ok(false);
    }
    let api: Api<K> = Api::namespaced(client.clone(), &root.namespace().unwrap_or_default());
    let name = root.name_any();
    // The UID keeps a resource that was deleted and made anew from getting its predecessor's status.
    let patch = json!({
        "apiVersion": K::api_version(&()), "kind": K::kind(&()),
        "metadata": {"name": name, "uid": root.uid()}, "status": status,
    });
    let params = PatchParams::apply(MANAGER).force();
    let doing = || format!("writing the status of {} {name}", K::kind(&()));
    match call(doing, api.patch_status(&name, &params, &Patch::Apply(&patch))).await {
        Err(error) if matches!(error.code(), Some(404 | 409)) => Ok(false),
        other => other.map(|_| true),
    }
}
