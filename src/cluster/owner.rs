//! Whose an object is.
//!
//! Owner references would take NetworkPolicies and live credentials along when a CRD is deleted, so
//! ownership is in labels, and orphans go through the prune brake.

use std::collections::BTreeMap;

use kube::{Resource, ResourceExt as _};

use super::{Error, Result};
use crate::api::labels::{MANAGED_BY, MANAGER, OWNER_KIND, OWNER_NAME, OWNER_UID, PART, RECIPROCAL};

/// The resource that an object is made for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Kind.
    pub kind: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
}

impl Owner {
    /// The owner that `root` is.
    ///
    /// # Errors
    /// When the API server gave it no UID.
    pub fn of<K: Resource<DynamicType = ()>>(root: &K) -> Result<Self> {
        let uid = root.uid().ok_or_else(|| Error::Unexpected("an object without a UID".into()))?;
        Ok(Self {
            kind: K::kind(&()).into_owned(),
            namespace: root.namespace().unwrap_or_default(),
            name: root.name_any(),
            uid,
        })
    }

    /// Labels of everything that is made for this owner.
    #[must_use]
    pub fn labels(&self) -> BTreeMap<String, String> {
        [(MANAGED_BY, MANAGER), (OWNER_KIND, &self.kind), (OWNER_NAME, &self.name), (OWNER_UID, &self.uid)]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into()
    }

    /// Whether an object with these labels was made for this very owner.
    #[must_use]
    pub fn owns(&self, labels: &BTreeMap<String, String>) -> bool {
        self.labels().iter().all(|(key, value)| labels.get(key) == Some(value))
    }

    /// Whether a NetworkPolicy was made for this owner, or for a predecessor of its name. Anybody may write its labels:
    /// they are believed where we applied it, or where its name says the same, as of one that was restored from a backup.
    #[must_use]
    pub fn made<K: Resource>(&self, object: &K, was_applied: bool) -> bool {
        let labels = object.labels();
        let is_said = is_managed(labels, &self.kind) && labels.get(OWNER_NAME) == Some(&self.name);
        is_said && (was_applied || owner_of(object).is_some())
    }

    /// Whether a NetworkPolicy stands by itself: neither made for this owner, nor a half of a connection that some owner
    /// generated.
    #[must_use]
    pub fn is_stranger_to<K: Resource>(&self, object: &K, was_applied: bool) -> bool {
        !is_half(object.labels()) && !self.made(object, was_applied)
    }

    /// The first eight characters of the UID, for names that another owner of this name must not get.
    #[must_use]
    pub fn short_uid(&self) -> &str {
        self.uid.get(..8).unwrap_or(&self.uid)
    }
}

/// Whether Rampart made an object for a resource of `kind`.
#[must_use]
pub fn is_managed(labels: &BTreeMap<String, String>, kind: &str) -> bool {
    labels.get(MANAGED_BY).is_some_and(|value| value == MANAGER)
        && labels.get(OWNER_KIND).is_some_and(|value| value == kind)
}

/// Whether a NetworkPolicy with these labels is a half: it opens the other end of a connection.
#[must_use]
pub fn is_half(labels: &BTreeMap<String, String>) -> bool {
    labels.get(PART).is_some_and(|part| part == RECIPROCAL)
}

/// The kind of policy that a NetworkPolicy was made for, and its name; `None` also where its labels say otherwise than
/// its name, which nobody can edit.
#[must_use]
pub fn owner_of<K: Resource>(object: &K) -> Option<(&str, &str)> {
    let labels = object.labels();
    let kind = labels.get(OWNER_KIND).filter(|kind| is_managed(labels, kind))?;
    let (owner, uid) = (labels.get(OWNER_NAME)?, labels.get(OWNER_UID)?);
    let made_for = object.meta().name.as_deref()?.strip_prefix("rampart-")?.strip_prefix(owner)?.strip_prefix('-')?;
    made_for.starts_with(uid.get(..8).unwrap_or(uid)).then_some((kind, owner))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::networking::v1::NetworkPolicy;
    use serde_json::json;

    use super::*;

    fn policy(name: &str, owner: &str) -> NetworkPolicy {
        let labels = json!({"app.kubernetes.io/managed-by": "rampart", "rampart.dev/owner-kind": "SecurityPolicy",
            "rampart.dev/owner-name": owner, "rampart.dev/owner-uid": "0123456789"});
        serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}})).unwrap()
    }

    #[test]
    fn labels_that_name_another_owner_than_the_name_are_not_believed() {
        let of = |name: &str, owner: &str| {
            owner_of(&policy(name, owner)).map(|(kind, owner)| (kind.to_owned(), owner.to_owned()))
        };
        let web = Some(("SecurityPolicy".to_owned(), "web".to_owned()));
        assert_eq!(of("rampart-web-01234567", "web"), web);
        assert_eq!(of("rampart-web-01234567-89abcdef", "web"), web, "a half");
        assert_eq!((of("rampart-web-01234567", "api"), of("rampart-web-2-01234567", "web")), (None, None));
    }

    #[test]
    fn what_was_made_for_a_name_is_its_owners_and_a_copy_is_a_strangers() {
        let [kind, namespace, name, uid] = ["SecurityPolicy", "shop", "web", "89abcdef01"].map(str::to_owned);
        let owner = Owner { kind, namespace, name, uid };
        let (predecessors, copy) = (policy("rampart-web-01234567", "web"), policy("copy", "web"));
        assert!(owner.made(&predecessors, false) && !owner.made(&copy, false));
        assert!(owner.is_stranger_to(&copy, false) && !owner.is_stranger_to(&predecessors, false));
        assert!(owner.made(&copy, true), "we applied it: its labels were edited since");
        assert!(!owner.made(&policy("rampart-api-01234567", "api"), true), "another policy's");
    }
}
