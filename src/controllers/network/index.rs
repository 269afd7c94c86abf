//! The NetworkPolicies of the cluster, by namespace, as of the last event or the last own write,
//! whichever is newer.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, OnceLock},
};

use futures::StreamExt as _;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::{
    Api, Client, ResourceExt as _,
    runtime::{WatchStreamExt as _, watcher},
};
use parking_lot::RwLock;
use rampart_reach::Policy;
use tokio_util::sync::CancellationToken;

use super::keep::MANAGER;
use crate::{
    cluster::{
        apply::{is_as_wanted, was_applied},
        client::PAGE,
        follow::Key,
    },
    network::understood,
    runtime::readiness::Gate,
};

pub(super) type ByName = BTreeMap<String, Arc<Live>>;

/// A NetworkPolicy of the cluster.
#[derive(Debug, Default)]
pub(in super::super) struct Live {
    /// As it is written, but for its managed fields: they take more memory than the rest.
    pub(super) object: NetworkPolicy,
    /// Whether we applied it, whatever its labels say.
    pub(super) was_applied: bool,
    /// As the analysis understands it, once it was asked.
    understood: OnceLock<Option<Policy>>,
    /// Set once it is known that it was made for a policy that was there then.
    ours: OnceLock<()>,
}

impl Live {
    pub(super) fn new(mut object: NetworkPolicy) -> Arc<Self> {
        let was_applied = was_applied(&object.metadata, MANAGER);
        object.metadata.managed_fields = None;
        Arc::new(Self { object, was_applied, ..Self::default() })
    }

    /// What it allows.
    pub(super) fn understood(&self) -> Option<&Policy> {
        self.understood.get_or_init(|| understood(&self.object)).as_ref()
    }

    /// Whether it is known to be ours.
    pub(super) fn is_ours(&self) -> bool {
        self.ours.get().is_some()
    }

    /// Takes note that it is ours.
    pub(super) fn remember(&self) {
        self.ours.get_or_init(|| ());
    }
}

/// What an event tells.
#[derive(Clone, Copy)]
pub(in super::super) enum News<'n> {
    /// Everything may have changed.
    Listed,
    /// An object was changed otherwise than by [`NetworkIndex::wrote`] and [`NetworkIndex::deleted`].
    Changed(&'n NetworkPolicy),
    /// What these two took in already, or will: an own write.
    Echo(&'n NetworkPolicy),
}

/// The index.
#[derive(Debug, Clone, Default)]
pub(super) struct NetworkIndex {
    state: Arc<RwLock<State>>,
}

#[derive(Debug, Default)]
struct State {
    namespaces: HashMap<String, ByName>,
    /// What is being written, by namespace and name.
    writing: HashMap<Key, NetworkPolicy>,
    /// What a list has brought so far, while one is under way.
    listed: Option<HashMap<String, ByName>>,
    /// The newest version that an event told of. Events come in order.
    told: u64,
}

/// Comparable since Kubernetes 1.35 (KEP-5504).
fn version(policy: &NetworkPolicy) -> u64 {
    policy.resource_version().and_then(|version| version.parse().ok()).unwrap_or_default()
}

/// Whether two are one object, and nobody has changed it.
fn is_same(one: &NetworkPolicy, other: &NetworkPolicy) -> bool {
    one.metadata.uid == other.metadata.uid && one.metadata.resource_version == other.metadata.resource_version
}

fn key(policy: &NetworkPolicy) -> Key {
    (policy.namespace().unwrap_or_default(), policy.name_any())
}

/// That an object is being written, as long as this lives: an event that tells of it is no news, also where it overtakes
/// the answer.
pub(super) struct Writing<'i> {
    index: &'i NetworkIndex,
    key: Key,
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.index.state.write().writing.remove(&self.key);
    }
}

impl State {
    /// Takes an object in unless a newer one is known; returns whether it is news.
    fn put(&mut self, live: &Arc<Live>) -> bool {
        let (namespace, name) = key(&live.object);
        let names = self.namespaces.entry(namespace).or_default();
        match names.get(&name) {
            Some(known) if version(&known.object) >= version(&live.object) => false,
            _ => {
                names.insert(name, Arc::clone(live));
                true
            }
        }
    }

    fn remove(&mut self, policy: &NetworkPolicy) -> bool {
        let Some(names) = self.namespaces.get_mut(&policy.namespace().unwrap_or_default()) else { return false };
        // A write that followed the deletion is newer than it.
        if names.get(&policy.name_any()).is_none_or(|known| version(&known.object) > version(policy)) {
            return false;
        }
        names.remove(&policy.name_any()).is_some()
    }
}

impl NetworkIndex {
    /// Takes note of what is about to be written.
    pub(super) fn writing(&self, wanted: &NetworkPolicy) -> Writing<'_> {
        let key = key(wanted);
        self.state.write().writing.insert(key.clone(), wanted.clone());
        Writing { index: self, key }
    }

    /// Takes in what a write returned.
    pub(super) fn wrote(&self, policy: NetworkPolicy) {
        let mut state = self.state.write();
        // Events may overtake the answer; they have told of this write, and perhaps of the object's end.
        if version(&policy) > state.told {
            let live = Live::new(policy);
            live.remember();
            state.put(&live);
        }
    }

    /// Takes in that a delete succeeded.
    pub(super) fn deleted(&self, policy: &NetworkPolicy) {
        self.state.write().remove(policy);
    }

    /// The policies of a namespace, by name.
    pub(super) fn in_namespace(&self, namespace: &str) -> ByName {
        let state = self.state.read();
        state.namespaces.get(namespace).cloned().unwrap_or_default()
    }

    /// Every policy that `keep` lets through.
    pub(super) fn filter(&self, keep: impl Fn(&NetworkPolicy) -> bool) -> Vec<Arc<Live>> {
        let state = self.state.read();
        state.namespaces.values().flat_map(ByName::values).filter(|policy| keep(&policy.object)).cloned().collect()
    }

    /// Takes in an event; returns the object that it tells of, and whether that is news.
    pub(super) fn take(&self, event: watcher::Event<NetworkPolicy>) -> Option<(Arc<Live>, bool)> {
        let mut state = self.state.write();
        if let watcher::Event::Apply(policy) | watcher::Event::InitApply(policy) | watcher::Event::Delete(policy) =
            &event
        {
            state.told = state.told.max(version(policy));
        }
        match event {
            watcher::Event::Apply(policy) => {
                let is_own = state.writing.get(&key(&policy)).is_some_and(|wanted| is_as_wanted(&policy, wanted));
                let live = Live::new(policy);
                if is_own {
                    live.remember();
                }
                let is_news = state.put(&live) && !is_own;
                Some((live, is_news))
            }
            watcher::Event::Delete(policy) => {
                let is_news = state.remove(&policy);
                Some((Live::new(policy), is_news))
            }
            watcher::Event::Init => {
                state.listed = Some(HashMap::new());
                None
            }
            watcher::Event::InitApply(policy) => {
                let (namespace, name) = key(&policy);
                // What is known of one that did not change stays known.
                let known = state.namespaces.get(&namespace).and_then(|names| names.get(&name));
                let known = known.filter(|known| is_same(&known.object, &policy)).cloned();
                let live = known.unwrap_or_else(|| Live::new(policy));
                state.listed.get_or_insert_default().entry(namespace).or_default().insert(name, live);
                None
            }
            watcher::Event::InitDone => {
                state.namespaces = state.listed.take().unwrap_or_default();
                None
            }
        }
    }

    /// Follows the cluster until the process stops, calling `news` for every object that changed.
    pub(super) async fn follow(
        self,
        client: Client,
        synced: Gate,
        news: impl Fn(News<'_>),
        stopped: CancellationToken,
    ) -> anyhow::Result<()> {
        let stream = watcher(Api::<NetworkPolicy>::all(client), watcher::Config::default().page_size(PAGE))
            .default_backoff()
            .take_until(stopped.cancelled());
        let mut stream = std::pin::pin!(stream);
        while let Some(event) = stream.next().await {
            match event {
                Ok(watcher::Event::InitDone) => {
                    self.take(watcher::Event::InitDone);
                    synced.open();
                    // What was deleted while nobody watched brought no event of its own.
                    news(News::Listed);
                }
                Ok(event) => match self.take(event) {
                    Some((live, true)) => news(News::Changed(&live.object)),
                    Some((live, false)) => news(News::Echo(&live.object)),
                    None => {}
                },
                Err(error) => tracing::warn!(%error, "the watch of NetworkPolicies failed and is being restarted"),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::networking::v1::NetworkPolicySpec;

    use super::*;

    fn policy(name: &str, version: u64) -> NetworkPolicy {
        let mut policy = NetworkPolicy::default();
        policy.metadata.namespace = Some("n".into());
        policy.metadata.name = Some(name.into());
        policy.metadata.resource_version = Some(version.to_string());
        policy
    }

    fn is_news(index: &NetworkIndex, event: watcher::Event<NetworkPolicy>) -> bool {
        index.take(event).is_some_and(|(_, is_news)| is_news)
    }

    fn versions(index: &NetworkIndex) -> Vec<u64> {
        index.in_namespace("n").values().map(|policy| version(&policy.object)).collect()
    }

    #[test]
    fn an_own_write_is_seen_at_once_and_is_no_news_later() {
        let index = NetworkIndex::default();
        index.wrote(policy("a", 5));
        assert_eq!(versions(&index), [5]);
        assert!(!is_news(&index, watcher::Event::Apply(policy("a", 5))));
        assert!(index.in_namespace("n").values().all(|live| live.is_ours()));
        assert!(is_news(&index, watcher::Event::Apply(policy("a", 6))), "somebody else's write is");
    }

    #[test]
    fn an_own_write_is_no_news_where_the_event_overtakes_the_answer() {
        let index = NetworkIndex::default();
        let isolating =
            |version: u64| NetworkPolicy { spec: Some(NetworkPolicySpec::default()), ..policy("a", version) };
        let writing = index.writing(&isolating(0));
        assert!(is_news(&index, watcher::Event::Apply(policy("a", 4))), "somebody else's");
        assert!(!is_news(&index, watcher::Event::Apply(isolating(5))));
        assert_eq!(versions(&index), [5]);
        index.wrote(isolating(5));
        drop(writing);
        assert!(is_news(&index, watcher::Event::Apply(isolating(6))), "nothing is being written");
    }

    #[test]
    fn an_old_event_does_not_undo_a_newer_write() {
        let index = NetworkIndex::default();
        index.wrote(policy("a", 5));
        assert!(!is_news(&index, watcher::Event::Apply(policy("a", 4))));
        assert!(!is_news(&index, watcher::Event::Delete(policy("a", 4))));
        assert_eq!(versions(&index), [5]);
        assert!(is_news(&index, watcher::Event::Delete(policy("a", 7))));
        assert!(versions(&index).is_empty());
    }

    #[test]
    fn an_answer_that_the_objects_end_overtook_does_not_bring_it_back() {
        let index = NetworkIndex::default();
        is_news(&index, watcher::Event::Apply(policy("a", 5)));
        is_news(&index, watcher::Event::Delete(policy("a", 6)));
        index.wrote(policy("a", 5));
        assert!(versions(&index).is_empty());
        index.wrote(policy("a", 7));
        assert_eq!(versions(&index), [7]);
    }

    #[test]
    fn a_new_list_replaces_everything() {
        let index = NetworkIndex::default();
        index.wrote(policy("gone", 5));
        for event in [watcher::Event::Init, watcher::Event::InitApply(policy("there", 9)), watcher::Event::InitDone] {
            index.take(event);
        }
        assert_eq!(versions(&index), [9]);
    }

    #[test]
    fn a_new_list_forgets_nothing_of_what_did_not_change() {
        let index = NetworkIndex::default();
        index.wrote(policy("changed", 5));
        index.wrote(policy("same", 6));
        let listed = [policy("changed", 7), policy("same", 6)].map(watcher::Event::InitApply);
        for event in [watcher::Event::Init].into_iter().chain(listed).chain([watcher::Event::InitDone]) {
            index.take(event);
        }
        let ours: Vec<bool> = index.in_namespace("n").values().map(|live| live.is_ours()).collect();
        assert_eq!((versions(&index), ours), (vec![7, 6], vec![false, true]));
    }
}
