//! Which ApiKeys are being looked at, and whom an event wakes.
//!
//! A visit writes Secrets and records, and goes on with the answers. The watches tell of these writes again, often
//! before the answer is here: what is heard during a visit is held back until its end, and wakes the ApiKey only if
//! it was not the visit's own doing.

use std::collections::HashMap;

use kube::{Resource, core::DeserializeGuard, runtime::reflector::ObjectRef};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::mpsc;

use crate::{
    api::ApiKey,
    cluster::own_writes::{OwnWrites, Revision},
};

/// Namespace and name of an ApiKey.
pub(super) type Name = (String, String);

/// The visits that are under way.
pub(super) struct Visits {
    /// What they wrote.
    pub(super) own: OwnWrites,
    one: mpsc::UnboundedSender<ObjectRef<DeserializeGuard<ApiKey>>>,
    /// What was heard meanwhile.
    held: Mutex<HashMap<Name, Vec<Revision>>>,
}

/// One of them, for as long as it lives.
pub(super) struct Visit<'a> {
    visits: &'a Visits,
    name: Name,
}

impl Visits {
    pub(super) fn new(one: mpsc::UnboundedSender<ObjectRef<DeserializeGuard<ApiKey>>>) -> Self {
        Self { own: OwnWrites::default(), one, held: Mutex::default() }
    }

    pub(super) fn begin(&self, name: Name) -> Visit<'_> {
        self.held().insert(name.clone(), vec![]);
        Visit { visits: self, name }
    }

    /// An object of an ApiKey was changed: by whom?
    pub(super) fn heard<K: Resource>(&self, name: &Name, object: &K) {
        if let Some(revision) = Revision::of(object) {
            if self.own.is_echo(&revision) {
                return;
            }
            if let Some(held) = self.held().get_mut(name) {
                held.push(revision);
                return;
            }
        }
        self.wake(name);
    }

    /// Has an ApiKey looked at, whoever is the cause.
    pub(super) fn wake(&self, (namespace, name): &Name) {
        let _ = self.one.send(ObjectRef::new(name).within(namespace));
    }

    fn held(&self) -> MutexGuard<'_, HashMap<Name, Vec<Revision>>> {
        self.held.lock()
    }
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        let held = self.visits.held().remove(&self.name).unwrap_or_default();
        // All are asked: an echo is forgotten once it was heard.
        let news = held.iter().filter(|revision| !self.visits.own.is_echo(revision)).count();
        if news > 0 {
            self.visits.wake(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Secret;
    use serde_json::json;

    use super::*;

    fn secret(version: &str) -> Secret {
        serde_json::from_value(json!({"metadata": {"uid": "a", "resourceVersion": version}})).unwrap()
    }

    #[test]
    fn a_visit_is_not_woken_by_its_own_writes() {
        let name = || ("n".to_owned(), "k".to_owned());
        let (one, mut woken) = mpsc::unbounded_channel();
        let visits = Visits::new(one);
        let own = &visits.own;
        let mut is_woken = move || woken.try_recv().is_ok();

        let visit = visits.begin(name());
        visits.heard(&name(), &secret("1"));
        own.note(&secret("1"));
        drop(visit);
        assert!(!is_woken(), "the event was faster than the answer");

        let visit = visits.begin(name());
        own.note(&secret("2"));
        drop(visit);
        visits.heard(&name(), &secret("2"));
        assert!(!is_woken(), "the event came after the visit");

        let visit = visits.begin(name());
        visits.heard(&name(), &secret("3"));
        assert!(!is_woken(), "the visit is under way");
        drop(visit);
        assert!(is_woken(), "somebody else wrote");

        visits.heard(&name(), &secret("4"));
        assert!(is_woken(), "somebody else wrote while nobody looked");
        visits.wake(&name());
        assert!(is_woken(), "it is gone");
    }
}
