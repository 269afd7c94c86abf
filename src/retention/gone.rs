//! What the last run has left open, and is gone since.

use std::collections::BTreeSet;

use super::{
    Named, Plan, Spec,
    evidence::{outcomes, pending, settle},
};
use crate::api::{ItemResult, Outcome, RetentionReport};

/// What is told of items of the last run that are not listed any more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gone {
    /// Those whose deletion had begun, and waited for their finalizers or for what they own.
    pub deleted: Vec<ItemResult>,
    /// Those of which nobody heard whether they were deleted.
    pub unheard: Vec<ItemResult>,
}

impl Gone {
    /// Those that a plan does not know, which was made after the run had ended.
    #[must_use]
    pub fn of(spec: &Spec, last: &RetentionReport, plan: &Plan) -> Self {
        let there: BTreeSet<&str> = plan.items.iter().map(|it| it.item.uid.as_str()).collect();
        let is_gone = |item: &Named<'_>| !there.contains(item.uid);
        let deleted =
            |item: Named<'_>| ItemResult { uid: item.uid.into(), result: Outcome::Deleted, message: String::new() };
        Self {
            deleted: waited_for(spec, last).filter(is_gone).map(deleted).collect(),
            unheard: pending(last).into_iter().filter(is_gone).map(|item| settle(item, None)).collect(),
        }
    }

    /// Whether there is nothing to tell.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.deleted.is_empty() && self.unheard.is_empty()
    }
}

/// What the last run began to delete, and has not seen gone. Of another spec, it may be there and not be listed.
pub fn waited_for<'a>(spec: &Spec, last: &'a RetentionReport) -> impl Iterator<Item = Named<'a>> {
    let waits = |outcome| outcome == Some(Outcome::Terminating);
    let is_ours = spec.is_of(&last.spec.record);
    outcomes(last).filter(move |(_, outcome)| is_ours && waits(*outcome)).map(|(item, _)| item)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::ReportType,
        retention::{
            Item, Permit, Protection, Target,
            evidence::{record, results, spec_of, tests::header},
            plan,
            plan::tests::{NOW, at, marked, spec},
        },
    };

    fn listed(names: &[&str]) -> Plan {
        let items = names.iter().map(|name| marked(name, "policy", 9)).collect();
        plan(&spec(100, 100), &[Target { items }], at(NOW))
    }

    fn told(name: &str, result: Outcome) -> ItemResult {
        ItemResult { uid: format!("uid-{name}"), result, message: String::new() }
    }

    /// A run that has ended: two wait for their finalizers, and one could not be deleted.
    fn ended() -> RetentionReport {
        let (spec, plan) = (spec(100, 100), listed(&["a", "b", "c", "d"]));
        let record = record(&spec, header(ReportType::Run), &plan, &plan.acts(&spec, &Permit::Caps));
        let mut run = RetentionReport::new("r", spec_of(record));
        let [waits, fails] = [Outcome::Terminating, Outcome::Failed];
        let came = vec![told("a", waits), told("b", waits), told("c", fails), told("d", Outcome::Deleted)];
        run.status = Some(results(&run, came, at(NOW)));
        run
    }

    #[test]
    fn what_waited_for_its_finalizers_was_deleted_when_it_is_not_listed_any_more() {
        let (spec, mut run) = (spec(100, 100), ended());
        assert!(Gone::of(&spec, &run, &listed(&["a", "b", "c"])).is_empty(), "all are there");
        let gone = Gone::of(&spec, &run, &listed(&["b", "c"]));
        assert_eq!((gone.deleted.as_slice(), gone.unheard.len()), ([told("a", Outcome::Deleted)].as_slice(), 0));
        run.status = Some(results(&run, gone.deleted, at(NOW + 60)));
        let status = run.status.as_ref().unwrap();
        assert_eq!((status.deleted, status.failed, status.results.len()), (2, 1, 2));
        assert!(Gone::of(&spec, &run, &listed(&["b", "c"])).is_empty(), "it is told once");
    }

    /// No run comes in between, and it stays listed by its mark.
    #[test]
    fn what_waits_for_its_finalizers_keeps_its_mark() {
        let going = |name| Item { protection: Some(Protection::BeingDeleted), ..marked(name, "policy", 9) };
        let items = vec![going("a"), Item { selected: false, ..going("b") }];
        let plan = plan(&spec(100, 100), &[Target { items }], at(NOW));
        assert!(plan.acts(&spec(100, 100), &Permit::Caps).is_empty());
    }

    #[test]
    fn what_was_not_heard_of_is_gone_and_no_more() {
        let gone = Gone::of(&spec(100, 100), &ended(), &listed(&["a", "b"]));
        let unheard: Vec<_> = gone.unheard.iter().map(|it| (it.uid.as_str(), it.result)).collect();
        assert_eq!((gone.deleted.len(), unheard), (0, vec![("uid-c", Outcome::Gone)]));
    }

    #[test]
    fn another_spec_lists_other_things_and_proves_nothing() {
        let other = Spec { generation: 2, ..spec(100, 100) };
        assert!(Gone::of(&other, &ended(), &listed(&[])).deleted.is_empty());
    }
}
