//! The Kubernetes Pod Security Standards, decided as `k8s.io/pod-security-admission` decides them:
//! same verdict, same reason, same detail, for each level and each version of the standards.
//!
//! ```
//! use rampart_pss::{Level, Pod, Version, evaluate};
//!
//! let pod: Pod = serde_json::from_str(r#"{"spec": {"containers": [{"name": "web"}]}}"#)?;
//! let violations = evaluate(Level::Restricted, Version::LATEST, &pod);
//! assert!(violations.iter().any(|violation| violation.reason == "runAsNonRoot != true"));
//! # Ok::<(), serde_json::Error>(())
//! ```
//!
//! A check is a file in `checks/`, listed once in [`CHECKS`]. The pod must be as the API server
//! stores it: defaulted (a volume without a source is an `emptyDir` there; raw it is refused). JSON keys
//! are matched case-sensitively, as the API server does.

mod borrowed;
mod check;
mod checks;
mod container;
mod fix;
mod level;
mod list;
mod pod;
mod text;
mod view;
mod volume;

pub use check::{Applied, Check, Decide, Excepted, Exemption, Values, Violation};
pub use checks::CHECKS;
pub use fix::{Fix, Path};
pub use level::{Level, ParseError, Version};
pub use list::list;
pub use pod::{ContainerKind, Pod};
pub use view::{Fixes, View};

/// Every violation of `level` at `version`, in the order of the reference; empty when allowed.
///
/// The order is baseline checks by id, then restricted checks by id. No check is skipped because
/// another failed.
#[must_use]
pub fn evaluate(level: Level, version: Version, pod: &Pod<'_>) -> Vec<Violation> {
    let view = View::of(pod);
    judge(level, version, Fixes::unwanted(), |check, fixes| check.decide(&view, fixes))
}

/// As [`evaluate`], with what would make each check pass.
#[must_use]
pub fn explain(level: Level, version: Version, pod: &Pod<'_>) -> Vec<Violation> {
    let view = View::of(pod);
    judge(level, version, Fixes::wanted(), |check, fixes| check.decide(&view, fixes))
}

/// As [`explain`], but for what is excepted from a check, by its id.
///
/// A check decides as if the Pod had no containers but the rest, so that nothing that another container
/// does is admitted with them; where all are excepted, what the Pod as a whole sets is, too. Values are
/// excepted one by one where the check has [`Values`]: it decides as if they were not set.
#[must_use]
pub fn explain_except(
    level: Level,
    version: Version,
    pod: &Pod<'_>,
    excepted: impl Fn(&str, Excepted<'_>) -> bool,
) -> Vec<Violation> {
    let whole = View::of(pod);
    judge(level, version, Fixes::wanted(), |check, fixes| {
        let excepted = |what: Excepted<'_>| excepted(check.check.id, what);
        let rest = whole.without(&excepted);
        let all = rest.containers().next().is_none() && whole.containers().next().is_some();
        if all { None } else { check.decide(&rest, fixes) }
    })
}

fn judge(
    level: Level,
    version: Version,
    mut fixes: Fixes,
    decide: impl Fn(&Applied, &mut Fixes) -> Option<Violation>,
) -> Vec<Violation> {
    let mut violations = vec![];
    for check in check::plan(level, version) {
        if let Some(violation) = decide(check, &mut fixes) {
            violations.push(Violation { fixes: fixes.take(), ..violation });
        }
    }
    violations
}

/// The checks that hold for `level` at `version`, in the order of the reference.
#[must_use]
pub fn checks(level: Level, version: Version) -> &'static [Applied] {
    check::plan(level, version)
}

/// The values that checks allow, for whoever states the standards in another language.
pub mod values {
    pub use crate::{
        checks::{CAPABILITIES_BASELINE, CAPABILITY_RESTRICTED, PROBE_AND_LIFECYCLE_HANDLERS, se_linux_types, sysctls},
        volume::{
            ALLOWED as VOLUMES_RESTRICTED, REFUSED as VOLUMES_REFUSED, UNKNOWN as VOLUME_UNKNOWN,
            excepted_as as volume_excepted_as,
        },
    };
}

/// The reasons alone: `REASON, REASON`.
#[must_use]
pub fn reasons(violations: &[Violation]) -> String {
    let mut text = String::with_capacity(violations.len().saturating_mul(28));
    for violation in violations {
        if !text.is_empty() {
            text.push_str(", ");
        }
        text.push_str(violation.reason);
    }
    text
}

/// The text of the reference for a set of violations: `REASON (DETAIL), REASON (DETAIL)`; a detail that is
/// empty is left out.
#[must_use]
pub fn aggregate(violations: &[Violation]) -> String {
    let length = violations.iter().map(|violation| violation.reason.len().saturating_add(violation.detail.len()));
    let mut text = String::with_capacity(length.map(|length| length.saturating_add(5)).sum());
    for violation in violations {
        if !text.is_empty() {
            text.push_str(", ");
        }
        text.push_str(violation.reason);
        if !violation.detail.is_empty() {
            text.push_str(" (");
            text.push_str(&violation.detail);
            text.push(')');
        }
    }
    text
}
