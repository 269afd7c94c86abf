//! Which policies are looked at again when a hold begins, changes or ends.
//!
//! What is deleted does not wait for that: a sweep asks for the holds before each batch, and the API server refuses.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use kube::{Api, Client, ResourceExt as _, core::DeserializeGuard, runtime::reflector::ObjectRef};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, watch};

use crate::{
    api::RetentionPolicy,
    cluster::{
        follow::{Key, follow},
        holds::Holding,
        policy_index::PolicyIndex,
    },
    controllers::Roots,
    retention::Hold,
    runtime::clock,
};

/// Where to send whom to wake.
pub(super) type One = mpsc::UnboundedSender<ObjectRef<DeserializeGuard<RetentionPolicy>>>;

/// Changes that come together are told together.
const SETTLE: Duration = Duration::from_secs(1);

/// A hold that is not over; `None` where it can't be read, and then whatever it may be about is kept.
#[derive(Debug, Clone, PartialEq)]
struct Said(Option<Hold>);

/// Holds of a kind as they were told last, and those that are not as they were when policies were woken.
#[derive(Debug, Default)]
struct Changes {
    known: BTreeMap<Key, Said>,
    /// With their own namespaces, as before and as now.
    changed: Vec<(String, Said)>,
}

/// Wakes the policies of the namespaces that such holds are about, for ever.
pub(super) async fn for_holds<K: Holding>(
    client: Client,
    policies: PolicyIndex,
    (roots, one): (Roots<RetentionPolicy>, One),
) {
    let (changes, news) = (Mutex::new(Changes::default()), Notify::new());
    let listed = watch::Sender::new(false);
    let following = follow(
        Api::<DeserializeGuard<K>>::all(client),
        |hold, _| said(hold),
        |all, key| {
            let mut changes = changes.lock();
            changes.note(all, key);
            if !roots.are_listed() {
                // Every policy is still to be looked at.
                changes.changed.clear();
            }
            news.notify_one();
        },
        &listed,
    );
    let waking = async {
        loop {
            news.notified().await;
            tokio::time::sleep(SETTLE).await;
            let told = std::mem::take(&mut changes.lock().changed);
            let known = policies.known();
            let is_concerned = |root: &DeserializeGuard<RetentionPolicy>| {
                let namespace = root.namespace().unwrap_or_default();
                let labels = known.labels.get(&namespace);
                told.iter().any(|(own, said)| said.is_about(own, &namespace, labels.map(|it| &**it)))
            };
            roots.wake(&one, is_concerned);
        }
    };
    tokio::select! {
        () = following => {}
        () = waking => {}
    }
}

/// What a hold says; `None` where it was seen to end. Its status says nothing else of what is kept.
fn said<K: Holding>(hold: &DeserializeGuard<K>) -> Option<Said> {
    let Ok(object) = &hold.0 else { return Some(Said(None)) };
    object.unless_past(clock::now()).map(|read| Said(read.ok()))
}

impl Said {
    /// Whether it may be about a namespace: of one whose labels are not known yet, that is not known.
    fn is_about(&self, own: &str, namespace: &str, labels: Option<&BTreeMap<String, String>>) -> bool {
        if !own.is_empty() {
            return own == namespace;
        }
        self.0.as_ref().zip(labels).is_none_or(|(hold, labels)| hold.is_about(namespace, labels))
    }
}

impl Changes {
    /// Notes one that may have changed, or all after a list.
    fn note(&mut self, all: &BTreeMap<Key, Said>, key: Option<&Key>) {
        let keys: BTreeSet<Key> = match key {
            Some(key) => [key.clone()].into(),
            None => self.known.keys().chain(all.keys()).cloned().collect(),
        };
        for key in keys {
            let own = key.0.clone();
            let now = all.get(&key);
            let before = match now {
                Some(now) => self.known.insert(key, now.clone()),
                None => self.known.remove(&key),
            };
            if before.as_ref() != now {
                let both = [before, now.cloned()].into_iter().flatten();
                self.changed.extend(both.map(|said| (own.clone(), said)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::api::{ClusterLegalHold, LegalHold};

    fn hold(namespace: Option<&str>, more: &Value) -> Value {
        let mut hold = json!({
            "apiVersion": "rampart.dev/v1alpha1",
            "metadata": {"name": "case-17", "namespace": namespace, "uid": "u", "generation": 1},
            "spec": {"resources": [{"resource": "configmaps"}], "selector": {"matchLabels": {"case": "17"}},
                     "indefinite": true, "ground": "litigation"},
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            for (field, value) in value.as_object().into_iter().flatten() {
                hold[key][field] = value.clone();
            }
        }
        hold
    }

    fn own(namespace: &str, more: &Value) -> Option<Said> {
        said::<LegalHold>(&serde_json::from_value(hold(Some(namespace), more)).unwrap())
    }

    fn wide(labels: &Value) -> Option<Said> {
        let selector = json!({"spec": {"namespaceSelector": {"matchLabels": labels}}});
        said::<ClusterLegalHold>(&serde_json::from_value(hold(None, &selector)).unwrap())
    }

    /// One that no version of the schema admits.
    fn unreadable(namespace: &str) -> Option<Said> {
        own(namespace, &json!({"spec": {"resources": 7}}))
    }

    /// Which namespaces a change wakes: two of a team, and one whose labels are not known.
    fn woken(changes: &mut Changes, own: &str, now: Option<Said>) -> Vec<&'static str> {
        let key = (own.to_owned(), "case-17".to_owned());
        changes.note(&now.map(|said| (key.clone(), said)).into_iter().collect(), Some(&key));
        let told = std::mem::take(&mut changes.changed);
        let labels = |team: &str| Some(BTreeMap::from([("team".to_owned(), team.to_owned())]));
        let all = [("shop", labels("ads")), ("data", labels("bi")), ("new", None)];
        let is_woken = |(namespace, labels): &(&'static str, Option<BTreeMap<String, String>>)| {
            let is_about = |(own, said): &(String, Said)| said.is_about(own, namespace, labels.as_ref());
            told.iter().any(is_about).then_some(*namespace)
        };
        all.iter().filter_map(is_woken).collect()
    }

    #[test]
    fn a_hold_of_a_namespace_wakes_no_other() {
        let changes = &mut Changes::default();
        assert_eq!(woken(changes, "shop", own("shop", &json!({}))), ["shop"]);
        let wider = json!({"spec": {"selector": {"matchLabels": {}}}});
        assert_eq!(woken(changes, "shop", own("shop", &wider)), ["shop"]);
        assert_eq!(woken(changes, "shop", unreadable("shop")), ["shop"]);
        assert_eq!(woken(changes, "shop", None), ["shop"], "it was released");
    }

    #[test]
    fn what_is_written_into_its_status_wakes_nobody_but_that_it_has_ended() {
        let (changes, over) = (&mut Changes::default(), json!({"indefinite": null, "until": "2020-01-01T00:00:00Z"}));
        let told = |state: &str| {
            let status = json!({"state": state, "observedGeneration": 1, "conditions": []});
            own("shop", &json!({"spec": over, "status": status}))
        };
        assert_eq!(woken(changes, "shop", own("shop", &json!({"spec": over}))), ["shop"]);
        assert!(woken(changes, "shop", told("Pending")).is_empty());
        assert!(woken(changes, "shop", told("Active")).is_empty());
        assert_eq!(woken(changes, "shop", told("Expired")), ["shop"]);
        assert!(woken(changes, "shop", None).is_empty(), "it kept nothing any more");
    }

    #[test]
    fn a_hold_that_earlier_builds_alone_admitted_keeps_everything_until_it_was_seen_to_end() {
        let keys = json!([{"group": "rampart.dev", "resource": "apikeys"}]);
        let over = json!({"resources": keys, "indefinite": null, "until": "2020-01-01T00:00:00Z"});
        assert_eq!(own("shop", &json!({"spec": over})), Some(Said(None)));
        let told = |generation: i64| {
            let status = json!({"state": "Expired", "observedGeneration": generation, "conditions": []});
            own("shop", &json!({"spec": over, "status": status}))
        };
        assert_eq!((told(0), told(1)), (Some(Said(None)), None));
    }

    #[test]
    fn a_hold_of_many_namespaces_wakes_those_that_it_selects_or_did() {
        let changes = &mut Changes::default();
        assert_eq!(woken(changes, "", wide(&json!({"team": "ads"}))), ["shop", "new"]);
        assert_eq!(woken(changes, "", wide(&json!({"team": "bi"}))), ["shop", "data", "new"]);
        assert_eq!(woken(changes, "", wide(&json!({"team": "none"}))), ["data", "new"]);
    }

    #[test]
    fn a_list_made_anew_wakes_those_of_what_has_changed_in_between() {
        let mut changes = Changes::default();
        let all = |namespaces: &[&str]| -> BTreeMap<Key, Said> {
            let said = |namespace: &&str| Some((((*namespace).into(), "case-17".into()), own(namespace, &json!({}))?));
            namespaces.iter().filter_map(said).collect()
        };
        changes.note(&all(&["shop", "data"]), None);
        changes.changed.clear();
        changes.note(&all(&["shop", "data"]), None);
        assert!(changes.changed.is_empty(), "{:?}", changes.changed);
        changes.note(&all(&["shop", "new"]), None);
        let told: Vec<&str> = changes.changed.iter().map(|(own, _)| own.as_str()).collect();
        assert_eq!(told, ["data", "new"]);
    }
}
