//! Secrets as one visit of an ApiKey has read or written them last.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use parking_lot::{Mutex, MutexGuard};

/// By name; `None` where there was none. What consumers are given is so the very Secret whose proof was checked, and a
/// write to one that has changed since fails.
#[derive(Default)]
pub struct KeptSecrets(Mutex<BTreeMap<String, Option<Secret>>>);

impl KeptSecrets {
    /// Keeps these, and forgets all others.
    pub(super) fn renew(&self, read: Vec<Secret>) {
        *self.all() = read.into_iter().map(|secret| (secret.name_any(), Some(secret))).collect();
    }

    pub(super) fn keep(&self, name: &str, secret: Option<&Secret>) {
        self.all().insert(name.to_owned(), secret.cloned());
    }

    /// Whether this visit has looked for it.
    pub(super) fn knows(&self, name: &str) -> bool {
        self.all().contains_key(name)
    }

    pub(super) fn get(&self, name: &str) -> Option<Secret> {
        self.all().get(name).cloned().flatten()
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Option<Secret>>> {
        self.0.lock()
    }
}
