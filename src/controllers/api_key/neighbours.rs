//! Other ApiKeys that restart the same workloads.

use kube::ResourceExt as _;

use super::super::Roots;
use crate::{
    api::ApiKey,
    keys::{Neighbour, Spec},
    runtime::clock,
};

/// Those that restart a workload which this one restarts, as last seen.
pub(super) fn neighbours(roots: &Roots<ApiKey>, spec: &Spec) -> Vec<Neighbour> {
    let now = clock::now();
    let is_near = |key: &&ApiKey| key.namespace().as_ref() == Some(&spec.namespace) && key.name_any() != spec.name;
    let shares = |it: &Neighbour| spec.restart_targets.iter().any(|target| it.restarts(target));
    let all = roots.store.state();
    all.iter()
        .filter_map(|key| key.0.as_ref().ok())
        .filter(is_near)
        .filter_map(|key| Neighbour::of(key, now))
        .filter(shares)
        .collect()
}
