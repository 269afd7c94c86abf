//! RetentionPolicy: lists, plans, marks and deletes, as the service account that the policy names.
//!
//! Nothing is marked or deleted that a report has not named before.

mod expiry;
mod rollup;
mod run;
mod standing;
mod status;
mod sweep;
mod turns;
mod wake;

use std::{sync::Arc, time::Duration};

use futures::{FutureExt as _, StreamExt as _, future};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client, ResourceExt as _,
    core::PartialObjectMeta,
    runtime::{WatchStreamExt as _, reflector::ObjectRef, watcher},
};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use super::{Context, Next, Reconciler, Roots, Triggers, Turn, requested, work::RECONCILE_DEADLINE};
use crate::{
    api::{
        ClusterLegalHold, LegalHold, RetentionMode, RetentionPolicy, RetentionPolicyStatus, RetentionReport,
        condition::{Type, is_true, suspended},
        labels::{OWNER_KIND, OWNER_NAME, RETENTION_ALLOWED, RETENTION_OPT_IN},
    },
    cluster::{
        Error, Result,
        client::PAGE,
        error::{CALL_DEADLINE, call, found},
        events::Reason,
        impersonate::Impersonator,
        leader::Leadership,
        policy_index::PolicyIndex,
        retained::{self, Retained},
        server_clock::{in_words, skew},
        status as written,
    },
    retention::Spec,
    runtime::{clock, tasks::Tasks},
};
use run::{Carried, Run, SoFar};
use status::{degraded, status};
use turns::Turns;
use wake::{One, for_holds};

/// Until the next try where somebody has to grant something first.
const AGAIN: Duration = Duration::from_secs(5);

/// A visit is cut off after this long, so that its deadline leaves the time to say so in status.
const LONGEST_VISIT: Duration = RECONCILE_DEADLINE.saturating_sub(CALL_DEADLINE);

/// How the controller is set up.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The shortest grace period that a policy may have.
    pub minimum_grace: Duration,
    /// Objects are listed anew after this long, whatever the plan says.
    pub interval: Duration,
    /// Namespaces in which nothing is deleted, besides those of the system.
    pub protected: Vec<String>,
}

/// The controller of RetentionPolicies.
pub struct RetentionPolicies {
    context: Context,
    impersonator: Impersonator,
    settings: Settings,
    turns: Turns,
}

/// Why a policy does nothing.
struct Refused {
    reason: &'static str,
    message: String,
    /// Whether its author has to change the spec, or somebody something else.
    accepted: bool,
}

impl Refused {
    fn later(reason: &'static str, message: String) -> Self {
        Self { reason, message, accepted: true }
    }
}

/// Why a policy does nothing, or what it did; none where it is disabled.
type Outcome = std::result::Result<Option<Carried>, Refused>;

impl RetentionPolicies {
    /// Adds the controller to the tasks of a process.
    pub fn spawn(
        context: Context,
        impersonator: Impersonator,
        settings: Settings,
        policies: PolicyIndex,
        leadership: Leadership,
        tasks: &mut Tasks,
    ) {
        let (mut lead, expiring) = (leadership.clone(), context.clone());
        tasks.spawn("retention-reports", expiry::run(expiring, settings.interval, leadership));
        let controller = Arc::new(Self { context: context.clone(), impersonator, settings, turns: Turns::default() });
        tasks.spawn(Self::NAME, async move {
            tokio::select! {
                () = lead.acquired() => {}
                () = context.stopped.clone().cancelled_owned() => return Ok(()),
            }
            let ((wake, one), (_all, all)) = (mpsc::unbounded_channel(), watch::channel(0));
            let (root, roots) = super::root::<RetentionPolicy>();
            roots.tell(&context.metrics.retention.standings, standing::stand);
            let holds = holds(context.clone(), policies, roots, wake.clone());
            let approvals = approvals(context.clone(), wake);
            let running = super::run(controller, context, root, Triggers { one, all });
            tokio::try_join!(running, holds.map(anyhow::Ok), approvals.map(anyhow::Ok))?;
            Ok(())
        });
    }

    /// The spec, if it may be carried out at all.
    fn accepted(&self, policy: &RetentionPolicy) -> std::result::Result<Spec, Refused> {
        let invalid = |message| Refused { reason: "Invalid", message, accepted: false };
        let spec = Spec::try_from(policy).map_err(|error| invalid(error.to_string()))?;
        if self.settings.protected.contains(&spec.namespace) {
            let namespace = &spec.namespace;
            return Err(invalid(format!(
                "metadata.namespace: {namespace} is protected (Rampart's own, or by the operator's --retention-protected-namespaces)"
            )));
        }
        let least = SignedDuration::try_from(self.settings.minimum_grace).unwrap_or_default();
        let marks = matches!(spec.mode, RetentionMode::Mark | RetentionMode::Enforce);
        if marks && spec.grace < least {
            let least = self.settings.minimum_grace.as_secs();
            let message = format!(
                "spec.safety.gracePeriod: must be at least {least}s (the operator's --retention-minimum-grace)"
            );
            return Err(invalid(message));
        }
        Ok(spec)
    }

    /// Each target with what it holds, in the order of the spec.
    async fn targets(&self, spec: &Spec) -> Result<std::result::Result<Vec<Retained>, Refused>> {
        let client = self.impersonator.service_account(&spec.namespace, &spec.service_account)?;
        let targets = retained::targets(&client, spec).await?;
        Ok(targets.map_err(|target| {
            let (kind, group) = (&target.kind, &target.group);
            Refused::later("UnknownKind", format!("the API server has no namespaced kind {kind} in {group:?}"))
        }))
    }

    /// Whether the operator's clock is one that ages can be told by.
    async fn clock(&self, spec: &Spec) -> Result<std::result::Result<(), Refused>> {
        let skew = skew(&self.context.client).await?;
        if skew.abs() <= spec.max_skew {
            return Ok(Ok(()));
        }
        let message = format!("the operator's clock is {}: nothing is marked or deleted", in_words(skew));
        Ok(Err(Refused::later("ClockSuspect", message)))
    }

    async fn outcome(&self, policy: &RetentionPolicy, so_far: &Mutex<SoFar>) -> Result<Outcome> {
        let mut spec = match self.accepted(policy) {
            Ok(spec) => spec,
            Err(refused) => return Ok(Err(refused)),
        };
        if spec.mode == RetentionMode::Disabled {
            return Ok(Ok(None));
        }
        if let Err(refused) = self.clock(&spec).await? {
            return Ok(Err(refused));
        }
        spec.agreed = spec.mode == RetentionMode::DryRun
            || !spec.opt_in
            || opted_in(&self.context.client, &spec.namespace).await?;
        let targets = match self.targets(&spec).await? {
            Ok(targets) => targets,
            Err(refused) => return Ok(Err(refused)),
        };
        let run = Run { context: &self.context, policy, spec: &spec, targets: &targets, so_far };
        let mut carried = match run.carry_out().await {
            Err(error) if error.code() == Some(403) => {
                let message = error.refusal().map_or_else(|| error.to_string(), Into::into);
                return Ok(Err(Refused::later("NotPermitted", message)));
            }
            other => other?,
        };
        if !spec.agreed {
            let namespace = &spec.namespace;
            let message = format!(
                "namespace {namespace} does not allow deletion: label it {RETENTION_OPT_IN}={RETENTION_ALLOWED}"
            );
            carried.denied.get_or_insert(message);
        }
        Ok(Ok(Some(carried)))
    }

    fn next(&self, policy: &RetentionPolicy, outcome: &Outcome, next_run: Option<Timestamp>) -> Next {
        let interval = self.settings.interval;
        let soonest = (interval / 2).max(Duration::from_millis(200));
        let (again, more) = match outcome {
            Err(refused) => (refused.accepted, false),
            Ok(None) => return Next::Change,
            Ok(Some(carried)) => (carried.denied.is_some(), carried.more),
        };
        if more {
            return Next::After(Duration::from_millis(200));
        }
        if matches!(outcome, Err(refused) if !refused.accepted) && policy.spec.mode == RetentionMode::Disabled {
            return Next::Change;
        }
        let next = next_run.map(|time| time.duration_since(clock::now()));
        let next = next.map_or(interval, |wait| Duration::try_from(wait).unwrap_or_default());
        let next = if again { next.min(AGAIN) } else { next };
        // Not at once for each object that becomes too old: each run has a report.
        Next::After(next.clamp(soonest, interval))
    }
}

/// Whether a namespace agrees that something in it is deleted.
async fn opted_in(client: &Client, namespace: &str) -> Result<bool> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace = call(|| format!("reading namespace {namespace}"), namespaces.get(namespace)).await?;
    Ok(namespace.labels().get(RETENTION_OPT_IN).is_some_and(|value| value == RETENTION_ALLOWED))
}

/// What a hold kept is looked at when the hold is released, and told of when it begins.
async fn holds(context: Context, policies: PolicyIndex, roots: Roots<RetentionPolicy>, wake: One) {
    let client = context.client;
    let own = for_holds::<LegalHold>(client.clone(), policies.clone(), (roots.clone(), wake.clone()));
    let wide = for_holds::<ClusterLegalHold>(client, policies, (roots, wake));
    context.stopped.run_until_cancelled(future::join(Box::pin(own), Box::pin(wide))).await;
}

/// Wakes a policy when the spec of one of its reports has changed: somebody approved it.
async fn approvals(context: Context, wake: One) {
    let api: Api<PartialObjectMeta<RetentionReport>> = Api::all(context.client.clone());
    let config = watcher::Config::default().labels(&format!("{OWNER_KIND}=RetentionPolicy")).page_size(PAGE);
    let changes = watcher(api, config).default_backoff().applied_objects();
    let approved = changes.for_each(|report| async {
        let Ok(report) = report else { return };
        let of = |report: &PartialObjectMeta<RetentionReport>| {
            report.metadata.generation.filter(|generation| *generation > 1)?;
            let name = report.labels().get(OWNER_NAME)?;
            Some(ObjectRef::new(name).within(&report.namespace()?))
        };
        if let Some(policy) = of(&report) {
            let _ = wake.send(policy);
        }
    });
    tokio::select! {
        () = approved => {}
        () = context.stopped.cancelled() => {}
    }
}

fn is_held(status: Option<&RetentionPolicyStatus>) -> bool {
    status.is_some_and(|status| is_true(&status.conditions, Type::HoldActive))
}

fn unknown_age(status: Option<&RetentionPolicyStatus>) -> i64 {
    status.and_then(|status| status.plan.as_ref()).map_or(0, |plan| plan.unknown_age)
}

impl Reconciler for RetentionPolicies {
    type Root = RetentionPolicy;
    const NAME: &'static str = "retentionpolicy";

    async fn turn(&self, cached: &RetentionPolicy) -> std::result::Result<Turn, Next> {
        // One that is refused by its spec lists nothing.
        if self.accepted(cached).is_err() {
            return Ok(Turn::default());
        }
        self.turns.take(cached, &self.context.stopped).await
    }

    async fn reconcile(&self, cached: &RetentionPolicy) -> Result<Next> {
        // A policy that was set to DryRun a moment ago must not delete because a watch is behind.
        let (namespace, name) = (cached.namespace().unwrap_or_default(), cached.name_any());
        let api: Api<RetentionPolicy> = Api::namespaced(self.context.client.clone(), &namespace);
        let live = found(call(|| format!("reading RetentionPolicy {name}"), api.get(&name)).await)?;
        let Some(policy) = &live else { return Ok(Next::Change) };
        if policy.metadata.deletion_timestamp.is_some() {
            return Ok(Next::Change);
        }
        if policy.spec.suspend == Some(true) {
            let mut status = policy.status.clone().unwrap_or_default();
            status.observed_generation = policy.metadata.generation;
            status.last_handled_reconcile_at = requested(policy);
            status.conditions = suspended(status.conditions, policy.metadata.generation, clock::now());
            written::report(&self.context.client, policy, &status).await?;
            return Ok(Next::Change);
        }
        let so_far = Mutex::default();
        let visit = tokio::time::timeout(LONGEST_VISIT, self.outcome(policy, &so_far)).await;
        let so_far = so_far.into_inner();
        let late = || Err(Error::Unexpected(format!("the visit took longer than {LONGEST_VISIT:?} and was cut off")));
        let outcome = match visit.unwrap_or_else(|_| late()) {
            Ok(outcome) => outcome,
            Err(error) => {
                let began = so_far.began;
                let error = self.told(policy, error, so_far).await;
                if !began {
                    return Err(error);
                }
                // It came on, so that the pause is none of a row of failures.
                tracing::warn!(namespace, name, reason = error.reason(), %error, "a visit could not be finished");
                return Ok(Next::After(AGAIN));
            }
        };
        let status = status(policy, &outcome, so_far);
        let next = status.next_run_time.as_ref().map(|time| time.0);
        let wrote = written::report(&self.context.client, policy, &status).await?;
        if wrote && is_held(Some(&status)) && !is_held(policy.status.as_ref()) {
            let note = "objects that are too old are held: status.conditions names the holds";
            self.context.events.publish(policy, Reason::normal("SkippedHeld"), note).await;
        }
        if wrote && unknown_age(Some(&status)) > unknown_age(policy.status.as_ref()) {
            let note = "objects are kept because their age can't be read: `rampart retention plan` says which, and why";
            self.context.events.publish(policy, Reason::warning("AgeUnknown"), note).await;
        }
        Ok(self.next(policy, &outcome, next))
    }
}

impl RetentionPolicies {
    /// Says in status what could not be read or written, since then nothing more is deleted. A write that came too late
    /// is no news.
    async fn told(&self, policy: &RetentionPolicy, error: Error, so_far: SoFar) -> Error {
        if error.code() != Some(409) {
            let status = degraded(policy, &error, so_far);
            if let Err(error) = written::report(&self.context.client, policy, &status).await {
                tracing::warn!(%error, "a failure could not be told in status");
            }
        }
        error
    }
}
