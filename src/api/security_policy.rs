//! `SecurityPolicy`: what a namespace asks of its pods and of its network.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Hardening, HardeningStatus};

/// A SecurityPolicy hardens the pods of its namespace at admission and keeps the NetworkPolicies that
/// its network intent asks for. Other API groups have a kind of this name too: `kubectl get rsp`.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "rampart.dev",
    version = "v1alpha1",
    kind = "SecurityPolicy",
    namespaced,
    plural = "securitypolicies",
    shortname = "rsp",
    category = "rampart",
    doc = "A SecurityPolicy hardens the pods of its namespace at admission and keeps the NetworkPolicies that its network intent asks for. Other API groups have a kind of this name too: `kubectl get rsp`.",
    status = "SecurityPolicyStatus",
    derive = "PartialEq",
    derive = "Default",
    validation = Rule::new("self.metadata.name.size() <= 63").message("metadata.name must be at most 63 characters: it becomes a label"),
    printcolumn(name = "Network", type_ = "string", json_path = ".spec.network.mode"),
    printcolumn(name = "Hardening", type_ = "string", json_path = ".spec.hardening.mode"),
    printcolumn(name = "Violating", type_ = "integer", json_path = ".status.hardening.pods.violating"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[cfg_attr(test, kube(cel))]
#[serde(rename_all = "camelCase")]
pub struct SecurityPolicySpec {
    /// Stops reconciling: what is there stays as it is, and is no longer kept. Admission goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// What pods of the namespace must look like. It always covers the whole namespace: a selector on
    /// labels would be a way out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hardening: Option<Hardening>,
    /// What pods of the namespace may talk to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
}

/// Network intent: which pods, which directions become deny by default, and what is then allowed.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.mode == 'Disabled' || !('Egress' in self.isolate) || (has(self.allowNoDns) && self.allowNoDns) || (has(self.egress) && self.egress.exists(rule, rule.peers.exists(peer, has(peer.entity) && peer.entity == 'DNS')))")
        .message("isolating Egress without a rule for `entity: DNS` cuts the pods off from name resolution: add one, or set allowNoDns: true"),
    validation = Rule::new("!has(self.ingress) || self.ingress.size() == 0 || 'Ingress' in self.isolate")
        .message("ingress rules need Ingress in isolate: without it everything is allowed anyway"),
    validation = Rule::new("!has(self.egress) || self.egress.size() == 0 || 'Egress' in self.isolate")
        .message("egress rules need Egress in isolate: without it everything is allowed anyway")
)]
pub struct Network {
    /// Disabled renders nothing and removes what was rendered; Enforce renders and keeps
    /// NetworkPolicies.
    pub mode: NetworkMode,
    /// The pods that this intent is about; `{}` selects every pod of the namespace.
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
}

/// Whether NetworkPolicies are rendered.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkMode {
    /// None are, and what was rendered is removed.
    Disabled,
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
    validation = Rule::new("has(self.ports) != (has(self.anyPort) && self.anyPort) || (!has(self.ports) && self.peers.all(peer, has(peer.entity) && peer.entity == 'DNS'))")
        .message("a rule needs either ports or anyPort: true (only `entity: DNS` brings its own ports)")
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
    validation = Rule::new("[has(self.pods), has(self.external), has(self.entity)].filter(set, set).size() == 1")
        .message("a peer is exactly one of pods, external and entity")
)]
pub struct Peer {
    /// Pods of this or other namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<Pods>,
    /// Addresses outside the cluster. The cluster's own ranges and the metadata address of clouds are
    /// always excepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<External>,
    /// Something that every cluster has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entity: Option<Entity>,
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
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 63)))]
    pub namespaces: Option<Vec<String>>,
    /// Namespaces by label; `{}` selects all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
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
    /// The cluster's name servers, on port 53 over UDP and TCP.
    DNS,
    /// Every pod of the policy's own namespace.
    SameNamespace,
}

/// A port, or a range of them.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.endPort) || self.endPort >= self.port").message("endPort must not be below port"))]
pub struct Port {
    /// Protocol.
    #[serde(default)]
    pub protocol: Protocol,
    /// The port, or the first of a range.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
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

/// What is true of a SecurityPolicy.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SecurityPolicyStatus {
    /// Generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Last seen value of the annotation `rampart.dev/reconcile-requested-at`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_reconcile_at: Option<String>,
    /// Accepted, Programmed and Ready; Reconciling and Stalled while true.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    #[schemars(length(max = 16))]
    pub conditions: Vec<Condition>,
    /// The network part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkStatus>,
    /// The hardening part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hardening: Option<HardeningStatus>,
}

/// What is true of a network intent.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct NetworkStatus {
    /// NetworkPolicies that are rendered and kept, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub rendered: Vec<String>,
    /// What the author should know, at most 50.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    pub findings: Vec<Finding>,
}

/// Something the author of a network intent should know.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// Stable id: `<Reason>/<namespace>/<name>`.
    pub id: String,
    /// For people.
    pub message: String,
}
