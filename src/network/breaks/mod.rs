//! What NetworkPolicies would break: a file a check. Each looks at connections that a change takes away, and that
//! something in the cluster is known to need.
//!
//! Probes are safe: the node of a pod always reaches it (`networking.k8s.io/v1`, NetworkPolicy).

mod api_server;
mod backends;
mod dns;
mod scrapes;
mod webhooks;

use rampart_reach::{Change, Direction, End, Pod, Protocol, Verdict};

use super::{EntityPods, Facts, Population, ServicePort, Surroundings, surroundings::Name};
use crate::api::Finding;

/// Metrics that could not be read any more, if anybody reads them: what tells so may be anybody's.
const SCRAPE_UNCERTAIN: &str = "ScrapeUncertain";
/// Where [`super::is_unmatched`] says so, and Cilium may have been installed for it.
const API_SERVER_UNCERTAIN: &str = "ApiServerUncertain";
const WEBHOOK_UNCERTAIN: &str = "WebhookUncertain";
/// Why.
const UNMATCHED: &str = "address of a node, which Cilium matches only with policyCIDRMatchMode: nodes: install it so, or \
                         allow the entity kube-apiserver in a CiliumNetworkPolicy";

/// Whether what a finding tells must be allowed, or acknowledged, before a policy is enforced; else it is only told.
#[must_use]
pub fn is_in_the_way(found: &Finding) -> bool {
    let uncertain = [SCRAPE_UNCERTAIN, API_SERVER_UNCERTAIN, WEBHOOK_UNCERTAIN];
    found.id.split_once('/').is_none_or(|(reason, _)| !uncertain.contains(&reason))
}

/// What is looked at.
pub struct View<'v> {
    /// The change of policies.
    pub change: &'v Change<'v>,
    /// The pods.
    pub population: &'v Population,
    /// The pods that the intent is about, by their places.
    pub selected: &'v [usize],
    /// What depends on who may reach them.
    pub around: &'v Surroundings,
    /// What is known of the cluster.
    pub facts: &'v Facts,
    /// The policy: namespace and name.
    pub policy: (&'v str, &'v str),
    /// Whether isolation without name resolution is meant.
    pub allow_no_dns: bool,
}

/// Pods behind a port of a Service, and their own port.
type Behind = Vec<(End, (Protocol, u16))>;

/// Everything that a change would break, in the order of the ids.
#[must_use]
pub fn breaks(view: &View<'_>) -> Vec<Finding> {
    let checks = [webhooks::find, backends::find, scrapes::find, dns::find, api_server::find];
    let mut found: Vec<Finding> = checks.iter().flat_map(|find| find(view)).collect();
    found.sort();
    found.dedup_by(|one, other| one.id == other.id);
    found
}

impl View<'_> {
    /// Whether a change takes a connection away.
    fn loses(&self, from: End, to: End, port: (Protocol, u16)) -> bool {
        self.change.was_allowed(from, to, port) && !self.change.verdict(from, to, port).allowed
    }

    /// Whether a connection that nothing stood in the way of is allowed by rules alone after the change.
    fn comes_to_depend(&self, (from, to, port): (End, End, (Protocol, u16)), direction: Direction) -> bool {
        let decides = |verdict: &Verdict| verdict.by.iter().any(|it| it.direction == direction);
        let (before, after) = (self.change.verdict_before(from, to, port), self.change.verdict(from, to, port));
        before.allowed && after.allowed && !decides(&before) && decides(&after)
    }

    /// Whether one end could reach another by one of these ways, and can by none after the change.
    fn loses_all(&self, ways: impl Iterator<Item = (End, End, (Protocol, u16))>) -> bool {
        let (mut before, mut after) = (false, false);
        for (from, to, port) in ways {
            before |= self.change.was_allowed(from, to, port);
            after |= self.change.verdict(from, to, port).allowed;
        }
        before && !after
    }

    /// The selected pods, with their places.
    fn pods(&self) -> impl Iterator<Item = (usize, &Pod)> {
        self.selected.iter().filter_map(|place| Some((*place, self.population.index.pods().get(*place)?)))
    }

    /// The ports of a Service, each with the selected pods behind it and their port.
    fn behind<'a>(&'a self, name: &'a Name) -> impl Iterator<Item = (&'a ServicePort, Behind)> + 'a {
        self.around.services.get(name).into_iter().flat_map(move |service| {
            let pods = || self.pods().filter(|(_, pod)| pod.namespace == name.0 && service.selects(pod));
            let of =
                |port: &ServicePort| pods().filter_map(|(place, pod)| Some((End::Pod(place), port.of(pod)?))).collect();
            service.ports.iter().map(|port| (port, of(port))).collect::<Vec<_>>()
        })
    }

    /// One pod of each class of those of which that is true.
    fn one_of_each<'a>(&'a self, is_one: impl Fn(&Pod) -> bool + 'a) -> impl Iterator<Item = End> + 'a {
        let index = &self.population.index;
        let first = index.classes().iter().filter_map(|pods| pods.first().copied());
        first.filter(move |place| index.pods().get(*place).is_some_and(&is_one)).map(End::Pod)
    }

    /// One pod of each class of those that the administrator named.
    fn of_entity<'a>(&'a self, named: &'a EntityPods) -> impl Iterator<Item = End> + 'a {
        self.one_of_each(|pod| {
            named.pods.parsed.matches(&pod.labels)
                && self.population.is_selected(&pod.namespace, &named.namespaces.parsed)
        })
    }

    /// One pod of each class that programs of these names have, by Kubernetes' recommended labels.
    fn named<'a>(&'a self, names: &'a [&'a str]) -> impl Iterator<Item = End> + 'a {
        self.one_of_each(|pod| {
            pod.labels.get("app.kubernetes.io/name").is_some_and(|name| names.contains(&name.as_str()))
        })
    }

    /// One pod of each class in other namespaces.
    fn strangers(&self) -> impl Iterator<Item = End> + '_ {
        self.one_of_each(|pod| pod.namespace != self.policy.0)
    }

    /// Whether an end is a pod in the network of its node.
    fn is_on_node(&self, end: End) -> bool {
        matches!(end, End::Pod(place) if self.population.index.pods().get(place).is_some_and(|pod| pod.host_network))
    }

    /// An address of each range outside of the cluster that policies tell apart.
    fn outside(&self) -> impl Iterator<Item = End> {
        let ranges = self.change.cuts().addresses().iter().map(|range| range.first);
        let inside = |address: &std::net::IpAddr| self.facts.cluster_ranges.iter().any(|range| range.contains(address));
        ranges.filter(move |address| !inside(address)).map(End::Address)
    }
}

fn finding(reason: &str, namespace: &str, name: &str, message: String) -> Finding {
    Finding { id: format!("{reason}/{namespace}/{name}"), message }
}
