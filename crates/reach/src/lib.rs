//! Who reaches whom under a set of Kubernetes NetworkPolicies.
//!
//! So far: [`covers`], the question whether one label selector selects at least the pods of another.

mod selector;

pub use selector::{Operator, Requirement, Selector, covers};
