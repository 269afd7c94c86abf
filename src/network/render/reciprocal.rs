//! The other end of an intent's connections inside its namespace, and of those that intents of other namespaces have
//! with it, where it accepts them.

use std::{cell::OnceCell, collections::BTreeMap};

use k8s_openapi::{
    api::networking::v1::{
        NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
        NetworkPolicySpec,
    },
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use rampart_reach::{Policy, Selector, covers};

use super::{
    Accepting, Renderer, direction_name, object, peers::pod_peers, ports::understood_ports, rules::BehindService,
};
use crate::{
    api::{
        Direction, Finding, Reciprocal,
        labels::{PART, RECIPROCAL},
        selector,
    },
    network::{Namespaces, Peer, PodSet, Rule, traps::other_side, understood},
};

/// By the pods that they are about, the other ends of connections.
type Halves = BTreeMap<String, Half>;

/// The other end of some connections.
#[derive(Default)]
struct Half {
    pods: PodSet,
    ingress: Vec<NetworkPolicyIngressRule>,
    egress: Vec<NetworkPolicyEgressRule>,
}

impl<'r> Renderer<'r> {
    /// The halves to render. A half is rendered only where a policy in `isolating` provably isolates all
    /// of its pods already: a NetworkPolicy can't allow without isolating, and an allowance that cut its
    /// pods off from everything else would be an outage.
    pub(super) fn reciprocal(
        &mut self,
        isolating: &[&NetworkPolicy],
        accepted: &[Accepting<'r>],
    ) -> Vec<NetworkPolicy> {
        let (namespace, base) = (self.namespace, self.base);
        let mut halves = Halves::new();
        self.open(isolating, namespace, &mut halves);
        for Accepting { namespace: theirs, intent, .. } in accepted {
            if intent.reciprocal == Reciprocal::Generate {
                let mut other = Renderer { intent, namespace: theirs, findings: vec![], ..*self };
                other.open(isolating, namespace, &mut halves);
                self.findings.append(&mut other.findings);
            }
        }
        halves.into_iter().map(|(key, half)| half.into_policy(namespace, base, &key)).collect()
    }

    /// Opens, in a namespace, the side of the intent's peers.
    fn open(&mut self, isolating: &[&NetworkPolicy], there: &str, halves: &mut Halves) {
        let intent = self.intent;
        let sides = [
            (&intent.egress, Direction::Egress, Direction::Ingress),
            (&intent.ingress, Direction::Ingress, Direction::Egress),
        ];
        let of =
            if there == self.namespace { Namespaces::Own } else { Namespaces::Named([self.namespace.into()].into()) };
        let here = pod_peers(&intent.pods.wire, &of);
        let read = OnceCell::new();
        let policies =
            || read.get_or_init(|| isolating.iter().filter_map(|it| understood(it)).collect::<Vec<Policy>>());
        for (rules, own, other) in sides.into_iter().filter(|(_, own, _)| intent.isolate.contains(own)) {
            for (rule, peer) in rules.iter().flat_map(|rule| rule.peers.iter().map(move |peer| (rule, peer))) {
                let Some((pods, service)) = self.pods_there(peer, there) else { continue };
                let isolated = isolating.iter().any(|policy| isolates(policy, other, &pods));
                let is_asked = intent.reciprocal == Reciprocal::Generate;
                if !isolated {
                    // Where nothing is to be opened, it is open as far as can be proven, or another policy's business.
                    if is_asked {
                        let why = format!(
                            "no policy provably isolates all peers of rule {:?} for {}, so their side was not rendered: it \
                             would cut them off from everything else",
                            rule.name,
                            direction_name(other)
                        );
                        self.missing_half(rule, own, why);
                    }
                    continue;
                }
                let ports = match service.filter(|_| own == Direction::Egress) {
                    Some(service) => self.service_rule(rule, here.clone(), &service).map(|rule| rule.ports),
                    None => self.ports(rule, own),
                };
                let Some(ports) = ports else { continue };
                if !is_asked {
                    if !self.is_open(policies(), (&pods.parsed, other), ports.as_deref()) {
                        let why = format!(
                            "the peers of rule {:?} are isolated for {}, and no policy opens their side: allow it in a \
                             policy of theirs, or set reciprocal: Generate in a SecurityPolicy",
                            rule.name,
                            direction_name(other)
                        );
                        self.missing_half(rule, own, why);
                    }
                    continue;
                }
                let key = serde_json::to_string(&pods.wire).unwrap_or_default();
                halves.entry(key).or_insert_with(|| Half { pods, ..Half::default() }).allow(other, &here, ports);
            }
        }
    }

    /// Whether some policies of its namespace, of which one isolates all of `theirs`, let the intent's pods through there.
    fn is_open(
        &self,
        policies: &[Policy],
        (theirs, side): (&Selector, Direction),
        ports: Option<&[NetworkPolicyPort]>,
    ) -> bool {
        let side = match side {
            Direction::Ingress => rampart_reach::Direction::Ingress,
            Direction::Egress => rampart_reach::Direction::Egress,
        };
        let ports = ports.map(understood_ports);
        let is_here = |namespaces: &Selector| self.cluster.population.is_selected(self.namespace, namespaces);
        other_side::is_open(policies, (theirs, side), (&self.intent.pods.parsed, ports.as_deref()), is_here)
    }

    /// Rules of both directions may have one name.
    fn missing_half(&mut self, rule: &Rule, direction: Direction, message: String) {
        let direction = direction_name(direction).to_lowercase();
        let id = format!("ReciprocalMissing/{}/{direction}/{}", self.namespace, rule.name);
        self.findings.push(Finding { id, message });
    }

    /// The pods of a peer in a namespace, and the Service that they are behind, if that is how they are named.
    fn pods_there(&self, peer: &Peer, there: &str) -> Option<(PodSet, Option<BehindService<'r>>)> {
        match peer {
            Peer::Pods { pods, namespaces } => {
                let is_there = match namespaces {
                    Namespaces::Own => there == self.namespace,
                    Namespaces::Named(names) => names.contains(there),
                    Namespaces::Selected(selected) => self.cluster.population.is_selected(there, &selected.parsed),
                };
                is_there.then(|| (pods.clone(), None))
            }
            Peer::Service { namespace, name } if namespace.as_deref().unwrap_or(self.namespace) == there => {
                let service = BehindService::find(self.cluster.services, there, name)?;
                let wire = LabelSelector { match_labels: Some(service.selector().clone()), match_expressions: None };
                let parsed = selector::parse(&wire, "").ok()?;
                Some((PodSet { wire, parsed }, Some(service)))
            }
            _ => None,
        }
    }
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

impl Half {
    fn allow(&mut self, side: Direction, here: &[NetworkPolicyPeer], ports: Option<Vec<NetworkPolicyPort>>) {
        let here = Some(here.to_vec());
        match side {
            Direction::Ingress => self.ingress.push(NetworkPolicyIngressRule { from: here, ports }),
            Direction::Egress => self.egress.push(NetworkPolicyEgressRule { to: here, ports }),
        }
    }

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
