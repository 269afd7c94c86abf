//! Kubernetes objects as items of retention: listing, marking and deleting them, as the service account
//! that the policy names.

use jiff::Timestamp;
use kube::{
    Api, Client, ResourceExt as _,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, Preconditions, PropagationPolicy},
    core::GroupVersionKind,
    discovery::{self, Scope},
};
use serde_json::{Value, json};

use super::{Error, Result, error::call};
use crate::{
    api::{AgeFrom, labels::RETENTION_MARK},
    retention::{Holds, Item, Mark, Protection, Target, TargetSpec},
};

/// Objects may be large, and a tenant chooses which are listed.
const PAGE: u32 = 50;

/// Finds out how the API server calls a kind.
///
/// # Errors
/// `Ok(None)` when it does not serve the kind or the kind is not namespaced; an error when a call fails.
pub async fn resolve(client: &Client, target: &TargetSpec) -> Result<Option<ApiResource>> {
    let kind = GroupVersionKind::gvk(&target.group, &target.version, &target.kind);
    let doing = || format!("looking up the kind {}", target.kind);
    match call(doing, discovery::pinned_kind(client, &kind)).await {
        Ok((resource, capabilities)) => Ok((capabilities.scope == Scope::Namespaced).then_some(resource)),
        Err(Error::Api { source, .. }) if matches!(*source, kube::Error::Discovery(_)) => Ok(None),
        Err(error) if error.code() == Some(404) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The objects of one target.
pub struct Retained {
    api: Api<DynamicObject>,
    target: TargetSpec,
    /// Plural of the kind, by which holds name it.
    plural: String,
}

impl Retained {
    /// Objects of a kind in a namespace, seen with the rights of `client`.
    #[must_use]
    pub fn new(client: Client, namespace: &str, resource: &ApiResource, target: &TargetSpec) -> Self {
        let plural = resource.plural.clone();
        Self { api: Api::namespaced_with(client, namespace, resource), target: target.clone(), plural }
    }

    /// Lists all of them, page by page, and which of them are held; half a list is an error, never a shorter list.
    ///
    /// # Errors
    /// When a call fails.
    pub async fn list(&self, holds: &Holds) -> Result<Target> {
        let kind = &self.target.kind;
        let mut params = ListParams::default().limit(PAGE);
        let mut target = Target::default();
        loop {
            let page = call(|| format!("listing {kind}"), self.api.list(&params)).await?;
            let next = page.metadata.continue_.clone().filter(|token| !token.is_empty());
            let selected = page.items.iter().filter(|object| self.target.selector.matches(object.labels()));
            target.items.extend(selected.map(|object| item(&self.target, &self.plural, object, holds)));
            match next {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(target),
            }
        }
    }

    /// Puts the mark on an item, or takes it off, exactly as the item was seen. `false`: it has changed
    /// or gone since, and is judged anew next time.
    ///
    /// # Errors
    /// When a call fails otherwise.
    pub async fn mark(&self, item: &Item, mark: Option<&Mark>) -> Result<bool> {
        let patch = json!({"metadata": {
            "uid": item.uid, "resourceVersion": item.version,
            "annotations": {RETENTION_MARK: mark.map(Mark::to_text)},
        }});
        let doing = || format!("marking {} {}", item.kind, item.name);
        let params = PatchParams { field_manager: Some("rampart-retention".into()), ..PatchParams::default() };
        changed(call(doing, self.api.patch(&item.name, &params, &Patch::Merge(&patch))).await)
    }

    /// Deletes an item exactly as it was seen. `false`: it has changed or gone since.
    ///
    /// # Errors
    /// When a call fails otherwise.
    pub async fn delete(&self, item: &Item) -> Result<bool> {
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: Some(item.uid.clone()),
                resource_version: Some(item.version.clone()),
            }),
            propagation_policy: Some(PropagationPolicy::Background),
            ..DeleteParams::default()
        };
        let doing = || format!("deleting {} {}", item.kind, item.name);
        changed(call(doing, self.api.delete(&item.name, &params)).await)
    }
}

fn changed<T>(result: Result<T>) -> Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.code(), Some(404 | 409)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// An object as retention sees it.
#[must_use]
pub fn item(target: &TargetSpec, plural: &str, object: &DynamicObject, holds: &Holds) -> Item {
    let controlled = object.owner_references().iter().any(|owner| owner.controller == Some(true));
    let protection = if let Some(hold) = holds.holder(&target.group, plural, object.labels()) {
        Some(Protection::Held(hold.to_string()))
    } else if object.metadata.deletion_timestamp.is_some() {
        Some(Protection::BeingDeleted)
    } else {
        controlled.then_some(Protection::ControllerOwned)
    };
    Item {
        kind: target.kind.clone(),
        name: object.name_any(),
        uid: object.uid().unwrap_or_default(),
        version: object.resource_version().unwrap_or_default(),
        born: born(target, object),
        mark: object.annotations().get(RETENTION_MARK).cloned(),
        protection,
    }
}

fn born(target: &TargetSpec, object: &DynamicObject) -> Option<Timestamp> {
    let time = |value: &Value| value.as_str().and_then(|text| text.parse::<Timestamp>().ok());
    match target.age_from {
        AgeFrom::Creation => object.creation_timestamp().map(|time| time.0),
        AgeFrom::Annotation => object.annotations().get(&target.annotation).and_then(|text| text.parse().ok()),
        AgeFrom::Completion => {
            let status = object.data.get("status")?;
            let failed = status.get("conditions").and_then(Value::as_array).into_iter().flatten().find(|condition| {
                condition.get("type").is_some_and(|kind| kind == "Failed")
                    && condition.get("status").is_some_and(|status| status == "True")
            });
            let completed = status.get("completionTime").and_then(time);
            completed.or_else(|| failed?.get("lastTransitionTime").and_then(time))
        }
    }
}
