//! `ClusterSecurityPolicy`: what the platform asks of the pods and ApiKeys of many namespaces.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    ClusterNetwork, ClusterNetworkStatus, DataClass, GoDuration, Hardening, HardeningStatus, KeyCaps,
    data_class::{CLASS_MESSAGE, CLASS_RULE},
};

/// A ClusterSecurityPolicy hardens the pods of the namespaces that it selects, isolates them at the least, and caps what
/// their ApiKeys may ask for. A SecurityPolicy of such a namespace may ask for more, never for less.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "rampart.dev",
    version = "v1alpha1",
    kind = "ClusterSecurityPolicy",
    plural = "clustersecuritypolicies",
    shortname = "rcsp",
    category = "rampart",
    doc = "A ClusterSecurityPolicy hardens the pods of the namespaces that it selects, isolates them at the least, and caps what their ApiKeys may ask for. A SecurityPolicy of such a namespace may ask for more, never for less.",
    status = "ClusterSecurityPolicyStatus",
    derive = "PartialEq",
    validation = Rule::new("self.metadata.name.size() <= 63").message("metadata.name must be at most 63 characters: it becomes a label"),
    printcolumn(name = "Namespaces", type_ = "integer", json_path = ".status.namespaces"),
    printcolumn(name = "Level", type_ = "string", json_path = ".spec.hardening.podSecurity.level"),
    printcolumn(name = "Hardening", type_ = "string", json_path = ".spec.hardening.mode"),
    printcolumn(name = "Violating", type_ = "integer", json_path = ".status.hardening.pods.violating"),
    printcolumn(name = "Network", type_ = "string", json_path = ".spec.network.mode"),
    printcolumn(name = "NewlyDenied", type_ = "integer", json_path = ".status.network.preview.newlyDenied", priority = 1),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[cfg_attr(test, kube(cel))]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(CLASS_RULE).message(CLASS_MESSAGE),
    validation = Rule::new("has(self.hardening) || has(self.network) || has(self.apiKeys)")
        .message("set hardening, network or apiKeys, or several of them"),
    validation = Rule::new(INCLUDED_RULE).message(INCLUDED_MESSAGE)
)]
pub struct ClusterSecurityPolicySpec {
    /// The namespaces, by their labels; `{}` selects all. System namespaces (kube-system, kube-public,
    /// kube-node-lease, rampart-system, rampart-keys) are left out unless includeSystemNamespaces names
    /// them.
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub namespace_selector: LabelSelector,
    /// System namespaces that are left in where they are selected. There the admission policy alone
    /// refuses: asking a webhook could keep a cluster from starting. Rampart's own can't be named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3))]
    pub include_system_namespaces: Vec<SystemNamespace>,
    /// Stops reconciling the network part: what is there stays as it is, and is no longer kept. Admission goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// The class of the data that the pods of these namespaces hold. Confidential and Restricted ask that network
    /// isolates them both ways, and is open to nobody in particular.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_class: Option<DataClass>,
    /// What pods of these namespaces must look like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hardening: Option<Hardening>,
    /// How pods of these namespaces are isolated at the least. Never in system namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<ClusterNetwork>,
    /// What ApiKeys of these namespaces may ask for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_keys: Option<KeyCaps>,
    /// Where PolicyExceptions may be made, from this policy and from the SecurityPolicies there. Absent:
    /// nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exceptions: Option<Exceptions>,
}

/// CEL of the rule that a policy refuses where it says so; [`crate::hardening::ClusterWide`] says the same.
const INCLUDED_RULE: &str = "!has(self.includeSystemNamespaces) || self.includeSystemNamespaces.size() == 0 || !has(self.hardening) || self.hardening.mode != 'Enforce' || self.hardening.admissionPolicy != 'None'";
const INCLUDED_MESSAGE: &str = "nothing would be refused in includeSystemNamespaces with hardening.admissionPolicy: None, for no webhook is asked about system namespaces: set Generate, or leave them out";

/// Where PolicyExceptions may be made.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Exceptions {
    /// The namespaces, by name.
    #[schemars(length(min = 1, max = 256), inner(length(min = 1, max = 63)))]
    pub namespaces: Vec<String>,
    /// The longest time from the creation of an exception to its end.
    #[x_kube(validation = Rule::new("duration(self) > duration('0s')").message("maxDuration must be longer than 0s"))]
    pub max_duration: GoDuration,
}

/// A namespace of the cluster itself.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SystemNamespace {
    /// kube-system.
    #[serde(rename = "kube-system")]
    KubeSystem,
    /// kube-public.
    #[serde(rename = "kube-public")]
    KubePublic,
    /// kube-node-lease.
    #[serde(rename = "kube-node-lease")]
    KubeNodeLease,
}

impl SystemNamespace {
    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::KubeSystem => "kube-system",
            Self::KubePublic => "kube-public",
            Self::KubeNodeLease => "kube-node-lease",
        }
    }
}

/// What is true of a ClusterSecurityPolicy.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ClusterSecurityPolicyStatus {
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
    /// Namespaces that the policy covers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<i64>,
    /// The hardening part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hardening: Option<HardeningStatus>,
    /// The network part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<ClusterNetworkStatus>,
}
