//! Keeping an object equal to what was rendered, whoever changes it.
//!
//! Server-side apply states what we own; but it leaves what another manager added to a list or a field
//! that we did not mention. So the answer is compared as a whole, and replaced where it differs.

use std::{collections::BTreeMap, fmt::Debug, time::Duration};

use k8s_openapi::{
    NamespaceResourceScope,
    api::admissionregistration::v1::{
        MutatingWebhookConfiguration, ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
        ValidatingWebhookConfiguration,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    Error, Result,
    error::{call, found},
    owner::Owner,
};

/// After so long every API server enforces an admission policy that was written: it rebuilds its policies once a second
/// (`k8s.io/apiserver`, generic/policy_source.go), from watches.
pub const IN_FORCE_AFTER: Duration = Duration::from_secs(3);

/// A kind that is rendered and kept.
pub trait Kept: Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned {
    /// Whether two objects say the same, metadata aside.
    fn same_content(&self, other: &Self) -> bool;
    /// Takes over the content of `other`, leaving metadata as it is.
    fn take_content(&mut self, other: &Self);
}

impl Kept for k8s_openapi::api::networking::v1::NetworkPolicy {
    fn same_content(&self, other: &Self) -> bool {
        crate::network::same_spec(self.spec.as_ref(), other.spec.as_ref())
    }

    fn take_content(&mut self, other: &Self) {
        self.spec.clone_from(&other.spec);
    }
}

/// Kinds whose content is one field, which the API server stores as it was written.
macro_rules! kept {
    ($($kind:ty: $field:ident,)*) => {$(
        impl Kept for $kind {
            fn same_content(&self, other: &Self) -> bool {
                self.$field == other.$field
            }

            fn take_content(&mut self, other: &Self) {
                self.$field.clone_from(&other.$field);
            }
        }
    )*};
}

kept! {
    ValidatingAdmissionPolicy: spec,
    ValidatingAdmissionPolicyBinding: spec,
    ValidatingWebhookConfiguration: webhooks,
    MutatingWebhookConfiguration: webhooks,
}

/// What keeping an object took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing: it was as wanted.
    Unchanged,
    /// It was not there.
    Created,
    /// It was there, and not as wanted.
    Changed,
}

/// Whether `live` is what `wanted` says; foreign labels and annotations don't matter.
#[must_use]
pub fn is_as_wanted<K: Kept>(live: &K, wanted: &K) -> bool {
    wanted.labels().iter().all(|(key, value)| live.labels().get(key) == Some(value)) && live.same_content(wanted)
}

/// Makes the cluster hold `wanted`. `live` is what it was last seen to hold under that name.
///
/// Returns what it holds now, and what that took.
///
/// # Errors
/// When the name is taken by an object that is not `owner`'s, nor was before somebody took its labels, or a call fails.
pub async fn keep<K: Kept + Resource<Scope = NamespaceResourceScope>>(
    client: &Client,
    manager: &str,
    owner: &Owner,
    wanted: &K,
    live: Option<&K>,
) -> Result<(K, Outcome)> {
    let api = Api::<K>::namespaced(client.clone(), &owner.namespace);
    let kept = keep_in(&api, manager, |live| owner.owns(live), wanted, live).await;
    let (kind, name) = match kept {
        Err(Error::Foreign { kind, name }) => (kind, name),
        kept => return kept,
    };
    let now = found(call(|| format!("reading {kind} {name}"), api.get(&name)).await)?;
    if now.as_ref().is_some_and(|now| !was_applied(now.meta(), manager)) {
        return Err(Error::Foreign { kind, name });
    }
    keep_in(&api, manager, |_| true, wanted, now.as_ref()).await
}

/// Whether a manager applied an object once. Nobody else applies as ours, and under names that hold its owner's UID; so
/// labels that say otherwise are a later edit.
#[must_use]
pub fn was_applied(metadata: &ObjectMeta, manager: &str) -> bool {
    let entries = metadata.managed_fields.iter().flatten();
    entries.into_iter().any(|it| it.manager.as_deref() == Some(manager) && it.operation.as_deref() == Some("Apply"))
}

/// As [`keep`], for an API of any scope and any proof of ownership.
///
/// # Errors
/// As [`keep`].
pub async fn keep_in<K: Kept>(
    api: &Api<K>,
    manager: &str,
    is_ours: impl Fn(&BTreeMap<String, String>) -> bool,
    wanted: &K,
    live: Option<&K>,
) -> Result<(K, Outcome)> {
    let name = wanted.name_any();
    if let Some(live) = live {
        if !is_ours(live.labels()) {
            return Err(Error::Foreign { kind: kind::<K>(), name });
        }
        if is_as_wanted(live, wanted) {
            return Ok((live.clone(), Outcome::Unchanged));
        }
    }
    let params = PatchParams::apply(manager).force();
    let doing = || format!("applying {} {name}", kind::<K>());
    let mut applied = call(doing, api.patch(&name, &params, &Patch::Apply(wanted))).await?;
    if !is_as_wanted(&applied, wanted) {
        applied.take_content(wanted);
        let params = PostParams { field_manager: Some(manager.into()), ..PostParams::default() };
        let doing = || format!("replacing {} {name}", kind::<K>());
        applied = call(doing, api.replace(&name, &params, &applied)).await?;
    }
    Ok((applied, if live.is_some() { Outcome::Changed } else { Outcome::Created }))
}

/// Deletes exactly the object that was seen: not one that was made anew under its name, nor one that
/// has changed since. One that is gone already is fine.
///
/// # Errors
/// When a call fails.
pub async fn delete_seen<K: Kept + Resource<Scope = NamespaceResourceScope>>(client: &Client, seen: &K) -> Result<()> {
    delete_seen_in(&Api::namespaced(client.clone(), &seen.namespace().unwrap_or_default()), seen).await
}

/// As [`delete_seen`], for an API of any scope.
///
/// # Errors
/// When a call fails.
pub async fn delete_seen_in<K: Kept>(api: &Api<K>, seen: &K) -> Result<()> {
    let name = seen.name_any();
    let deleted = call(|| format!("deleting {} {name}", kind::<K>()), api.delete(&name, &exactly(seen))).await;
    match deleted {
        Err(error) if error.code() == Some(404) => Ok(()),
        other => other.map(drop),
    }
}

/// Parameters that delete exactly the object that was seen.
#[must_use]
pub fn exactly<K: Resource>(seen: &K) -> DeleteParams {
    let preconditions = Preconditions { uid: seen.uid(), resource_version: seen.resource_version() };
    DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() }
}

fn kind<K: Resource<DynamicType = ()>>() -> &'static str {
    match K::kind(&()) {
        std::borrow::Cow::Borrowed(kind) => kind,
        std::borrow::Cow::Owned(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn who_applied_an_object_is_known_whatever_its_labels_say() {
        let of = |manager: &str, operation: &str| -> ObjectMeta {
            let fields = json!([{"manager": "kubectl-label", "operation": "Update"}, {"manager": manager, "operation": operation}]);
            serde_json::from_value(json!({"name": "a", "managedFields": fields})).unwrap()
        };
        assert!(was_applied(&of("rampart-network", "Apply"), "rampart-network"));
        assert!(!was_applied(&of("kubectl", "Apply"), "rampart-network"));
        assert!(!was_applied(&of("rampart-network", "Update"), "rampart-network"));
        assert!(!was_applied(&ObjectMeta::default(), "rampart-network"));
    }
}
