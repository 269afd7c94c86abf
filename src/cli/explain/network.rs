//! Who reaches a pod and whom it reaches, and which NetworkPolicies decide.

use std::collections::{BTreeMap, BTreeSet};

use rampart_reach::{AddressRange, Analysis, Cuts, Direction, End, PortRange, Protocol, Reach, Verdict};
use serde::Serialize;

use super::{
    crowd::Crowd,
    terrain::{Named, Terrain},
};
use crate::network::ports;

/// What is said of a pod's network.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Network {
    /// What to know beside it.
    pub(super) notes: Vec<String>,
    pub(super) ingress: Side,
    pub(super) egress: Side,
}

/// One direction.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Side {
    /// NetworkPolicies that isolate the pod; none: it is open.
    pub(super) isolated_by: Vec<Named>,
    /// Connections that both ends allow.
    pub(super) allowed: Vec<Row>,
}

/// Connections that are decided alike.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Row {
    /// Ports of the destination.
    pub(super) ports: String,
    /// The other ends.
    pub(super) peers: Crowd,
    /// NetworkPolicies that allow it, or that isolate the end which denies it; none where nothing isolates.
    pub(super) by: Vec<String>,
}

/// Who reaches a pod, and whom it reaches.
pub(super) fn network(terrain: &Terrain<'_>, place: usize) -> Network {
    let index = &terrain.population.index;
    let analysis = Analysis::new(index, &terrain.policies);
    let names: Vec<String> = terrain.names.iter().map(full_name).collect();
    let side = |direction: Direction| {
        let class = index.class_of(place);
        let isolating = class.map(|class| analysis.isolated_by(class, direction)).unwrap_or_default();
        let isolating = isolating.iter().filter_map(|policy| terrain.names.get(*policy).cloned());
        let reach = class.map(|class| analysis.reach(class, direction)).unwrap_or_default();
        let look = Look { terrain, place, direction, cuts: analysis.cuts(), names: &names };
        let isolated_by: BTreeSet<Named> = isolating.collect();
        Side {
            isolated_by: isolated_by.into_iter().collect(),
            allowed: look.rows(&reach, |from, to, port| analysis.verdict(from, to, port)),
        }
    };
    let mut notes = vec![];
    let is_host = terrain.pods().get(place).is_some_and(|pod| pod.host_network);
    if is_host {
        notes.push("it is in the network of its node, where no NetworkPolicy selects it".into());
    }
    Network { notes, ingress: side(Direction::Ingress), egress: side(Direction::Egress) }
}

/// `namespace/name`.
pub(super) fn full_name(named: &Named) -> String {
    format!("{}/{}", named.namespace, named.name)
}

/// One pod's connections in one direction.
pub(super) struct Look<'l> {
    pub(super) terrain: &'l Terrain<'l>,
    pub(super) place: usize,
    pub(super) direction: Direction,
    pub(super) cuts: &'l Cuts,
    /// Names of the policies, as they are counted.
    pub(super) names: &'l [String],
}

impl Look<'_> {
    /// Connections, grouped by what decides them and by ports.
    pub(super) fn rows(&self, reach: &[Reach], decide: impl Fn(End, End, (Protocol, u16)) -> Verdict) -> Vec<Row> {
        let mut by_end: BTreeMap<(usize, Vec<String>), Vec<PortRange>> = BTreeMap::new();
        for part in reach {
            let ranges = part.ports.ones().filter_map(|port| self.cuts.ports().get(port).copied());
            let ranges: Vec<PortRange> = ranges.collect();
            let Some(port) = ranges.first().map(|range| (range.protocol, range.first)) else { continue };
            for end in part.ends.ones() {
                let Some(other) = self.sample(end) else { continue };
                let own = End::Pod(self.place);
                let verdict = match self.direction {
                    Direction::Ingress => decide(other, own, port),
                    Direction::Egress => decide(own, other, port),
                };
                by_end.entry((end, self.told(&verdict))).or_default().extend(&ranges);
            }
        }
        let mut rows: BTreeMap<(Vec<PortRange>, Vec<String>), Vec<usize>> = BTreeMap::new();
        for ((end, by), mut ranges) in by_end {
            ranges.sort_unstable();
            rows.entry((ranges, by)).or_default().push(end);
        }
        let row = |((ranges, by), ends): ((Vec<PortRange>, _), Vec<usize>)| Row {
            ports: ports(&ranges),
            peers: self.crowd(&ends),
            by,
        };
        rows.into_iter().map(row).collect()
    }

    /// One of an end: another pod of the class, or an address of the range; `None` where there is only the pod itself.
    fn sample(&self, end: usize) -> Option<End> {
        match self.terrain.population.index.classes().get(end) {
            Some(pods) => pods.iter().copied().find(|pod| *pod != self.place).map(End::Pod),
            None => self.range(end).map(|range| End::Address(range.first)),
        }
    }

    fn range(&self, end: usize) -> Option<AddressRange> {
        let classes = self.terrain.population.index.classes().len();
        self.cuts.addresses().get(end.checked_sub(classes)?).copied()
    }

    fn told(&self, verdict: &Verdict) -> Vec<String> {
        let names: BTreeSet<&String> = verdict.by.iter().filter_map(|by| self.names.get(by.policy)).collect();
        names.into_iter().cloned().collect()
    }

    fn crowd(&self, ends: &[usize]) -> Crowd {
        let classes = self.terrain.population.index.classes();
        let pods = ends.iter().filter_map(|end| classes.get(*end)).flatten().copied().collect();
        let ranges: Vec<AddressRange> = ends.iter().filter_map(|end| self.range(*end)).collect();
        Crowd::of(self.terrain, Some(self.place), &pods, &ranges)
    }
}
