//! What of an intent no NetworkPolicy can say.

use rampart_reach::{Pod, Selector};

use super::{Cluster, EntityPods, Intent, Namespaces, Peer, Population, Rule};

/// Pods in the network of their node that an intent is about, and rules with peers that are all such pods: selectors
/// never match them (`networking.k8s.io/v1`, NetworkPolicy). In the order of pods, then of rules.
#[must_use]
pub fn not_expressible(intent: &Intent, namespace: &str, cluster: &Cluster<'_>) -> Vec<String> {
    let population = cluster.population;
    if population.hosted().next().is_none() {
        return vec![];
    }
    let own = population.pods_in(namespace).filter(|pod| pod.host_network && intent.pods.parsed.matches(&pod.labels));
    let mut told: Vec<String> = own
        .map(|pod| format!("pod {namespace}/{} is in the network of its node: nothing isolates it", pod.name))
        .collect();
    for rule in intent.ingress.iter().chain(&intent.egress) {
        told.extend(rule.peers.iter().filter_map(|peer| unseen(rule, peer, (namespace, cluster))));
    }
    told.sort();
    told.dedup();
    told
}

/// A peer with pods, all of which are in the network of their node.
fn unseen(rule: &Rule, peer: &Peer, (namespace, cluster): (&str, &Cluster<'_>)) -> Option<String> {
    let population = cluster.population;
    let of_entity = |entity: Option<&EntityPods>| {
        let EntityPods { pods, namespaces } = entity?;
        anywhere(population, &namespaces.parsed, &pods.parsed)
    };
    let example = match peer {
        Peer::Pods { pods, namespaces } => match namespaces {
            Namespaces::Own => those_of(population, [namespace], |pod| pods.parsed.matches(&pod.labels)),
            Namespaces::Named(names) => {
                those_of(population, names.iter().map(String::as_str), |pod| pods.parsed.matches(&pod.labels))
            }
            Namespaces::Selected(selected) => anywhere(population, &selected.parsed, &pods.parsed),
        },
        Peer::Service { namespace: other, name } => {
            let own = other.as_deref().unwrap_or(namespace);
            let service = cluster.services.get(&(own.to_owned(), name.clone()))?;
            those_of(population, [own], |pod| service.selects(pod))
        }
        Peer::IngressController => of_entity(cluster.facts.ingress_controller.as_ref()),
        Peer::Monitoring => of_entity(cluster.facts.monitoring.as_ref()),
        Peer::External { .. } | Peer::Dns | Peer::ApiServer | Peer::Webhooks | Peer::Any => None,
    }?;
    Some(format!(
        "rule {:?} has peers that are all in the network of their nodes, such as {}/{}: no selector matches them",
        rule.name, example.namespace, example.name
    ))
}

/// The first of some pods of some namespaces, if all are in the network of their node.
fn those_of<'p, 'n>(
    population: &'p Population,
    namespaces: impl IntoIterator<Item = &'n str>,
    is_one: impl Fn(&Pod) -> bool,
) -> Option<&'p Pod> {
    let mut first = None;
    for pod in namespaces.into_iter().flat_map(|namespace| population.pods_in(namespace)) {
        if !is_one(pod) {
            continue;
        }
        if !pod.host_network {
            return None;
        }
        first = first.or(Some(pod));
    }
    first
}

/// One of the pods that are selected anywhere, if all are in the network of their node.
fn anywhere<'p>(population: &'p Population, namespaces: &Selector, pods: &Selector) -> Option<&'p Pod> {
    let is_one = |pod: &&Pod| pods.matches(&pod.labels) && population.is_selected(&pod.namespace, namespaces);
    let example = population.hosted().find(is_one)?;
    population.index.examples(namespaces, pods).next().is_none().then_some(example)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use super::*;
    use crate::network::{Facts, Resident, World};

    fn told(network: Value) -> Vec<String> {
        let mut world = World::default();
        for (name, namespace, hosted) in [("web", "shop", false), ("agent", "shop", true), ("edge", "ingress", true)] {
            let pod = json!({"apiVersion": "v1", "kind": "Pod", "spec": {"hostNetwork": hosted},
                "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}}});
            world.add(&pod, "").unwrap();
        }
        let named = r#"{"podSelector": {"matchLabels": {"app": "edge"}}, "namespaceSelector": {}}"#;
        let facts = Facts { ingress_controller: Some(named.parse().unwrap()), ..Facts::default() };
        let (services, pods) = (BTreeMap::new(), world.pods.into_iter().map(Resident::from));
        let population = Population::new(vec![], pods);
        let cluster = Cluster { facts: &facts, population: &population, services: &services };
        let network: crate::api::Network = serde_json::from_value(network).unwrap();
        not_expressible(&Intent::try_from(&network).unwrap(), "shop", &cluster)
    }

    #[test]
    fn what_policies_do_not_see_is_told() {
        let rule = json!([{"name": "in", "anyPort": true, "peers": [{"entity": "IngressController"}]}]);
        let told = told(json!({"podSelector": {}, "isolate": ["Ingress"], "ingress": rule}));
        let [pod, peer] = told.as_slice() else { panic!("{told:?}") };
        assert!(pod.starts_with("pod shop/agent is in the network of its node"), "{pod}");
        assert!(peer.starts_with("rule \"in\" has peers that are all in the network of their nodes"), "{peer}");
    }

    /// Of peers that are pods, what is told for each.
    fn told_of(peers: &[Value]) -> Vec<usize> {
        let of = |peer: &Value| {
            let rule = json!([{"name": "in", "anyPort": true, "peers": [{"pods": peer}]}]);
            let web = json!({"matchLabels": {"app": "web"}});
            told(json!({"podSelector": web, "isolate": ["Ingress"], "ingress": rule})).len()
        };
        peers.iter().map(of).collect()
    }

    #[test]
    fn peers_of_which_some_are_seen_are_not() {
        let [own, named] = [json!({"selector": {}}), json!({"selector": {}, "namespaces": ["ingress", "shop"]})];
        let anywhere = json!({"selector": {}, "namespaceSelector": {}});
        assert_eq!(told_of(&[own, named, anywhere]), [0, 0, 0]);
    }

    #[test]
    fn peers_that_nobody_sees_are_told_wherever_they_are() {
        let agent = json!({"selector": {"matchLabels": {"app": "agent"}}});
        let named = json!({"selector": {}, "namespaces": ["ingress"]});
        let edge = |name: &str| {
            let namespaces = json!({"matchLabels": {"kubernetes.io/metadata.name": name}});
            json!({"selector": {"matchLabels": {"app": "edge"}}, "namespaceSelector": namespaces})
        };
        assert_eq!(told_of(&[agent, named, edge("ingress"), edge("shop")]), [1, 1, 1, 0]);
    }
}
