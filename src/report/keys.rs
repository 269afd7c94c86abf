//! Keys by age. Names, ids and dates alone: there is no key in an ApiKey.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::policies::ready;
use crate::api::{ApiKey, ApiKeyStatus, RotationPolicy, VersionStatus};

/// An ApiKey.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Key {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Whose key it is.
    pub owner: String,
    /// What it may do: a role, or permissions.
    pub grants: Vec<String>,
    /// First part of every key of it, by which people recognise it.
    pub prefix: String,
    /// Where it stands.
    pub state: KeyStanding,
    /// What makes it rotate.
    pub rotation: RotationPolicy,
    /// Whether nothing is issued, rotated or destroyed until that is taken back.
    pub suspend: bool,
    /// Whether it is a token of another system, which a person supplies anew.
    pub imported: bool,
    /// When the version in use was made; absent: none is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
    /// When the version in use ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// Whole days since the version in use was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_days: Option<i64>,
    /// When it is due for rotation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_rotation_time: Option<Timestamp>,
    /// When any version was used last; known to a minute or two.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_used: Option<Timestamp>,
    /// Versions that exist, and the last ones that have ended.
    pub versions: Vec<VersionStatus>,
    /// Whether it is ready.
    pub ready: bool,
    /// Why, or why not.
    pub reason: String,
}

/// Where a key stands; the first that is so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum KeyStanding {
    /// Somebody ended it, for ever.
    Revoked,
    /// Verifiers refuse it until that is taken back.
    Suspended,
    /// No version is in use.
    NotIssued,
    /// The version in use has ended.
    Expired,
    /// It was to be rotated, and was not.
    Overdue,
    /// A version is in use.
    InUse,
}

/// How many keys in use are so old.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AgeBand {
    /// From so many days.
    pub from_days: i64,
    /// To less than so many; absent: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub below_days: Option<i64>,
    /// How many.
    pub keys: usize,
}

/// Rotations take a while, with verifiers, tests and hooks: one that is later than that is overdue.
const SLACK: SignedDuration = SignedDuration::from_hours(1);
/// Days: the default interval of rotation is 90, the default life 365.
const BANDS: [(i64, Option<i64>); 4] = [(0, Some(30)), (30, Some(90)), (90, Some(365)), (365, None)];

/// All of them, the oldest version in use first, those without one last.
pub(super) fn keys(all: &[ApiKey], now: Timestamp) -> Vec<Key> {
    let mut told: Vec<Key> = all.iter().map(|it| key(it, now)).collect();
    told.sort_by_key(|it| (it.created_at.is_none(), it.created_at, it.namespace.clone(), it.name.clone()));
    told
}

fn key(key: &ApiKey, now: Timestamp) -> Key {
    let (spec, status) = (&key.spec, key.status.clone().unwrap_or_default());
    let current = status.current();
    let is_current = status.observed_generation == key.metadata.generation;
    let (ready, reason) = ready(&status.conditions, is_current);
    Key {
        namespace: key.metadata.namespace.clone().unwrap_or_default(),
        name: key.metadata.name.clone().unwrap_or_default(),
        owner: spec.owner.customer_id.clone(),
        grants: spec.role.iter().chain(&spec.permissions).cloned().collect(),
        prefix: spec.prefix.clone(),
        state: standing(key, &status, current, now),
        rotation: spec.rotation.policy,
        suspend: spec.suspend == Some(true),
        imported: spec.imported().is_some(),
        created_at: current.map(|it| it.created_at.0),
        expires_at: current.map(|it| it.expires_at.0),
        age_days: current.map(|it| now.duration_since(it.created_at.0).as_hours() / 24),
        next_rotation_time: status.next_rotation_time.as_ref().map(|it| it.0),
        last_used: status.usage.as_ref().and_then(|usage| usage.last_used.as_ref()).map(|it| it.0),
        ready,
        reason,
        versions: status.versions,
    }
}

fn standing(key: &ApiKey, status: &ApiKeyStatus, current: Option<&VersionStatus>, now: Timestamp) -> KeyStanding {
    let due = status.next_rotation_time.as_ref().map(|it| it.0);
    match current {
        _ if key.spec.revocation.is_some() => KeyStanding::Revoked,
        _ if key.spec.suspended == Some(true) => KeyStanding::Suspended,
        None => KeyStanding::NotIssued,
        Some(version) if !version.is_valid(now) => KeyStanding::Expired,
        Some(_) if due.is_some_and(|due| now.duration_since(due) > SLACK) => KeyStanding::Overdue,
        Some(_) => KeyStanding::InUse,
    }
}

impl Key {
    /// Whether it is replaced by itself, and in time.
    pub(super) fn rotates(&self) -> bool {
        let is_automatic = self.rotation == RotationPolicy::Automatic && !self.suspend && !self.imported;
        is_automatic && self.state == KeyStanding::InUse && self.ready
    }
}

/// How many keys in use are how old.
pub(super) fn by_age(keys: &[Key]) -> Vec<AgeBand> {
    let ages = || keys.iter().filter(|it| it.state != KeyStanding::Revoked).filter_map(|it| it.age_days);
    let band = |(from_days, below_days): (i64, Option<i64>)| AgeBand {
        from_days,
        below_days,
        keys: ages().filter(|age| *age >= from_days && below_days.is_none_or(|below| *age < below)).count(),
    };
    BANDS.into_iter().map(band).collect()
}
