//! The rotation machine: from what is asked and what is there to the one next step.
//!
//! Issue: verifiers first, then consumers. Retire: verifiers first forget, then consumers. A live value is
//! never edited: a version is added, and what points to it is moved. The number of a new version is
//! written down before anything is made, so that whoever is killed in between finds what was made.

mod adopt;
mod consumers;
mod import;
mod issue;
mod records;
mod retire;
mod revoke;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    JobSeen, JobStep, KeyJob, Spec, hook_of,
    offer::end_of,
    report::EndsSoon,
    schedule::{due_at, expires},
    seen::{ConsumerSeen, Observed, SecretSeen, VerifierSeen},
    step::{Refusal, Step},
};
use crate::api::{ApiKeyStatus, VersionState, VersionStatus, whole_second};

/// First pause after a failed test or hook; it doubles to 32 h.
const FIRST_RETRY: SignedDuration = SignedDuration::from_hours(1);
/// Versions that may live at once: a status has room for 32, and remembers some that have ended.
const MOST_LIVE: usize = 20;

/// Decides the next step.
#[must_use]
pub fn decide(spec: &Spec, seen: &Observed, now: Timestamp) -> Step {
    let machine = Machine { spec, seen, now: whole_second(now) };
    if spec.revoked.is_some() {
        return machine.revoke().unwrap_or(Step::Rest { until: None });
    }
    let phases = [
        Machine::adopt,
        Machine::retire,
        Machine::revise,
        Machine::sync_records,
        Machine::end_strays,
        Machine::refuse_foreign,
        Machine::sweep,
        Machine::issue,
        Machine::mend_consumer,
        Machine::restart,
    ];
    let mut waiting = None;
    for phase in phases {
        match phase(&machine) {
            // What has to wait keeps nothing else from being done.
            Some(step) if step.is_wait() => waiting = Some(step),
            Some(step) => return step,
            None => {}
        }
    }
    waiting.unwrap_or_else(|| machine.rest())
}

/// The next moment at which something is to be done, whatever is waited for.
#[must_use]
pub fn next_moment(spec: &Spec, seen: &Observed, now: Timestamp) -> Option<Timestamp> {
    Machine { spec, seen, now }.next_moment()
}

/// Whether some workload is to be restarted.
#[must_use]
pub fn restarts(spec: &Spec, seen: &Observed, now: Timestamp) -> bool {
    Machine { spec, seen, now }.restart().is_some()
}

/// Whether what comes next comes by the time alone: it is as right as the clock.
#[must_use]
pub fn is_of_time(spec: &Spec, seen: &Observed, now: Timestamp) -> bool {
    seen.clock_suspect.is_none() && (spec.is_idle_by_time(seen, now) || differs(spec, seen, seen.skew, now))
}

/// Whether what comes next depends on the clock: it comes by the time alone, or an end is counted from now.
#[must_use]
pub fn is_of_clock(spec: &Spec, seen: &Observed, now: Timestamp) -> bool {
    let by_time = seen.clock_suspect.is_none() && spec.is_idle_by_time(seen, now);
    // No clock is so far ahead: whatever end is counted from now is another one then.
    by_time || differs(spec, seen, SignedDuration::MAX, now)
}

/// Whether what comes next would wait for one more verifier: it is as right as it is known which there are.
#[must_use]
pub fn is_of_verifiers(spec: &Spec, seen: &Observed, now: Timestamp) -> bool {
    let spec = spec.as_of(seen, now);
    let step = decide(&spec, seen, now);
    let mut more = seen.clone();
    // It has nothing in force, and knows of no use.
    more.verifiers.push(VerifierSeen { revision: String::new(), started_at: now });
    !step.is_wait() && step != decide(&spec, &more, now)
}

/// Whether something else came next if the clock were not trusted, and off by so much.
fn differs(spec: &Spec, seen: &Observed, skew: SignedDuration, now: Timestamp) -> bool {
    let spec = spec.as_of(seen, now);
    let unsure = Observed { clock_suspect: Some(String::new()), skew, ..seen.clone() };
    decide(&spec, seen, now) != decide(&spec, &unsure, now)
}

struct Machine<'a> {
    spec: &'a Spec,
    seen: &'a Observed,
    now: Timestamp,
}

impl Machine<'_> {
    fn current(&self) -> Option<&VersionStatus> {
        self.seen.status.current()
    }

    fn deprecated(&self) -> impl Iterator<Item = &VersionStatus> {
        self.seen.status.versions.iter().filter(|version| version.state == VersionState::Deprecated)
    }

    fn expires(&self, created: Timestamp) -> Timestamp {
        expires(self.spec, created)
    }

    /// When verifiers were told that a key ends, if they were: it is never given more time.
    fn told_end(&self, id: &str) -> Option<Timestamp> {
        let record = self.seen.records.get(id).filter(|record| !record.standing.state.is_tombstone())?;
        Some(record.standing.expires_at)
    }

    /// When the key of a Secret ends.
    fn end_of_key(&self, secret: &SecretSeen) -> Timestamp {
        let end = self.expires(secret.created_at);
        self.told_end(&secret.id).map_or(end, |told| told.min(end))
    }

    fn is_tombstone(&self, id: &str) -> bool {
        self.seen.records.get(id).is_some_and(|record| record.standing.state.is_tombstone())
    }

    /// The Secret of a version; not one of another key that somebody put in its place.
    fn secret(&self, n: i64) -> Option<&SecretSeen> {
        let version = self.seen.status.versions.iter().find(|version| version.n == n);
        self.seen.secrets.get(&n).filter(|secret| version.is_none_or(|version| version.id == secret.id))
    }

    fn digest_of(&self, n: Option<i64>) -> Option<&str> {
        self.secret(n?).map(|secret| secret.digest.as_str())
    }

    fn consumer_id(&self) -> Option<&str> {
        match &self.seen.consumer {
            ConsumerSeen::Ours { id, .. } => id.as_deref(),
            _ => None,
        }
    }

    /// Whether the clock is one that an end can be told by.
    fn is_sure(&self) -> bool {
        self.seen.clock_suspect.is_none()
    }

    /// From when on an end is counted, by the API server's clock: by one that is off an overlap would be another.
    fn server_time(&self) -> Timestamp {
        whole_second(self.seen.server_time(self.now))
    }

    /// Whether every version has ended for good, by `hardExpiry`.
    fn is_over(&self) -> bool {
        self.spec.hard_expiry.is_some_and(|end| end <= self.now)
    }

    /// How a Job fares; none where it was not made.
    fn job(&self, job: &KeyJob) -> Option<&JobSeen> {
        self.seen.jobs.get(&job.name(self.spec))
    }

    fn has_hook(&self, step: JobStep) -> bool {
        hook_of(self.spec, step).is_some()
    }

    fn refuse_foreign(&self) -> Option<Step> {
        let ConsumerSeen::Foreign(owner) = &self.seen.consumer else { return None };
        Some(Step::Refuse(Refusal::ForeignConsumer { secret: self.spec.consumer.clone(), owner: owner.clone() }))
    }

    fn unproven(&self, n: i64) -> Step {
        Step::Refuse(Refusal::Unproven(self.spec.secret_name(n)))
    }

    fn remember(&self, change: impl FnOnce(&mut ApiKeyStatus)) -> Step {
        let mut status = self.seen.status.clone();
        change(&mut status);
        self.tidy(&mut status);
        Step::Remember(Box::new(status))
    }

    /// Brings status in line with a spec that was changed.
    fn revise(&self) -> Option<Step> {
        let mut status = self.seen.status.clone();
        self.tidy(&mut status);
        (status != self.seen.status).then(|| Step::Remember(Box::new(status)))
    }

    /// What follows from the rest of a status: the order, the caps, what is forgotten, when the key is due.
    fn tidy(&self, status: &mut ApiKeyStatus) {
        let ended = |version: &VersionStatus| version.state.has_ended();
        status.versions.sort_by_key(|version| version.n);
        // The last one is remembered while there is no other: without any, a first one would be issued.
        let is_only = status.versions.iter().all(ended);
        let history = self.spec.rotation.history.max(usize::from(is_only));
        let mut surplus = status.versions.iter().filter(|it| ended(it)).count().saturating_sub(history);
        status.versions.retain(|version| {
            let goes = surplus > 0 && ended(version);
            surplus -= usize::from(goes);
            !goes
        });
        for version in status.versions.iter_mut().filter(|version| version.state == VersionState::Current) {
            if let Some(end) = end_of(self.seen, version, self.now) {
                version.expires_at = Time(self.expires(version.created_at.0).min(end));
            }
        }
        for version in status.versions.iter_mut().filter(|version| !ended(version)) {
            let ends = [self.spec.hard_expiry, self.told_end(&version.id)];
            version.expires_at = Time(ends.into_iter().flatten().fold(version.expires_at.0, Timestamp::min));
        }
        let current = status.current();
        // A hook after the promotion keeps no key from its next rotation.
        let is_done = status.next_version.is_none_or(|n| current.is_some_and(|current| current.n == n));
        let rotates = is_done && !self.spec.suspended && self.spec.revoked.is_none();
        let due = current.filter(|_| rotates).and_then(|current| due_at(self.spec, status, current, self.now));
        let due = due.filter(|due| self.spec.hard_expiry.is_none_or(|end| *due < end));
        status.next_rotation_time = due.map(Time);
    }

    fn rest(&self) -> Step {
        Step::Rest { until: self.next_moment() }
    }

    fn next_moment(&self) -> Option<Timestamp> {
        let status = &self.seen.status;
        let due = status.next_rotation_time.as_ref().map(|at| at.0);
        let retry = status.next_version.and(status.retry_at.as_ref()).map(|at| at.0);
        let live = status.versions.iter().filter(|version| version.state.is_live());
        let ends = live.flat_map(|it| [Some(it.expires_at.0), it.destroy_at.as_ref().map(|at| at.0)]);
        let idle = self.deprecated().filter_map(|version| self.idle_from(version));
        let records = self.seen.records.values().filter(|record| !record.standing.state.is_tombstone());
        let strays = records.filter_map(|record| record.standing.destroy_at);
        let warnings = self.current().into_iter().flat_map(|current| EndsSoon::moments(self.spec, current));
        let unused = self.spec.idle_at(self.seen).filter(|_| !self.spec.suspended);
        // One that was asked for by a clock that is ahead.
        let asked = self.spec.rotation.requested;
        let all = ends.chain([due, retry, unused, asked]).flatten().chain(idle).chain(warnings).chain(strays);
        all.filter(|moment| *moment > self.now).min()
    }
}

/// When the test or hook failed that is to be repeated.
#[must_use]
pub fn failed_at(status: &ApiKeyStatus) -> Option<Timestamp> {
    let pause = retry_pause(status.failed_attempts?.saturating_sub(1));
    status.retry_at.as_ref()?.0.checked_sub(pause).ok()
}

fn retry_pause(failures: i32) -> SignedDuration {
    FIRST_RETRY.saturating_mul(1 << failures.clamp(0, 5))
}
