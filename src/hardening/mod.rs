//! Container hardening: which policies cover a pod, and what they say of it.

pub(crate) mod cel;
mod defaults;
mod directory;
mod effect;
mod exception;
mod fix;
mod floor;
mod judge;
mod policies;
pub mod psa_labels;
mod requirement;
mod rules;
mod scan;
mod scope;
mod value;

pub use defaults::{default_pod, default_template, mount_token};
pub use effect::Effect;
pub use exception::{Covered, Exception, Permission};
pub use fix::{Mend, mend};
pub use floor::{ALL_FLOORS, Floor, Place, Roomless, SELECTOR, compile, extent, holds_in, significant};
pub use judge::{Broken, Covering, Enforcement, Finding, Origin, Seen, Subject, Verdict, ask_rules, findings, judge};
pub use policies::{FLOORS, Policies};
pub use requirement::{Requirement, Standard};
pub use rules::{About, Moved, Pod as RulesPod, RULES, Rules, Violation as RuleViolation, Whose, reference};
pub use scan::{Controller, ControllerKind, Counted, Kept, OpenReport, Owners, Report, Scan, Workload};
pub use scope::{ClusterWide, Demand, Eldest, Exceptions, SYSTEM_NAMESPACES, is_system_namespace};

/// What ids of rules begin with that are checks of the Pod Security Standards.
const PSS: &str = "pss/";

/// The id among all rules of a check of the Pod Security Standards: `pss/ID`.
#[must_use]
pub fn rule_of_check(id: &str) -> String {
    format!("{PSS}{id}")
}

/// The check of the Pod Security Standards that a rule is, if it is one.
fn check_of_rule(rule: &str) -> Option<&str> {
    rule.strip_prefix(PSS)
}
