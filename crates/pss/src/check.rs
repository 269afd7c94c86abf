//! What a check is, and which checks hold at a level and version.

use std::sync::LazyLock;

use crate::{
    CHECKS, ContainerKind, Fix, Level, Pod, Version,
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
    /// Pods that pass outright, and the minor version since which they do.
    pub exempt: Option<(u32, Exemption)>,
    /// What it refuses one by one, so that an exception may be for some alone ([`crate::explain_except`]).
    pub values: Option<Values>,
}

/// What a check refuses one by one, and how it is written in [`Excepted`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Values {
    /// Capabilities by name: `NET_ADMIN`.
    Capability,
    /// Kernel parameters by name: `net.core.somaxconn`.
    Sysctl,
    /// Ports of the node by number: `8080`.
    HostPort,
    /// Directories of the node by path: `/var/log`.
    Directory,
    /// Volumes by type: `nfs`; those of the type `hostPath` by path, where it is absolute: `/var/log`.
    Volume,
}

/// What an exception from a check may be for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excepted<'v> {
    /// A container, by its list and its index there.
    Container(ContainerKind, usize),
    /// A value that a container sets.
    ValueOf(ContainerKind, usize, &'v str),
    /// A value that the Pod as a whole sets.
    Value(&'v str),
}

/// Pods that some checks do not apply to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exemption {
    /// Those that say they run on Windows.
    Windows,
    /// Those in a user namespace of their own (KEP-127).
    UserNamespace,
}

impl Exemption {
    fn covers(self, pod: &Pod<'_>) -> bool {
        match self {
            Self::Windows => pod.is_windows(),
            Self::UserNamespace => pod.in_user_namespace(),
        }
    }
}

/// A check as it holds at one version.
#[derive(Debug, Clone, Copy)]
pub struct Applied {
    /// The check.
    pub check: &'static Check,
    /// The minor version since which it has decided as it does.
    pub since: u32,
    /// Pods that pass outright.
    pub exempt: Option<Exemption>,
    decide: Decide,
}

impl Applied {
    pub(crate) fn decide(&self, pod: &View<'_, '_>, fixes: &mut Fixes) -> Option<Violation> {
        if self.exempt.is_some_and(|exemption| exemption.covers(pod)) {
            return None;
        }
        (self.decide)(self.check, pod, fixes)
    }
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

    fn at(&'static self, version: Version) -> Option<Applied> {
        let (since, decide) = *self.since.iter().rev().find(|(minor, _)| version.since(*minor))?;
        let exempt = self.exempt.filter(|(minor, _)| version.since(*minor)).map(|(_, exemption)| exemption);
        Some(Applied { check: self, since, exempt, decide })
    }
}

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
    let exists = move |check: &'static Check| check.level <= level && check.at(version).is_some();
    let overridden = move |id: &str| CHECKS.iter().any(|other| exists(other) && other.overrides.contains(&id));
    CHECKS.iter().filter(move |check| exists(check) && !overridden(check.id)).filter_map(move |check| check.at(version))
}
