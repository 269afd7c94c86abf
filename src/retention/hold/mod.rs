//! Legal holds: what must stay, whoever wants it gone.

mod admission;
mod terms;

use std::collections::BTreeMap;

pub use admission::{Refusal, refusals};
pub use terms::{Hold, HoldKind};

use super::{Decision, Plan, Protection};

/// The holds that are in force in one namespace.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Holds(Vec<Hold>);

impl Holds {
    /// Those of `holds` that are about a namespace with these labels. Whether one has ended is for who asks: a hold
    /// ends when it was seen to end, not when some clock says so.
    #[must_use]
    pub fn of(holds: impl IntoIterator<Item = Hold>, namespace: &str, labels: &BTreeMap<String, String>) -> Self {
        Self(holds.into_iter().filter(|hold| hold.is_about(namespace, labels)).collect())
    }

    /// The first that holds an object of a kind (its group and plural) with these labels.
    #[must_use]
    pub fn holder(&self, group: &str, resource: &str, labels: &BTreeMap<String, String>) -> Option<&Hold> {
        self.0.iter().find(|hold| hold.holds(group, resource, labels))
    }
}

impl Plan {
    /// How many too old items each hold keeps, by the hold.
    #[must_use]
    pub fn held(&self) -> BTreeMap<&str, usize> {
        let mut held = BTreeMap::new();
        for planned in &self.items {
            if let Decision::Protected(Protection::Held(hold)) = &planned.decision {
                *held.entry(hold.as_str()).or_default() += 1_usize;
            }
        }
        held
    }
}

#[cfg(test)]
mod tests {
    use super::super::{
        Item, Target, plan,
        plan::tests::{NOW, at, item, marked, spec},
    };
    use super::*;

    #[test]
    fn what_is_held_is_kept_unmarked_and_counted_by_its_hold() {
        let held = |item: Item, by: &str| Item { protection: Some(Protection::Held(by.into())), ..item };
        let items = vec![
            held(marked("a", "policy", 9), "LegalHold/one"),
            held(item("b", 20), "LegalHold/one"),
            held(item("c", 20), "ClusterLegalHold/two"),
            held(item("young", 1), "LegalHold/one"),
            item("d", 20),
        ];
        let plan = plan(&spec(100, 100), &[Target { items }], at(NOW));
        assert_eq!(plan.held(), [("ClusterLegalHold/two", 1), ("LegalHold/one", 2)].into());
        let would: Vec<&str> = plan.would_delete().map(|planned| planned.item.name.as_str()).collect();
        let unmarked = plan.items.iter().filter(|planned| planned.unmark).map(|planned| planned.item.name.as_str());
        assert_eq!(
            (would, unmarked.collect::<Vec<_>>()),
            (vec!["d"], vec!["a"]),
            "its grace begins anew when released"
        );
        assert_eq!(plan.items[0].decision.describe(), "kept: held by LegalHold/one");
    }
}
