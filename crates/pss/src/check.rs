//! What a check is, and which checks hold at a level and version.

use std::sync::LazyLock;

use crate::{
    CHECKS, Fix, Level, Version,
    view::{Fixes, View},
};

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
pub type Decide = fn(&'static Check, &View<'_, '_>, &mut Fixes) -> Option<Violation>;

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
    /// What would make it pass; empty unless asked for ([`crate::explain`]).
    pub fixes: Vec<Fix>,
}

impl Check {
    /// A violation of this check.
    pub(crate) const fn violation(&self, reason: &'static str, detail: String) -> Violation {
        Violation { check: self.id, level: self.level, reason, detail, fixes: vec![] }
    }

    fn at(&self, version: Version) -> Option<(u32, Decide)> {
        self.since.iter().rev().find(|(minor, _)| version.since(*minor)).copied()
    }
}

/// A check, the minor version since which it has decided as it does, and how.
type Applied = (&'static Check, u32, Decide);
type Plan = Box<[Applied]>;

/// What holds at each level, by minor version; the last is the newest.
static PLANS: LazyLock<[Vec<Plan>; 3]> = LazyLock::new(|| {
    [Level::Privileged, Level::Baseline, Level::Restricted].map(|level| {
        (0..=Version::NEWEST_MINOR).map(|minor| applicable(level, Version::minor(minor)).collect()).collect()
    })
});

/// The checks that hold at `level` and `version`, in the order of the reference.
pub(crate) fn plan(level: Level, version: Version) -> &'static [Applied] {
    let [privileged, baseline, restricted] = &*PLANS;
    let plans = match level {
        Level::Privileged => privileged,
        Level::Baseline => baseline,
        Level::Restricted => restricted,
    };
    let minor = usize::try_from(version.known_minor()).ok();
    minor.and_then(|minor| plans.get(minor)).map_or(&[], |plan| plan)
}

fn applicable(level: Level, version: Version) -> impl Iterator<Item = Applied> {
    let exists = move |check: &Check| check.level <= level && check.at(version).is_some();
    let overridden = move |id: &str| CHECKS.iter().any(|other| exists(other) && other.overrides.contains(&id));
    CHECKS
        .iter()
        .filter(move |check| exists(check) && !overridden(check.id))
        .filter_map(move |check| check.at(version).map(|(since, decide)| (*check, since, decide)))
}
