//! What changed of what policies are rendered by: pods and Services that ports lead to, and labels of namespaces.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{Resource as _, core::DeserializeGuard, runtime::reflector::ObjectRef};

use super::super::Roots;
use crate::api::{Network, NetworkRule, Peer, Pods, Reciprocal, SecurityPolicy};

/// What changed.
#[derive(Debug, Default)]
pub(super) struct Fresh {
    /// Namespaces whose pods or Services did.
    pub(super) namespaces: BTreeSet<String>,
    /// Namespaces that came or went.
    pub(super) came_or_went: BTreeSet<String>,
    /// Namespaces where other ClusterSecurityPolicies enforce isolation.
    pub(super) clamped: BTreeSet<String>,
    /// Whether labels of namespaces did.
    pub(super) labels: bool,
}

impl Fresh {
    /// Whether a policy may become something else by it. Asked of every policy each second while pods come and go, so
    /// the spec is read as it is written.
    pub(super) fn concerns(&self, root: &DeserializeGuard<SecurityPolicy>, roots: &Roots<SecurityPolicy>) -> bool {
        let Some((network, own)) = asked(root) else { return false };
        let accepted = |namespace: &str, name: &str| {
            let root = roots.store.get(&ObjectRef::new(name).within(namespace));
            root.is_some_and(|root| asked(&root).is_some_and(|(network, own)| self.resolves(network, own)))
        };
        self.clamped.contains(own)
            || self.names_any(network)
            || self.resolves(network, own)
            || self.follows_labels(network)
            || network.accept_from.iter().any(|it| {
                let is_fresh = self.labels || self.namespaces.contains(own) || self.namespaces.contains(&it.namespace);
                is_fresh || accepted(&it.namespace, &it.policy)
            })
    }

    /// Whether ports by name, or those of Services, may be others: those of pods that the policy leads to.
    fn resolves(&self, network: &Network, own: &str) -> bool {
        let is_fresh = |namespace: &str| self.namespaces.contains(namespace);
        let is_named =
            |rule: &NetworkRule| rule.ports.iter().flatten().any(|port| matches!(port.port, IntOrString::String(_)));
        let by_service = |peer: &Peer| {
            let service = peer.service.as_ref();
            service.is_some_and(|service| is_fresh(service.namespace.as_deref().unwrap_or(own)))
        };
        let by_name = |peer: &Peer| match &peer.pods {
            Some(Pods { namespaces: Some(names), .. }) => names.iter().any(|name| is_fresh(name)),
            Some(Pods { namespace_selector: Some(_), .. }) => self.labels || !self.namespaces.is_empty(),
            Some(_) => is_fresh(own),
            None => peer.entity.is_some() && is_fresh(own),
        };
        let inward = |rule: &NetworkRule| rule.peers.iter().any(by_service) || (is_named(rule) && is_fresh(own));
        let outward = |rule: &NetworkRule| {
            rule.peers.iter().any(by_service) || (is_named(rule) && rule.peers.iter().any(by_name))
        };
        network.ingress.iter().any(inward) || network.egress.iter().any(outward)
    }

    /// Whether it opens the other end in its own namespace, where that is selected, and may be selected otherwise.
    fn follows_labels(&self, network: &Network) -> bool {
        let is_selected = |peer: &Peer| peer.pods.as_ref().is_some_and(|pods| pods.namespace_selector.is_some());
        self.labels && network.reciprocal == Reciprocal::Generate && peers(network).any(is_selected)
    }

    /// Whether a peer names a namespace that came or went.
    fn names_any(&self, network: &Network) -> bool {
        let mut named = peers(network).filter_map(|peer| peer.pods.as_ref()?.namespaces.as_ref()).flatten();
        !self.came_or_went.is_empty() && named.any(|name| self.came_or_went.contains(name))
    }
}

/// The peers of a policy.
pub(super) fn peers(network: &Network) -> impl Iterator<Item = &Peer> {
    network.ingress.iter().chain(&network.egress).flat_map(|rule| &rule.peers)
}

/// What a policy asks of the network, and its namespace.
pub(super) fn asked(root: &DeserializeGuard<SecurityPolicy>) -> Option<(&Network, &str)> {
    let network = root.0.as_ref().ok()?.spec.network.as_ref()?;
    Some((network, root.meta().namespace.as_deref().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use kube::runtime::watcher::Event;
    use serde_json::{Value, json};

    use super::*;
    use crate::controllers::root;

    fn policy(name: &str, namespace: &str, more: &Value) -> DeserializeGuard<SecurityPolicy> {
        let mut network = json!({"mode": "Enforce", "podSelector": {}, "isolate": ["Ingress"]});
        network.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let policy = json!({"metadata": {"name": name, "namespace": namespace}, "spec": {"network": network}});
        DeserializeGuard(Ok(serde_json::from_value(policy).unwrap()))
    }

    fn rule(direction: &str, peer: &Value, port: &Value) -> Value {
        json!({direction: [{"name": "it", "peers": [peer], "ports": [{"port": port}]}]})
    }

    /// Of the namespaces `shop`, which is its own, `data` and `else`: those whose pods a policy is rendered by.
    fn rendered_by(more: &Value) -> Vec<&'static str> {
        let (mut kept, roots) = root::<SecurityPolicy>();
        let db =
            policy("db", "data", &rule("egress", &json!({"service": {"name": "s", "namespace": "else"}}), &json!(80)));
        for event in [Event::Init, Event::InitApply(db), Event::InitDone] {
            kept.writer.apply_watcher_event(&event);
        }
        let web = policy("web", "shop", more);
        let is_so = |name: &&str| {
            let fresh = Fresh { namespaces: [(*name).to_owned()].into(), ..Fresh::default() };
            fresh.concerns(&web, &roots)
        };
        ["shop", "data", "else"].into_iter().filter(is_so).collect()
    }

    #[test]
    fn pods_render_policies_that_lead_to_them() {
        let in_data = json!({"pods": {"selector": {}, "namespaces": ["data"]}});
        let anywhere = json!({"pods": {"selector": {}, "namespaceSelector": {}}});
        let (number, name) = (json!(80), json!("http"));
        let accepting = |policy: &str| json!({"acceptFrom": [{"namespace": "data", "policy": policy}]});
        for (more, wanted) in [
            (json!({}), vec![]),
            (rule("egress", &in_data, &number), vec![]),
            (rule("ingress", &in_data, &name), vec!["shop"]),
            (rule("egress", &in_data, &name), vec!["data"]),
            (rule("egress", &json!({"entity": "SameNamespace"}), &name), vec!["shop"]),
            (rule("egress", &anywhere, &name), vec!["shop", "data", "else"]),
            (rule("egress", &json!({"service": {"name": "db", "namespace": "data"}}), &number), vec!["data"]),
            (accepting("db"), vec!["shop", "data", "else"]),
            (accepting("nobody"), vec!["shop", "data"]),
        ] {
            assert_eq!(rendered_by(&more), wanted, "{more}");
        }
    }

    #[test]
    fn who_opens_the_other_end_in_namespaces_by_their_labels_follows_those() {
        let (_, roots) = root::<SecurityPolicy>();
        let relabelled = Fresh { labels: true, ..Fresh::default() };
        let follows = |reciprocal: &str, namespaces: &Value| {
            let mut pods = json!({"selector": {}});
            pods.as_object_mut().unwrap().extend(namespaces.as_object().unwrap().clone());
            let rule = json!({"name": "in", "peers": [{"pods": pods}], "anyPort": true});
            let policy = policy("web", "shop", &json!({"reciprocal": reciprocal, "ingress": [rule]}));
            relabelled.concerns(&policy, &roots)
        };
        let by_label = json!({"namespaceSelector": {"matchLabels": {"team": "a"}}});
        assert!(follows("Generate", &by_label));
        assert!(!follows("Report", &by_label));
        assert!(!follows("Generate", &json!({})));
    }

    #[test]
    fn who_names_a_namespace_is_rendered_anew_when_it_comes() {
        let (_, roots) = root::<SecurityPolicy>();
        let peer = json!({"pods": {"selector": {}, "namespaces": ["data"]}});
        let web = policy("web", "shop", &rule("egress", &peer, &json!(80)));
        let came = |name: &str| Fresh { came_or_went: [name.to_owned()].into(), ..Fresh::default() };
        let clamped = Fresh { clamped: ["shop".to_owned()].into(), ..Fresh::default() };
        assert!(came("data").concerns(&web, &roots) && clamped.concerns(&web, &roots));
        assert!(!came("else").concerns(&web, &roots));
    }
}
