//! What the rotation machine decides.

use jiff::Timestamp;
use thiserror::Error;

use crate::api::{ApiKeyStatus, RecordState};

/// The next step: one write, or none.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Write this status; everything else follows from it.
    Remember(Box<ApiKeyStatus>),
    /// Make the Secret of version `n`.
    CreateSecret {
        /// Number of the version.
        n: i64,
    },
    /// Tell verifiers about the key of version `n`.
    CreateRecord {
        /// Number of the version.
        n: i64,
        /// When the key ends.
        expires_at: Timestamp,
    },
    /// Start the test of version `n`.
    StartTest {
        /// Number of the version.
        n: i64,
        /// How often it failed before.
        attempt: i32,
    },
    /// Wait for the test.
    AwaitTest {
        /// Number of the version.
        n: i64,
    },
    /// Write the consumer Secret.
    WriteConsumer {
        /// Version to use.
        current: Option<i64>,
        /// The one before it.
        previous: Option<i64>,
    },
    /// Bring the record of a key up to date.
    UpdateRecord {
        /// Id of the key.
        id: String,
        /// Where it stands.
        state: RecordState,
        /// Successor.
        replaced_by: Option<String>,
        /// End of a replaced key.
        destroy_at: Option<Timestamp>,
    },
    /// Delete the Secret of version `n`.
    DeleteSecret {
        /// Number of the version.
        n: i64,
    },
    /// Nothing to do until then.
    Rest {
        /// The next moment that matters.
        until: Option<Timestamp>,
    },
    /// Nothing can be done.
    Refuse(Refusal),
}

/// Why nothing can be done.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The consumer Secret is somebody else's.
    #[error("Secret {0} exists and was not made for this ApiKey: name another in spec.secret.name, or delete it")]
    ForeignConsumer(String),
    /// A version Secret is there and its proof is wrong.
    #[error(
        "Secret {0} exists and its proof of origin is wrong, so it is not adopted: restore the Secret rampart-adoption \
         that it was made with, or delete {0} to have a new key issued"
    )]
    Unproven(String),
}

impl Refusal {
    /// Stable name.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::ForeignConsumer(_) => "Conflicted",
            Self::Unproven(_) => "AdoptionRefused",
        }
    }
}
