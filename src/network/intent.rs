//! Network intent, parsed: webhook, controller and command line read it through here, so that none
//! accepts what another refuses.

use std::collections::BTreeSet;

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString};
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
    /// Policies of other namespaces that may open the side of this namespace's pods: namespace and name.
    pub accept_from: BTreeSet<(String, String)>,
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
    /// These. Empty where only peers stand that bring their own.
    Listed(BTreeSet<Port>),
}

/// Ports of a protocol.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Port {
    /// The first, and the last of a range.
    Number(Protocol, u16, Option<u16>),
    /// What the destination calls so.
    Named(Protocol, String),
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
    /// The pods behind a Service.
    Service {
        /// Its namespace; `None`: the policy's own.
        namespace: Option<String>,
        /// Its name.
        name: String,
    },
    /// The API server, called.
    ApiServer,
    /// The API server, calling.
    Webhooks,
    /// The pods of the Ingress controller.
    IngressController,
    /// The pods that read metrics.
    Monitoring,
    /// Everybody.
    Any,
}

impl Peer {
    /// Whether it brings its own ports.
    const fn has_ports(&self, direction: Direction) -> bool {
        match self {
            Self::Dns | Self::ApiServer => true,
            Self::Service { .. } => matches!(direction, Direction::Egress),
            _ => false,
        }
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
    Selected(NamespaceSet),
}

/// Namespaces by label, as written and as understood.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NamespaceSet {
    /// As written, for rendering.
    pub wire: LabelSelector,
    /// As understood, for deciding.
    pub parsed: Selector,
}

impl Intent {
    /// Whether what it becomes depends on which pods and Services there are.
    #[must_use]
    pub fn is_resolved(&self) -> bool {
        self.ingress.iter().chain(&self.egress).any(|rule| {
            let is_named = |ports: &BTreeSet<Port>| ports.iter().any(|port| matches!(port, Port::Named(..)));
            rule.peers.iter().any(|peer| matches!(peer, Peer::Service { .. }))
                || matches!(&rule.ports, Ports::Listed(ports) if is_named(ports))
        })
    }

    /// Whether it names addresses outside of the cluster, which must be told from those of all pods.
    #[must_use]
    pub fn names_external(&self) -> bool {
        let mut peers = self.ingress.iter().chain(&self.egress).flat_map(|rule| &rule.peers);
        peers.any(|peer| matches!(peer, Peer::External { .. }))
    }

    /// Whether what it becomes depends on the labels of namespaces: it opens the other end in its own, where that is
    /// selected.
    #[must_use]
    pub fn follows_labels(&self) -> bool {
        let mut peers = self.ingress.iter().chain(&self.egress).flat_map(|rule| &rule.peers);
        let is_selected = |peer: &Peer| matches!(peer, Peer::Pods { namespaces: Namespaces::Selected(_), .. });
        self.reciprocal == Reciprocal::Generate && peers.any(is_selected)
    }

    /// Whether it names the API server, as somebody called or calling.
    #[must_use]
    pub fn names_api_server(&self) -> bool {
        let mut peers = self.ingress.iter().chain(&self.egress).flat_map(|rule| &rule.peers);
        peers.any(|peer| matches!(peer, Peer::ApiServer | Peer::Webhooks))
    }

    /// Whether the side of peers in the policy's own namespace may be opened or reported, which depends on who isolates
    /// them.
    #[must_use]
    pub fn has_other_ends(&self, own: &str) -> bool {
        let mut peers = self.ingress.iter().chain(&self.egress).flat_map(|rule| &rule.peers);
        let is_here = |peer: &Peer| match peer {
            Peer::Pods { namespaces: Namespaces::Own | Namespaces::Selected(_), .. } => true,
            Peer::Pods { namespaces: Namespaces::Named(names), .. } => names.contains(own),
            Peer::Service { namespace, .. } => namespace.as_deref().is_none_or(|it| it == own),
            _ => false,
        };
        !self.accept_from.is_empty() || peers.any(is_here)
    }

    /// The pods that it is about, by their places: of a namespace, and not in the network of their node.
    #[must_use]
    pub fn selected(&self, index: &Index, namespace: &str) -> Vec<usize> {
        index.selected(namespace, &self.pods.parsed)
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
            accept_from: network.accept_from.iter().map(|it| (it.namespace.clone(), it.policy.clone())).collect(),
        })
    }
}

impl TryFrom<&api::ClusterNetwork> for Intent {
    type Error = Invalid;

    /// The intent of each namespace.
    fn try_from(network: &api::ClusterNetwork) -> Result<Self, Invalid> {
        let api::ClusterNetwork { mode, pod_selector, isolate, ingress, egress, allow_no_dns, .. } = network.clone();
        Self::try_from(&api::Network {
            mode,
            pod_selector,
            isolate,
            ingress,
            egress,
            reciprocal: Reciprocal::Report,
            allow_no_dns,
            acknowledge: vec![],
            accept_from: vec![],
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
        (None, _) if peers.iter().all(|peer| peer.has_ports(direction)) => Ports::Listed(BTreeSet::new()),
        (None, _) => return Err(Invalid::at(format!("{field}.ports"), "list the ports, or set anyPort: true")),
    };
    Ok(Rule { name: rule.name.clone(), peers, ports })
}

fn parse_ports(ports: &[api::Port], field: &str) -> Result<BTreeSet<Port>, Invalid> {
    let number = |port: i32, field: String| match u16::try_from(port) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(Invalid::at(field, format!("{port} is not a port: 1 to 65535"))),
    };
    let parse = |(index, port): (usize, &api::Port)| {
        let (at, end) = (format!("{field}.ports[{index}].port"), format!("{field}.ports[{index}].endPort"));
        let first = match &port.port {
            IntOrString::Int(first) => number(*first, at)?,
            IntOrString::String(_) if port.end_port.is_some() => {
                return Err(Invalid::at(end, "needs a port that is a number"));
            }
            IntOrString::String(name) if is_port_name(name) => return Ok(Port::Named(port.protocol, name.clone())),
            IntOrString::String(name) => {
                let problem =
                    "is no name of a port: at most 15 of a-z, 0-9 and -, with a letter; a number goes unquoted";
                return Err(Invalid::at(at, format!("{name:?} {problem}")));
            }
        };
        let last = port.end_port.map(|last| number(last, end.clone())).transpose()?;
        if last.is_some_and(|last| last < first) {
            return Err(Invalid::at(end, "must not be below port"));
        }
        Ok(Port::Number(port.protocol, first, last))
    };
    if ports.is_empty() {
        return Err(Invalid::at(format!("{field}.ports"), "list the ports, or set anyPort: true"));
    }
    ports.iter().enumerate().map(parse).collect()
}

/// An `IANA_SVC_NAME` (RFC 6335, section 5.1).
fn is_port_name(name: &str) -> bool {
    let is_char = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=15).contains(&name.len())
        && name.bytes().all(is_char)
        && name.bytes().any(|byte| byte.is_ascii_lowercase())
        && !(name.starts_with('-') || name.ends_with('-') || name.contains("--"))
}

fn parse_peer(peer: &api::Peer, direction: Direction, field: &str) -> Result<Peer, Invalid> {
    let set = [
        peer.pods.is_some(),
        peer.service.is_some(),
        peer.external.is_some(),
        peer.entity.is_some(),
        peer.any.is_some(),
    ];
    if set.into_iter().filter(|set| *set).count() != 1 {
        return Err(Invalid::at(field, "a peer is exactly one of pods, service, external, entity and any"));
    }
    if let Some(pods) = &peer.pods {
        return parse_pods(pods, &format!("{field}.pods"));
    }
    if let Some(api::ServicePeer { name, namespace }) = &peer.service {
        return Ok(Peer::Service { namespace: namespace.clone(), name: name.clone() });
    }
    if let Some(external) = &peer.external {
        return parse_external(external, &format!("{field}.external"));
    }
    match peer.entity {
        Some(entity) => parse_entity(entity, direction, &format!("{field}.entity")),
        None if peer.any == Some(true) => Ok(Peer::Any),
        None => Err(Invalid::at(format!("{field}.any"), "is true or absent")),
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
        (Entity::IngressController, Direction::Ingress) => Ok(Peer::IngressController),
        (Entity::Monitoring, Direction::Ingress) => Ok(Peer::Monitoring),
        (Entity::IngressController | Entity::Monitoring, _) => wrong("it calls: it is a peer of ingress rules only"),
        (Entity::Webhooks, Direction::Ingress) => Ok(Peer::Webhooks),
        (Entity::Webhooks, _) => wrong("webhooks are called: to call the API server, name `entity: APIServer`"),
    }
}

fn parse_pods(pods: &api::Pods, field: &str) -> Result<Peer, Invalid> {
    let namespaces = match (&pods.namespaces, &pods.namespace_selector) {
        (None, None) => Namespaces::Own,
        (Some(names), None) => Namespaces::Named(names.iter().cloned().collect()),
        (None, Some(selected)) => {
            let parsed = selector::parse(selected, &format!("{field}.namespaceSelector"))?;
            Namespaces::Selected(NamespaceSet { wire: selected.clone(), parsed })
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

impl Protocol {
    /// Whether it is the protocol that the analysis means.
    #[must_use]
    pub fn is(self, other: rampart_reach::Protocol) -> bool {
        self == Self::from(other)
    }
}

impl From<rampart_reach::Protocol> for Protocol {
    fn from(protocol: rampart_reach::Protocol) -> Self {
        match protocol {
            rampart_reach::Protocol::TCP => Self::TCP,
            rampart_reach::Protocol::UDP => Self::UDP,
            rampart_reach::Protocol::SCTP => Self::SCTP,
        }
    }
}
