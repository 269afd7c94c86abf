//! An ApiKey's spec, parsed.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{Observed, Step, caps::Caps, grant::Grant};
use crate::api::{ApiKey, GoDuration, Invalid, Owner, RotationPolicy, SecretKeys};

/// What an ApiKey asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Namespace of the ApiKey.
    pub namespace: String,
    /// Name of the ApiKey.
    pub name: String,
    /// Whose key it is.
    pub owner: Owner,
    /// Services that it is for, sorted.
    pub audiences: Vec<String>,
    /// What it may do.
    pub grant: Grant,
    /// First part of the key.
    pub prefix: String,
    /// How long a version lives.
    pub ttl: SignedDuration,
    /// When it is replaced.
    pub rotation: Rotation,
    /// Name of the Secret that consumers mount.
    pub consumer: String,
    /// Names of its entries.
    pub entries: SecretKeys,
}

/// When a key is replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotation {
    /// Time from one rotation to the next, where that is automatic.
    pub interval: Option<SignedDuration>,
    /// How long a replaced version stays valid.
    pub overlap: SignedDuration,
    /// The moment for which somebody asked for a rotation, to the second.
    pub requested: Option<Timestamp>,
}

impl Spec {
    /// Reads an ApiKey, within what the cluster allows.
    ///
    /// # Errors
    /// When it asks for what can't be, or for more than it may.
    pub fn parse(key: &ApiKey, caps: &Caps) -> Result<Self, Invalid> {
        Self::read(key, Some(caps))
    }

    /// Reads an ApiKey that may ask for more than the cluster allows, with what is beyond it. Such a one grants
    /// nothing and is never due: its versions live on, and none is issued ([`is_issue`]).
    ///
    /// # Errors
    /// When it asks for what can't be.
    pub fn tolerate(key: &ApiKey, caps: &Caps) -> Result<(Self, Option<Invalid>), Invalid> {
        match Self::parse(key, caps) {
            Ok(spec) => Ok((spec, None)),
            Err(beyond) => {
                let mut spec = Self::read(key, None)?;
                (spec.rotation.interval, spec.rotation.requested) = (None, None);
                Ok((spec, Some(beyond)))
            }
        }
    }

    /// `caps` are `None` where they do not count.
    fn read(key: &ApiKey, caps: Option<&Caps>) -> Result<Self, Invalid> {
        let spec = &key.spec;
        let namespace = key.metadata.namespace.clone().unwrap_or_default();
        let name = key.metadata.name.clone().unwrap_or_default();
        if name.len() > 40 {
            return Err(Invalid::at("metadata.name", "must be at most 40 characters: Jobs are named after it"));
        }
        if spec.rotation.policy == RotationPolicy::Disabled && spec.ttl.is_none() {
            return Err(Invalid::at("spec.ttl", "a key that is never rotated needs a ttl: say how long it may live"));
        }
        let ttl = duration(spec.ttl.unwrap_or(GoDuration::hours(8760)), "spec.ttl")?;
        let interval = duration(spec.rotation.interval, "spec.rotation.interval")?;
        let overlap = SignedDuration::try_from(spec.rotation.overlap.get());
        let overlap = overlap.map_err(|_| Invalid::at("spec.rotation.overlap", "is too long"))?;
        check_times(spec.rotation.policy, ttl, interval, overlap)?;
        let grant = caps.map_or_else(|| Ok(Grant::nothing()), |caps| caps.check(&namespace, spec, ttl))?;
        let mut audiences = spec.audiences.clone();
        audiences.sort();
        let requested =
            spec.rotation.requested_at.as_ref().and_then(|time| Timestamp::from_second(time.0.as_second()).ok());
        Ok(Self {
            owner: spec.owner.clone(),
            audiences,
            grant,
            prefix: spec.prefix.clone(),
            ttl,
            rotation: Rotation {
                interval: (spec.rotation.policy == RotationPolicy::Automatic).then_some(interval),
                overlap,
                requested: requested.filter(|_| spec.rotation.policy != RotationPolicy::Disabled),
            },
            consumer: spec.secret.name.clone(),
            entries: spec.secret.keys.clone(),
            namespace,
            name,
        })
    }

    /// Name of the Secret of version `n`.
    #[must_use]
    pub fn secret_name(&self, n: i64) -> String {
        format!("{}-v{n}", self.name)
    }
}

/// Whether a step brings a new version closer, or gives verifiers a record anew: what waits while an ApiKey asks for more
/// than the cluster allows. What ends versions goes on.
#[must_use]
pub fn is_issue(step: &Step, seen: &Observed) -> bool {
    match step {
        Step::Remember(status) => status.next_version.is_some() && status.next_version != seen.status.next_version,
        Step::CreateSecret { .. } | Step::CreateRecord { .. } | Step::StartTest { .. } => true,
        _ => false,
    }
}

fn duration(duration: GoDuration, field: &str) -> Result<SignedDuration, Invalid> {
    if duration.get() < Duration::from_secs(1) {
        return Err(Invalid::at(field, "must be at least 1s"));
    }
    SignedDuration::try_from(duration.get()).map_err(|_| Invalid::at(field, "is too long"))
}

/// The same rules as in the CRD, for those who come here without it.
fn check_times(
    policy: RotationPolicy,
    ttl: SignedDuration,
    interval: SignedDuration,
    overlap: SignedDuration,
) -> Result<(), Invalid> {
    let at = |problem| Err(Invalid::at("spec.rotation.overlap", problem));
    match policy {
        RotationPolicy::Automatic if overlap >= interval => at("must be shorter than rotation.interval"),
        RotationPolicy::Automatic if interval.checked_add(overlap).is_none_or(|sum| sum > ttl) => {
            at("rotation.interval plus rotation.overlap must fit into ttl")
        }
        RotationPolicy::Manual if overlap >= ttl => at("must be shorter than ttl"),
        _ => Ok(()),
    }
}
