//! Container hardening: which policies cover a pod, and what they say of it.

mod defaults;
mod floor;
mod judge;
mod requirement;
mod scope;

pub use defaults::{default_pod, default_template};
pub use floor::{Floor, Place, SELECTOR, compile, extent};
pub use judge::{Covering, Enforcement, Finding, Origin, Subject, Verdict, findings, judge};
pub use requirement::Requirement;
pub use scope::{ClusterWide, Demand, SYSTEM_NAMESPACES, is_system_namespace};
