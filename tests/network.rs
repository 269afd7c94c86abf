//! Rendering of network intent: what a spec becomes, and what it must never become.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::needless_pass_by_value,
    reason = "tests"
)]

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicySpec};
use proptest::prelude::*;
use rampart::{
    api::Network,
    network::{Facts, Intent, Rendered, Unrenderable, render, same_spec},
};
use rstest::rstest;
use serde_json::{Value, json};

fn intent(network: Value) -> Intent {
    let network: Network = serde_json::from_value(network).unwrap();
    Intent::try_from(&network).unwrap()
}

fn facts() -> Facts {
    Facts {
        cluster_ranges: ["10.96.0.0/16", "10.244.0.0/16"].map(|range| range.parse().unwrap()).into(),
        dns_addresses: vec!["10.96.0.10".parse().unwrap(), "169.254.20.10".parse().unwrap()],
        ..Facts::default()
    }
}

fn rendered(network: Value, facts: &Facts, others: &[&NetworkPolicy]) -> Rendered {
    render(&intent(network), ("shop", "rampart-web-0123abcd"), facts, others).unwrap()
}

fn app(name: &str) -> Value {
    json!({"pods": {"selector": {"matchLabels": {"app": name}}}})
}

fn egress(peers: Value) -> Value {
    json!({
        "mode": "Enforce", "podSelector": {}, "isolate": ["Egress"], "allowNoDns": true,
        "egress": [{"name": "out", "peers": peers, "ports": [{"port": 443}]}],
    })
}

#[test]
fn the_sample_intent() {
    let network = json!({
        "mode": "Enforce", "podSelector": {"matchLabels": {"app": "web"}}, "isolate": ["Egress", "Ingress"],
        "ingress": [{"name": "web", "peers": [{"entity": "SameNamespace"}, app("frontend"), {"external": {"cidrs": ["10.0.0.0/8"]}}],
                     "ports": [{"port": 8000}]}],
        "egress": [
            {"name": "pg", "peers": [app("postgres")], "ports": [{"port": 5432}]},
            {"name": "out", "peers": [{"external": {"cidrs": ["0.0.0.0/0"]}}], "ports": [{"port": 443}, {"port": 80}]},
            {"name": "dns", "peers": [{"entity": "DNS"}]},
        ],
        "reciprocal": "Generate",
    });
    let deny: NetworkPolicy = serde_json::from_value(json!({
        "metadata": {"name": "deny"}, "spec": {"podSelector": {"matchLabels": {"app": "postgres"}}, "policyTypes": ["Ingress"]},
    }))
    .unwrap();
    insta::assert_yaml_snapshot!(rendered(network, &facts(), &[&deny]).policies);
}

#[test]
fn an_external_peer_needs_the_clusters_ranges() {
    let intent = intent(egress(json!([{"external": {"cidrs": ["0.0.0.0/0"]}}])));
    let refused = render(&intent, ("n", "b"), &Facts::default(), &[]).unwrap_err();
    assert_eq!(refused, Unrenderable::UnknownClusterRanges { rule: "out".into() });
}

#[test]
fn a_rule_whose_peers_all_fall_away_allows_nothing_rather_than_everything() {
    let rendered = rendered(egress(json!([{"external": {"cidrs": ["10.244.7.0/24"]}}])), &facts(), &[]);
    let spec = rendered.policies[0].spec.clone().unwrap();
    assert_eq!(spec.egress, Some(vec![]));
    assert_eq!(rendered.findings[0].id, "NothingExternal/shop/out");
}

#[test]
fn a_direction_that_is_not_isolated_is_left_open() {
    let spec = rendered(egress(json!([app("x")])), &facts(), &[]).policies[0].spec.clone().unwrap();
    assert_eq!((spec.policy_types, spec.ingress), (Some(vec!["Egress".into()]), None));
}

#[rstest]
#[case::an_empty_list_is_none(json!({"podSelector": {}, "ingress": []}), json!({"podSelector": {}}), true)]
#[case::tcp_is_the_default(json!({"podSelector": {}, "ingress": [{"ports": [{"port": 1}]}]}), json!({"podSelector": {}, "ingress": [{"ports": [{"port": 1, "protocol": "TCP"}]}]}), true)]
#[case::everything_is_not_nothing(json!({"podSelector": {}, "ingress": [{}]}), json!({"podSelector": {}, "ingress": []}), false)]
#[case::own_namespace_is_not_everywhere(json!({"podSelector": {}, "egress": [{"to": [{"podSelector": {}}]}]}), json!({"podSelector": {}, "egress": [{"to": [{"namespaceSelector": {}}]}]}), false)]
#[case::no_labels_are_none(json!({"podSelector": {"matchLabels": {}}}), json!({"podSelector": {}}), true)]
#[case::types_count(json!({"podSelector": {}, "policyTypes": ["Ingress"]}), json!({"podSelector": {}, "policyTypes": ["Egress"]}), false)]
fn what_is_the_same(#[case] one: Value, #[case] other: Value, #[case] same: bool) {
    let [one, other] = [one, other].map(|spec| serde_json::from_value::<NetworkPolicySpec>(spec).unwrap());
    assert_eq!(same_spec(Some(&one), Some(&other)), same);
}

fn range() -> impl Strategy<Value = IpNet> {
    (any::<[u8; 4]>(), 0_u8..=32).prop_map(|(address, bits)| IpNet::new(address.into(), bits).unwrap().trunc())
}

proptest! {
    #[test]
    fn exceptions_lie_inside_and_the_cluster_is_never_external(
        cidrs in prop::collection::vec(range(), 1..4),
        cluster_ranges in prop::collection::vec(range(), 1..4),
    ) {
        let peer = json!({"external": {"cidrs": cidrs.iter().map(ToString::to_string).collect::<Vec<_>>()}});
        let facts = Facts { cluster_ranges: cluster_ranges.clone(), ..Facts::default() };
        let spec = rendered(egress(json!([peer])), &facts, &[]).policies[0].spec.clone().unwrap();
        for rule in spec.egress.unwrap() {
            let peers = rule.to.unwrap();
            prop_assert!(!peers.is_empty(), "a rule without peers allows everything");
            for block in peers.into_iter().filter_map(|peer| peer.ip_block) {
                let cidr: IpNet = block.cidr.parse().unwrap();
                let except: Vec<IpNet> = block.except.iter().flatten().map(|it| it.parse().unwrap()).collect();
                prop_assert!(except.iter().all(|inner| inner != &cidr && cidr.contains(inner)));
                for own in &cluster_ranges {
                    let inside = except.iter().any(|inner| inner.contains(own));
                    prop_assert!(!cidr.contains(own) || inside, "{own} is the cluster's, and {cidr} except {except:?} holds it");
                    prop_assert!(!own.contains(&cidr));
                }
            }
        }
    }
}
