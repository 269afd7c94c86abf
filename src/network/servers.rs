//! Whom pods of every cluster call: its name servers and the API server.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
};

use rampart_reach::{End, Index, Pod, Protocol};

use super::{Facts, Population};

/// The namespace of the name servers.
pub const DNS_NAMESPACE: &str = "kube-system";
/// What they are called by convention (`k8s-app: kube-dns`), whatever program they are.
pub(super) const DNS_LABEL: (&str, &str) = ("k8s-app", "kube-dns");
/// The port on which they answer (RFC 1035, section 4.2).
pub const DNS_PORT: u16 = 53;

/// Where node-local caches answer by convention, and what their pods are called. The address is allowed in every cluster,
/// and nobody answers there in most.
const NODE_LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 20, 10));
const NODE_LOCAL_APP: &str = "node-local-dns";

/// Ports on which the pods of the name servers answer: those that their Service leads to, which may be others than its
/// own.
pub(super) fn dns_ports(facts: &Facts) -> BTreeSet<u16> {
    if facts.dns_ports.is_empty() { [DNS_PORT].into() } else { facts.dns_ports.clone() }
}

/// The name servers, and where they answer: a pod of each class of them, and their addresses.
pub(super) fn name_servers(index: &Index, facts: &Facts) -> Vec<(End, (Protocol, u16))> {
    let classes =
        || index.classes().iter().filter_map(|pods| Some((*pods.first()?, index.pods().get(*pods.first()?)?)));
    let has_caches = classes().any(|(_, pod)| is_called(pod, NODE_LOCAL_APP));
    let ports = dns_ports(facts);
    let pods = classes().filter(|(_, pod)| is_name_server(pod)).map(|(place, _)| End::Pod(place));
    let pods = pods.flat_map(|pod| ports.iter().map(move |port| (pod, (Protocol::UDP, *port))));
    let addresses = facts.dns_addresses.iter().filter(|it| has_caches || **it != NODE_LOCAL);
    pods.chain(addresses.map(|it| (End::Address(*it), (Protocol::UDP, DNS_PORT)))).collect()
}

/// Whether a pod is one of the name servers.
pub(super) fn is_name_server(pod: &Pod) -> bool {
    is_called(pod, DNS_LABEL.1)
}

fn is_called(pod: &Pod, app: &str) -> bool {
    pod.namespace == DNS_NAMESPACE && pod.labels.get(DNS_LABEL.0).is_some_and(|it| it == app)
}

/// Whether rules about the API server may be without effect: it is at addresses of nodes, which the network plug-in
/// matches only where it was installed so.
#[must_use]
pub fn is_unmatched(facts: &Facts, population: &Population) -> bool {
    population.has_cilium && facts.api_endpoints.iter().any(|(address, _)| population.is_of_node(address))
}

/// The API server: its own addresses and its Service.
pub(super) fn api_servers(facts: &Facts) -> Vec<(End, (Protocol, u16))> {
    let all = facts.api_endpoints.iter().chain(&facts.api_service);
    all.map(|(address, port)| (End::Address(*address), (Protocol::TCP, *port))).collect()
}
