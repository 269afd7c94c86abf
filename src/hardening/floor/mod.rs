//! The floor: enforced policies as ValidatingAdmissionPolicies, with their constants inside, so that the
//! API server refuses by itself what must be refused, whether Rampart runs or not.
//!
//! Why it is shaped so: no paramKind (its
//! informer can die for the API server's life, kubernetes/kubernetes#130887); equal requirements share a
//! policy; namespaces are named in a match condition, not in the binding's selector, which would cost
//! every pod of the cluster.

mod compile;
mod content;
mod exceptions;
mod extent;
mod form;
mod room;
mod rules;
mod standards;
mod updates;

pub use compile::{Floor, Place, compile};
pub use extent::{SELECTOR, extent, holds_in};
pub use room::{ALL_FLOORS, Roomless};
pub use updates::significant;
