//! What is true of a network intent.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// Most names of NetworkPolicies that status holds of an intent.
pub const MOST_RENDERED: usize = 64;
/// Most names of what widens an intent, and of what can't be said, that status holds.
pub const MOST_NAMED: usize = 20;
/// Most findings that status holds of an intent.
pub const MOST_FINDINGS: usize = 50;

/// What is true of a network intent.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct NetworkStatus {
    /// Pods that the intent is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selected_pods: Option<i64>,
    /// How many of them NetworkPolicies isolate now, whoever wrote those.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolated: Option<Isolated>,
    /// What the NetworkPolicies of this intent would change, or, while Enforce is refused, would break.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preview: Option<NetworkPreview>,
    /// NetworkPolicies that are rendered and kept, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MOST_RENDERED))]
    pub rendered: Vec<String>,
    /// NetworkPolicies of others that allow pods of this intent more than it does, at most 20 by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MOST_NAMED))]
    pub widened_by: Vec<String>,
    /// How many more of them there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub more_widened_by: Option<u32>,
    /// What no NetworkPolicy can say, at most 20: pods in the network of their node, which policies do not see.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MOST_NAMED))]
    pub not_expressible: Vec<String>,
    /// How many more of them there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub more_not_expressible: Option<u32>,
    /// What the author should know, at most 50; `acknowledge` lists ids of those that Enforce would break.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MOST_FINDINGS))]
    pub findings: Vec<Finding>,
    /// How many more of them there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub more_findings: Option<u32>,
}

/// What is true of the least isolation of many namespaces.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ClusterNetworkStatus {
    /// Namespaces that the policy selects.
    pub namespaces: i64,
    /// Those of them whose NetworkPolicy is as rendered.
    pub programmed: i64,
    /// Pods that the policy is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selected_pods: Option<i64>,
    /// How many of them NetworkPolicies isolate now, whoever wrote those.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolated: Option<Isolated>,
    /// What the NetworkPolicies of this policy would change, or, where Enforce is refused, would break.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preview: Option<NetworkPreview>,
    /// NetworkPolicies of others that open a direction to everybody, at most 20 as `<namespace>/<name>`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MOST_NAMED))]
    pub widened_by: Vec<String>,
    /// How many more of them there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub more_widened_by: Option<u32>,
    /// What no NetworkPolicy can say, at most 20: pods in the network of their node, which policies do not see.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MOST_NAMED))]
    pub not_expressible: Vec<String>,
    /// How many more of them there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub more_not_expressible: Option<u32>,
    /// What the author should know, at most 50; `acknowledge` lists ids of those that Enforce would break.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MOST_FINDINGS))]
    pub findings: Vec<Finding>,
    /// How many more of them there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub more_findings: Option<u32>,
}

impl From<ClusterNetworkStatus> for NetworkStatus {
    /// What is true of many namespaces, as if they were one.
    fn from(all: ClusterNetworkStatus) -> Self {
        Self {
            selected_pods: all.selected_pods,
            isolated: all.isolated,
            preview: all.preview,
            rendered: vec![],
            widened_by: all.widened_by,
            more_widened_by: all.more_widened_by,
            not_expressible: all.not_expressible,
            more_not_expressible: all.more_not_expressible,
            findings: all.findings,
            more_findings: all.more_findings,
        }
    }
}

/// How many pods are isolated.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Isolated {
    /// Those that only listed peers may reach.
    pub ingress: i64,
    /// Those that may reach only listed peers.
    pub egress: i64,
}

/// What would change between the NetworkPolicies that are there and those of an intent.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct NetworkPreview {
    /// Pairs that could talk on some port, and could not any more: two pods, or a pod and a range of addresses
    /// outside.
    pub newly_denied: i64,
    /// Pairs that can't talk on some port, and could.
    pub newly_allowed: i64,
    /// Pairs with an end that is isolated anew or otherwise, that talk on the same ports as before.
    #[serde(default)]
    pub unchanged: i64,
    /// Some of those that change, at most 20: first of those that would be denied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub samples: Vec<NetworkFlow>,
}

/// A connection that would be decided otherwise.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct NetworkFlow {
    /// From: `<namespace>/<pod>`, or a range of addresses.
    pub src: String,
    /// To: `<namespace>/<pod>`, or a range of addresses.
    pub dst: String,
    /// Ports of the destination: `443/TCP`, `8000-8999/TCP`, or `any`.
    pub port: String,
    /// Whether it would be allowed.
    pub allowed: bool,
    /// What would decide.
    pub why: String,
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
