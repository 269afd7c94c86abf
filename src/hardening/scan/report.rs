//! What statuses and metrics are told of a scan.

use std::collections::{BTreeMap, BTreeSet};

use super::{Controller, Found, Owners, Scan, Scanned, Workload};
use crate::{
    api::{PodCounts, Sample},
    hardening::Origin,
};

/// Workloads that a status names.
const SAMPLES: usize = 20;

/// A scan, counted.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// SecurityPolicies, by namespace and name.
    pub own: BTreeMap<(String, String), Counted>,
    /// ClusterSecurityPolicies, by name.
    pub wide: BTreeMap<String, Counted>,
    /// Pods that rely on PolicyExceptions, by namespace and name.
    pub relying: BTreeMap<(String, String), u32>,
    /// Pods by the worst that any policy says of them; those that none covers are not counted.
    pub pods: PodCounts,
}

/// What is said of one policy.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Counted {
    /// Its pods.
    pub pods: PodCounts,
    /// Workloads that violate it.
    pub samples: Vec<Sample>,
    /// How many more there are.
    pub more: u32,
}

/// Pods that violate alike, by workload.
type Groups<'s> = BTreeMap<(&'s str, String, String, &'s Found), u32>;

impl Scan {
    /// Controllers of pods that violate.
    #[must_use]
    pub fn controllers(&self) -> BTreeSet<Controller> {
        let pods = self.namespaces.values().flat_map(|of| of.pods.values());
        pods.filter(|pod| pod.violates()).filter_map(|pod| pod.kept.controller.clone()).collect()
    }

    /// Counts.
    #[must_use]
    pub fn report(&self, owners: &Owners) -> Report {
        let mut report = Report::default();
        report.wide.extend(self.wide.iter().map(|name| (name.clone(), Counted::default())));
        report.relying.extend(self.exceptions.iter().map(|exception| (exception.clone(), 0)));
        let mut wide: BTreeMap<&str, Groups<'_>> = BTreeMap::new();
        for (namespace, of) in &self.namespaces {
            let mut groups: Vec<Groups<'_>> = vec![BTreeMap::new(); of.covering.len()];
            let mut counts = vec![PodCounts::default(); of.covering.len()];
            for (name, pod) in of.pods.iter().filter(|_| !of.covering.is_empty()) {
                for (index, (counts, groups)) in counts.iter_mut().zip(&mut groups).enumerate() {
                    let found = pod.found(index);
                    count(counts, found);
                    if let Found::Violating { .. } = found {
                        let Workload { kind, name, .. } = shown(name, pod, owners);
                        let pods = groups.entry((namespace, kind, name, found)).or_default();
                        *pods = pods.saturating_add(1);
                    }
                }
                count(&mut report.pods, pod.worst());
                for exception in &pod.relying {
                    let pods = report.relying.entry((namespace.clone(), exception.clone())).or_default();
                    *pods = pods.saturating_add(1);
                }
            }
            for ((covering, counts), groups) in of.covering.iter().zip(counts).zip(groups) {
                match &covering.origin {
                    Origin::SecurityPolicy(name) => {
                        let counted = report.own.entry((namespace.clone(), name.clone())).or_default();
                        counted.pods = counts;
                        (counted.samples, counted.more) = samples(groups, false);
                    }
                    Origin::ClusterSecurityPolicy(name) => {
                        add(&mut report.wide.entry(name.clone()).or_default().pods, counts);
                        wide.entry(name).or_default().extend(groups);
                    }
                    Origin::CommandLine => {}
                }
            }
        }
        for (name, groups) in wide {
            let counted = report.wide.entry(name.into()).or_default();
            (counted.samples, counted.more) = samples(groups, true);
        }
        report
    }
}

fn count(counts: &mut PodCounts, found: &Found) {
    let one = match found {
        Found::Compliant => &mut counts.compliant,
        Found::Exempt => &mut counts.exempt,
        Found::Violating { .. } => &mut counts.violating,
    };
    *one = one.saturating_add(1);
    counts.selected = counts.selected.saturating_add(1);
}

fn add(all: &mut PodCounts, more: PodCounts) {
    let PodCounts { selected, compliant, violating, exempt } = more;
    all.selected = all.selected.saturating_add(selected);
    all.compliant = all.compliant.saturating_add(compliant);
    all.violating = all.violating.saturating_add(violating);
    all.exempt = all.exempt.saturating_add(exempt);
}

/// The workload that a pod is shown under: by itself, unless its controller is there.
pub(super) fn shown(name: &str, pod: &Scanned, owners: &Owners) -> Workload {
    let owner = pod.kept.controller.as_ref().and_then(|controller| owners.get(controller)?.as_ref());
    owner.cloned().unwrap_or_else(|| Workload {
        api_version: "v1".into(),
        kind: "Pod".into(),
        name: name.into(),
        uid: pod.kept.uid.clone(),
    })
}

fn samples(groups: Groups<'_>, with_namespace: bool) -> (Vec<Sample>, u32) {
    let more = u32::try_from(groups.len().saturating_sub(SAMPLES)).unwrap_or(u32::MAX);
    let sample = |((namespace, kind, name, found), pods): ((&str, String, String, &Found), u32)| {
        let Found::Violating { broken, message } = found else { return Sample::default() };
        let rules = broken.iter().map(|broken| broken.rule.clone()).collect();
        let namespace = with_namespace.then(|| namespace.to_owned());
        Sample { namespace, kind, name, rules, message: message.clone(), pods }
    };
    (groups.into_iter().take(SAMPLES).map(sample).collect(), more)
}
