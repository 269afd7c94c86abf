//! Both ends must allow a connection, and this policy is about one of them.

use rampart_reach::{Direction, Peer, Policy, Ports, Rule, Selector, covers};

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
                let theirs = looked.all.iter().copied().filter(|it| it.namespace == own.namespace);
                let isolating: Vec<&Policy> = theirs.filter(|it| isolates(it, other, pods)).collect();
                // Of which namespaces a peer is can't be told without their labels.
                let ours = (&own.pods, rule.ports.as_deref());
                let is_open = is_open(isolating.iter().copied(), (pods, other), ours, |_| true);
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

fn isolates(policy: &Policy, direction: Direction, pods: &Selector) -> bool {
    side(policy, direction).is_some() && covers(&policy.pods, pods)
}

/// Whether one of some policies of a namespace isolates all of `theirs`, and lets all of `ours` through there, on all of
/// some ports (`None`: all that there are). Both are pods of that namespace, and `is_here` whether it is selected.
pub(in crate::network) fn is_open<'p>(
    policies: impl IntoIterator<Item = &'p Policy>,
    (theirs, direction): (&Selector, Direction),
    (ours, ports): (&Selector, Option<&[Ports]>),
    is_here: impl Fn(&Selector) -> bool,
) -> bool {
    let isolating = policies.into_iter().filter(|it| isolates(it, direction, theirs));
    isolating.filter_map(|it| side(it, direction)).flatten().any(|rule| opens(rule, (ours, ports), &is_here))
}

fn opens(theirs: &Rule, (pods, ports): (&Selector, Option<&[Ports]>), is_here: &impl Fn(&Selector) -> bool) -> bool {
    let lets = |peer: &Peer| match peer {
        Peer::Pods { namespaces, pods: some } => namespaces.as_ref().is_none_or(is_here) && covers(some, pods),
        Peer::Addresses { .. } => false,
    };
    let has_ports = match (&theirs.ports, ports) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(theirs), Some(ours)) => ours.iter().all(|port| theirs.contains(port)),
    };
    theirs.peers.as_ref().is_none_or(|peers| peers.iter().any(lets)) && has_ports
}
