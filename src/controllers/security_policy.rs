//! SecurityPolicy: renders network intent into NetworkPolicies and keeps them.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{api::networking::v1::NetworkPolicy, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{ResourceExt as _, core::DeserializeGuard, runtime::reflector::ObjectRef};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{
    Context, Hardened, Next, Reconciler, Roots, Triggers, cluster_facts,
    floor::{self, Enforcers, InForce},
    network_index::NetworkIndex,
    pruning,
    pruning::Orphanage,
    requested,
    scan::{hardening_status, wake_changed},
};
use crate::{
    api::{
        HardeningMode, HardeningStatus, NetworkStatus, SecurityPolicy, SecurityPolicyStatus,
        condition::{Conditions, Type},
        labels::{OWNER_NAME, PART, RECIPROCAL},
    },
    cluster::{
        Error, Result,
        apply::{Outcome, delete_seen, keep},
        events::Reason,
        leader::Leadership,
        owner::{Owner, is_managed},
        prune::is_orphan,
        status,
    },
    hardening::{Requirement, is_system_namespace},
    network::{Facts, Rendered, render},
    policy::{self, Refused},
    runtime::{clock, metrics::KindLabel, readiness::Gate, tasks::Tasks},
};

const KIND: &str = "SecurityPolicy";
const MANAGER: &str = "rampart-network";
const DRIFT_REVERTED: Reason = Reason::warning("DriftReverted");

/// The controller of SecurityPolicies.
pub struct SecurityPolicies {
    context: Context,
    index: NetworkIndex,
    facts: watch::Receiver<Facts>,
    hardened: Hardened,
    synced: [Gate; 2],
}

/// What there is to say about the network part of a policy.
enum Network {
    /// The spec asks for none, or disables it.
    Absent,
    /// Rendered and kept.
    Programmed(NetworkStatus),
    /// Can't be, and why.
    NotProgrammed(&'static str, String),
}

impl SecurityPolicies {
    /// Adds the controller to the tasks of a process.
    pub fn spawn(
        context: &Context,
        given: Facts,
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
        tasks.spawn("cluster-facts", cluster_facts::follow(client, given, facts_tx, facts_synced.clone(), stopped));

        let controller = Arc::new(Self {
            context: context.clone(),
            index: index.clone(),
            facts,
            hardened: hardened.clone(),
            synced: [index_synced, facts_synced],
        });
        let Hardened { in_force, scan } = hardened;
        let stopped = || context.stopped.clone();
        tasks.spawn("scan-status", wake_changed(scan, roots.clone(), one_tx_of_floor.clone(), stopped()));
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

    async fn network(&self, policy: &SecurityPolicy, owner: &Owner) -> Result<Network> {
        let intent = match policy::intent(policy, &owner.namespace) {
            Ok(intent) => intent,
            Err(refused @ Refused::NotPermitted(_)) => {
                return Ok(Network::NotProgrammed("NotPermitted", refused.to_string()));
            }
            Err(Refused::Invalid(invalid)) => return Ok(Network::NotProgrammed("Invalid", invalid.to_string())),
        };
        let live = self.index.in_namespace(&owner.namespace);
        let rendered = match &intent {
            None => Rendered::default(),
            Some(intent) => {
                let base = format!("rampart-{}-{}", owner.name, owner.short_uid());
                let others: Vec<&NetworkPolicy> =
                    live.values().map(AsRef::as_ref).filter(|other| is_other(other, owner)).collect();
                let facts = self.facts.borrow().clone();
                match render(intent, (&owner.namespace, &base), &facts, &others) {
                    Ok(rendered) => rendered,
                    Err(unrenderable) => {
                        // What was rendered before stays: closing or opening anything by accident is worse.
                        return Ok(Network::NotProgrammed("UnknownClusterRanges", unrenderable.to_string()));
                    }
                }
            }
        };
        let mut names = vec![];
        for mut wanted in rendered.policies {
            let name = wanted.name_any();
            wanted.metadata.labels.get_or_insert_default().extend(owner.labels());
            match keep(&self.context.client, MANAGER, owner, &wanted, live.get(&name).map(AsRef::as_ref)).await {
                Ok((kept, outcome)) => self.kept(policy, kept, outcome).await,
                Err(error @ Error::Foreign { .. }) => {
                    return Ok(Network::NotProgrammed("Conflicted", error.to_string()));
                }
                Err(error) => return Err(error),
            }
            names.push(name);
        }
        for stale in live.values().filter(|policy| is_stale(policy, owner, &names)) {
            delete_seen(&self.context.client, stale.as_ref()).await?;
            self.index.deleted(stale);
        }
        Ok(match intent {
            None => Network::Absent,
            Some(_) => Network::Programmed(NetworkStatus { rendered: names, findings: rendered.findings }),
        })
    }

    async fn kept(&self, policy: &SecurityPolicy, kept: NetworkPolicy, outcome: Outcome) {
        if outcome == Outcome::Unchanged {
            return;
        }
        let name = kept.name_any();
        self.index.wrote(kept);
        // A change that follows a new spec is no drift.
        let handled = policy.status.as_ref().and_then(|status| status.observed_generation);
        if outcome == Outcome::Changed && handled == policy.metadata.generation {
            self.context.metrics.drift_reverted.get_or_create(&KindLabel { kind: "NetworkPolicy" }).inc();
            let note = format!("NetworkPolicy {name} was changed by another hand and has been put back");
            self.context.events.publish(policy, DRIFT_REVERTED, &note).await;
        }
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
        let mut shown = None;
        match network {
            Network::Absent => {
                conditions.set(Type::Accepted, true, "Accepted", "");
                conditions.set(Type::Programmed, true, "NothingToRender", "the spec asks for no NetworkPolicies");
                conditions.set(Type::Ready, true, "Ready", "");
            }
            Network::Programmed(network) => {
                let rendered = format!("{} NetworkPolicies are as rendered", network.rendered.len());
                conditions.set(Type::Accepted, true, "Accepted", "");
                conditions.set(Type::Programmed, true, "Programmed", rendered);
                conditions.set(Type::Ready, true, "Ready", "");
                shown = Some(network);
            }
            Network::NotProgrammed(reason, message) => {
                let accepted = !matches!(reason, "Invalid" | "Conflicted" | "NotPermitted");
                let why = if accepted { "Accepted" } else { reason };
                conditions.set(Type::Accepted, accepted, why, if accepted { "" } else { message.as_str() });
                conditions.stall(reason, &message);
                shown = policy.status.as_ref().and_then(|status| status.network.clone());
            }
        }
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

/// Whether a NetworkPolicy stands by itself: neither this owner's, nor a half that some owner generated.
fn is_other(policy: &NetworkPolicy, owner: &Owner) -> bool {
    let half = policy.labels().get(PART).is_some_and(|part| part == RECIPROCAL);
    !half && !owner.owns(policy.labels())
}

/// Whether a NetworkPolicy was made for this owner, or for a predecessor of its name, and is no longer
/// rendered.
fn is_stale(policy: &NetworkPolicy, owner: &Owner, rendered: &[String]) -> bool {
    is_managed(policy.labels(), KIND)
        && policy.labels().get(OWNER_NAME) == Some(&owner.name)
        && !rendered.contains(&policy.name_any())
}

/// Wakes the policies of namespaces where something else is in force than before.
async fn wake_for_floor(
    mut in_force: watch::Receiver<InForce>,
    roots: Roots<SecurityPolicy>,
    one: mpsc::UnboundedSender<ObjectRef<DeserializeGuard<SecurityPolicy>>>,
    stopped: CancellationToken,
) -> anyhow::Result<()> {
    let mut before = InForce::default();
    loop {
        let now = in_force.borrow_and_update().clone();
        let differs = |namespace: &str| {
            now.webhook != before.webhook
                || now.paused != before.paused
                || now.floor.get(namespace) != before.floor.get(namespace)
                || now.webhook_alone.contains(namespace) != before.webhook_alone.contains(namespace)
        };
        for root in roots.store.state_filter(|root| differs(root.namespace().as_deref().unwrap_or_default())) {
            let _ = one.send(ObjectRef::from_obj(root.as_ref()));
        }
        before = now;
        tokio::select! {
            changed = in_force.changed() => if changed.is_err() { stopped.cancelled().await; },
            () = stopped.cancelled() => return Ok(()),
        }
    }
}

/// Wakes the policies that a NetworkPolicy matters to.
struct Wake {
    one: mpsc::UnboundedSender<ObjectRef<DeserializeGuard<SecurityPolicy>>>,
    all: watch::Sender<u64>,
    roots: Roots<SecurityPolicy>,
}

impl Wake {
    fn about(&self, news: Option<&NetworkPolicy>) {
        let Some(policy) = news else {
            self.all.send_modify(|count| *count += 1);
            return;
        };
        let namespace = policy.namespace().unwrap_or_default();
        let labels = policy.labels();
        match labels.get(OWNER_NAME) {
            Some(owner) if is_managed(labels, KIND) => {
                let _ = self.one.send(ObjectRef::new(owner).within(&namespace));
            }
            _ => {
                // Somebody else's may isolate pods whose side a policy opens; and one of ours may have
                // lost its labels.
                for root in self.roots.store.state_filter(|root| root.namespace().as_ref() == Some(&namespace)) {
                    let _ = self.one.send(ObjectRef::from_obj(root.as_ref()));
                }
            }
        }
    }
}

/// NetworkPolicies whose owner is gone.
struct Orphans {
    context: Context,
    index: NetworkIndex,
    roots: Roots<SecurityPolicy>,
}

impl Orphanage for Orphans {
    type Orphan = Arc<NetworkPolicy>;
    const OWNER: &'static str = KIND;
    const CRD: &'static str = "securitypolicies.rampart.dev";

    async fn orphans(&self) -> Result<(Vec<Arc<NetworkPolicy>>, usize)> {
        let owners = self.roots.uids();
        let ours = self.index.filter(|policy| is_managed(policy.labels(), KIND));
        let all = ours.len();
        let is_lost = |labels: &BTreeMap<String, String>| is_orphan(labels, &owners);
        Ok((ours.into_iter().filter(|policy| is_lost(policy.labels())).collect(), all))
    }

    fn metadata<'a>(&self, orphan: &'a Arc<NetworkPolicy>) -> &'a ObjectMeta {
        &orphan.metadata
    }

    fn is_orphan(&self, orphan: &Arc<NetworkPolicy>) -> bool {
        is_orphan(orphan.labels(), &self.roots.uids())
    }

    async fn remove(&self, orphan: &Arc<NetworkPolicy>) -> Result<()> {
        delete_seen(&self.context.client, orphan.as_ref()).await?;
        self.index.deleted(orphan);
        Ok(())
    }
}
