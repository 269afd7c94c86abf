//! The plan: a pure function of what is listed, the policy and the time.

use jiff::Timestamp;

use super::{
    Caps, Decision, Expiry, Item, Mark, Protection, Spec,
    age::{too_old, why_unknown},
    grace::{granted, is_stale},
};

/// What one target lists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Target {
    /// Everything that it selects, of whatever age; and what carries a mark and is not selected any more.
    pub items: Vec<Item>,
}

/// An item and what happens to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// The item.
    pub item: Item,
    /// Index of the target that lists it.
    pub target: usize,
    /// What happens to it.
    pub decision: Decision,
    /// From when on it is too old; `None` when that can't be known.
    pub too_old: Option<Timestamp>,
    /// Whether it carries our mark and is not to be deleted by it; what is being deleted keeps it.
    pub unmark: bool,
}

/// Why nothing is deleted: more would be than the caps allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Breaker {
    /// Items that would be deleted.
    pub would_delete: usize,
    /// Items that may be.
    pub allowed: usize,
}

/// What would be done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Every item, oldest first.
    pub items: Vec<Planned>,
    /// Set when the caps forbid every deletion.
    pub breaker: Option<Breaker>,
}

/// Plans. Total: whatever it can't read, it keeps.
#[must_use]
pub fn plan(spec: &Spec, targets: &[Target], now: Timestamp) -> Plan {
    plan_while_open(spec, targets.to_vec(), None, now)
}

/// Plans while a plan of this spec is open that needs an approval, and says when that was made. Nothing is deleted
/// without one, so that marks that were good then wait for it, and for each other. There may be so many items that none
/// is copied.
#[must_use]
pub fn plan_while_open(spec: &Spec, targets: Vec<Target>, made_at: Option<Timestamp>, now: Timestamp) -> Plan {
    let marks_as_of = made_at.map_or(now, |made_at| made_at.min(now));
    let mut planned = vec![];
    let mut breaker = None;
    for (index, target) in targets.into_iter().enumerate() {
        let first = planned.len();
        let selected = target.items.iter().filter(|item| item.selected).count();
        planned.extend(target.items.into_iter().map(|item| decide(spec, item, index, (marks_as_of, now))));
        keep_youngest(planned.get_mut(first..).unwrap_or_default(), spec.min_remaining);
        let would_delete = planned.iter().skip(first).filter(|planned| planned.decision.deletes()).count();
        let allowed = share(spec.caps, selected);
        if would_delete > allowed {
            breaker = Some(Breaker { would_delete, allowed });
        }
    }
    // An item that two targets select counts once, and is kept if one of them keeps it.
    let rank = |it: &Planned| (!it.item.selected, it.decision.deletes(), it.target);
    planned.sort_unstable_by(|one: &Planned, other| (&one.item.uid, rank(one)).cmp(&(&other.item.uid, rank(other))));
    planned.dedup_by(|one, other| one.item.uid == other.item.uid);
    planned.sort_unstable_by(|one, other| (one.item.born, &one.item.uid).cmp(&(other.item.born, &other.item.uid)));
    let would_delete = planned.iter().filter(|planned| planned.decision.deletes()).count();
    if would_delete > spec.caps.count {
        breaker = Some(Breaker { would_delete, allowed: spec.caps.count });
    }
    Plan { items: planned, breaker }
}

/// Keeps the youngest of a target, where fewer than so many would stay.
fn keep_youngest(target: &mut [Planned], least: usize) {
    let is_going = |it: &Planned| it.decision.deletes() || it.item.protection == Some(Protection::BeingDeleted);
    let stays = |it: &&Planned| it.item.selected && !is_going(it);
    let stay = target.iter().filter(stays).count();
    let mut going: Vec<&mut Planned> = target.iter_mut().filter(|planned| planned.decision.deletes()).collect();
    going.sort_by(|one, other| (other.item.born, &other.item.uid).cmp(&(one.item.born, &one.item.uid)));
    for planned in going.into_iter().take(least.saturating_sub(stay)) {
        planned.unmark |= !matches!(planned.decision, Decision::Mark);
        planned.decision = Decision::Protected(Protection::Remaining);
    }
}

/// The percentage cap of a target, rounded up.
fn share(caps: Caps, listed: usize) -> usize {
    listed.saturating_mul(caps.percent).div_ceil(100)
}

fn decide(spec: &Spec, item: Item, target: usize, (marks_as_of, now): (Timestamp, Timestamp)) -> Planned {
    let mark = Mark::of(&item);
    let is_ours = mark.as_ref().is_some_and(|mark| mark.policy_uid == spec.uid);
    let mark = mark.filter(|mark| !is_stale(spec, mark, if is_ours { marks_as_of } else { now }));
    let too_old = too_old(spec, &item, now);
    let forever = (item.expires == Some(Expiry::Never)).then_some(Protection::Forever);
    let decision = match too_old {
        _ if !item.selected => Decision::NotSelected,
        None => Decision::UnknownAge,
        Some(too_old) if now < too_old => Decision::TooYoung(too_old),
        Some(_) => match (item.protection.clone().or(forever), mark) {
            (Some(protection), _) => Decision::Protected(protection),
            (None, Some(_)) if !is_ours => Decision::MarkedByAnother,
            (None, None) => Decision::Mark,
            (None, Some(mark)) => {
                let granted = granted(spec, &mark);
                // A mark from the future proves nothing about the past.
                if mark.marked_at <= now && granted <= now { Decision::Delete } else { Decision::Wait(granted) }
            }
        },
    };
    let unmark = is_ours && !decision.deletes() && item.protection != Some(Protection::BeingDeleted);
    Planned { item, target, decision, too_old, unmark }
}

impl Planned {
    /// Why it stays although it is too old, or of unknown age: a stable name, for metrics.
    #[must_use]
    pub const fn skipped(&self) -> Option<&'static str> {
        match &self.decision {
            Decision::UnknownAge => Some("UnknownAge"),
            Decision::Protected(protection) => Some(protection.code()),
            Decision::MarkedByAnother => Some("MarkedByAnother"),
            _ => None,
        }
    }

    /// Whether it is too old, or of unknown age, and stays. What is being deleted already does not.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.skipped().is_some() && self.decision != Decision::Protected(Protection::BeingDeleted)
    }

    /// Why, for people.
    #[must_use]
    pub fn reason(&self) -> String {
        match why_unknown(&self.item).filter(|_| self.decision == Decision::UnknownAge) {
            Some(why) => format!("{}: {why}", self.decision.describe()),
            None => self.decision.describe(),
        }
    }
}

impl Plan {
    /// Items whose decision ends in a deletion, now or later.
    pub fn would_delete(&self) -> impl Iterator<Item = &Planned> {
        self.items.iter().filter(|planned| planned.decision.deletes())
    }

    /// How many items its targets select.
    #[must_use]
    pub fn listed(&self) -> usize {
        self.items.iter().filter(|planned| planned.item.selected).count()
    }

    /// The next moment at which the plan changes by itself.
    #[must_use]
    pub fn next_moment(&self) -> Option<Timestamp> {
        let moments = self.items.iter().filter_map(|planned| match planned.decision {
            Decision::TooYoung(at) | Decision::Wait(at) => Some(at),
            _ => None,
        });
        moments.min()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use jiff::SignedDuration;
    use proptest::prelude::*;

    use super::*;
    use crate::{
        api::{Propagation, RetentionMode},
        retention::Permit,
    };

    pub(in crate::retention) const HOUR: i64 = 3600;
    pub(in crate::retention) const NOW: i64 = 1_000 * HOUR;

    pub(in crate::retention) fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    pub(in crate::retention) fn spec(count: usize, percent: usize) -> Spec {
        Spec {
            namespace: "n".into(),
            name: "exports".into(),
            uid: "policy".into(),
            generation: 1,
            mode: RetentionMode::Enforce,
            service_account: "sa".into(),
            max_age: SignedDuration::from_hours(10),
            grace: SignedDuration::from_hours(2),
            caps: Caps { count, percent },
            data_class: None,
            min_age: SignedDuration::ZERO,
            schedule: None,
            min_remaining: 0,
            batch: 1000,
            opt_in: true,
            agreed: true,
            skip_controlled: true,
            max_skew: SignedDuration::from_mins(2),
            propagation: Propagation::Background,
            processing: None,
            retain_for: SignedDuration::from_hours(9600),
            targets: vec![],
        }
    }

    pub(in crate::retention) fn item(name: &str, age_hours: i64) -> Item {
        Item {
            kind: "Job".into(),
            name: name.into(),
            uid: format!("uid-{name}"),
            version: "1".into(),
            created: Some(at(NOW - age_hours * HOUR)),
            born: Some(at(NOW - age_hours * HOUR)),
            expires: None,
            mark: None,
            protection: None,
            selected: true,
        }
    }

    pub(in crate::retention) fn marked(name: &str, policy: &str, hours_ago: i64) -> Item {
        let marked_at = at(NOW - hours_ago * HOUR);
        let delete_after = marked_at + SignedDuration::from_hours(2);
        let mark = Mark { policy_uid: policy.into(), marked_at, delete_after, uid: format!("uid-{name}") };
        Item { mark: Some(mark.to_text()), ..item(name, 20) }
    }

    pub(in crate::retention) fn decision(item: Item) -> Decision {
        plan(&spec(100, 100), &[Target { items: vec![item] }], at(NOW)).items[0].decision.clone()
    }

    #[test]
    fn the_life_of_an_item() {
        assert_eq!(decision(item("a", 9)), Decision::TooYoung(at(NOW + HOUR)));
        assert_eq!(decision(item("a", 10)), Decision::Mark);
        assert_eq!(decision(marked("a", "policy", 1)), Decision::Wait(at(NOW + HOUR)));
        assert_eq!(decision(marked("a", "policy", 2)), Decision::Delete);
    }

    fn to_delete(plan: &Plan) -> usize {
        let acts = plan.acts(&spec(1000, 100), &Permit::Caps);
        acts.iter().filter(|act| act.decision == crate::api::RecordDecision::Delete).count()
    }

    #[test]
    fn what_is_kept() {
        assert_eq!(decision(Item { born: None, ..marked("a", "policy", 9) }), Decision::UnknownAge);
        let owned = Item { protection: Some(Protection::ControllerOwned), ..marked("a", "policy", 9) };
        assert_eq!(decision(owned), Decision::Protected(Protection::ControllerOwned));
        assert_eq!(decision(marked("a", "another", 9)), Decision::MarkedByAnother);
        assert_eq!(decision(marked("a", "policy", -1)), Decision::Wait(at(NOW + 3 * HOUR)), "marked in the future");
    }

    #[test]
    fn a_mark_counts_only_on_the_item_it_was_made_for() {
        let copied = Item { mark: marked("a", "policy", 9).mark, ..item("b", 20) };
        assert_eq!(decision(copied), Decision::Mark);
        assert_eq!(decision(Item { mark: Some("junk".into()), ..item("b", 20) }), Decision::Mark);
    }

    #[test]
    fn an_item_that_one_target_keeps_is_kept() {
        let two = [
            Target { items: vec![marked("a", "policy", 9)] },
            Target { items: vec![Item { born: None, ..item("a", 1) }] },
        ];
        let plan = plan(&spec(100, 100), &two, at(NOW));
        assert_eq!((plan.items.len(), to_delete(&plan)), (1, 0));
    }

    #[test]
    fn the_youngest_stay() {
        let spec = Spec { min_remaining: 3, ..spec(100, 100) };
        let items = vec![item("young", 1), marked("a", "policy", 9), item("b", 30), item("c", 25)];
        let plan = plan(&spec, &[Target { items }], at(NOW));
        let stay: Vec<(&str, bool)> = plan
            .items
            .iter()
            .filter(|it| it.decision == Decision::Protected(Protection::Remaining))
            .map(|it| (it.item.name.as_str(), it.unmark))
            .collect();
        assert_eq!(stay, [("c", false), ("a", true)]);
        assert_eq!(plan.would_delete().map(|it| it.item.name.as_str()).collect::<Vec<_>>(), ["b"]);
    }

    #[test]
    fn what_is_going_already_does_not_stay() {
        let spec = Spec { min_remaining: 1, ..spec(100, 100) };
        let going = |it| Item { protection: Some(Protection::BeingDeleted), ..it };
        let items = vec![going(item("old", 30)), going(item("young", 1)), marked("last", "policy", 9)];
        assert_eq!(to_delete(&plan(&spec, &[Target { items }], at(NOW))), 0);
    }

    #[test]
    fn what_is_not_selected_any_more_loses_its_mark_and_counts_for_nothing() {
        let left = |it| Item { selected: false, ..it };
        let items =
            vec![left(marked("left", "policy", 9)), left(marked("other", "another", 9)), marked("a", "policy", 9)];
        let told = |spec: &Spec, targets: &[Target]| {
            let plan = plan(spec, targets, at(NOW));
            let unmarked = plan.items.iter().filter(|it| it.unmark).map(|it| it.item.name.clone()).collect::<Vec<_>>();
            (plan.listed(), to_delete(&plan), unmarked)
        };
        let only = [Target { items: items.clone() }];
        assert_eq!(told(&spec(100, 100), &only), (1, 1, vec!["left".into()]));
        assert_eq!(told(&Spec { min_remaining: 1, ..spec(100, 100) }, &only), (1, 0, vec!["a".into(), "left".into()]));
        // Another target of the same kind selects it.
        let both = [Target { items }, Target { items: vec![marked("left", "policy", 9)] }];
        assert_eq!(told(&spec(100, 100), &both), (2, 2, vec![]));
    }

    #[test]
    fn what_is_no_longer_too_old_loses_its_mark() {
        let young = Item { born: Some(at(NOW)), ..marked("a", "policy", 1) };
        let plan = plan(&spec(100, 100), &[Target { items: vec![young, marked("b", "policy", 1)] }], at(NOW));
        let unmarked: Vec<&str> =
            plan.items.iter().filter(|item| item.unmark).map(|item| item.item.name.as_str()).collect();
        assert_eq!(unmarked, ["a"]);
    }

    #[test]
    fn twenty_one_candidates_under_a_cap_of_twenty_delete_none() {
        let items: Vec<Item> = (0..21).map(|n| marked(&n.to_string(), "policy", 9)).collect();
        let all = plan(&spec(20, 100), &[Target { items: items.clone() }], at(NOW));
        assert_eq!(all.breaker, Some(Breaker { would_delete: 21, allowed: 20 }));
        assert_eq!(to_delete(&all), 0);
        let fewer = plan(&spec(20, 100), &[Target { items: items[1..].to_vec() }], at(NOW));
        assert_eq!(to_delete(&fewer), 20);
    }

    #[test]
    fn the_percentage_is_of_what_the_target_lists_rounded_up() {
        let listed = |young: usize, old: usize| {
            let mut items: Vec<Item> = (0..young).map(|n| item(&format!("y{n}"), 1)).collect();
            items.extend((0..old).map(|n| marked(&n.to_string(), "policy", 9)));
            to_delete(&plan(&spec(100, 10), &[Target { items }], at(NOW)))
        };
        assert_eq!(listed(10, 2), 2, "10 percent of 12, rounded up");
        assert_eq!(listed(8, 2), 0, "10 percent of 10");
    }

    proptest! {
        /// A run that is cut off after any of its deletions may go on: the rest is still inside the caps.
        #[test]
        fn a_run_inside_the_caps_stays_inside(young in 0_usize..40, old in 0_usize..40, percent in 1_usize..=100, share in 0_usize..=100) {
            let list = |old: usize| {
                let mut items: Vec<Item> = (0..young).map(|n| item(&format!("y{n}"), 1)).collect();
                items.extend((0..old).map(|n| marked(&n.to_string(), "policy", 9)));
                plan(&spec(100, percent), &[Target { items }], at(NOW))
            };
            let done = old * share / 100;
            prop_assert!(list(old).breaker.is_some() || list(old - done).breaker.is_none());
        }
    }
}
