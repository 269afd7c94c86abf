//! Admission webhooks that the API server could not call any more: with `failurePolicy: Fail`, nothing that they
//! admit can be made then, in any namespace.

use rampart_reach::{End, Protocol};

use super::{View, finding};
use crate::api::Finding;

pub(super) fn find(view: &View<'_>) -> Vec<Finding> {
    let mut found = vec![];
    for ((kind, name), called) in &view.around.webhooks {
        for (service, port) in called {
            let of_port = view.behind(service).filter(|(it, _)| it.port == *port);
            let behind: Vec<(End, (Protocol, u16))> = of_port.flat_map(|(_, behind)| behind).collect();
            let addresses = view.facts.api_endpoints.iter().map(|(address, _)| End::Address(*address));
            let tcp = |port: &(Protocol, u16)| port.0 == Protocol::TCP;
            let mut ways = addresses.flat_map(|from| behind.iter().map(move |(to, port)| (from, *to, *port)));
            if ways.any(|(from, to, port)| tcp(&port) && view.loses(from, to, port)) {
                let message = format!(
                    "the API server could not call Service {} of {kind} {name} any more: allow ingress from \
                     `entity: Webhooks`",
                    service.1
                );
                found.push(finding("WebhookBlocked", &service.0, &service.1, message));
            }
        }
    }
    found
}
