//! The floor: keeps the admission policies that the enforced SecurityPolicies compile to.
//!
//! One pass for all of them, since namespaces with equal requirements share a policy. What is new is put
//! into force before what is stale goes, and before the webhook is asked no more.

mod in_force;
mod live;
mod paused;
mod room;
mod stale;
mod stuck;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding, ValidatingWebhookConfiguration,
};
use kube::{Api, Client, CustomResourceExt as _, ResourceExt as _, core::PartialObjectMeta, runtime::watcher};
use parking_lot::Mutex;
use tokio::{sync::watch, time::Instant};

pub use self::{in_force::InForce, room::Leaning};
pub(super) use self::{
    in_force::{Asking, Enforcers},
    live::webhook_alone,
};
use self::{
    live::{Live, selector, webhook_is_asked},
    room::{Room, are_about},
    stale::Askers,
    stuck::Stuck,
};
use super::{
    Backoff, Context,
    news::{self, News},
    pruning,
};
use crate::{
    admission::{ENFORCE_CONFIGURATION, WEBHOOK_CONFIGURATION},
    api::{ClusterSecurityPolicy, SecurityPolicy, labels::CONFIRM_PRUNE},
    cluster::{
        Result,
        apply::IN_FORCE_AFTER,
        leader::{LEASE, Leadership},
        pause::Pauses,
        policy_index::PolicyIndex,
        prune::{Confirmation, Verdict, crd_state, decide},
    },
    hardening::{Demand, FLOORS, Floor, Policies, SELECTOR, compile, extent},
    runtime::{clock, metrics::KindLabel, readiness::Gate, tasks::Tasks},
};

const KIND: &str = "ValidatingAdmissionPolicy";
/// What a confirmation and the metric call the admission policies of ClusterSecurityPolicies: by the kind itself go
/// their NetworkPolicies.
const CLUSTER_KIND: &str = "ClusterValidatingAdmissionPolicy";
/// Changes that come together are one pass.
const SETTLE: Duration = Duration::from_millis(100);
/// Statuses wait so long for the first pass.
const KNOWN_AT_THE_LATEST: Duration = Duration::from_secs(10);

/// The controller of the floor.
pub struct Floors {
    context: Context,
    index: PolicyIndex,
    pauses: Pauses,
    install_namespace: String,
    in_force: watch::Sender<InForce>,
    /// resourceVersion of the ConfigMap that was told of last, since it pauses nothing.
    ignored: Mutex<Option<String>>,
    stuck: Mutex<Stuck>,
    askers: Mutex<Askers>,
    room: Room,
}

/// What came of a pass.
struct Passed {
    /// When to go on with what is left to be taken back.
    later: Option<Instant>,
    /// Some admission policy could not be written.
    failed: bool,
}

/// Waits until it is known what is in force, but not for ever: statuses that are true but for the floor
/// are worth more than none.
pub(super) async fn known(in_force: &watch::Receiver<InForce>) {
    let mut in_force = in_force.clone();
    let _ = tokio::time::timeout(KNOWN_AT_THE_LATEST, in_force.wait_for(|in_force| in_force.known)).await;
}

/// The kind that a policy of ours is kept for, by its CRD.
fn crd_of(policy: &ValidatingAdmissionPolicy) -> &'static str {
    let is_wide = extent(policy).iter().any(|place| place.starts_with(SELECTOR));
    if is_wide { ClusterSecurityPolicy::crd_name() } else { SecurityPolicy::crd_name() }
}

impl Floors {
    /// Adds the controller to the tasks of a process, which makes admission policies of so many requirements of
    /// SecurityPolicies; the answers follow what is in force, and which namespaces lean on the webhook.
    pub fn spawn(
        context: &Context,
        (index, pauses, synced): (PolicyIndex, Pauses, Gate),
        leadership: Leadership,
        (install_namespace, places): (String, usize),
        tasks: &mut Tasks,
    ) -> (watch::Receiver<InForce>, Leaning) {
        let (in_force, follow) = watch::channel(InForce::default());
        let (client, stopped) = (context.client.clone(), context.stopped.clone());
        let (news_tx, news) = watch::channel(0_u64);
        tasks.spawn("floor-watch", news::follow("admission policies", changes(&client), news_tx, stopped));
        let (ignored, stuck, askers, room) = (Mutex::default(), Mutex::default(), Mutex::default(), Room::of(places));
        let (context, leaning) = (context.clone(), room.leaning());
        let floors = Self { context, index, pauses, install_namespace, in_force, ignored, stuck, askers, room };
        tasks.spawn("floor", floors.run(synced, leadership, news));
        (follow, leaning)
    }

    async fn run(self, synced: Gate, mut leadership: Leadership, mut news: watch::Receiver<u64>) -> anyhow::Result<()> {
        let stopped = self.context.stopped.clone();
        let (mut changes, mut labels) = (self.index.changes(), self.index.label_changes());
        let mut confirmed = leadership.confirmed_prune();
        let mut pauses = self.pauses.clone();
        tokio::select! {
            () = async { leadership.acquired().await; synced.was_opened().await } => {}
            () = stopped.cancelled() => return Ok(()),
        }
        let (backoff, key) = (Backoff::default(), (String::new(), KIND.to_owned()));
        let (mut settled, mut last, mut needed) = (false, Demand::default(), BTreeSet::<String>::new());
        loop {
            // Before the pass: what changes while it runs asks for another.
            changes.borrow_and_update();
            labels.borrow_and_update();
            news.borrow_and_update();
            pauses.borrow_and_update();
            let confirmation = confirmed.borrow_and_update().clone();
            // Of one moment: who does not need the webhook any more asks for an admission policy.
            let known = self.index.known();
            let (demand, needing) = (known.demand(clock::now()), known.needing_webhook());
            // Who has just left the webhook by its labels leans on it as long as who left it by an edit.
            let refusing = known.refusing();
            let has_left = needed.difference(&needing).any(|name| refusing.contains(name));
            // Taken back is only what is still not wanted, beside what has been in force since.
            let settles = settled && demand == last && !has_left;
            let passed = self.pass((&known, &demand), (&needing, &refusing), &confirmation, settles).await;
            // It may be long until the next pass, and the index goes on.
            drop(known);
            last = demand;
            let (retry, later) = match passed {
                Ok(Passed { later, failed }) => {
                    if !failed {
                        backoff.succeeded(&key);
                    }
                    (failed.then(|| backoff.failed(&key)), later)
                }
                Err(error) => {
                    tracing::warn!(%error, "admission policies could not be kept");
                    let failure = Some(error.to_string());
                    self.in_force.send_if_modified(|it| {
                        let is_news = it.failure != failure;
                        it.failure = failure;
                        is_news
                    });
                    (Some(backoff.failed(&key)), None)
                }
            };
            let until = self.in_force.borrow().paused.as_ref().map(|pause| pause.until);
            let end = [until, last.next_end()].into_iter().flatten().map(news::until).min();
            let wait = later.map(|at| at.saturating_duration_since(Instant::now()));
            let pause = [retry, wait, end].into_iter().flatten().min();
            let mut quiet = false;
            let ended = tokio::select! {
                result = changes.changed() => result.is_err(),
                result = news.changed() => result.is_err(),
                result = confirmed.changed() => result.is_err(),
                result = pauses.changed() => result.is_err(),
                () = self.relabelled(&needing, &mut labels), if later.is_none() => false,
                () = news::after(pause) => { quiet = true; false }
                () = stopped.cancelled() => true,
            };
            if ended {
                stopped.cancelled().await;
                return Ok(());
            }
            needed = needing;
            settled = quiet && later.is_some_and(|at| at <= Instant::now());
            tokio::time::sleep(SETTLE).await;
            // What came meanwhile is as new as what ends a wait.
            let told = [news.has_changed(), changes.has_changed(), pauses.has_changed()];
            settled &= told.into_iter().all(|is_news| !is_news.unwrap_or(true));
        }
    }

    /// Waits until labels take from a namespace what the webhook alone refused there: nothing else would have it let go.
    /// `needing` are those where it did.
    async fn relabelled(&self, needing: &BTreeSet<String>, labels: &mut watch::Receiver<u64>) {
        while !needing.is_empty() && labels.changed().await.is_ok() {
            // It is in no hurry, and labels of many may change.
            tokio::time::sleep(IN_FORCE_AFTER).await;
            if !needing.is_subset(&self.index.known().needing_webhook()) {
                return;
            }
        }
        std::future::pending::<()>().await;
    }

    /// Puts what is wanted into force. Nothing is taken back in the same pass, nor before every API server
    /// has had the time to see what replaces it: `settled` says that it has. By what is `known`, the webhook alone refuses
    /// something in the namespaces `needing` it, of those that are `refusing`.
    async fn pass(
        &self,
        (known, demand): (&Policies, &Demand),
        (needing, refusing): (&BTreeSet<String>, &BTreeSet<String>),
        confirmed: &Confirmation,
        settled: bool,
    ) -> Result<Passed> {
        let webhook_alone = webhook_alone(&self.context.client).await?;
        let (within, roomless) = self.room.choose(demand, &self.context.metrics);
        let alone: BTreeSet<String> = needing.iter().chain(roomless.keys()).cloned().collect();
        self.room.lean(&alone, refusing, &webhook_alone);
        let live = Live::read(&self.context.client).await?;
        let mut wanted = compile(&within);
        let paused = self.paused().await?;
        let action = if paused.is_some() { "Audit" } else { "Deny" };
        for floor in &mut wanted {
            floor.binding.spec.validation_actions = vec![action.into()];
        }
        let webhook = webhook_is_asked(&self.context.client).await?;
        let narrowing: BTreeSet<String> = live.narrowing(&wanted).iter().map(|policy| policy.name_any()).collect();
        let shrinking = live.shrinking(&wanted, &roomless);
        let (mut held, mut confirmed_any) = (BTreeMap::new(), false);
        for (crd, kind) in [(SecurityPolicy::crd_name(), KIND), (ClusterSecurityPolicy::crd_name(), CLUSTER_KIND)] {
            let of: Vec<_> = shrinking.iter().copied().filter(|policy| crd_of(policy) == crd).collect();
            let confirmed = confirmed.of(kind);
            confirmed_any |= confirmed == Some(of.len());
            held.extend(self.held((crd, kind), &of, live.policies.len(), confirmed).await?);
        }
        self.askers.lock().note(&live, &wanted);
        let mut stale = self.askers.lock().held(&held, &live, (&wanted, known));
        let held: BTreeSet<String> = held.into_keys().collect();
        // Who confirms has waited long enough, and the confirmation is gone when another kind has used it.
        let (is_in_force, settled) = (settled, settled || confirmed_any);
        let left_out = wanted.iter().flat_map(|floor| floor.left_out.iter().cloned()).collect();
        let full = demand.namespaces.iter().filter(|(_, standards)| standards.len() >= FLOORS);
        let full = full.map(|(name, standards)| (name.clone(), standards.keys().cloned().collect())).collect();
        // What the webhook alone is to refuse stays in force until every API server asks it: what names these namespaces
        // was there already when the last pass ended.
        let needing = needing.iter().filter(|_| webhook);
        let named_before = self.in_force.borrow().webhook_alone.clone();
        let is_asked = |name: &&String| webhook_alone.contains(*name) && named_before.contains(*name);
        let mut failed: BTreeSet<String> =
            needing.chain(roomless.keys()).filter(|name| !is_asked(name)).cloned().collect();
        let (unasked, is_new) = (failed.clone(), failed.iter().any(|name| webhook_alone.contains(name)));
        let (mut is_failing, mut is_late) = (false, false);
        let mut in_force = InForce {
            known: true,
            webhook,
            webhook_alone,
            paused,
            left_out,
            full,
            places: self.room.places,
            roomless,
            ..InForce::default()
        };
        // What narrows comes last: it stays where what replaces it there could not be written.
        wanted.sort_by_key(|floor| narrowing.contains(&floor.policy.name_any()));
        for floor in &wanted {
            let name = floor.policy.name_any();
            let keeps = !settled || held.contains(&name);
            let mut more = live.policies.get(&name).map(extent).unwrap_or_default();
            more.retain(|place| keeps || failed.contains(place));
            // One that can't be written keeps no other.
            match live.put(&self.context.client, &self.context.metrics, &floor.clone().widened(&more)).await {
                Ok(()) => {
                    in_force.add(floor);
                    // What could not be written before is written only now: no API server may have seen it yet.
                    if settled && !live.has(floor) {
                        failed.extend(extent(&floor.policy));
                        is_late = true;
                    }
                }
                Err(error) => {
                    tracing::warn!(name, %error, "an admission policy could not be written");
                    in_force.add_unwritten(floor, &error);
                    failed.extend(extent(&floor.policy));
                    is_failing = true;
                }
            }
        }
        self.in_force.send_if_modified(|before| {
            in_force.warn_of_left_out(before);
            in_force.stale.clone_from(&before.stale);
            let differs = *before != in_force;
            *before = in_force;
            differs
        });
        // Who has got an admission policy leans on the webhook until that is in force.
        let is_left = self.room.release(&alone, are_about(&failed, (known, demand)), is_in_force);
        let next = (is_new || is_late || is_left).then(|| Instant::now() + IN_FORCE_AFTER);
        // What is in force was told: that something can't be taken back changes nothing of it.
        let replaced = live.replaced((&failed, &unasked), (known, demand));
        let taken_back =
            self.take_back((&live, known), (&wanted, action), (&held, &replaced, &narrowing), settled).await;
        let later = match taken_back {
            Ok(later) => later,
            Err(error) => {
                tracing::warn!(%error, "a pause could not be brought to admission policies that nobody asks for");
                return Ok(Passed { later: next, failed: true });
            }
        };
        stale.extend(self.stuck.lock().told());
        self.in_force.send_if_modified(|it| {
            let differs = it.stale != stale;
            it.stale = stale;
            differs
        });
        if later.is_none() && settled && confirmed_any && held.is_empty() && !shrinking.is_empty() {
            pruning::withdraw_confirmation(&self.context, &self.install_namespace).await?;
        }
        Ok(Passed { later: [later, next].into_iter().flatten().min(), failed: is_failing })
    }

    /// Takes back what is not wanted any more, once `settled`; when to go on with what is left to be.
    async fn take_back(
        &self,
        (live, known): (&Live, &Policies),
        (wanted, action): (&[Floor], &str),
        (held, replaced, narrowing): (&BTreeSet<String>, &BTreeSet<String>, &BTreeSet<String>),
        settled: bool,
    ) -> Result<Option<Instant>> {
        // What could not be written keeps what it would replace, and nothing else.
        let stays = |name: &String| held.contains(name) || replaced.contains(name);
        let mut stale: BTreeSet<&String> = live.stale(wanted).filter(|name| !stays(name)).collect();
        self.stuck.lock().keep(&stale);
        let waiting = self.stuck.lock().waiting(Instant::now());
        stale.retain(|name| !waiting.contains(*name));
        let goes = |name: &String| settled && stale.contains(name);
        let staying: BTreeSet<String> = live.stale(wanted).filter(|name| !goes(name)).chain(held).cloned().collect();
        live.set_action(&self.context.client, &staying, wanted, action).await?;
        let narrows = narrowing.iter().any(|name| !held.contains(name) && !waiting.contains(name));
        let left = !settled && (narrows || !stale.is_empty());
        for name in stale.into_iter().filter(|_| settled) {
            // One that can't be deleted keeps no other.
            match live.remove(&self.context.client, name).await {
                Ok(()) => self.stuck.lock().succeeded(name),
                Err(error) => {
                    tracing::warn!(name, %error, "an admission policy that nobody asks for could not be deleted");
                    let old = live.policies.get(name);
                    let places = old.map(|old| self.askers.lock().places(old, (wanted, known))).unwrap_or_default();
                    self.stuck.lock().failed(name, places, &error, Instant::now());
                }
            }
        }
        let settles = Instant::now() + IN_FORCE_AFTER;
        let again = self.stuck.lock().next().map(|at| at.max(settles));
        Ok(if left { Some(settles) } else { again })
    }

    /// The policies that must not enforce less than they do, for the prune brake holds, and why, with how to go on.
    async fn held(
        &self,
        (crd, kind): (&'static str, &'static str),
        shrinking: &[&ValidatingAdmissionPolicy],
        all: usize,
        confirmed: Option<usize>,
    ) -> Result<BTreeMap<String, String>> {
        let metric = self.context.metrics.prune_held.get_or_create(&KindLabel { kind }).clone();
        if shrinking.is_empty() {
            metric.set(0);
            return Ok(BTreeMap::new());
        }
        let crd = crd_state(&self.context.client, crd).await?;
        let created: Vec<_> = shrinking.iter().map(|policy| pruning::created(&policy.metadata)).collect();
        let Verdict::Hold(why) = decide(&created, all, crd, confirmed) else {
            metric.set(0);
            return Ok(BTreeMap::new());
        };
        metric.set(i64::try_from(shrinking.len()).unwrap_or(i64::MAX));
        let (held, namespace) = (shrinking.len(), &self.install_namespace);
        let confirm = format!("to confirm, annotate the Lease {namespace}/{LEASE} with {CONFIRM_PRUNE}={kind}={held}");
        tracing::warn!(held, why, "admission policies go on enforcing what nobody asks for: {confirm}");
        let told = |name: &str| format!("the ValidatingAdmissionPolicy {name} is held ({why}): {confirm}");
        Ok(shrinking.iter().map(|policy| policy.name_any()).map(|name| (name.clone(), told(&name))).collect())
    }
}

/// Whatever changes admission policies of ours, their bindings, or what the API server asks the webhook about.
fn changes(client: &Client) -> Vec<News> {
    let ours = watcher::Config::default().labels(&selector());
    let policies: Api<PartialObjectMeta<ValidatingAdmissionPolicy>> = Api::all(client.clone());
    let bindings: Api<PartialObjectMeta<ValidatingAdmissionPolicyBinding>> = Api::all(client.clone());
    let webhooks: Api<PartialObjectMeta<ValidatingWebhookConfiguration>> = Api::all(client.clone());
    vec![
        news::of(policies, ours.clone()),
        news::of(bindings, ours),
        news::of(webhooks.clone(), news::named(WEBHOOK_CONFIGURATION)),
        news::of(webhooks, news::named(ENFORCE_CONFIGURATION)),
    ]
}

#[cfg(test)]
mod tests;
