//! A NetworkPolicy, understood.

use std::{collections::BTreeSet, fmt};

use ipnet::IpNet;
use serde::Deserialize;

use crate::{
    Selector,
    wire::{self, NumberOrName},
};

/// A NetworkPolicy.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "wire::NetworkPolicy")]
pub struct Policy {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The pods of its namespace that it is about.
    pub pods: Selector,
    /// What may come in; `None` where it does not isolate them.
    pub ingress: Option<Vec<Rule>>,
    /// What may go out; `None` where it does not isolate them.
    pub egress: Option<Vec<Rule>>,
}

/// One thing that is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The other ends; `None`: whoever it is.
    pub peers: Option<Vec<Peer>>,
    /// Ports of the destination; `None`: all of all protocols.
    pub ports: Option<Vec<Ports>>,
}

/// Other ends.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peer {
    /// Pods.
    Pods {
        /// By the labels of their namespaces; `None`: of the policy's own.
        namespaces: Option<Selector>,
        /// By their labels.
        pods: Selector,
    },
    /// Addresses.
    Addresses {
        /// A range.
        cidr: IpNet,
        /// What is left out of it.
        except: Vec<IpNet>,
    },
}

/// Ports of a protocol.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ports {
    /// The protocol.
    pub protocol: Protocol,
    /// Which.
    pub which: Which,
}

/// Which ports.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Which {
    /// First and last.
    Numbers(u16, u16),
    /// What a container of the destination calls so.
    Named(String),
}

/// A protocol of ports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
pub enum Protocol {
    /// TCP.
    #[default]
    TCP,
    /// UDP.
    UDP,
    /// SCTP.
    SCTP,
}

impl Protocol {
    /// Every protocol.
    pub const ALL: [Self; 3] = [Self::TCP, Self::UDP, Self::SCTP];
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl std::str::FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = Self::ALL.into_iter().find(|it| it.to_string() == text);
        named.ok_or_else(|| format!("{text:?} is no protocol: use TCP, UDP or SCTP"))
    }
}

/// Something that the API server would have refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// Where: `spec.ingress[0].ports[1].endPort`.
    pub field: String,
    /// What is wrong there.
    pub problem: String,
}

impl Invalid {
    pub(crate) fn at(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into() }
    }

    fn below(self, field: &str) -> Self {
        Self { field: format!("{field}.{}", self.field), ..self }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.problem)
    }
}

impl std::error::Error for Invalid {}

const INGRESS: &str = "Ingress";
const EGRESS: &str = "Egress";

impl TryFrom<wire::NetworkPolicy> for Policy {
    type Error = Invalid;

    fn try_from(wire: wire::NetworkPolicy) -> Result<Self, Invalid> {
        let spec = wire.spec.unwrap_or_default();
        let types: BTreeSet<&str> = match &spec.policy_types {
            Some(types) if !types.is_empty() => types.iter().map(String::as_str).collect(),
            // `SetDefaults_NetworkPolicy`: Ingress always, Egress where there are egress rules.
            _ if spec.egress.as_ref().is_some_and(|rules| !rules.is_empty()) => [INGRESS, EGRESS].into(),
            _ => [INGRESS].into(),
        };
        if let Some(unknown) = types.iter().find(|it| ![INGRESS, EGRESS].contains(*it)) {
            return Err(Invalid::at("spec.policyTypes", format!("{unknown:?} is neither Ingress nor Egress")));
        }
        let ingress = spec.ingress.unwrap_or_default().into_iter().map(|it| (it.from, it.ports));
        let egress = spec.egress.unwrap_or_default().into_iter().map(|it| (it.to, it.ports));
        let ingress = rules(ingress, "spec.ingress", "from")?;
        let egress = rules(egress, "spec.egress", "to")?;
        Ok(Self {
            namespace: wire.metadata.namespace.unwrap_or_else(|| "default".into()),
            name: wire.metadata.name.unwrap_or_default(),
            pods: selector(spec.pod_selector.as_ref(), "spec.podSelector")?,
            ingress: types.contains(INGRESS).then_some(ingress),
            egress: types.contains(EGRESS).then_some(egress),
        })
    }
}

type Written = (Option<Vec<wire::Peer>>, Option<Vec<wire::Port>>);

fn rules(written: impl Iterator<Item = Written>, field: &str, peers_field: &str) -> Result<Vec<Rule>, Invalid> {
    let rule = |(index, (peers, ports)): (usize, Written)| {
        let at = |what: &str, place: usize| format!("{field}[{index}].{what}[{place}]");
        // Empty is all (NetworkPolicyIngressRule, `from` and `ports`).
        let peers = peers.filter(|list| !list.is_empty()).map(|list| {
            list.iter().enumerate().map(|(place, it)| peer(it, &at(peers_field, place))).collect::<Result<_, _>>()
        });
        let ports = ports.filter(|list| !list.is_empty()).map(|list| {
            list.iter().enumerate().map(|(place, it)| port(it, &at("ports", place))).collect::<Result<_, _>>()
        });
        Ok(Rule { peers: peers.transpose()?, ports: ports.transpose()? })
    };
    written.enumerate().map(rule).collect()
}

fn selector(written: Option<&wire::LabelSelector>, field: &str) -> Result<Selector, Invalid> {
    written.map_or_else(|| Ok(Selector::default()), |it| Selector::try_from(it).map_err(|error| error.below(field)))
}

fn peer(written: &wire::Peer, field: &str) -> Result<Peer, Invalid> {
    let parsed = |it: &Option<wire::LabelSelector>, name: &str| {
        it.as_ref().map(|it| selector(Some(it), &format!("{field}.{name}"))).transpose()
    };
    let pods = parsed(&written.pod_selector, "podSelector")?;
    let namespaces = parsed(&written.namespace_selector, "namespaceSelector")?;
    match (&written.ip_block, pods, namespaces) {
        (None, None, None) => Err(Invalid::at(field, "names nobody: give podSelector, namespaceSelector or ipBlock")),
        (None, pods, namespaces) => Ok(Peer::Pods { namespaces, pods: pods.unwrap_or_default() }),
        (Some(block), None, None) => {
            let range = |text: &String, name: &str| {
                let parsed = text.parse::<IpNet>().map(|range| range.trunc());
                parsed.map_err(|_| Invalid::at(format!("{field}.ipBlock.{name}"), format!("{text:?} is no range")))
            };
            let cidr = range(&block.cidr, "cidr")?;
            let except = block.except.iter().flatten().map(|it| range(it, "except"));
            let except: Vec<IpNet> = except.collect::<Result<_, _>>()?;
            if let Some(outside) = except.iter().find(|inner| **inner == cidr || !cidr.contains(*inner)) {
                let problem = format!("{outside} is not inside of {cidr}");
                return Err(Invalid::at(format!("{field}.ipBlock.except"), problem));
            }
            Ok(Peer::Addresses { cidr, except })
        }
        (Some(_), ..) => Err(Invalid::at(format!("{field}.ipBlock"), "excludes podSelector and namespaceSelector")),
    }
}

fn port(written: &wire::Port, field: &str) -> Result<Ports, Invalid> {
    let protocol = match &written.protocol {
        Some(name) => name.parse().map_err(|problem: String| Invalid::at(format!("{field}.protocol"), problem))?,
        None => Protocol::TCP,
    };
    let number = |number: i32, name: &str| match u16::try_from(number) {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(Invalid::at(format!("{field}.{name}"), format!("{number} is no port: 1 to 65535"))),
    };
    let end = written.end_port.map(|end| number(end, "endPort")).transpose()?;
    let which = match (&written.port, end) {
        (None, None) => Which::Numbers(1, u16::MAX),
        (Some(NumberOrName::Number(first)), end) => {
            let first = number(*first, "port")?;
            let last = end.unwrap_or(first);
            if last < first {
                return Err(Invalid::at(format!("{field}.endPort"), "must not be below port"));
            }
            Which::Numbers(first, last)
        }
        (Some(NumberOrName::Name(name)), None) if name.bytes().any(|byte| byte.is_ascii_alphabetic()) => {
            Which::Named(name.clone())
        }
        (Some(NumberOrName::Name(name)), None) => {
            return Err(Invalid::at(format!("{field}.port"), format!("{name:?} is no name: a number goes unquoted")));
        }
        (_, Some(_)) => return Err(Invalid::at(format!("{field}.endPort"), "needs a port that is a number")),
    };
    Ok(Ports { protocol, which })
}
