//! What policies of both kinds say about pods, and what is true of it.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Rules;

/// Container hardening.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Hardening {
    /// What happens to a pod that violates: Audit records it in the API server's audit log, Warn also
    /// tells who creates it, Enforce refuses it. Where several policies cover a namespace, the
    /// strictest wins.
    #[serde(default)]
    pub mode: HardeningMode,
    /// The Pod Security Standard that pods must meet.
    pub pod_security: PodSecurity,
    /// Rules beyond the standard; what is absent is not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<Rules>,
    /// Generate keeps a ValidatingAdmissionPolicy for what is enforced, so that the API server refuses by
    /// itself, whether Rampart runs or not; None leaves refusing to the webhook, without which no pod of
    /// the namespace can be made.
    #[serde(default)]
    pub admission_policy: AdmissionPolicy,
    /// Apply sets, in pods that are being created, what the policy asks and the pod leaves unset, where
    /// the pod then meets the policy; nothing that is set is changed, and Windows pods are left alone.
    /// Preview only tells whoever creates the pod. It is the webhook that sets it: while it is away, pods
    /// are as they were asked for, and a policy that is enforced refuses them.
    #[serde(default)]
    pub fix: Fix,
}

/// Whether pods are completed by what a policy asks.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fix {
    /// They are not.
    #[default]
    Disabled,
    /// What would be set is told.
    Preview,
    /// They are.
    Apply,
}

/// Whether what is enforced becomes a ValidatingAdmissionPolicy.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AdmissionPolicy {
    /// It does.
    #[default]
    Generate,
    /// It does not.
    None,
}

/// What happens to a pod that violates, from nothing to refusal.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum HardeningMode {
    /// Nothing.
    Disabled,
    /// An audit annotation.
    #[default]
    Audit,
    /// A warning to the client, and an audit annotation.
    Warn,
    /// Refusal.
    Enforce,
}

/// A level of the Pod Security Standards, at a version of them.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PodSecurity {
    /// The level.
    pub level: Level,
    /// Version of the standard: `latest` (the newest that this release of Rampart knows), or `v1.N`.
    #[serde(default = "latest")]
    #[schemars(length(max = 16), regex(pattern = r"^(latest|v1\.(0|[1-9][0-9]*))$"))]
    pub version: String,
}

fn latest() -> String {
    "latest".into()
}

/// A level of the Pod Security Standards, in their own spelling.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// No restriction.
    Privileged,
    /// Known privilege escalations are refused.
    Baseline,
    /// Hardening best practice is required.
    Restricted,
}

/// What is true of container hardening.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct HardeningStatus {
    /// What refuses pods that violate: the webhook, which is skipped while it is away, and the API
    /// server's own admission policies, which are not. Empty while nothing is enforced.
    #[serde(default)]
    #[schemars(length(max = 2))]
    pub enforced_by: Vec<Enforcer>,
    /// The pods that are there, whenever they were made; counted anew at most every 10 seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<PodCounts>,
    /// Workloads with pods that violate, by namespace, kind and name; at most 20.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub samples: Vec<Sample>,
    /// How many more workloads there are than samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub more_samples: Option<u32>,
}

/// How pods fare that have not finished.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PodCounts {
    /// Pods that the policy covers.
    pub selected: u32,
    /// Those that are as the policy asks.
    pub compliant: u32,
    /// Those that are not, and that no PolicyException covers.
    pub violating: u32,
    /// Those that are not, and that PolicyExceptions cover.
    pub exempt: u32,
}

/// Pods of one workload that violate alike.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
pub struct Sample {
    /// Namespace, where the policy covers several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Kind of the workload; Pod, where nothing that is known owns the pod.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Rules that the pods violate, as PolicyExceptions name them.
    #[schemars(length(max = 64))]
    pub rules: Vec<String>,
    /// What is wrong; cut after 512 characters.
    pub message: String,
    /// How many pods there are.
    pub pods: u32,
}

/// What refuses pods.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Enforcer {
    /// Rampart's admission webhook.
    Webhook,
    /// A ValidatingAdmissionPolicy that Rampart keeps.
    AdmissionPolicy,
}
