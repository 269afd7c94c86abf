//! A cluster as it is, as far as rendering asks.

use std::{collections::BTreeMap, sync::LazyLock};

use super::{Facts, Population, Service, surroundings::Name};

/// A cluster as it is.
#[derive(Debug, Clone, Copy)]
pub struct Cluster<'c> {
    /// Its addresses.
    pub facts: &'c Facts,
    /// Its namespaces and pods.
    pub population: &'c Population,
    /// Services that select pods.
    pub services: &'c BTreeMap<Name, Service>,
}

static NOBODY: LazyLock<Population> = LazyLock::new(|| Population::new(vec![], std::iter::empty()));
static NO_SERVICES: BTreeMap<Name, Service> = BTreeMap::new();

impl<'c> Cluster<'c> {
    /// One of which nothing but its addresses is known.
    #[must_use]
    pub fn of_facts(facts: &'c Facts) -> Self {
        Self { facts, population: &NOBODY, services: &NO_SERVICES }
    }
}
