//! How long a mark counts.

use jiff::{SignedDuration, Timestamp};

use super::{Mark, Spec, age::next_second};

/// A mark that nobody acted on for this long after its turn says nothing about now: the policy was narrowed, paused or
/// gone in between, and the item gets a grace period of its own.
const FORGOTTEN: SignedDuration = SignedDuration::from_hours(24);

/// When the grace period of a mark ends: one that was made longer counts, one that was made shorter does not.
pub(super) fn granted(spec: &Spec, mark: &Mark) -> Timestamp {
    next_second(mark.marked_at.checked_add(spec.grace).unwrap_or(Timestamp::MAX).max(mark.delete_after))
}

/// Whether nobody acted on a mark although it was its turn: when its grace period had ended, or at the schedule's first
/// time after that.
pub(super) fn is_stale(spec: &Spec, mark: &Mark, now: Timestamp) -> bool {
    let is_past = |turn: Timestamp| turn.checked_add(FORGOTTEN).is_ok_and(|end| end < now);
    let granted = granted(spec, mark);
    let turn = || spec.schedule.as_ref().map_or(Some(granted), |schedule| schedule.next_after(granted));
    is_past(granted) && turn().is_some_and(is_past)
}

/// Whether the others of an approved set have been waited for: for a day after the turn of this mark, and for as long as one
/// takes that is marked anew. No longer, or whoever may patch one of them would keep all of them.
pub(super) fn has_waited(spec: &Spec, mark: &Mark, now: Timestamp) -> bool {
    now.checked_sub(spec.grace).is_ok_and(|then| is_stale(spec, mark, then))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::cron::Cron,
        retention::{
            Decision, Target, plan,
            plan::tests::{HOUR, NOW, at, decision, item, marked, spec},
            plan_while_open,
        },
    };

    #[test]
    fn a_mark_that_was_forgotten_gives_a_grace_period_of_its_own() {
        assert_eq!(decision(marked("a", "policy", 2 + 24)), Decision::Delete);
        assert_eq!(decision(marked("a", "policy", 3 + 24)), Decision::Mark);
        assert_eq!(decision(marked("a", "a policy that is gone", 3 + 24)), Decision::Mark);
    }

    #[test]
    fn a_mark_waits_for_the_turn_of_its_schedule() {
        let weekly = Cron::parse(("0 3 * * 0", ""), ("UTC", "")).unwrap();
        let sunday = weekly.next_after(at(NOW)).unwrap();
        let spec = Spec { schedule: Some(weekly), ..spec(100, 100) };
        let hours_ago = (NOW - sunday.as_second()) / HOUR;
        let decided = |hours: i64| {
            let targets = [Target { items: vec![marked("a", "policy", hours_ago)] }];
            plan(&spec, &targets, sunday + SignedDuration::from_hours(hours)).items[0].decision.clone()
        };
        assert_eq!(decided(7 * 24), Decision::Delete, "marked on Sunday, and deleted on the next");
        assert_eq!(decided(8 * 24), Decision::Delete, "that was a day ago");
        assert_eq!(decided(8 * 24 + 1), Decision::Mark, "it was forgotten");
    }

    #[test]
    fn the_others_of_a_set_are_waited_for_over_one_more_turn_of_the_schedule() {
        let weekly = Cron::parse(("0 3 * * 0", ""), ("UTC", "")).unwrap();
        let sunday = weekly.next_after(at(NOW)).unwrap();
        let spec = Spec { schedule: Some(weekly), ..spec(100, 100) };
        let mark = Mark::of(&marked("a", "policy", 9)).unwrap();
        let waited = |hours: i64| has_waited(&spec, &mark, sunday + SignedDuration::from_hours(hours));
        assert_eq!([0, 24 + 2, 24 + 3, 7 * 24].map(waited), [false, false, true, true]);
    }

    #[test]
    fn marks_of_an_open_plan_wait_for_the_last_of_them() {
        let decided = |made_at: i64| {
            let targets = [Target { items: vec![marked("a", "policy", 40), marked("b", "policy", 3), item("c", 20)] }];
            let plan = plan_while_open(&spec(100, 100), targets.into(), Some(at(made_at)), at(NOW));
            plan.items.iter().map(|it| it.decision.clone()).collect::<Vec<_>>()
        };
        assert_eq!(decided(NOW - 20 * HOUR), [Decision::Delete, Decision::Delete, Decision::Mark]);
        assert_eq!(decided(NOW - 13 * HOUR), [Decision::Mark, Decision::Delete, Decision::Mark], "stale already then");
        assert_eq!(decided(NOW + HOUR), decided(NOW), "a plan from the future proves nothing");
    }

    #[test]
    fn an_open_plan_keeps_no_mark_of_another_policy() {
        let targets = [Target { items: vec![marked("a", "a policy that is gone", 40)] }];
        let plan = plan_while_open(&spec(100, 100), targets.into(), Some(at(NOW - 20 * HOUR)), at(NOW));
        assert_eq!(plan.items[0].decision, Decision::Mark);
    }
}
