//! Traps of hand-written NetworkPolicies, a file each: what is written means something else than its author likely
//! thinks. Nothing is refused for them; `rampart check` names them as `network/<id>`.

mod in_cluster_range;
mod namespace_name_label;
mod no_dns;
mod open_peers;
pub(super) mod other_side;
mod policy_types;

use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec};
use rampart_reach::Policy;

/// A trap.
#[derive(Debug)]
pub struct Trap {
    /// Its id, in `network/<id>`.
    pub id: &'static str,
    /// What it is.
    pub title: &'static str,
    find: fn(&Looked<'_>) -> Vec<Caught>,
}

/// Every trap, in the order of the ids.
pub static TRAPS: [&Trap; 6] = [
    &in_cluster_range::TRAP,
    &namespace_name_label::TRAP,
    &no_dns::TRAP,
    &open_peers::TRAP,
    &other_side::TRAP,
    &policy_types::TRAP,
];

/// What is looked at.
struct Looked<'l> {
    /// The policy as it is written.
    spec: &'l NetworkPolicySpec,
    /// As it is understood.
    policy: &'l Policy,
    /// All that was given, with this one.
    all: &'l [&'l Policy],
}

/// A trap that somebody is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caught {
    /// JSON Pointer to the field, from the policy.
    pub path: String,
    /// What to know, and what to do.
    pub detail: String,
    /// Whether what was given shows it; else it depends on what was not.
    pub is_certain: bool,
}

impl Trap {
    /// The id as rules are named.
    #[must_use]
    pub fn rule(&self) -> String {
        format!("network/{}", self.id)
    }
}

/// The traps that a policy is in, among all that were given.
#[must_use]
pub fn traps(written: &NetworkPolicy, policy: &Policy, all: &[&Policy]) -> Vec<(&'static Trap, Caught)> {
    let Some(spec) = &written.spec else { return vec![] };
    let looked = Looked { spec, policy, all };
    TRAPS.iter().flat_map(|trap| (trap.find)(&looked).into_iter().map(|caught| (*trap, caught))).collect()
}

/// A rule of either direction, as it is written.
struct Written<'s> {
    /// JSON Pointer to it.
    path: String,
    /// `from` or `to`.
    field: &'static str,
    peers: Option<&'s Vec<NetworkPolicyPeer>>,
    ports: Option<&'s Vec<NetworkPolicyPort>>,
}

impl<'l> Looked<'l> {
    fn rules(&self) -> impl Iterator<Item = Written<'l>> {
        let ingress = self.spec.ingress.iter().flatten().enumerate().map(|(index, rule)| Written {
            path: format!("/spec/ingress/{index}"),
            field: "from",
            peers: rule.from.as_ref(),
            ports: rule.ports.as_ref(),
        });
        let egress = self.spec.egress.iter().flatten().enumerate().map(|(index, rule)| Written {
            path: format!("/spec/egress/{index}"),
            field: "to",
            peers: rule.to.as_ref(),
            ports: rule.ports.as_ref(),
        });
        ingress.chain(egress)
    }

    /// Every peer, with the JSON Pointer to it.
    fn peers(&self) -> impl Iterator<Item = (String, &'l NetworkPolicyPeer)> {
        self.rules().flat_map(|rule| {
            let peers = rule.peers.into_iter().flatten().enumerate();
            peers.map(move |(index, peer)| (format!("{}/{}/{index}", rule.path, rule.field), peer))
        })
    }
}

const fn certain(path: String, detail: String) -> Caught {
    Caught { path, detail, is_certain: true }
}
