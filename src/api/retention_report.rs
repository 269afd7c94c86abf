//! `RetentionReport`: what retention would do, and what it did.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{DataClass, GoDuration, Processing, RetentionMode};

/// Items that one report names at the most: with results, half of what etcd takes.
pub const MOST_ITEMS: usize = 1000;

/// A RetentionReport is the evidence of a RetentionPolicy: what a run was about to do, written before it did anything,
/// with what came of it; or a plan that waits for an approval. Reports of runs are a chain: each holds the digest of
/// the one before. They outlive their policy and go on a clock of their own.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "rampart.dev",
    version = "v1alpha1",
    kind = "RetentionReport",
    namespaced,
    plural = "retentionreports",
    shortname = "rrep",
    category = "rampart",
    doc = "A RetentionReport is the evidence of a RetentionPolicy: what a run was about to do, written before it did anything, with what came of it; or a plan that waits for an approval. Rampart writes it; people write spec.approval, for which they need the verb approve.",
    status = "RetentionReportStatus",
    derive = "PartialEq",
    printcolumn(name = "Policy", type_ = "string", json_path = ".spec.record.policy.name"),
    printcolumn(name = "Type", type_ = "string", json_path = ".spec.record.type"),
    printcolumn(name = "Delete", type_ = "integer", json_path = ".spec.record.counts.delete"),
    printcolumn(name = "Kept", type_ = "integer", json_path = ".spec.record.counts.kept"),
    printcolumn(name = "Deleted", type_ = "integer", json_path = ".status.deleted"),
    printcolumn(name = "Failed", type_ = "integer", json_path = ".status.failed"),
    printcolumn(name = "Expires", type_ = "string", json_path = ".spec.record.expiresAt"),
    printcolumn(name = "Finished", type_ = "string", json_path = ".status.finishedAt"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Approved", type_ = "string", priority = 1, json_path = ".spec.approval.digest")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.digest == oldSelf.digest").message("a report is written once; of its spec, only approval may change"))]
pub struct RetentionReportSpec {
    /// What was planned, or was about to be done.
    pub record: RetentionRecord,
    /// `sha256:` and the SHA-256 of `record` as JSON with sorted keys and no white space, in hexadecimal.
    #[schemars(length(max = 71))]
    pub digest: String,
    /// The set that may be deleted although it is more than the caps allow. Only who has the verb `approve` on
    /// retentionreports may write it; `rampart retention approve` does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<Approval>,
    /// Runs before this one, oldest first, whose reports were rolled up into it: as they were written, and as much
    /// evidence as they were. Rampart alone writes it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000))]
    pub earlier: Vec<RolledRun>,
}

/// A run whose report was rolled up into a later one.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RolledRun {
    /// Name that its report had.
    #[schemars(length(max = 253))]
    pub report: String,
    /// What was about to be done.
    pub record: RetentionRecord,
    /// What came of it.
    pub status: RetentionReportStatus,
}

/// What was planned, or was about to be done.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RetentionRecord {
    /// Whether it is a plan or a run.
    #[serde(rename = "type")]
    pub kind: ReportType,
    /// Counts the plans of a policy, and its runs, from 1.
    pub number: i64,
    /// The policy.
    pub policy: ReportPolicy,
    /// How far the policy went.
    pub mode: RetentionMode,
    /// Its data class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_class: Option<DataClass>,
    /// Age beyond which items go.
    pub max_age: GoDuration,
    /// Its record of processing (GDPR 30(1)), as it was then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processing: Option<Processing>,
    /// When the report was written.
    pub made_at: Time,
    /// When the report itself may go.
    pub expires_at: Time,
    /// The run before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<PreviousRun>,
    /// The approved plan that the run carries out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved: Option<ApprovedPlan>,
    /// Set where the caps forbid every deletion until a set is approved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker: Option<BreakerRecord>,
    /// How many there are of what.
    pub counts: RecordCounts,
    /// What is kept, as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<KeptRecord>,
    /// What is deleted or marked, or would be: the oldest, 1,000 with `items` at the most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000))]
    pub acts: Vec<RecordAct>,
    /// What has a reason of its own: whose mark is taken off, and then what is too old and kept, oldest first. A run
    /// names what is kept only if that is not the same, for the same reasons, as an earlier run named: see `kept`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000))]
    pub items: Vec<RecordItem>,
}

/// Whether a report is about a plan or a run.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportType {
    /// What would be deleted; nothing was done.
    Plan,
    /// What was about to be done, and what came of it.
    Run,
}

/// The policy of a report.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ReportPolicy {
    /// Its namespace, which is that of all items.
    #[schemars(length(max = 63))]
    pub namespace: String,
    /// Its name.
    #[schemars(length(max = 63))]
    pub name: String,
    /// Its UID.
    #[schemars(length(max = 64))]
    pub uid: String,
    /// Generation of its spec.
    pub generation: i64,
}

/// The run before.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PreviousRun {
    /// Name of its report.
    #[schemars(length(max = 253))]
    pub report: String,
    /// Its number.
    pub number: i64,
    /// Digest of its results (`status.digest`), and with them of itself.
    #[schemars(length(max = 71))]
    pub digest: String,
    /// When its report may go; before then it must be there.
    pub expires_at: Time,
}

/// The approved plan that a run carries out.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ApprovedPlan {
    /// Name of its report.
    #[schemars(length(max = 253))]
    pub report: String,
    /// Digest of the set that was approved.
    #[schemars(length(max = 71))]
    pub digest: String,
    /// When its report may go; before then it must be there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,
}

/// Why nothing is deleted.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct BreakerRecord {
    /// Items that would be deleted.
    pub would_delete: i64,
    /// Items that may be.
    pub allowed: i64,
}

/// What is kept, as a whole.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct KeptRecord {
    /// `sha256:` and the SHA-256 of all items that are kept, as JSON with sorted keys and no white space, in
    /// hexadecimal.
    #[schemars(length(max = 71))]
    pub digest: String,
    /// Number of the run that names them: this one, or an earlier one.
    pub named_in: i64,
    /// When that run's report was written.
    pub named_at: Time,
    /// How many of them it names.
    pub named: i64,
}

/// How many there are of what.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RecordCounts {
    /// Items to mark.
    pub mark: i64,
    /// Items to take the mark off.
    pub unmark: i64,
    /// Items to delete; in a plan, items that would be deleted now or later.
    pub delete: i64,
    /// Items that are too old, or of unknown age, and kept.
    pub kept: i64,
    /// Items of these that no report names.
    pub not_named: i64,
}

/// Items of one kind to which the same is done for the same reason.
// Maps, not a list of objects: an API server checks 1,000 entries of a map in a fifth of the time that it needs for as
// many objects, and writes of reports are a tenth of a sweep.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RecordAct {
    /// What was decided.
    pub decision: RecordDecision,
    /// What kind of things.
    #[schemars(length(max = 63))]
    pub kind: String,
    /// Why.
    #[schemars(length(max = 256))]
    pub reason: String,
    /// Their names, by UID: another thing of the same name has another.
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    #[schemars(extend("maxProperties" = 1000))]
    pub names: BTreeMap<String, String>,
    /// Since when each is too old, by UID.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    #[schemars(extend("maxProperties" = 1000))]
    pub too_old_since: BTreeMap<String, Time>,
}

/// An item, and what was decided.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RecordItem {
    /// What kind of thing.
    #[schemars(length(max = 63))]
    pub kind: String,
    /// Its name.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Identity: another thing of this name has another.
    #[schemars(length(max = 64))]
    pub uid: String,
    /// What was decided.
    pub decision: RecordDecision,
    /// Why.
    #[schemars(length(max = 256))]
    pub reason: String,
    /// Since when it is too old.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub too_old_since: Option<Time>,
}

/// What was decided about an item.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordDecision {
    /// To delete it.
    Delete,
    /// To mark it for a later deletion.
    Mark,
    /// To take the mark off.
    Unmark,
    /// To leave it.
    Keep,
}

/// The set that may be deleted.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Approval {
    /// `sha256:` and the SHA-256 of `items` as JSON with sorted keys and no white space, in hexadecimal.
    #[schemars(length(max = 71))]
    pub digest: String,
    /// The set.
    #[schemars(length(min = 1, max = 1000))]
    pub items: Vec<ApprovedItem>,
}

/// An item that may be deleted.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ApprovedItem {
    /// What kind of thing.
    #[schemars(length(max = 63))]
    pub kind: String,
    /// Its namespace.
    #[schemars(length(max = 63))]
    pub namespace: String,
    /// Its name.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Identity: another thing of this name was not approved.
    #[schemars(length(max = 64))]
    pub uid: String,
}

/// What came of a run, or of a plan.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RetentionReportStatus {
    /// When it was done. A plan is done when a run has carried it out, or nothing of it is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// Items that were marked.
    #[serde(default)]
    pub marked: i64,
    /// Items whose mark was taken off.
    #[serde(default)]
    pub unmarked: i64,
    /// Items whose deletion the API server confirmed.
    #[serde(default)]
    pub deleted: i64,
    /// Items that could not be marked or deleted; the next run tries again.
    #[serde(default)]
    pub failed: i64,
    /// What came otherwise than it was decided. An item of a finished run that was to be deleted, marked or unmarked, and
    /// is not here, was.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000))]
    pub results: Vec<ItemResult>,
    /// `sha256:` and the SHA-256 of `{"record": spec.digest, "results": status without this field}` as JSON with sorted
    /// keys and no white space, in hexadecimal: the next run's report holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 71))]
    pub digest: Option<String>,
}

/// What came of an item.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ItemResult {
    /// Which.
    #[schemars(length(max = 64))]
    pub uid: String,
    /// What came of it.
    pub result: Outcome,
    /// Why, where that is not plain.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 512))]
    pub message: String,
}

/// What came of an item.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// It is marked.
    Marked,
    /// Its mark is off.
    Unmarked,
    /// It was deleted.
    Deleted,
    /// Its deletion has begun, and waits for its finalizers, or for what it owns.
    Terminating,
    /// It is gone, and nobody knows by whom: the operator ended, or failed to write, before it could tell an answer.
    Gone,
    /// It was left: it had changed, or a rule had come to protect it.
    Kept,
    /// It could not be done.
    Failed,
}
