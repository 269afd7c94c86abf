//! `RetentionPolicy`: what is too old goes.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::GoDuration;

/// A RetentionPolicy deletes objects of its own namespace that are older than they may be: as the
/// service account that it names, after a grace period, and never more at once than its caps allow.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "rampart.dev",
    version = "v1alpha1",
    kind = "RetentionPolicy",
    namespaced,
    plural = "retentionpolicies",
    shortname = "rret",
    category = "rampart",
    doc = "A RetentionPolicy deletes objects of its own namespace that are older than they may be: as the service account that it names, after a grace period, and never more at once than its caps allow.",
    status = "RetentionPolicyStatus",
    derive = "PartialEq",
    validation = Rule::new("self.metadata.name.size() <= 63").message("metadata.name must be at most 63 characters: it becomes a label"),
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode"),
    printcolumn(name = "MaxAge", type_ = "string", json_path = ".spec.maxAge"),
    printcolumn(name = "Candidates", type_ = "integer", json_path = ".status.plan.candidates"),
    printcolumn(name = "Held", type_ = "integer", json_path = ".status.plan.held"),
    printcolumn(name = "WouldDelete", type_ = "integer", json_path = ".status.plan.wouldDelete"),
    printcolumn(name = "NextRun", type_ = "string", json_path = ".status.nextRunTime"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[cfg_attr(test, kube(cel))]
#[serde(rename_all = "camelCase")]
pub struct RetentionPolicySpec {
    /// Stops reconciling: nothing is planned, marked or deleted until it is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// Disabled does nothing; DryRun plans and shows the plan in status; Enforce marks what is too
    /// old and deletes it when the grace period is over.
    #[serde(default)]
    pub mode: RetentionMode,
    /// The service account of this namespace that Rampart acts as: what it may not list, patch or
    /// delete, Rampart will not.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"))]
    pub service_account_name: String,
    /// Age beyond which an object goes.
    #[x_kube(validation = Rule::new("duration(self) > duration('0s')").message("maxAge must be longer than 0s"))]
    pub max_age: GoDuration,
    /// What the policy is about.
    #[schemars(length(min = 1, max = 16))]
    pub targets: Vec<Target>,
    /// The rails.
    #[serde(default)]
    pub safety: Safety,
}

/// How far a RetentionPolicy goes.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RetentionMode {
    /// Does nothing.
    Disabled,
    /// Plans.
    #[default]
    DryRun,
    /// Plans, marks and deletes.
    Enforce,
}

/// One thing that a policy is about.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// Kubernetes objects of the policy's namespace.
    pub resources: ResourceTarget,
}

/// Objects of one kind.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(self.ageFrom == 'Annotation') == has(self.annotation)").message("annotation is for ageFrom: Annotation, which needs it")
)]
pub struct ResourceTarget {
    /// API version, such as `batch/v1`.
    #[schemars(length(min = 1, max = 317))]
    pub api_version: String,
    /// Kind, such as `Job`.
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    /// Which objects; `{}` selects all of the kind.
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub selector: LabelSelector,
    /// What an object's age is counted from. An object whose time can't be read is kept.
    #[serde(default)]
    pub age_from: AgeFrom,
    /// The annotation that holds the time, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 317))]
    pub annotation: Option<String>,
}

/// What an object's age is counted from.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AgeFrom {
    /// Its creation.
    #[default]
    Creation,
    /// Its completion: `status.completionTime`; a Job that failed counts from its condition Failed.
    Completion,
    /// The time in an annotation.
    Annotation,
}

/// The rails.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Safety {
    /// Most objects that one run may delete; above it, none is.
    #[serde(default = "twenty")]
    #[schemars(range(min = 1, max = 10000))]
    pub max_deletions_per_run: i32,
    /// Most objects that one run may delete, in percent of those that a target lists, rounded up;
    /// above it, none is. The smaller of both caps counts.
    #[serde(default = "ten")]
    #[schemars(range(min = 1, max = 100))]
    pub max_percent_per_run: i32,
    /// Time between an object's mark and its deletion. The operator has a minimum, 1h unless it was
    /// started with another.
    #[serde(default = "one_day")]
    #[x_kube(validation = Rule::new("duration(self) > duration('0s')").message("gracePeriod must be longer than 0s"))]
    pub grace_period: GoDuration,
    /// Allows Secrets and other kinds whose loss is hard to repair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_sensitive_kinds: Option<bool>,
}

fn twenty() -> i32 {
    20
}

fn ten() -> i32 {
    10
}

fn one_day() -> GoDuration {
    GoDuration::hours(24)
}

impl Default for Safety {
    fn default() -> Self {
        Self {
            max_deletions_per_run: twenty(),
            max_percent_per_run: ten(),
            grace_period: one_day(),
            allow_sensitive_kinds: None,
        }
    }
}

/// What is true of a RetentionPolicy.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RetentionPolicyStatus {
    /// Generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Last seen value of the annotation `rampart.dev/reconcile-requested-at`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_reconcile_at: Option<String>,
    /// Accepted, Programmed, PlanReady and Ready; BlastRadiusExceeded, HoldActive and Stalled while true.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    #[schemars(length(max = 16))]
    pub conditions: Vec<Condition>,
    /// What would be deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanStatus>,
    /// When the next object becomes too old, or its grace period ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_run_time: Option<Time>,
}

/// What would be deleted.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PlanStatus {
    /// Objects that the targets list.
    pub listed: i64,
    /// Objects that are too old.
    pub candidates: i64,
    /// Candidates that legal holds keep.
    #[serde(default)]
    pub held: i64,
    /// Candidates that nothing protects.
    pub would_delete: i64,
    /// Candidates and objects of unknown age that are kept, each with a reason.
    pub kept: i64,
    /// The first 20 candidates, oldest first, each with what will happen to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub samples: Vec<PlannedObject>,
}

/// One object of a plan.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PlannedObject {
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
    /// UID: an object that is made anew under the same name is another one.
    pub uid: String,
    /// What happens to it, and why.
    pub decision: String,
    /// When it will be deleted at the earliest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delete_after: Option<Time>,
}
