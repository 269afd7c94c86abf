//! `LegalHold` and `ClusterLegalHold`: what must stay, whoever wants it gone.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

const END_RULE: &str = "has(self.until) != has(self.indefinite)";
const END_MESSAGE: &str = "set either until or indefinite: true";
const INDEFINITE_RULE: &str = "!has(self.indefinite) || self.indefinite";
const INDEFINITE_MESSAGE: &str = "indefinite is true or absent";
const NAME_RULE: &str = "self.metadata.name.size() <= 63";
const NAME_MESSAGE: &str = "metadata.name must be at most 63 characters: it becomes a label";

/// A LegalHold keeps objects of its own namespace: the API server refuses to delete them, to change their content, and
/// to take the labels off by which they are held; and to delete the namespace.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "rampart.dev",
    version = "v1alpha1",
    kind = "LegalHold",
    namespaced,
    plural = "legalholds",
    shortname = "rhold",
    doc = "A LegalHold keeps objects of its own namespace: the API server refuses to delete them, to change their content, and to take the labels off by which they are held; and to delete the namespace. Who deletes or narrows a hold needs the verb `release` on it.",
    status = "LegalHoldStatus",
    derive = "PartialEq",
    validation = Rule::new(NAME_RULE).message(NAME_MESSAGE),
    printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
    printcolumn(name = "Until", type_ = "string", json_path = ".spec.until"),
    printcolumn(name = "Case", type_ = "string", json_path = ".spec.caseRef"),
    printcolumn(name = "Ground", type_ = "string", json_path = ".spec.ground", priority = 1),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[cfg_attr(test, kube(cel))]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(END_RULE).message(END_MESSAGE),
    validation = Rule::new(INDEFINITE_RULE).message(INDEFINITE_MESSAGE)
)]
pub struct LegalHoldSpec {
    /// What is held, and until when.
    #[serde(flatten)]
    pub terms: HoldTerms,
}

/// A ClusterLegalHold is a LegalHold in many namespaces, and of objects that stand in none.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "rampart.dev",
    version = "v1alpha1",
    kind = "ClusterLegalHold",
    plural = "clusterlegalholds",
    shortname = "rchold",
    doc = "A ClusterLegalHold is a LegalHold in many namespaces, and of objects that stand in none: the API server refuses to delete what is held, to change its content, and to take the labels off by which it is held; and to delete those namespaces. Who deletes or narrows a hold needs the verb `release` on it.",
    status = "LegalHoldStatus",
    derive = "PartialEq",
    validation = Rule::new(NAME_RULE).message(NAME_MESSAGE),
    printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
    printcolumn(name = "Until", type_ = "string", json_path = ".spec.until"),
    printcolumn(name = "Case", type_ = "string", json_path = ".spec.caseRef"),
    printcolumn(name = "Ground", type_ = "string", json_path = ".spec.ground", priority = 1),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[cfg_attr(test, kube(cel))]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(END_RULE).message(END_MESSAGE),
    validation = Rule::new(INDEFINITE_RULE).message(INDEFINITE_MESSAGE)
)]
pub struct ClusterLegalHoldSpec {
    /// The namespaces, by their labels; `{}` selects all. System namespaces (kube-system, kube-public,
    /// kube-node-lease, rampart-system, rampart-keys) are always left out. None that is selected can be deleted.
    /// Objects that stand in no namespace are held by their own labels alone.
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub namespace_selector: LabelSelector,
    /// What is held, and until when.
    #[serde(flatten)]
    pub terms: HoldTerms,
}

/// What is held, and until when.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct HoldTerms {
    /// Kinds of objects, as the API server names them in paths and RBAC. Never pods, namespaces and what the
    /// cluster itself rewrites all the time.
    #[schemars(length(min = 1, max = 16))]
    pub resources: Vec<HeldResource>,
    /// Which objects of these kinds, by their labels; `{}` selects all.
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub selector: LabelSelector,
    /// When the hold ends by itself, RFC 3339. Rampart ends it by its own clock and the API server's, whichever is
    /// later; while Rampart is away it goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Time>,
    /// `true` for a hold without an end: somebody has to release it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub indefinite: Option<bool>,
    /// Why: the duty or the claim, such as `litigation` or `GDPR Art. 17(3)(e)`.
    #[schemars(length(min = 1, max = 1024))]
    pub ground: String,
    /// What the case is called where cases are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub case_ref: Option<String>,
}

/// A kind, as it stands in paths and in RBAC.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.group != '' || self.resource != 'pods'").message("pods can't be held: hold what they leave behind")
)]
pub struct HeldResource {
    /// API group, such as `batch`; absent or empty for core.
    #[serde(default)]
    #[schemars(length(max = 253), regex(pattern = r"^([a-z0-9]([-.a-z0-9]*[a-z0-9])?)?$"))]
    pub group: String,
    /// Plural name, such as `jobs`; every version of it is held.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub resource: String,
}

/// What is true of a LegalHold or ClusterLegalHold.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct LegalHoldStatus {
    /// Generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Last seen value of the annotation `rampart.dev/reconcile-requested-at`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_reconcile_at: Option<String>,
    /// Whether it holds. One that is Expired may be deleted without the verb `release`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<HoldState>,
    /// The ValidatingAdmissionPolicies by which the API server refuses; each has a binding of the same name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4), inner(length(max = 253)))]
    pub admission_policies: Vec<String>,
    /// Accepted, Programmed and Ready; Reconciling and Stalled while true.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    #[schemars(length(max = 16))]
    pub conditions: Vec<Condition>,
}

/// Whether a hold holds.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldState {
    /// What refuses is being written, or was a moment ago; or a kind is not served, so that nothing of it is held.
    Pending,
    /// It holds.
    Active,
    /// It has ended.
    Expired,
}
