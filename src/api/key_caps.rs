//! What ApiKeys of some namespaces may ask for, as a ClusterSecurityPolicy says it.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{GoDuration, Verb};

/// A built-in role is given by its name; one of your own says what it may do.
const ROLE_RULE: &str = "self.name in ['Viewer', 'Editor', 'Admin'] ? \
    !has(self.verbs) && !has(self.permissions) && !has(self.rateMultiplier) : \
    (has(self.verbs) && self.verbs.size() > 0) || (has(self.permissions) && self.permissions.size() > 0)";

/// Of permissions: services are told of verbs by these words, beside permissions.
pub(super) const PERMISSION_RULE: &str = "self.all(it, !(it in ['read', 'write', 'delete', 'admin']))";
pub(super) const PERMISSION_MESSAGE: &str =
    "read, write, delete and admin are what a role may do: give a permission another name, as orders.read";

/// What ApiKeys may ask for. What is absent is as without a policy; where several policies say something, the strictest
/// holds. Keys that are in use when a cap comes stay valid: no new version is issued until their ApiKey keeps to it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct KeyCaps {
    /// The longest `ttl` that a key may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("duration(self) > duration('0s')").message("maxTtl must be longer than 0s"))]
    pub max_ttl: Option<GoDuration>,
    /// The longest time from one rotation to the next; keys must then be rotated by themselves (`Automatic`). No
    /// window puts a rotation off beyond it; a key that is suspended, or that `deletionPolicy: Retain` leaves, is rotated no
    /// more, and ends by its `ttl`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("duration(self) > duration('0s')").message("maxRotationInterval must be longer than 0s"))]
    pub max_rotation_interval: Option<GoDuration>,
    /// All roles that keys may have: built-in ones by name alone, and your own. Permissions that a key asks for itself
    /// must then be within those of one of these roles. Absent: Viewer, Editor, and any permissions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub roles: Option<Vec<KeyRole>>,
    /// Services that keys may be for, by name, with a wildcard at the end if need be: `orders-*`. Absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 253), regex(pattern = r"^[^*]*\*?$")))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub audiences: Option<Vec<String>>,
    /// Owners that keys may have, by `customerId`, with a wildcard at the end if need be: `acme-*`, or `*` for any.
    /// Absent: the name of the namespace alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), inner(length(min = 1, max = 63), regex(pattern = r"^[-a-z0-9]*\*?$")))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub customer_ids: Option<Vec<String>>,
    /// The highest rates that a key may have, before its role's multiplier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_rate: Option<MaxRate>,
    /// Keys that no verifier has seen for so long are suspended. Usage is known to a minute or two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("duration(self) > duration('0s')").message("suspendIdleAfter must be longer than 0s"))]
    pub suspend_idle_after: Option<GoDuration>,
}

/// A role.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(ROLE_RULE).message("Viewer, Editor and Admin are given by name alone; a role of your own needs verbs or permissions"))]
pub struct KeyRole {
    /// Its name: Viewer, Editor or Admin, or one of your own.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[A-Za-z]([-A-Za-z0-9]*[A-Za-z0-9])?$"))]
    pub name: String,
    /// What it may do on routes that state no permission.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub verbs: Vec<Verb>,
    /// Permissions that it has: `orders.read`, `orders.*` for all below, `*` for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 128), regex(pattern = r"^(\*|[a-z0-9_-]+(\.[a-z0-9_-]+)*(\.\*)?)$"))
    )]
    #[x_kube(merge_strategy = ListMerge::Set, validation = Rule::new(PERMISSION_RULE).message(PERMISSION_MESSAGE))]
    pub permissions: Vec<String>,
    /// By how much rates are multiplied: `0.1`, `2`. 1 unless given; three decimals count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.001, max = 1000.0))]
    pub rate_multiplier: Option<f64>,
}

/// The highest rates. A window that is absent has its default, or as much as the windows beside it need: a longer one
/// never allows less than a shorter one.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(super::key_life::RATE_RULE).message(super::key_life::RATE_MESSAGE))]
pub struct MaxRate {
    /// Calls in a second; 10 unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub per_second: Option<i64>,
    /// Calls in ten seconds; 20 unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub burst: Option<i64>,
    /// Calls in a minute; 100 unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub per_minute: Option<i64>,
    /// Calls in an hour; 1,000 unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub per_hour: Option<i64>,
    /// Calls in a day; 10,000 unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub per_day: Option<i64>,
}
