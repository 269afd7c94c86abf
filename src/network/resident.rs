//! A pod of the cluster, with what NetworkPolicies may take from it.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
};

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use parking_lot::Mutex;
use rampart_reach::{Index, IpBlocks, Namespace, Pod, Selector};
use serde::Deserialize as _;
use serde_json::Value;

use super::{
    Facts, enforcer,
    world::{Metadata, Written, pod},
};

/// The service account that every namespace has, and that nobody asked for.
const DEFAULT_ACCOUNT: &str = "default";

/// A pod, and what may break for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resident {
    /// The pod.
    pub pod: Pod,
    /// What may break.
    pub needs: Needs,
}

/// What may break for a pod besides what its labels and ports tell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// Its service account, where it was given one and has its token: it calls the API server.
    pub account: Option<String>,
    /// The port on which its metrics are read, by the annotations `prometheus.io/scrape` and `prometheus.io/port`.
    pub scraped: Option<u16>,
}

impl Resident {
    /// `None` for a pod that has finished, or that has not the shape of one.
    #[must_use]
    pub fn of(metadata: &ObjectMeta, data: &Value) -> Option<Self> {
        let mut written = Written::deserialize(data).ok()?;
        written.metadata.labels.clone_from(&metadata.labels);
        let spec = written.spec.as_ref();
        let has_token = spec.is_none_or(|spec| spec.automount_service_account_token != Some(false));
        let account = spec.and_then(|spec| spec.service_account_name.clone());
        let account = account.filter(|account| has_token && account != DEFAULT_ACCOUNT && !account.is_empty());
        let named =
            Metadata { namespace: metadata.namespace.clone(), name: metadata.name.clone(), ..Metadata::default() };
        let pod = pod(named, written, "")?;
        let annotation = |key: &str| metadata.annotations.as_ref().and_then(|all| all.get(key));
        let is_scraped = annotation("prometheus.io/scrape").is_some_and(|it| it == "true");
        let port = annotation("prometheus.io/port").and_then(|port| port.parse().ok());
        let port = port.or_else(|| pod.ports.first().map(|port| port.port));
        Some(Self { pod, needs: Needs { account, scraped: port.filter(|_| is_scraped) } })
    }
}

impl From<Pod> for Resident {
    /// One of which nothing else is known.
    fn from(pod: Pod) -> Self {
        Self { pod, needs: Needs::default() }
    }
}

/// The place of a pod whose address is in no known range, and that address.
type Stray = Option<(usize, IpAddr)>;

/// The pods of a cluster, indexed.
#[derive(Debug)]
pub struct Population {
    /// The namespaces.
    pub namespaces: Vec<Namespace>,
    /// The pods.
    pub index: Index,
    /// What may break for each of them, by its place in the index.
    pub needs: Vec<Needs>,
    /// The network plug-in that enforces NetworkPolicies, if its pods are known by their labels.
    pub enforcer: Option<&'static str>,
    /// Whether Cilium runs. Labels may be anybody's; the network of a node is not for tenants (Pod Security Standards,
    /// Baseline).
    pub(super) has_cilium: bool,
    /// The namespaces by name, by their places.
    by_name: HashMap<String, usize>,
    /// The pods of each namespace, by their places.
    by_namespace: HashMap<String, Vec<usize>>,
    /// Of the pods in the network of their node, one of those with the same namespace and labels.
    hosted: Vec<usize>,
    /// Addresses of nodes, as far as pods have them.
    nodes: HashSet<IpAddr>,
    /// What [`Population::stray`] found last, and in which ranges.
    strays: Mutex<Option<(Vec<IpNet>, Stray)>>,
}

impl Population {
    /// Indexes pods.
    #[must_use]
    pub fn new(namespaces: Vec<Namespace>, residents: impl Iterator<Item = Resident>) -> Self {
        let (pods, needs) = residents.map(|it| (it.pod, it.needs)).unzip();
        let index = Index::new(&namespaces, pods, IpBlocks::External);
        let of_classes = || index.classes().iter().filter_map(|pods| index.pods().get(*pods.first()?));
        let enforcer = of_classes().filter_map(|pod| enforcer::of_pod(&pod.labels)).min();
        let mut of_nodes = of_classes().filter(|pod| pod.host_network);
        let has_cilium = of_nodes.any(|pod| enforcer::of_pod(&pod.labels) == Some(enforcer::CILIUM));
        let by_name = namespaces.iter().enumerate().map(|(place, namespace)| (namespace.name.clone(), place)).collect();
        let mut by_namespace: HashMap<String, Vec<usize>> = HashMap::new();
        for (place, pod) in index.pods().iter().enumerate() {
            match by_namespace.get_mut(&pod.namespace) {
                Some(places) => places.push(place),
                None => drop(by_namespace.insert(pod.namespace.clone(), vec![place])),
            }
        }
        let hosted = hosted(index.pods());
        let of_nodes = index.pods().iter().filter(|pod| pod.host_network);
        let nodes = of_nodes.flat_map(|pod| pod.ips.iter().copied()).collect();
        let strays = Mutex::default();
        Self { namespaces, index, needs, enforcer, has_cilium, by_name, by_namespace, hosted, nodes, strays }
    }

    /// Whether a pod in the network of its node has this address.
    pub(super) fn is_of_node(&self, address: &IpAddr) -> bool {
        self.nodes.contains(address)
    }

    /// Whether there is a namespace of this name.
    #[must_use]
    pub fn has(&self, namespace: &str) -> bool {
        self.by_name.contains_key(namespace)
    }

    /// Whether a namespace has labels that are selected.
    #[must_use]
    pub fn is_selected(&self, namespace: &str, selected: &Selector) -> bool {
        let known = self.by_name.get(namespace).and_then(|place| self.namespaces.get(*place));
        known.map_or_else(
            || selected.matches_namespace(namespace, &BTreeMap::new()),
            |known| selected.matches_namespace(namespace, &known.labels),
        )
    }

    /// The pods of a namespace, in the network of their node or not.
    pub fn pods_in(&self, namespace: &str) -> impl Iterator<Item = &Pod> {
        self.by_namespace.get(namespace).into_iter().flatten().filter_map(|place| self.index.pods().get(*place))
    }

    /// The pods in the network of their node, one of those with the same namespace and labels.
    pub(super) fn hosted(&self) -> impl Iterator<Item = &Pod> {
        self.hosted.iter().filter_map(|place| self.index.pods().get(*place))
    }

    /// A pod with an address that is in no known range: then the ranges are not all that the cluster has, as where the
    /// network plug-in keeps pools of its own. All pods are asked once, however many rules and namespaces ask.
    pub(super) fn stray(&self, facts: &Facts) -> Option<(&Pod, IpAddr)> {
        if facts.are_nowhere() {
            return None;
        }
        let mut last = self.strays.lock();
        let known = last.as_ref().filter(|(ranges, _)| *ranges == facts.cluster_ranges).map(|(_, found)| *found);
        let found = known.unwrap_or_else(|| {
            let found = facts.stray(self.index.pods());
            *last = Some((facts.cluster_ranges.clone(), found));
            found
        });
        let (place, address) = found?;
        Some((self.index.pods().get(place)?, address))
    }
}

/// The places of pods in the network of their node, one of those with the same namespace and labels.
fn hosted(pods: &[Pod]) -> Vec<usize> {
    let mut seen = HashSet::new();
    let hosted = pods.iter().enumerate().filter(|(_, pod)| pod.host_network);
    hosted.filter(|(_, pod)| seen.insert((&pod.namespace, &pod.labels))).map(|(place, _)| place).collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
    use serde_json::json;

    use super::*;

    fn of(metadata: &Value, spec: &Value) -> Option<Resident> {
        Resident::of(&serde_json::from_value(metadata.clone()).unwrap(), &json!({"spec": spec}))
    }

    #[test]
    fn what_a_pod_needs() {
        let ports = json!([{"containerPort": 9090}]);
        let metadata = json!({"name": "a", "namespace": "n", "labels": {"app": "a"},
            "annotations": {"prometheus.io/scrape": "true"}});
        let pod =
            of(&metadata, &json!({"serviceAccountName": "reader", "containers": [{"name": "c", "ports": ports}]}));
        let pod = pod.unwrap();
        assert_eq!((pod.pod.namespace.as_str(), pod.pod.labels["app"].as_str()), ("n", "a"));
        assert_eq!(pod.needs, Needs { account: Some("reader".into()), scraped: Some(9090) });
    }

    #[test]
    fn the_default_account_and_one_without_a_token_call_nobody() {
        for spec in [
            json!({"serviceAccountName": "default"}),
            json!({"serviceAccountName": "reader", "automountServiceAccountToken": false}),
            json!({}),
        ] {
            assert_eq!(of(&json!({"name": "a"}), &spec).unwrap().needs, Needs::default());
        }
    }

    #[test]
    fn pods_are_found_by_their_namespace_and_namespaces_by_their_name() {
        let pod = |namespace: &str, name: &str, host_network: bool| {
            let labels = [("app".to_owned(), "a".to_owned())].into();
            Pod { namespace: namespace.into(), name: name.into(), labels, host_network, ..Pod::default() }
        };
        let pods = [pod("b", "1", false), pod("a", "2", true), pod("b", "3", true), pod("a", "4", true)];
        let labels: BTreeMap<String, String> = [("team".to_owned(), "x".to_owned())].into();
        let namespaces = vec![Namespace { name: "b".into(), labels: labels.clone() }];
        let population = Population::new(namespaces, pods.into_iter().map(Resident::from));
        let names = |pods: &mut dyn Iterator<Item = &Pod>| pods.map(|pod| pod.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&mut population.pods_in("b")), ["1", "3"]);
        assert_eq!(names(&mut population.pods_in("a")), ["2", "4"]);
        assert_eq!(names(&mut population.hosted()), ["2", "3"], "one of a kind");
        assert_eq!(["a", "b"].map(|name| population.has(name)), [false, true]);
        let of_team =
            crate::api::selector::parse(&LabelSelector { match_labels: Some(labels), ..LabelSelector::default() }, "");
        assert_eq!(["a", "b"].map(|name| population.is_selected(name, of_team.as_ref().unwrap())), [false, true]);
    }

    #[test]
    fn a_stray_pod_is_sought_anew_where_other_ranges_are_known() {
        let pod = Pod { ips: vec!["10.60.0.5".parse().unwrap()], ..Pod::default() };
        let population = Population::new(vec![], [Resident::from(pod)].into_iter());
        let of = |range: &str| Facts { cluster_ranges: vec![range.parse().unwrap()], ..Facts::default() };
        let is_found = |facts: &Facts| population.stray(facts).is_some();
        assert!(is_found(&of("10.244.0.0/16")) && is_found(&of("10.244.0.0/16")));
        assert!(!is_found(&of("10.244.0.0/16").without_ranges()));
        assert!(!is_found(&of("10.60.0.0/16")) && is_found(&of("10.244.0.0/16")));
    }
}
