//! The other end of an intent's connections inside its namespace.

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicySpec,
};
use rampart_reach::covers;

use super::{Renderer, direction_name, object, peers::pod_peers};
use crate::{
    api::{
        Direction, Finding, Reciprocal,
        labels::{PART, RECIPROCAL},
        selector,
    },
    network::{Intent, Namespaces, Peer, PodSet, Rule},
};

/// The other end of the intent's connections inside the namespace.
#[derive(Default)]
struct Half {
    pods: PodSet,
    ingress: Vec<NetworkPolicyIngressRule>,
    egress: Vec<NetworkPolicyEgressRule>,
}

impl Renderer<'_> {
    /// The halves to render. A half is rendered only where a policy in `isolating` provably isolates all
    /// of its pods already: a NetworkPolicy can't allow without isolating, and an allowance that cut its
    /// pods off from everything else would be an outage.
    pub(super) fn reciprocal(&mut self, isolating: &[&NetworkPolicy]) -> Vec<NetworkPolicy> {
        let (intent, namespace) = (self.intent, self.namespace);
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
                    self.findings.extend(missing_half(intent, rule, namespace, other, isolated));
                    continue;
                }
                let Some(ports) = self.ports(rule, own) else { continue };
                let key = serde_json::to_string(&pods.wire).unwrap_or_default();
                let half = halves.entry(key).or_insert_with(|| Half { pods: pods.clone(), ..Half::default() });
                let here = pod_peers(&intent.pods.wire, &Namespaces::Own);
                match other {
                    Direction::Ingress => half.ingress.push(NetworkPolicyIngressRule { from: Some(here), ports }),
                    Direction::Egress => half.egress.push(NetworkPolicyEgressRule { to: Some(here), ports }),
                }
            }
        }
        halves.into_iter().map(|(key, half)| half.into_policy(namespace, self.base, &key)).collect()
    }
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
