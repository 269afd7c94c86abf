//! The life of an ApiKey: rotation, rates, consumers, hooks, revocation.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::GoDuration;

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
    /// When scheduled rotations may begin; at any time unless given. A key that would end before the next window, or
    /// less than a tenth of `overlap` after it opens, and a rotation that was asked for, do not wait for one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub windows: Vec<RotationWindow>,
    /// When a replaced key is destroyed: when its overlap has elapsed, or only once it was not used for 24h, too.
    /// Its expiry ends it whatever happens.
    #[serde(default, skip_serializing_if = "RetireWhen::is_default")]
    pub retire_when: RetireWhen,
    /// A new value asks for one rotation now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_at: Option<Time>,
    /// How many destroyed and revoked versions status remembers.
    #[serde(default = "three", skip_serializing_if = "is_three")]
    #[schemars(range(min = 0, max = 10))]
    pub history_limit: i32,
}

fn ninety_days() -> GoDuration {
    GoDuration::hours(2160)
}

fn thirty_days() -> GoDuration {
    GoDuration::hours(720)
}

const fn three() -> i32 {
    3
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
const fn is_three(limit: &i32) -> bool {
    *limit == three()
}

impl Default for Rotation {
    fn default() -> Self {
        Self {
            policy: RotationPolicy::default(),
            interval: ninety_days(),
            overlap: thirty_days(),
            windows: vec![],
            retire_when: RetireWhen::default(),
            requested_at: None,
            history_limit: three(),
        }
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

/// When a replaced key is destroyed.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RetireWhen {
    /// When the overlap has elapsed.
    #[default]
    Elapsed,
    /// When the overlap has elapsed, and no verifier has seen the key for 24h.
    ElapsedAndIdle,
}

impl RetireWhen {
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    fn is_default(&self) -> bool {
        *self == Self::Elapsed
    }
}

/// A time in which scheduled rotations may begin.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RotationWindow {
    /// When it opens, as a cron expression of five fields: `0 2 * * 1-5`.
    #[schemars(length(min = 9, max = 128))]
    pub cron: String,
    /// How long it stays open; at least 5m.
    #[x_kube(validation = Rule::new("duration(self) >= duration('5m') && duration(self) <= duration('168h')").message("duration must be from 5m to 168h"))]
    pub duration: GoDuration,
    /// IANA time zone of the expression: `Europe/Berlin`.
    #[serde(default = "utc")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: String,
}

fn utc() -> String {
    "UTC".into()
}

/// A longer window allows no less than a shorter one, whichever are given.
pub(super) const RATE_RULE: &str = "(!has(self.perSecond) || !has(self.burst) || self.perSecond <= self.burst) && \
    (!has(self.perSecond) || !has(self.perMinute) || self.perSecond <= self.perMinute) && \
    (!has(self.perSecond) || !has(self.perHour) || self.perSecond <= self.perHour) && \
    (!has(self.perSecond) || !has(self.perDay) || self.perSecond <= self.perDay) && \
    (!has(self.burst) || !has(self.perMinute) || self.burst <= self.perMinute) && \
    (!has(self.burst) || !has(self.perHour) || self.burst <= self.perHour) && \
    (!has(self.burst) || !has(self.perDay) || self.burst <= self.perDay) && \
    (!has(self.perMinute) || !has(self.perHour) || self.perMinute <= self.perHour) && \
    (!has(self.perMinute) || !has(self.perDay) || self.perMinute <= self.perDay) && \
    (!has(self.perHour) || !has(self.perDay) || self.perHour <= self.perDay)";
pub(super) const RATE_MESSAGE: &str =
    "a longer window must not allow less than a shorter one: perSecond, burst (10 s), perMinute, perHour, perDay";

/// How many calls a key may make; what is absent is as large as the cluster's policy allows. The role's multiplier
/// applies to each.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(RATE_RULE).message(RATE_MESSAGE))]
pub struct RateLimit {
    /// Calls in a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub per_second: Option<i64>,
    /// Calls in ten seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub burst: Option<i64>,
    /// Calls in a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub per_minute: Option<i64>,
    /// Calls in an hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub per_hour: Option<i64>,
    /// Calls in a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub per_day: Option<i64>,
    /// Whether each key has these rates for itself, or all keys of the owner (`owner.customerId`) together.
    #[serde(default, skip_serializing_if = "RateShare::is_default")]
    pub shared: RateShare,
}

/// Who shares a rate.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RateShare {
    /// Each version of a key has its own.
    #[default]
    Key,
    /// All keys of an owner have one together.
    Owner,
}

impl RateShare {
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub(super) fn is_default(&self) -> bool {
        *self == Self::Key
    }
}

/// Why a key must never be used again.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Revocation {
    /// Why: `Leaked`, `Compromised`, `NoLongerNeeded`, or a word of your own.
    #[schemars(length(min = 1, max = 256))]
    pub reason: String,
}

/// A workload that reads the key at its start, and is restarted when the key has changed. It takes part only if it
/// carries the annotation `rampart.dev/restart-on-rotation: "true"`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RestartTarget {
    /// Its kind.
    pub kind: RestartKind,
    /// Its name, in the ApiKey's namespace.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// How long its roll-out is waited for before the condition ConsumersUpdated says that it is late.
    #[serde(default = "ten_minutes")]
    pub wait_timeout: GoDuration,
}

fn ten_minutes() -> GoDuration {
    "10m".parse().unwrap_or(GoDuration::hours(1))
}

/// Kinds of workloads that can be restarted.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RestartKind {
    /// apps/v1 Deployment.
    Deployment,
    /// apps/v1 StatefulSet.
    StatefulSet,
    /// apps/v1 DaemonSet.
    DaemonSet,
}

/// Jobs of your own at the steps of a rotation. Each is made from a suspended CronJob of the ApiKey's namespace that
/// carries the annotation `rampart.dev/key-hook: "true"`, once a version.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Hooks {
    /// Before a new version is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pre_rotate: Option<Hook>,
    /// Instead of the built-in test of a new version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<Hook>,
    /// When consumers have the new version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub post_promote: Option<Hook>,
    /// Before a replaced version is destroyed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destroy: Option<Hook>,
}

/// A suspended CronJob of which a Job is made.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Hook {
    /// Its name.
    #[schemars(length(min = 1, max = 52), regex(pattern = r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"))]
    pub cron_job_name: String,
}
