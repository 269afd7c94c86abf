//! What is done about a plan, and what gives the right to it.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::{Decision, Mark, Plan, Planned, Spec, grace::has_waited, named};
use crate::api::{RecordDecision, RetentionMode, RetentionRecord};

/// What gives the right to delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Permit {
    /// Nothing does: the caps were exceeded, and no set is approved.
    Nothing,
    /// It is no more than the caps allow.
    Caps,
    /// Somebody approved these, by UID.
    Approved(BTreeSet<String>),
}

impl Permit {
    fn covers(&self, planned: &Planned, plan: &Plan) -> bool {
        match self {
            Self::Nothing => false,
            Self::Caps => plan.breaker.is_none(),
            Self::Approved(uids) => uids.contains(&planned.item.uid),
        }
    }
}

/// Something to do about an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Act<'a> {
    /// The item.
    pub planned: &'a Planned,
    /// What: never `Keep`.
    pub decision: RecordDecision,
}

impl Plan {
    /// What can be done now, the deletions first.
    #[must_use]
    pub fn acts(&self, spec: &Spec, permit: &Permit) -> Vec<Act<'_>> {
        let deletes = spec.mode == RetentionMode::Enforce;
        if !spec.agreed || !deletes && spec.mode != RetentionMode::Mark {
            return vec![];
        }
        let decide = |planned: &Planned| match planned {
            Planned { unmark: true, .. } => Some(RecordDecision::Unmark),
            Planned { decision: Decision::Mark, .. } => Some(RecordDecision::Mark),
            Planned { decision: Decision::Delete, .. } if deletes && permit.covers(planned, self) => {
                Some(RecordDecision::Delete)
            }
            _ => None,
        };
        let acts = self.items.iter().filter_map(|planned| Some(Act { planned, decision: decide(planned)? }));
        let (mut first, then): (Vec<_>, Vec<_>) = acts.partition(|act| act.decision == RecordDecision::Delete);
        first.extend(then);
        first
    }

    /// What gives the right to delete: an approved set that waits for nothing any more, or the caps while they were never
    /// exceeded. `tripped` says that they were, by an earlier plan of the same policy.
    #[must_use]
    pub fn permit(&self, spec: &Spec, approved: Option<BTreeSet<String>>, tripped: bool, now: Timestamp) -> Permit {
        match approved {
            Some(approved) if self.awaited(spec, &approved, now).is_some() => Permit::Nothing,
            Some(approved) => Permit::Approved(approved),
            None => self.permit_by_caps(tripped),
        }
    }

    fn permit_by_caps(&self, tripped: bool) -> Permit {
        if self.breaker.is_some() || tripped { Permit::Nothing } else { Permit::Caps }
    }

    /// What an approved set, which goes at once, waits for: the last of it whose grace period has not ended. `None` when it
    /// has waited: an approval is used once, and what is left then needs another.
    #[must_use]
    pub fn awaited(&self, spec: &Spec, approved: &BTreeSet<String>, now: Timestamp) -> Option<&Planned> {
        let set: Vec<&Planned> = self.items.iter().filter(|it| approved.contains(&it.item.uid)).collect();
        let is_over = |it: &&Planned| {
            it.decision == Decision::Delete && Mark::of(&it.item).is_some_and(|mark| has_waited(spec, &mark, now))
        };
        if set.iter().any(is_over) {
            return None;
        }
        let ends = |it: &Planned| match it.decision {
            Decision::Mark => Some(Timestamp::MAX),
            Decision::Wait(at) => Some(at),
            _ => None,
        };
        set.into_iter().filter(|it| ends(it).is_some()).max_by_key(|it| ends(it))
    }

    /// What gives the right to go on with a run that was not finished: the approval that it carries out, unless that
    /// is of an older spec and so void; or the caps.
    #[must_use]
    pub fn permit_to_go_on(&self, spec: &Spec, run: &RetentionRecord, tripped: bool) -> Permit {
        if run.approved.is_none() || !spec.is_of(run) {
            return self.permit_by_caps(tripped);
        }
        let deletes = named(run).filter(|item| item.decision == RecordDecision::Delete);
        Permit::Approved(deletes.map(|item| item.uid.to_owned()).collect())
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use rstest::rstest;

    use super::*;
    use crate::{
        api::{ApprovedPlan, ReportType},
        retention::{
            Caps, Item, Target,
            evidence::{Header, record, tests::header},
            plan,
            plan::tests::{HOUR, NOW, at, item, marked, spec},
            plan_while_open,
        },
    };

    fn acts(spec: &Spec, plan: &Plan, permit: &Permit) -> Vec<String> {
        let told = |act: &Act<'_>| format!("{:?} {}", act.decision, act.planned.item.name);
        plan.acts(spec, permit).iter().map(told).collect()
    }

    fn planned(spec: &Spec) -> Plan {
        let young = Item { born: Some(at(NOW)), ..marked("young", "policy", 1) };
        let items = vec![young, item("new", 20), marked("due", "policy", 9), marked("waits", "policy", 1)];
        plan(spec, &[Target { items }], at(NOW))
    }

    #[test]
    fn what_a_mode_does() {
        let of = |mode| {
            let spec = Spec { mode, ..spec(100, 100) };
            acts(&spec, &planned(&spec), &Permit::Caps)
        };
        assert!(of(RetentionMode::Disabled).is_empty() && of(RetentionMode::DryRun).is_empty());
        assert_eq!(of(RetentionMode::Mark), ["Mark new", "Unmark young"]);
        assert_eq!(of(RetentionMode::Enforce), ["Delete due", "Mark new", "Unmark young"]);
    }

    #[test]
    fn without_the_namespaces_consent_nothing_is_done_and_the_spec_is_the_same() {
        let before = Spec { agreed: false, ..spec(1, 100) };
        let plan = planned(&before);
        assert!(acts(&before, &plan, &Permit::Caps).is_empty());
        // So that what was planned then can be approved, and a breaker that tripped stays so.
        let record = record(&before, header(ReportType::Plan), &plan, &[]);
        assert!(record.breaker.is_some() && spec(1, 100).is_of(&record));
    }

    #[test]
    fn an_approval_is_for_its_set_and_waits_for_its_grace() {
        let spec = Spec { caps: Caps { count: 1, percent: 100 }, ..spec(1, 100) };
        let plan = planned(&spec);
        let set = |names: &[&str]| Some(names.iter().map(|name| format!("uid-{name}")).collect());
        let of = |approved, tripped| acts(&spec, &plan, &plan.permit(&spec, approved, tripped, at(NOW)));
        assert!(plan.breaker.is_some());
        assert_eq!(of(None, false), ["Mark new", "Unmark young"]);
        assert_eq!(of(set(&["due"]), true), ["Delete due", "Mark new", "Unmark young"]);
        assert_eq!(of(set(&["due", "waits"]), true), ["Mark new", "Unmark young"], "one of them waits");
        assert_eq!(of(set(&["due", "new"]), true), ["Mark new", "Unmark young"], "one of them is not marked yet");
        assert_eq!(of(set(&["another"]), true), ["Mark new", "Unmark young"]);
    }

    /// One whose mark says never, one whose mark is taken off now and then, and one that can't be marked.
    #[rstest]
    #[case("never", "")]
    #[case("again", "")]
    #[case("unmarkable", "Mark unmarkable")]
    fn one_of_an_approved_set_keeps_itself_and_the_rest_for_a_while(#[case] name: &str, #[case] meanwhile: &str) {
        let spec = Spec { caps: Caps { count: 1, percent: 100 }, ..spec(1, 100) };
        let (uid, marked_at) = (format!("uid-{name}"), at(NOW - 9 * HOUR));
        let never = Mark { policy_uid: "policy".into(), marked_at, delete_after: Timestamp::MAX, uid: uid.clone() };
        let approved = BTreeSet::from(["uid-due".to_owned(), uid]);
        let of = |hours: i64| {
            let other = match name {
                "never" => Item { mark: Some(never.to_text()), ..item(name, 20) },
                "again" => marked(name, "policy", 1 - hours),
                _ => item(name, 20),
            };
            let (now, items) = (at(NOW + hours * HOUR), vec![marked("due", "policy", 9), other]);
            let plan = plan_while_open(&spec, vec![Target { items }], Some(at(NOW)), now);
            let awaited = plan.awaited(&spec, &approved, now).map(|it| it.item.name.clone());
            (awaited, acts(&spec, &plan, &plan.permit(&spec, Some(approved.clone()), true, now)).join(", "))
        };
        // It was due 7 hours ago, and waits for a day and a grace period of two hours.
        assert_eq!(of(0), (Some(name.to_owned()), meanwhile.to_owned()));
        assert_eq!(of(19), (Some(name.to_owned()), meanwhile.to_owned()));
        let goes = ["Delete due", meanwhile].join(", ");
        assert_eq!(of(20), (None, goes.trim_end_matches(", ").to_owned()));
    }

    #[test]
    fn a_breaker_that_tripped_stays_so() {
        let spec = spec(100, 100);
        let plan = planned(&spec);
        assert!(plan.breaker.is_none());
        assert_eq!(plan.permit(&spec, None, true, at(NOW)), Permit::Nothing);
        assert_eq!(plan.permit(&spec, None, false, at(NOW)), Permit::Caps);
    }

    #[test]
    fn a_run_of_an_older_spec_goes_on_within_the_caps_alone() {
        let spec = spec(1, 100);
        let items: Vec<_> = ["a", "b", "c"].map(|name| marked(name, "policy", 9)).into();
        let whole = plan(&spec, &[Target { items: items.clone() }], at(NOW));
        let approved = Some(ApprovedPlan { report: "plan".into(), digest: String::new(), expires_at: None });
        let header = Header { approved, ..header(ReportType::Run) };
        let set = ["uid-a", "uid-b", "uid-c"].map(str::to_owned).into();
        let run = record(&spec, header, &whole, &whole.acts(&spec, &Permit::Approved(set)));
        // The operator ended after the first.
        let rest = plan(&spec, &[Target { items: items[1..].to_vec() }], at(NOW));
        let of = |spec: &Spec| acts(spec, &rest, &rest.permit_to_go_on(spec, &run, false));
        assert_eq!(of(&spec), ["Delete b", "Delete c"]);
        assert!(of(&Spec { generation: 2, ..spec }).is_empty());
    }

    #[test]
    fn a_mark_of_the_policy_alone_is_acted_on() {
        let spec = spec(100, 100);
        let later = at(NOW) + SignedDuration::from_hours(1);
        let plan = plan(&spec, &[Target { items: vec![marked("a", "another", 9)] }], later);
        assert!(acts(&spec, &plan, &Permit::Approved(["uid-a".to_owned()].into())).is_empty());
    }
}
