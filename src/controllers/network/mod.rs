//! What policies of both kinds need to keep NetworkPolicies: a view of the cluster's network, and how what is rendered
//! is looked at, kept and pruned.

mod index;
mod keep;
mod ledger;
mod look;
mod orphans;
mod owners;
mod part;
mod tell;

use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::watch;

use self::{index::NetworkIndex, ledger::Ledger, owners::Owners};
pub(super) use self::{
    index::News,
    keep::{Kept, REFUSED_AGAIN},
    look::{Asked, Looked},
    orphans::{Orphans, Owning},
    owners::wake_once_listed,
    part::Part,
    tell::{
        Before, ENFORCE_REFUSED, conditions_of, cut, failing, keep_seen, open_first, previewed, programmed, stalled,
        unacknowledged,
    },
};
use super::{Context, Residents, cluster_facts, surroundings};
use crate::{
    cluster::policy_index::PolicyIndex,
    network::{Cluster, Facts, Intent, Population, Surroundings},
    runtime::{readiness::Gate, tasks::Tasks},
};

/// Who is told of NetworkPolicies.
type Listener = Box<dyn Fn(News<'_>) + Send + Sync>;

/// The network of the cluster, as it is followed. Cheap to clone.
#[derive(Clone)]
pub struct Networks {
    /// Whether anything comes of what policies say of it. If not, nothing is followed.
    pub(super) is_on: bool,
    context: Context,
    index: NetworkIndex,
    /// Policies that cover namespaces, and the labels of those.
    pub(super) policies: PolicyIndex,
    /// What is known of addresses.
    pub(super) facts: watch::Receiver<Facts>,
    /// The pods.
    pub(super) residents: Residents,
    /// What depends on who may reach them.
    pub(super) surroundings: watch::Receiver<Arc<Surroundings>>,
    /// Where it has changed.
    pub(super) around_changed: surroundings::Changed,
    ledger: Ledger,
    /// The policies that NetworkPolicies were made for.
    pub(super) owners: Arc<Owners>,
    listeners: Arc<RwLock<Vec<Listener>>>,
    synced: Arc<[Gate]>,
}

/// The cluster at one moment.
pub(super) struct Sight {
    pub(super) population: Arc<Population>,
    pub(super) facts: Facts,
    pub(super) around: Arc<Surroundings>,
}

impl Sight {
    /// The same, if every address lay outside of the cluster.
    pub(super) fn without_ranges(&self) -> Self {
        let facts = self.facts.without_ranges();
        Self { population: Arc::clone(&self.population), facts, around: Arc::clone(&self.around) }
    }

    pub(super) fn cluster(&self) -> Cluster<'_> {
        Cluster { facts: &self.facts, population: &self.population, services: &self.around.services }
    }
}

impl Networks {
    /// Follows the network of the cluster, with `given` facts that can't be read.
    pub fn spawn(
        context: &Context,
        given: Facts,
        (residents, policies): (Residents, PolicyIndex),
        tasks: &mut Tasks,
    ) -> Self {
        let (client, stopped) = (|| context.client.clone(), || context.stopped.clone());
        let gate = |name| context.readiness.gate(name);
        let synced = [gate("networkpolicies"), gate("cluster-facts"), gate("surroundings")];
        let [index_synced, facts_synced, around_synced] = synced.clone();
        let (facts_tx, facts) = watch::channel(given.clone());
        let (around_tx, surroundings) = watch::channel(Arc::default());
        let around_changed = surroundings::Changed::default();
        let around = surroundings::Around { known: around_tx, changed: around_changed.clone() };
        let (index, listeners) = (NetworkIndex::default(), Arc::<RwLock<Vec<Listener>>>::default());
        let tell = {
            let listeners = Arc::clone(&listeners);
            move |news: News<'_>| {
                listeners.read().iter().for_each(|listener| listener(news));
            }
        };
        tasks.spawn("networkpolicies", index.clone().follow(client(), index_synced, tell, stopped()));
        tasks.spawn("cluster-facts", cluster_facts::follow(client(), given, facts_tx, facts_synced, stopped()));
        tasks.spawn("surroundings", surroundings::watch(client(), around, around_synced, stopped()));
        let off = Self::off(context, residents, policies);
        Self { is_on: true, index, facts, surroundings, around_changed, listeners, synced: Arc::new(synced), ..off }
    }

    /// Where nothing comes of network intent, and nothing of the network is followed.
    #[must_use]
    pub fn off(context: &Context, residents: Residents, policies: PolicyIndex) -> Self {
        Self {
            is_on: false,
            context: context.clone(),
            index: NetworkIndex::default(),
            policies,
            facts: watch::channel(Facts::default()).1,
            residents,
            surroundings: watch::channel(Arc::default()).1,
            around_changed: surroundings::Changed::default(),
            ledger: Ledger::new(context.metrics.clone()),
            owners: Arc::default(),
            listeners: Arc::default(),
            synced: Arc::default(),
        }
    }

    /// The same for another controller: what it did last is remembered for it alone.
    pub(super) fn of_controller(&self) -> Self {
        Self { ledger: Ledger::new(self.context.metrics.clone()), ..self.clone() }
    }

    /// Tells `listener` of every NetworkPolicy that changed.
    pub(super) fn listen(&self, listener: impl Fn(News<'_>) + Send + Sync + 'static) {
        self.listeners.write().push(Box::new(listener));
    }

    #[cfg(test)]
    pub(super) fn tells_nobody(&self) -> bool {
        self.listeners.read().is_empty()
    }

    /// Waits until everything has been listed: half a view of the cluster would render too wide, and prune too little.
    pub(super) async fn was_listed(&self) {
        if !self.is_on {
            return;
        }
        for gate in &*self.synced {
            gate.was_opened().await;
        }
        self.residents.were_listed().await;
    }

    /// The cluster as it is now.
    pub(super) fn sight(&self) -> Sight {
        Sight {
            population: self.residents.population(),
            facts: self.facts.borrow().clone(),
            around: self.surroundings.borrow().clone(),
        }
    }

    /// Intents of ClusterSecurityPolicies that are enforced in a namespace, by the names of the policies.
    pub(super) fn least_of(&self, namespace: &str) -> Vec<(String, Arc<Intent>)> {
        self.policies.known().least_of(namespace)
    }
}
