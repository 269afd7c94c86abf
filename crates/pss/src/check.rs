//! What a check is, and which checks hold at a level and version.

use crate::{Level, Pod, Version};

/// One check of the standards.
#[derive(Debug)]
pub struct Check {
    /// Identifier in the reference.
    pub id: &'static str,
    /// The level that brings the check.
    pub level: Level,
    /// Ids of baseline checks that this one replaces where it exists.
    pub overrides: &'static [&'static str],
    /// How it decides, by the minor version since which it does, oldest first.
    pub since: &'static [(u32, Decide)],
}

/// Decides about a Pod: `None` when it passes.
pub type Decide = fn(&'static Check, &Pod<'_>) -> Option<Violation>;

/// A failed check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The check's id.
    pub check: &'static str,
    /// The level that brings the check.
    pub level: Level,
    /// What is wrong, in the words of the reference.
    pub reason: &'static str,
    /// Where and how, in the words of the reference.
    pub detail: String,
    /// What would make it pass.
    pub fixes: Vec<Fix>,
}

/// A value that would make a check pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fix {
    /// The field, from the Pod's root: `spec.containers[0].securityContext.runAsNonRoot`.
    pub path: String,
    /// The value to set, as JSON; `None`: remove the field.
    pub value: Option<&'static str>,
}

impl Check {
    /// A violation of this check.
    pub(crate) fn violation(&self, reason: &'static str, detail: String, fixes: Vec<Fix>) -> Violation {
        Violation { check: self.id, level: self.level, reason, detail, fixes }
    }

    fn at(&self, version: Version) -> Option<Decide> {
        self.since.iter().rev().find(|(minor, _)| version.since(*minor)).map(|(_, decide)| *decide)
    }
}

/// The checks that hold at `level` and `version`, in the order of the reference.
pub(crate) fn applicable(
    checks: &'static [&'static Check],
    level: Level,
    version: Version,
) -> impl Iterator<Item = (&'static Check, Decide)> {
    let exists = move |check: &Check| check.level <= level && check.at(version).is_some();
    let overridden = move |id: &str| checks.iter().any(|other| exists(other) && other.overrides.contains(&id));
    checks
        .iter()
        .filter(move |check| exists(check) && !overridden(check.id))
        .filter_map(move |check| Some((*check, check.at(version)?)))
}
