//! The network part of a policy: render, preview, guard, keep.

use std::time::Instant;

use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::ResourceExt as _;
use rampart_reach::{Change, Pod, Policy};
use tokio::task::block_in_place;

use super::{
    super::network_index::{ByName, Live},
    KIND, SecurityPolicies,
};
use crate::{
    api::{
        Finding, NetworkMode, NetworkPreview, NetworkStatus, SecurityPolicy,
        condition::{self, Type},
        labels::OWNER_NAME,
    },
    cluster::{
        Error, Result,
        apply::{Outcome, delete_seen, is_as_wanted, keep},
        events::Reason,
        owner::{Owner, is_managed},
    },
    network::{Cluster, Intent, Population, Rendered, View, breaks, preview, render, understood, widened_by},
    policy::{self, Refused},
    runtime::metrics::KindLabel,
};

const MANAGER: &str = "rampart-network";
const DRIFT_REVERTED: Reason = Reason::warning("DriftReverted");
const POLICY_WIDENED: Reason = Reason::warning("PolicyWidened");
const ENFORCE_REFUSED: &str = "EnforceRefused";
/// Names of what widens an intent, and findings, that status holds.
const NAMED: usize = 20;
const FINDINGS: usize = 50;

/// What there is to say about the network part of a policy.
pub(super) enum Network {
    /// The spec asks for none, or disables it.
    Absent,
    /// Worked out, and not written.
    Previewed(NetworkStatus),
    /// Rendered and kept.
    Programmed(NetworkStatus),
    /// Can't be, and why; with what is known all the same.
    NotProgrammed(&'static str, String, Option<NetworkStatus>),
}

/// What there is, and what shall be.
struct Plan<'p> {
    owner: &'p Owner,
    live: &'p ByName,
    wanted: Vec<NetworkPolicy>,
}

impl SecurityPolicies {
    pub(super) async fn network(&self, policy: &SecurityPolicy, owner: &Owner) -> Result<Network> {
        let refused = |reason, message: String| Ok(Network::NotProgrammed(reason, message, None));
        let intent = match policy::intent(policy, &owner.namespace) {
            Ok(intent) => intent,
            Err(error @ Refused::NotPermitted(_)) => return refused("NotPermitted", error.to_string()),
            Err(Refused::Invalid(invalid)) => return refused("Invalid", invalid.to_string()),
        };
        let live = self.index.in_namespace(&owner.namespace);
        let Some((intent, spec)) = intent.zip(policy.spec.network.as_ref()) else {
            self.remove_stale(&Plan { owner, live: &live, wanted: vec![] }).await?;
            return Ok(Network::Absent);
        };
        let rendered = {
            let base = format!("rampart-{}-{}", owner.name, owner.short_uid());
            let others: Vec<&NetworkPolicy> =
                live.values().map(|live| &live.object).filter(|other| owner.is_stranger_to(other.labels())).collect();
            let (facts, around) = (self.facts.borrow().clone(), self.surroundings.borrow().clone());
            let population = self.residents.population();
            let cluster = Cluster {
                facts: &facts,
                namespaces: &population.namespaces,
                pods: population.index.pods(),
                services: &around.services,
            };
            render(&intent, (&owner.namespace, &base), &cluster, &others)
        };
        let Rendered { policies: mut wanted, findings } = match rendered {
            Ok(rendered) => rendered,
            // What was rendered before stays: closing or opening anything by accident is worse.
            Err(unrenderable) => return refused(unrenderable.reason(), unrenderable.to_string()),
        };
        for wanted in &mut wanted {
            wanted.metadata.labels.get_or_insert_default().extend(owner.labels());
        }
        let plan = Plan { owner, live: &live, wanted };
        let keeps = spec.mode == NetworkMode::Enforce && was_programmed(policy);
        let began = Instant::now();
        let (mut status, breaks) = self.look(policy, &intent, &plan, keeps);
        self.context.metrics.network_analysis_seconds.observe(began.elapsed().as_secs_f64());
        self.tell_of_widening(policy, &status).await;
        let open: Vec<&str> = breaks
            .iter()
            .map(|found| found.id.as_str())
            .filter(|id| !spec.acknowledge.iter().any(|it| it == id))
            .collect();
        let refusal = (!open.is_empty()).then(|| refusal(&open));
        status.findings = breaks.into_iter().chain(findings).take(FINDINGS).collect();
        match (spec.mode, refusal) {
            (NetworkMode::Enforce, None) => self.program(policy, plan, status).await,
            (NetworkMode::Enforce, Some(message)) => {
                status.rendered = plan.rendered_before();
                if !was_refused(policy) {
                    self.context.events.publish(policy, Reason::warning(ENFORCE_REFUSED), &message).await;
                }
                Ok(Network::NotProgrammed(ENFORCE_REFUSED, message, Some(status)))
            }
            _ => {
                status.rendered = plan.rendered_before();
                Ok(Network::Previewed(status))
            }
        }
    }

    /// Whom the plan is about, what it changes, what widens it, and what it would break. What changes in one that was
    /// programmed before is drift.
    fn look(
        &self,
        policy: &SecurityPolicy,
        intent: &Intent,
        plan: &Plan<'_>,
        is_drift: bool,
    ) -> (NetworkStatus, Vec<Finding>) {
        let population = self.residents.population();
        let index = &population.index;
        let selected = intent.selected(index, &plan.owner.namespace);
        let added: Vec<Policy> = plan.wanted.iter().filter_map(understood).collect();
        let added: Vec<&Policy> = added.iter().collect();
        let is_ours = |live: &Live| plan.owner.owns(live.object.labels());
        let is_preview = policy.spec.network.as_ref().is_some_and(|it| it.mode == NetworkMode::Preview);
        let status = NetworkStatus {
            selected_pods: Some(i64::try_from(selected.len()).unwrap_or(i64::MAX)),
            preview: is_preview.then(NetworkPreview::default),
            ..NetworkStatus::default()
        };
        let foreign: Vec<&Live> = plan.live.values().map(AsRef::as_ref).filter(|it| is_foreign(it)).collect();
        let pods: Vec<&Pod> = index.pods().iter().filter(|pod| pod.namespace == plan.owner.namespace).collect();
        let is_about_nobody =
            |list: &[&Policy]| !pods.iter().any(|pod| list.iter().any(|policy| policy.pods.matches(&pod.labels)));
        let own: Vec<&Policy> =
            plan.live.values().filter(|live| is_ours(live)).filter_map(|live| live.understood()).collect();
        let stays = is_drift || plan.is_in_force() || (is_about_nobody(&added) && is_about_nobody(&own));
        if stays && (foreign.is_empty() || selected.is_empty()) {
            // Policies of the rest of the cluster need not be understood: at rest they take no memory.
            return (status, vec![]);
        }
        let around = (&*population, selected.as_slice());
        // Threads of their own only for what takes long: each that was needed once keeps memory.
        block_in_place(|| self.analyse(policy, plan, (&added, stays), around, status))
    }

    /// What widens the intent, and, unless it stays as it is, what the plan changes and would break.
    fn analyse(
        &self,
        policy: &SecurityPolicy,
        plan: &Plan<'_>,
        (added, stays): (&[&Policy], bool),
        (population, selected): (&Population, &[usize]),
        mut status: NetworkStatus,
    ) -> (NetworkStatus, Vec<Finding>) {
        let index = &population.index;
        let is_ours = |live: &Live| plan.owner.owns(live.object.labels());
        let all = self.index.filter(|_| true);
        let known = all.iter().filter_map(|live| Some((live.as_ref(), live.understood()?)));
        let (removed, kept): (Vec<_>, Vec<_>) = known.partition(|(live, _)| is_ours(live));
        let (removed_all, kept_all) = (policies(&removed), policies(&kept));
        let foreign: Vec<_> = kept
            .iter()
            .filter(|(live, _)| live.object.namespace().as_ref() == Some(&plan.owner.namespace) && is_foreign(live))
            .copied()
            .collect();
        let wide = widened_by(index, added, &kept_all, &policies(&foreign), selected);
        let wide = wide.into_iter().filter_map(|place| Some(foreign.get(place)?.0.object.name_any()));
        status.widened_by = wide.take(NAMED).collect();
        if stays {
            return (status, vec![]);
        }
        let change = Change::new(index, &kept_all, &removed_all, added);
        let objects = kept.iter().chain(&removed).map(|(live, _)| &live.object).chain(&plan.wanted);
        let names: Vec<String> =
            objects.map(|it| format!("{}/{}", it.namespace().unwrap_or_default(), it.name_any())).collect();
        status.preview = Some(preview(&change, index, &names));
        let view = View {
            change: &change,
            population,
            selected,
            around: &self.surroundings.borrow().clone(),
            facts: &self.facts.borrow().clone(),
            policy: (&plan.owner.namespace, &plan.owner.name),
            allow_no_dns: policy.spec.network.as_ref().and_then(|it| it.allow_no_dns) == Some(true),
        };
        (status, breaks(&view))
    }

    async fn program(&self, policy: &SecurityPolicy, plan: Plan<'_>, mut status: NetworkStatus) -> Result<Network> {
        for wanted in &plan.wanted {
            let name = wanted.name_any();
            let live = plan.live.get(&name).map(|live| &live.object);
            match keep(&self.context.client, MANAGER, plan.owner, wanted, live).await {
                Ok((kept, outcome)) => self.kept(policy, kept, outcome).await,
                Err(error @ Error::Foreign { .. }) => {
                    return Ok(Network::NotProgrammed("Conflicted", error.to_string(), None));
                }
                Err(error) => return Err(error),
            }
            status.rendered.push(name);
        }
        self.remove_stale(&plan).await?;
        status.preview = None;
        Ok(Network::Programmed(status))
    }

    /// An event when others newly widen an intent.
    async fn tell_of_widening(&self, policy: &SecurityPolicy, status: &NetworkStatus) {
        let before = policy.status.as_ref().and_then(|status| status.network.as_ref());
        let known = |name: &&String| before.is_some_and(|before| before.widened_by.contains(name));
        let new: Vec<&str> = status.widened_by.iter().filter(|name| !known(name)).map(String::as_str).collect();
        if !new.is_empty() {
            let note =
                format!("NetworkPolicies of others allow pods of this policy more than it does: {}", new.join(", "));
            self.context.events.publish(policy, POLICY_WIDENED, &note).await;
        }
    }

    async fn remove_stale(&self, plan: &Plan<'_>) -> Result<()> {
        for stale in plan.stale() {
            delete_seen(&self.context.client, stale).await?;
            self.index.deleted(stale);
        }
        Ok(())
    }

    async fn kept(&self, policy: &SecurityPolicy, kept: NetworkPolicy, outcome: Outcome) {
        if outcome == Outcome::Unchanged {
            return;
        }
        let name = kept.name_any();
        self.index.wrote(kept);
        if outcome == Outcome::Changed && was_programmed(policy) {
            self.context.metrics.drift_reverted.get_or_create(&KindLabel { kind: "NetworkPolicy" }).inc();
            let note = format!("NetworkPolicy {name} was changed by another hand and has been put back");
            self.context.events.publish(policy, DRIFT_REVERTED, &note).await;
        }
    }
}

fn policies<'p>(known: &[(&Live, &'p Policy)]) -> Vec<&'p Policy> {
    known.iter().map(|(_, policy)| *policy).collect()
}

/// Whether somebody else made it.
fn is_foreign(live: &Live) -> bool {
    !is_managed(live.object.labels(), KIND)
}

impl Plan<'_> {
    /// Whether the cluster holds exactly what shall be.
    fn is_in_force(&self) -> bool {
        let holds = |wanted: &NetworkPolicy| {
            self.live.get(&wanted.name_any()).is_some_and(|live| is_as_wanted(&live.object, wanted))
        };
        self.wanted.iter().all(holds) && self.stale().next().is_none()
    }

    /// What was made for this owner, or for a predecessor of its name, and is no longer rendered.
    fn stale(&self) -> impl Iterator<Item = &NetworkPolicy> {
        let is_wanted = |name: String| self.wanted.iter().any(|wanted| wanted.name_any() == name);
        self.live.values().map(|live| &live.object).filter(move |object| {
            is_managed(object.labels(), KIND)
                && object.labels().get(OWNER_NAME) == Some(&self.owner.name)
                && !is_wanted(object.name_any())
        })
    }

    /// What Enforce rendered before, and what nothing keeps now.
    fn rendered_before(&self) -> Vec<String> {
        let own = self.live.values().filter(|live| self.owner.owns(live.object.labels()));
        own.map(|live| live.object.name_any()).collect()
    }
}

/// Whether this very spec was programmed: what is otherwise now was changed by others, or by the cluster.
fn was_programmed(policy: &SecurityPolicy) -> bool {
    let Some(status) = &policy.status else { return false };
    status.observed_generation == policy.metadata.generation && condition::is_true(&status.conditions, Type::Programmed)
}

fn was_refused(policy: &SecurityPolicy) -> bool {
    let conditions = policy.status.iter().flat_map(|status| &status.conditions);
    conditions.into_iter().any(|it| it.type_ == Type::Programmed.as_str() && it.reason == ENFORCE_REFUSED)
}

fn refusal(open: &[&str]) -> String {
    let named = open.iter().take(5).copied().collect::<Vec<_>>().join(", ");
    let more = open.len().checked_sub(5).filter(|more| *more > 0).map(|more| format!(" and {more} more"));
    format!(
        "it would break {named}{}, told in status.network.findings: allow what they need, or list their ids in \
         spec.network.acknowledge",
        more.unwrap_or_default()
    )
}
