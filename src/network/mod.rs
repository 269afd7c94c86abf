//! From network intent to NetworkPolicies.
//!
//! [`Intent`] is the parsed `spec.network`; [`render`] turns it and what is known of the cluster
//! ([`Cluster`]) into objects; [`same_spec`] says whether the API server holds what was rendered.

mod breaks;
mod compare;
mod facts;
mod intent;
mod known;
mod preview;
mod render;
mod resident;
mod surroundings;
mod traps;
mod widened;
mod world;

pub use breaks::{View, breaks};
pub use compare::same_spec;
pub use facts::{EntityPods, Facts};
pub use intent::{Intent, NamespaceSet, Namespaces, Peer, PodSet, Port, Ports, Rule};
pub use known::Cluster;
pub use preview::{addresses, ports, preview};
pub use render::{Rendered, Unrenderable, render};
pub use resident::{Needs, Population, Resident};
pub use surroundings::{Service, ServicePort, Surroundings, Target, backends, mutated_by, validated_by};
pub use traps::{Caught, TRAPS, Trap, traps};
pub use widened::widened_by;
pub use world::{World, understood};
