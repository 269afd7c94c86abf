//! Rules, on the wire.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use k8s_openapi::{
    api::networking::v1::{NetworkPolicyEgressRule, NetworkPolicyPeer},
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use rampart_reach::Pod;

use super::{
    Renderer, Unrenderable,
    peers::{api_server_rules, dns_rule, entity_peer, external_peers, ip_block, known_api_server, pod_peers},
    ports::{Numbers, wire_ports},
};
use crate::{
    api::Direction,
    network::{Cluster, Namespaces, Peer, Port, Ports, Rule, Service, surroundings::Name},
};

impl<'r> Renderer<'r> {
    /// Rules of a direction, in the order of their names; as egress rules, which ingress turns round.
    pub(super) fn rules(&mut self, direction: Direction) -> Result<Vec<NetworkPolicyEgressRule>, Unrenderable> {
        let rules = match direction {
            Direction::Ingress => &self.intent.ingress,
            Direction::Egress => &self.intent.egress,
        };
        let mut sorted: Vec<&Rule> = rules.iter().collect();
        sorted.sort_by(|one, other| one.name.cmp(&other.name));
        let mut rendered = vec![];
        for rule in sorted {
            rendered.extend(self.rule(rule, direction)?);
        }
        Ok(rendered)
    }

    fn rule(&mut self, rule: &'r Rule, direction: Direction) -> Result<Vec<NetworkPolicyEgressRule>, Unrenderable> {
        let facts = self.cluster.facts;
        let (mut rendered, mut to) = (vec![], vec![]);
        let mut is_open = false;
        for peer in &rule.peers {
            match peer {
                Peer::Pods { pods, namespaces } => {
                    self.known_namespaces(rule, namespaces);
                    to.extend(pod_peers(&pods.wire, namespaces));
                }
                Peer::Service { namespace, name } => {
                    let Some((peers, service)) = self.service(rule, (namespace.as_deref(), name)) else { continue };
                    match direction {
                        Direction::Ingress => to.extend(peers),
                        Direction::Egress => rendered.extend(self.service_rule(rule, peers, &service)),
                    }
                }
                Peer::External { cidrs, except } => {
                    self.known_ranges(rule)?;
                    let (namespace, findings) = (self.namespace, &mut self.findings);
                    to.extend(external_peers(rule, cidrs, except, (namespace, facts), findings));
                }
                Peer::Dns => rendered.push(dns_rule(facts)),
                Peer::ApiServer => rendered.extend(api_server_rules(known_api_server(rule, facts)?)),
                Peer::Webhooks => {
                    let addresses: BTreeSet<IpNet> =
                        known_api_server(rule, facts)?.api_endpoints.iter().map(|(it, _)| IpNet::from(*it)).collect();
                    to.extend(addresses.into_iter().map(|address| ip_block(address, &BTreeSet::new())));
                }
                Peer::IngressController => {
                    let flag = "--network-ingress-controller (network.ingressController of the chart)";
                    to.push(entity_peer(rule, facts.ingress_controller.as_ref(), ("IngressController", flag))?);
                }
                Peer::Monitoring => {
                    let flag = "--network-monitoring (network.monitoring of the chart)";
                    to.push(entity_peer(rule, facts.monitoring.as_ref(), ("Monitoring", flag))?);
                }
                Peer::Any => is_open = true,
            }
        }
        if is_open {
            let message =
                format!("rule {:?} is about everybody, inside and outside of the cluster: `any: true`", rule.name);
            self.find("OpenToAll", rule, message);
        }
        // A rule without peers, or with an empty list of ports, would allow everything.
        if (is_open || !to.is_empty())
            && let Some(ports) = self.ports(rule, direction)
        {
            rendered.push(NetworkPolicyEgressRule { to: (!is_open).then_some(to), ports });
        }
        Ok(rendered)
    }

    /// Tells of namespaces that a peer names and that are not there.
    fn known_namespaces(&mut self, rule: &Rule, namespaces: &Namespaces) {
        let Namespaces::Named(names) = namespaces else { return };
        let is_there = |name: &str| self.cluster.population.has(name);
        // Where not even the policy's own is known, nobody has read them.
        if !is_there(self.namespace) {
            return;
        }
        let missing: Vec<&str> = names.iter().map(String::as_str).filter(|name| !is_there(name)).collect();
        if !missing.is_empty() {
            let message = format!(
                "rule {:?} names namespaces that are not there: {}; nothing is allowed for them until they are",
                rule.name,
                missing.join(", ")
            );
            self.find("NamespaceUnknown", rule, message);
        }
    }

    /// That the cluster's ranges are known, as far as its pods can tell.
    fn known_ranges(&self, rule: &Rule) -> Result<(), Unrenderable> {
        let (Cluster { facts, population, .. }, rule) = (self.cluster, rule.name.clone());
        if facts.cluster_ranges.is_empty() {
            return Err(Unrenderable::UnknownClusterRanges { rule });
        }
        match population.stray(facts) {
            Some((Pod { namespace, name, .. }, address)) => {
                Err(Unrenderable::PodOutsideRanges { rule, pod: format!("{namespace}/{name}"), address })
            }
            None => Ok(()),
        }
    }

    /// The pods behind a Service, as peers.
    fn service(
        &mut self,
        rule: &Rule,
        (namespace, name): (Option<&str>, &str),
    ) -> Option<(Vec<NetworkPolicyPeer>, BehindService<'r>)> {
        let namespace = namespace.unwrap_or(self.namespace);
        let Some(behind) = BehindService::find(self.cluster.services, namespace, name) else {
            let message = format!(
                "rule {:?} names the Service {namespace}/{name}, which is not there or selects no pods: nothing is \
                 allowed for it",
                rule.name
            );
            self.find("ServiceUnknown", rule, message);
            return None;
        };
        let pods = LabelSelector { match_labels: Some(behind.selector().clone()), match_expressions: None };
        let own = namespace == self.namespace;
        let namespaces = if own { Namespaces::Own } else { Namespaces::Named([namespace.to_owned()].into()) };
        Some((pod_peers(&pods, &namespaces), behind))
    }

    /// The ports of a Service that a rule is about, as those of its pods.
    pub(super) fn service_rule(
        &mut self,
        rule: &Rule,
        peers: Vec<NetworkPolicyPeer>,
        behind: &BehindService<'_>,
    ) -> Option<NetworkPolicyEgressRule> {
        let listed = match &rule.ports {
            Ports::Any => return Some(NetworkPolicyEgressRule { to: Some(peers), ports: None }),
            Ports::Listed(listed) => listed,
        };
        let is_meant = |port: &crate::network::ServicePort, listed: &Port| match listed {
            Port::Number(protocol, first, last) => {
                protocol.is(port.protocol) && (*first..=last.unwrap_or(*first)).contains(&port.port)
            }
            Port::Named(protocol, name) => protocol.is(port.protocol) && *name == port.name,
        };
        let ports = || behind.service.ports.iter();
        if listed.iter().any(|listed| !ports().any(|port| is_meant(port, listed))) {
            let message =
                format!("rule {:?} lists ports that its Service has not: list those of the Service", rule.name);
            self.find("ServicePortUnknown", rule, message);
        }
        let meant = ports().filter(|port| listed.is_empty() || listed.iter().any(|listed| is_meant(port, listed)));
        let pods = self.cluster.population.pods_in(behind.namespace);
        let pods: Vec<_> = pods.filter(|pod| behind.service.selects(pod)).collect();
        let numbers: Numbers = meant
            .flat_map(|port| match port.target {
                crate::network::Target::Number(number) => vec![(port.protocol, number)],
                crate::network::Target::Named(_) => pods.iter().filter_map(|pod| port.of(pod)).collect(),
            })
            .map(|(protocol, number)| (protocol.into(), number, None))
            .collect();
        if numbers.is_empty() {
            let message = format!(
                "rule {:?} is about ports of its Service that none of its pods has: nothing is allowed for it",
                rule.name
            );
            self.find("NamedPortUnknown", rule, message);
            return None;
        }
        Some(NetworkPolicyEgressRule { to: Some(peers), ports: Some(wire_ports(&numbers)) })
    }
}

/// A Service and its namespace.
pub(super) struct BehindService<'r> {
    namespace: &'r str,
    service: &'r Service,
}

impl<'r> BehindService<'r> {
    pub(super) fn find(services: &'r BTreeMap<Name, Service>, namespace: &str, name: &str) -> Option<Self> {
        let ((namespace, _), service) = services.get_key_value(&(namespace.to_owned(), name.to_owned()))?;
        Some(Self { namespace, service })
    }

    /// Labels of its pods.
    pub(super) const fn selector(&self) -> &'r BTreeMap<String, String> {
        &self.service.selector
    }
}
