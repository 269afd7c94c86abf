//! What is known of a cluster's network.

use std::{collections::BTreeSet, net::IpAddr, str::FromStr};

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use rampart_reach::Pod;
use serde::Deserialize;

use super::{NamespaceSet, PodSet};
use crate::api::selector;

/// What is known of a cluster's network.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts {
    /// Ranges of pods, services and nodes; empty while unknown. In-cluster addresses are never
    /// "external", so external peers can't be rendered without them.
    pub cluster_ranges: Vec<IpNet>,
    /// Addresses that pods ask for names besides the kube-dns pods: the cluster DNS Service, and
    /// node-local caches.
    pub dns_addresses: Vec<IpAddr>,
    /// Ports of its pods that the cluster DNS Service leads to, by number; empty while unknown.
    pub dns_ports: BTreeSet<u16>,
    /// Where the API server itself is, with its ports; empty while unknown.
    pub api_endpoints: BTreeSet<(IpAddr, u16)>,
    /// Its Service. Some network plug-ins match before the address is translated.
    pub api_service: BTreeSet<(IpAddr, u16)>,
    /// The pods of the Ingress controller.
    pub ingress_controller: Option<EntityPods>,
    /// The pods that read metrics.
    pub monitoring: Option<EntityPods>,
}

impl Facts {
    /// The same, if every address lay outside of the cluster.
    #[must_use]
    pub fn without_ranges(&self) -> Self {
        Self { cluster_ranges: nowhere(), ..self.clone() }
    }

    /// Whether it is as if every address lay outside of the cluster.
    pub(super) fn are_nowhere(&self) -> bool {
        self.cluster_ranges == nowhere()
    }

    /// The place of a pod with an address that is in no known range, and that address. Pods in the network of their node
    /// have its addresses.
    pub(super) fn stray(&self, pods: &[Pod]) -> Option<(usize, IpAddr)> {
        // Joined, they don't overlap: the last that begins before an address holds it, or none does.
        let mut ranges = IpNet::aggregate(&self.cluster_ranges);
        ranges.sort_by_key(IpNet::network);
        let is_known = |address: &IpAddr| {
            let before = ranges.partition_point(|range| range.network() <= *address);
            before.checked_sub(1).and_then(|at| ranges.get(at)).is_some_and(|range| range.contains(address))
        };
        let of_network = pods.iter().enumerate().filter(|(_, pod)| !pod.host_network);
        let mut addresses = of_network.flat_map(|(place, pod)| pod.ips.iter().map(move |it| (place, *it)));
        addresses.find(|(_, address)| !is_known(address))
    }
}

/// A range that holds nothing which anybody could mean (RFC 5737, TEST-NET-1).
fn nowhere() -> Vec<IpNet> {
    vec![IpNet::from(IpAddr::from([192, 0, 2, 0]))]
}

/// Pods that only the administrator can name, of any namespace.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EntityPods {
    /// By their labels.
    pub pods: PodSet,
    /// By the labels of their namespaces.
    pub namespaces: NamespaceSet,
}

/// As it is written in a flag: a peer of a NetworkPolicy, without `ipBlock`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    pod_selector: LabelSelector,
    namespace_selector: LabelSelector,
}

impl FromStr for EntityPods {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let example = r#"{"podSelector": {"matchLabels": {"app": "x"}}, "namespaceSelector": {}}"#;
        let written: Written = serde_json::from_str(text).map_err(|error| format!("{error}; write it as {example}"))?;
        let parse = |wire: &LabelSelector, field| selector::parse(wire, field).map_err(|error| error.to_string());
        let (pods, namespaces) =
            (parse(&written.pod_selector, "podSelector")?, parse(&written.namespace_selector, "namespaceSelector")?);
        Ok(Self {
            pods: PodSet { wire: written.pod_selector, parsed: pods },
            namespaces: NamespaceSet { wire: written.namespace_selector, parsed: namespaces },
        })
    }
}
