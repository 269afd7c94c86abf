//! The pods of the cluster as NetworkPolicies see them. The scan follows pods, and tells of them here.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::{Mutex, MutexGuard};
use rampart_reach::Namespace;
use tokio::{sync::watch, task::block_in_place};

use crate::{
    cluster::{follow::Key, policy_index::PolicyIndex},
    network::{Population, Resident},
};

/// Pods are indexed at most this often, while they come and go.
const SETTLE: Duration = Duration::from_secs(1);

/// The pods.
#[derive(Clone)]
pub struct Residents {
    namespaces: PolicyIndex,
    state: Arc<Mutex<State>>,
    /// Counts changes that a policy could tell.
    changes: watch::Sender<u64>,
    listed: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    pods: BTreeMap<Key, Resident>,
    /// Namespaces with changes that nobody asked for yet.
    changed: BTreeSet<String>,
    /// What was indexed last, when, and after how many changes of pods and of labels of namespaces.
    made: Option<(Arc<Population>, Instant, [u64; 2])>,
}

impl Residents {
    /// Nobody yet; labels of namespaces are the index's.
    #[must_use]
    pub fn new(namespaces: PolicyIndex) -> Self {
        Self { namespaces, state: Arc::default(), changes: watch::Sender::new(0), listed: watch::Sender::new(false) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Takes in what a pod is now; `None` where it has finished.
    pub(super) fn put(&self, key: Key, resident: Option<Resident>) {
        let mut state = self.state();
        if state.pods.get(&key) == resident.as_ref() {
            return;
        }
        state.changed.insert(key.0.clone());
        match resident {
            Some(resident) => drop(state.pods.insert(key, resident)),
            None => drop(state.pods.remove(&key)),
        }
        drop(state);
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// All pods have been listed: these are there, and no others.
    pub(super) fn listed(&self, there: &BTreeSet<Key>) {
        let gone: Vec<Key> = self.state().pods.keys().filter(|key| !there.contains(*key)).cloned().collect();
        for key in gone {
            self.put(key, None);
        }
        self.listed.send_replace(true);
    }

    /// Waits until all pods have been listed once.
    pub(super) async fn were_listed(&self) {
        let _ = self.listed.subscribe().wait_for(|listed| *listed).await;
    }

    /// Changes its value whenever pods have changed so that a policy could tell.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Namespaces whose pods have changed since this was last asked.
    pub(super) fn take_changed(&self) -> BTreeSet<String> {
        std::mem::take(&mut self.state().changed)
    }

    /// The pods, indexed: as of now, or of a moment ago while they come and go. Whoever is told of pods that changed
    /// must be told after [`Residents::refresh`], or may not see what changed last, and is not told again.
    pub(super) fn population(&self) -> Arc<Population> {
        self.indexed(SETTLE)
    }

    /// Indexes the pods as they are now.
    pub(super) fn refresh(&self) {
        self.indexed(Duration::ZERO);
    }

    fn indexed(&self, settle: Duration) -> Arc<Population> {
        let now = [*self.changes.borrow(), *self.namespaces.label_changes().borrow()];
        let mut state = self.state();
        if let Some((made, at, of)) = &state.made
            && (*of == now || at.elapsed() < settle)
        {
            return Arc::clone(made);
        }
        let known = self.namespaces.known();
        let namespaces: Vec<Namespace> = known
            .labels
            .iter()
            .map(|(name, labels)| Namespace { name: name.clone(), labels: BTreeMap::clone(labels) })
            .collect();
        let made = block_in_place(|| Arc::new(Population::new(namespaces, state.pods.values().cloned())));
        state.made = Some((Arc::clone(&made), Instant::now(), now));
        made
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn who_is_told_of_a_pod_sees_it_however_short_ago_pods_were_indexed() {
        let residents = Residents::new(PolicyIndex::default());
        let put = |name: &str| residents.put(("n".into(), name.into()), Some(Resident::default()));
        put("first");
        assert_eq!(residents.population().needs.len(), 1);
        put("second");
        assert_eq!(residents.population().needs.len(), 1, "not indexed again so soon");
        residents.refresh();
        assert_eq!(residents.population().needs.len(), 2);
    }
}
