//! What there is: namespaces, pods and addresses outside.

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Deserializer};

use crate::Protocol;

/// A namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Namespace {
    /// Its name.
    pub name: String,
    /// Its labels. `kubernetes.io/metadata.name` is there whether it is given or not, as the API server sets it.
    #[serde(default, deserialize_with = "or_default")]
    pub labels: BTreeMap<String, String>,
}

/// A pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its labels.
    #[serde(default, deserialize_with = "or_default")]
    pub labels: BTreeMap<String, String>,
    /// Its addresses.
    #[serde(default, deserialize_with = "or_default")]
    pub ips: Vec<IpAddr>,
    /// Ports that its containers declare.
    #[serde(default, deserialize_with = "or_default")]
    pub ports: Vec<ContainerPort>,
    /// Whether it is in its node's network, where no policy selects it.
    #[serde(default, deserialize_with = "or_default")]
    pub host_network: bool,
}

/// A port that a container declares.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
pub struct ContainerPort {
    /// Its name, if it has one.
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    /// Its number.
    pub port: u16,
    /// Its protocol.
    #[serde(default, deserialize_with = "or_default")]
    pub protocol: Protocol,
}

/// What is `null` is absent.
fn or_default<'de, T: Default + Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// One end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// A pod, by its place in the list.
    Pod(usize),
    /// An address outside of the cluster.
    Address(IpAddr),
}

/// What an `ipBlock` is taken to be about. The Kubernetes documentation leaves it open for pods, and network
/// plug-ins differ.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum IpBlocks {
    /// Addresses outside of the cluster, and of nodes, alone.
    #[default]
    External,
    /// Pods by their addresses, too.
    Pods,
}
