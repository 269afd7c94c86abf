//! Whether and when an object goes.

use jiff::Timestamp;
use kube::{ResourceExt as _, api::DynamicObject};
use serde::Serialize;

use super::{holds::about, kinds::Kind, known::Known};
use crate::{
    api::{
        Invalid, RetentionMode, RetentionPolicy, RetentionReport,
        condition::Type,
        labels::{RETENTION_ALLOWED, RETENTION_OPT_IN},
    },
    cluster::retained::item,
    retention::{Decision, Holds, Item, Mark, Open, Protection, Spec, Target, plan_while_open},
};

/// What one RetentionPolicy says of an object.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Retained {
    pub(super) policy: String,
    pub(super) mode: RetentionMode,
    /// What happens to it, in the words of the policy's status.
    pub(super) decision: String,
    /// Since when it is too old, or from when on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) too_old_from: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) marked_at: Option<Timestamp>,
    /// When it may go at the earliest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) delete_after: Option<Timestamp>,
    /// Why nothing goes, whatever its age.
    pub(super) held_by: Vec<String>,
}

/// What the RetentionPolicies of its namespace say of an object.
pub(super) fn retention(known: &Known, kind: &Kind, object: &DynamicObject, now: Timestamp) -> Vec<Retained> {
    let namespace = object.namespace().unwrap_or_default();
    let labels = known.labels(&namespace);
    let allows = labels.get(RETENTION_OPT_IN).is_some_and(|value| value == RETENTION_ALLOWED);
    let holds = about(known, &namespace, now).into_iter().map(|(hold, _)| hold);
    let holds = Holds::of(holds, &namespace, labels);
    let of = |policy| of(policy, (kind, object), (&known.plans, &holds), allows, now);
    known.retention.iter().filter_map(of).collect()
}

fn of(
    policy: &RetentionPolicy,
    (kind, object): (&Kind, &DynamicObject),
    (plans, holds): (&[RetentionReport], &Holds),
    allows: bool,
    now: Timestamp,
) -> Option<Retained> {
    let mut spec = match Spec::try_from(policy) {
        Ok(spec) => spec,
        Err(invalid) => return unreadable(policy, kind, &invalid),
    };
    // Whether it is one of the youngest takes all the others to tell.
    let least = std::mem::take(&mut spec.min_remaining);
    let is_about = |target: &&crate::retention::TargetSpec| {
        target.group == kind.group() && target.kind == kind.name && target.selector.matches(object.labels())
    };
    let plural = kind.resource().plural;
    let seen = |target| item(target, (&plural, spec.skip_controlled), object, holds);
    let items: Vec<Item> = spec.targets.iter().filter(is_about).map(seen).collect();
    // One that two targets list is kept if one of them keeps it, as in the plan.
    let targets: Vec<Target> = items.iter().map(|item| Target { items: vec![item.clone()] }).collect();
    let is_its = |plan: &&RetentionReport| plan.spec.record.policy.uid == spec.uid;
    let open = plans.iter().filter(is_its).find_map(|plan| Open::of(&spec, plan));
    let made_at = open.as_ref().map(|open| open.made_at);
    let planned = plan_while_open(&spec, targets, made_at, now).items.into_iter().next()?;
    let waits = open.filter(|_| planned.decision.deletes()).and_then(|open| open.leaves_out(&planned.item.uid));
    let marked_at = Mark::of(&planned.item).filter(|mark| mark.policy_uid == spec.uid).map(|mark| mark.marked_at);
    let delete_after = match planned.decision {
        Decision::Wait(at) => Some(at),
        Decision::Delete => Mark::of(&planned.item).map(|mark| mark.delete_after),
        _ => None,
    };
    let hold = match planned.item.protection.clone() {
        Some(Protection::Held(hold)) => Some(hold),
        _ => None,
    };
    let unless = (least > 0 && planned.decision.deletes())
        .then(|| format!(", unless it is one of the {least} youngest of its target (safety.minRemaining)"));
    Some(Retained {
        policy: policy.name_any(),
        mode: spec.mode,
        decision: planned.reason() + &unless.unwrap_or_default(),
        too_old_from: planned.too_old,
        marked_at,
        delete_after,
        held_by: hold.into_iter().chain(waits).chain(held_by(policy, allows)).collect(),
    })
}

/// A policy that does nothing, because it can't be read; of its targets, only the kind is asked.
fn unreadable(policy: &RetentionPolicy, kind: &Kind, invalid: &Invalid) -> Option<Retained> {
    let is_about = policy.spec.targets.iter().any(|target| target.resources.kind == kind.name);
    is_about.then(|| Retained {
        policy: policy.name_any(),
        mode: policy.spec.mode,
        decision: format!("kept: the policy can't be read: {invalid}"),
        too_old_from: None,
        marked_at: None,
        delete_after: None,
        held_by: vec![],
    })
}

fn held_by(policy: &RetentionPolicy, allows: bool) -> Vec<String> {
    let mut held: Vec<String> = vec![];
    match policy.spec.mode {
        RetentionMode::Disabled => held.push("it is disabled".into()),
        RetentionMode::DryRun => held.push("DryRun marks and deletes nothing".into()),
        RetentionMode::Mark => held.push("Mark deletes nothing".into()),
        RetentionMode::Enforce if !allows && policy.spec.safety.require_namespace_opt_in => {
            held.push(format!("its namespace is not labelled {RETENTION_OPT_IN}={RETENTION_ALLOWED}"));
        }
        RetentionMode::Enforce => {}
    }
    if policy.spec.suspend == Some(true) {
        held.push("it is suspended".into());
    }
    let conditions = policy.status.iter().flat_map(|status| &status.conditions);
    let ready = conditions.into_iter().find(|it| it.type_ == Type::Ready.as_str() && it.status == "False");
    held.extend(ready.map(|it| format!("{}: {}", it.reason, it.message)));
    held
}
