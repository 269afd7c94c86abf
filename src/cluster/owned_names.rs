//! What was made for which ApiKey, by labels: where to look, and not what is true.
//!
//! A list by labels goes through all objects of the cluster, for each ApiKey again. By name each is read alone.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use kube::{Resource, ResourceExt as _, core::PartialObjectMeta, runtime::watcher::Event};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;

use crate::api::{
    KeyRecord,
    labels::{KEY_ENDED, OWNER_NAME, OWNER_NAMESPACE},
};

/// Namespace and name of an ApiKey.
pub type Owner = (String, String);

type Names = HashMap<Owner, BTreeSet<String>>;

/// Names of the objects of one kind that each ApiKey has.
#[derive(Debug, Clone)]
pub struct OwnedNames {
    known: Arc<Mutex<Names>>,
    /// What a list has told so far, while all are being listed.
    listing: Arc<Mutex<Option<Names>>>,
    listed: watch::Sender<bool>,
}

impl Default for OwnedNames {
    fn default() -> Self {
        Self { known: Arc::default(), listing: Arc::default(), listed: watch::channel(false).0 }
    }
}

impl OwnedNames {
    /// Takes note of what a watch of all of them tells; `owner` reads whose an object is. What was given another owner
    /// is known as both's until all are listed again.
    pub fn note<K: Resource>(
        &self,
        event: &Event<PartialObjectMeta<K>>,
        owner: impl Fn(&PartialObjectMeta<K>) -> Option<Owner>,
    ) {
        match event {
            // Tombstones are many. Who has to know of one, by a status or a Secret, knows its name from there.
            Event::Apply(object) | Event::InitApply(object) if object.labels().contains_key(KEY_ENDED) => {
                self.forget(owner(object), &object.name_any());
            }
            Event::Apply(object) => insert(&mut self.known(), owner(object), object.name_any()),
            Event::InitApply(object) => {
                let owner = owner(object);
                if let Some(listing) = self.listing.lock().as_mut() {
                    insert(listing, owner.clone(), object.name_any());
                }
                insert(&mut self.known(), owner, object.name_any());
            }
            Event::Delete(object) => self.forget(owner(object), &object.name_any()),
            Event::Init => *self.listing.lock() = Some(Names::default()),
            Event::InitDone => {
                // What went, or was given another owner, while nobody watched is not known any more: it would be looked
                // for in vain with each look, and counted among what there is.
                let listing = self.listing.lock().take();
                if let Some(listing) = listing {
                    *self.known() = listing;
                }
                self.listed.send_replace(true);
            }
        }
    }

    fn forget(&self, owner: Option<Owner>, name: &str) {
        let Some(owner) = owner else { return };
        let mut known = self.known();
        let is_empty = known.get_mut(&owner).is_some_and(|names| {
            names.remove(name);
            names.is_empty()
        });
        if is_empty {
            known.remove(&owner);
        }
    }

    /// Waits until all have been listed once.
    pub async fn listed(&self) {
        let _ = self.listed.subscribe().wait_for(|listed| *listed).await;
    }

    /// Whether all have been listed once.
    #[must_use]
    pub fn are_listed(&self) -> bool {
        *self.listed.borrow()
    }

    /// Names of what an ApiKey has, as far as was heard.
    #[must_use]
    pub fn of(&self, namespace: &str, name: &str) -> BTreeSet<String> {
        self.known().get(&(namespace.to_owned(), name.to_owned())).cloned().unwrap_or_default()
    }

    /// How many there are in all.
    #[must_use]
    pub fn count(&self) -> usize {
        self.known().values().map(BTreeSet::len).sum()
    }

    /// Whether there is anything of ApiKeys of a namespace, as far as was heard.
    #[must_use]
    pub fn know_namespace(&self, namespace: &str) -> bool {
        self.known().keys().any(|(of, _)| of == namespace)
    }

    /// Those of whom anything was made.
    #[must_use]
    pub fn owners(&self, which: impl Fn(&Owner) -> bool) -> Vec<Owner> {
        self.known().keys().filter(|owner| which(owner)).cloned().collect()
    }

    fn known(&self) -> MutexGuard<'_, Names> {
        self.known.lock()
    }
}

fn insert(names: &mut Names, owner: Option<Owner>, name: String) {
    if let Some(owner) = owner {
        names.entry(owner).or_default().insert(name);
    }
}

/// Whose a record is.
#[must_use]
pub fn owner_of_record(record: &PartialObjectMeta<KeyRecord>) -> Option<Owner> {
    let labels = record.labels();
    Some((labels.get(OWNER_NAMESPACE)?.clone(), labels.get(OWNER_NAME)?.clone()))
}

/// Whose an object in the namespace of its ApiKey is.
#[must_use]
pub fn owner_beside<K: Resource>(object: &PartialObjectMeta<K>) -> Option<Owner> {
    Some((object.namespace()?, object.labels().get(OWNER_NAME)?.clone()))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Secret;
    use serde_json::json;

    use super::*;

    fn record(name: &str, owner: &str) -> PartialObjectMeta<KeyRecord> {
        serde_json::from_value(json!({"metadata": {"name": name, "labels": {
            "rampart.dev/owner-namespace": "shop", "rampart.dev/owner-name": owner}}}))
        .unwrap()
    }

    #[test]
    fn what_a_watch_tells() {
        let names = OwnedNames::default();
        let note = |event| names.note(&event, owner_of_record);
        for (name, owner) in [("a", "orders"), ("b", "orders"), ("c", "stock")] {
            note(Event::InitApply(record(name, owner)));
        }
        assert!(!names.are_listed());
        note(Event::InitDone);
        assert!(names.are_listed());
        note(Event::Delete(record("a", "orders")));
        note(Event::Apply(record("d", "orders")));
        assert_eq!(names.of("shop", "orders"), BTreeSet::from(["b".to_owned(), "d".into()]));
        let mut tombstone = record("b", "orders");
        tombstone.labels_mut().insert(KEY_ENDED.into(), "true".into());
        note(Event::Apply(tombstone));
        assert_eq!(names.of("shop", "orders"), BTreeSet::from(["d".to_owned()]), "what has ended is not looked at");
        assert_eq!(
            (names.count(), names.owners(|(_, name)| name == "stock")),
            (2, vec![("shop".into(), "stock".into())])
        );
        note(Event::Delete(record("c", "stock")));
        assert!(names.of("shop", "stock").is_empty() && names.of("elsewhere", "orders").is_empty());
    }

    #[test]
    fn what_went_while_nobody_watched_is_not_known_any_more() {
        let names = OwnedNames::default();
        let note = |event| names.note(&event, owner_of_record);
        for (name, owner) in [("a", "orders"), ("b", "orders"), ("c", "stock")] {
            note(Event::Apply(record(name, owner)));
        }
        // The watch was lost; meanwhile "a" went, and "c" was given another owner.
        let all = || (names.of("shop", "orders"), names.of("shop", "stock"), names.count());
        let set = |known: &[&str]| known.iter().map(|it| (*it).to_owned()).collect::<BTreeSet<_>>();
        note(Event::Init);
        note(Event::InitApply(record("b", "orders")));
        note(Event::InitApply(record("c", "orders")));
        assert_eq!(all(), (set(&["a", "b", "c"]), set(&["c"]), 4), "nothing is missed while all are listed");
        note(Event::InitDone);
        assert_eq!(all(), (set(&["b", "c"]), set(&[]), 2));
        // What is listed once more, from the start.
        for event in [Event::Init, Event::InitApply(record("b", "orders")), Event::Init, Event::InitDone] {
            note(event);
        }
        assert_eq!(all(), (set(&[]), set(&[]), 0));
    }

    #[test]
    fn a_secret_is_of_an_api_key_beside_it_whatever_else_it_says() {
        let secret: PartialObjectMeta<Secret> = serde_json::from_value(json!({"metadata": {
            "name": "s", "namespace": "books",
            "labels": {"rampart.dev/owner-namespace": "shop", "rampart.dev/owner-name": "orders"}}}))
        .unwrap();
        assert_eq!(owner_beside(&secret), Some(("books".into(), "orders".into())));
    }
}
