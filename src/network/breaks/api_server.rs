//! Pods that call the API server.

use std::collections::BTreeMap;

use rampart_reach::{End, Protocol};

use super::{View, finding};
use crate::api::Finding;

pub(super) fn find(view: &View<'_>) -> Vec<Finding> {
    let servers: Vec<(End, u16)> = view
        .facts
        .api_endpoints
        .iter()
        .chain(&view.facts.api_service)
        .map(|(address, port)| (End::Address(*address), *port))
        .collect();
    let mut lost: BTreeMap<&str, usize> = BTreeMap::new();
    for (place, _) in view.pods() {
        let Some(account) = view.population.needs.get(place).and_then(|needs| needs.account.as_deref()) else {
            continue;
        };
        let ways = servers.iter().map(|(server, port)| (End::Pod(place), *server, (Protocol::TCP, *port)));
        if view.loses_all(ways) {
            let count = lost.entry(account).or_default();
            *count = count.saturating_add(1);
        }
    }
    let told = lost.into_iter().map(|(account, pods)| {
        let message = format!(
            "{pods} pods with the service account {account} could not reach the API server any more: allow egress to \
             `entity: APIServer`"
        );
        finding("ApiServerBlocked", view.policy.0, account, message)
    });
    told.collect()
}
