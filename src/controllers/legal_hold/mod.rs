//! LegalHold and ClusterLegalHold: keeps the admission policies by which the API server refuses, until the hold ends
//! or is gone. A pause never touches them.

mod orphans;
mod told;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use kube::{Api, ResourceExt as _, core::PartialObjectMeta, runtime::watcher};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use self::{
    orphans::Orphans,
    told::{Found, is_no_news, next, status, told_ready},
};
use super::{Context, Next, Reconciler, Roots, Triggers, news, pruning};
use crate::{
    api::HoldState,
    cluster::{
        Error, Result,
        apply::{IN_FORCE_AFTER, Outcome},
        events::Reason,
        holds::{Holding, Live, made_for, unserved},
        leader::Leadership,
        server_clock::server_time,
        status as written,
    },
    retention::{Hold, refusals},
    runtime::{clock, metrics::KindLabel, tasks::Tasks},
};

const ACTIVE: Reason = Reason::normal("HoldActive");
const EXPIRED: Reason = Reason::normal("HoldExpired");
const REVERTED: Reason = Reason::warning("DriftReverted");

/// The controller of one kind of hold.
pub struct LegalHolds<K: Holding> {
    context: Context,
    roots: Roots<K>,
    /// UIDs of those that are in force.
    active: Mutex<BTreeSet<String>>,
    /// When what is refused for a hold was written last, by its UID; forgotten when every API server knows.
    written: Mutex<BTreeMap<String, Instant>>,
}

impl<K: Holding> LegalHolds<K> {
    /// Adds the controller to the tasks of a process.
    pub fn spawn(context: &Context, leadership: Leadership, install_namespace: String, tasks: &mut Tasks) {
        let (root, roots) = super::root::<K>();
        let (all_tx, all) = watch::channel(0);
        let which = watcher::Config::default().labels(&made_for(K::KIND));
        let policies: Api<PartialObjectMeta<ValidatingAdmissionPolicy>> = Api::all(context.client.clone());
        let bindings: Api<PartialObjectMeta<ValidatingAdmissionPolicyBinding>> = Api::all(context.client.clone());
        let news = vec![news::of(policies, which.clone()), news::of(bindings, which)];
        tasks.spawn("hold-watch", news::follow("what is refused for holds", news, all_tx, context.stopped.clone()));
        let controller =
            Arc::new(Self { context: context.clone(), roots, active: Mutex::default(), written: Mutex::default() });
        tasks.spawn(K::CONTROLLER, controller.run(root, all, leadership, install_namespace));
    }

    async fn run(
        self: Arc<Self>,
        root: super::Root<K>,
        all: watch::Receiver<u64>,
        mut leadership: Leadership,
        namespace: String,
    ) -> anyhow::Result<()> {
        let (context, roots) = (self.context.clone(), self.roots.clone());
        tokio::select! {
            () = leadership.acquired() => {}
            () = context.stopped.cancelled() => return Ok(()),
        }
        let (_one, one) = mpsc::unbounded_channel();
        let orphanage = Arc::new(Orphans { client: context.client.clone(), roots: roots.clone() });
        let confirmed = leadership.confirmed_prune();
        let pruning = pruning::follow(orphanage, context.clone(), namespace, confirmed);
        let running = super::run(self.clone(), context.clone(), root, Triggers { one, all });
        tokio::try_join!(running, pruning, self.forget_deleted())?;
        Ok(())
    }

    async fn forget_deleted(&self) -> anyhow::Result<()> {
        let mut deletions = self.roots.deletions();
        loop {
            tokio::select! {
                changed = deletions.changed() => if changed.is_err() { break },
                () = self.context.stopped.cancelled() => return Ok(()),
            }
            let uids = self.roots.uids();
            self.count(|active| active.retain(|uid| uids.contains(uid)));
        }
        self.context.stopped.cancelled().await;
        Ok(())
    }

    fn count(&self, change: impl FnOnce(&mut BTreeSet<String>)) {
        let mut active = self.active.lock();
        change(&mut active);
        let gauge = self.context.metrics.holds_active.get_or_create(&KindLabel { kind: K::KIND.as_str() }).clone();
        gauge.set(i64::try_from(active.len()).unwrap_or(i64::MAX));
    }

    /// Whether it has ended, by both clocks: one that was set ahead releases nothing.
    async fn is_over(&self, hold: &Hold) -> Result<bool> {
        if !hold.has_ended(clock::now()) {
            return Ok(false);
        }
        let theirs = server_time(&self.context.client).await?;
        if !hold.has_ended(theirs) {
            let (kind, name, namespace) = (hold.kind.as_str(), &hold.name, &hold.namespace);
            tracing::warn!(kind, namespace, name, api_server = %theirs, "a hold goes on: it has ended by our clock alone");
        }
        Ok(hold.has_ended(theirs))
    }

    async fn visit(&self, object: &K) -> Result<Found> {
        let hold = match object.hold() {
            Ok(hold) => hold,
            Err(invalid) => return Box::pin(self.visit_invalid(object, invalid.to_string())).await,
        };
        if self.is_over(&hold).await? {
            return self.end(&hold).await;
        }
        let client = &self.context.client;
        let (mut policies, mut is_new) = (vec![], false);
        for refusal in refusals(&hold) {
            let name = refusal.policy.name_any();
            let outcomes = Live::read(client, &name).await?.put(client, &refusal).await?;
            if outcomes.iter().any(|outcome| *outcome != Outcome::Unchanged) {
                tracing::info!(name, hold = %hold, ?outcomes, "admission policy of a hold");
                is_new = true;
            }
            policies.push(name);
        }
        if is_new {
            self.tell_of_drift(object).await;
        }
        let pending = self.is_pending(&hold.uid, is_new);
        let unserved = if told_ready(object) { None } else { unserved(client, &hold).await? };
        Ok(Found::Held { pending, unserved, policies })
    }

    /// One that could not be made any more. What an earlier build made for it refuses until it ends, for nobody has released
    /// it; and nothing is made for it, nor put back.
    async fn visit_invalid(&self, object: &K, why: String) -> Result<Found> {
        let mut policies = vec![];
        let Some(hold) = object.before() else { return Ok(Found::Invalid { why, policies }) };
        if self.is_over(&hold).await? {
            return self.end(&hold).await;
        }
        for refusal in refusals(&hold) {
            let name = refusal.policy.name_any();
            if Live::read(&self.context.client, &name).await?.is_bound() {
                policies.push(name);
            }
        }
        Ok(Found::Invalid { why, policies })
    }

    /// Takes back what is refused for one that has ended.
    async fn end(&self, hold: &Hold) -> Result<Found> {
        let client = &self.context.client;
        for refusal in refusals(hold) {
            let name = refusal.policy.name_any();
            if Live::read(client, &name).await?.remove(client).await? {
                tracing::info!(name, hold = %hold, "a hold has ended: admission policy removed");
            }
        }
        Ok(Found::Over(hold.until.unwrap_or_default()))
    }

    /// Whether some API server may not refuse yet. By the time that passes, not by what a clock says.
    fn is_pending(&self, uid: &str, is_new: bool) -> bool {
        let mut written = self.written.lock();
        if is_new {
            written.insert(uid.into(), Instant::now());
        }
        written.retain(|_, at| at.elapsed() < IN_FORCE_AFTER);
        written.contains_key(uid)
    }

    /// What was in force for this very spec has been changed or removed by somebody else.
    async fn tell_of_drift(&self, object: &K) {
        let told = object.status().filter(|status| status.observed_generation == object.meta().generation);
        if told.is_some_and(|status| status.state == Some(HoldState::Active)) {
            let kind = "ValidatingAdmissionPolicy";
            self.context.metrics.drift_reverted.get_or_create(&KindLabel { kind }).inc();
            let note = "what the API server refuses for this hold was changed or removed, and is put back";
            self.context.events.publish(object, REVERTED, note).await;
        }
    }
}

impl<K: Holding> Reconciler for LegalHolds<K> {
    type Root = K;
    const NAME: &'static str = K::CONTROLLER;

    async fn reconcile(&self, object: &K) -> Result<Next> {
        if object.meta().deletion_timestamp.is_some() {
            return Ok(Next::Change);
        }
        let (found, failure) = match Box::pin(self.visit(object)).await {
            Ok(found) => (found, None),
            // What may be over in a moment is told when it fails again and again.
            Err(error) if is_no_news(object, &error) || !error.is_refusal() => return Err(error),
            Err(error) => (Found::Failed(error.reason(), error.to_string()), Some(error)),
        };
        let wanted = status(object, &found);
        let before = object.status().and_then(|status| status.state);
        let wrote = written::report(&self.context.client, object, &wanted).await?;
        let uid = object.uid().unwrap_or_default();
        self.count(|active| match wanted.state {
            Some(HoldState::Active) => drop(active.insert(uid)),
            _ => drop(active.remove(&uid)),
        });
        if wrote && before != wanted.state {
            match wanted.state {
                Some(HoldState::Active) => {
                    self.context.events.publish(object, ACTIVE, "what it selects can't be deleted or changed").await;
                }
                Some(HoldState::Expired) => {
                    self.context.events.publish(object, EXPIRED, "it has ended: nothing is held by it any more").await;
                }
                Some(HoldState::Pending) | None => {}
            }
        }
        failure.map_or_else(|| Ok(next(object, &wanted)), Err)
    }

    async fn failed(&self, object: &K, error: &Error) -> Result<()> {
        if is_no_news(object, error) {
            return Ok(());
        }
        let wanted = status(object, &Found::Failed(error.reason(), error.to_string()));
        written::report(&self.context.client, object, &wanted).await?;
        self.count(|active| {
            active.remove(&object.uid().unwrap_or_default());
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests;
