//! A cluster as it is, as far as rendering asks.

use std::collections::BTreeMap;

use rampart_reach::{Namespace, Pod, Selector};

use super::{Facts, Namespaces, PodSet, Service, surroundings::Name};

/// A cluster as it is.
#[derive(Debug, Clone, Copy)]
pub struct Cluster<'c> {
    /// Its addresses.
    pub facts: &'c Facts,
    /// Its namespaces.
    pub namespaces: &'c [Namespace],
    /// Its pods.
    pub pods: &'c [Pod],
    /// Services that select pods.
    pub services: &'c BTreeMap<Name, Service>,
}

static NO_SERVICES: BTreeMap<Name, Service> = BTreeMap::new();

impl<'c> Cluster<'c> {
    /// One of which nothing but its addresses is known.
    #[must_use]
    pub fn of_facts(facts: &'c Facts) -> Self {
        Self { facts, namespaces: &[], pods: &[], services: &NO_SERVICES }
    }

    /// Whether a peer of a policy of the namespace `own` is about a pod, in the network of its node or not.
    #[must_use]
    pub fn selects(&self, (pods, namespaces): (&PodSet, &Namespaces), own: &str, pod: &Pod) -> bool {
        let is_there = || match namespaces {
            Namespaces::Own => pod.namespace == own,
            Namespaces::Named(names) => names.contains(&pod.namespace),
            Namespaces::Selected(selected) => self.has_namespace(&pod.namespace, &selected.parsed),
        };
        pods.parsed.matches(&pod.labels) && is_there()
    }

    /// Whether a namespace has labels that are selected.
    #[must_use]
    pub fn has_namespace(&self, name: &str, selected: &Selector) -> bool {
        is_selected(self.namespaces, name, selected)
    }
}

/// Whether a namespace has labels that are selected.
pub(super) fn is_selected(namespaces: &[Namespace], name: &str, selected: &Selector) -> bool {
    let known = namespaces.iter().find(|namespace| namespace.name == name);
    known.map_or_else(
        || selected.matches_namespace(name, &BTreeMap::new()),
        |known| selected.matches_namespace(name, &known.labels),
    )
}
