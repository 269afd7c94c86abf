//! Backends of Ingresses, and of Services of the types LoadBalancer and NodePort, that their callers could not
//! reach any more.

use rampart_reach::End;

use super::{View, finding};
use crate::{
    api::Finding,
    network::{ServicePort, surroundings::Name},
};

/// What the pods of Ingress controllers are called by their charts.
const CONTROLLERS: [&str; 7] =
    ["ingress-nginx", "nginx-ingress", "traefik", "haproxy-ingress", "kubernetes-ingress", "kong", "emissary-ingress"];

pub(super) fn find(view: &View<'_>) -> Vec<Finding> {
    let outside: Vec<End> = view.outside().collect();
    let mut found = vec![];
    for (name, _) in view.around.services.iter().filter(|(_, service)| service.is_outward) {
        if let Some(port) = lost_port(view, name, &outside, |_| true) {
            let message = format!(
                "Service {} is there for callers outside of the cluster, and none of them could reach its pods on its \
                 port {port} any more: allow ingress from `external`",
                name.1
            );
            found.push(finding("ServiceBlocked", &name.0, &name.1, message));
        }
    }
    let controllers = controllers(view, &outside);
    for ((_, ingress), backends) in &view.around.ingresses {
        for (name, port) in backends {
            if let Some(port) = lost_port(view, name, &controllers, |it| port.is(it)) {
                let message = format!(
                    "Ingress {ingress} leads to port {port} of Service {}, whose pods no Ingress controller could \
                     reach any more: allow ingress from `entity: IngressController`, or from its pods",
                    name.1
                );
                found.push(finding("IngressBlocked", &name.0, &name.1, message));
            }
        }
    }
    found
}

/// Where controllers of Ingresses may be. Unless somebody said so, and there are such pods, also outside: where a cloud
/// does their work, or in the network of a node.
fn controllers(view: &View<'_>, outside: &[End]) -> Vec<End> {
    let named: Vec<End> = view.facts.ingress_controller.iter().flat_map(|named| view.of_entity(named)).collect();
    if !named.is_empty() {
        return named;
    }
    let known: Vec<End> = view.named(&CONTROLLERS).collect();
    let inside = if known.is_empty() { view.strangers().collect() } else { known };
    outside.iter().copied().chain(inside).collect()
}

/// The first of some ports of a Service on which none of its callers could reach its pods any more.
fn lost_port(view: &View<'_>, name: &Name, callers: &[End], is_meant: impl Fn(&ServicePort) -> bool) -> Option<u16> {
    let is_lost = |(port, behind): &(&ServicePort, Vec<_>)| {
        let ways = callers.iter().flat_map(|from| behind.iter().map(move |(to, port)| (*from, *to, *port)));
        is_meant(port) && view.loses_all(ways)
    };
    view.behind(name).find(is_lost).map(|(port, _)| port.port)
}
