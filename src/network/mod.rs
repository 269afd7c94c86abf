//! From network intent to NetworkPolicies.
//!
//! [`Intent`] is the parsed `spec.network`; [`render`] turns it and what is known of the cluster
//! ([`Cluster`]) into objects; [`same_spec`] says whether the API server holds what was rendered.

mod breaks;
mod clamp;
mod class;
mod compare;
mod enforcer;
mod facts;
mod intent;
mod known;
mod monitors;
mod not_expressible;
mod preview;
mod render;
mod resident;
mod servers;
mod standing;
mod surroundings;
mod traps;
mod widened;
mod world;

pub use breaks::{View, breaks, is_in_the_way};
pub use class::meets;
pub use compare::same_spec;
pub use enforcer::of_group as enforcer_of_group;
pub use facts::{EntityPods, Facts};
pub use intent::{Intent, NamespaceSet, Namespaces, Peer, PodSet, Port, Ports, Rule};
pub use known::Cluster;
pub use monitors::{Monitor, PodMonitorSpec, ServiceMonitorSpec};
pub use not_expressible::not_expressible;
pub use preview::{addresses, ports, preview};
pub use render::{Accepting, Rendered, Unrenderable, render, unmet};
pub use resident::{Needs, Population, Resident};
pub use servers::{DNS_NAMESPACE, DNS_PORT, is_unmatched};
pub use standing::{Answered, Standing, standing};
pub use surroundings::{
    BackendPort, Service, ServicePort, Surroundings, Target, aggregated_by, backends, converted_by, mutated_by,
    validated_by,
};
pub use traps::{Caught, TRAPS, Trap, traps};
pub use widened::widened_by;
pub use world::{World, understood};
