//! What the rotation machine decides by.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::api::{ApiKeyStatus, RecordState};

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
    /// The test of the version that is being made.
    pub test: TestSeen,
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
    /// Where it says the key stands.
    pub state: RecordState,
    /// Digest of the key; none on a tombstone.
    pub digest: Option<String>,
    /// Successor.
    pub replaced_by: Option<String>,
    /// End of a replaced key.
    pub destroy_at: Option<Timestamp>,
}

/// The consumer Secret.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ConsumerSeen {
    /// There is none.
    #[default]
    Absent,
    /// There is one, and it is somebody else's.
    Foreign,
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

/// The test of a version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TestSeen {
    /// Not started.
    #[default]
    Absent,
    /// Under way.
    Running,
    /// Passed.
    Succeeded,
    /// Failed.
    Failed,
}
