//! `ApiKey`: a credential, issued into a Secret and rotated without an outage.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    GoDuration, Hooks, Imported, KeySource, RateLimit, RestartTarget, Revocation, Rotation,
    key_caps::{PERMISSION_MESSAGE, PERMISSION_RULE},
    key_source::{
        END_MESSAGE, END_RULE, GRANT_RULE, ONE_SOURCE_MESSAGE, ONE_SOURCE_RULE, OWN_SECRET_MESSAGE, OWN_SECRET_RULE,
        PREFIX_MESSAGE, PREFIX_RULE, SUPPLY_MESSAGE, SUPPLY_RULE, UNVERIFIED_MESSAGE, UNVERIFIED_RULE,
    },
};

/// Asked at creation alone, as the name can't change: who was made before must still get its status.
const VERSION_NAME_RULE: &str = "oldSelf.hasValue() || !self.spec.secret.name.startsWith(self.metadata.name + '-v') || \
    !self.spec.secret.name.substring(self.metadata.name.size() + 2).matches('^[0-9]+$')";

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
    validation = Rule::new(VERSION_NAME_RULE).optional_old_self(true).message("secret.name must not be metadata.name followed by -v and a number: versions are called so"),
    printcolumn(name = "Owner", type_ = "string", json_path = ".spec.owner.customerId"),
    printcolumn(name = "Role", type_ = "string", json_path = ".spec.role"),
    printcolumn(name = "Key-Id", type_ = "string", json_path = ".status.versions[?(@.state==\"Current\")].id"),
    printcolumn(name = "Expires", type_ = "string", json_path = ".status.versions[?(@.state==\"Current\")].expiresAt"),
    printcolumn(name = "Next-Rotation", type_ = "string", json_path = ".status.nextRotationTime"),
    printcolumn(name = "Last-Used", type_ = "date", json_path = ".status.usage.lastUsed"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Old-Keys", type_ = "string", priority = 1, json_path = ".status.versions[?(@.state==\"Deprecated\")].id"),
    printcolumn(name = "Verifiers", type_ = "integer", priority = 1, json_path = ".status.verifiers.upToDate"),
    printcolumn(name = "Of-Verifiers", type_ = "integer", priority = 1, json_path = ".status.verifiers.desired")
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
        .message("a key that is never rotated needs a ttl: say how long it may live"),
    validation = Rule::new(GRANT_RULE).message("set role or permissions, and not both"),
    validation = Rule::new(PREFIX_RULE).message(PREFIX_MESSAGE),
    validation = Rule::new(ONE_SOURCE_RULE).message(ONE_SOURCE_MESSAGE),
    validation = Rule::new(UNVERIFIED_RULE).message(UNVERIFIED_MESSAGE),
    validation = Rule::new(END_RULE).message(END_MESSAGE),
    validation = Rule::new(SUPPLY_RULE).message(SUPPLY_MESSAGE),
    validation = Rule::new(OWN_SECRET_RULE).message(OWN_SECRET_MESSAGE),
    validation = Rule::new("!has(oldSelf.revocation) || has(self.revocation)")
        .message("a revocation can't be taken back: make another ApiKey")
)]
pub struct ApiKeySpec {
    /// Stops reconciling: nothing is issued, rotated or destroyed until it is removed. A revocation is carried out all
    /// the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// Whose key it is. Immutable.
    #[x_kube(validation = Rule::new("self == oldSelf").message("owner is immutable: make another ApiKey"))]
    pub owner: Owner,
    /// Services that the key is for: a key that is bound to none could be replayed anywhere. Immutable.
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 253)))]
    #[x_kube(merge_strategy = ListMerge::Set, validation = Rule::new("self == oldSelf").message("audiences are immutable: make another ApiKey"))]
    pub audiences: Vec<String>,
    /// What the key may do: a built-in role, Viewer, Editor or Admin, or one that a cluster policy defines. Either
    /// this or permissions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[A-Za-z]([-A-Za-z0-9]*[A-Za-z0-9])?$"))]
    pub role: Option<String>,
    /// What the key may do, by name: `orders.read`, or `orders.*` for all below. It is admitted only on routes that
    /// state the permission that they need. Either this or role.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 32),
        inner(length(min = 1, max = 128), regex(pattern = r"^[a-z0-9_-]+(\.[a-z0-9_-]+)*(\.\*)?$"))
    )]
    #[x_kube(merge_strategy = ListMerge::Set, validation = Rule::new(PERMISSION_RULE).message(PERMISSION_MESSAGE))]
    pub permissions: Vec<String>,
    /// Where versions come from; Rampart makes them unless given. Generated can't become imported, nor the reverse.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<KeySource>,
    /// First part of every key that Rampart makes, by which people and scanners recognise it; required for those.
    /// Immutable.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 21), regex(pattern = r"^[a-z][a-z0-9]{1,15}(_(live|test))?$"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("prefix is immutable: make another ApiKey"))]
    pub prefix: String,
    /// How long a version of the key lives, at the most; 8760h unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("duration(self) > duration('0s')").message("ttl must be longer than 0s"))]
    pub ttl: Option<GoDuration>,
    /// After this instant no version lives, and none is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hard_expiry: Option<Time>,
    /// How many calls the key may make.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
    /// Verifiers refuse every version until it is removed. (`suspend` stops reconciling instead.)
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspended: Option<bool>,
    /// Ends every version at once and for ever: verifiers first, then consumers. Can't be taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocation: Option<Revocation>,
    /// When the key is replaced, and how long the replaced one stays valid.
    #[serde(default)]
    pub rotation: Rotation,
    /// The Secret that consumers mount. It must not exist, or be this ApiKey's already.
    pub secret: ConsumerSecret,
    /// Workloads that are restarted when the key has changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub restart_targets: Vec<RestartTarget>,
    /// Jobs of your own at the steps of a rotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hooks: Option<Hooks>,
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

/// The Secret that consumers mount.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ConsumerSecret {
    /// Name of the Secret, in the ApiKey's namespace. Immutable.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("secret.name is immutable: make another ApiKey"))]
    pub name: String,
    /// Names of its entries. Immutable.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self == oldSelf").message("secret.keys is immutable, or the old entries would keep their keys: make another ApiKey"))]
    pub keys: SecretKeys,
    /// What becomes of the Secrets when the ApiKey is deleted: Delete removes them and ends the keys; Retain leaves
    /// Secrets and keys as they are, until the keys expire or their namespace is deleted.
    #[serde(default, skip_serializing_if = "DeletionPolicy::is_default")]
    pub deletion_policy: DeletionPolicy,
}

/// What becomes of Secrets when their ApiKey is deleted.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeletionPolicy {
    /// They go, and the keys end.
    #[default]
    Delete,
    /// They stay, and the keys live until they expire, or their namespace is deleted.
    Retain,
}

impl DeletionPolicy {
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    fn is_default(&self) -> bool {
        *self == Self::Delete
    }
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
    /// Accepted, Programmed, Ready; VerifiersSynced and ConsumersUpdated where there are any; Rotating, Reconciling,
    /// Expiring, Revoked, ClockSuspect and Stalled while true.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    #[schemars(length(max = 16))]
    pub conditions: Vec<Condition>,
    /// Number of the version that consumers use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_version: Option<i64>,
    /// Number of the version that is being made, written before anything is made; it stays until the hook after the
    /// promotion has run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_version: Option<i64>,
    /// Versions that exist, and the last ones that have ended (`rotation.historyLimit`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["n".into()]))]
    #[schemars(length(max = 32))]
    pub versions: Vec<VersionStatus>,
    /// When the key is due for rotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_rotation_time: Option<Time>,
    /// The last `rotation.requestedAt` that was carried out, or that the version under way is made for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_rotation: Option<Time>,
    /// Tests of the next version, or hooks, that failed in a row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_attempts: Option<i32>,
    /// When a failed test or hook is repeated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Time>,
    /// How much the key was used: coarse, and late by a minute or two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// Verifiers that are waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verifiers: Option<VerifierCounts>,
    /// Workloads that are restarted when the key has changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub consumers: Vec<ConsumerStatus>,
}

/// How much a key was used.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// When any version was used last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used: Option<Time>,
    /// Calls that verifiers admitted.
    #[serde(default)]
    pub count: i64,
    /// When the first verifier was there, as far as this status knows: of uses before, nobody could tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watched_since: Option<Time>,
    /// What has been counted of each verifier's report, so that nothing is counted twice.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub counted: Vec<Counted>,
}

/// How much of what a verifier reported has been counted.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Counted {
    /// Name of the VerifierReport.
    #[schemars(length(max = 253))]
    pub verifier: String,
    /// Public id of the key.
    #[schemars(length(max = 63))]
    pub id: String,
    /// When that process started.
    pub started_at: Time,
    /// Its count.
    pub count: i64,
}

/// Verifiers that are waited for.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct VerifierCounts {
    /// Verifiers that reported within the last minute.
    pub desired: i32,
    /// Those of them where all records of this key are in force.
    pub up_to_date: i32,
}

/// A workload that is restarted when the key has changed.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ConsumerStatus {
    /// `Deployment/web`.
    #[schemars(length(max = 270))]
    pub workload: String,
    /// Number of the version that its pod template asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<i64>,
    /// Whether all its pods run that version.
    pub ready: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub message: Option<String>,
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
    /// Gone, because somebody revoked it.
    Revoked,
    /// Gone.
    Destroyed,
}

impl ApiKeySpec {
    /// Where tokens of another system come from, if that is where the key does.
    #[must_use]
    pub fn imported(&self) -> Option<&Imported> {
        self.source.as_ref()?.imported.as_ref()
    }
}

impl ApiKeyStatus {
    /// The version to use, if there is one.
    #[must_use]
    pub fn current(&self) -> Option<&VersionStatus> {
        self.versions.iter().find(|version| version.state == VersionState::Current)
    }
}

impl VersionState {
    /// Whether it was handed out and has not ended; its times may end it all the same.
    #[must_use]
    pub const fn is_live(self) -> bool {
        matches!(self, Self::Current | Self::Deprecated)
    }

    /// Whether it has ended for good.
    #[must_use]
    pub const fn has_ended(self) -> bool {
        matches!(self, Self::Revoked | Self::Destroyed)
    }
}

impl VersionStatus {
    /// Whether the version may be presented at `now`.
    #[must_use]
    pub fn is_valid(&self, now: Timestamp) -> bool {
        self.state.is_live() && now < self.expires_at.0 && self.destroy_at.as_ref().is_none_or(|end| now < end.0)
    }
}
