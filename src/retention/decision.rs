//! What a plan decides about an item.

use jiff::Timestamp;

use super::Protection;

/// What happens to an item, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It is not too old before then.
    TooYoung(Timestamp),
    /// Its age can't be read, so it is kept.
    UnknownAge,
    /// It is not one of the target's any more.
    NotSelected,
    /// It is too old, and protected.
    Protected(Protection),
    /// Another policy has marked it, and will delete it.
    MarkedByAnother,
    /// It is too old, and not marked yet.
    Mark,
    /// It is marked, and may not go before then.
    Wait(Timestamp),
    /// It is marked, and its grace period is over.
    Delete,
}

impl Decision {
    /// Whether it ends in a deletion, now or later.
    #[must_use]
    pub const fn deletes(&self) -> bool {
        matches!(self, Self::Mark | Self::Wait(_) | Self::Delete)
    }

    /// Whether the item is too old.
    #[must_use]
    pub const fn is_candidate(&self) -> bool {
        !matches!(self, Self::TooYoung(_) | Self::UnknownAge | Self::NotSelected)
    }

    /// For people.
    #[must_use]
    pub fn describe(&self) -> String {
        let said = match self {
            Self::Protected(protection) => return protection.describe(),
            Self::TooYoung(_) => "kept: it is not too old yet",
            Self::UnknownAge => "kept: its age can't be read",
            Self::NotSelected => "kept: no target selects it any more",
            Self::MarkedByAnother => "kept: another policy has marked it",
            Self::Mark => "would be marked, and deleted after the grace period",
            Self::Wait(_) => "is marked, and will be deleted after the grace period",
            Self::Delete => "is marked, and its grace period is over",
        };
        said.into()
    }
}
