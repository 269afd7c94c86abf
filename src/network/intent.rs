//! Network intent, parsed: webhook, controller and command line read it through here, so that none
//! accepts what another refuses.

use std::collections::BTreeSet;

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use rampart_reach::{Index, Selector};

use crate::api::{self, Direction, Entity, Invalid, Protocol, Reciprocal, selector};

/// What pods of a namespace may talk to.
#[derive(Debug, Clone, PartialEq)]
pub struct Intent {
    /// The pods it is about.
    pub pods: PodSet,
    /// Directions that become deny by default.
    pub isolate: BTreeSet<Direction>,
    /// Who may reach the pods.
    pub ingress: Vec<Rule>,
    /// Whom the pods may reach.
    pub egress: Vec<Rule>,
    /// What to do about the other end of a connection.
    pub reciprocal: Reciprocal,
}

/// Pods by label, as written and as understood.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PodSet {
    /// As written, for rendering.
    pub wire: LabelSelector,
    /// As understood, for deciding.
    pub parsed: Selector,
}

/// One thing that is allowed.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Its name.
    pub name: String,
    /// The other ends, at least one.
    pub peers: Vec<Peer>,
    /// Ports of the destination.
    pub ports: Ports,
}

/// Ports of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ports {
    /// Every port.
    Any,
    /// These: protocol, first port, and last port of a range. Empty where only peers stand that bring
    /// their own.
    Listed(BTreeSet<(Protocol, u16, Option<u16>)>),
}

/// The other end of a connection.
#[derive(Debug, Clone, PartialEq)]
pub enum Peer {
    /// Pods.
    Pods {
        /// Which pods.
        pods: PodSet,
        /// Of which namespaces.
        namespaces: Namespaces,
    },
    /// Addresses outside the cluster.
    External {
        /// The ranges.
        cidrs: Vec<IpNet>,
        /// What is left out of them.
        except: Vec<IpNet>,
    },
    /// The cluster's name servers.
    Dns,
    /// The API server, called.
    ApiServer,
    /// The API server, calling.
    Webhooks,
    /// Everybody.
    Any,
}

impl Peer {
    /// Whether it brings its own ports.
    const fn has_ports(&self) -> bool {
        matches!(self, Self::Dns | Self::ApiServer)
    }
}

/// Namespaces of a peer.
#[derive(Debug, Clone, PartialEq)]
pub enum Namespaces {
    /// The policy's own.
    Own,
    /// These.
    Named(BTreeSet<String>),
    /// Those with these labels.
    Selected(LabelSelector),
}

impl Intent {
    /// The pods that it is about, by their places: of a namespace, and not in the network of their node.
    #[must_use]
    pub fn selected(&self, index: &Index, namespace: &str) -> Vec<usize> {
        let own = index.pods().iter().enumerate().filter(|(_, pod)| pod.namespace == namespace && !pod.host_network);
        own.filter(|(_, pod)| self.pods.parsed.matches(&pod.labels)).map(|(place, _)| place).collect()
    }
}

impl PodSet {
    fn parse(wire: &LabelSelector, field: &str) -> Result<Self, Invalid> {
        Ok(Self { wire: wire.clone(), parsed: selector::parse(wire, field)? })
    }
}

impl TryFrom<&api::Network> for Intent {
    type Error = Invalid;

    fn try_from(network: &api::Network) -> Result<Self, Invalid> {
        let rules = |rules: &[api::NetworkRule], direction: Direction, name: &str| {
            let parse = |(index, rule)| parse_rule(rule, direction, &format!("spec.network.{name}[{index}]"));
            rules.iter().enumerate().map(parse).collect::<Result<Vec<_>, _>>()
        };
        Ok(Self {
            pods: PodSet::parse(&network.pod_selector, "spec.network.podSelector")?,
            isolate: network.isolate.iter().copied().collect(),
            ingress: rules(&network.ingress, Direction::Ingress, "ingress")?,
            egress: rules(&network.egress, Direction::Egress, "egress")?,
            reciprocal: network.reciprocal,
        })
    }
}

fn parse_rule(rule: &api::NetworkRule, direction: Direction, field: &str) -> Result<Rule, Invalid> {
    let parse = |(index, peer)| parse_peer(peer, direction, &format!("{field}.peers[{index}]"));
    let peers = rule.peers.iter().enumerate().map(parse).collect::<Result<Vec<_>, _>>()?;
    if peers.is_empty() {
        return Err(Invalid::at(format!("{field}.peers"), "name at least one peer"));
    }
    let ports = match (&rule.ports, rule.any_port) {
        (None, Some(true)) => Ports::Any,
        (Some(_), Some(true)) => {
            return Err(Invalid::at(format!("{field}.anyPort"), "give ports or anyPort, not both"));
        }
        (Some(ports), _) => Ports::Listed(parse_ports(ports, field)?),
        (None, _) if peers.iter().all(Peer::has_ports) => Ports::Listed(BTreeSet::new()),
        (None, _) => return Err(Invalid::at(format!("{field}.ports"), "list the ports, or set anyPort: true")),
    };
    Ok(Rule { name: rule.name.clone(), peers, ports })
}

fn parse_ports(ports: &[api::Port], field: &str) -> Result<BTreeSet<(Protocol, u16, Option<u16>)>, Invalid> {
    let number = |port: i32, field: String| match u16::try_from(port) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(Invalid::at(field, format!("{port} is not a port: 1 to 65535"))),
    };
    let parse = |(index, port): (usize, &api::Port)| {
        let first = number(port.port, format!("{field}.ports[{index}].port"))?;
        let end = format!("{field}.ports[{index}].endPort");
        let last = port.end_port.map(|last| number(last, end.clone())).transpose()?;
        if last.is_some_and(|last| last < first) {
            return Err(Invalid::at(end, "must not be below port"));
        }
        Ok((port.protocol, first, last))
    };
    if ports.is_empty() {
        return Err(Invalid::at(format!("{field}.ports"), "list the ports, or set anyPort: true"));
    }
    ports.iter().enumerate().map(parse).collect()
}

fn parse_peer(peer: &api::Peer, direction: Direction, field: &str) -> Result<Peer, Invalid> {
    match (&peer.pods, &peer.external, peer.entity, peer.any) {
        (Some(pods), None, None, None) => parse_pods(pods, &format!("{field}.pods")),
        (None, Some(external), None, None) => parse_external(external, &format!("{field}.external")),
        (None, None, Some(entity), None) => parse_entity(entity, direction, &format!("{field}.entity")),
        (None, None, None, Some(true)) => Ok(Peer::Any),
        (None, None, None, Some(false)) => Err(Invalid::at(format!("{field}.any"), "is true or absent")),
        _ => Err(Invalid::at(field, "a peer is exactly one of pods, external, entity and any")),
    }
}

fn parse_entity(entity: Entity, direction: Direction, field: &str) -> Result<Peer, Invalid> {
    let wrong = |problem: &str| Err(Invalid::at(field, problem));
    match (entity, direction) {
        (Entity::SameNamespace, _) => Ok(Peer::Pods { pods: PodSet::default(), namespaces: Namespaces::Own }),
        (Entity::DNS, Direction::Egress) => Ok(Peer::Dns),
        (Entity::DNS, _) => wrong("DNS is asked, it does not call: it is a peer of egress rules only"),
        (Entity::APIServer, Direction::Egress) => Ok(Peer::ApiServer),
        (Entity::APIServer, _) => wrong("as a caller the API server is `entity: Webhooks`"),
        (Entity::Webhooks, Direction::Ingress) => Ok(Peer::Webhooks),
        (Entity::Webhooks, _) => wrong("webhooks are called: to call the API server, name `entity: APIServer`"),
    }
}

fn parse_pods(pods: &api::Pods, field: &str) -> Result<Peer, Invalid> {
    let namespaces = match (&pods.namespaces, &pods.namespace_selector) {
        (None, None) => Namespaces::Own,
        (Some(names), None) => Namespaces::Named(names.iter().cloned().collect()),
        (None, Some(selected)) => {
            selector::parse(selected, &format!("{field}.namespaceSelector"))?;
            Namespaces::Selected(selected.clone())
        }
        (Some(_), Some(_)) => return Err(Invalid::at(field, "name the namespaces or select them, not both")),
    };
    Ok(Peer::Pods { pods: PodSet::parse(&pods.selector, &format!("{field}.selector"))?, namespaces })
}

fn parse_external(external: &api::External, field: &str) -> Result<Peer, Invalid> {
    let ranges = |list: &[String], name: &str| {
        let parse = |(index, text): (usize, &String)| {
            let at = format!("{field}.{name}[{index}]");
            let wrong = |_| Invalid::at(at.clone(), format!("{text:?} is not an address range such as 10.0.0.0/8"));
            text.parse::<IpNet>().map(|range| range.trunc()).map_err(wrong)
        };
        list.iter().enumerate().map(parse).collect::<Result<Vec<_>, _>>()
    };
    let (cidrs, except) = (ranges(&external.cidrs, "cidrs")?, ranges(&external.except, "except")?);
    if cidrs.is_empty() {
        return Err(Invalid::at(format!("{field}.cidrs"), "name at least one range"));
    }
    let outside = except.iter().position(|inner| !cidrs.iter().any(|outer| outer != inner && outer.contains(inner)));
    if let Some(index) = outside {
        let problem = "lies inside none of cidrs, so it would leave nothing out";
        return Err(Invalid::at(format!("{field}.except[{index}]"), problem));
    }
    Ok(Peer::External { cidrs, except })
}
