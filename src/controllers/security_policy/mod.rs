//! SecurityPolicy: renders network intent into NetworkPolicies and keeps them, and tells how pods fare.

mod fresh;
mod network;
mod wake;

use std::sync::Arc;

use kube::{core::DeserializeGuard, runtime::reflector::ObjectRef};
use tokio::sync::{mpsc, watch};

use self::{
    network::{Network, accepts, tell_network},
    wake::{Wake, leans_on_webhook, wake_for_facts, wake_for_floor, wake_for_pods},
};
use super::{
    Context, Hardened, Networks, Next, Reconciler, Roots, Triggers,
    counts::held,
    floor::{self, Asking, Enforcers},
    network::{Orphans, wake_once_listed},
    presence::wake_leaning,
    pruning, requested,
    scan::{hardening_status, wake_changed},
    switched_off,
};
use crate::{
    api::{
        HardeningMode, HardeningStatus, SecurityPolicy, SecurityPolicyStatus,
        condition::{Conditions, suspended},
    },
    cluster::{Error, Result, leader::Leadership, owner::Owner, status},
    hardening::{Requirement, is_system_namespace},
    runtime::{clock, tasks::Tasks},
};

/// The controller of SecurityPolicies.
pub struct SecurityPolicies {
    context: Context,
    networks: Networks,
    roots: Roots<SecurityPolicy>,
    one: mpsc::UnboundedSender<ObjectRef<DeserializeGuard<SecurityPolicy>>>,
    hardened: Hardened,
}

impl SecurityPolicies {
    /// Adds the controller to the tasks of a process.
    pub fn spawn(
        context: &Context,
        networks: &Networks,
        hardened: Hardened,
        leadership: Leadership,
        namespace: String,
        tasks: &mut Tasks,
    ) {
        let networks = networks.of_controller();
        let (root, roots) = super::root::<SecurityPolicy>();
        let _ = networks.owners.own.set(roots.clone());
        let (one_tx, one) = mpsc::unbounded_channel();
        let (all_tx, all) = watch::channel(0);
        let isolating = watch::Sender::default();
        let wake = Wake { one: one_tx.clone(), all: all_tx, roots: roots.clone(), isolating: isolating.clone() };
        let controller = Arc::new(Self {
            context: context.clone(),
            networks: networks.clone(),
            roots: roots.clone(),
            one: one_tx.clone(),
            hardened: hardened.clone(),
        });
        let stopped = || context.stopped.clone();
        let leaning = wake_leaning(hardened.clone(), (roots.clone(), one_tx.clone()), leans_on_webhook, stopped());
        tasks.spawn("webhook-status", leaning);
        let Hardened { in_force, scan, .. } = hardened;
        let (counted, known) = (one_tx.clone(), roots.clone());
        let wake_counted = move |(namespace, name): &(String, String)| {
            if known.contains(namespace, name) {
                let _ = counted.send(ObjectRef::new(name).within(namespace));
            }
        };
        tasks.spawn("scan-status", wake_changed(scan, |report| &report.own, wake_counted, stopped()));
        let for_pods = wake_for_pods(networks.clone(), isolating, (roots.clone(), one_tx.clone()), stopped());
        tasks.spawn("network-previews", for_pods);
        tasks.spawn("floor-status", wake_for_floor(in_force, roots.clone(), one_tx, stopped()));
        tasks.spawn(Self::NAME, controller.run(root, roots, Triggers { one, all }, (wake, leadership, namespace)));
    }

    async fn run(
        self: Arc<Self>,
        root: super::Root<SecurityPolicy>,
        roots: Roots<SecurityPolicy>,
        triggers: Triggers<SecurityPolicy>,
        (wake, mut leadership, namespace): (Wake, Leadership, String),
    ) -> anyhow::Result<()> {
        let stopped = self.context.stopped.clone();
        tokio::select! {
            () = leadership.acquired() => {}
            () = stopped.cancelled() => return Ok(()),
        }
        let all = wake.all.clone();
        // Only now: who does not lead takes nothing out of the queue.
        self.networks.listen(move |news| wake.about(news));
        tokio::select! {
            () = async { self.networks.was_listed().await; floor::known(&self.hardened.in_force).await } => {}
            () = stopped.cancelled() => return Ok(()),
        }
        let orphanage = Arc::new(Orphans { networks: self.networks.clone(), roots: roots.clone() });
        let confirmed = leadership.confirmed_prune();
        let pruning = pruning::follow(orphanage, self.context.clone(), namespace, confirmed);
        let waking = (roots.clone(), self.one.clone());
        let refacting = wake_for_facts(self.networks.facts.clone(), waking, stopped.clone());
        let clamping = super::wake_all(self.networks.policies.wide_changes(), &all, &stopped);
        let owning = wake_once_listed(self.networks.owners.wide.get(), &all, &stopped);
        let running = super::run(self.clone(), self.context.clone(), root, triggers);
        tokio::try_join!(running, pruning, refacting, clamping, owning, self.forget_deleted(roots.clone()))?;
        Ok(())
    }

    /// Forgets policies that are gone, and wakes those that accepted from them.
    async fn forget_deleted(&self, roots: Roots<SecurityPolicy>) -> anyhow::Result<()> {
        let mut deletions = roots.deletions();
        loop {
            tokio::select! {
                changed = deletions.changed() => if changed.is_err() { break },
                () = self.context.stopped.cancelled() => return Ok(()),
            }
            self.networks.forget_others(&roots.uids());
            roots.wake(&self.one, accepts);
        }
        self.context.stopped.cancelled().await;
        Ok(())
    }

    /// What is true of hardening, and what refuses the pods that the policy refuses, if it judges any.
    fn hardening(&self, policy: &SecurityPolicy, owner: &Owner) -> (Option<HardeningStatus>, Option<Enforcers>) {
        if !self.hardened.is_on {
            return (None, None);
        }
        let requirement = policy.spec.hardening.as_ref().and_then(|it| Requirement::try_from(it).ok());
        let judges = |it: &Requirement| it.mode != HardeningMode::Disabled && !is_system_namespace(&owner.namespace);
        let Some(requirement) = requirement.filter(judges) else { return (None, None) };
        let (asking, away) = (Asking::Namespace(&owner.namespace), self.hardened.away.borrow().clone());
        let enforcers = self.hardened.in_force.borrow().enforcers(&requirement, asking, away.as_ref());
        let scan = self.hardened.scan.borrow().clone();
        let counted = scan.as_ref().and_then(|it| it.own.get(&(owner.namespace.clone(), owner.name.clone())));
        let before = policy.status.as_ref().and_then(|status| status.hardening.as_ref());
        (Some(hardening_status(enforcers.by.clone(), counted, before)), Some(enforcers))
    }

    fn status(
        &self,
        policy: &SecurityPolicy,
        network: Network,
        (hardening, enforcers): (Option<HardeningStatus>, Option<Enforcers>),
    ) -> SecurityPolicyStatus {
        let mut conditions = Conditions::of_generation(policy.metadata.generation);
        let shown = tell_network(policy, network, &mut conditions);
        if let Some(enforcers) = &enforcers {
            enforcers.tell(&mut conditions);
        }
        if self.hardened.is_on && policy.spec.hardening.is_some() {
            let namespace = policy.metadata.namespace.as_deref().unwrap_or_default();
            self.hardened.in_force.borrow().tell_of_stale(namespace, &mut conditions);
        }
        let parts = switched_off::Parts {
            hardening: (policy.spec.hardening.as_ref().map(|hardening| hardening.mode), self.hardened.is_on),
            network: (policy.spec.network.as_ref().map(|network| network.mode), self.networks.is_on),
        };
        switched_off::tell(&parts, &mut conditions);
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
        if policy.metadata.deletion_timestamp.is_some() {
            return Ok(Next::Change);
        }
        let owner = Owner::of(policy)?;
        if self.networks.is_on {
            self.wake_accepting(policy, &owner);
        }
        if policy.spec.suspend == Some(true) {
            self.networks.freeze(&owner.uid);
            let mut status = policy.status.clone().unwrap_or_default();
            status.observed_generation = policy.metadata.generation;
            status.last_handled_reconcile_at = requested(policy);
            status.conditions = suspended(status.conditions, policy.metadata.generation, clock::now());
            status::report(&self.context.client, policy, &status).await?;
            return Ok(Next::Change);
        }
        let network = self.network(policy, &owner).await?;
        let next = network.next();
        let wanted = self.status(policy, network, self.hardening(policy, &owner));
        if let Some(left) = held(&self.networks, &owner.uid, policy.status.as_ref(), &wanted) {
            return Ok(next.within(left));
        }
        if status::report(&self.context.client, policy, &wanted).await? {
            self.networks.told(&owner.uid);
        }
        Ok(next)
    }

    async fn failed(&self, policy: &SecurityPolicy, error: &Error) -> Result<()> {
        if policy.spec.suspend == Some(true) {
            return Ok(());
        }
        let owner = Owner::of(policy)?;
        let network = Network::Failed(error.reason(), error.to_string());
        let wanted = self.status(policy, network, self.hardening(policy, &owner));
        status::report(&self.context.client, policy, &wanted).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        cluster::{
            client::tests::nobody,
            leader::{Election, elect},
            policy_index::PolicyIndex,
        },
        controllers::Residents,
    };

    #[tokio::test]
    async fn a_standby_collects_no_news() {
        let context = Context::of_client(nobody());
        let (metrics, stopped) = (context.metrics.clone(), context.stopped.clone());
        let second = Duration::from_secs(1);
        let election = Election {
            namespace: "rampart-system".into(),
            identity: "standby".into(),
            duration: second,
            renew_deadline: second,
            retry: second,
        };
        let (leadership, _not_yet) = elect(election, || Ok(nobody()), metrics, stopped);
        let mut tasks = Tasks::new(context.readiness.clone(), Duration::ZERO);
        let policies = PolicyIndex::default();
        let networks = Networks::off(&context, Residents::new(policies.clone()), policies);
        SecurityPolicies::spawn(&context, &networks, Hardened::off(), leadership, "rampart-system".into(), &mut tasks);
        tokio::task::yield_now().await;
        assert!(networks.tells_nobody());
    }
}
