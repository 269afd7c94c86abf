//! Name resolution.

use rampart_reach::{End, Protocol};

use super::{View, finding};
use crate::api::Finding;

const PORT: (Protocol, u16) = (Protocol::UDP, 53);

pub(super) fn find(view: &View<'_>) -> Vec<Finding> {
    if view.allow_no_dns {
        return vec![];
    }
    let index = &view.population.index;
    let is_server = |place: &usize| {
        let pod = index.pods().get(*place);
        pod.is_some_and(|pod| {
            pod.namespace == "kube-system" && pod.labels.get("k8s-app").is_some_and(|app| app == "kube-dns")
        })
    };
    let classes = index.classes().iter().filter_map(|pods| pods.first());
    let pods = classes.filter(|place| is_server(place)).map(|place| End::Pod(*place));
    let servers: Vec<End> = pods.chain(view.facts.dns_addresses.iter().map(|it| End::Address(*it))).collect();
    let lost = view
        .pods()
        .filter(|(place, _)| view.loses_all(servers.iter().map(|server| (End::Pod(*place), *server, PORT))))
        .count();
    if lost == 0 {
        return vec![];
    }
    let message = format!("{lost} pods could not resolve names any more: allow egress to `entity: DNS`");
    vec![finding("DnsBlocked", view.policy.0, view.policy.1, message)]
}
