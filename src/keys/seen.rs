//! What the rotation machine decides by.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::{
    Grant,
    coalesce::Neighbour,
    import::{Token, TokenProblem},
    jobs::JobSeen,
    rollout::WorkloadSeen,
    usage::Use,
};
use crate::api::{ApiKeyStatus, RecordState, VerifierCounts};

/// What is there.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observed {
    /// What was written last.
    pub status: ApiKeyStatus,
    /// Version Secrets, by number.
    pub secrets: BTreeMap<i64, SecretSeen>,
    /// KeyRecords of this ApiKey, by id.
    pub records: BTreeMap<String, RecordSeen>,
    /// The consumer Secret.
    pub consumer: ConsumerSeen,
    /// Of an imported key: the token that the user supplies, or why none can be taken.
    pub supplied: Option<Result<Token, TokenProblem>>,
    /// Jobs of this ApiKey that matter now, by name.
    pub jobs: BTreeMap<String, JobSeen>,
    /// Workloads that are restarted when the key has changed, in the order of the spec.
    pub workloads: Vec<WorkloadSeen>,
    /// Other ApiKeys that restart them, while some workload is to be restarted; as last heard of them.
    pub neighbours: Vec<Neighbour>,
    /// Verifiers that are waited for.
    pub verifiers: Vec<VerifierSeen>,
    /// When keys of this ApiKey were used last, by id, as far as verifiers told.
    pub last_used: BTreeMap<String, Timestamp>,
    /// What each verifier counted of them.
    pub uses: Vec<Use>,
    /// How far the operator's clock is off, in words, where that is too far for an end to be told by it: nothing ends and
    /// no rotation begins by the time alone.
    pub clock_suspect: Option<String>,
    /// How far the operator's clock is ahead of the API server's, where that was asked and matters; negative where it is
    /// behind. Ends are counted from the API server's time.
    pub skew: SignedDuration,
}

/// A version Secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretSeen {
    /// Public id of its key.
    pub id: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// Digest of its key.
    pub digest: String,
    /// Whether its proof is right.
    pub proven: bool,
}

/// A KeyRecord.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordSeen {
    /// What it says of the key.
    pub standing: Standing,
    /// Digest of the key; none on a tombstone.
    pub digest: Option<String>,
    /// Its resourceVersion.
    pub revision: String,
}

/// What a KeyRecord says of a key that may change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Where the key stands.
    pub state: RecordState,
    /// Successor.
    pub replaced_by: Option<String>,
    /// End of a replaced key.
    pub destroy_at: Option<Timestamp>,
    /// When it ends whatever happens.
    pub expires_at: Timestamp,
    /// What it may do.
    pub grant: Grant,
    /// Whether it lives on when its ApiKey is deleted.
    pub retained: bool,
}

/// A verifier that is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierSeen {
    /// resourceVersion up to which it has records in force.
    pub revision: String,
    /// When it started, or began to be heard, if that was later.
    pub started_at: Timestamp,
}

/// The consumer Secret.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ConsumerSeen {
    /// There is none.
    #[default]
    Absent,
    /// There is one, and it is somebody else's: of the ApiKey of this name, if its labels tell.
    Foreign(Option<String>),
    /// Ours: digests of the entries that are there, and the id.
    Ours {
        /// Digest of the current key.
        current: Option<String>,
        /// Digest of the previous key.
        previous: Option<String>,
        /// Id of the current key.
        id: Option<String>,
    },
}

/// What a step has changed, as the API server answered.
#[derive(Debug)]
pub enum Made {
    /// The status.
    Status(ApiKeyStatus),
    /// The Secret of a version.
    Secret(i64, SecretSeen),
    /// The record of an id.
    Record(String, RecordSeen),
    /// A Job of this name, which runs.
    Job(String),
    /// What consumers have.
    Consumer(ConsumerSeen),
}

impl Observed {
    /// What is there after a step: so not all of it is read again.
    #[must_use]
    pub fn with(mut self, made: Made) -> Self {
        match made {
            Made::Status(status) => self.status = status,
            Made::Secret(n, secret) => drop(self.secrets.insert(n, secret)),
            Made::Record(id, record) => drop(self.records.insert(id, record)),
            Made::Job(name) => drop(self.jobs.insert(name, JobSeen::Running)),
            Made::Consumer(consumer) => self.consumer = consumer,
        }
        self
    }

    /// When it was used last, by whichever version, as far as verifiers told lately.
    #[must_use]
    pub fn last_use(&self) -> Option<Timestamp> {
        self.last_used.values().max().copied()
    }

    /// What time it is for the API server when it is `now` for the operator.
    pub(super) fn server_time(&self, now: Timestamp) -> Timestamp {
        // Only spans of days and more are refused.
        now.saturating_sub(self.skew).unwrap_or(now)
    }

    /// Whether verifiers are told to refuse it for now.
    pub(super) fn is_suspended(&self) -> bool {
        self.records.values().any(|record| record.standing.state == RecordState::Suspended)
    }

    /// Whether a record is in force at every verifier that is waited for.
    #[must_use]
    pub fn is_in_force(&self, record: &RecordSeen) -> bool {
        self.verifiers.iter().all(|verifier| reaches(&verifier.revision, &record.revision))
    }

    /// Verifiers that are waited for, and those of them that have every record of this ApiKey in force.
    #[must_use]
    pub fn verifier_counts(&self) -> VerifierCounts {
        let has_all = |verifier: &&VerifierSeen| {
            self.records.values().all(|record| reaches(&verifier.revision, &record.revision))
        };
        let count = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
        VerifierCounts {
            desired: count(self.verifiers.len()),
            up_to_date: count(self.verifiers.iter().filter(has_all).count()),
        }
    }
}

/// Whether a revision is another one or a later one: decimal numbers of any length (KEP-5504). What is no number
/// reaches nothing.
fn reaches(revision: &str, wanted: &str) -> bool {
    let number = |text: &'_ str| {
        let digits = text.trim_start_matches('0');
        (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| (digits.len(), digits.to_owned()))
    };
    match (number(revision), number(wanted)) {
        (Some(revision), Some(wanted)) => revision >= wanted,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_servers_time_is_there_however_far_the_clock_is_off() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let server = |skew| Observed { skew, ..Observed::default() }.server_time(now);
        assert_eq!(server(SignedDuration::ZERO), now, "nobody asked");
        assert_eq!(server(SignedDuration::from_hours(24)).as_second(), 1_800_000_000 - 86_400);
        assert_eq!(server(SignedDuration::from_hours(-1)).as_second(), 1_800_000_000 + 3600);
        assert_eq!([SignedDuration::MAX, SignedDuration::MIN].map(server), [Timestamp::MIN, Timestamp::MAX]);
    }

    #[test]
    fn revisions_are_compared_as_numbers() {
        assert!(reaches("1000", "999") && reaches("999", "999") && !reaches("999", "1000"));
        assert!(reaches("100000000000000000000000000000000000000000", "99999999999999999999999999999999999999999"));
        assert!(!reaches("", "1") && !reaches("12a", "1") && !reaches("-5", "1"));
    }
}
