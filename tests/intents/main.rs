//! Intents of the network: what is rendered of them, what it lets through, and what is told of it.
//! One program: each that is linked by itself takes seconds.

mod network;
mod network_breaks;
mod network_least;
mod network_reciprocal;
mod sample_intent;
mod traps;

use std::{collections::BTreeMap, sync::LazyLock};

use rampart::network::{Cluster, Facts, NamespaceLabels, Service};

static NO_NAMESPACES: LazyLock<NamespaceLabels> = LazyLock::new(NamespaceLabels::default);
static NO_SERVICES: BTreeMap<(String, String), Service> = BTreeMap::new();

/// A cluster of which nothing but its addresses is known.
fn of_facts(facts: &Facts) -> Cluster<'_> {
    Cluster { facts, namespaces: &NO_NAMESPACES, pods: &[], services: &NO_SERVICES }
}
