//! SecurityPolicy: renders network intent into NetworkPolicies and keeps them, and tells how pods fare.

mod network;
mod orphans;
mod wake;

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use self::{
    network::Network,
    orphans::Orphans,
    wake::{Wake, wake_for_floor, wake_for_pods},
};
use super::{
    Context, Hardened, Next, Reconciler, Residents, Roots, Triggers, cluster_facts,
    floor::{self, Enforcers},
    network_index::NetworkIndex,
    pruning, requested,
    scan::{hardening_status, wake_changed},
    surroundings,
};
use crate::{
    api::{
        HardeningMode, HardeningStatus, NetworkStatus, SecurityPolicy, SecurityPolicyStatus,
        condition::{Conditions, Type},
    },
    cluster::{Result, leader::Leadership, owner::Owner, status},
    hardening::{Requirement, is_system_namespace},
    network::{Facts, Surroundings},
    runtime::{clock, readiness::Gate, tasks::Tasks},
};

const KIND: &str = "SecurityPolicy";

/// The controller of SecurityPolicies.
pub struct SecurityPolicies {
    context: Context,
    index: NetworkIndex,
    facts: watch::Receiver<Facts>,
    residents: Residents,
    surroundings: watch::Receiver<Arc<Surroundings>>,
    hardened: Hardened,
    synced: [Gate; 3],
}

impl SecurityPolicies {
    /// Adds the controller to the tasks of a process.
    pub fn spawn(
        context: &Context,
        (given, residents): (Facts, Residents),
        hardened: Hardened,
        leadership: Leadership,
        namespace: String,
        tasks: &mut Tasks,
    ) {
        let (facts_tx, facts) = watch::channel(given.clone());
        let index = NetworkIndex::default();
        let (root, roots) = super::root::<SecurityPolicy>();
        let (one_tx, one) = mpsc::unbounded_channel();
        let (all_tx, all) = watch::channel(0);

        let (client, stopped) = (context.client.clone(), context.stopped.clone());
        let index_synced = context.readiness.gate("networkpolicies");
        let one_tx_of_floor = one_tx.clone();
        let wake = Wake { one: one_tx, all: all_tx.clone(), roots: roots.clone() };
        let following =
            index.clone().follow(client.clone(), index_synced.clone(), move |news| wake.about(news), stopped.clone());
        tasks.spawn("networkpolicies", following);
        let facts_synced = context.readiness.gate("cluster-facts");
        let following = cluster_facts::follow(client.clone(), given, facts_tx, facts_synced.clone(), stopped.clone());
        tasks.spawn("cluster-facts", following);
        let (around_tx, surroundings) = watch::channel(Arc::default());
        let around_synced = context.readiness.gate("surroundings");
        tasks.spawn("surroundings", surroundings::watch(client, around_tx, around_synced.clone(), stopped));

        let controller = Arc::new(Self {
            context: context.clone(),
            index: index.clone(),
            facts,
            residents: residents.clone(),
            surroundings: surroundings.clone(),
            hardened: hardened.clone(),
            synced: [index_synced, facts_synced, around_synced],
        });
        let Hardened { in_force, scan } = hardened;
        let stopped = || context.stopped.clone();
        tasks.spawn("scan-status", wake_changed(scan, roots.clone(), one_tx_of_floor.clone(), stopped()));
        let for_pods = wake_for_pods(residents, surroundings, (roots.clone(), one_tx_of_floor.clone()), stopped());
        tasks.spawn("network-previews", for_pods);
        tasks.spawn("floor-status", wake_for_floor(in_force, roots.clone(), one_tx_of_floor, stopped()));
        tasks.spawn(Self::NAME, controller.run(root, roots, Triggers { one, all }, (all_tx, leadership, namespace)));
    }

    async fn run(
        self: Arc<Self>,
        root: super::Root<SecurityPolicy>,
        roots: Roots<SecurityPolicy>,
        triggers: Triggers<SecurityPolicy>,
        (all, mut leadership, namespace): (watch::Sender<u64>, Leadership, String),
    ) -> anyhow::Result<()> {
        let stopped = self.context.stopped.clone();
        tokio::select! {
            () = leadership.acquired() => {}
            () = stopped.cancelled() => return Ok(()),
        }
        // Half a view of the cluster would render too wide, and prune too little.
        for gate in &self.synced {
            tokio::select! {
                () = gate.was_opened() => {}
                () = stopped.cancelled() => return Ok(()),
            }
        }
        tokio::select! {
            () = floor::known(&self.hardened.in_force) => {}
            () = stopped.cancelled() => return Ok(()),
        }
        tokio::select! {
            () = self.residents.were_listed() => {}
            () = stopped.cancelled() => return Ok(()),
        }
        let index = self.index.clone();
        let orphanage = Arc::new(Orphans { context: self.context.clone(), index, roots: roots.clone() });
        let pruning = async {
            roots.store.wait_until_ready().await?;
            let confirmed = leadership.confirmed_prune();
            pruning::follow(orphanage, self.context.clone(), namespace, roots.deletions(), confirmed).await
        };
        let refacting = super::wake_all(self.facts.clone(), &all, &stopped);
        tokio::try_join!(super::run(self.clone(), self.context.clone(), root, triggers), pruning, refacting)?;
        Ok(())
    }

    /// What is true of hardening, and what refuses the pods that the policy refuses, if it refuses any.
    fn hardening(&self, policy: &SecurityPolicy, owner: &Owner) -> (Option<HardeningStatus>, Option<Enforcers>) {
        let requirement = policy.spec.hardening.as_ref().and_then(|it| Requirement::try_from(it).ok());
        let judges = |it: &Requirement| it.mode != HardeningMode::Disabled && !is_system_namespace(&owner.namespace);
        let Some(requirement) = requirement.filter(judges) else { return (None, None) };
        let enforcers = {
            let in_force = self.hardened.in_force.borrow();
            let standards = in_force.floor.get(&owner.namespace);
            let floor = standards.is_some_and(|standards| standards.contains(&requirement.standard()));
            in_force.enforcers(&requirement, Some(&owner.namespace), floor)
        };
        let scan = self.hardened.scan.borrow().clone();
        let counted = scan.as_ref().and_then(|it| it.own.get(&(owner.namespace.clone(), owner.name.clone())));
        let by = enforcers.as_ref().map(|enforcers| enforcers.by.clone()).unwrap_or_default();
        let before = policy.status.as_ref().and_then(|status| status.hardening.as_ref());
        (Some(hardening_status(by, counted, before)), enforcers)
    }

    fn status(
        policy: &SecurityPolicy,
        network: Network,
        (hardening, enforcers): (Option<HardeningStatus>, Option<Enforcers>),
    ) -> SecurityPolicyStatus {
        let mut conditions = Conditions::of_generation(policy.metadata.generation);
        let shown = tell_network(policy, network, &mut conditions);
        if let Some(enforcers) = &enforcers {
            enforcers.tell(&mut conditions);
        }
        let old = policy.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        SecurityPolicyStatus {
            observed_generation: policy.metadata.generation,
            last_handled_reconcile_at: requested(policy),
            conditions: conditions.carried_from(old, clock::now()),
            network: shown,
            hardening,
        }
    }
}

impl Reconciler for SecurityPolicies {
    type Root = SecurityPolicy;
    const NAME: &'static str = "securitypolicy";

    async fn reconcile(&self, policy: &SecurityPolicy) -> Result<Next> {
        if policy.metadata.deletion_timestamp.is_some() || policy.spec.suspend == Some(true) {
            return Ok(Next::Change);
        }
        let owner = Owner::of(policy)?;
        let network = self.network(policy, &owner).await?;
        let wanted = Self::status(policy, network, self.hardening(policy, &owner));
        status::report(&self.context.client, policy, &wanted).await?;
        Ok(Next::Change)
    }
}

/// Sets the conditions that the network part decides; returns what status holds of it.
fn tell_network(policy: &SecurityPolicy, network: Network, conditions: &mut Conditions) -> Option<NetworkStatus> {
    let shown = match network {
        Network::Absent => {
            conditions.set(Type::Accepted, true, "Accepted", "");
            conditions.set(Type::Programmed, true, "NothingToRender", "the spec asks for no NetworkPolicies");
            conditions.set(Type::Ready, true, "Ready", "");
            return None;
        }
        Network::Previewed(status) => {
            conditions.set(Type::Accepted, true, "Accepted", "");
            let why = "the mode is Preview: status.network.preview tells what Enforce would change";
            conditions.set(Type::Programmed, false, "Preview", why);
            conditions.set(Type::Ready, true, "Preview", "");
            status
        }
        Network::Programmed(status) => {
            conditions.set(Type::Accepted, true, "Accepted", "");
            let rendered = format!("{} NetworkPolicies are as rendered", status.rendered.len());
            conditions.set(Type::Programmed, true, "Programmed", rendered);
            conditions.set(Type::Ready, true, "Ready", "");
            status
        }
        Network::NotProgrammed(reason, message, status) => {
            let is_accepted = !matches!(reason, "Invalid" | "Conflicted" | "NotPermitted");
            let why = if is_accepted { "Accepted" } else { reason };
            conditions.set(Type::Accepted, is_accepted, why, if is_accepted { "" } else { message.as_str() });
            conditions.stall(reason, &message);
            let Some(status) = status else {
                conditions.set(Type::Analyzed, false, reason, "");
                return policy.status.as_ref().and_then(|status| status.network.clone());
            };
            status
        }
    };
    conditions.set(Type::Analyzed, true, "Analyzed", "");
    if !shown.widened_by.is_empty() {
        let message = format!("NetworkPolicies of others allow more: {}", shown.widened_by.join(", "));
        conditions.set(Type::WidenedByOthers, true, "ForeignPolicies", message);
    }
    Some(shown)
}
