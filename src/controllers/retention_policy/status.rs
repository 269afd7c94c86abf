//! What a RetentionPolicy's status says.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::{
    Outcome, Refused,
    run::{Brake, Carried, SoFar},
    sweep::Failed,
};
use crate::{
    api::{
        PlanStatus, PlannedObject, RetentionMode, RetentionPolicy, RetentionPolicyStatus, RunStatus,
        condition::{Conditions, Type},
    },
    cluster::Error,
    controllers::requested,
    retention::{Decision, Plan, Planned, Spec},
    runtime::clock,
};

/// Candidates that status names.
const SAMPLES: usize = 20;

/// The status after a visit.
pub(super) fn status(policy: &RetentionPolicy, outcome: &Outcome, so_far: SoFar) -> RetentionPolicyStatus {
    let mut conditions = Conditions::of_generation(policy.metadata.generation);
    let mut status = RetentionPolicyStatus {
        observed_generation: policy.metadata.generation,
        last_handled_reconcile_at: requested(policy),
        // What was done stays known, whatever keeps the policy from doing more.
        last_run: so_far.last_run.or_else(|| policy.status.as_ref()?.last_run.clone()),
        ..RetentionPolicyStatus::default()
    };
    match outcome {
        Err(refused) => {
            refuse(&mut conditions, refused);
            // One that is disabled has no plan, whatever else is wrong with it.
            if policy.spec.mode != RetentionMode::Disabled {
                // What was counted last is what the next visit takes its turn by.
                status.plan = policy.status.as_ref().and_then(|known| known.plan.clone());
                // A time that passes meanwhile is made up for.
                status.next_run_time = known_run(policy).filter(|_| policy.spec.schedule.is_some()).map(Time);
            }
        }
        Ok(None) => {
            conditions.set(Type::Accepted, true, "Accepted", "");
            conditions.set(Type::PlanReady, false, "Disabled", "");
            conditions.set(Type::Programmed, true, "Disabled", "");
            conditions.set(Type::Ready, true, "Disabled", "");
        }
        Ok(Some(carried)) => {
            carry(&mut conditions, policy.spec.mode, carried);
            hold(&mut conditions, &carried.plan);
            status.plan = Some(plan_status(carried));
            status.next_run_time = next_run(policy, carried).map(Time);
            status.last_run = carried.last_run.clone().or(status.last_run);
        }
    }
    status.conditions = conditions.carried_from(old(policy), clock::now());
    status
}

/// The status when something could not be read or written: what was true before, and that nothing more is done.
pub(super) fn degraded(policy: &RetentionPolicy, error: &Error, so_far: SoFar) -> RetentionPolicyStatus {
    let mut conditions = Conditions::of_generation(policy.metadata.generation);
    let message = if so_far.began {
        format!("the visit could not be finished, and what it marked and deleted is in its RetentionReports: {error}")
    } else {
        format!("nothing is marked or deleted: {error}")
    };
    conditions.set(Type::Accepted, true, "Accepted", "");
    for kind in [Type::Programmed, Type::PlanReady, Type::Ready] {
        conditions.set(kind, false, error.reason(), message.as_str());
    }
    conditions.set(Type::Degraded, true, error.reason(), message.as_str());
    conditions.set(Type::Reconciling, true, error.reason(), "the visit is tried again");
    let next_run_time = known_run(policy).map(Time);
    let known = policy.status.clone().unwrap_or_default();
    RetentionPolicyStatus {
        observed_generation: policy.metadata.generation,
        last_handled_reconcile_at: requested(policy),
        conditions: conditions.carried_from(old(policy), clock::now()),
        next_run_time,
        last_run: so_far.last_run.or_else(|| known.last_run.clone()),
        ..known
    }
}

/// When something was to be done next, if that was told of this very spec.
fn known_run(policy: &RetentionPolicy) -> Option<Timestamp> {
    let status = policy.status.as_ref().filter(|status| status.observed_generation == policy.metadata.generation)?;
    status.next_run_time.as_ref().map(|time| time.0)
}

fn old(policy: &RetentionPolicy) -> &[Condition] {
    policy.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default()
}

fn refuse(conditions: &mut Conditions, Refused { reason, message, accepted }: &Refused) {
    let (why, said) = if *accepted { ("Accepted", "") } else { (*reason, message.as_str()) };
    conditions.set(Type::Accepted, *accepted, why, said);
    for kind in [Type::Programmed, Type::PlanReady, Type::Ready] {
        conditions.set(kind, false, reason, message.as_str());
    }
    conditions.set(Type::Stalled, true, reason, message.as_str());
    if *reason == "ClockSuspect" {
        conditions.set(Type::ClockSuspect, true, reason, message.as_str());
    }
}

fn carry(conditions: &mut Conditions, mode: RetentionMode, carried: &Carried) {
    conditions.set(Type::Accepted, true, "Accepted", "");
    conditions.set(Type::PlanReady, true, "Planned", "");
    let reason = match mode {
        RetentionMode::Disabled => "Disabled",
        RetentionMode::DryRun => "DryRun",
        RetentionMode::Mark => "Marked",
        RetentionMode::Enforce => "Enforced",
    };
    conditions.set(Type::Programmed, true, reason, "").set(Type::Ready, true, reason, "");
    let of_run = |run: &RunStatus| Failed { report: run.report.clone(), count: run.failed };
    let failed = carried.failed.clone().or_else(|| carried.last_run.as_ref().map(of_run));
    if let Some(Failed { report, count }) = failed.filter(|failed| failed.count > 0) {
        let message = format!("{count} objects could not be marked or deleted: see RetentionReport {report}");
        conditions.set(Type::Degraded, true, "Failed", message.as_str());
        conditions.set(Type::Programmed, false, "Failed", message.as_str());
        conditions.set(Type::Ready, false, "Failed", message);
    }
    if carried.breaker != Brake::Released && mode == RetentionMode::Enforce {
        let (reason, message) = held(carried);
        conditions.set(Type::BlastRadiusExceeded, true, "BlastRadiusExceeded", message.as_str());
        conditions.set(Type::Programmed, false, reason, message.as_str());
        conditions.set(Type::Ready, false, reason, message);
    }
    if let Some(message) = &carried.denied {
        conditions.stall("NotPermitted", message);
    }
}

/// Which holds keep what is too old.
fn hold(conditions: &mut Conditions, plan: &Plan) {
    let objects = |count: usize| if count == 1 { "object" } else { "objects" };
    let told = plan.held().into_iter().map(|(hold, count)| format!("{count} {} held by {hold}", objects(count)));
    let message = told.collect::<Vec<_>>().join(", ");
    if !message.is_empty() {
        conditions.set(Type::HoldActive, true, "Held", message);
    }
}

/// Why nothing is deleted, and what can be done about it.
fn held(carried: &Carried) -> (&'static str, String) {
    let report = carried.report.as_deref().unwrap_or_default();
    if carried.breaker == Brake::Approved {
        let awaited = carried.awaited.as_ref().map(|awaited| format!(": {awaited}")).unwrap_or_default();
        return (
            "Approved",
            format!("RetentionReport {report} is approved, and waits for its grace period or its turn{awaited}"),
        );
    }
    let would_delete = carried.plan.would_delete().count();
    let how = format!(
        "`rampart retention approve` approves RetentionReport {report}; or narrow the targets or raise safety.maxDeletionsPerRun and safety.maxPercentPerRun"
    );
    let message = match carried.plan.breaker {
        Some(breaker) => format!(
            "{} objects would be deleted, and the caps allow {}: nothing is deleted; {how}",
            breaker.would_delete, breaker.allowed
        ),
        None => format!(
            "more objects would have been deleted than the caps allow, and of the {would_delete} that are left nothing is deleted; {how}"
        ),
    };
    ("BlastRadiusExceeded", message)
}

/// When something is done next, as far as it is known.
fn next_run(policy: &RetentionPolicy, carried: &Carried) -> Option<Timestamp> {
    let Ok(Spec { schedule: Some(schedule), .. }) = Spec::try_from(policy) else {
        return carried.plan.next_moment();
    };
    // One that is waited for stays, and so does one whose work is not done.
    known_run(policy).filter(|_| !carried.due || carried.more).or_else(|| schedule.next_after(clock::now()))
}

fn plan_status(carried: &Carried) -> PlanStatus {
    let plan: &Plan = &carried.plan;
    let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let candidates = || plan.items.iter().filter(|planned| planned.decision.is_candidate());
    let would_delete = plan.would_delete().count();
    let unknown = || plan.items.iter().filter(|planned| planned.decision == Decision::UnknownAge);
    PlanStatus {
        report: carried.report.clone(),
        listed: count(plan.listed()),
        candidates: count(candidates().count()),
        held: count(plan.held().values().sum()),
        would_delete: count(would_delete),
        kept: count(candidates().count() - would_delete + unknown().count()),
        unknown_age: count(unknown().count()),
        oldest_too_old_since: plan.would_delete().filter_map(|planned| planned.too_old).min().map(Time),
        samples: candidates().chain(unknown()).take(SAMPLES).map(sample).collect(),
    }
}

fn sample(planned: &Planned) -> PlannedObject {
    PlannedObject {
        kind: planned.item.kind.clone(),
        name: planned.item.name.clone(),
        uid: planned.item.uid.clone(),
        decision: planned.reason(),
        delete_after: match planned.decision {
            Decision::Wait(at) => Some(Time(at)),
            _ => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use kube::ResourceExt as _;
    use serde_json::json;

    use super::*;
    use crate::api::{condition::is_true, labels::RECONCILE_REQUESTED_AT};

    fn run(number: i64) -> RunStatus {
        let run = json!({"report": format!("run-{number}"), "number": number, "expiresAt": "2028-01-01T00:00:00Z"});
        serde_json::from_value(run).unwrap()
    }

    /// A policy whose status knows of run 1.
    fn policy() -> RetentionPolicy {
        serde_json::from_value(json!({
            "apiVersion": "rampart.dev/v1alpha1", "kind": "RetentionPolicy",
            "metadata": {"name": "exports", "namespace": "reports", "generation": 1},
            "spec": {"serviceAccountName": "retention", "maxAge": "720h", "targets": []},
            "status": {"lastRun": run(1)},
        }))
        .unwrap()
    }

    #[test]
    fn a_visit_that_fails_tells_what_it_did_before() {
        let told = |so_far: SoFar| {
            let status = degraded(&policy(), &Error::Unexpected("no answer".into()), so_far);
            let degraded = status.conditions.into_iter().find(|it| it.type_ == Type::Degraded.as_str()).unwrap();
            (status.last_run.unwrap().number, degraded.message)
        };
        assert_eq!(told(SoFar::default()), (1, "nothing is marked or deleted: no answer".into()));
        let (last, message) = told(SoFar { began: true, last_run: Some(run(2)) });
        assert!(last == 2 && message.ends_with("is in its RetentionReports: no answer"), "{last}: {message}");
        // Its results could not be written.
        let (last, message) = told(SoFar { began: true, last_run: None });
        assert!(last == 1 && message.starts_with("the visit could not be finished"), "{last}: {message}");
    }

    #[test]
    fn a_visit_that_fails_was_asked_for_and_is_tried_again() {
        let mut policy = policy();
        policy.annotations_mut().insert(RECONCILE_REQUESTED_AT.into(), "now".into());
        let status = degraded(&policy, &Error::Unexpected("no answer".into()), SoFar::default());
        assert_eq!(status.last_handled_reconcile_at.as_deref(), Some("now"));
        assert!(is_true(&status.conditions, Type::Reconciling), "{status:?}");
        let refused: Outcome = Err(Refused::later("NotPermitted", String::new()));
        assert!(!is_true(&super::status(&policy, &refused, SoFar::default()).conditions, Type::Reconciling));
    }

    #[test]
    fn so_does_one_that_is_refused() {
        let refused: Outcome = Err(Refused::later("NotPermitted", String::new()));
        let last = |last_run| status(&policy(), &refused, SoFar { began: true, last_run }).last_run;
        assert_eq!([last(Some(run(2))), last(None)], [Some(run(2)), Some(run(1))]);
    }

    #[test]
    fn an_approved_set_names_what_it_waits_for() {
        let told = |awaited: Option<&str>| {
            held(&Carried {
                plan: Plan::default(),
                breaker: Brake::Approved,
                awaited: awaited.map(Into::into),
                report: Some("exports-plan-1".into()),
                last_run: None,
                failed: None,
                denied: None,
                more: false,
                due: false,
            })
            .1
        };
        let waits = "RetentionReport exports-plan-1 is approved, and waits for its grace period or its turn";
        assert_eq!(told(None), waits);
        assert_eq!(told(Some("ConfigMap a is not marked")), format!("{waits}: ConfigMap a is not marked"));
    }

    #[test]
    fn what_was_counted_stays_known_over_a_refusal() {
        let mut policy = policy();
        let counted = json!({"listed": 150_000, "candidates": 3, "wouldDelete": 2, "kept": 1});
        let counted: PlanStatus = serde_json::from_value(counted).unwrap();
        policy.status.as_mut().unwrap().plan = Some(counted.clone());
        for accepted in [true, false] {
            let refused: Outcome = Err(Refused { reason: "Invalid", message: String::new(), accepted });
            let told = status(&policy, &refused, SoFar::default());
            assert!(!is_true(&told.conditions, Type::PlanReady), "{told:?}");
            assert_eq!(told.plan.as_ref(), Some(&counted));
            // And over the next one.
            let again = RetentionPolicy { status: Some(told.clone()), ..policy.clone() };
            assert_eq!(status(&again, &refused, SoFar::default()), told);
        }
        policy.spec.mode = RetentionMode::Disabled;
        let refused: Outcome = Err(Refused { reason: "Invalid", message: String::new(), accepted: false });
        for disabled in [Ok(None), refused] {
            let told = status(&policy, &disabled, SoFar::default());
            assert_eq!(told.plan, None, "one that is disabled has no plan");
            assert_eq!(told.last_run, Some(run(1)));
        }
    }
}
