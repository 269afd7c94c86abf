//! Both ends must allow a connection, and this policy is about one of them.

use rampart_reach::{Direction, Peer, Policy, Rule, Selector, covers};

use super::{Caught, Looked, Trap};

pub(super) static TRAP: Trap =
    Trap { id: "otherSide", title: "both ends must allow a connection: the other one may be closed", find };

fn find(looked: &Looked<'_>) -> Vec<Caught> {
    let own = looked.policy;
    let sides = [
        (&own.egress, Direction::Ingress, "/spec/egress", "to", "callers"),
        (&own.ingress, Direction::Egress, "/spec/ingress", "from", "destinations"),
    ];
    let mut caught = vec![];
    for (rules, other, path, field, whom) in sides {
        for (number, rule) in rules.iter().flatten().enumerate() {
            for (place, peer) in rule.peers.iter().flatten().enumerate() {
                let Peer::Pods { namespaces: None, pods } = peer else { continue };
                let theirs = || looked.all.iter().filter(|it| it.namespace == own.namespace);
                let isolating: Vec<&&Policy> =
                    theirs().filter(|it| side(it, other).is_some() && covers(&it.pods, pods)).collect();
                let is_open =
                    isolating.iter().filter_map(|it| side(it, other)).flatten().any(|it| opens(it, &own.pods, rule));
                // Egress is seldom isolated; nobody is told of what is likely fine.
                if is_open || (isolating.is_empty() && other == Direction::Egress) {
                    continue;
                }
                let detail = match isolating.first() {
                    Some(policy) => format!(
                        "{}/{} isolates these pods, and no policy that was given lets the {whom} of this rule through",
                        policy.namespace, policy.name
                    ),
                    None => "no policy that was given opens these pods' own side: where they are isolated by default, \
                             they stay closed"
                        .to_owned(),
                };
                let path = format!("{path}/{number}/{field}/{place}/podSelector");
                caught.push(Caught { path, detail, is_certain: !isolating.is_empty() });
            }
        }
    }
    caught
}

const fn side(policy: &Policy, direction: Direction) -> Option<&Vec<Rule>> {
    match direction {
        Direction::Ingress => policy.ingress.as_ref(),
        Direction::Egress => policy.egress.as_ref(),
    }
}

/// Whether a rule lets all of some pods of its namespace through on the ports of another rule.
fn opens(theirs: &Rule, pods: &Selector, ours: &Rule) -> bool {
    let lets = |peer: &Peer| match peer {
        // Of which namespaces can't be told without their labels.
        Peer::Pods { pods: some, .. } => covers(some, pods),
        Peer::Addresses { .. } => false,
    };
    let has_ports = match (&theirs.ports, &ours.ports) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(theirs), Some(ours)) => ours.iter().all(|port| theirs.contains(port)),
    };
    theirs.peers.as_ref().is_none_or(|peers| peers.iter().any(lets)) && has_ports
}
