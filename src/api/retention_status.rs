//! What is true of a RetentionPolicy.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

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
    /// Accepted, Programmed, PlanReady and Ready; BlastRadiusExceeded, HoldActive, ClockSuspect, Degraded and Stalled while
    /// true.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    #[schemars(length(max = 16))]
    pub conditions: Vec<Condition>,
    /// What would be deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanStatus>,
    /// When the next object becomes too old, or its grace period ends; with a schedule, its next time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_run_time: Option<Time>,
    /// The last run that did something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_run: Option<RunStatus>,
}

/// The last run.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RunStatus {
    /// Its RetentionReport.
    pub report: String,
    /// Its number.
    pub number: i64,
    /// Digest of its report with the results: `rampart retention verify` compares it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub digest: String,
    /// When its report may go; before then it must be there.
    pub expires_at: Time,
    /// Objects that were marked.
    #[serde(default)]
    pub marked: i64,
    /// Objects whose mark was taken off.
    #[serde(default)]
    pub unmarked: i64,
    /// Objects that were deleted.
    #[serde(default)]
    pub deleted: i64,
    /// Objects that could not be marked or deleted.
    #[serde(default)]
    pub failed: i64,
}

/// What would be deleted.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PlanStatus {
    /// RetentionReport that names all of it; where the caps hold, this is what can be approved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<String>,
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
    /// Objects whose age can't be read; they are kept.
    #[serde(default)]
    pub unknown_age: i64,
    /// Since when the oldest that nothing protects is too old.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_too_old_since: Option<Time>,
    /// The first 20 candidates, oldest first, then what is of unknown age, each with what will happen to it, and why.
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
