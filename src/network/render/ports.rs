//! Ports of a rule: names are resolved to numbers, and numbers put on the wire.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{api::networking::v1::NetworkPolicyPort, apimachinery::pkg::util::intstr::IntOrString};
use rampart_reach::{Pod, Selector, Which};

use super::Renderer;
use crate::{
    api::{Direction, Protocol},
    network::{Namespaces, Peer, PodSet, Port, Ports, Rule},
};

/// Protocol, first port, and the last one of a range.
pub(super) type Numbers = BTreeSet<(Protocol, u16, Option<u16>)>;

pub(super) fn wire_ports(ports: &Numbers) -> Vec<NetworkPolicyPort> {
    let wire = |(protocol, first, last): &(Protocol, u16, Option<u16>)| NetworkPolicyPort {
        protocol: Some(format!("{protocol:?}")),
        port: Some(IntOrString::Int((*first).into())),
        end_port: last.map(i32::from),
    };
    ports.iter().map(wire).collect()
}

/// The same, as the analysis understands them: what is rendered has numbers alone.
pub(super) fn understood_ports(wire: &[NetworkPolicyPort]) -> Vec<rampart_reach::Ports> {
    let understood = |port: &NetworkPolicyPort| {
        let Some(IntOrString::Int(first)) = port.port else { return None };
        let (first, last) = (u16::try_from(first).ok()?, u16::try_from(port.end_port.unwrap_or(first)).ok()?);
        let protocol = port.protocol.as_deref()?.parse().ok()?;
        Some(rampart_reach::Ports { protocol, which: Which::Numbers(first, last) })
    };
    wire.iter().filter_map(understood).collect()
}

impl<'r> Renderer<'r> {
    /// Ports of a rule on the wire, where the inner `None` is every port; `None` where nothing is left of them.
    #[expect(clippy::option_option, reason = "all ports on the wire are an absent list, and no ports are no rule")]
    pub(super) fn ports(&mut self, rule: &Rule, direction: Direction) -> Option<Option<Vec<NetworkPolicyPort>>> {
        let listed = match &rule.ports {
            Ports::Any => return Some(None),
            Ports::Listed(listed) => listed,
        };
        let mut numbers = Numbers::new();
        for port in listed {
            match port {
                Port::Number(protocol, first, last) => drop(numbers.insert((*protocol, *first, *last))),
                Port::Named(protocol, name) => {
                    let found = self.named(rule, direction, (*protocol, name));
                    numbers.extend(found.into_iter().map(|number| (*protocol, number, None)));
                }
            }
        }
        (!numbers.is_empty()).then(|| Some(wire_ports(&numbers)))
    }

    /// What the pods of the destination call so, as numbers.
    fn named(&mut self, rule: &Rule, direction: Direction, (protocol, name): (Protocol, &str)) -> BTreeSet<u16> {
        let mut found: BTreeMap<u16, &Pod> = BTreeMap::new();
        for pod in self.destinations(rule, direction) {
            let ports = pod.ports.iter().filter(|port| port.name == name && protocol.is(port.protocol));
            for port in ports {
                found.entry(port.port).or_insert(pod);
            }
        }
        match found.len() {
            0 => {
                let message = format!(
                    "rule {:?} has the port {name:?}, and no pod that it leads to calls one so: nothing is allowed for it",
                    rule.name
                );
                self.find("NamedPortUnknown", rule, message);
            }
            1 => {}
            _ => {
                let told = found.iter().take(4).map(|(number, pod)| format!("{number} ({})", pod.name));
                let message = format!(
                    "the pods of rule {:?} do not agree what port {name:?} is: {}; each is allowed for all of them",
                    rule.name,
                    told.collect::<Vec<_>>().join(", ")
                );
                self.find("NamedPortAmbiguous", rule, message);
            }
        }
        found.into_keys().collect()
    }

    /// Pods that a rule leads to: of those that may be anywhere, one of each class.
    fn destinations(&self, rule: &Rule, direction: Direction) -> Vec<&'r Pod> {
        let population = self.cluster.population;
        let here = |namespace: &str, pods: &Selector| -> Vec<&'r Pod> {
            let all = population.pods_in(namespace);
            all.filter(|pod| !pod.host_network && pods.matches(&pod.labels)).collect()
        };
        if direction == Direction::Ingress {
            return here(self.namespace, &self.intent.pods.parsed);
        }
        let mut found = vec![];
        for peer in &rule.peers {
            let Peer::Pods { pods: PodSet { parsed: pods, .. }, namespaces } = peer else { continue };
            match namespaces {
                Namespaces::Own => found.extend(here(self.namespace, pods)),
                Namespaces::Named(names) => found.extend(names.iter().flat_map(|name| here(name, pods))),
                Namespaces::Selected(selected) => found.extend(population.index.examples(&selected.parsed, pods)),
            }
        }
        found
    }
}
