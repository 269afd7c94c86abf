//! The floor: keeps the admission policies that the enforced SecurityPolicies compile to.
//!
//! One pass for all of them, since namespaces with equal requirements share a policy. What is new is put
//! into force before what is stale goes.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures::{StreamExt as _, stream::select_all};
use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding, ValidatingWebhookConfiguration,
};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::ListParams,
    core::PartialObjectMeta,
    runtime::{WatchStreamExt as _, watcher},
};
use rampart_pss::{Level, Version};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Backoff, Context, pruning};
use crate::{
    admission::WEBHOOK_CONFIGURATION,
    api::Enforcer,
    api::condition::{Conditions, Type},
    api::{
        HardeningMode,
        labels::{FLOOR, MANAGED_BY, MANAGER, PART},
    },
    cluster::{
        Error, Result,
        apply::{Kept, Outcome, delete_seen_in, keep_in},
        error::{call, found},
        events::Reason,
        leader::Leadership,
        pause::{self, Pause, Pauses},
        policy_index::{PolicyIndex, Standards},
        prune::{CrdState, Verdict, crd_state, decide},
    },
    hardening::{Floor, Place, Requirement, SELECTOR, compile, extent},
    runtime::{
        clock,
        metrics::{KindLabel, Metrics},
        readiness::Gate,
        tasks::Tasks,
    },
};

const FIELD_MANAGER: &str = "rampart-floor";
const KIND: &str = "ValidatingAdmissionPolicy";
const CRD: &str = "securitypolicies.rampart.dev";
const CLUSTER_CRD: &str = "clustersecuritypolicies.rampart.dev";
/// Changes that come together are one pass.
const SETTLE: Duration = Duration::from_millis(100);

const RESUMED: Reason = Reason::normal("EnforcementResumed");

/// What refuses pods now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InForce {
    /// Standards that admission policies enforce for SecurityPolicies.
    pub floor: Standards,
    /// Standards that admission policies enforce for ClusterSecurityPolicies, by name.
    pub clusters: BTreeMap<String, (Level, Version)>,
    /// Whether the API server asks the webhook about pods.
    pub webhook: bool,
    /// Until when, and why, nothing is refused.
    pub paused: Option<Pause>,
}

/// The controller of the floor.
pub struct Floors {
    context: Context,
    index: PolicyIndex,
    pauses: Pauses,
    install_namespace: String,
    in_force: watch::Sender<InForce>,
}

/// What a pass found live.
struct Live {
    policies: BTreeMap<String, ValidatingAdmissionPolicy>,
    bindings: BTreeMap<String, ValidatingAdmissionPolicyBinding>,
}

/// What refuses pods for a policy, and why it is not yet, or no longer, what was asked for.
#[derive(Debug, PartialEq)]
pub(super) struct Enforcers {
    pub(super) by: Vec<Enforcer>,
    pending: Option<(&'static str, String)>,
}

impl InForce {
    fn add(&mut self, floor: &Floor) {
        match &floor.place {
            Place::Named(namespaces) => {
                for namespace in namespaces {
                    self.floor.entry(namespace.clone()).or_default().insert(floor.standard);
                }
            }
            Place::Selected(names) => self.clusters.extend(names.iter().map(|name| (name.clone(), floor.standard))),
        }
    }

    /// What refuses the pods that a policy refuses, given whether its floor is in force; `None` where it
    /// refuses none.
    pub(super) fn enforcers(&self, requirement: &Requirement, floor: bool) -> Option<Enforcers> {
        if requirement.mode != HardeningMode::Enforce {
            return None;
        }
        if let Some(pause) = &self.paused {
            let why = format!("nothing is refused until {}: {}", pause.until, pause.reason);
            return Some(Enforcers { by: vec![], pending: Some(("Paused", why)) });
        }
        let by = [self.webhook.then_some(Enforcer::Webhook), floor.then_some(Enforcer::AdmissionPolicy)];
        let why = "the ValidatingAdmissionPolicy for spec.hardening is not in force yet";
        let pending = (requirement.has_floor() && !floor).then(|| ("AdmissionPolicyPending", why.to_owned()));
        Some(Enforcers { by: by.into_iter().flatten().collect(), pending })
    }
}

impl Enforcers {
    /// Says in conditions what is pending.
    pub(super) fn tell(&self, conditions: &mut Conditions) {
        if let Some((reason, why)) = self.pending.as_ref().filter(|_| !conditions.is(Type::Stalled)) {
            conditions.set(Type::Programmed, false, reason, why.as_str());
            conditions.set(Type::Ready, false, reason, why.as_str());
            conditions.set(Type::Reconciling, true, reason, why.as_str());
        }
    }
}

/// The kind that a policy of ours is kept for, by its CRD.
fn crd_of(policy: &ValidatingAdmissionPolicy) -> &'static str {
    if extent(policy).iter().any(|place| place.starts_with(SELECTOR)) { CLUSTER_CRD } else { CRD }
}

impl Floors {
    /// Adds the controller to the tasks of a process; the answer follows what is in force.
    pub fn spawn(
        context: &Context,
        (index, pauses, synced): (PolicyIndex, Pauses, Gate),
        leadership: Leadership,
        install_namespace: String,
        tasks: &mut Tasks,
    ) -> watch::Receiver<InForce> {
        let (in_force, follow) = watch::channel(InForce::default());
        let (client, stopped) = (context.client.clone(), context.stopped.clone());
        let (news_tx, news) = watch::channel(0_u64);
        tasks.spawn("floor-watch", watch_live(client, news_tx, stopped));
        let floors = Self { context: context.clone(), index, pauses, install_namespace, in_force };
        tasks.spawn("floor", floors.run(synced, leadership, news));
        follow
    }

    async fn run(self, synced: Gate, mut leadership: Leadership, mut news: watch::Receiver<u64>) -> anyhow::Result<()> {
        let stopped = self.context.stopped.clone();
        let mut changes = self.index.changes();
        let mut confirmed = leadership.confirmed_prune();
        let mut pauses = self.pauses.clone();
        tokio::select! {
            () = async { leadership.acquired().await; synced.was_opened().await } => {}
            () = stopped.cancelled() => return Ok(()),
        }
        let (mut backoff, key) = (Backoff::default(), (String::new(), KIND.to_owned()));
        loop {
            changes.borrow_and_update();
            news.borrow_and_update();
            let confirmation = *confirmed.borrow_and_update();
            let retry = match self.pass(confirmation).await {
                Ok(()) => {
                    backoff = Backoff::default();
                    None
                }
                Err(error) => {
                    tracing::warn!(%error, "admission policies could not be kept");
                    Some(backoff.failed(&key))
                }
            };
            let until = pauses.borrow_and_update().as_ref().map(|pause| pause.until);
            // Not longer than a minute: a clock may be set, and a machine may sleep.
            let end = until.map(|until| left(until, clock::now()).min(Duration::from_mins(1)));
            let again = async {
                match retry.or(end) {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => std::future::pending().await,
                }
            };
            let ended = tokio::select! {
                result = changes.changed() => result.is_err(),
                result = news.changed() => result.is_err(),
                result = confirmed.changed() => result.is_err(),
                result = pauses.changed() => result.is_err(),
                () = again => false,
                () = stopped.cancelled() => true,
            };
            if ended {
                stopped.cancelled().await;
                return Ok(());
            }
            tokio::time::sleep(SETTLE).await;
        }
    }

    async fn pass(&self, confirmed: Option<usize>) -> Result<()> {
        let mut wanted = compile(&self.index.demand());
        let paused = self.paused().await?;
        if paused.is_some() {
            for floor in &mut wanted {
                floor.binding.spec.validation_actions = vec!["Audit".into()];
            }
        }
        let live = Live::read(&self.context.client).await?;
        let webhook = webhook_is_asked(&self.context.client).await?;
        let shrinking = live.shrinking(&wanted);
        let mut held = BTreeSet::new();
        for crd in [CRD, CLUSTER_CRD] {
            let of: Vec<_> = shrinking.iter().copied().filter(|policy| crd_of(policy) == crd).collect();
            held.extend(self.held(crd, &of, live.policies.len(), confirmed).await?);
        }
        let mut in_force = InForce { webhook, paused, ..InForce::default() };
        let mut failed = None;
        for floor in wanted.iter().filter(|floor| !held.contains(&floor.policy.name_any())) {
            // One that can't be written keeps no other.
            if let Err(error) = live.put(&self.context.client, &self.context.metrics, floor).await {
                failed = Some(error);
                continue;
            }
            in_force.add(floor);
        }
        self.in_force.send_if_modified(|before| {
            let differs = *before != in_force;
            *before = in_force;
            differs
        });
        if let Some(error) = failed {
            return Err(error);
        }
        // Only now: what replaces them is in force.
        for name in live.stale(&wanted).filter(|name| !held.contains(*name)) {
            live.remove(&self.context.client, name).await?;
        }
        if confirmed.is_some() && held.is_empty() && !shrinking.is_empty() {
            pruning::withdraw_confirmation(&self.context, &self.install_namespace).await?;
        }
        Ok(())
    }

    /// The pause that holds; one that is over is cleared away.
    async fn paused(&self) -> Result<Option<Pause>> {
        let Some((pause, object)) = pause::read(&self.context.client, &self.install_namespace).await? else {
            return Ok(None);
        };
        if pause::holds(Some(&pause), clock::now()) {
            return Ok(Some(pause));
        }
        pause::remove(&self.context.client, &self.install_namespace, Some(&object)).await?;
        tracing::info!(until = %pause.until, reason = pause.reason, "the pause is over: hardening is enforced again");
        self.context.events.publish(&object, RESUMED, "the pause is over: hardening is enforced again").await;
        Ok(None)
    }

    /// The policies that must not enforce less than they do, for the prune brake holds.
    async fn held(
        &self,
        crd: &'static str,
        shrinking: &[&ValidatingAdmissionPolicy],
        all: usize,
        confirmed: Option<usize>,
    ) -> Result<BTreeSet<String>> {
        let metric = self.context.metrics.prune_held.get_or_create(&KindLabel { kind: crd }).clone();
        if shrinking.is_empty() {
            metric.set(0);
            return Ok(BTreeSet::new());
        }
        let crd = crd_state(&self.context.client, crd).await?;
        let created: Vec<_> = shrinking.iter().map(|policy| pruning::created(&policy.metadata)).collect();
        let Verdict::Hold(why) = decide(&created, all, crd, confirmed) else {
            metric.set(0);
            // What is older than its CRD would be held again at its next change.
            if let CrdState::Since(since) = crd {
                for policy in shrinking.iter().filter(|policy| pruning::created(&policy.metadata) < since) {
                    delete_seen_in(&Api::all(self.context.client.clone()), *policy).await?;
                }
            }
            return Ok(BTreeSet::new());
        };
        metric.set(i64::try_from(shrinking.len()).unwrap_or(i64::MAX));
        tracing::warn!(
            held = shrinking.len(),
            why,
            "admission policies go on enforcing what no SecurityPolicy asks for"
        );
        Ok(shrinking.iter().map(|policy| policy.name_any()).collect())
    }
}

impl Live {
    async fn read(client: &Client) -> Result<Self> {
        Ok(Self { policies: list(client).await?, bindings: list(client).await? })
    }

    /// Names of what nobody wants any more.
    fn stale<'a>(&'a self, wanted: &'a [Floor]) -> impl Iterator<Item = &'a String> {
        let names: BTreeSet<&String> = self.policies.keys().chain(self.bindings.keys()).collect();
        names.into_iter().filter(|name| !wanted.iter().any(|floor| floor.policy.metadata.name.as_ref() == Some(*name)))
    }

    /// Policies that would go, or hold in fewer namespaces.
    fn shrinking(&self, wanted: &[Floor]) -> Vec<&ValidatingAdmissionPolicy> {
        let after = |name: &str| {
            let floor = wanted.iter().find(|floor| floor.policy.metadata.name.as_deref() == Some(name));
            floor.map(|floor| extent(&floor.policy)).unwrap_or_default()
        };
        let shrinks = |name: &str, policy| !extent(policy).is_subset(&after(name));
        self.policies.iter().filter(|(name, policy)| shrinks(name, policy)).map(|(_, policy)| policy).collect()
    }

    async fn put(&self, client: &Client, metrics: &Metrics, floor: &Floor) -> Result<()> {
        let name = floor.policy.name_any();
        let outcomes = [
            put(client, &floor.policy, self.policies.get(&name)).await?,
            put(client, &floor.binding, self.bindings.get(&name)).await?,
        ];
        for outcome in outcomes.iter().filter(|outcome| **outcome != Outcome::Unchanged) {
            tracing::info!(name, ?outcome, "admission policy");
        }
        // A binding is made once and never changes by our own doing.
        if matches!(outcomes, [_, Outcome::Changed]) {
            metrics.drift_reverted.get_or_create(&KindLabel { kind: "ValidatingAdmissionPolicyBinding" }).inc();
        }
        Ok(())
    }

    /// The binding first: a policy without one refuses nothing, a binding without one is an error.
    async fn remove(&self, client: &Client, name: &str) -> Result<()> {
        if let Some(binding) = self.bindings.get(name) {
            delete_seen_in(&Api::all(client.clone()), binding).await?;
        }
        if let Some(policy) = self.policies.get(name) {
            delete_seen_in(&Api::all(client.clone()), policy).await?;
        }
        tracing::info!(name, "admission policy removed");
        Ok(())
    }
}

fn left(until: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(until.duration_since(now)).unwrap_or_default().max(Duration::from_millis(10))
}

fn is_ours(labels: &BTreeMap<String, String>) -> bool {
    let has = |key: &str, value: &str| labels.get(key).is_some_and(|found| found == value);
    has(MANAGED_BY, MANAGER) && has(PART, FLOOR)
}

fn selector() -> String {
    format!("{MANAGED_BY}={MANAGER},{PART}={FLOOR}")
}

async fn put<K>(client: &Client, wanted: &K, live: Option<&K>) -> Result<Outcome>
where
    K: Kept + Resource<Scope = k8s_openapi::ClusterResourceScope>,
{
    let api: Api<K> = Api::all(client.clone());
    if live.is_none() {
        // Not among ours by label. One that we wrote has lost its labels; somebody else's of that name is
        // never overwritten.
        let name = wanted.name_any();
        if let Some(other) = found(call(|| format!("reading {name}"), api.get(&name)).await)?
            && !other.managed_fields().iter().any(|entry| entry.manager.as_deref() == Some(FIELD_MANAGER))
        {
            return Err(Error::Foreign { kind: KIND, name });
        }
    }
    keep_in(&api, FIELD_MANAGER, is_ours, wanted, live).await.map(|(_, outcome)| outcome)
}

async fn list<K>(client: &Client) -> Result<BTreeMap<String, K>>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::ClusterResourceScope>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
{
    let api: Api<K> = Api::all(client.clone());
    let listed =
        call(|| "listing admission policies".into(), api.list(&ListParams::default().labels(&selector()))).await?;
    Ok(listed.items.into_iter().map(|item| (item.name_any(), item)).collect())
}

/// Whether the API server asks our webhook about pods, and can trust it.
async fn webhook_is_asked(client: &Client) -> Result<bool> {
    let api: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
    let doing = || format!("reading the webhook configuration {WEBHOOK_CONFIGURATION}");
    let configuration = found(call(doing, api.get(WEBHOOK_CONFIGURATION)).await)?;
    let webhooks = configuration.and_then(|it| it.webhooks).unwrap_or_default();
    Ok(webhooks.iter().any(|webhook| webhook.name.starts_with("pods.") && webhook.client_config.ca_bundle.is_some()))
}

/// Says so whenever an admission policy of ours, a binding, or our webhook configuration has changed.
async fn watch_live(client: Client, news: watch::Sender<u64>, stopped: CancellationToken) -> anyhow::Result<()> {
    let ours = watcher::Config::default().labels(&selector());
    let webhook = watcher::Config::default().fields(&format!("metadata.name={WEBHOOK_CONFIGURATION}"));
    let policies: Api<PartialObjectMeta<ValidatingAdmissionPolicy>> = Api::all(client.clone());
    let bindings: Api<PartialObjectMeta<ValidatingAdmissionPolicyBinding>> = Api::all(client.clone());
    let webhooks: Api<PartialObjectMeta<ValidatingWebhookConfiguration>> = Api::all(client);
    let streams = select_all([
        watcher(policies, ours.clone()).default_backoff().map(|event| event.map(drop)).boxed(),
        watcher(bindings, ours).default_backoff().map(|event| event.map(drop)).boxed(),
        watcher(webhooks, webhook).default_backoff().map(|event| event.map(drop)).boxed(),
    ]);
    let mut streams = std::pin::pin!(streams.take_until(stopped.cancelled()));
    while let Some(event) = streams.next().await {
        match event {
            Ok(()) => news.send_modify(|count| *count = count.wrapping_add(1)),
            Err(error) => tracing::warn!(%error, "the watch of admission policies failed and is being restarted"),
        }
    }
    Ok(())
}
