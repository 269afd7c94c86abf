//! Peers of a rule, on the wire.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use k8s_openapi::{
    api::networking::v1::{IPBlock, NetworkPolicyEgressRule, NetworkPolicyPeer},
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use rampart_reach::NAMESPACE_NAME;

use super::{Unrenderable, ports::wire_ports};
use crate::{
    api::{Finding, Protocol},
    network::{
        EntityPods, Facts, Namespaces, Rule,
        servers::{DNS_LABEL, DNS_NAMESPACE, DNS_PORT, dns_ports},
    },
};

/// Where clouds serve credentials to machines, by IPv4 and, at Amazon, by IPv6: never "external" to a pod.
const CLOUD_METADATA: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)), IpAddr::V6(Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254))];

pub(super) fn pod_peers(pods: &LabelSelector, namespaces: &Namespaces) -> Vec<NetworkPolicyPeer> {
    let peer =
        |namespace_selector| NetworkPolicyPeer { pod_selector: Some(pods.clone()), namespace_selector, ip_block: None };
    match namespaces {
        Namespaces::Own => vec![peer(None)],
        Namespaces::Named(names) => names.iter().map(|name| peer(Some(namespace_named(name)))).collect(),
        Namespaces::Selected(selected) => vec![peer(Some(selected.wire.clone()))],
    }
}

/// Pods that the administrator named.
pub(super) fn entity_peer(
    rule: &Rule,
    named: Option<&EntityPods>,
    (entity, flag): (&'static str, &'static str),
) -> Result<NetworkPolicyPeer, Unrenderable> {
    let EntityPods { pods, namespaces } =
        named.ok_or_else(|| Unrenderable::UnnamedEntity { rule: rule.name.clone(), entity, flag })?;
    Ok(NetworkPolicyPeer {
        pod_selector: Some(pods.wire.clone()),
        namespace_selector: Some(namespaces.wire.clone()),
        ip_block: None,
    })
}

/// A namespace by its name: the one label that every namespace has, and that nobody can change.
fn namespace_named(name: &str) -> LabelSelector {
    LabelSelector { match_labels: Some([(NAMESPACE_NAME.to_owned(), name.to_owned())].into()), match_expressions: None }
}

pub(super) fn dns_rule(facts: &Facts) -> NetworkPolicyEgressRule {
    let kube_dns = LabelSelector {
        match_labels: Some([(DNS_LABEL.0.to_owned(), DNS_LABEL.1.to_owned())].into()),
        match_expressions: None,
    };
    let mut to = pod_peers(&kube_dns, &Namespaces::Named([DNS_NAMESPACE.to_owned()].into()));
    let addresses: BTreeSet<_> = facts.dns_addresses.iter().copied().collect();
    to.extend(addresses.into_iter().map(|address| ip_block(IpNet::from(address), &BTreeSet::new())));
    // Some network plug-ins match before the address of the Service is translated, and most after: pods may answer on
    // another port than theirs.
    let numbers = dns_ports(facts).into_iter().chain([DNS_PORT]);
    let ports: BTreeSet<_> =
        numbers.flat_map(|number| [(Protocol::TCP, number, None), (Protocol::UDP, number, None)]).collect();
    NetworkPolicyEgressRule { to: Some(to), ports: Some(wire_ports(&ports)) }
}

pub(super) fn known_api_server<'f>(rule: &Rule, facts: &'f Facts) -> Result<&'f Facts, Unrenderable> {
    if facts.api_endpoints.is_empty() {
        return Err(Unrenderable::UnknownApiServer { rule: rule.name.clone() });
    }
    Ok(facts)
}

/// A rule for each port on which the API server and its Service answer.
pub(super) fn api_server_rules(facts: &Facts) -> impl Iterator<Item = NetworkPolicyEgressRule> {
    let mut by_port: BTreeMap<u16, BTreeSet<IpNet>> = BTreeMap::new();
    for (address, port) in facts.api_endpoints.iter().chain(&facts.api_service) {
        by_port.entry(*port).or_default().insert(IpNet::from(*address));
    }
    by_port.into_iter().map(|(port, addresses)| NetworkPolicyEgressRule {
        to: Some(addresses.into_iter().map(|address| ip_block(address, &BTreeSet::new())).collect()),
        ports: Some(wire_ports(&[(Protocol::TCP, port, None)].into())),
    })
}

pub(super) fn external_peers(
    rule: &Rule,
    cidrs: &[IpNet],
    except: &[IpNet],
    (namespace, facts): (&str, &Facts),
    findings: &mut Vec<Finding>,
) -> Vec<NetworkPolicyPeer> {
    let always = facts.cluster_ranges.iter().copied().chain(CLOUD_METADATA.map(IpNet::from));
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

pub(super) fn ip_block(cidr: IpNet, except: &BTreeSet<IpNet>) -> NetworkPolicyPeer {
    let except: Vec<String> = except.iter().map(ToString::to_string).collect();
    let block = IPBlock { cidr: cidr.to_string(), except: (!except.is_empty()).then_some(except) };
    NetworkPolicyPeer { ip_block: Some(block), ..NetworkPolicyPeer::default() }
}
