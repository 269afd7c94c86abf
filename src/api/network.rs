//! Network intent: what pods of a namespace may talk to, and what is true of it.

use k8s_openapi::apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

const DNS_RULE: &str = "self.mode == 'Disabled' || !('Egress' in self.isolate) || (has(self.allowNoDns) && self.allowNoDns) || (has(self.egress) && self.egress.exists(rule, rule.peers.exists(peer, has(peer.entity) && peer.entity == 'DNS')))";
const DNS_MESSAGE: &str = "isolating Egress without a rule for `entity: DNS` cuts the pods off from name resolution: add one, or set allowNoDns: true";
const INGRESS_RULE: &str = "!has(self.ingress) || self.ingress.size() == 0 || 'Ingress' in self.isolate";
const INGRESS_MESSAGE: &str = "ingress rules need Ingress in isolate: without it everything is allowed anyway";
const EGRESS_RULE: &str = "!has(self.egress) || self.egress.size() == 0 || 'Egress' in self.isolate";
const EGRESS_MESSAGE: &str = "egress rules need Egress in isolate: without it everything is allowed anyway";

/// Network intent: which pods, which directions become deny by default, and what is then allowed.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(DNS_RULE).message(DNS_MESSAGE),
    validation = Rule::new(INGRESS_RULE).message(INGRESS_MESSAGE),
    validation = Rule::new(EGRESS_RULE).message(EGRESS_MESSAGE)
)]
pub struct Network {
    /// Preview says in status what would change, and changes nothing: what Enforce rendered before stays
    /// as it is. Enforce renders and keeps NetworkPolicies, unless that would break something which
    /// acknowledge does not list. Disabled removes what was rendered.
    #[serde(default)]
    pub mode: NetworkMode,
    /// The pods that this intent is about; `{}` selects every pod of the namespace.
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub pod_selector: LabelSelector,
    /// Directions that become deny by default for these pods.
    #[schemars(length(min = 1, max = 2))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub isolate: Vec<Direction>,
    /// Who may reach these pods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 25))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub ingress: Vec<NetworkRule>,
    /// Whom these pods may reach.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 25))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub egress: Vec<NetworkRule>,
    /// Both ends of a connection must allow it. Report lists, in status, the peers in this namespace
    /// whose own side this policy does not open; Generate opens it for them, where another policy
    /// already isolates them. A half that would newly isolate its pods is never generated.
    #[serde(default)]
    pub reciprocal: Reciprocal,
    /// Says that isolating Egress without name resolution is meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_no_dns: Option<bool>,
    /// Ids of findings in status that tell of something which Enforce would break, and that are meant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 500), inner(length(min = 1, max = 400)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub acknowledge: Vec<String>,
    /// Policies of other namespaces that may open the side of this namespace's pods for their connections, where
    /// they say `reciprocal: Generate`. What they open is rendered here, by this policy, while it enforces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub accept_from: Vec<Accepted>,
}

/// A SecurityPolicy of another namespace.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Accepted {
    /// Its namespace.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub namespace: String,
    /// Its name.
    #[schemars(length(min = 1, max = 63))]
    pub policy: String,
}

/// The least isolation of many namespaces: in each of them, which pods, which directions become deny by default, and
/// what is then allowed. SecurityPolicies there add what they allow, but for `any: true`, which is not rendered in a
/// direction that is isolated here.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(DNS_RULE).message(DNS_MESSAGE),
    validation = Rule::new(INGRESS_RULE).message(INGRESS_MESSAGE),
    validation = Rule::new(EGRESS_RULE).message(EGRESS_MESSAGE)
)]
pub struct ClusterNetwork {
    /// Preview says in status what would change, and changes nothing: what Enforce rendered before stays
    /// as it is. Enforce renders and keeps a NetworkPolicy in each namespace, unless that would break something
    /// there which acknowledge does not list. Disabled removes what was rendered.
    #[serde(default)]
    pub mode: NetworkMode,
    /// The pods of each namespace that this is about; `{}` selects all.
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub pod_selector: LabelSelector,
    /// Directions that become deny by default for these pods.
    #[schemars(length(min = 1, max = 2))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub isolate: Vec<Direction>,
    /// Who may reach these pods. What is said of the policy's own namespace is meant of each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 25))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub ingress: Vec<NetworkRule>,
    /// Whom these pods may reach. What is said of the policy's own namespace is meant of each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 25))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub egress: Vec<NetworkRule>,
    /// Says that isolating Egress without name resolution is meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_no_dns: Option<bool>,
    /// Ids of findings in status that tell of something which Enforce would break, and that are meant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 500), inner(length(min = 1, max = 400)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub acknowledge: Vec<String>,
}

/// Whether NetworkPolicies are rendered.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NetworkMode {
    /// None are, and what was rendered is removed.
    Disabled,
    /// Status says what would change; nothing is written or removed.
    #[default]
    Preview,
    /// They are rendered and kept.
    Enforce,
}

/// A direction of traffic, seen from the selected pods.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// Towards the pods.
    Ingress,
    /// From the pods.
    Egress,
}

/// What to do about the other end of a connection.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reciprocal {
    /// Say in status what is not opened.
    #[default]
    Report,
    /// Open it.
    Generate,
}

/// One thing that is allowed: these peers, on these ports.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.ports) != (has(self.anyPort) && self.anyPort) || (!has(self.ports) && self.peers.all(peer, has(peer.service) || (has(peer.entity) && peer.entity in ['DNS', 'APIServer'])))")
        .message("a rule needs either ports or anyPort: true (only Services and the entities DNS and APIServer bring their own ports)")
)]
pub struct NetworkRule {
    /// Name of the rule, unique in its direction; status and messages use it.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// The other ends.
    #[schemars(length(min = 1, max = 16))]
    pub peers: Vec<Peer>,
    /// Ports of the destination.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16))]
    pub ports: Option<Vec<Port>>,
    /// Allows every port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub any_port: Option<bool>,
}

/// The other end of a connection; exactly one field is set.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("[has(self.pods), has(self.service), has(self.external), has(self.entity), has(self.any)].filter(set, set).size() == 1")
        .message("a peer is exactly one of pods, service, external, entity and any"),
    validation = Rule::new("!has(self.any) || self.any").message("any is true or absent")
)]
pub struct Peer {
    /// Pods of this or other namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<Pods>,
    /// The pods behind a Service, as it selects them now. As a peer of egress it brings its own ports, unless the
    /// rule lists some of them; they are those of the Service, and rendered as those of its pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServicePeer>,
    /// Addresses outside the cluster. The cluster's own ranges and the metadata address of clouds are
    /// always excepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<External>,
    /// Something that every cluster has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entity: Option<Entity>,
    /// Everybody: every pod, every node and every address. Status lists it as a finding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub any: Option<bool>,
}

/// Pods, by their labels.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!(has(self.namespaces) && has(self.namespaceSelector))")
        .message("name the namespaces or select them, not both")
)]
pub struct Pods {
    /// Which pods; `{}` selects all.
    pub selector: LabelSelector,
    /// Namespaces by name; without it and without namespaceSelector, the policy's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 16),
        inner(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))
    )]
    pub namespaces: Option<Vec<String>>,
    /// Namespaces by label; `{}` selects all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
}

/// A Service.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ServicePeer {
    /// Its name.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Its namespace; without it, the policy's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub namespace: Option<String>,
}

/// Address ranges outside the cluster.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct External {
    /// The ranges, such as `0.0.0.0/0`.
    #[schemars(length(min = 1, max = 16), inner(length(max = 43)))]
    #[x_kube(validation = Rule::new("self.all(cidr, isCIDR(cidr))").message("cidrs must be address ranges such as 10.0.0.0/8"))]
    pub cidrs: Vec<String>,
    /// Ranges inside them that are left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(max = 43)))]
    #[x_kube(validation = Rule::new("self.all(cidr, isCIDR(cidr))").message("except must be address ranges such as 10.0.0.0/8"))]
    pub except: Vec<String>,
}

/// Something that every cluster has.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entity {
    /// The cluster's name servers, on port 53 over UDP and TCP. A peer of egress.
    DNS,
    /// The API server, at its own addresses and at its Service, on its own ports. A peer of egress.
    APIServer,
    /// The API server where it calls an admission webhook, a converter or an aggregated API. A peer of ingress.
    Webhooks,
    /// The pods of the Ingress controller, as the administrator named them. A peer of ingress.
    IngressController,
    /// The pods that read metrics, as the administrator named them. A peer of ingress.
    Monitoring,
    /// Every pod of the policy's own namespace.
    SameNamespace,
}

/// A port, a range of them, or what the pods of the destination call one.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("type(self.port) == string || (self.port >= 1 && self.port <= 65535)")
        .message("port is a number from 1 to 65535, or the name of a port"),
    validation = Rule::new("!has(self.endPort) || (type(self.port) == int && self.endPort >= self.port)")
        .message("endPort needs a port that is a number, and must not be below it")
)]
pub struct Port {
    /// Protocol.
    #[serde(default)]
    pub protocol: Protocol,
    /// The port, or the first of a range; or its name, which is read of the pods of the destination (of a Service peer:
    /// of its ports) and rendered as the number that it stands for.
    pub port: IntOrString,
    /// The last port of a range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub end_port: Option<i32>,
}

/// A transport protocol.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    #[default]
    TCP,
    /// UDP.
    UDP,
    /// SCTP.
    SCTP,
}
