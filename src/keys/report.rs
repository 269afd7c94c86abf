//! What status says about an ApiKey, besides what the machine remembers in it.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{
    JobStep, KeyJob, Spec, job_under_way,
    offer::asked,
    rollout::{Progress, version_value},
    seen::Observed,
    step::Step,
    usage::{counted, is_news},
};
use crate::api::{
    ApiKeyStatus, VerifierCounts, VersionStatus,
    condition::{Conditions, Type, WRITE_REFUSED},
};

/// That the version in use ends soon, and nothing replaces it before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EndsSoon {
    /// Within 30 days.
    Month,
    /// Within 7 days.
    Week,
    /// Within a day.
    Day,
}

/// A version that was made so long ago is not soon in use: a test is ended after ten minutes.
const LATE: SignedDuration = SignedDuration::from_hours(1);

impl EndsSoon {
    const ALL: [Self; 3] = [Self::Day, Self::Week, Self::Month];

    const fn before(self) -> SignedDuration {
        SignedDuration::from_hours(match self {
            Self::Month => 30 * 24,
            Self::Week => 7 * 24,
            Self::Day => 24,
        })
    }

    /// Stable name, as reason of the condition `Expiring`.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Month => "Within30Days",
            Self::Week => "Within7Days",
            Self::Day => "Within1Day",
        }
    }

    /// By a reason.
    #[must_use]
    pub fn of_reason(reason: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.reason() == reason)
    }

    /// When each begins: none that is longer than versions are to live, or a short-lived key would never be without.
    fn begins(self, ttl: SignedDuration, version: &VersionStatus) -> Option<Timestamp> {
        version.expires_at.0.checked_sub(self.before()).ok().filter(|_| self.before() < ttl)
    }

    /// When something is to be said about a version.
    pub fn moments<'a>(spec: &'a Spec, version: &'a VersionStatus) -> impl Iterator<Item = Timestamp> + use<'a> {
        Self::ALL.into_iter().filter_map(|it| it.begins(spec.ttl, version))
    }

    /// Whether the current version ends soon and will not be replaced before.
    #[must_use]
    pub fn of(spec: &Spec, seen: &Observed, status: &ApiKeyStatus, now: Timestamp) -> Option<Self> {
        let current = status.current()?;
        // Nobody but the user replaces an imported token.
        let in_time =
            spec.imported.is_none() && status.next_rotation_time.as_ref().is_some_and(|at| at.0 < current.expires_at.0);
        // Verifiers that lag may do so for ever.
        let is_late = |n: i64| seen.secrets.get(&n).is_some_and(|it| now.duration_since(it.created_at) >= LATE);
        let on_its_way =
            status.next_version.is_some_and(|n| n != current.n && !is_late(n)) && status.failed_attempts.is_none();
        if in_time || on_its_way { None } else { Self::unless_mended(spec.ttl, status, now) }
    }

    /// Whether the current version ends soon, where nothing can replace it before as things are.
    fn unless_mended(ttl: SignedDuration, status: &ApiKeyStatus, now: Timestamp) -> Option<Self> {
        let current = status.current()?;
        Self::ALL.into_iter().find(|it| it.begins(ttl, current).is_some_and(|at| at <= now))
    }
}

/// Puts into a status what was counted.
pub fn count(spec: &Spec, seen: &Observed, status: &mut ApiKeyStatus, now: Timestamp) {
    status.usage = counted(spec, seen, status.usage.as_ref(), now);
    status.verifiers = verifier_counts(spec, seen);
    let current = status.current();
    status.consumers = current.filter(|_| spec.revoked.is_none()).map_or_else(Vec::new, |current| {
        let version = version_value(current.n, &current.id);
        seen.workloads.iter().map(|workload| workload.status(&version, now)).collect()
    });
}

/// Puts into a status that is looked at again and again how much the key was used: at once where nothing was known, and then
/// every `interval`.
pub fn count_seldom(spec: &Spec, seen: &Observed, status: &mut ApiKeyStatus, (interval, now): (Duration, Timestamp)) {
    let usage = counted(spec, seen, status.usage.as_ref(), now);
    if is_news(status.usage.as_ref(), usage.as_ref(), interval) {
        status.usage = usage;
    }
}

/// How many verifiers know the key as it is; `None` where none has to.
#[must_use]
pub fn verifier_counts(spec: &Spec, seen: &Observed) -> Option<VerifierCounts> {
    (spec.imported.is_none() && !seen.records.is_empty()).then(|| seen.verifier_counts())
}

/// The conditions of a status, given the step that is being taken.
#[must_use]
pub fn conditions(
    generation: Option<i64>,
    spec: &Spec,
    seen: &Observed,
    status: &ApiKeyStatus,
    step: &Step,
    now: Timestamp,
) -> Conditions {
    let mut conditions = Conditions::of_generation(generation);
    if let Step::Refuse(refusal) = step {
        let mut conditions = refused(generation, (refusal.reason(), &refusal.to_string()), spec.ttl, status, now);
        reached(&mut conditions, spec, seen, status, step, now);
        return conditions;
    }
    conditions.set(Type::Accepted, true, "Accepted", "");
    reached(&mut conditions, spec, seen, status, step, now);
    if let Some(reason) = &spec.revoked {
        revoked(&mut conditions, status, reason);
        return conditions;
    }
    let is_stuck = matches!(step, Step::Stuck { job, .. } if job.step != JobStep::Destroy);
    let soon =
        if is_stuck { EndsSoon::unless_mended(spec.ttl, status, now) } else { EndsSoon::of(spec, seen, status, now) };
    expiring(&mut conditions, soon);
    let failed = failed_job(seen, status, now).filter(|_| !is_stuck);
    let rotating = match &failed {
        Some(job) => Some(put_off(spec, status, job)),
        None => rotating(status, step),
    };
    if let Some((reason, message)) = &rotating {
        conditions.set(Type::Rotating, failed.is_none() && !is_stuck, reason, message.as_str());
        if !is_stuck {
            conditions.set(Type::Reconciling, true, reason, message.as_str());
        }
    }
    if let (None, Step::Stuck { job, problem }) = (&rotating, step) {
        let message = format!("version {} stays until it expires: {problem}", job.n);
        conditions.set(Type::Rotating, false, problem.reason(), message);
    }
    let asked = asked(spec, seen, status, now).filter(|_| rotating.is_none());
    if let Some((reason, message)) = &asked {
        conditions.set(Type::Rotating, false, reason, message.as_str());
    }
    let has_current = status.current().is_some();
    let (reason, message) = if spec.idle { (IDLE, UNUSED) } else { (SUSPENDED, REFUSED) };
    match (&rotating, has_current) {
        (_, true) => {
            conditions.set(Type::Programmed, true, "Programmed", "");
            conditions.set(Type::Ready, true, "Ready", "");
        }
        (Some((reason, message)), false) if is_stuck => {
            conditions.stall(reason, message);
        }
        (Some((reason, message)), false) => {
            conditions.set(Type::Programmed, false, reason, message.as_str());
            conditions.set(Type::Ready, false, reason, message.as_str());
        }
        (None, false) if spec.suspended => drop(conditions.set(Type::Programmed, false, reason, message)),
        (None, false) => {
            let (reason, message) = asked.unwrap_or_else(|| ("Expired", ENDED.into()));
            conditions.stall(reason, &message);
        }
    }
    if spec.suspended {
        conditions.set(Type::Ready, false, reason, message);
    }
    conditions
}

/// The conditions while nothing new is made, and why; what there is may end meanwhile. A version lives for `ttl`.
#[must_use]
pub fn refused(
    generation: Option<i64>,
    (reason, message): (&str, &str),
    ttl: SignedDuration,
    status: &ApiKeyStatus,
    now: Timestamp,
) -> Conditions {
    let mut conditions = Conditions::of_generation(generation);
    conditions.set(Type::Accepted, false, reason, message);
    expiring(&mut conditions, EndsSoon::unless_mended(ttl, status, now));
    conditions.stall(reason, message);
    conditions
}

/// Adds whether the clock is trusted, how far what is written has come, to verifiers and to workloads, and whether nobody
/// used it.
pub fn reached(
    conditions: &mut Conditions,
    spec: &Spec,
    seen: &Observed,
    status: &ApiKeyStatus,
    step: &Step,
    now: Timestamp,
) {
    if let Some(off) = &seen.clock_suspect {
        let message = format!(
            "the operator's clock is {off}: nothing ends, rotates or is suspended by the time alone; what somebody asks \
             for is done"
        );
        conditions.set(Type::ClockSuspect, true, CLOCK_SUSPECT, message);
    }
    if spec.imported.is_none() {
        verifiers(conditions, seen, step);
    }
    if spec.revoked.is_none() {
        consumers(conditions, seen, status, now);
    }
    if spec.idle {
        conditions.set(Type::Ready, false, IDLE, UNUSED);
    }
}

/// Adds that a write was refused, and how, to the conditions of its step: it is tried again. What is in use stays so.
pub fn write_refused(conditions: &mut Conditions, spec: &Spec, status: &ApiKeyStatus, message: &str, now: Timestamp) {
    conditions.set(Type::Rotating, false, WRITE_REFUSED, message);
    if spec.revoked.is_none() {
        expiring(conditions, EndsSoon::unless_mended(spec.ttl, status, now));
    }
    if conditions.is(Type::Stalled) {
        return;
    }
    // A key in use is no work in progress: the API server may refuse for ever.
    if conditions.is(Type::Programmed) {
        conditions.unset(Type::Reconciling);
    } else {
        conditions.set(Type::Reconciling, true, WRITE_REFUSED, message);
        conditions.set(Type::Programmed, false, WRITE_REFUSED, message);
        if spec.revoked.is_none() && !spec.suspended {
            conditions.set(Type::Ready, false, WRITE_REFUSED, message);
        }
    }
}

fn expiring(conditions: &mut Conditions, soon: Option<EndsSoon>) {
    if let Some(soon) = soon {
        let message = "the current version ends soon, and nothing replaces it before";
        conditions.set(Type::Expiring, true, soon.reason(), message);
    }
}

/// Whether a key is not Ready because somebody wants it so, or a policy: by the reason of its condition Ready.
#[must_use]
pub fn is_stopped(reason: &str) -> bool {
    [REVOKED, SUSPENDED, IDLE].contains(&reason)
}

const CLOCK_SUSPECT: &str = "ClockSuspect";
const REVOKED: &str = "Revoked";
const SUSPENDED: &str = "Suspended";
/// Reason of the condition Ready while a key is suspended because it was not used.
pub const IDLE: &str = "Idle";
const UNUSED: &str = "verifiers refuse every version, because none was used for as long as a ClusterSecurityPolicy allows \
                      (spec.apiKeys.suspendIdleAfter): ask for a rotation to revive it";
const ENDED: &str = "the last version has ended, and neither rotation.policy nor hardExpiry lets another be made";
const REFUSED: &str = "verifiers refuse every version until spec.suspended is taken out";

fn revoked(conditions: &mut Conditions, status: &ApiKeyStatus, reason: &str) {
    let done = !status.versions.iter().any(|version| version.state.is_live()) && status.next_version.is_none();
    let message = format!("revoked ({reason}): every version has ended for good; make another ApiKey");
    conditions.set(Type::Revoked, true, REVOKED, message.as_str());
    if done {
        conditions.set(Type::Programmed, true, "Programmed", "");
        conditions.set(Type::Stalled, true, REVOKED, message.as_str());
    } else {
        conditions.set(Type::Programmed, false, "Revoking", "its versions are being ended");
        conditions.set(Type::Reconciling, true, "Revoking", "its versions are being ended");
    }
    conditions.set(Type::Ready, false, REVOKED, message);
}

fn verifiers(conditions: &mut Conditions, seen: &Observed, step: &Step) {
    if seen.records.is_empty() {
        return;
    }
    let counts = seen.verifier_counts();
    let (desired, has) = (counts.desired, counts.up_to_date);
    let (status, reason, message) = match step {
        _ if desired == 0 => {
            (false, "NoVerifiers", "no verifier has reported within the last minute: a rotation waits for none".into())
        }
        _ if has == desired => (true, "Synced", String::new()),
        Step::AwaitVerifiers { n } => {
            (false, "Lagging", format!("{has} of {desired} verifiers are up to date: version {n} waits for the others"))
        }
        _ => (false, "Lagging", format!("{has} of {desired} verifiers are up to date")),
    };
    conditions.set(Type::VerifiersSynced, status, reason, message);
}

fn consumers(conditions: &mut Conditions, seen: &Observed, status: &ApiKeyStatus, now: Timestamp) {
    let Some(current) = status.current() else { return };
    let version = version_value(current.n, &current.id);
    let worst = seen.workloads.iter().map(|workload| (workload.progress(&version, now), workload));
    let Some((progress, workload)) = worst.max_by_key(|(progress, _)| *progress) else { return };
    let told = workload.status(&version, now);
    let message = told.message.map(|message| format!("{}: {message}", told.workload)).unwrap_or_default();
    conditions.set(Type::ConsumersUpdated, progress == Progress::Updated, progress.reason(), message);
}

/// The Job that failed last, while it waits to be repeated.
#[must_use]
pub fn failed_job(seen: &Observed, status: &ApiKeyStatus, now: Timestamp) -> Option<KeyJob> {
    status.retry_at.as_ref().filter(|at| now < at.0)?;
    let pending = status.next_version.and_then(|n| seen.secrets.get(&n)).map(|secret| secret.id.as_str());
    let next = job_under_way(status, pending)?;
    Some(KeyJob { attempt: next.attempt - 1, ..next })
}

fn put_off(spec: &Spec, status: &ApiKeyStatus, job: &KeyJob) -> (&'static str, String) {
    let (reason, what) = match job.step {
        JobStep::Test => ("TestFailed", "the test of"),
        JobStep::PreRotate => ("HookFailed", "the hook before"),
        JobStep::PostPromote => ("HookFailed", "the hook after the promotion of"),
        JobStep::Destroy => ("HookFailed", "the hook before the end of"),
    };
    let at = status.retry_at.as_ref().map(|at| at.0.to_string()).unwrap_or_default();
    (reason, format!("{what} version {} failed (Job {}), and is repeated at {at}", job.n, job.name(spec)))
}

fn rotating(status: &ApiKeyStatus, step: &Step) -> Option<(&'static str, String)> {
    let n = status.next_version?;
    let promoted = status.versions.iter().any(|version| version.n == n);
    Some(match step {
        Step::Stuck { job, problem } if job.step != JobStep::Destroy => (problem.reason(), problem.to_string()),
        Step::AwaitVerifiers { .. } => {
            ("AwaitingVerifiers", format!("version {n} waits until every verifier knows it"))
        }
        Step::AwaitJob(job) => match job.step {
            JobStep::Test => ("Testing", format!("version {n} is being tested")),
            JobStep::PreRotate => ("PreRotateHook", format!("the hook before version {n} runs")),
            JobStep::PostPromote => ("PostPromoteHook", format!("the hook after the promotion of version {n} runs")),
            JobStep::Destroy => ("Issuing", format!("version {n} is being made")),
        },
        _ if promoted => ("AwaitingConsumers", format!("consumers are being brought to version {n}")),
        _ => ("Issuing", format!("version {n} is being made")),
    })
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
