//! From network intent to NetworkPolicies.
//!
//! [`Intent`] is the parsed `spec.network`; [`render`] turns it and what is known of the cluster
//! ([`Facts`]) into objects; [`same_spec`] says whether the API server holds what was rendered.

mod compare;
mod facts;
mod intent;
mod render;
mod world;

pub use compare::same_spec;
pub use facts::Facts;
pub use intent::{Intent, Namespaces, Peer, PodSet, Ports, Rule};
pub use render::{Rendered, Unrenderable, render};
pub use world::World;
