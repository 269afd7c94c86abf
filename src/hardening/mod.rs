//! Container hardening: which policies cover a pod, and what they say of it.

mod cel;
mod defaults;
mod exception;
mod floor;
mod judge;
mod policies;
mod requirement;
mod rules;
mod scope;

pub use defaults::{default_pod, default_template};
pub use exception::{Covered, Exception, Permission};
pub use floor::{Floor, Place, SELECTOR, compile, extent};
pub use judge::{Covering, Enforcement, Finding, Origin, Seen, Subject, Verdict, ask_rules, findings, judge};
pub use policies::Policies;
pub use requirement::{Requirement, Standard};
pub use rules::{About, Pod as RulesPod, RULES, Rules, Violation as RuleViolation, Whose};
pub use scope::{ClusterWide, Demand, Exceptions, SYSTEM_NAMESPACES, is_system_namespace};
