//! What is known of a cluster's network.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;

/// What is known of a cluster's network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Ranges of pods, services and nodes; empty while unknown. In-cluster addresses are never
    /// "external", so external peers can't be rendered without them.
    pub cluster_ranges: Vec<IpNet>,
    /// Addresses that pods ask for names besides the kube-dns pods: the cluster DNS Service, and
    /// node-local caches.
    pub dns_addresses: Vec<IpAddr>,
    /// Where the API server itself is, with its ports; empty while unknown.
    pub api_endpoints: BTreeSet<(IpAddr, u16)>,
    /// Its Service. Some network plug-ins match before the address is translated.
    pub api_service: BTreeSet<(IpAddr, u16)>,
}
