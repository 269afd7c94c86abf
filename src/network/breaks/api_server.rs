//! Pods that call the API server.

use std::collections::BTreeMap;

use rampart_reach::{Direction, End};

use super::{API_SERVER_UNCERTAIN, UNMATCHED, View, finding};
use crate::{
    api::Finding,
    network::servers::{api_servers, is_unmatched},
};

pub(super) fn find(view: &View<'_>) -> Vec<Finding> {
    let servers = api_servers(view.facts);
    let is_unmatched = is_unmatched(view.facts, view.population);
    let (mut lost, mut uncertain) = (BTreeMap::<&str, usize>::new(), BTreeMap::<&str, usize>::new());
    for (place, _) in view.pods() {
        let Some(account) = view.population.needs.get(place).and_then(|needs| needs.account.as_deref()) else {
            continue;
        };
        let ways = || servers.iter().map(move |(server, port)| (End::Pod(place), *server, *port));
        let counts = if view.loses_all(ways()) {
            &mut lost
        } else if is_unmatched && ways().any(|way| view.comes_to_depend(way, Direction::Egress)) {
            &mut uncertain
        } else {
            continue;
        };
        let count = counts.entry(account).or_default();
        *count = count.saturating_add(1);
    }
    let told = lost.into_iter().map(|(account, pods)| {
        let message = format!(
            "{pods} pods with the service account {account} could not reach the API server any more: allow egress to \
             `entity: APIServer`"
        );
        finding("ApiServerBlocked", view.policy.0, account, message)
    });
    let depend = uncertain.into_iter().map(|(account, pods)| {
        let message = format!(
            "{pods} pods with the service account {account} would reach the API server only by the {UNMATCHED}"
        );
        finding(API_SERVER_UNCERTAIN, view.policy.0, account, message)
    });
    told.chain(depend).collect()
}
