//! `PolicyException`: what a policy refuses, admitted for a while.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A PolicyException lets named rules of named policies pass for containers of its namespace that run
/// certain images, until a time. A pod is admitted only if everything that is wrong with it is covered.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "rampart.dev",
    version = "v1alpha1",
    kind = "PolicyException",
    namespaced,
    plural = "policyexceptions",
    shortname = "rpx",
    category = "rampart",
    doc = "A PolicyException lets named rules of named policies pass for containers of its namespace that run certain images, until a time. A pod is admitted only if everything that is wrong with it is covered.",
    status = "PolicyExceptionStatus",
    derive = "PartialEq",
    printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
    printcolumn(name = "Pods", type_ = "integer", json_path = ".status.podsRelying"),
    printcolumn(name = "Expires", type_ = "string", json_path = ".spec.expiresAt"),
    printcolumn(name = "Why", type_ = "string", json_path = ".spec.reason", priority = 1),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[cfg_attr(test, kube(cel))]
#[serde(rename_all = "camelCase")]
pub struct PolicyExceptionSpec {
    /// The policies that it is about. A ClusterSecurityPolicy must permit exceptions in this namespace: by
    /// itself, or for the SecurityPolicies there.
    #[schemars(length(min = 1, max = 16))]
    pub policies: Vec<PolicyReference>,
    /// The rules that may be violated: `pss/<check>` or `hardening/<rule>`, the ids that `rampart
    /// check` names.
    #[schemars(length(min = 1, max = 32), inner(length(min = 1, max = 64)))]
    pub rules: Vec<String>,
    /// Patterns of images, as in spec.hardening.rules.images of a SecurityPolicy. Only containers whose image
    /// matches one are covered; what a pod as a whole sets is, where all its containers are.
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 512)))]
    pub images: Vec<String>,
    /// Narrows it to pods with these labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub pod_selector: Option<LabelSelector>,
    /// Narrows it to containers of these names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 63)))]
    pub containers: Vec<String>,
    /// Narrows rules to values: by id, the capabilities, sysctls, ports or directories of the node, or types of
    /// volumes that may be used (pss/capabilities_baseline, pss/capabilities_restricted, pss/sysctls,
    /// pss/hostPorts, pss/hostPathVolumes, pss/restrictedVolumes, hardening/capabilities.allowAdd,
    /// hardening/hostPorts, hardening/volumes.allow, hardening/volumes.hostPaths). A directory covers what is
    /// in it; of volumes that are a hostPath, write directories instead of the type.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub values: BTreeMap<String, ExceptedValues>,
    /// Why it is needed.
    #[schemars(length(min = 1, max = 1024))]
    pub reason: String,
    /// When it ends. At most so long after its creation as the ClusterSecurityPolicy allows.
    pub expires_at: Time,
}

/// Values of a rule.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(transparent)]
pub struct ExceptedValues(#[schemars(length(min = 1, max = 32), inner(length(min = 1, max = 256)))] pub Vec<String>);

/// A policy.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
pub struct PolicyReference {
    /// Its kind.
    pub kind: PolicyKind,
    /// Its name.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
}

/// Kinds of policies.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PolicyKind {
    /// A SecurityPolicy of the same namespace.
    SecurityPolicy,
    /// A ClusterSecurityPolicy.
    ClusterSecurityPolicy,
}

/// What is true of a PolicyException.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PolicyExceptionStatus {
    /// Generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Last seen value of the annotation `rampart.dev/reconcile-requested-at`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_reconcile_at: Option<String>,
    /// Whether it is in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<ExceptionState>,
    /// Pods that have not finished and violate what it covers; counted anew at most every 10 seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods_relying: Option<u32>,
    /// Accepted, Programmed and Ready; Reconciling and Stalled while true.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    #[schemars(length(max = 16))]
    pub conditions: Vec<Condition>,
}

/// Whether an exception is in force.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExceptionState {
    /// It is.
    Active,
    /// It has ended.
    Expired,
    /// No ClusterSecurityPolicy permits it, or not for so long; or it can't be read.
    NotPermitted,
}
