//! ClusterSecurityPolicy: keeps the least isolation of the namespaces that it selects, and says what is true of it.
//! Webhook and floor do what its hardening asks.

mod network;
mod tell;
mod wake;

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use self::{network::Network, tell::tell_network, wake::Wakes};
use super::{
    Context, Hardened, Networks, Next, Reconciler, Roots, Triggers,
    counts::held,
    floor::{self, Asking, InForce},
    network::{Orphans, wake_once_listed},
    presence::wake_leaning,
    pruning, requested,
    scan::{hardening_status, wake_changed},
    switched_off,
};
use crate::{
    api::{
        ClusterSecurityPolicy, ClusterSecurityPolicyStatus, HardeningMode, HardeningStatus,
        condition::{Conditions, Type},
    },
    cluster::{Error, Result, leader::Leadership, status},
    hardening::{ClusterWide, is_system_namespace},
    runtime::{clock, tasks::Tasks},
};

/// The controller of ClusterSecurityPolicies.
pub struct ClusterSecurityPolicies {
    context: Context,
    networks: Networks,
    hardened: Hardened,
}

impl ClusterSecurityPolicies {
    /// Adds the controller to the tasks of a process.
    pub fn spawn(
        context: &Context,
        networks: &Networks,
        hardened: Hardened,
        leadership: Leadership,
        namespace: String,
        tasks: &mut Tasks,
    ) {
        let (root, roots) = super::root::<ClusterSecurityPolicy>();
        let ((one_tx, one), (all_tx, all)) = (mpsc::unbounded_channel(), watch::channel(0));
        let networks = networks.of_controller();
        let _ = networks.owners.wide.set(roots.clone());
        let wakes = Wakes { one: one_tx, all: all_tx, roots: roots.clone() };
        tasks.spawn("cluster-network", wake::follow(networks.clone(), wakes.clone(), context.stopped.clone()));
        let controller = Arc::new(Self { context: context.clone(), networks, hardened });
        tasks.spawn(Self::NAME, controller.run((root, roots), (wakes, Triggers { one, all }), leadership, namespace));
    }

    async fn run(
        self: Arc<Self>,
        (root, roots): (super::Root<ClusterSecurityPolicy>, Roots<ClusterSecurityPolicy>),
        (wakes, triggers): (Wakes, Triggers<ClusterSecurityPolicy>),
        mut leadership: Leadership,
        namespace: String,
    ) -> anyhow::Result<()> {
        let (context, stopped) = (self.context.clone(), self.context.stopped.clone());
        let Hardened { in_force, scan, .. } = self.hardened.clone();
        let known = async {
            leadership.acquired().await;
            self.networks.was_listed().await;
            floor::known(&in_force).await;
        };
        tokio::select! {
            () = known => {}
            () = stopped.cancelled() => return Ok(()),
        }
        let all = wakes.all.clone();
        let leaning =
            wake_leaning(self.hardened.clone(), (roots.clone(), wakes.one.clone()), leans_on_webhook, stopped.clone());
        // There are few of them: most changes are told to all.
        let refloored = super::wake_all(in_force, &all, &stopped);
        let counted = wake_changed(scan, |report| &report.wide, |name| wakes.wake(name), stopped.clone());
        let orphanage = Arc::new(Orphans { networks: self.networks.clone(), roots: roots.clone() });
        let confirmed = leadership.confirmed_prune();
        let pruning = pruning::follow(orphanage, context.clone(), namespace, confirmed);
        let owning = wake_once_listed(self.networks.owners.own.get(), &all, &stopped);
        let running = super::run(self.clone(), context.clone(), root, triggers);
        tokio::try_join!(running, refloored, counted, leaning, pruning, owning, self.forget_deleted(&roots))?;
        Ok(())
    }

    async fn forget_deleted(&self, roots: &Roots<ClusterSecurityPolicy>) -> anyhow::Result<()> {
        let mut deletions = roots.deletions();
        loop {
            tokio::select! {
                changed = deletions.changed() => if changed.is_err() { break },
                () = self.context.stopped.cancelled() => return Ok(()),
            }
            self.networks.forget_others(&roots.uids());
        }
        self.context.stopped.cancelled().await;
        Ok(())
    }

    fn status(
        &self,
        policy: &ClusterSecurityPolicy,
        network: Network,
        asked: Option<&ClusterWide>,
    ) -> ClusterSecurityPolicyStatus {
        let mut conditions = Conditions::of_generation(policy.metadata.generation);
        let network = tell_network(policy, network, &mut conditions);
        let name = policy.metadata.name.as_deref().unwrap_or_default();
        let known = self.networks.policies.known();
        let covers = |asked: &ClusterWide| -> Vec<&str> {
            let covered = known.labels.iter().filter(|(name, labels)| asked.covers(name, labels));
            covered.map(|(name, _)| name.as_str()).collect()
        };
        let mut covered = asked.map(covers).unwrap_or_default();
        // The same is named at each visit.
        covered.sort_unstable();
        let hardens = asked.filter(|_| self.hardened.is_on).filter(|it| it.requirement.mode != HardeningMode::Disabled);
        let hardening = hardens.map(|asked| self.hardening(policy, name, (asked, &covered), &mut conditions));
        if let Some(asked) = asked.filter(|_| self.hardened.is_on && policy.spec.hardening.is_some()) {
            self.hardened.in_force.borrow().tell_of_stale(&asked.place(), &mut conditions);
        }
        let parts = switched_off::Parts {
            hardening: (policy.spec.hardening.as_ref().map(|hardening| hardening.mode), self.hardened.is_on),
            network: (policy.spec.network.as_ref().map(|network| network.mode), self.networks.is_on),
        };
        switched_off::tell(&parts, &mut conditions);
        let namespaces = match asked {
            Some(_) if self.networks.policies.is_listed() => i64::try_from(covered.len()).ok(),
            _ => policy.status.as_ref().and_then(|status| status.namespaces),
        };
        tell_of_none(namespaces, &mut conditions);
        let old = policy.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        ClusterSecurityPolicyStatus {
            observed_generation: policy.metadata.generation,
            last_handled_reconcile_at: requested(policy),
            conditions: conditions.carried_from(old, clock::now()),
            namespaces,
            hardening,
            network,
        }
    }

    fn hardening(
        &self,
        policy: &ClusterSecurityPolicy,
        name: &str,
        (asked, covered): (&ClusterWide, &[&str]),
        conditions: &mut Conditions,
    ) -> HardeningStatus {
        // No webhook is ever asked about the others.
        let asking: Vec<&str> = covered.iter().copied().filter(|name| !is_system_namespace(name)).collect();
        let is_systems = asking.is_empty() && !covered.is_empty();
        let asking = if is_systems { Asking::System(name) } else { Asking::Cluster(name, &asking) };
        let away = self.hardened.away.borrow().clone();
        let enforcers = self.hardened.in_force.borrow().enforcers(&asked.requirement, asking, away.as_ref());
        enforcers.tell(conditions);
        let scan = self.hardened.scan.borrow().clone();
        let before = policy.status.as_ref().and_then(|status| status.hardening.as_ref());
        hardening_status(enforcers.by, scan.as_ref().and_then(|it| it.wide.get(name)), before)
    }
}

/// Whether a policy lacks something while the webhook is away.
fn leans_on_webhook(policy: &ClusterSecurityPolicy, in_force: &InForce) -> bool {
    let asking = Asking::Cluster(policy.metadata.name.as_deref().unwrap_or_default(), &[]);
    ClusterWide::try_from(policy).is_ok_and(|asked| in_force.leans_on_webhook(&asked.requirement, asking))
}

/// Says of a policy that is in force that it covers nothing: most likely its selector is misspelt.
fn tell_of_none(namespaces: Option<i64>, conditions: &mut Conditions) {
    if namespaces == Some(0) && conditions.is(Type::Ready) {
        conditions.set(Type::Ready, true, "NoNamespace", "it selects no namespace");
    }
}

impl Reconciler for ClusterSecurityPolicies {
    type Root = ClusterSecurityPolicy;
    const NAME: &'static str = "clustersecuritypolicy";

    async fn reconcile(&self, policy: &ClusterSecurityPolicy) -> Result<Next> {
        if policy.metadata.deletion_timestamp.is_some() {
            return Ok(Next::Change);
        }
        let asked = ClusterWide::try_from(policy);
        let network = self.network(policy, asked.as_ref()).await?;
        let next = network.next();
        let wanted = self.status(policy, network, asked.as_ref().ok());
        let uid = policy.metadata.uid.as_deref().unwrap_or_default();
        if let Some(left) = held(&self.networks, uid, policy.status.as_ref(), &wanted) {
            return Ok(next.within(left));
        }
        if status::report(&self.context.client, policy, &wanted).await? {
            self.networks.told(uid);
        }
        Ok(next)
    }

    async fn failed(&self, policy: &ClusterSecurityPolicy, error: &Error) -> Result<()> {
        let network = match policy.spec.suspend {
            Some(true) => Network::Suspended,
            _ => Network::Failed(error.reason(), error.to_string()),
        };
        let wanted = self.status(policy, network, ClusterWide::try_from(policy).as_ref().ok());
        status::report(&self.context.client, policy, &wanted).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn what_covers_nothing_says_so_unless_it_has_something_worse_to_say() {
        let told = |namespaces: Option<i64>, ready: bool| {
            let mut conditions = Conditions::of_generation(Some(1));
            conditions.set(Type::Ready, ready, "Before", "");
            tell_of_none(namespaces, &mut conditions);
            let ready = conditions.carried_from(&[], Timestamp::UNIX_EPOCH).swap_remove(0);
            (ready.status, ready.reason)
        };
        let is = |status: &str, reason: &str| (status.to_owned(), reason.to_owned());
        assert_eq!(told(Some(0), true), is("True", "NoNamespace"));
        assert_eq!(told(Some(0), false), is("False", "Before"));
        assert_eq!([told(Some(1), true), told(None, true)], [is("True", "Before"), is("True", "Before")]);
    }
}
