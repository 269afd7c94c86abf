//! A cluster as it is, as far as rendering asks.

use std::collections::{BTreeMap, HashMap};

use rampart_reach::{Namespace, Pod, Selector};

use super::{Facts, Namespaces, PodSet, Service, surroundings::Name};

type Labels = BTreeMap<String, String>;

/// Labels of namespaces, found by name: each namespace that a policy is rendered in asks for some of the others.
#[derive(Debug, Clone, Default)]
pub struct NamespaceLabels(HashMap<String, Labels>);

impl FromIterator<Namespace> for NamespaceLabels {
    fn from_iter<I: IntoIterator<Item = Namespace>>(namespaces: I) -> Self {
        let mut all = HashMap::new();
        for Namespace { name, labels } in namespaces {
            all.entry(name).or_insert(labels);
        }
        Self(all)
    }
}

impl NamespaceLabels {
    /// Whether a namespace is there.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Labels of a namespace; none of one that is not there.
    #[must_use]
    pub fn of(&self, name: &str) -> &Labels {
        static NONE: Labels = Labels::new();
        self.0.get(name).unwrap_or(&NONE)
    }

    /// Whether a namespace has labels that are selected.
    #[must_use]
    pub fn is_selected(&self, name: &str, selected: &Selector) -> bool {
        selected.matches_namespace(name, self.of(name))
    }
}

/// A cluster as it is.
#[derive(Debug, Clone, Copy)]
pub struct Cluster<'c> {
    /// Its addresses.
    pub facts: &'c Facts,
    /// Its namespaces.
    pub namespaces: &'c NamespaceLabels,
    /// Its pods.
    pub pods: &'c [Pod],
    /// Services that select pods.
    pub services: &'c BTreeMap<Name, Service>,
}

impl Cluster<'_> {
    /// Whether a peer of a policy of the namespace `own` is about a pod, in the network of its node or not.
    #[must_use]
    pub fn selects(&self, (pods, namespaces): (&PodSet, &Namespaces), own: &str, pod: &Pod) -> bool {
        let is_there = || match namespaces {
            Namespaces::Own => pod.namespace == own,
            Namespaces::Named(names) => names.contains(&pod.namespace),
            Namespaces::Selected(selected) => self.namespaces.is_selected(&pod.namespace, &selected.parsed),
        };
        pods.parsed.matches(&pod.labels) && is_there()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::selector;

    #[test]
    fn a_namespace_is_selected_by_its_labels_or_by_its_name_alone() {
        let namespace =
            |tier: &str| Namespace { name: "shop".into(), labels: [("tier".to_owned(), tier.to_owned())].into() };
        // Two of a name are one, as files may have them: the first.
        let all: NamespaceLabels = [namespace("web"), namespace("db")].into_iter().collect();
        let by = |key: &str, value: &str| {
            let wire = serde_json::json!({"matchLabels": {key: value}});
            selector::parse(&serde_json::from_value(wire).unwrap(), "").unwrap()
        };
        assert!(all.is_selected("shop", &by("tier", "web")) && !all.is_selected("shop", &by("tier", "db")));
        assert!(!all.is_selected("books", &by("tier", "web")));
        assert!(all.is_selected("books", &by("kubernetes.io/metadata.name", "books")));
        assert!(all.contains("shop") && !all.contains("books"));
    }
}
