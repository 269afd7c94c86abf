//! What of an intent no NetworkPolicy can say.

use rampart_reach::Pod;

use super::{Cluster, EntityPods, Intent, Peer, Rule, known::is_selected};

/// Pods in the network of their node that an intent is about, and rules with peers that are all such pods: selectors
/// never match them (`networking.k8s.io/v1`, NetworkPolicy). In the order of pods, then of rules.
#[must_use]
pub fn not_expressible(intent: &Intent, namespace: &str, cluster: &Cluster<'_>) -> Vec<String> {
    let hosted: Vec<&Pod> = cluster.pods.iter().filter(|pod| pod.host_network).collect();
    if hosted.is_empty() {
        return vec![];
    }
    let own = hosted.iter().filter(|pod| pod.namespace == namespace && intent.pods.parsed.matches(&pod.labels));
    let mut told: Vec<String> = own
        .map(|pod| format!("pod {namespace}/{} is in the network of its node: nothing isolates it", pod.name))
        .collect();
    for rule in intent.ingress.iter().chain(&intent.egress) {
        told.extend(rule.peers.iter().filter_map(|peer| unseen(rule, peer, (namespace, cluster), &hosted)));
    }
    told.sort();
    told.dedup();
    told
}

/// A peer with pods, all of which are in the network of their node.
fn unseen(rule: &Rule, peer: &Peer, (namespace, cluster): (&str, &Cluster<'_>), hosted: &[&Pod]) -> Option<String> {
    let any_namespace = |named: &EntityPods, pod: &Pod| {
        named.pods.parsed.matches(&pod.labels)
            && is_selected(cluster.namespaces, &pod.namespace, &named.namespaces.parsed)
    };
    let is_peer = |pod: &&Pod| match peer {
        Peer::Pods { pods, namespaces } => cluster.selects((pods, namespaces), namespace, pod),
        Peer::Service { namespace: other, name } => {
            let own = other.as_deref().unwrap_or(namespace);
            let service = cluster.services.get(&(own.to_owned(), name.clone()));
            pod.namespace == own && service.is_some_and(|service| service.selects(pod))
        }
        Peer::IngressController => cluster.facts.ingress_controller.as_ref().is_some_and(|it| any_namespace(it, pod)),
        Peer::Monitoring => cluster.facts.monitoring.as_ref().is_some_and(|it| any_namespace(it, pod)),
        Peer::External { .. } | Peer::Dns | Peer::ApiServer | Peer::Webhooks | Peer::Any => false,
    };
    let example = hosted.iter().find(|pod| is_peer(pod))?;
    let seen = cluster.pods.iter().any(|pod| !pod.host_network && is_peer(&pod));
    (!seen).then(|| {
        format!(
            "rule {:?} has peers that are all in the network of their nodes, such as {}/{}: no selector matches them",
            rule.name, example.namespace, example.name
        )
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use super::*;
    use crate::network::{Facts, World};

    fn told(network: Value) -> Vec<String> {
        let mut world = World::default();
        for (name, namespace, hosted) in [("web", "shop", false), ("agent", "shop", true), ("edge", "ingress", true)] {
            let pod = json!({"apiVersion": "v1", "kind": "Pod", "spec": {"hostNetwork": hosted},
                "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}}});
            world.add(&pod, "").unwrap();
        }
        let named = r#"{"podSelector": {"matchLabels": {"app": "edge"}}, "namespaceSelector": {}}"#;
        let facts = Facts { ingress_controller: Some(named.parse().unwrap()), ..Facts::default() };
        let services = BTreeMap::new();
        let cluster = Cluster { facts: &facts, namespaces: &[], pods: &world.pods, services: &services };
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

    #[test]
    fn peers_of_which_some_are_seen_are_not() {
        let rule = json!([{"name": "in", "anyPort": true, "peers": [{"pods": {"selector": {}}}]}]);
        let network = json!({"podSelector": {"matchLabels": {"app": "web"}}, "isolate": ["Ingress"], "ingress": rule});
        assert_eq!(told(network), Vec::<String>::new());
    }
}
