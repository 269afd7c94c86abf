//! `KeyRecord`: what a verifier needs to know about a key, and never the key.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Owner, RateShare};

/// A KeyRecord is internal: Rampart keeps one for each version of an ApiKey in the namespace
/// `rampart-keys`, named by the id of the key. It holds the digest, never the key. The record of a
/// destroyed key stays as a tombstone, so that its id is never used again.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "rampart.dev",
    version = "v1alpha1",
    kind = "KeyRecord",
    namespaced,
    plural = "keyrecords",
    doc = "A KeyRecord is internal: what a verifier needs to know about one version of an ApiKey, and never the key.",
    derive = "PartialEq",
    printcolumn(name = "Namespace", type_ = "string", json_path = ".spec.apiKey.namespace"),
    printcolumn(name = "ApiKey", type_ = "string", json_path = ".spec.apiKey.name"),
    printcolumn(name = "Version", type_ = "integer", json_path = ".spec.apiKey.version"),
    printcolumn(name = "State", type_ = "string", json_path = ".spec.state"),
    printcolumn(name = "Expires", type_ = "string", json_path = ".spec.expiresAt"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct KeyRecordSpec {
    /// The ApiKey that the key is a version of.
    pub api_key: ApiKeyRef,
    /// `sha256:` and the digest of the whole key in hex; absent on a tombstone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 71))]
    pub digest: Option<String>,
    /// Whose key it is.
    pub owner: Owner,
    /// Role, empty on a tombstone.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 63))]
    pub role: String,
    /// What it may do on a route that states no permission: by the role. Empty: nothing there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    pub verbs: Vec<Verb>,
    /// Permissions that it has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub permissions: Vec<String>,
    /// How many calls it may make; the role's multiplier is in it. Absent on a tombstone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// Services that the key is for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub audiences: Vec<String>,
    /// When it ends whatever happens.
    pub expires_at: Time,
    /// Where it stands.
    pub state: RecordState,
    /// Id of its successor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub replaced_by: Option<String>,
    /// When it stops being valid, once replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destroy_at: Option<Time>,
}

/// A version of an ApiKey.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ApiKeyRef {
    /// Namespace of the ApiKey.
    #[schemars(length(max = 63))]
    pub namespace: String,
    /// Name of the ApiKey.
    #[schemars(length(max = 63))]
    pub name: String,
    /// Number of the version.
    pub version: i64,
}

/// Where a key stands, as a verifier sees it.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordState {
    /// Valid until it expires.
    Active,
    /// Replaced, and valid until `destroyAt`.
    Deprecated,
    /// Refused until somebody ends the suspension.
    Suspended,
    /// Never valid again: somebody revoked it.
    Revoked,
    /// Never valid again.
    Destroyed,
}

impl RecordState {
    /// Whether the record is a tombstone: the id is never used again, and the record never changes.
    #[must_use]
    pub const fn is_tombstone(self) -> bool {
        matches!(self, Self::Revoked | Self::Destroyed)
    }
}

/// What a key may do with a service.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// GET, HEAD, OPTIONS.
    Read,
    /// POST, PUT, PATCH.
    Write,
    /// DELETE.
    Delete,
    /// Any method, on the paths that the verifier was told are for administrators.
    Admin,
}

impl Verb {
    /// As a service is told of it, in `X-ApiKey-Scopes`: no permission is called so.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Delete => "delete",
            Self::Admin => "admin",
        }
    }

    /// Whether it is the word of a verb.
    #[must_use]
    pub fn is_word(text: &str) -> bool {
        [Self::Read, Self::Write, Self::Delete, Self::Admin].into_iter().any(|verb| verb.word() == text)
    }
}

/// How many calls a key may make in each window.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Calls in a second.
    pub per_second: i64,
    /// Calls in ten seconds.
    pub burst: i64,
    /// Calls in a minute.
    pub per_minute: i64,
    /// Calls in an hour.
    pub per_hour: i64,
    /// Calls in a day.
    pub per_day: i64,
    /// Who shares them.
    #[serde(default, skip_serializing_if = "RateShare::is_default")]
    pub shared: RateShare,
}
