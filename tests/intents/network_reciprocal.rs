//! The other end of connections: of a Service, and of intents of other namespaces that one accepts.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::needless_pass_by_value,
    reason = "tests fail by panicking, and cases are values"
)]

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::NetworkPolicy;
use rampart::{
    api::Network,
    network::{Accepting, Cluster, Facts, Intent, Population, Rendered, Resident, Service, render},
};
use rampart_reach::{Namespace, Pod};
use rstest::rstest;
use serde_json::{Value, json};

fn intent(network: &Value) -> Intent {
    let network: Network = serde_json::from_value(network.clone()).unwrap();
    Intent::try_from(&network).unwrap()
}

fn app(name: &str) -> Value {
    json!({"matchLabels": {"app": name}})
}

/// An intent of pods of the app `web`, to peers on a port.
fn web(peer: Value, ports: Value, reciprocal: &str) -> Intent {
    intent(&json!({"podSelector": app("web"), "isolate": ["Egress"], "allowNoDns": true, "reciprocal": reciprocal,
        "egress": [{"name": "out", "peers": [peer], "ports": ports}]}))
}

/// What is rendered in the namespace `data`, where everything is isolated, by `own` that accepts `other` of the
/// namespace `shop`.
fn in_data(own: &Intent, other: Option<&Intent>, deny: bool) -> Rendered {
    in_data_among(own, other, if deny { vec![deny_all()] } else { vec![] })
}

fn deny_all() -> Value {
    json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]})
}

/// The same among NetworkPolicies of these specs.
fn in_data_among(own: &Intent, other: Option<&Intent>, specs: Vec<Value>) -> Rendered {
    let written = |spec| serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap();
    let others: Vec<NetworkPolicy> = specs.into_iter().map(written).collect();
    let others: Vec<&NetworkPolicy> = others.iter().collect();
    let pods: Vec<Pod> = serde_json::from_value(json!([
        {"namespace": "data", "name": "db", "labels": {"app": "db"}, "ports": [{"name": "sql", "port": 5432}]}]))
    .unwrap();
    let service = json!({"spec": {"selector": {"app": "db"}, "ports": [{"port": 80, "targetPort": "sql"}]}});
    let service = Service::of(&serde_json::from_value(service).unwrap()).unwrap();
    let services = [(("data".to_owned(), "db".to_owned()), service)].into();
    let labels: BTreeMap<String, String> = [("tier".to_owned(), "data".to_owned())].into();
    let namespaces = [Namespace { name: "data".into(), labels }];
    let facts = Facts::default();
    let population = Population::new(namespaces.into(), pods.into_iter().map(Resident::from));
    let cluster = Cluster { facts: &facts, population: &population, services: &services };
    let accepted: Vec<Accepting<'_>> =
        other.iter().map(|intent| Accepting { namespace: "shop", name: "web", intent }).collect();
    render(own, ("data", "rampart-data-0123abcd"), &cluster, (&others, &accepted)).unwrap()
}

fn nothing() -> Intent {
    intent(&json!({"podSelector": app("nobody"), "isolate": ["Ingress"]}))
}

/// The specs of the halves.
fn halves(rendered: &Rendered) -> Value {
    json!(rendered.policies[1..].iter().map(|it| serde_json::to_value(&it.spec).unwrap()).collect::<Vec<_>>())
}

fn half(port: u16) -> Value {
    let from = json!({"podSelector": app("web"), "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "shop"}}});
    json!([{"podSelector": app("db"), "policyTypes": ["Ingress"],
        "ingress": [{"from": [from], "ports": [{"protocol": "TCP", "port": port}]}]}])
}

#[test]
fn what_is_accepted_is_opened_for_the_other_namespace_alone() {
    let peers = [
        json!({"pods": {"selector": app("db"), "namespaces": ["data"]}}),
        json!({"pods": {"selector": app("db"), "namespaceSelector": {"matchLabels": {"tier": "data"}}}}),
    ];
    for peer in peers {
        let other = web(peer, json!([{"port": "sql"}]), "Generate");
        assert_eq!(halves(&in_data(&nothing(), Some(&other), true)), half(5432));
        assert_eq!(halves(&in_data(&nothing(), None, true)), json!([]), "nobody was accepted");
    }
}

#[test]
fn what_is_not_asked_or_not_about_the_namespace_opens_nothing() {
    let here = json!({"pods": {"selector": app("db"), "namespaces": ["data"]}});
    let elsewhere = json!({"pods": {"selector": app("db"), "namespaces": ["other"]}});
    let own = json!({"pods": {"selector": app("db")}});
    let ports = || json!([{"port": 5432}]);
    for other in [web(here, ports(), "Report"), web(elsewhere, ports(), "Generate"), web(own, ports(), "Generate")] {
        assert_eq!(halves(&in_data(&nothing(), Some(&other), true)), json!([]));
    }
}

#[test]
fn pods_that_nothing_isolates_stay_open_and_it_is_told() {
    let other =
        web(json!({"pods": {"selector": app("db"), "namespaces": ["data"]}}), json!([{"port": 5432}]), "Generate");
    let rendered = in_data(&nothing(), Some(&other), false);
    assert_eq!(halves(&rendered), json!([]));
    assert_eq!(rendered.findings[0].id, "ReciprocalMissing/shop/egress/out");
}

#[test]
fn a_service_is_opened_on_the_ports_of_its_pods() {
    let peer = json!({"service": {"name": "db", "namespace": "data"}});
    let other = web(peer, json!([{"port": 80}]), "Generate");
    assert_eq!(halves(&in_data(&nothing(), Some(&other), true)), half(5432));
    let own = web(json!({"service": {"name": "db"}}), json!(null), "Generate");
    let rendered = halves(&in_data(&own, None, true));
    assert_eq!(rendered[0]["podSelector"], app("db"));
    assert_eq!(
        rendered[0]["ingress"][0],
        json!({"from": [{"podSelector": app("web")}], "ports": [{"protocol": "TCP", "port": 5432}]})
    );
}

/// The ids of what is told of the other end.
fn missing(rendered: &Rendered) -> Vec<&str> {
    rendered.findings.iter().map(|it| it.id.as_str()).filter(|id| id.starts_with("ReciprocalMissing")).collect()
}

#[rstest]
#[case::for_these(json!({"ports": [{"port": 5432}], "from": [{"podSelector": app("web")}]}), true)]
#[case::for_all(json!({}), true)]
#[case::by_the_namespace(json!({"from": [{"podSelector": {}, "namespaceSelector": {"matchLabels": {"tier": "data"}}}]}), true)]
#[case::for_another_namespace(json!({"from": [{"podSelector": {}, "namespaceSelector": {"matchLabels": {"tier": "web"}}}]}), false)]
#[case::for_others(json!({"from": [{"podSelector": app("api")}]}), false)]
#[case::on_another_port(json!({"ports": [{"port": 6432}]}), false)]
fn a_side_that_another_policy_opens_is_not_missing(#[case] rule: Value, #[case] is_open: bool) {
    let own = web(json!({"pods": {"selector": app("db")}}), json!([{"port": 5432}]), "Report");
    let open = json!({"podSelector": app("db"), "policyTypes": ["Ingress"], "ingress": [rule]});
    let rendered = in_data_among(&own, None, vec![deny_all(), open]);
    assert_eq!(missing(&rendered), if is_open { vec![] } else { vec!["ReciprocalMissing/data/egress/out"] });
}

#[test]
fn the_two_directions_of_a_name_are_told_apart() {
    let rule = json!({"name": "db", "anyPort": true, "peers": [{"pods": {"selector": app("db")}}]});
    let own = intent(&json!({"podSelector": app("web"), "isolate": ["Ingress", "Egress"], "allowNoDns": true,
        "ingress": [rule.clone()], "egress": [rule]}));
    let both = ["ReciprocalMissing/data/egress/db", "ReciprocalMissing/data/ingress/db"];
    assert_eq!(missing(&in_data(&own, None, true)), both);
}

#[test]
fn no_pack_misses_a_side_that_it_opens_itself() {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/packs");
    let mut intents = 0;
    for file in std::fs::read_dir(directory).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let objects: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
        for object in objects {
            let Some(network) = object.pointer("/spec/network") else { continue };
            intents += 1;
            let rendered = in_data(&intent(network), None, false);
            assert_eq!(missing(&rendered), [""; 0], "{}", object["metadata"]["name"]);
        }
    }
    assert!(intents >= 4, "{intents}");
}
