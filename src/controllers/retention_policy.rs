//! RetentionPolicy: lists, plans, marks and deletes, as the service account that the policy names.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::core::v1::Namespace,
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
};
use kube::{Api, Client, ResourceExt as _, runtime::watcher};
use tokio::sync::{mpsc, watch};

use super::{
    Context, Next, Reconciler, Triggers,
    news::{self, News},
    requested,
};
use crate::{
    api::{
        ClusterLegalHold, LegalHold, PlanStatus, PlannedObject, RetentionMode, RetentionPolicy, RetentionPolicyStatus,
        condition::{Conditions, Type, is_true},
        labels::{RETENTION_ALLOWED, RETENTION_OPT_IN},
    },
    cluster::{
        Error, Result,
        error::{call, found},
        events::Reason,
        holds::in_namespace,
        impersonate::Impersonator,
        leader::Leadership,
        retained::{Retained, resolve},
        status,
    },
    retention::{Decision, Mark, Plan, Planned, Spec, Target, plan},
    runtime::{clock, tasks::Tasks},
};

/// Until the next try where objects changed under way, or somebody has to grant something first.
const AGAIN: Duration = Duration::from_secs(5);

/// Candidates that status names.
const SAMPLES: usize = 20;

/// How the controller is set up.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// The shortest grace period that a policy may have.
    pub minimum_grace: Duration,
    /// Objects are listed anew after this long, whatever the plan says.
    pub interval: Duration,
}

/// The controller of RetentionPolicies.
pub struct RetentionPolicies {
    context: Context,
    impersonator: Impersonator,
    settings: Settings,
}

/// Why a policy does nothing.
struct Refused {
    reason: &'static str,
    message: String,
    /// Whether its author has to change the spec, or somebody something else.
    accepted: bool,
}

impl RetentionPolicies {
    /// Adds the controller to the tasks of a process.
    pub fn spawn(
        context: Context,
        impersonator: Impersonator,
        settings: Settings,
        mut leadership: Leadership,
        tasks: &mut Tasks,
    ) {
        let controller = Arc::new(Self { context: context.clone(), impersonator, settings });
        tasks.spawn(Self::NAME, async move {
            tokio::select! {
                () = leadership.acquired() => {}
                () = context.stopped.clone().cancelled_owned() => return Ok(()),
            }
            let (_one, one) = mpsc::unbounded_channel();
            // What a hold kept is looked at when the hold is released.
            let (all_tx, all) = watch::channel(0);
            let holds = news::follow("legal holds", holds(&context.client), all_tx, context.stopped.clone());
            let (root, _) = super::root::<RetentionPolicy>();
            tokio::try_join!(super::run(controller, context, root, Triggers { one, all }), holds)?;
            Ok(())
        });
    }

    /// The spec, if it may be carried out at all.
    fn accepted(&self, policy: &RetentionPolicy) -> std::result::Result<Spec, Refused> {
        let invalid = |message| Refused { reason: "Invalid", message, accepted: false };
        let spec = Spec::try_from(policy).map_err(|error| invalid(error.to_string()))?;
        let least = SignedDuration::try_from(self.settings.minimum_grace).unwrap_or_default();
        if spec.mode == RetentionMode::Enforce && spec.grace < least {
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
        let mut targets = vec![];
        for target in &spec.targets {
            let Some(resource) = resolve(&self.context.client, target).await? else {
                let message = format!("the API server has no namespaced kind {} in {:?}", target.kind, target.group);
                return Ok(Err(Refused { reason: "UnknownKind", message, accepted: true }));
            };
            targets.push(Retained::new(client.clone(), &spec.namespace, &resource, target));
        }
        Ok(Ok(targets))
    }

    async fn carry_out(&self, policy: &RetentionPolicy, spec: &Spec) -> Result<std::result::Result<Plan, Refused>> {
        let targets = match self.targets(spec).await? {
            Ok(targets) => targets,
            Err(refused) => return Ok(Err(refused)),
        };
        let result = async {
            let mut planned = self.planned(spec, &targets).await?;
            if spec.mode == RetentionMode::Enforce {
                let marked = Self::mark(spec, &targets, &planned).await;
                if planned.to_delete().next().is_some() {
                    self.sweep(policy, spec, &targets).await?;
                }
                marked?;
                planned = self.planned(spec, &targets).await?;
            }
            Ok(planned)
        };
        let result: Result<Plan> = result.await;
        match result {
            Err(error) if error.code() == Some(403) => {
                let message = error.refusal().map_or_else(|| error.to_string(), Into::into);
                Ok(Err(Refused { reason: "NotPermitted", message, accepted: true }))
            }
            Err(error @ Error::Holds(_)) => {
                Ok(Err(Refused { reason: error.reason(), message: error.to_string(), accepted: true }))
            }
            other => other.map(Ok),
        }
    }

    async fn mark(spec: &Spec, targets: &[Retained], planned: &Plan) -> Result<()> {
        let now = Timestamp::from_second(clock::now().as_second()).unwrap_or_default();
        let mut result = Ok(());
        for planned in &planned.items {
            let Some(target) = targets.get(planned.target) else { continue };
            let marked = if planned.decision == Decision::Mark {
                let mark = Mark {
                    policy_uid: spec.uid.clone(),
                    marked_at: now,
                    delete_after: now.checked_add(spec.grace).unwrap_or(Timestamp::MAX),
                    uid: planned.item.uid.clone(),
                };
                target.mark(&planned.item, Some(&mark)).await
            } else if planned.unmark {
                target.mark(&planned.item, None).await
            } else {
                continue;
            };
            // One object that can't be marked keeps no other from it.
            result = result.and(marked.map(drop));
        }
        result
    }

    /// Deletes what a fresh list says, and nothing that an older one said.
    async fn sweep(&self, policy: &RetentionPolicy, spec: &Spec, targets: &[Retained]) -> Result<()> {
        let fresh = self.planned(spec, targets).await?;
        let mut deleted = 0_u64;
        let mut result = Ok(());
        for planned in fresh.to_delete() {
            let Some(target) = targets.get(planned.target) else { continue };
            match target.delete(&planned.item).await {
                Ok(true) => {
                    deleted += 1;
                    let item = &planned.item;
                    tracing::info!(
                        namespace = spec.namespace,
                        policy = policy.name_any(),
                        kind = item.kind,
                        name = item.name,
                        uid = item.uid,
                        "retention deleted an object"
                    );
                }
                Ok(false) => {}
                // One object that can't be deleted keeps no other.
                Err(error) => result = result.and(Err(error)),
            }
        }
        if deleted > 0 {
            self.context.metrics.retention_deleted.inc_by(deleted);
            self.context
                .events
                .publish(policy, Reason::normal("Deleted"), &format!("{deleted} objects were deleted"))
                .await;
        }
        result
    }

    /// The plan of a fresh list, by the holds that are there now.
    async fn planned(&self, spec: &Spec, targets: &[Retained]) -> Result<Plan> {
        let holds = in_namespace(&self.context.client, &spec.namespace, clock::now()).await?;
        let mut listed: Vec<Target> = vec![];
        for target in targets {
            listed.push(target.list(&holds).await?);
        }
        Ok(plan(spec, &listed, clock::now()))
    }

    async fn opted_in(&self, namespace: &str) -> Result<bool> {
        let api: Api<Namespace> = Api::all(self.context.client.clone());
        let namespace = call(|| format!("reading namespace {namespace}"), api.get(namespace)).await?;
        Ok(namespace.labels().get(RETENTION_OPT_IN).is_some_and(|value| value == RETENTION_ALLOWED))
    }

    async fn outcome(&self, policy: &RetentionPolicy) -> Result<std::result::Result<Option<Plan>, Refused>> {
        let mut spec = match self.accepted(policy) {
            Ok(spec) => spec,
            Err(refused) => return Ok(Err(refused)),
        };
        if spec.mode == RetentionMode::Disabled {
            return Ok(Ok(None));
        }
        let opted_in = spec.mode == RetentionMode::DryRun || self.opted_in(&spec.namespace).await?;
        if !opted_in {
            spec.mode = RetentionMode::DryRun;
        }
        let carried_out = self.carry_out(policy, &spec).await?;
        if !opted_in && carried_out.is_ok() {
            let message = format!(
                "namespace {} does not allow deletion: label it {RETENTION_OPT_IN}={RETENTION_ALLOWED}",
                spec.namespace
            );
            return Ok(Err(Refused { reason: "NotPermitted", message, accepted: true }));
        }
        Ok(carried_out.map(Some))
    }
}

/// Whatever changes holds.
fn holds(client: &Client) -> Vec<News> {
    let (own, wide) = (Api::all(client.clone()), Api::all(client.clone()));
    let own: News = news::of::<LegalHold>(own, watcher::Config::default());
    vec![own, news::of::<ClusterLegalHold>(wide, watcher::Config::default())]
}

fn status(policy: &RetentionPolicy, outcome: &std::result::Result<Option<Plan>, Refused>) -> RetentionPolicyStatus {
    let mut conditions = Conditions::of_generation(policy.metadata.generation);
    let mut status = RetentionPolicyStatus {
        observed_generation: policy.metadata.generation,
        last_handled_reconcile_at: requested(policy),
        ..RetentionPolicyStatus::default()
    };
    match outcome {
        Err(Refused { reason, message, accepted }) => {
            let (why, said) = if *accepted { ("Accepted", "") } else { (*reason, message.as_str()) };
            conditions.set(Type::Accepted, *accepted, why, said);
            for kind in [Type::Programmed, Type::PlanReady, Type::Ready] {
                conditions.set(kind, false, reason, message.as_str());
            }
            conditions.set(Type::Stalled, true, reason, message.as_str());
        }
        Ok(plan) => {
            conditions.set(Type::Accepted, true, "Accepted", "");
            let breaker = plan.as_ref().and_then(|plan| plan.breaker);
            let reason = match policy.spec.mode {
                RetentionMode::Disabled => "Disabled",
                RetentionMode::DryRun => "DryRun",
                RetentionMode::Enforce => "Enforced",
            };
            conditions.set(Type::PlanReady, plan.is_some(), if plan.is_some() { "Planned" } else { "Disabled" }, "");
            if let Some(breaker) = breaker.filter(|_| policy.spec.mode == RetentionMode::Enforce) {
                let message = format!(
                    "{} objects would be deleted, and the caps allow {}: nothing is deleted; narrow the targets or raise safety.maxDeletionsPerRun and safety.maxPercentPerRun",
                    breaker.would_delete, breaker.allowed
                );
                for (kind, holds) in
                    [(Type::BlastRadiusExceeded, true), (Type::Programmed, false), (Type::Ready, false)]
                {
                    conditions.set(kind, holds, "BlastRadiusExceeded", message.as_str());
                }
            } else {
                conditions.set(Type::Programmed, true, reason, "");
                conditions.set(Type::Ready, true, reason, "");
            }
            let held = plan.as_ref().map(Plan::held).unwrap_or_default();
            if !held.is_empty() {
                let objects = |count: usize| if count == 1 { "object" } else { "objects" };
                let told = held.iter().map(|(hold, count)| format!("{count} {} held by {hold}", objects(*count)));
                let message = told.collect::<Vec<_>>().join(", ");
                conditions.set(Type::HoldActive, true, "Held", message);
            }
            status.plan = plan.as_ref().map(plan_status);
            status.next_run_time = plan.as_ref().and_then(Plan::next_moment).map(Time);
        }
    }
    let old = policy.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    status.conditions = conditions.carried_from(old, clock::now());
    status
}

fn plan_status(plan: &Plan) -> PlanStatus {
    let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let candidates = || plan.items.iter().filter(|planned| planned.decision.is_candidate());
    let would_delete = plan.would_delete().count();
    let unknown = plan.items.iter().filter(|planned| planned.decision == Decision::UnknownAge).count();
    PlanStatus {
        listed: count(plan.items.len()),
        candidates: count(candidates().count()),
        held: count(plan.held().values().sum()),
        would_delete: count(would_delete),
        kept: count(candidates().count() - would_delete + unknown),
        samples: candidates().take(SAMPLES).map(sample).collect(),
    }
}

fn sample(planned: &Planned) -> PlannedObject {
    PlannedObject {
        kind: planned.item.kind.clone(),
        name: planned.item.name.clone(),
        uid: planned.item.uid.clone(),
        decision: planned.decision.describe(),
        delete_after: match planned.decision {
            Decision::Wait(at) => Some(Time(at)),
            _ => None,
        },
    }
}

impl Reconciler for RetentionPolicies {
    type Root = RetentionPolicy;
    const NAME: &'static str = "retentionpolicy";

    async fn reconcile(&self, cached: &RetentionPolicy) -> Result<Next> {
        // A policy that was set to DryRun a moment ago must not delete because a watch is behind.
        let (namespace, name) = (cached.namespace().unwrap_or_default(), cached.name_any());
        let api: Api<RetentionPolicy> = Api::namespaced(self.context.client.clone(), &namespace);
        let live = found(call(|| format!("reading RetentionPolicy {name}"), api.get(&name)).await)?;
        let Some(policy) = &live else { return Ok(Next::Change) };
        if policy.metadata.deletion_timestamp.is_some() || policy.spec.suspend == Some(true) {
            return Ok(Next::Change);
        }
        let outcome = self.outcome(policy).await?;
        let status = status(policy, &outcome);
        if outcome.as_ref().is_ok_and(|plan| plan.as_ref().is_some_and(|plan| plan.breaker.is_some())) {
            self.context.metrics.retention_breaker.inc();
        }
        let wrote = status::report(&self.context.client, policy, &status).await?;
        let is_held = |conditions: &[Condition]| is_true(conditions, Type::HoldActive);
        if wrote && is_held(&status.conditions) && !policy.status.as_ref().is_some_and(|it| is_held(&it.conditions)) {
            let note = "objects that are too old are held: status.conditions names the holds";
            self.context.events.publish(policy, Reason::normal("SkippedHeld"), note).await;
        }
        if policy.spec.mode == RetentionMode::Disabled {
            return Ok(Next::Change);
        }
        let again = match &outcome {
            Err(refused) => refused.accepted,
            Ok(plan) => policy.spec.mode == RetentionMode::Enforce && plan.as_ref().is_some_and(Plan::is_open),
        };
        let next = status.next_run_time.map(|time| time.0.duration_since(clock::now()));
        let next = next.map_or(self.settings.interval, |wait| Duration::try_from(wait).unwrap_or_default());
        let next = if again { next.min(AGAIN) } else { next };
        Ok(Next::After(next.clamp(Duration::from_millis(200), self.settings.interval)))
    }
}
