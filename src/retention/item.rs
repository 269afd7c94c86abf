//! What retention is about.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// One thing that may be too old.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// What kind of thing.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Identity: another thing of this name has another.
    pub uid: String,
    /// Version of its content, for deleting exactly what was judged.
    pub version: String,
    /// When it was made; `None` when that can't be read.
    pub created: Option<Timestamp>,
    /// Since when its age counts; `None` when that can't be read.
    pub born: Option<Timestamp>,
    /// When it says itself that it may go.
    pub expires: Option<Expiry>,
    /// What it carries as its mark, as text.
    pub mark: Option<String>,
    /// What protects it.
    pub protection: Option<Protection>,
    /// Whether its target selects it; one that it does not select any more is listed for its mark alone.
    pub selected: bool,
}

/// When an item says itself that it may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expiry {
    /// Then.
    At(Timestamp),
    /// Never.
    Never,
    /// What it says can't be read, for this reason.
    Unreadable(String),
}

/// What protects an item, whatever its age.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Protection {
    /// A legal hold keeps it: `LegalHold/case-17`.
    Held(String),
    /// A controller made it, and would make it anew.
    ControllerOwned,
    /// It is being deleted already.
    BeingDeleted,
    /// It is one of the youngest, which stay.
    Remaining,
    /// It says so.
    Forever,
}

impl Protection {
    /// Stable name, for metrics.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Held(_) => "Held",
            Self::ControllerOwned => "ControllerOwned",
            Self::BeingDeleted => "BeingDeleted",
            Self::Remaining => "Remaining",
            Self::Forever => "Forever",
        }
    }

    /// For people.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Held(hold) => format!("kept: held by {hold}"),
            Self::ControllerOwned => "kept: a controller owns it".into(),
            Self::BeingDeleted => "kept: it is being deleted already".into(),
            Self::Remaining => "kept: it is one of the youngest, which stay (safety.minRemaining)".into(),
            Self::Forever => "kept: its annotation says forever".into(),
        }
    }
}

/// The mark on an item that will be deleted: since when, and by which policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mark {
    /// UID of the policy.
    #[serde(rename = "policyUID")]
    pub policy_uid: String,
    /// When it was marked.
    pub marked_at: Timestamp,
    /// When it may be deleted, as far as was known then.
    pub delete_after: Timestamp,
    /// Identity of what was marked: a copy of the annotation on another item is no mark.
    pub uid: String,
}

impl Mark {
    /// Reads the mark of an item; `None` where there is none, or it is not one of this item.
    #[must_use]
    pub fn of(item: &Item) -> Option<Self> {
        let mark: Self = serde_json::from_str(item.mark.as_deref()?).ok()?;
        (mark.uid == item.uid).then_some(mark)
    }

    /// As text.
    #[must_use]
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}
