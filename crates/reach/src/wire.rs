//! What is read: NetworkPolicies as the API server stores them (`networking.k8s.io/v1`). What is `null` is absent.

use std::collections::BTreeMap;

use serde::Deserialize;

/// A NetworkPolicy.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct NetworkPolicy {
    #[serde(default)]
    pub(crate) metadata: Metadata,
    #[serde(default)]
    pub(crate) spec: Option<Spec>,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Metadata {
    pub(crate) name: Option<String>,
    pub(crate) namespace: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Spec {
    pub(crate) pod_selector: Option<LabelSelector>,
    pub(crate) policy_types: Option<Vec<String>>,
    pub(crate) ingress: Option<Vec<IngressRule>>,
    pub(crate) egress: Option<Vec<EgressRule>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct IngressRule {
    pub(crate) from: Option<Vec<Peer>>,
    pub(crate) ports: Option<Vec<Port>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct EgressRule {
    pub(crate) to: Option<Vec<Peer>>,
    pub(crate) ports: Option<Vec<Port>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Peer {
    pub(crate) pod_selector: Option<LabelSelector>,
    pub(crate) namespace_selector: Option<LabelSelector>,
    pub(crate) ip_block: Option<IpBlock>,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct IpBlock {
    pub(crate) cidr: String,
    pub(crate) except: Option<Vec<String>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_field_names, reason = "the fields of the API")]
pub(crate) struct Port {
    pub(crate) protocol: Option<String>,
    pub(crate) port: Option<NumberOrName>,
    pub(crate) end_port: Option<i32>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum NumberOrName {
    Number(i32),
    Name(String),
}

/// A label selector as it is written (`k8s.io/apimachinery`, `LabelSelector`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LabelSelector {
    /// Labels by value.
    pub match_labels: Option<BTreeMap<String, String>>,
    /// More that must hold.
    pub match_expressions: Option<Vec<Expression>>,
}

/// A requirement as it is written (`k8s.io/apimachinery`, `LabelSelectorRequirement`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Expression {
    /// The label.
    pub key: String,
    /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
    pub operator: String,
    /// Values for the first two.
    pub values: Option<Vec<String>>,
}
