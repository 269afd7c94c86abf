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

use super::{Error, Result, error::call, metadata_list, pages::each};
use crate::{
    api::{AgeFrom, AnnotationSays, Outcome, Propagation, labels::RETENTION_MARK},
    retention::{Expiry, Holds, Item, Mark, Protection, Spec, Target, TargetSpec, annotation},
};

/// Whole objects of one page: they may be large, and a tenant chooses which are listed.
const WHOLE: u32 = 50;

/// Finds out how the API server calls a kind.
///
/// # Errors
/// `Ok(None)` when it does not serve the kind or the kind is not namespaced; an error when a call fails.
async fn resolve(client: &Client, target: &TargetSpec) -> Result<Option<ApiResource>> {
    let kind = GroupVersionKind::gvk(&target.group, &target.version, &target.kind);
    let doing = || format!("looking up the kind {}", target.kind);
    match call(doing, discovery::pinned_kind(client, &kind)).await {
        Ok((resource, capabilities)) => Ok((capabilities.scope == Scope::Namespaced).then_some(resource)),
        Err(Error::Api { source, .. }) if matches!(*source, kube::Error::Discovery(_)) => Ok(None),
        Err(error) if error.code() == Some(404) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What the targets of a policy are, in the order of its spec, seen with the rights of `client`; or the one whose kind
/// the API server does not have.
///
/// # Errors
/// When a call fails.
pub async fn targets<'a>(
    client: &Client,
    spec: &'a Spec,
) -> Result<std::result::Result<Vec<Retained>, &'a TargetSpec>> {
    let mut targets = vec![];
    for target in &spec.targets {
        let Some(resource) = resolve(client, target).await? else { return Ok(Err(target)) };
        targets.push(Retained::new(client.clone(), spec, &resource, target));
    }
    Ok(Ok(targets))
}

/// What they list, and which of it is held.
///
/// # Errors
/// When one can't be listed whole.
pub async fn listed(targets: &[Retained], holds: &Holds) -> Result<Vec<Target>> {
    let mut listed = vec![];
    for target in targets {
        listed.push(target.list(holds).await?);
    }
    Ok(listed)
}

/// The objects of one target.
pub struct Retained {
    api: Api<DynamicObject>,
    target: TargetSpec,
    /// Plural of the kind, by which holds name it.
    plural: String,
    skip_controlled: bool,
    propagation: Propagation,
}

impl Retained {
    /// Objects of a kind in the policy's namespace, seen with the rights of `client`.
    fn new(client: Client, spec: &Spec, resource: &ApiResource, target: &TargetSpec) -> Self {
        Self {
            api: Api::namespaced_with(client, &spec.namespace, resource),
            target: target.clone(),
            plural: resource.plural.clone(),
            skip_controlled: spec.skip_controlled,
            propagation: spec.propagation,
        }
    }

    /// Lists all of them, page by page, and which of them are held, and what is marked and not one of them any more; half
    /// a list is an error, never a shorter list.
    ///
    /// # Errors
    /// When a call fails.
    pub async fn list(&self, holds: &Holds) -> Result<Target> {
        let mut target = Target::default();
        let mut keep = |object: &DynamicObject| {
            let selected = self.target.selector.matches(object.labels());
            if selected || object.annotations().contains_key(RETENTION_MARK) {
                let item = item(&self.target, (&self.plural, self.skip_controlled), object, holds);
                target.items.push(Item { selected, ..item });
            }
        };
        let kind = &self.target.kind;
        if self.target.age_from == AgeFrom::Completion {
            each(&self.api, ListParams::default().limit(WHOLE), kind, |object| keep(&object)).await?;
        } else {
            // What an object holds stays where it is.
            let bare = |metadata| keep(&DynamicObject { types: None, metadata, data: Value::Null });
            metadata_list::each(&self.api, ListParams::default(), kind, bare).await?;
        }
        Ok(target)
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

    /// Deletes an item exactly as it was seen: it is `Kept` where it has changed or gone since.
    ///
    /// # Errors
    /// When a call fails otherwise.
    pub async fn delete(&self, item: &Item) -> Result<Outcome> {
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: Some(item.uid.clone()),
                resource_version: Some(item.version.clone()),
            }),
            propagation_policy: Some(match self.propagation {
                Propagation::Background => PropagationPolicy::Background,
                Propagation::Foreground => PropagationPolicy::Foreground,
                Propagation::Orphan => PropagationPolicy::Orphan,
            }),
            ..DeleteParams::default()
        };
        let doing = || format!("deleting {} {}", item.kind, item.name);
        match call(doing, self.api.delete(&item.name, &params)).await {
            // The object comes back while something is to be done before it goes.
            Ok(answer) if answer.as_ref().left().is_some_and(|it| it.metadata.deletion_timestamp.is_some()) => {
                Ok(Outcome::Terminating)
            }
            deleted => Ok(if changed(deleted)? { Outcome::Deleted } else { Outcome::Kept }),
        }
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
pub fn item(
    target: &TargetSpec,
    (plural, skip_controlled): (&str, bool),
    object: &DynamicObject,
    holds: &Holds,
) -> Item {
    let controlled = object.owner_references().iter().any(|owner| owner.controller == Some(true));
    let protection = if let Some(hold) = holds.holder(&target.group, plural, object.labels()) {
        Some(Protection::Held(hold.to_string()))
    } else if object.metadata.deletion_timestamp.is_some() {
        Some(Protection::BeingDeleted)
    } else {
        (controlled && skip_controlled).then_some(Protection::ControllerOwned)
    };
    Item {
        kind: target.kind.clone(),
        name: object.name_any(),
        uid: object.uid().unwrap_or_default(),
        version: object.resource_version().unwrap_or_default(),
        created: created(object),
        born: born(target, object),
        expires: expires(target, object),
        mark: object.annotations().get(RETENTION_MARK).cloned(),
        protection,
        selected: true,
    }
}

fn created(object: &DynamicObject) -> Option<Timestamp> {
    object.creation_timestamp().map(|time| time.0)
}

fn born(target: &TargetSpec, object: &DynamicObject) -> Option<Timestamp> {
    let time = |value: &Value| value.as_str().and_then(|text| text.parse::<Timestamp>().ok());
    match target.age_from {
        AgeFrom::Annotation if target.says == AnnotationSays::Since => {
            object.annotations().get(&target.annotation).and_then(|text| text.parse().ok())
        }
        AgeFrom::Creation | AgeFrom::Annotation => created(object),
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

/// When an object says itself that it may go, where the policy asks it.
fn expires(target: &TargetSpec, object: &DynamicObject) -> Option<Expiry> {
    if target.age_from != AgeFrom::Annotation || target.says == AnnotationSays::Since {
        return None;
    }
    let Some(text) = object.annotations().get(&target.annotation) else {
        return Some(Expiry::Unreadable("it has no such annotation".into()));
    };
    Some(match target.says {
        AnnotationSays::Ttl => annotation::ttl(text, created(object)),
        _ => annotation::expires(text),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_tells_when_it_was_made_apart_from_when_its_age_begins() {
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "a", "creationTimestamp": "2026-02-01T00:00:00Z",
                         "annotations": {"example.com/exported-at": "2020-01-01T00:00:00Z"}},
        });
        let target = TargetSpec {
            group: String::new(),
            version: "v1".into(),
            kind: "ConfigMap".into(),
            selector: rampart_reach::Selector::default(),
            age_from: AgeFrom::Annotation,
            annotation: "example.com/exported-at".into(),
            says: AnnotationSays::Since,
        };
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        let item = item(&target, ("configmaps", true), &object, &Holds::default());
        let at = |text: &str| text.parse::<Timestamp>().ok();
        assert_eq!((item.created, item.born), (at("2026-02-01T00:00:00Z"), at("2020-01-01T00:00:00Z")));
    }
}
