//! The rotation machine: from what is asked and what is there to the one next step.
//!
//! Issue: verifiers first, then consumers. Retire: consumers first, then verifiers. A live value is
//! never edited: a version is added, and what points to it is moved. The number of a new version is
//! written down before anything is made, so that whoever is killed in between finds what was made.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    Spec,
    seen::{ConsumerSeen, Observed, SecretSeen, TestSeen},
    step::{Refusal, Step},
};
use crate::api::{ApiKeyStatus, RecordState, VersionState, VersionStatus};

/// First pause after a failed test; it doubles to 32 h.
const FIRST_RETRY: SignedDuration = SignedDuration::from_hours(1);
/// Destroyed versions that status remembers.
const HISTORY: usize = 3;

/// Decides the next step.
#[must_use]
pub fn decide(spec: &Spec, seen: &Observed, now: Timestamp) -> Step {
    if seen.consumer == ConsumerSeen::Foreign {
        return Step::Refuse(Refusal::ForeignConsumer(spec.consumer.clone()));
    }
    let machine = Machine { spec, seen, now: Timestamp::from_second(now.as_second()).unwrap_or(now) };
    machine
        .adopt()
        .or_else(|| machine.retire())
        .or_else(|| machine.sync_records())
        .or_else(|| machine.issue())
        .or_else(|| machine.mend_consumer())
        .unwrap_or_else(|| Step::Rest { until: machine.next_moment() })
}

/// When a key is due for rotation, if ever.
fn due_at(spec: &Spec, status: &ApiKeyStatus, current: &VersionStatus) -> Option<Timestamp> {
    let created = current.created_at.0;
    let scheduled = spec.rotation.interval.and_then(|interval| created.checked_add(interval).ok());
    let handled = status.last_handled_rotation.as_ref().map(|time| time.0);
    // A request from before the version was made is answered by that version.
    let requested = spec.rotation.requested.filter(|at| Some(*at) != handled && *at >= created);
    [scheduled, requested].into_iter().flatten().min()
}

struct Machine<'a> {
    spec: &'a Spec,
    seen: &'a Observed,
    now: Timestamp,
}

impl Machine<'_> {
    fn current(&self) -> Option<&VersionStatus> {
        self.seen.status.versions.iter().find(|version| version.state == VersionState::Current)
    }

    fn deprecated(&self) -> impl Iterator<Item = &VersionStatus> {
        self.seen.status.versions.iter().filter(|version| version.state == VersionState::Deprecated)
    }

    /// The key that consumers may fall back to: the newest deprecated one whose Secret is there.
    fn previous(&self) -> Option<i64> {
        let live = self.deprecated().filter(|version| version.is_valid(self.now));
        live.map(|version| version.n).filter(|n| self.seen.secrets.contains_key(n)).max()
    }

    fn expires(&self, created: Timestamp) -> Timestamp {
        created.checked_add(self.spec.ttl).unwrap_or(Timestamp::MAX)
    }

    fn is_tombstone(&self, id: &str) -> bool {
        self.seen.records.get(id).is_some_and(|record| record.state == RecordState::Destroyed)
    }

    fn digest_of(&self, n: Option<i64>) -> Option<&str> {
        self.seen.secrets.get(&n?).map(|secret| secret.digest.as_str())
    }

    fn consumer_id(&self) -> Option<&str> {
        match &self.seen.consumer {
            ConsumerSeen::Ours { id, .. } => id.as_deref(),
            _ => None,
        }
    }

    /// After a restore that lost the status: rebuild it from the Secrets that are proven ours.
    fn adopt(&self) -> Option<Step> {
        let status = &self.seen.status;
        if !status.versions.is_empty() || status.next_version.is_some() || self.seen.secrets.is_empty() {
            return None;
        }
        let adoptable = |secret: &&SecretSeen| secret.proven && !self.is_tombstone(&secret.id);
        let found: Vec<(i64, &SecretSeen)> =
            self.seen.secrets.iter().filter(|(_, secret)| adoptable(secret)).map(|(n, secret)| (*n, secret)).collect();
        let Some((newest, _)) = found.last() else {
            let (n, secret) = self.seen.secrets.iter().next()?;
            // All that is left are tombstoned keys: they go, and a new one is issued.
            return Some(if secret.proven { Step::DeleteSecret { n: *n } } else { self.unproven(*n) });
        };
        let in_use = found.iter().find(|(_, secret)| self.consumer_id() == Some(&secret.id));
        let Some((current, _)) = in_use else {
            // Nothing was handed out: the newest was on its way.
            return Some(self.remember(|status| status.next_version = Some(*newest)));
        };
        let mut versions = vec![];
        for (index, (n, secret)) in found.iter().enumerate().filter(|(_, (n, _))| n <= current) {
            let successor = found.get(index + 1).filter(|_| n < current);
            let record = self.seen.records.get(&secret.id);
            let from_successor =
                successor.and_then(|(_, next)| next.created_at.checked_add(self.spec.rotation.overlap).ok());
            versions.push(VersionStatus {
                n: *n,
                id: secret.id.clone(),
                state: if n == current { VersionState::Current } else { VersionState::Deprecated },
                created_at: Time(secret.created_at),
                expires_at: Time(self.expires(secret.created_at)),
                replaced_by: successor.map(|(_, next)| next.id.clone()),
                destroy_at: successor.and(record.and_then(|record| record.destroy_at).or(from_successor)).map(Time),
            });
        }
        Some(self.remember(|status| {
            status.current_version = Some(*current);
            status.next_version = (newest > current).then_some(*newest);
            status.versions = versions;
        }))
    }

    /// Ends versions whose time is over: verifiers first forget them, then consumers, then they go.
    fn retire(&self) -> Option<Step> {
        let over = |version: &&VersionStatus| {
            matches!(version.state, VersionState::Current | VersionState::Deprecated) && !version.is_valid(self.now)
        };
        let version = self.seen.status.versions.iter().find(over)?;
        let record = self.seen.records.get(&version.id);
        if record.is_some_and(|record| record.state != RecordState::Destroyed) {
            return Some(Step::UpdateRecord {
                id: version.id.clone(),
                state: RecordState::Destroyed,
                replaced_by: version.replaced_by.clone(),
                destroy_at: None,
            });
        }
        if let ConsumerSeen::Ours { current, previous, .. } = &self.seen.consumer {
            let dead = self.digest_of(Some(version.n));
            if dead.is_some() && (previous.as_deref() == dead || current.as_deref() == dead) {
                let current = self.current().filter(|current| current.n != version.n).map(|current| current.n);
                return Some(Step::WriteConsumer { current, previous: self.previous() });
            }
        }
        if self.seen.secrets.contains_key(&version.n) {
            return Some(Step::DeleteSecret { n: version.n });
        }
        let n = version.n;
        Some(self.remember(|status| {
            for version in status.versions.iter_mut().filter(|version| version.n == n) {
                version.state = VersionState::Destroyed;
            }
            if status.current_version == Some(n) {
                status.current_version = None;
            }
        }))
    }

    /// Records say what status says.
    fn sync_records(&self) -> Option<Step> {
        for version in &self.seen.status.versions {
            let state = match version.state {
                VersionState::Current => RecordState::Active,
                VersionState::Deprecated => RecordState::Deprecated,
                VersionState::Pending | VersionState::Revoked | VersionState::Destroyed => continue,
            };
            let destroy_at = version.destroy_at.as_ref().map(|time| time.0);
            match self.seen.records.get(&version.id) {
                // Lost, with its CRD perhaps: made anew from the Secret.
                None if self.seen.secrets.get(&version.n).is_some_and(|secret| secret.proven) => {
                    return Some(Step::CreateRecord { n: version.n, expires_at: version.expires_at.0 });
                }
                Some(record)
                    if record.state != RecordState::Destroyed
                        && (record.state, &record.replaced_by, record.destroy_at)
                            != (state, &version.replaced_by, destroy_at) =>
                {
                    return Some(Step::UpdateRecord {
                        id: version.id.clone(),
                        state,
                        replaced_by: version.replaced_by.clone(),
                        destroy_at,
                    });
                }
                _ => {}
            }
        }
        None
    }

    /// Makes a new version, step by step, if one is due or under way.
    fn issue(&self) -> Option<Step> {
        let status = &self.seen.status;
        let Some(n) = status.next_version else { return self.begin() };
        let Some(secret) = self.seen.secrets.get(&n) else { return Some(Step::CreateSecret { n }) };
        if !secret.proven {
            return Some(self.unproven(n));
        }
        if self.is_tombstone(&secret.id) {
            return Some(Step::DeleteSecret { n });
        }
        if !self.seen.records.contains_key(&secret.id) {
            return Some(Step::CreateRecord { n, expires_at: self.expires(secret.created_at) });
        }
        if self.consumer_id() == Some(&secret.id) {
            return Some(self.promoted(n, secret));
        }
        let attempt = status.failed_attempts.unwrap_or_default();
        match self.seen.test {
            TestSeen::Succeeded => {
                let previous = self.current().map(|current| current.n).filter(|n| self.seen.secrets.contains_key(n));
                Some(Step::WriteConsumer { current: Some(n), previous })
            }
            TestSeen::Running => Some(Step::AwaitTest { n }),
            TestSeen::Failed => Some(self.remember(|status| {
                status.failed_attempts = Some(attempt.saturating_add(1));
                status.retry_at = self.now.checked_add(retry_pause(attempt)).ok().map(Time);
            })),
            TestSeen::Absent if status.retry_at.as_ref().is_some_and(|at| self.now < at.0) => None,
            TestSeen::Absent => Some(Step::StartTest { n, attempt }),
        }
    }

    fn begin(&self) -> Option<Step> {
        let status = &self.seen.status;
        let lost =
            |current: &VersionStatus| !self.seen.secrets.contains_key(&current.n) || self.is_tombstone(&current.id);
        let due = match self.current() {
            Some(current) => lost(current) || due_at(self.spec, status, current).is_some_and(|due| due <= self.now),
            // A key that is not rotated ends for good; the first one, and every other, is replaced.
            None => status.versions.is_empty() || self.spec.rotation.interval.is_some() || self.asked_since_the_end(),
        };
        let known = status.versions.iter().map(|version| version.n).chain(self.seen.secrets.keys().copied());
        due.then(|| {
            self.remember(|status| status.next_version = Some(known.max().unwrap_or_default().saturating_add(1)))
        })
    }

    /// Whether a rotation was asked for that no version has answered.
    fn asked_since_the_end(&self) -> bool {
        let handled = self.seen.status.last_handled_rotation.as_ref().map(|time| time.0);
        let asked = self.spec.rotation.requested.filter(|at| *at <= self.now && Some(*at) != handled);
        asked.is_some()
    }

    /// Consumers have the new version: it is current, and the one before it is on its way out.
    fn promoted(&self, n: i64, secret: &SecretSeen) -> Step {
        let end = self.now.checked_add(self.spec.rotation.overlap).unwrap_or(Timestamp::MAX);
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
                expires_at: Time(self.expires(secret.created_at)),
                replaced_by: None,
                destroy_at: None,
            });
            status.current_version = Some(n);
            status.next_version = None;
            status.failed_attempts = None;
            status.retry_at = None;
            status.last_handled_rotation = self
                .spec
                .rotation
                .requested
                .filter(|at| *at <= self.now)
                .map(Time)
                .or(status.last_handled_rotation.take());
        })
    }

    /// Puts back what another hand changed in the consumer Secret.
    fn mend_consumer(&self) -> Option<Step> {
        let current = self.current()?;
        let (n, previous) = (Some(current.n), self.previous());
        // Without the version's Secret there is nothing to put back.
        let wanted = self.digest_of(n)?;
        let as_wanted = match &self.seen.consumer {
            ConsumerSeen::Ours { current: value, previous: old, id } => {
                value.as_deref() == Some(wanted)
                    && id.as_deref() == Some(&current.id)
                    && old.as_deref() == self.digest_of(previous)
            }
            _ => false,
        };
        (!as_wanted).then_some(Step::WriteConsumer { current: n, previous })
    }

    fn next_moment(&self) -> Option<Timestamp> {
        let status = &self.seen.status;
        let due = self.current().and_then(|current| due_at(self.spec, status, current));
        let retry = status.next_version.and(status.retry_at.as_ref()).map(|at| at.0);
        let live = status.versions.iter().filter(|version| version.state != VersionState::Destroyed);
        let ends = live.flat_map(|version| [Some(version.expires_at.0), version.destroy_at.as_ref().map(|at| at.0)]);
        ends.chain([due, retry]).flatten().filter(|moment| *moment > self.now).min()
    }

    fn unproven(&self, n: i64) -> Step {
        Step::Refuse(Refusal::Unproven(self.spec.secret_name(n)))
    }

    fn remember(&self, change: impl FnOnce(&mut ApiKeyStatus)) -> Step {
        let mut status = self.seen.status.clone();
        change(&mut status);
        status.versions.sort_by_key(|version| version.n);
        let destroyed = status.versions.iter().filter(|version| version.state == VersionState::Destroyed).count();
        let mut surplus = destroyed.saturating_sub(HISTORY);
        status.versions.retain(|version| {
            let goes = surplus > 0 && version.state == VersionState::Destroyed;
            surplus -= usize::from(goes);
            !goes
        });
        status.next_rotation_time = {
            let current = status.versions.iter().find(|version| version.state == VersionState::Current);
            current.and_then(|current| due_at(self.spec, &status, current)).map(Time)
        };
        Step::Remember(Box::new(status))
    }
}

fn retry_pause(failures: i32) -> SignedDuration {
    FIRST_RETRY.saturating_mul(1 << failures.clamp(0, 5))
}
