//! Name resolution.

use rampart_reach::End;

use super::{View, finding};
use crate::{
    api::Finding,
    network::servers::{DNS_PORT, name_servers},
};

pub(super) fn find(view: &View<'_>) -> Vec<Finding> {
    if view.allow_no_dns {
        return vec![];
    }
    let servers = name_servers(&view.population.index, view.facts);
    let lost = view
        .pods()
        .filter(|(place, _)| view.loses_all(servers.iter().map(|server| (End::Pod(*place), *server, DNS_PORT))))
        .count();
    if lost == 0 {
        return vec![];
    }
    let message = format!("{lost} pods could not resolve names any more: allow egress to `entity: DNS`");
    vec![finding("DnsBlocked", view.policy.0, view.policy.1, message)]
}
