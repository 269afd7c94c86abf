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
    /// What was indexed last. It is held while pods are indexed, which takes long: they come and go meanwhile.
    made: Arc<Mutex<Option<Made>>>,
    /// Counts changes that a policy could tell.
    changes: watch::Sender<u64>,
    listed: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    pods: BTreeMap<Key, Arc<Resident>>,
    /// Of each that follows them, namespaces with changes that it has not asked for yet.
    changed: Vec<BTreeSet<String>>,
}

/// Pods, indexed.
struct Made {
    population: Arc<Population>,
    at: Instant,
    /// After how many changes of pods and of labels of namespaces.
    of: [u64; 2],
}

/// One that follows the namespaces whose pods change.
pub(super) struct Follower {
    state: Arc<Mutex<State>>,
    place: usize,
}

impl Follower {
    /// Namespaces whose pods have changed since it last asked.
    pub(super) fn take(&self) -> BTreeSet<String> {
        self.state.lock().changed.get_mut(self.place).map(std::mem::take).unwrap_or_default()
    }
}

impl Residents {
    /// Nobody yet; labels of namespaces are the index's.
    #[must_use]
    pub fn new(namespaces: PolicyIndex) -> Self {
        Self {
            namespaces,
            state: Arc::default(),
            made: Arc::default(),
            changes: watch::Sender::new(0),
            listed: watch::Sender::new(false),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Takes in what a pod is now; `None` where it has finished.
    pub(super) fn put(&self, key: Key, resident: Option<Resident>) {
        let mut state = self.state();
        if state.pods.get(&key).map(|known| &**known) == resident.as_ref() {
            return;
        }
        for changed in &mut state.changed {
            changed.insert(key.0.clone());
        }
        match resident {
            Some(resident) => drop(state.pods.insert(key, Arc::new(resident))),
            None => drop(state.pods.remove(&key)),
        }
        // Before the state is another's: who takes the namespaces that changed knows that they did.
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

    /// Follows the namespaces whose pods change from now on.
    pub(super) fn follow(&self) -> Follower {
        let mut state = self.state();
        state.changed.push(BTreeSet::new());
        Follower { state: Arc::clone(&self.state), place: state.changed.len().saturating_sub(1) }
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
        // Threads of their own only for what takes long, as it does to wait for somebody else who indexes.
        let mut made = self.made.try_lock().unwrap_or_else(|| block_in_place(|| self.made.lock()));
        let now = [*self.changes.borrow(), *self.namespaces.label_changes().borrow()];
        if let Some(Made { population, at, of }) = &*made
            && (*of == now || at.elapsed() < settle)
        {
            return Arc::clone(population);
        }
        let population = block_in_place(|| Arc::new(self.index()));
        *made = Some(Made { population: Arc::clone(&population), at: Instant::now(), of: now });
        population
    }

    fn index(&self) -> Population {
        let known = self.namespaces.known();
        let namespaces: Vec<Namespace> = known
            .labels
            .iter()
            .map(|(name, labels)| Namespace { name: name.clone(), labels: BTreeMap::clone(labels) })
            .collect();
        // Whoever brings pods waits for no more than this.
        let residents: Vec<Arc<Resident>> = self.state().pods.values().cloned().collect();
        Population::new(namespaces, residents.iter().map(|resident| (**resident).clone()))
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

    #[test]
    fn each_that_follows_is_told_of_the_namespaces_that_changed() {
        let residents = Residents::new(PolicyIndex::default());
        let put = |namespace: &str, resident| residents.put((namespace.into(), "pod".into()), resident);
        put("before", Some(Resident::default()));
        let [one, other] = [residents.follow(), residents.follow()];
        put("a", Some(Resident::default()));
        put("before", Some(Resident::default()));
        assert_eq!(one.take(), ["a".to_owned()].into(), "what is the same is no change");
        put("b", None);
        put("a", None);
        assert_eq!(one.take(), ["a".to_owned()].into());
        assert_eq!(other.take(), ["a".to_owned()].into());
        assert!(one.take().is_empty());
    }
}
