//! `SecurityPolicy`: what a namespace asks of its pods and of its network.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::{
    DataClass, Hardening, HardeningStatus, Network, NetworkStatus,
    data_class::{CLASS_MESSAGE, CLASS_RULE},
};

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
    printcolumn(name = "Pods", type_ = "integer", json_path = ".status.network.selectedPods", priority = 1),
    printcolumn(name = "Isolated", type_ = "string", json_path = ".status.network.isolated", priority = 1),
    printcolumn(name = "NewlyDenied", type_ = "integer", json_path = ".status.network.preview.newlyDenied"),
    printcolumn(name = "Hardening", type_ = "string", json_path = ".spec.hardening.mode"),
    printcolumn(name = "Violating", type_ = "integer", json_path = ".status.hardening.pods.violating"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[cfg_attr(test, kube(cel))]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(CLASS_RULE).message(CLASS_MESSAGE),
    // Of a misspelt field the API server keeps nothing.
    validation = Rule::new("has(self.hardening) || has(self.network)").message("set hardening or network, or both")
)]
pub struct SecurityPolicySpec {
    /// Stops reconciling: what is there stays as it is, and is no longer kept. Admission goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// The class of the data that the pods of this policy hold. Confidential and Restricted ask that network isolates
    /// them both ways, and is open to nobody in particular: the rest of the spec may be stricter than the class, never
    /// weaker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_class: Option<DataClass>,
    /// What pods of the namespace must look like. It always covers the whole namespace: a selector on
    /// labels would be a way out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hardening: Option<Hardening>,
    /// What pods of the namespace may talk to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
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
