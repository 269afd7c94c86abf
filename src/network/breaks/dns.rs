//! Name resolution.

use rampart_reach::{End, Protocol};

use super::{View, finding};
use crate::{
    api::Finding,
    network::servers::{DNS_LABEL, dns_ports, is_name_server, name_servers},
};

pub(super) fn find(view: &View<'_>) -> Vec<Finding> {
    servers_lost(view).into_iter().chain(asking_lost(view)).collect()
}

/// Name servers among the pods that others could not ask any more. One of them is enough: a Service leads to each.
fn servers_lost(view: &View<'_>) -> Option<Finding> {
    let ports = dns_ports(view.facts);
    let servers = view.pods().filter(|(_, pod)| is_name_server(pod)).map(|(place, _)| End::Pod(place));
    let mut servers = servers.flat_map(|server| ports.iter().map(move |port| (server, (Protocol::UDP, *port))));
    // Pods in the network of their node ask the name servers of the node, unless they say otherwise.
    let asking = || view.strangers().filter(|from| !view.is_on_node(*from));
    let is_lost = servers.any(|(server, port)| asking().any(|from| view.loses(from, server, port)));
    let told: Vec<String> = ports.iter().map(ToString::to_string).collect();
    let message = format!(
        "pods of other namespaces could not ask the cluster's name servers any more: allow ingress on port {} over UDP \
         and TCP from the pods of all namespaces",
        told.join(", ")
    );
    is_lost.then(|| finding("DnsBlocked", view.policy.0, DNS_LABEL.1, message))
}

/// Pods that could not ask any name server any more.
fn asking_lost(view: &View<'_>) -> Option<Finding> {
    if view.allow_no_dns {
        return None;
    }
    let servers = name_servers(&view.population.index, view.facts);
    let lost = view
        .pods()
        .filter(|(place, _)| view.loses_all(servers.iter().map(|(server, port)| (End::Pod(*place), *server, *port))))
        .count();
    let message = format!("{lost} pods could not resolve names any more: allow egress to `entity: DNS`");
    (lost > 0).then(|| finding("DnsBlocked", view.policy.0, view.policy.1, message))
}
