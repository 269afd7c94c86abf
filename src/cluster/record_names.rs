//! Which KeyRecords are whose, by their labels: where to look, and not what is true.
//!
//! A list by labels goes through all records of the cluster, for each ApiKey again. By name each is read alone.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use kube::{ResourceExt as _, core::PartialObjectMeta, runtime::watcher::Event};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;

use crate::api::{
    KeyRecord,
    labels::{KEY_ENDED, OWNER_NAME, OWNER_NAMESPACE},
};

type Names = HashMap<(String, String), BTreeSet<String>>;

/// Names of the KeyRecords of each ApiKey.
#[derive(Debug, Clone)]
pub struct RecordNames {
    known: Arc<Mutex<Names>>,
    listed: watch::Sender<bool>,
}

impl Default for RecordNames {
    fn default() -> Self {
        Self { known: Arc::default(), listed: watch::channel(false).0 }
    }
}

impl RecordNames {
    /// Takes note of what a watch of all records tells.
    pub fn note(&self, event: &Event<PartialObjectMeta<KeyRecord>>) {
        match event {
            // Tombstones are for ever. Who has to know of one, by a status or a Secret, knows its name from there.
            Event::Apply(record) | Event::InitApply(record) if record.labels().contains_key(KEY_ENDED) => {
                self.forget(record);
            }
            Event::Apply(record) | Event::InitApply(record) => {
                if let Some(owner) = owner(record) {
                    self.known().entry(owner).or_default().insert(record.name_any());
                }
            }
            // A name that is known too long is looked for in vain, and no harm is done.
            Event::Delete(record) => self.forget(record),
            Event::Init => {}
            Event::InitDone => drop(self.listed.send_replace(true)),
        }
    }

    fn forget(&self, record: &PartialObjectMeta<KeyRecord>) {
        let Some(owner) = owner(record) else { return };
        let mut known = self.known();
        let is_empty = known.get_mut(&owner).is_some_and(|names| {
            names.remove(&record.name_any());
            names.is_empty()
        });
        if is_empty {
            known.remove(&owner);
        }
    }

    /// Waits until all records have been listed once.
    pub async fn listed(&self) {
        let _ = self.listed.subscribe().wait_for(|listed| *listed).await;
    }

    /// Names of the records of an ApiKey, as far as was heard.
    #[must_use]
    pub fn of(&self, namespace: &str, name: &str) -> BTreeSet<String> {
        self.known().get(&(namespace.to_owned(), name.to_owned())).cloned().unwrap_or_default()
    }

    /// Whether there are records of ApiKeys of a namespace, as far as was heard.
    #[must_use]
    pub fn know_namespace(&self, namespace: &str) -> bool {
        self.known().keys().any(|(of, _)| of == namespace)
    }

    fn known(&self) -> MutexGuard<'_, Names> {
        self.known.lock()
    }
}

/// Namespace and name of the ApiKey.
fn owner(record: &PartialObjectMeta<KeyRecord>) -> Option<(String, String)> {
    let labels = record.labels();
    Some((labels.get(OWNER_NAMESPACE)?.clone(), labels.get(OWNER_NAME)?.clone()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn record(name: &str, owner: &str) -> PartialObjectMeta<KeyRecord> {
        serde_json::from_value(json!({"metadata": {"name": name, "labels": {
            "rampart.dev/owner-namespace": "shop", "rampart.dev/owner-name": owner}}}))
        .unwrap()
    }

    #[test]
    fn what_a_watch_tells() {
        let names = RecordNames::default();
        for (name, owner) in [("a", "orders"), ("b", "orders"), ("c", "stock")] {
            names.note(&Event::InitApply(record(name, owner)));
        }
        assert!(!*names.listed.borrow());
        names.note(&Event::InitDone);
        assert!(*names.listed.borrow());
        names.note(&Event::Delete(record("a", "orders")));
        names.note(&Event::Apply(record("d", "orders")));
        assert_eq!(names.of("shop", "orders"), BTreeSet::from(["b".to_owned(), "d".into()]));
        let mut tombstone = record("b", "orders");
        tombstone.labels_mut().insert(KEY_ENDED.into(), "true".into());
        names.note(&Event::Apply(tombstone));
        assert_eq!(names.of("shop", "orders"), BTreeSet::from(["d".to_owned()]), "what has ended is not looked at");
        names.note(&Event::Delete(record("c", "stock")));
        assert!(names.of("shop", "stock").is_empty() && names.of("elsewhere", "orders").is_empty());
        assert!(names.know_namespace("shop") && !names.know_namespace("elsewhere"));
    }
}
