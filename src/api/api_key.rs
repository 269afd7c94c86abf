//! `ApiKey`: a credential, issued into a Secret and rotated without an outage.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::GoDuration;

/// An ApiKey is a credential that Rampart issues into a Secret of this namespace, rotates while the old
/// one stays valid, and destroys when its time is over.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "rampart.dev",
    version = "v1alpha1",
    kind = "ApiKey",
    namespaced,
    plural = "apikeys",
    shortname = "rkey",
    category = "rampart",
    doc = "An ApiKey is a credential that Rampart issues into a Secret of this namespace, rotates while the old one stays valid, and destroys when its time is over.",
    status = "ApiKeyStatus",
    derive = "PartialEq",
    validation = Rule::new("self.metadata.name.size() <= 40").message("metadata.name must be at most 40 characters: Jobs and Secrets are named after it"),
    printcolumn(name = "Owner", type_ = "string", json_path = ".spec.owner.customerId"),
    printcolumn(name = "Role", type_ = "string", json_path = ".spec.role"),
    printcolumn(name = "Key-Id", type_ = "string", json_path = ".status.versions[?(@.state==\"Current\")].id"),
    printcolumn(name = "Expires", type_ = "string", json_path = ".status.versions[?(@.state==\"Current\")].expiresAt"),
    printcolumn(name = "Next-Rotation", type_ = "string", json_path = ".status.nextRotationTime"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Old-Keys", type_ = "string", priority = 1, json_path = ".status.versions[?(@.state==\"Deprecated\")].id")
)]
#[cfg_attr(test, kube(cel))]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.rotation.policy != 'Automatic' || duration(self.rotation.overlap) < duration(self.rotation.interval)")
        .message("rotation.overlap must be shorter than rotation.interval: else old keys pile up"),
    validation = Rule::new("self.rotation.policy != 'Automatic' || duration(self.rotation.interval) + duration(self.rotation.overlap) <= duration(has(self.ttl) ? self.ttl : '8760h')")
        .message("rotation.interval plus rotation.overlap must fit into ttl (8760h unless given): else a key ends before its successor is in use"),
    validation = Rule::new("self.rotation.policy != 'Manual' || duration(self.rotation.overlap) < duration(has(self.ttl) ? self.ttl : '8760h')")
        .message("rotation.overlap must be shorter than ttl"),
    validation = Rule::new("self.rotation.policy != 'Disabled' || has(self.ttl)")
        .message("a key that is never rotated needs a ttl: say how long it may live")
)]
pub struct ApiKeySpec {
    /// Stops reconciling: nothing is issued, rotated or destroyed until it is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// Whose key it is. Immutable.
    #[x_kube(validation = Rule::new("self == oldSelf").message("owner is immutable: make another ApiKey"))]
    pub owner: Owner,
    /// Services that the key is for: a key that is bound to none could be replayed anywhere. Immutable.
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 253)))]
    #[x_kube(merge_strategy = ListMerge::Set, validation = Rule::new("self == oldSelf").message("audiences are immutable: make another ApiKey"))]
    pub audiences: Vec<String>,
    /// What the key may do: a built-in role, Viewer, Editor or Admin, or one that a cluster policy defines.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[A-Za-z]([-A-Za-z0-9]*[A-Za-z0-9])?$"))]
    pub role: String,
    /// First part of every key, by which people and scanners recognise it. Immutable.
    #[schemars(length(max = 21), regex(pattern = r"^[a-z][a-z0-9]{1,15}(_(live|test))?$"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("prefix is immutable: make another ApiKey"))]
    pub prefix: String,
    /// How long a version of the key lives, at the most; 8760h unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("duration(self) > duration('0s')").message("ttl must be longer than 0s"))]
    pub ttl: Option<GoDuration>,
    /// When the key is replaced, and how long the replaced one stays valid.
    #[serde(default)]
    pub rotation: Rotation,
    /// The Secret that consumers mount. It must not exist, or be this ApiKey's already.
    pub secret: ConsumerSecret,
}

/// Whose key it is.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    /// Customer or tenant. Unless a cluster policy says otherwise it must be the name of the namespace.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub customer_id: String,
    /// Whom to ask about the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub contact: Option<String>,
}

/// When a key is replaced, and how long the replaced one stays valid.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Rotation {
    /// Automatic rotates every interval, Manual when requestedAt changes, Disabled never.
    #[serde(default)]
    pub policy: RotationPolicy,
    /// Time from one completed rotation to the next.
    #[serde(default = "ninety_days")]
    #[x_kube(validation = Rule::new("duration(self) > duration('0s')").message("interval must be longer than 0s"))]
    pub interval: GoDuration,
    /// How long a replaced key stays valid.
    #[serde(default = "thirty_days")]
    pub overlap: GoDuration,
    /// A new value asks for one rotation now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_at: Option<Time>,
}

fn ninety_days() -> GoDuration {
    GoDuration::hours(2160)
}

fn thirty_days() -> GoDuration {
    GoDuration::hours(720)
}

impl Default for Rotation {
    fn default() -> Self {
        Self { policy: RotationPolicy::default(), interval: ninety_days(), overlap: thirty_days(), requested_at: None }
    }
}

/// What makes a key rotate.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RotationPolicy {
    /// The interval, and requests.
    #[default]
    Automatic,
    /// Requests alone.
    Manual,
    /// Nothing.
    Disabled,
}

/// The Secret that consumers mount.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ConsumerSecret {
    /// Name of the Secret, in the ApiKey's namespace. Immutable.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("secret.name is immutable: make another ApiKey"))]
    pub name: String,
    /// Names of its entries.
    #[serde(default)]
    pub keys: SecretKeys,
}

/// Names of the entries of the consumer Secret.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.current != self.previous && self.current != self.id && self.previous != self.id").message("the entries need different names"))]
pub struct SecretKeys {
    /// The key to use.
    #[serde(default = "current_entry")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub current: String,
    /// The key before it, while it is still valid.
    #[serde(default = "previous_entry")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub previous: String,
    /// Public id of the key to use.
    #[serde(default = "id_entry")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub id: String,
}

fn current_entry() -> String {
    "API_KEY".into()
}

fn previous_entry() -> String {
    "API_KEY_PREVIOUS".into()
}

fn id_entry() -> String {
    "API_KEY_ID".into()
}

impl Default for SecretKeys {
    fn default() -> Self {
        Self { current: current_entry(), previous: previous_entry(), id: id_entry() }
    }
}

/// What is true of an ApiKey; never key material, never a digest of it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ApiKeyStatus {
    /// Generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Last seen value of the annotation `rampart.dev/reconcile-requested-at`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_reconcile_at: Option<String>,
    /// Accepted, Programmed, Ready; Rotating, Reconciling and Stalled while true.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    #[schemars(length(max = 16))]
    pub conditions: Vec<Condition>,
    /// Number of the version that consumers use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_version: Option<i64>,
    /// Number of the version that is being made, written before anything is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_version: Option<i64>,
    /// Versions that exist, and the last three that were destroyed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["n".into()]))]
    #[schemars(length(max = 32))]
    pub versions: Vec<VersionStatus>,
    /// When the key is due for rotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_rotation_time: Option<Time>,
    /// The last `rotation.requestedAt` that was carried out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_rotation: Option<Time>,
    /// Tests of the next version that failed in a row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_attempts: Option<i32>,
    /// When a failed test is repeated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Time>,
}

/// One version of a key.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct VersionStatus {
    /// Number, from 1.
    pub n: i64,
    /// Public id of the key, good for logs.
    pub id: String,
    /// Where it stands.
    pub state: VersionState,
    /// When it was made.
    pub created_at: Time,
    /// When it ends whatever happens.
    pub expires_at: Time,
    /// Id of its successor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced_by: Option<String>,
    /// When it will be destroyed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destroy_at: Option<Time>,
}

/// Where a version of a key stands.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionState {
    /// Made, not handed out yet.
    Pending,
    /// The one to use.
    Current,
    /// Replaced, and valid until `destroyAt`.
    Deprecated,
    /// Gone.
    Destroyed,
}

impl VersionStatus {
    /// Whether the version may be presented at `now`.
    #[must_use]
    pub fn is_valid(&self, now: Timestamp) -> bool {
        let live = matches!(self.state, VersionState::Current | VersionState::Deprecated);
        live && now < self.expires_at.0 && self.destroy_at.as_ref().is_none_or(|end| now < end.0)
    }
}
