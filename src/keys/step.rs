//! What the rotation machine decides.

use std::collections::BTreeMap;

use jiff::Timestamp;
use thiserror::Error;

use super::{
    jobs::{HookProblem, KeyJob},
    seen::Standing,
};
use crate::api::{ApiKeyStatus, RecordState, RestartTarget};

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
        /// What they are told.
        standing: Box<Standing>,
    },
    /// Wait until verifiers have the record of version `n`.
    AwaitVerifiers {
        /// Number of the version.
        n: i64,
    },
    /// Start a Job: a test, or a hook.
    StartJob(KeyJob),
    /// Wait for a Job.
    AwaitJob(KeyJob),
    /// A hook can't be run as things are.
    Stuck {
        /// The Job that would be made.
        job: KeyJob,
        /// What stands in its way.
        problem: HookProblem,
    },
    /// Write the consumer Secret.
    WriteConsumer {
        /// Version to use.
        current: Option<i64>,
        /// The one before it.
        previous: Option<i64>,
    },
    /// Ask a workload to start its pods anew.
    Restart {
        /// The workload.
        target: RestartTarget,
        /// The version that its pods are to run, as it stands on its pod template.
        version: String,
        /// Annotations of other keys that come with it.
        others: BTreeMap<String, String>,
    },
    /// Bring the record of a key up to date.
    UpdateRecord {
        /// Id of the key.
        id: String,
        /// What it says from now on.
        standing: Box<Standing>,
    },
    /// Leave a tombstone of a key, whether there is a record or not.
    EndRecord {
        /// Id of the key.
        id: String,
        /// Its version; known at least where there may be no record.
        n: i64,
        /// How it ended.
        state: RecordState,
        /// Successor.
        replaced_by: Option<String>,
        /// When it would have ended.
        expires_at: Timestamp,
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

impl Step {
    /// Whether nothing is written: something else has to happen first.
    #[must_use]
    pub const fn is_wait(&self) -> bool {
        matches!(self, Self::AwaitVerifiers { .. } | Self::AwaitJob(_) | Self::Stuck { .. } | Self::Rest { .. })
    }
}

/// Reason where something of a name that is needed is somebody else's.
pub const CONFLICTED: &str = "Conflicted";

/// Why nothing can be done.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The consumer Secret is somebody else's.
    #[error(
        "Secret {secret} exists and was not made for this ApiKey: {}: make another ApiKey that names another Secret, or \
         delete {secret} if nobody uses it",
        belongs(owner.as_deref())
    )]
    ForeignConsumer {
        /// Its name.
        secret: String,
        /// The ApiKey that it was made for, if one is known.
        owner: Option<String>,
    },
    /// A version Secret is there and its proof is wrong.
    #[error(
        "Secret {0} exists and its proof of origin is wrong, so it is not adopted: restore the Secret rampart-adoption \
         that it was made with, or delete {0} to have a new key issued"
    )]
    Unproven(String),
}

fn belongs(owner: Option<&str>) -> String {
    owner.map_or_else(|| "nobody is known to own it".into(), |owner| format!("it belongs to ApiKey {owner}"))
}

impl Refusal {
    /// Stable name.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::ForeignConsumer { .. } => CONFLICTED,
            Self::Unproven(_) => "AdoptionRefused",
        }
    }
}
