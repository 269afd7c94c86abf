//! A new version, step by step.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{MOST_LIVE, Machine, failed_at, retry_pause};
use crate::{
    api::{ApiKeyStatus, RecordState, VersionState, VersionStatus},
    keys::{
        JobSeen, JobStep, KeyJob, has_job,
        schedule::{due_at, requested_at},
        seen::SecretSeen,
        step::Step,
    },
};

impl Machine<'_> {
    /// Makes a new version, if one is due or under way.
    pub(super) fn issue(&self) -> Option<Step> {
        let status = &self.seen.status;
        if let Some(promoted) = status.next_version.and_then(|n| status.versions.iter().find(|it| it.n == n)) {
            return self.finish(promoted);
        }
        let pending = status.next_version.and_then(|n| self.seen.secrets.get(&n).map(|secret| (n, secret)));
        // Consumers have it: that is written down, whatever else is asked for.
        let in_use = |secret: &SecretSeen| {
            // No record tells of an imported token.
            let known = self.is_imported() || self.seen.records.contains_key(&secret.id);
            secret.proven && known && !self.is_tombstone(&secret.id) && self.consumer_id() == Some(&secret.id)
        };
        if let Some((n, secret)) = pending.filter(|(_, secret)| in_use(secret)) {
            return Some(self.promoted(n, secret));
        }
        if self.is_over() {
            return self.give_up();
        }
        if self.spec.suspended {
            return None;
        }
        let Some(n) = status.next_version else { return self.begin() };
        if let Some(step) = self.reconsider(pending.map(|(_, secret)| secret)).or_else(|| self.try_now()) {
            return Some(step);
        }
        let Some((_, secret)) = pending else { return Some(self.make(n)) };
        if !secret.proven {
            return Some(self.unproven(n));
        }
        if self.is_tombstone(&secret.id) {
            return Some(Step::DeleteSecret { n });
        }
        // Whatever it waited for, it never passes a test any more: it is made anew.
        if self.end_of_key(secret) <= self.now {
            return self.give_up();
        }
        if !self.is_imported() {
            let Some(record) = self.seen.records.get(&secret.id) else {
                return Some(Step::CreateRecord { n, standing: Box::new(self.standing_of_pending(secret)) });
            };
            // Also after the test: a verifier may have come meanwhile that does not know the key yet.
            if !self.seen.is_in_force(record) {
                return Some(Step::AwaitVerifiers { n });
            }
        }
        Some(self.passed(JobStep::Test, n, &secret.id).err().unwrap_or_else(|| {
            // One that is damaged is left out, and keeps nobody from its successor.
            let previous = self.current().map(|current| current.n).filter(|n| self.secret(*n).is_some());
            let previous = previous.filter(|n| self.damaged([Some(*n), None]).is_none());
            Step::WriteConsumer { current: Some(n), previous }
        }))
    }

    fn begin(&self) -> Option<Step> {
        let status = &self.seen.status;
        let lost = |current: &VersionStatus| self.secret(current.n).is_none() || self.is_tombstone(&current.id);
        let is_due = |current: &VersionStatus| self.is_due(current) && self.deprecated().count() < MOST_LIVE;
        if let Some(step) = self.copy_again() {
            return Some(step);
        }
        let due = match self.current() {
            None if self.is_imported() => self.supplied().is_some(),
            Some(current) if self.is_imported() => is_due(current),
            Some(current) => lost(current) || is_due(current),
            // A key that is not rotated ends for good; the first one, and every other, is replaced.
            None => status.versions.is_empty() || self.spec.rotation.interval.is_some() || self.asked_since_the_end(),
        };
        due.then(|| {
            self.remember(|status| {
                status.next_version = Some(self.next_number());
                // Now, and not only at the end: the clock may go back meanwhile, to before the request.
                self.answer(status);
            })
        })
    }

    /// A number that no version has.
    pub(super) fn next_number(&self) -> i64 {
        let status = &self.seen.status;
        let known = status.versions.iter().map(|version| version.n).chain(self.seen.secrets.keys().copied());
        known.chain(status.next_version).max().unwrap_or_default().saturating_add(1)
    }

    /// The request that there is, if any, is carried out by the version that is being made.
    fn answer(&self, status: &mut ApiKeyStatus) {
        if let Some(at) = self.spec.rotation.requested.filter(|at| *at <= self.now) {
            status.last_handled_rotation = Some(Time(at));
        }
    }

    fn is_due(&self, current: &VersionStatus) -> bool {
        if self.is_imported() {
            return self.supplied().is_some();
        }
        let (spec, status) = (self.spec, &self.seen.status);
        // What somebody asked for does not wait for a clock that is right.
        let due =
            if self.is_sure() { due_at(spec, status, current, self.now) } else { requested_at(spec, status, current) };
        due.is_some_and(|due| due <= self.now)
    }

    /// Whether a rotation was asked for that no version has answered.
    fn asked_since_the_end(&self) -> bool {
        let handled = self.seen.status.last_handled_rotation.as_ref().map(|time| time.0);
        let asked = self.spec.rotation.requested.filter(|at| *at <= self.now && Some(*at) != handled);
        asked.is_some()
    }

    fn make(&self, n: i64) -> Step {
        self.passed(JobStep::PreRotate, n, "").err().unwrap_or(Step::CreateSecret { n })
    }

    /// Whether a Job of the version has done its work; or else what is to be done, or waited for.
    fn passed(&self, step: JobStep, n: i64, id: &str) -> Result<(), Step> {
        if !has_job(self.spec, step) {
            return Ok(());
        }
        let status = &self.seen.status;
        let attempt = status.failed_attempts.unwrap_or_default();
        let job = KeyJob { step, n, id: id.to_owned(), attempt: attempt.into() };
        match self.job(&job) {
            Some(JobSeen::Succeeded) => Ok(()),
            Some(JobSeen::Running) => Err(Step::AwaitJob(job)),
            Some(JobSeen::Failed) => Err(self.remember(|status| {
                status.failed_attempts = Some(attempt.saturating_add(1));
                status.retry_at = self.now.checked_add(retry_pause(attempt)).ok().map(Time);
            })),
            Some(JobSeen::Impossible(problem)) => Err(Step::Stuck { job, problem: problem.clone() }),
            None if status.retry_at.as_ref().is_some_and(|at| self.now < at.0) => Err(self.rest()),
            None => Err(Step::StartJob(job)),
        }
    }

    /// Who asks for a rotation after something failed does not wait for its pause to pass: it may be mended.
    fn try_now(&self) -> Option<Step> {
        let status = &self.seen.status;
        status.retry_at.as_ref().filter(|at| self.now < at.0)?;
        let failed = failed_at(status)?;
        let asked = self.spec.rotation.requested.filter(|asked| *asked <= self.now)?;
        (asked > failed).then(|| self.remember(|status| status.retry_at = None))
    }

    /// Consumers have the new version: it is current, and the one before it is on its way out.
    fn promoted(&self, n: i64, secret: &SecretSeen) -> Step {
        let end = self.server_time().checked_add(self.spec.rotation.overlap).unwrap_or(Timestamp::MAX);
        self.remember(|status| {
            for version in status.versions.iter_mut().filter(|version| version.state == VersionState::Current) {
                version.state = VersionState::Deprecated;
                version.replaced_by = Some(secret.id.clone());
                version.destroy_at = Some(Time(end.min(version.expires_at.0)));
            }
            status.versions.retain(|version| version.n != n);
            status.versions.push(VersionStatus {
                n,
                id: secret.id.clone(),
                state: VersionState::Current,
                created_at: Time(secret.created_at),
                expires_at: Time(self.end_of_key(secret)),
                replaced_by: None,
                destroy_at: None,
            });
            status.current_version = Some(n);
            complete(status);
            // The number stays until the hook has run: so is it known who has still to run it.
            status.next_version = self.has_hook(JobStep::PostPromote).then_some(n);
            self.answer(status);
        })
    }

    /// What is left to do when consumers have the new version: the user's own hook, once all of them run it.
    fn finish(&self, version: &VersionStatus) -> Option<Step> {
        let done = || Some(self.remember(complete));
        // A hook that fails keeps no key from its next rotation, and none from its end.
        if !self.has_hook(JobStep::PostPromote) || version.state != VersionState::Current || self.is_due(version) {
            return done();
        }
        if self.spec.suspended || self.is_rolling_out() {
            return None;
        }
        self.passed(JobStep::PostPromote, version.n, &version.id).err().or_else(done)
    }

    /// The time is over of what is under way: it ends, or waits where the clock may be wrong.
    pub(super) fn give_up(&self) -> Option<Step> {
        if self.is_sure() { self.abandon() } else { Some(self.rest()) }
    }

    /// No version is made any more, and one that was under way ends.
    fn abandon(&self) -> Option<Step> {
        let n = self.seen.status.next_version?;
        if let Some(secret) = self.seen.secrets.get(&n).filter(|secret| secret.proven) {
            let known = self.seen.records.contains_key(&secret.id);
            if known && !self.is_tombstone(&secret.id) {
                return Some(Step::EndRecord {
                    id: secret.id.clone(),
                    n,
                    state: RecordState::Destroyed,
                    replaced_by: None,
                    expires_at: self.expires(secret.created_at),
                });
            }
            return Some(Step::DeleteSecret { n });
        }
        Some(self.remember(complete))
    }
}

/// Nothing is under way any more.
pub(super) fn complete(status: &mut ApiKeyStatus) {
    (status.next_version, status.failed_attempts, status.retry_at) = (None, None, None);
}
