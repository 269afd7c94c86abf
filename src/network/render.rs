//! Rendering: one NetworkPolicy for the pods that an intent is about, and one for each set of peers
//! whose own side it opens.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use k8s_openapi::{
    api::networking::v1::{
        IPBlock, NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer,
        NetworkPolicyPort, NetworkPolicySpec,
    },
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, ObjectMeta},
        util::intstr::IntOrString,
    },
};
use rampart_reach::covers;
use thiserror::Error;

use super::{Facts, Intent, Namespaces, Peer, PodSet, Ports, Rule};
use crate::api::{
    Direction, Finding, Protocol, Reciprocal,
    labels::{PART, RECIPROCAL},
    selector,
};

/// Where clouds serve credentials to machines: never "external" to a pod.
const CLOUD_METADATA: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(169, 254, 169, 254));
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// What an intent becomes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rendered {
    /// NetworkPolicies, without the owner's labels.
    pub policies: Vec<NetworkPolicy>,
    /// What the author should know.
    pub findings: Vec<Finding>,
}

/// Why an intent can't be rendered on this cluster.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Unrenderable {
    /// An external peer, and the cluster's own ranges are unknown.
    #[error(
        "rule {rule:?} has an external peer, and the address ranges of this cluster are unknown: start Rampart with \
         --network-cluster-cidrs, naming those of pods, services and nodes"
    )]
    UnknownClusterRanges {
        /// Name of the rule.
        rule: String,
    },
    /// A peer that is the API server, and nobody knows where that is.
    #[error(
        "rule {rule:?} has the API server as a peer, and its addresses are unknown: they are read from the \
         EndpointSlices of Service default/kubernetes, and from --network-api-server"
    )]
    UnknownApiServer {
        /// Name of the rule.
        rule: String,
    },
}

impl Unrenderable {
    /// Stable name for conditions.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::UnknownClusterRanges { .. } => "UnknownClusterRanges",
            Self::UnknownApiServer { .. } => "UnknownApiServer",
        }
    }
}

/// Renders an intent.
///
/// `base` is the name of the main policy; `others` are the NetworkPolicies of the namespace that are
/// not reciprocal halves, and not this policy's own.
///
/// # Errors
/// When the intent can't be rendered without knowing more of the cluster.
pub fn render(
    intent: &Intent,
    (namespace, base): (&str, &str),
    facts: &Facts,
    others: &[&NetworkPolicy],
) -> Result<Rendered, Unrenderable> {
    let mut findings = vec![];
    let ingress = rules(&intent.ingress, namespace, facts, &mut findings)?;
    let egress = rules(&intent.egress, namespace, facts, &mut findings)?;
    let types = intent.isolate.iter().map(|direction| direction_name(*direction).to_owned()).collect();
    let spec = NetworkPolicySpec {
        pod_selector: Some(intent.pods.wire.clone()),
        policy_types: Some(types),
        ingress: intent.isolate.contains(&Direction::Ingress).then(|| ingress.into_iter().map(into_ingress).collect()),
        egress: intent.isolate.contains(&Direction::Egress).then_some(egress),
    };
    let main = object(namespace, base.to_owned(), BTreeMap::new(), spec);
    let mut isolating: Vec<&NetworkPolicy> = others.to_vec();
    isolating.push(&main);
    let halves = reciprocal(intent, (namespace, base), &isolating, &mut findings);

    let mut policies = vec![main];
    policies.extend(halves);
    findings.sort();
    findings.dedup();
    findings.truncate(50);
    Ok(Rendered { policies, findings })
}

fn object(namespace: &str, name: String, labels: BTreeMap<String, String>, spec: NetworkPolicySpec) -> NetworkPolicy {
    let metadata = ObjectMeta {
        name: Some(name),
        namespace: Some(namespace.into()),
        labels: Some(labels),
        ..ObjectMeta::default()
    };
    NetworkPolicy { metadata, spec: Some(spec) }
}

const fn direction_name(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "Ingress",
        Direction::Egress => "Egress",
    }
}

/// Rules in the order of their names. They are built as egress rules; [`into_ingress`] turns one round.
fn rules(
    rules: &[Rule],
    namespace: &str,
    facts: &Facts,
    findings: &mut Vec<Finding>,
) -> Result<Vec<NetworkPolicyEgressRule>, Unrenderable> {
    let mut sorted: Vec<&Rule> = rules.iter().collect();
    sorted.sort_by(|one, other| one.name.cmp(&other.name));
    let mut rendered = vec![];
    for rule in sorted {
        let mut to = vec![];
        for peer in &rule.peers {
            match peer {
                Peer::Pods { pods, namespaces } => to.extend(pod_peers(&pods.wire, namespaces)),
                Peer::External { cidrs, except } => {
                    if facts.cluster_ranges.is_empty() {
                        return Err(Unrenderable::UnknownClusterRanges { rule: rule.name.clone() });
                    }
                    to.extend(external_peers(rule, cidrs, except, (namespace, facts), findings));
                }
                Peer::Dns => rendered.push(dns_rule(facts)),
                Peer::ApiServer => rendered.extend(api_server_rules(known_api_server(rule, facts)?)),
                Peer::Webhooks => {
                    let addresses: BTreeSet<IpNet> =
                        known_api_server(rule, facts)?.api_endpoints.iter().map(|(it, _)| IpNet::from(*it)).collect();
                    to.extend(addresses.into_iter().map(|address| ip_block(address, &BTreeSet::new())));
                }
                Peer::Any => {}
            }
        }
        if rule.peers.contains(&Peer::Any) {
            findings.push(Finding {
                id: format!("OpenToAll/{namespace}/{}", rule.name),
                message: format!(
                    "rule {:?} is about everybody, inside and outside of the cluster: `any: true`",
                    rule.name
                ),
            });
            rendered.push(NetworkPolicyEgressRule { to: None, ports: wire_ports(&rule.ports) });
            continue;
        }
        // A rule without peers would allow everything.
        if !to.is_empty() {
            rendered.push(NetworkPolicyEgressRule { to: Some(to), ports: wire_ports(&rule.ports) });
        }
    }
    Ok(rendered)
}

fn into_ingress(rule: NetworkPolicyEgressRule) -> NetworkPolicyIngressRule {
    NetworkPolicyIngressRule { from: rule.to, ports: rule.ports }
}

fn pod_peers(pods: &LabelSelector, namespaces: &Namespaces) -> Vec<NetworkPolicyPeer> {
    let peer =
        |namespace_selector| NetworkPolicyPeer { pod_selector: Some(pods.clone()), namespace_selector, ip_block: None };
    match namespaces {
        Namespaces::Own => vec![peer(None)],
        Namespaces::Named(names) => names.iter().map(|name| peer(Some(namespace_named(name)))).collect(),
        Namespaces::Selected(selected) => vec![peer(Some(selected.clone()))],
    }
}

/// A namespace by its name: the one label that every namespace has, and that nobody can change.
fn namespace_named(name: &str) -> LabelSelector {
    LabelSelector { match_labels: Some([(NAMESPACE_NAME.to_owned(), name.to_owned())].into()), match_expressions: None }
}

fn dns_rule(facts: &Facts) -> NetworkPolicyEgressRule {
    let kube_dns = LabelSelector {
        match_labels: Some([("k8s-app".to_owned(), "kube-dns".to_owned())].into()),
        match_expressions: None,
    };
    let mut to = pod_peers(&kube_dns, &Namespaces::Named(["kube-system".to_owned()].into()));
    let addresses: BTreeSet<_> = facts.dns_addresses.iter().copied().collect();
    to.extend(addresses.into_iter().map(|address| ip_block(IpNet::from(address), &BTreeSet::new())));
    let ports = [(Protocol::TCP, 53, None), (Protocol::UDP, 53, None)];
    NetworkPolicyEgressRule { to: Some(to), ports: wire_ports(&Ports::Listed(ports.into())) }
}

fn known_api_server<'f>(rule: &Rule, facts: &'f Facts) -> Result<&'f Facts, Unrenderable> {
    if facts.api_endpoints.is_empty() {
        return Err(Unrenderable::UnknownApiServer { rule: rule.name.clone() });
    }
    Ok(facts)
}

/// A rule for each port on which the API server and its Service answer.
fn api_server_rules(facts: &Facts) -> impl Iterator<Item = NetworkPolicyEgressRule> {
    let mut by_port: BTreeMap<u16, BTreeSet<IpNet>> = BTreeMap::new();
    for (address, port) in facts.api_endpoints.iter().chain(&facts.api_service) {
        by_port.entry(*port).or_default().insert(IpNet::from(*address));
    }
    by_port.into_iter().map(|(port, addresses)| NetworkPolicyEgressRule {
        to: Some(addresses.into_iter().map(|address| ip_block(address, &BTreeSet::new())).collect()),
        ports: wire_ports(&Ports::Listed([(Protocol::TCP, port, None)].into())),
    })
}

fn external_peers(
    rule: &Rule,
    cidrs: &[IpNet],
    except: &[IpNet],
    (namespace, facts): (&str, &Facts),
    findings: &mut Vec<Finding>,
) -> Vec<NetworkPolicyPeer> {
    let always = facts.cluster_ranges.iter().copied().chain([IpNet::from(CLOUD_METADATA)]);
    let left_out: Vec<IpNet> = IpNet::aggregate(&always.chain(except.iter().copied()).collect());
    let mut peers = vec![];
    for cidr in IpNet::aggregate(&cidrs.to_vec()) {
        if left_out.iter().any(|inner| inner.contains(&cidr)) {
            findings.push(Finding {
                id: format!("NothingExternal/{namespace}/{}", rule.name),
                message: format!(
                    "{cidr} of rule {:?} lies inside the cluster's own ranges: select pods by label",
                    rule.name
                ),
            });
            continue;
        }
        let inside = left_out.iter().copied().filter(|inner| cidr.contains(inner)).collect();
        peers.push(ip_block(cidr, &inside));
    }
    peers
}

fn ip_block(cidr: IpNet, except: &BTreeSet<IpNet>) -> NetworkPolicyPeer {
    let except: Vec<String> = except.iter().map(ToString::to_string).collect();
    let block = IPBlock { cidr: cidr.to_string(), except: (!except.is_empty()).then_some(except) };
    NetworkPolicyPeer { ip_block: Some(block), ..NetworkPolicyPeer::default() }
}

fn wire_ports(ports: &Ports) -> Option<Vec<NetworkPolicyPort>> {
    let Ports::Listed(ports) = ports else { return None };
    let wire = |(protocol, first, last): &(Protocol, u16, Option<u16>)| NetworkPolicyPort {
        protocol: Some(format!("{protocol:?}")),
        port: Some(IntOrString::Int((*first).into())),
        end_port: last.map(i32::from),
    };
    Some(ports.iter().map(wire).collect())
}

/// The other end of the intent's connections inside the namespace.
#[derive(Default)]
struct Half {
    pods: PodSet,
    ingress: Vec<NetworkPolicyIngressRule>,
    egress: Vec<NetworkPolicyEgressRule>,
}

/// The halves to render. A half is rendered only where a policy in `isolating` provably isolates all
/// of its pods already: a NetworkPolicy can't allow without isolating, and an allowance that cut its
/// pods off from everything else would be an outage.
fn reciprocal(
    intent: &Intent,
    (namespace, base): (&str, &str),
    isolating: &[&NetworkPolicy],
    findings: &mut Vec<Finding>,
) -> Vec<NetworkPolicy> {
    let mut halves: BTreeMap<String, Half> = BTreeMap::new();
    let sides = [
        (&intent.egress, Direction::Egress, Direction::Ingress),
        (&intent.ingress, Direction::Ingress, Direction::Egress),
    ];
    for (rules, own, other) in sides {
        if !intent.isolate.contains(&own) {
            continue;
        }
        for (rule, pods) in
            rules.iter().flat_map(|rule| own_namespace_peers(rule, namespace).map(move |pods| (rule, pods)))
        {
            let isolated = isolating.iter().any(|policy| isolates(policy, other, pods));
            if !isolated || intent.reciprocal == Reciprocal::Report {
                findings.extend(missing_half(intent, rule, namespace, other, isolated));
                continue;
            }
            let key = serde_json::to_string(&pods.wire).unwrap_or_default();
            let half = halves.entry(key).or_insert_with(|| Half { pods: pods.clone(), ..Half::default() });
            let here = pod_peers(&intent.pods.wire, &Namespaces::Own);
            let ports = wire_ports(&rule.ports);
            match other {
                Direction::Ingress => half.ingress.push(NetworkPolicyIngressRule { from: Some(here), ports }),
                Direction::Egress => half.egress.push(NetworkPolicyEgressRule { to: Some(here), ports }),
            }
        }
    }
    halves.into_iter().map(|(key, half)| half.into_policy(namespace, base, &key)).collect()
}

fn own_namespace_peers<'a>(rule: &'a Rule, namespace: &str) -> impl Iterator<Item = &'a PodSet> {
    rule.peers.iter().filter_map(move |peer| match peer {
        Peer::Pods { pods, namespaces: Namespaces::Own } => Some(pods),
        Peer::Pods { pods, namespaces: Namespaces::Named(names) } if names.contains(namespace) => Some(pods),
        _ => None,
    })
}

/// Whether `policy` isolates, in `direction`, every pod that `pods` selects.
fn isolates(policy: &NetworkPolicy, direction: Direction, pods: &PodSet) -> bool {
    let Some(spec) = &policy.spec else { return false };
    let named = |types: &Vec<String>| types.iter().any(|name| name == direction_name(direction));
    let has_egress = spec.egress.as_ref().is_some_and(|rules| !rules.is_empty());
    // Without types: Ingress always, Egress where there are egress rules (NetworkPolicySpec, policyTypes).
    let isolates = spec.policy_types.as_ref().map_or(direction == Direction::Ingress || has_egress, named);
    let selected = selector::parse(&spec.pod_selector.clone().unwrap_or_default(), "");
    isolates && selected.is_ok_and(|selected| covers(&selected, &pods.parsed))
}

fn missing_half(intent: &Intent, rule: &Rule, namespace: &str, side: Direction, isolated: bool) -> Option<Finding> {
    let side = direction_name(side);
    let message = match (intent.reciprocal, isolated) {
        (Reciprocal::Report, true) => format!(
            "the peers of rule {:?} are isolated for {side}, and this policy does not open their side: set reciprocal: Generate, or allow it in a policy of theirs",
            rule.name
        ),
        // Their side is open, as far as can be proven, or another policy's business.
        (Reciprocal::Report, false) => return None,
        (Reciprocal::Generate, _) => format!(
            "no policy provably isolates all peers of rule {:?} for {side}, so their side was not rendered: it would cut them off from everything else",
            rule.name
        ),
    };
    Some(Finding { id: format!("ReciprocalMissing/{namespace}/{}", rule.name), message })
}

impl Half {
    fn into_policy(self, namespace: &str, base: &str, key: &str) -> NetworkPolicy {
        let mut types = vec![];
        if !self.ingress.is_empty() {
            types.push(direction_name(Direction::Ingress).to_owned());
        }
        if !self.egress.is_empty() {
            types.push(direction_name(Direction::Egress).to_owned());
        }
        let spec = NetworkPolicySpec {
            pod_selector: Some(self.pods.wire),
            ingress: (!self.ingress.is_empty()).then_some(self.ingress),
            egress: (!self.egress.is_empty()).then_some(self.egress),
            policy_types: Some(types),
        };
        let name = format!("{base}-{:08x}", crc32fast::hash(key.as_bytes()));
        object(namespace, name, [(PART.to_owned(), RECIPROCAL.to_owned())].into(), spec)
    }
}
