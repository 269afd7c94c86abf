//! An ApiKey's spec, parsed.

use std::{borrow::Cow, time::Duration};

use jiff::{SignedDuration, Timestamp};

use super::{
    JobStep, Observed, Step,
    caps::Caps,
    grant::Grant,
    import::Import,
    usage::{idle_since, is_told_idle},
    windows::Windows,
};
use crate::api::{
    ApiKey, DeletionPolicy, GoDuration, Hooks, Invalid, Owner, RestartTarget, RetireWhen, RotationPolicy, SecretKeys,
    whole_second,
};

/// What an ApiKey asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Namespace of the ApiKey.
    pub namespace: String,
    /// Name of the ApiKey.
    pub name: String,
    /// Its UID: another one of that name, made when it was deleted, has another. Nothing that outlives it goes by this.
    pub uid: String,
    /// Whose key it is.
    pub owner: Owner,
    /// Services that it is for, sorted.
    pub audiences: Vec<String>,
    /// What it may do; none while it asks for more than it may, and then it keeps what it had.
    pub grant: Option<Grant>,
    /// Where tokens of another system come from, if that is where versions do; else they are made here.
    pub imported: Option<Import>,
    /// First part of a key that is made.
    pub prefix: String,
    /// How long a version lives.
    pub ttl: SignedDuration,
    /// When every version has ended, and none is made any more.
    pub hard_expiry: Option<Timestamp>,
    /// Whether verifiers refuse it for now.
    pub suspended: bool,
    /// Whether they do because it was not used for so long as a cluster policy allows.
    pub idle: bool,
    /// After so long without use it is suspended.
    pub suspend_idle_after: Option<SignedDuration>,
    /// Why it was revoked, if it was.
    pub revoked: Option<String>,
    /// When it is replaced.
    pub rotation: Rotation,
    /// Workloads that are restarted when it has changed.
    pub restart_targets: Vec<RestartTarget>,
    /// Jobs of the user's own at the steps of a rotation.
    pub hooks: Hooks,
    /// Name of the Secret that consumers mount.
    pub consumer: String,
    /// Names of its entries.
    pub entries: SecretKeys,
    /// Whether Secrets and keys live on when the ApiKey is deleted.
    pub retained: bool,
}

/// When a key is replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotation {
    /// Time from one rotation to the next, where that is automatic.
    pub interval: Option<SignedDuration>,
    /// The longest such time that cluster policies allow: no window is waited for beyond it.
    pub longest: Option<SignedDuration>,
    /// How long a replaced version stays valid.
    pub overlap: SignedDuration,
    /// The moment for which somebody asked for a rotation, to the second.
    pub requested: Option<Timestamp>,
    /// When scheduled rotations may begin.
    pub windows: Windows,
    /// When a replaced version is destroyed.
    pub retire_when: RetireWhen,
    /// How many versions that have ended status remembers.
    pub history: usize,
}

impl Spec {
    /// Reads an ApiKey, within what the cluster allows.
    ///
    /// # Errors
    /// When it asks for what can't be, or for more than it may.
    pub fn parse(key: &ApiKey, caps: &Caps) -> Result<Self, Invalid> {
        Self::read(key, Some(caps))
    }

    /// Reads an ApiKey that may ask for more than the cluster allows, or for a format of tokens that only an earlier
    /// build took, with what is beyond that. Such a one is never due: its versions live on with what they were granted,
    /// and none is issued ([`is_issue`]).
    ///
    /// # Errors
    /// When it asks for what can't be.
    pub fn tolerate(key: &ApiKey, caps: &Caps) -> Result<(Self, Option<Invalid>), Invalid> {
        match Self::parse(key, caps) {
            Ok(spec) => Ok((spec, None)),
            Err(beyond) => {
                let mut spec = Self::read(key, None)?;
                (spec.rotation.interval, spec.rotation.requested) = (None, None);
                // Who is beyond one cap is not let off another.
                spec.suspend_idle_after = caps.suspend_idle_after.filter(|_| spec.imported.is_none());
                Ok((spec, Some(beyond)))
            }
        }
    }

    /// `caps` are `None` where it is only tolerated, and they do not count.
    fn read(key: &ApiKey, caps: Option<&Caps>) -> Result<Self, Invalid> {
        let spec = &key.spec;
        let namespace = key.metadata.namespace.clone().unwrap_or_default();
        let name = key.metadata.name.clone().unwrap_or_default();
        if name.len() > 40 {
            return Err(Invalid::at("metadata.name", "must be at most 40 characters: Jobs are named after it"));
        }
        if let Some(revocation) = &spec.revocation {
            // Whatever else it asks for: a key that is revoked ends.
            return Ok(Self::of_revoked(key, &revocation.reason));
        }
        let imported = Import::parse(spec, caps.is_none())?;
        // Where it came past the CRD, what lives lives on.
        if caps.is_some() && is_of_version(&spec.secret.name, &name) {
            let problem =
                "must not be metadata.name followed by -v and a number: versions are called so; make another ApiKey";
            return Err(Invalid::at("spec.secret.name", problem));
        }
        if spec.rotation.policy == RotationPolicy::Disabled && spec.ttl.is_none() {
            return Err(Invalid::at("spec.ttl", "a key that is never rotated needs a ttl: say how long it may live"));
        }
        let ttl = duration(spec.ttl.unwrap_or(GoDuration::hours(8760)), "spec.ttl")?;
        let interval = duration(spec.rotation.interval, "spec.rotation.interval")?;
        let overlap = SignedDuration::try_from(spec.rotation.overlap.get());
        let overlap = overlap.map_err(|_| Invalid::at("spec.rotation.overlap", "is too long"))?;
        check_times(spec.rotation.policy, ttl, interval, overlap)?;
        let grant = caps.map(|caps| caps.check(&namespace, spec, ttl)).transpose()?;
        let mut audiences = spec.audiences.clone();
        audiences.sort();
        let requested = spec.rotation.requested_at.as_ref().map(|time| whole_second(time.0));
        Ok(Self {
            owner: spec.owner.clone(),
            audiences,
            grant,
            prefix: spec.prefix.clone(),
            ttl,
            rotation: Rotation {
                interval: (spec.rotation.policy == RotationPolicy::Automatic).then_some(interval),
                longest: caps.and_then(Caps::max_rotation_interval),
                overlap,
                requested: requested.filter(|_| spec.rotation.policy != RotationPolicy::Disabled),
                windows: Windows::parse(&spec.rotation.windows)?,
                retire_when: spec.rotation.retire_when,
                history: usize::try_from(spec.rotation.history_limit.clamp(0, 10)).unwrap_or_default(),
            },
            hard_expiry: spec.hard_expiry.as_ref().map(|time| whole_second(time.0)),
            suspended: spec.suspended == Some(true),
            idle: false,
            // Nobody sees an imported token used.
            suspend_idle_after: caps.and_then(|caps| caps.suspend_idle_after).filter(|_| imported.is_none()),
            revoked: None,
            restart_targets: spec.restart_targets.clone(),
            hooks: spec.hooks.clone().unwrap_or_default(),
            consumer: spec.secret.name.clone(),
            entries: spec.secret.keys.clone(),
            imported,
            retained: spec.secret.deletion_policy == DeletionPolicy::Retain,
            namespace,
            name,
            uid: key.metadata.uid.clone().unwrap_or_default(),
        })
    }

    /// The same as of `now`: suspended, if it was not used for too long. By a clock that is not trusted nothing is newly
    /// suspended; what is stays so, or is revived, by the API server's.
    #[must_use]
    pub fn as_of(&self, seen: &Observed, now: Timestamp) -> Cow<'_, Self> {
        let is_sure = seen.clock_suspect.is_none();
        let over = is_sure && self.hard_expiry.is_some_and(|end| end <= now);
        let may_be = is_sure || seen.is_suspended() || is_told_idle(seen);
        let time = if is_sure { now } else { seen.server_time(now) };
        if self.suspended || over || !may_be || self.idle_at(seen).is_none_or(|at| time < at) {
            return Cow::Borrowed(self);
        }
        Cow::Owned(Self { suspended: true, idle: true, ..self.clone() })
    }

    /// Whether the time says that it is suspended for want of use, or that it is so no more.
    pub(super) fn is_idle_by_time(&self, seen: &Observed, now: Timestamp) -> bool {
        let may_revive = !self.suspended && seen.is_suspended() && self.idle_at(seen).is_some();
        may_revive || self.as_of(seen, now).idle
    }

    /// When it will have been without use for too long, as things are.
    #[must_use]
    pub(super) fn idle_at(&self, seen: &Observed) -> Option<Timestamp> {
        idle_since(self, seen)?.checked_add(self.suspend_idle_after?).ok()
    }

    /// All that is left to know of a key that is revoked.
    fn of_revoked(key: &ApiKey, reason: &str) -> Self {
        let spec = &key.spec;
        let mut audiences = spec.audiences.clone();
        audiences.sort();
        Self {
            namespace: key.metadata.namespace.clone().unwrap_or_default(),
            name: key.metadata.name.clone().unwrap_or_default(),
            uid: key.metadata.uid.clone().unwrap_or_default(),
            owner: spec.owner.clone(),
            audiences,
            grant: Some(Grant::nothing()),
            imported: spec.imported().map(Import::of_revoked),
            prefix: spec.prefix.clone(),
            ttl: SignedDuration::ZERO,
            hard_expiry: None,
            suspended: false,
            idle: false,
            suspend_idle_after: None,
            revoked: Some(reason.to_owned()),
            rotation: Rotation {
                interval: None,
                longest: None,
                overlap: SignedDuration::ZERO,
                requested: None,
                windows: Windows::default(),
                retire_when: RetireWhen::Elapsed,
                history: 10,
            },
            restart_targets: vec![],
            hooks: Hooks::default(),
            consumer: spec.secret.name.clone(),
            entries: spec.secret.keys.clone(),
            retained: false,
        }
    }

    /// Name of the Secret of version `n`.
    #[must_use]
    pub fn secret_name(&self, n: i64) -> String {
        format!("{}-v{n}", self.name)
    }
}

/// Whether a step brings a new version closer, or gives verifiers a record anew: what waits while an ApiKey is only
/// tolerated ([`Spec::tolerate`]). What ends versions goes on.
#[must_use]
pub fn is_issue(step: &Step, seen: &Observed) -> bool {
    match step {
        Step::Remember(status) => status.next_version.is_some() && status.next_version != seen.status.next_version,
        Step::CreateSecret { .. } | Step::CreateRecord { .. } => true,
        // Hooks after the promotion and before the end go with versions that there are.
        Step::StartJob(job) => matches!(job.step, JobStep::PreRotate | JobStep::Test),
        _ => false,
    }
}

/// Whether a Secret's name is that of a version, as [`Spec::secret_name`] gives it.
fn is_of_version(secret: &str, key: &str) -> bool {
    let n = secret.strip_prefix(key).and_then(|rest| rest.strip_prefix("-v"));
    n.is_some_and(|n| !n.is_empty() && n.bytes().all(|byte| byte.is_ascii_digit()))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_of_consumers_is_not_called_as_a_version() {
        let read = |name: &str| {
            let key: ApiKey = serde_json::from_value(serde_json::json!({
                "metadata": {"name": "k", "namespace": "n"},
                "spec": {"owner": {"customerId": "n"}, "audiences": ["a"], "role": "Viewer", "prefix": "ab",
                         "secret": {"name": name}},
            }))
            .unwrap();
            let beyond = Spec::tolerate(&key, &Caps::default()).unwrap().1;
            beyond.map_or_else(String::new, |beyond| beyond.to_string())
        };
        assert!(read("k-v12").starts_with("spec.secret.name: must not be metadata.name"), "{}", read("k-v12"));
        assert_eq!(["k", "k-v", "k-v1-key", "k-version", "other-v1", "kk-v1"].map(read), [""; 6]);
    }
}
