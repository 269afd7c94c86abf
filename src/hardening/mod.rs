//! Container hardening: which policies cover a pod, and what they say of it.

mod defaults;
mod floor;
mod judge;
mod requirement;

pub use defaults::{default_pod, default_template};
pub use floor::{Floor, compile, namespaces};
pub use judge::{Covering, Enforcement, Finding, Origin, Subject, Verdict, findings, judge};
pub use requirement::Requirement;
