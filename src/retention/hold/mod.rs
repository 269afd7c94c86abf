//! Legal holds: what must stay, whoever wants it gone.

mod admission;
mod terms;

use std::collections::BTreeMap;

pub use admission::{Refusal, refusals};
pub use terms::{Hold, HoldKind};

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
