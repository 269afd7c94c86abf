//! Admission webhooks that the API server could not call any more: with `failurePolicy: Fail`, nothing that they
//! admit can be made then, in any namespace.

use rampart_reach::{Direction, End, Protocol};

use super::{UNMATCHED, View, WEBHOOK_UNCERTAIN, finding};
use crate::{api::Finding, network::is_unmatched};

pub(super) fn find(view: &View<'_>) -> Vec<Finding> {
    let is_unmatched = is_unmatched(view.facts, view.population);
    let mut found = vec![];
    for ((kind, name), called) in &view.around.webhooks {
        for (service, port) in called {
            let of_port = view.behind(service).filter(|(it, _)| it.port == *port);
            let behind: Vec<(End, (Protocol, u16))> = of_port.flat_map(|(_, behind)| behind).collect();
            let addresses = view.facts.api_endpoints.iter().map(|(address, _)| End::Address(*address));
            let ways = addresses.flat_map(|from| behind.iter().map(move |(to, port)| (from, *to, *port)));
            let ways: Vec<(End, End, (Protocol, u16))> = ways.filter(|(.., port)| port.0 == Protocol::TCP).collect();
            if ways.iter().any(|(from, to, port)| view.loses(*from, *to, *port)) {
                let message = format!(
                    "the API server could not call Service {} of {kind} {name} any more: allow ingress from \
                     `entity: Webhooks`",
                    service.1
                );
                found.push(finding("WebhookBlocked", &service.0, &service.1, message));
            } else if is_unmatched && ways.iter().any(|way| view.comes_to_depend(*way, Direction::Ingress)) {
                let message = format!(
                    "the API server would call Service {} of {kind} {name} only from the {UNMATCHED}",
                    service.1
                );
                found.push(finding(WEBHOOK_UNCERTAIN, &service.0, &service.1, message));
            }
        }
    }
    found
}
