//! Pods that call the API server.

use std::collections::BTreeMap;

use rampart_reach::End;

use super::{View, finding};
use crate::{api::Finding, network::servers::api_servers};

pub(super) fn find(view: &View<'_>) -> Vec<Finding> {
    let servers = api_servers(view.facts);
    let mut lost: BTreeMap<&str, usize> = BTreeMap::new();
    for (place, _) in view.pods() {
        let Some(account) = view.population.needs.get(place).and_then(|needs| needs.account.as_deref()) else {
            continue;
        };
        let ways = servers.iter().map(|(server, port)| (End::Pod(place), *server, *port));
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
