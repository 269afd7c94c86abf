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
//! stores it: defaulted. JSON keys are matched case-sensitively, as the API server does.
//!
//! Of the 19 checks of the standards, the three listed in [`CHECKS`] are here so far.

mod check;
mod checks;
mod level;
mod pod;
mod text;

pub use check::{Check, Decide, Fix, Violation};
pub use checks::CHECKS;
pub use level::{Level, ParseError, Version};
pub use pod::{
    Capabilities, Container, ContainerKind, ContainerSecurityContext, Metadata, Os, Pod, PodSecurityContext, PodSpec,
    SeccompProfile,
};

/// Every violation of `level` at `version`, in the order of the reference; empty when allowed.
///
/// The order is baseline checks by id, then restricted checks by id. No check is skipped because
/// another failed.
#[must_use]
pub fn evaluate(level: Level, version: Version, pod: &Pod<'_>) -> Vec<Violation> {
    check::applicable(CHECKS, level, version).filter_map(|(check, decide)| decide(check, pod)).collect()
}

/// The text of the reference for a set of violations: `REASON (DETAIL), REASON (DETAIL)`.
#[must_use]
pub fn aggregate(violations: &[Violation]) -> String {
    let each = violations.iter().map(|violation| format!("{} ({})", violation.reason, violation.detail));
    each.collect::<Vec<_>>().join(", ")
}
