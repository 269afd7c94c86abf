//! What the administrator says of a cluster's network; servers complete it by what can be read.

use std::net::{IpAddr, SocketAddr};

use clap::Args;
use ipnet::IpNet;

use crate::network::{EntityPods, Facts};

#[derive(Debug, Clone, Args)]
#[expect(clippy::struct_field_names, reason = "the names of flags")]
pub(super) struct ClusterFacts {
    /// Address ranges of pods, services and nodes, for rules about addresses outside the cluster.
    #[arg(long, env = "RAMPART_NETWORK_CLUSTER_CIDRS", value_delimiter = ',')]
    network_cluster_cidrs: Vec<IpNet>,
    /// Addresses of DNS servers besides the pods of kube-dns, such as node-local caches.
    #[arg(long, env = "RAMPART_NETWORK_DNS_ADDRESSES", value_delimiter = ',', default_value = "169.254.20.10")]
    network_dns_addresses: Vec<IpAddr>,
    /// Addresses of the API server, with ports, besides what its EndpointSlices say: `192.0.2.1:6443`.
    #[arg(long, env = "RAMPART_NETWORK_API_SERVER", value_delimiter = ',')]
    network_api_server: Vec<SocketAddr>,
    /// The pods of the Ingress controller, for `entity: IngressController`, as JSON:
    /// `{"podSelector": {...}, "namespaceSelector": {...}}`.
    #[arg(long, env = "RAMPART_NETWORK_INGRESS_CONTROLLER")]
    network_ingress_controller: Option<EntityPods>,
    /// The pods that read metrics, for `entity: Monitoring`, as JSON, likewise.
    #[arg(long, env = "RAMPART_NETWORK_MONITORING")]
    network_monitoring: Option<EntityPods>,
}

impl ClusterFacts {
    pub(super) fn known(&self) -> Facts {
        Facts {
            cluster_ranges: self.network_cluster_cidrs.clone(),
            dns_addresses: self.network_dns_addresses.clone(),
            api_endpoints: self.network_api_server.iter().map(|it| (it.ip(), it.port())).collect(),
            ingress_controller: self.network_ingress_controller.clone(),
            monitoring: self.network_monitoring.clone(),
            ..Facts::default()
        }
    }
}
