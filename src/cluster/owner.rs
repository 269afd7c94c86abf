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

    /// Whether a NetworkPolicy with these labels stands by itself: neither made for this owner, nor a half of a
    /// connection that some owner generated.
    #[must_use]
    pub fn is_stranger_to(&self, labels: &BTreeMap<String, String>) -> bool {
        let half = labels.get(PART).is_some_and(|part| part == RECIPROCAL);
        !half && !self.owns(labels)
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
