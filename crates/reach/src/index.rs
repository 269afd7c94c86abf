//! The pods of a cluster by what policies can tell them apart by.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use fixedbitset::FixedBitSet;

use crate::{ContainerPort, IpBlocks, NAMESPACE_NAME, Namespace, Operator, Pod, Protocol, Selector};

/// Pods in classes: those of a class have the same namespace, labels and ports, so that no policy can tell them
/// apart.
#[derive(Debug, Clone)]
pub struct Index {
    pods: Vec<Pod>,
    /// The pods of each class.
    classes: Vec<Vec<usize>>,
    /// The class of each pod.
    class_of: Vec<usize>,
    by_label: Postings,
    by_namespace_label: Postings,
    by_namespace: HashMap<String, Vec<usize>>,
    /// Classes that selectors can select: not those in the network of their node.
    selectable: FixedBitSet,
    /// Classes by addresses that an `ipBlock` may be about.
    addresses: Vec<(IpAddr, usize)>,
    /// Classes by what they call a port, and by its number.
    named: HashMap<(String, Protocol), BTreeMap<u16, FixedBitSet>>,
}

/// Classes by label, and by its value.
#[derive(Debug, Clone, Default)]
struct Postings(HashMap<String, Posted>);

/// Classes with a label.
#[derive(Debug, Clone, Default)]
struct Posted {
    present: Vec<usize>,
    by_value: HashMap<String, Vec<usize>>,
}

/// What the pods of a class have in common.
#[derive(PartialEq, Eq, Hash)]
struct Common<'p> {
    namespace: &'p str,
    labels: &'p BTreeMap<String, String>,
    ports: &'p [ContainerPort],
    host_network: bool,
    /// Where an `ipBlock` may be about them.
    addresses: &'p [IpAddr],
}

impl<'p> Common<'p> {
    fn of(pod: &'p Pod, ip_blocks: IpBlocks) -> Self {
        let has_address = pod.host_network || ip_blocks == IpBlocks::Pods;
        Self {
            namespace: &pod.namespace,
            labels: &pod.labels,
            ports: &pod.ports,
            host_network: pod.host_network,
            addresses: if has_address { &pod.ips } else { &[] },
        }
    }
}

impl Index {
    /// Sorts pods into classes.
    #[must_use]
    pub fn new(namespaces: &[Namespace], pods: Vec<Pod>, ip_blocks: IpBlocks) -> Self {
        let labels: HashMap<&str, &BTreeMap<String, String>> =
            namespaces.iter().map(|namespace| (namespace.name.as_str(), &namespace.labels)).collect();
        let mut numbers: HashMap<Common<'_>, usize> = HashMap::new();
        let (mut classes, mut class_of): (Vec<Vec<usize>>, Vec<usize>) = (vec![], vec![]);
        for (place, pod) in pods.iter().enumerate() {
            let class = *numbers.entry(Common::of(pod, ip_blocks)).or_insert_with(|| {
                classes.push(vec![]);
                classes.len().saturating_sub(1)
            });
            classes.get_mut(class).into_iter().for_each(|pods| pods.push(place));
            class_of.push(class);
        }
        let mut index = Self {
            selectable: FixedBitSet::with_capacity(classes.len()),
            by_label: Postings::default(),
            by_namespace_label: Postings::default(),
            by_namespace: HashMap::new(),
            addresses: vec![],
            named: HashMap::new(),
            classes: vec![],
            class_of,
            pods: vec![],
        };
        for (common, class) in numbers {
            index.insert(&common, class, labels.get(common.namespace).copied());
        }
        Self { pods, classes, ..index }
    }

    fn insert(&mut self, common: &Common<'_>, class: usize, of_namespace: Option<&BTreeMap<String, String>>) {
        self.addresses.extend(common.addresses.iter().map(|address| (*address, class)));
        for port in common.ports.iter().filter(|port| !port.name.is_empty()) {
            let numbers = self.named.entry((port.name.clone(), port.protocol)).or_default();
            numbers.entry(port.port).or_default().grow_and_insert(class);
        }
        if common.host_network {
            return;
        }
        self.selectable.insert(class);
        self.by_namespace.entry(common.namespace.to_owned()).or_default().push(class);
        self.by_label.insert(common.labels, class);
        // Whatever a manifest says of its name, the API server knows better.
        let mut labels = of_namespace.cloned().unwrap_or_default();
        labels.insert(NAMESPACE_NAME.to_owned(), common.namespace.to_owned());
        self.by_namespace_label.insert(&labels, class);
    }

    /// The pods, as they were given.
    #[must_use]
    pub fn pods(&self) -> &[Pod] {
        &self.pods
    }

    /// The pods of each class, by their places.
    #[must_use]
    pub fn classes(&self) -> &[Vec<usize>] {
        &self.classes
    }

    /// The class of a pod.
    #[must_use]
    pub fn class_of(&self, pod: usize) -> Option<usize> {
        self.class_of.get(pod).copied()
    }

    /// The pods of one namespace that a policy with this selector is about, by their places in order.
    #[must_use]
    pub fn selected(&self, namespace: &str, pods: &Selector) -> Vec<usize> {
        let classes = self.in_namespace(namespace, pods);
        let mut places: Vec<usize> =
            classes.into_iter().filter_map(|it| self.classes.get(it)).flatten().copied().collect();
        places.sort_unstable();
        places
    }

    /// A pod of each class that is selected by the labels of its namespace and by its own, in the order of the pods.
    pub fn examples(&self, namespaces: &Selector, pods: &Selector) -> impl Iterator<Item = &Pod> {
        let classes: Vec<usize> = self.anywhere(namespaces, pods).ones().collect();
        classes.into_iter().filter_map(|class| self.pods.get(*self.classes.get(class)?.first()?))
    }

    /// Classes whose pods declare a port of this name, by its number.
    pub(crate) fn named(&self, name: &str, protocol: Protocol) -> impl Iterator<Item = (u16, &FixedBitSet)> {
        let numbers = self.named.get(&(name.to_owned(), protocol));
        numbers.into_iter().flatten().map(|(number, classes)| (*number, classes))
    }

    /// Classes of pods by address.
    pub(crate) fn addresses(&self) -> &[(IpAddr, usize)] {
        &self.addresses
    }

    /// Classes of one namespace that a selector selects.
    pub(crate) fn in_namespace(&self, namespace: &str, pods: &Selector) -> Vec<usize> {
        let classes = self.by_namespace.get(namespace).into_iter().flatten().copied();
        let labels = |class: &usize| self.classes.get(*class).and_then(|pods| self.pods.get(*pods.first()?));
        classes.filter(|class| labels(class).is_some_and(|pod| pods.matches(&pod.labels))).collect()
    }

    /// Classes that are selected by the labels of their namespaces and by their own.
    pub(crate) fn anywhere(&self, namespaces: &Selector, pods: &Selector) -> FixedBitSet {
        let mut selected = self.selectable.clone();
        self.by_namespace_label.narrow(&mut selected, namespaces);
        self.by_label.narrow(&mut selected, pods);
        selected
    }
}

impl Postings {
    fn insert(&mut self, labels: &BTreeMap<String, String>, class: usize) {
        for (key, value) in labels {
            let posted = self.0.entry(key.clone()).or_default();
            posted.present.push(class);
            posted.by_value.entry(value.clone()).or_default().push(class);
        }
    }

    /// Leaves of some classes those that a selector selects.
    fn narrow(&self, classes: &mut FixedBitSet, selector: &Selector) {
        for requirement in selector.requirements() {
            let posted = self.0.get(&requirement.key);
            let present = || posted.into_iter().flat_map(|it| &it.present).copied();
            let with = |values: &BTreeSet<String>| {
                let lists = posted.into_iter().flat_map(|it| values.iter().filter_map(|value| it.by_value.get(value)));
                lists.flatten().copied().collect::<Vec<_>>()
            };
            match &requirement.operator {
                Operator::In(values) => classes.intersect_with(&bits(classes.len(), with(values))),
                Operator::Exists => classes.intersect_with(&bits(classes.len(), present())),
                Operator::NotIn(values) => with(values).into_iter().for_each(|class| classes.set(class, false)),
                Operator::DoesNotExist => present().for_each(|class| classes.set(class, false)),
            }
        }
    }
}

fn bits(length: usize, ones: impl IntoIterator<Item = usize>) -> FixedBitSet {
    let mut bits = FixedBitSet::with_capacity(length);
    bits.extend(ones);
    bits
}
