//! Whom pods of every cluster call: its name servers and the API server.

use rampart_reach::{End, Index, Pod, Protocol};

use super::Facts;

/// The namespace of the name servers.
pub const DNS_NAMESPACE: &str = "kube-system";
/// What they are called by convention (`k8s-app: kube-dns`), whatever program they are.
pub(super) const DNS_LABEL: (&str, &str) = ("k8s-app", "kube-dns");
/// Where they answer.
pub(super) const DNS_PORT: (Protocol, u16) = (Protocol::UDP, 53);

/// The name servers: a pod of each class of them, and their addresses.
pub(super) fn name_servers(index: &Index, facts: &Facts) -> Vec<End> {
    let classes = index.classes().iter().filter_map(|pods| pods.first().copied());
    let pods = classes.filter(|place| index.pods().get(*place).is_some_and(is_name_server)).map(End::Pod);
    pods.chain(facts.dns_addresses.iter().map(|it| End::Address(*it))).collect()
}

/// Whether a pod is one of the name servers.
pub(super) fn is_name_server(pod: &Pod) -> bool {
    pod.namespace == DNS_NAMESPACE && pod.labels.get(DNS_LABEL.0).is_some_and(|app| app == DNS_LABEL.1)
}

/// The API server: its own addresses and its Service.
pub(super) fn api_servers(facts: &Facts) -> Vec<(End, (Protocol, u16))> {
    let all = facts.api_endpoints.iter().chain(&facts.api_service);
    all.map(|(address, port)| (End::Address(*address), (Protocol::TCP, *port))).collect()
}
