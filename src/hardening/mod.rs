//! Container hardening: which policies cover a pod, and what they say of it.

mod judge;
mod requirement;

pub use judge::{Covering, Subject, Verdict, judge};
pub use requirement::Requirement;
