//! Writing status: by server-side apply, and only when it changed.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams},
    core::{Request, object::HasStatus},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Error, Result, error::call};
use crate::api::condition::{Conditions, Type, UNREADABLE};

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
    apply::<K>(client, root.meta(), root.resource_version(), status).await
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
    match apply::<K>(client, root.meta(), None, status).await {
        Err(error) if matches!(error.code(), Some(404 | 409)) => Ok(false),
        other => other.map(|_| true),
    }
}

/// Says of an object that can't be read why, unless its status does; the rest of that stays.
///
/// # Errors
/// When a call fails; that the object is gone is not an error.
pub async fn report_unreadable<K>(client: &Client, metadata: &ObjectMeta, why: &str, now: Timestamp) -> Result<()>
where
    K: Resource<DynamicType = ()>,
{
    let (resource, name) = (ApiResource::erase::<K>(&()), metadata.name.as_deref().unwrap_or_default());
    let api: Api<DynamicObject> = match &metadata.namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    // As a list of one: nothing else needs the right to get one.
    let params = ListParams::default().fields(&format!("metadata.name={name}"));
    let listed = call(|| format!("reading {} {name}", K::kind(&())), api.list(&params)).await?;
    let Some(found) = listed.items.into_iter().find(|it| it.metadata.uid == metadata.uid) else { return Ok(()) };
    let status = found.data.get("status").cloned().unwrap_or_default();
    let Some(status) = of_unreadable(status, metadata.generation, why, now) else { return Ok(()) };
    match apply::<K>(client, metadata, None, &status).await {
        Err(error) if matches!(error.code(), Some(404 | 409)) => Ok(()),
        other => other.map(drop),
    }
}

/// The status of an object that can't be read, from what it was; `None` where it is the same.
fn of_unreadable(status: Value, generation: Option<i64>, why: &str, now: Timestamp) -> Option<Value> {
    let last = status.get("conditions").cloned().and_then(|it| serde_json::from_value::<Vec<Condition>>(it).ok());
    let last = last.unwrap_or_default();
    let mut conditions = Conditions::of_generation(generation);
    for kept in &last {
        conditions.keep(kept);
    }
    conditions.set(Type::Accepted, false, UNREADABLE, why);
    conditions.stall(UNREADABLE, why);
    let conditions = conditions.carried_from(&last, now);
    if conditions == last {
        return None;
    }
    let mut status = match status {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    status.insert("conditions".into(), json!(conditions));
    status.insert("observedGeneration".into(), json!(generation));
    Some(Value::Object(status))
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

async fn apply<K: Resource<DynamicType = ()>>(
    client: &Client,
    root: &ObjectMeta,
    version: Option<String>,
    status: &impl Serialize,
) -> Result<Option<String>> {
    let name = root.name.clone().unwrap_or_default();
    // The UID keeps a resource that was deleted and made anew from getting its predecessor's status.
    let mut metadata =
        BTreeMap::from([("name", Some(name.clone())), ("uid", root.uid.clone()), ("resourceVersion", version)]);
    metadata.retain(|_, value| value.is_some());
    let patch = json!({
        "apiVersion": K::api_version(&()), "kind": K::kind(&()), "metadata": metadata, "status": status,
    });
    let params = PatchParams::apply(MANAGER).force();
    let doing = || format!("writing the status of {} {name}", K::kind(&()));
    let request = Request::new(K::url_path(&(), root.namespace.as_deref()))
        .patch_subresource("status", &name, &params, &Patch::Apply(&patch))
        .map_err(|error| Error::Unexpected(format!("{}: {error}", doing())))?;
    let written: Written = call(doing, client.request(request)).await?;
    Ok(written.metadata.resource_version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_not_be_read_keeps_the_rest_of_its_status_and_is_told_once() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let ready = json!({"type": "Ready", "status": "True", "reason": "Ready", "message": "", "observedGeneration": 1,
            "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let status = json!({"observedGeneration": 1, "state": "Active", "conditions": [ready]});
        let told = of_unreadable(status, Some(2), "no such field", at(10)).unwrap();
        assert_eq!((&told["state"], &told["observedGeneration"]), (&json!("Active"), &json!(2)));
        let conditions = told["conditions"].as_array().unwrap().iter();
        let conditions: Vec<String> = conditions
            .map(|it| format!("{} {} {}", it["type"], it["status"], it["message"]).replace('"', ""))
            .collect();
        let said = |kind: &str, status: &str| format!("{kind} {status} no such field");
        let wanted =
            [said("Accepted", "False"), said("Programmed", "False"), said("Ready", "False"), said("Stalled", "True")];
        assert_eq!(conditions, wanted);
        assert_eq!(of_unreadable(told.clone(), Some(2), "no such field", at(20)), None);
        assert!(of_unreadable(told, Some(2), "another", at(20)).is_some());
        assert!(of_unreadable(Value::Null, Some(1), "no such field", at(10)).is_some());
    }
}
