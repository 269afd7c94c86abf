//! Egress is isolated, and names can't be resolved.

use rampart_reach::{Policy, Protocol, Which, covers};

use super::{Caught, Looked, Trap, certain};

pub(super) static TRAP: Trap = Trap {
    id: "noDns",
    title: "pods that may not ask port 53 can't resolve names, so they reach nobody by name",
    find,
};

const PORT: u16 = 53;

fn find(looked: &Looked<'_>) -> Vec<Caught> {
    let own = looked.policy;
    let is_about = |it: &&&Policy| it.namespace == own.namespace && covers(&it.pods, &own.pods);
    if own.egress.is_none() || looked.all.iter().filter(is_about).any(|policy| asks(policy)) {
        return vec![];
    }
    let detail = "no policy that was given lets these pods ask port 53 (UDP): allow egress to the pods k8s-app: kube-dns of \
                  kube-system, over UDP and TCP";
    vec![certain("/spec/egress".into(), detail.into())]
}

fn asks(policy: &Policy) -> bool {
    policy.egress.iter().flatten().any(|rule| {
        let Some(ports) = &rule.ports else { return true };
        ports.iter().any(|ports| {
            ports.protocol == Protocol::UDP
                && match &ports.which {
                    Which::Numbers(first, last) => (*first..=*last).contains(&PORT),
                    Which::Named(name) => name.starts_with("dns"),
                }
        })
    })
}
