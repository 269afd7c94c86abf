//! What is decided about a request.

use std::sync::Arc;

use jiff::Timestamp;
use smol_str::SmolStr;

use super::{
    entry::{Access, KeyId},
    limits::{Cells, Windows},
};

/// What is decided about a request. Whoever decided nothing has refused.
#[derive(Debug, Default)]
#[allow(clippy::large_enum_variant, reason = "most requests are admitted, and none waits for the allocator")]
pub enum Verdict {
    /// It can't be told: no index yet, a route that states no service, something that broke.
    #[default]
    Unavailable,
    /// The route states what can't be understood, and admits nobody.
    Misrouted,
    /// It is refused.
    Refused(Refusal),
    /// It is admitted.
    Admitted(Admission),
}

impl Admission {
    /// Where the windows of its rates stand.
    #[must_use]
    pub fn windows(&self) -> Windows {
        self.cells.windows(&self.access.rates, self.at)
    }
}

/// What an admitted request is.
#[derive(Debug)]
pub struct Admission {
    /// Public id of the key.
    pub id: KeyId,
    /// Whose key it is.
    pub owner: SmolStr,
    /// What it may do.
    pub access: Arc<Access>,
    /// Where its rates stand.
    pub cells: Cells,
    /// When it was admitted.
    pub at: Timestamp,
    /// When the key ends, if it was replaced.
    pub sunset: Option<Timestamp>,
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// No credential.
    Missing,
    /// More than one.
    Ambiguous,
    /// One that is too long to be a key.
    TooLong,
    /// One that is no key: its form or its checksum is wrong.
    Malformed,
    /// A key that is not known, or not any more.
    Unknown,
    /// A key that somebody suspended.
    Suspended(KeyId),
    /// A key whose time is over.
    Expired(KeyId),
    /// A key that is not for this service.
    Audience(KeyId),
    /// A key that may not do this: the permission, or the verb, that it needs.
    Permission(KeyId, Box<str>),
    /// A key of another customer.
    Customer(KeyId),
    /// A key that made too many calls.
    Limited(KeyId, Box<Windows>),
    /// An address that guessed too often: seconds until it may try again.
    Address(i64),
}

impl Refusal {
    /// Its name in logs and metrics.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Ambiguous => "ambiguous",
            Self::TooLong => "too_long",
            Self::Malformed => "malformed",
            Self::Unknown => "unknown",
            Self::Suspended(_) => "suspended",
            Self::Expired(_) => "expired",
            Self::Audience(_) => "audience",
            Self::Permission(..) => "permission",
            Self::Customer(_) => "customer",
            Self::Limited(..) => "limited",
            Self::Address(_) => "address",
        }
    }

    /// Whether it presented what is no key of ours: what a guesser does.
    #[must_use]
    pub const fn is_guess(&self) -> bool {
        matches!(self, Self::TooLong | Self::Malformed | Self::Unknown)
    }

    /// The key, where it is proven that the caller has it.
    #[must_use]
    pub const fn key(&self) -> Option<KeyId> {
        match self {
            Self::Suspended(id)
            | Self::Expired(id)
            | Self::Audience(id)
            | Self::Permission(id, _)
            | Self::Customer(id)
            | Self::Limited(id, _) => Some(*id),
            _ => None,
        }
    }
}
