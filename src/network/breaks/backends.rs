//! Backends of Ingresses, and of Services of the types LoadBalancer and NodePort, that their callers could not
//! reach any more.

use rampart_reach::End;

use super::{View, finding};
use crate::{api::Finding, network::surroundings::Name};

pub(super) fn find(view: &View<'_>) -> Vec<Finding> {
    let outside: Vec<End> = view.outside().collect();
    let mut found = vec![];
    for (name, _) in view.around.services.iter().filter(|(_, service)| service.is_outward) {
        if loses_callers(view, name, &outside) {
            let message = format!(
                "Service {} is there for callers outside of the cluster, and none of them could reach its pods any \
                 more: allow ingress from `external`",
                name.1
            );
            found.push(finding("ServiceBlocked", &name.0, &name.1, message));
        }
    }
    // Unless somebody said where, a controller of Ingresses may run anywhere, also in the network of a node.
    let anywhere: Vec<End> = match &view.facts.ingress_controller {
        Some(named) => view.of_entity(named).collect(),
        None => outside.iter().copied().chain(view.strangers()).collect(),
    };
    for ((_, ingress), services) in &view.around.ingresses {
        for name in services.iter().filter(|name| loses_callers(view, name, &anywhere)) {
            let message = format!(
                "Ingress {ingress} leads to Service {}, whose pods no Ingress controller could reach any more: allow \
                 ingress from `entity: IngressController`, or from its pods",
                name.1
            );
            found.push(finding("IngressBlocked", &name.0, &name.1, message));
        }
    }
    found
}

fn loses_callers(view: &View<'_>, service: &Name, callers: &[End]) -> bool {
    let behind = view.behind(service, None);
    let ways = callers.iter().flat_map(|from| behind.iter().map(move |(to, port)| (*from, *to, *port)));
    view.loses_all(ways)
}
