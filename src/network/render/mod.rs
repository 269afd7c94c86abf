//! Rendering: one NetworkPolicy for the pods that an intent is about, and one for each set of peers
//! whose own side it opens.

mod peers;
mod ports;
mod reciprocal;
mod rules;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use k8s_openapi::{
    api::networking::v1::{NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicySpec},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use thiserror::Error;

use super::{Cluster, Intent, Peer, Rule, Service};
use crate::api::{Direction, Finding};

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
         --network-cluster-cidrs (network.clusterCidrs of the chart), naming those of pods, services and nodes"
    )]
    UnknownClusterRanges {
        /// Name of the rule.
        rule: String,
    },
    /// An external peer, and a pod that is in none of the cluster's ranges, as far as these are known.
    #[error(
        "rule {rule:?} has an external peer, and pod {pod} has the address {address}, which is in none of the ranges that \
         are known of this cluster: start Rampart with --network-cluster-cidrs (network.clusterCidrs of the chart), naming \
         those of pods, services and nodes"
    )]
    PodOutsideRanges {
        /// Name of the rule.
        rule: String,
        /// Namespace and name of one such pod.
        pod: String,
        /// Its address.
        address: IpAddr,
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
    /// A peer that only the administrator can name, and did not.
    #[error("rule {rule:?} has the peer `entity: {entity}`, which nobody has named: start Rampart with {flag}")]
    UnnamedEntity {
        /// Name of the rule.
        rule: String,
        /// The entity.
        entity: &'static str,
        /// The flag that names it, with the value of the chart.
        flag: &'static str,
    },
}

impl Unrenderable {
    /// Whether the cluster's ranges are all that is missing.
    #[must_use]
    pub const fn is_of_ranges(&self) -> bool {
        matches!(self, Self::UnknownClusterRanges { .. } | Self::PodOutsideRanges { .. })
    }

    /// Stable name for conditions.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::UnknownClusterRanges { .. } | Self::PodOutsideRanges { .. } => "UnknownClusterRanges",
            Self::UnknownApiServer { .. } => "UnknownApiServer",
            Self::UnnamedEntity { .. } => "Invalid",
        }
    }
}

/// Findings about a rule of which less is rendered than it says.
const UNMET: [&str; 5] = ["Clamped", "NamedPortUnknown", "NothingExternal", "ServicePortUnknown", "ServiceUnknown"];

/// Names of the rules of which less is rendered than they say, as findings tell.
#[must_use]
pub fn unmet<'f>(findings: impl IntoIterator<Item = &'f Finding>) -> BTreeSet<String> {
    let rule = |found: &Finding| {
        let (reason, place) = found.id.split_once('/')?;
        let (_, rule) = place.rsplit_once('/').filter(|_| UNMET.contains(&reason))?;
        Some(rule.to_owned())
    };
    findings.into_iter().filter_map(rule).collect()
}

/// An intent of another namespace that this one accepts.
#[derive(Debug, Clone, Copy)]
pub struct Accepting<'a> {
    /// The namespace.
    pub namespace: &'a str,
    /// Name of the policy.
    pub name: &'a str,
    /// The intent.
    pub intent: &'a Intent,
}

/// Renders an intent.
///
/// `base` is the name of the main policy; `others` are the NetworkPolicies of the namespace that are
/// not reciprocal halves, and not this policy's own; `accepted` are the intents of other namespaces whose other end
/// is opened here.
///
/// # Errors
/// When the intent can't be rendered without knowing more of the cluster.
pub fn render(
    intent: &Intent,
    (namespace, base): (&str, &str),
    cluster: &Cluster<'_>,
    (others, accepted): (&[&NetworkPolicy], &[Accepting<'_>]),
) -> Result<Rendered, Unrenderable> {
    let mut renderer = Renderer { intent, namespace, base, cluster: *cluster, findings: vec![] };
    let (ingress, egress) = (renderer.rules(Direction::Ingress)?, renderer.rules(Direction::Egress)?);
    renderer.masked_callers();
    let into_ingress = |rule: NetworkPolicyEgressRule| NetworkPolicyIngressRule { from: rule.to, ports: rule.ports };
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
    let mut accepted: Vec<Accepting<'_>> = accepted.to_vec();
    accepted.sort_by_key(|it| (it.namespace, it.name));
    let halves = renderer.reciprocal(&isolating, &accepted);

    let mut policies = vec![main];
    policies.extend(halves);
    let mut findings = renderer.findings;
    findings.sort();
    findings.dedup();
    Ok(Rendered { policies, findings })
}

/// An intent while it is rendered.
struct Renderer<'r> {
    intent: &'r Intent,
    namespace: &'r str,
    base: &'r str,
    cluster: Cluster<'r>,
    findings: Vec<Finding>,
}

impl Renderer<'_> {
    fn find(&mut self, reason: &str, rule: &Rule, message: String) {
        self.findings.push(Finding { id: format!("{reason}/{}/{}", self.namespace, rule.name), message });
    }

    /// Services whose callers outside may come with the address of a node, which `external` never is.
    fn masked_callers(&mut self) {
        let is_external = |rule: &&Rule| rule.peers.iter().any(|peer| matches!(peer, Peer::External { .. }));
        let Some(rule) = self.intent.ingress.iter().find(is_external) else { return };
        let is_about = |service: &Service| {
            let mut pods = self.cluster.population.pods_in(self.namespace);
            pods.any(|pod| service.selects(pod) && self.intent.pods.parsed.matches(&pod.labels))
        };
        let here = self.cluster.services.range((self.namespace.to_owned(), String::new())..);
        let here = here.take_while(|((namespace, _), _)| namespace == self.namespace);
        let masked = here.filter(|(_, service)| service.is_outward && !service.is_local && is_about(service));
        let told = masked.map(|((namespace, name), _)| Finding {
            id: format!("CallersMasked/{namespace}/{name}"),
            message: format!(
                "rule {:?} lets in callers outside, and Service {name} may lead them through another node, which then \
                 calls in their stead and is not let in: set externalTrafficPolicy: Local there, unless the network \
                 plug-in keeps their addresses",
                rule.name
            ),
        });
        self.findings.extend(told.collect::<Vec<_>>());
    }
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
