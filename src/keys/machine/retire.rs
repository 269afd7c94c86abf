//! The end of versions: verifiers first forget them, then consumers, then they go.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{FIRST_RETRY, Machine};
use crate::{
    api::{RecordState, RetireWhen, VersionState, VersionStatus},
    keys::{JobSeen, JobStep, KeyJob, seen::ConsumerSeen, step::Step},
};

/// How long a key must not have been used.
const IDLE: SignedDuration = SignedDuration::from_hours(24);
/// The longest time for which a failing hook puts off the end of a version.
const LAST_RETRY: SignedDuration = SignedDuration::from_hours(32);

impl Machine<'_> {
    /// Ends versions whose time is over.
    pub(super) fn retire(&self) -> Option<Step> {
        let mut waiting = None;
        for version in self.seen.status.versions.iter().filter(|version| self.is_ending(version)) {
            match self.end(version) {
                step if step.is_wait() => waiting = Some(step),
                step => return Some(step),
            }
        }
        waiting
    }

    /// Whether a version is to end now.
    pub(super) fn is_ending(&self, version: &VersionStatus) -> bool {
        let elapsed = version.destroy_at.as_ref().is_some_and(|end| end.0 <= self.now);
        let idle = self.idle_from(version).is_none_or(|idle| idle <= self.now);
        // What has begun is gone through with, although somebody may have used it meanwhile, or the clock be wrong.
        let has_tombstone = self.is_tombstone(&version.id);
        let begun = version.state == VersionState::Deprecated && has_tombstone;
        let over = version.expires_at.0 <= self.now || (elapsed && idle);
        version.state.is_live() && (begun || (over && (self.is_sure() || has_tombstone)))
    }

    /// From when on a version counts as idle; none where that does not matter, or nobody can tell.
    pub(super) fn idle_from(&self, version: &VersionStatus) -> Option<Timestamp> {
        if self.spec.rotation.retire_when == RetireWhen::Elapsed {
            return None;
        }
        // A verifier knows of no use from before it was started. Where none is there now, what was told still counts.
        let watched = self.seen.verifiers.iter().map(|verifier| verifier.started_at).min();
        let used = self.seen.last_used.get(&version.id).copied();
        watched.max(used)?.checked_add(IDLE).ok()
    }

    fn end(&self, version: &VersionStatus) -> Step {
        let (n, id) = (version.n, &version.id);
        if !self.is_tombstone(id) {
            return self.hook_before_end(version).unwrap_or_else(|| Step::EndRecord {
                id: id.clone(),
                n,
                state: RecordState::Destroyed,
                replaced_by: version.replaced_by.clone(),
                expires_at: version.expires_at.0,
            });
        }
        if let ConsumerSeen::Ours { current, previous, .. } = &self.seen.consumer {
            let dead = self.digest_of(Some(n));
            if dead.is_some() && (previous.as_deref() == dead || current.as_deref() == dead) {
                // One whose own end has begun is as good as gone.
                let current = self.current().filter(|current| current.n != n && !self.is_tombstone(&current.id));
                let current = current.map(|current| current.n).filter(|n| self.secret(*n).is_some());
                let previous = self.previous();
                if self.damaged([current, previous]).is_none() {
                    return Step::WriteConsumer { current, previous };
                }
            }
        }
        if self.secret(n).is_some() {
            return Step::DeleteSecret { n };
        }
        self.remember(|status| {
            for version in status.versions.iter_mut().filter(|version| version.n == n) {
                version.state = VersionState::Destroyed;
            }
            if status.current_version == Some(n) {
                status.current_version = None;
            }
            // Its hook after the promotion has nothing to wait for any more.
            if status.next_version == Some(n) {
                (status.next_version, status.failed_attempts, status.retry_at) = (None, None, None);
            }
        })
    }

    /// The user's own hook comes first, but a version never outlives its expiry for it.
    fn hook_before_end(&self, version: &VersionStatus) -> Option<Step> {
        let expired = version.expires_at.0 <= self.now;
        let end = version.destroy_at.as_ref().filter(|_| self.has_hook(JobStep::Destroy) && !expired)?;
        let attempt = end.0.as_second();
        let job = KeyJob { step: JobStep::Destroy, n: version.n, id: version.id.clone(), attempt };
        match self.job(&job) {
            Some(JobSeen::Succeeded) => None,
            Some(JobSeen::Running) => Some(Step::AwaitJob(job)),
            Some(JobSeen::Impossible(problem)) => Some(Step::Stuck { job, problem: problem.clone() }),
            None => Some(Step::StartJob(job)),
            Some(JobSeen::Failed) => {
                let put_off = self.now.checked_add(self.pause_of_end(version)).unwrap_or(Timestamp::MAX);
                Some(self.remember(|status| {
                    for it in status.versions.iter_mut().filter(|it| it.n == version.n) {
                        it.destroy_at = Some(Time(put_off));
                    }
                }))
            }
        }
    }

    /// As long again as its end was put off already, from 1 h to 32 h: the pauses double.
    fn pause_of_end(&self, version: &VersionStatus) -> SignedDuration {
        let successor = self.seen.status.versions.iter().find(|it| Some(&it.id) == version.replaced_by.as_ref());
        let planned = successor.and_then(|it| it.created_at.0.checked_add(self.spec.rotation.overlap).ok());
        let so_far = planned.map_or(FIRST_RETRY, |planned| self.now.duration_since(planned));
        so_far.clamp(FIRST_RETRY, LAST_RETRY)
    }
}
