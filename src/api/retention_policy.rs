//! `RetentionPolicy`: what is too old goes.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{DataClass, GoDuration, RetentionPolicyStatus};

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
    printcolumn(name = "Class", type_ = "string", json_path = ".spec.dataClass"),
    printcolumn(name = "MaxAge", type_ = "string", json_path = ".spec.maxAge"),
    printcolumn(name = "Candidates", type_ = "integer", json_path = ".status.plan.candidates"),
    printcolumn(name = "Held", type_ = "integer", json_path = ".status.plan.held"),
    printcolumn(name = "WouldDelete", type_ = "integer", json_path = ".status.plan.wouldDelete"),
    printcolumn(name = "LastDeleted", type_ = "integer", json_path = ".status.lastRun.deleted"),
    printcolumn(name = "NextRun", type_ = "string", json_path = ".status.nextRunTime"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[cfg_attr(test, kube(cel))]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.maxAge) || has(self.dataClass)").message("say maxAge, or dataClass, which brings one"),
    validation = Rule::new(CLASS_RULE).message(CLASS_MESSAGE),
    validation = Rule::new("!has(self.minAge) || !has(self.maxAge) || duration(self.minAge) <= duration(self.maxAge)").message("minAge must not be longer than maxAge"),
    validation = Rule::new("!has(self.timeZone) || has(self.schedule)").message("timeZone is for schedule")
)]
pub struct RetentionPolicySpec {
    /// Stops reconciling: nothing is planned, marked or deleted until it is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// Disabled does nothing; DryRun plans, and shows the plan in status and in a report; Mark marks what is too old and
    /// deletes nothing; Enforce marks it, and deletes it when the grace period is over.
    #[serde(default)]
    pub mode: RetentionMode,
    /// The service account of this namespace that Rampart acts as: what it may not list, patch or
    /// delete, Rampart will not.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"))]
    pub service_account_name: String,
    /// How much harm it does when the data gets out, and so after how long it is too old at the latest, and goes after a
    /// grace period: Public 8760h, Internal 2160h, Confidential 720h, Restricted 168h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_class: Option<DataClass>,
    /// Age beyond which an object goes; without it, the most that the data class allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("duration(self) > duration('0s')").message("maxAge must be longer than 0s"))]
    pub max_age: Option<GoDuration>,
    /// Age below which an object stays, counted from its creation, whatever its own annotation says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_age: Option<GoDuration>,
    /// When something may be marked and deleted: a cron expression of five fields, such as `17 2 * * *`. Without it,
    /// whenever something is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 9, max = 100))]
    pub schedule: Option<String>,
    /// Time zone of the schedule, by its IANA name; without it, UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: Option<String>,
    /// What the policy is about.
    #[schemars(length(min = 1, max = 16))]
    pub targets: Vec<Target>,
    /// The rails.
    #[serde(default)]
    pub safety: Safety,
    /// Record of processing (GDPR 30(1)), copied into every report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processing: Option<Processing>,
    /// How long reports are kept.
    #[serde(default)]
    pub evidence: Evidence,
}

const CLASS_RULE: &str = "!has(self.dataClass) || !has(self.maxAge) || duration(self.maxAge) <= duration(self.dataClass == 'Public' ? '8760h' : self.dataClass == 'Internal' ? '2160h' : self.dataClass == 'Confidential' ? '720h' : '168h')";
const CLASS_MESSAGE: &str =
    "maxAge is longer than dataClass allows: Public 8760h, Internal 2160h, Confidential 720h, Restricted 168h";

/// Record of processing, as GDPR 30(1) asks for it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Processing {
    /// What the data is processed for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 128)))]
    pub purposes: Vec<String>,
    /// On which legal basis (GDPR 6(1)).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub legal_basis: Option<LegalBasis>,
    /// Categories of personal data.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 128)))]
    pub categories: Vec<String>,
}

/// Legal basis of processing, GDPR 6(1)(a) to (f).
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum LegalBasis {
    /// (a)
    Consent,
    /// (b)
    Contract,
    /// (c)
    LegalObligation,
    /// (d)
    VitalInterests,
    /// (e)
    PublicTask,
    /// (f)
    LegitimateInterests,
}

/// How long reports are kept.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Evidence {
    /// At least 720h, by default 9600h (400 days): longer than the year that PCI DSS 10.5.1 asks for. HIPAA
    /// 164.316(b)(2)(i) asks for six years, 52608h.
    #[serde(default = "four_hundred_days")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('720h')").message("retainFor must be at least 720h"))]
    pub retain_for: GoDuration,
}

fn four_hundred_days() -> GoDuration {
    GoDuration::hours(9600)
}

impl Default for Evidence {
    fn default() -> Self {
        Self { retain_for: four_hundred_days() }
    }
}

/// How far a RetentionPolicy goes.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RetentionMode {
    /// Does nothing.
    Disabled,
    /// Plans.
    #[default]
    DryRun,
    /// Plans and marks.
    Mark,
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
    #[schemars(
        length(min = 1, max = 317),
        regex(pattern = r"^([a-z0-9]([-.a-z0-9]*[a-z0-9])?/)?[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
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
    /// The annotation that holds the time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 317))]
    pub annotation: Option<String>,
    /// What the annotation says.
    #[serde(default)]
    pub annotation_says: AnnotationSays,
}

/// What an annotation says.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AnnotationSays {
    /// The moment from which age counts, RFC 3339. One that is further in the future than maxClockSkew keeps the object,
    /// as one of unknown age.
    #[default]
    Since,
    /// How long the object may live from its creation, as kube-janitor's `janitor/ttl` does: `30m`, `24h`, `7d`, `2w`,
    /// `forever`. Never longer than maxAge, and never shorter than minAge.
    Ttl,
    /// When the object may go, as kube-janitor's `janitor/expires` does: `2020-01-17T15:14:38Z`, `2020-01-17T15:14`,
    /// `2020-01-17`, in UTC. Never later than maxAge, and never earlier than minAge after its creation.
    Expires,
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
    /// Objects of a target that stay, whatever their age: the youngest.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub min_remaining: i32,
    /// Most objects of one report. Between two, the policy, its holds and the namespace's consent are read anew.
    #[serde(default = "thousand")]
    #[schemars(range(min = 1, max = 1000))]
    pub batch_size: i32,
    /// Whether the namespace must agree, by the label `rampart.dev/retention: allowed`.
    #[serde(default = "yes")]
    pub require_namespace_opt_in: bool,
    /// Whether what a controller owns stays: it would make it anew.
    #[serde(default = "yes")]
    pub skip_controller_owned: bool,
    /// How far the operator's clock and the API server's may be apart; beyond, nothing is marked or deleted.
    #[serde(default = "two_minutes")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('5s') && duration(self) <= duration('1h')").message("maxClockSkew must be from 5s to 1h"))]
    pub max_clock_skew: GoDuration,
    /// What happens to what an object owns. The caps, the plan and `allowSensitiveKinds` know of the listed objects
    /// alone, and not of what the garbage collector takes along, such as the PersistentVolumeClaims of a StatefulSet
    /// with `whenDeleted: Delete`, or the children of a custom resource: say `Orphan`, or make these targets of their
    /// own.
    #[serde(default)]
    pub propagation_policy: Propagation,
}

/// What happens to what a deleted object owns.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Propagation {
    /// It is deleted afterwards.
    #[default]
    Background,
    /// It is deleted before.
    Foreground,
    /// It stays.
    Orphan,
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

fn thousand() -> i32 {
    1000
}

fn yes() -> bool {
    true
}

fn two_minutes() -> GoDuration {
    std::time::Duration::from_mins(2).into()
}

impl Default for Safety {
    fn default() -> Self {
        Self {
            max_deletions_per_run: twenty(),
            max_percent_per_run: ten(),
            grace_period: one_day(),
            allow_sensitive_kinds: None,
            min_remaining: 0,
            batch_size: thousand(),
            require_namespace_opt_in: yes(),
            skip_controller_owned: yes(),
            max_clock_skew: two_minutes(),
            propagation_policy: Propagation::default(),
        }
    }
}
