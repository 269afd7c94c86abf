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
    network::{
        Cluster, EntityPods, Facts, Intent, Population, Rendered, Resident, Service, Unrenderable, render, same_spec,
    },
};
use rampart_reach::{Namespace, Pod};
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

/// Of these pods.
fn inhabited(pods: Value) -> Population {
    let pods: Vec<Pod> = serde_json::from_value(pods).unwrap();
    Population::new(vec![], pods.into_iter().map(Resident::from))
}

fn rendered(network: Value, facts: &Facts, others: &[&NetworkPolicy]) -> Rendered {
    render(&intent(network), ("shop", "rampart-web-0123abcd"), &Cluster::of_facts(facts), (others, &[])).unwrap()
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
    let refused = render(&intent, ("n", "b"), &Cluster::of_facts(&Facts::default()), (&[], &[])).unwrap_err();
    assert_eq!(refused, Unrenderable::UnknownClusterRanges { rule: "out".into() });
}

#[rstest]
#[case::another_pool(json!({"ips": ["10.60.0.5"]}), Some("10.60.0.5"))]
#[case::another_family(json!({"ips": ["10.244.0.5", "fd00::5"]}), Some("fd00::5"))]
#[case::inside(json!({"ips": ["10.244.255.255"]}), None)]
#[case::of_its_node(json!({"ips": ["192.0.2.7"], "hostNetwork": true}), None)]
#[case::none_yet(json!({}), None)]
fn pods_in_no_range_tell_that_ranges_are_missing(#[case] more: Value, #[case] outside: Option<&str>) {
    let mut pod = json!({"namespace": "data", "name": "db"});
    pod.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let (population, facts) = (inhabited(json!([pod])), facts());
    let intent = intent(egress(json!([{"external": {"cidrs": ["0.0.0.0/0", "::/0"]}}])));
    let rendered = |facts: &Facts| {
        let cluster = Cluster { population: &population, ..Cluster::of_facts(facts) };
        render(&intent, ("shop", "b"), &cluster, (&[], &[]))
    };
    let missing = outside.map(|address| Unrenderable::PodOutsideRanges {
        rule: "out".into(),
        pod: "data/db".into(),
        address: address.parse().unwrap(),
    });
    assert_eq!(rendered(&facts).err(), missing);
    assert!(rendered(&facts.without_ranges()).is_ok(), "what it would be is told all the same");
}

#[test]
fn name_servers_are_asked_on_the_ports_that_their_service_leads_to() {
    let network = to(&json!({"entity": "DNS"}), &json!(null));
    let facts = Facts { dns_ports: [8053].into(), ..facts() };
    let spec = serde_json::to_value(&rendered(network, &facts, &[]).policies[0].spec).unwrap();
    let port = |protocol: &str, number: u16| json!({"protocol": protocol, "port": number});
    let wanted = [port("TCP", 53), port("TCP", 8053), port("UDP", 53), port("UDP", 8053)];
    assert_eq!(spec["egress"][0]["ports"], json!(wanted));
}

#[test]
fn where_clouds_serve_credentials_is_never_external() {
    let rendered = rendered(egress(json!([{"external": {"cidrs": ["169.254.0.0/16", "fd00::/8"]}}])), &facts(), &[]);
    let spec = serde_json::to_value(&rendered.policies[0].spec).unwrap();
    let block = |cidr: &str, except: &str| json!({"ipBlock": {"cidr": cidr, "except": [except]}});
    let wanted = [block("169.254.0.0/16", "169.254.169.254/32"), block("fd00::/8", "fd00:ec2::254/128")];
    assert_eq!(spec["egress"][0]["to"], json!(wanted));
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

/// Rendered where there are these pods, and a Service `db` of the pods of the app `db`.
fn among(network: Value, pods: Value) -> Rendered {
    let population = inhabited(pods);
    let service = json!({"spec": {"selector": {"app": "db"}, "ports": [
        {"name": "sql", "port": 80, "targetPort": "pg"}, {"name": "metrics", "port": 81, "targetPort": 9100}]}});
    let service = Service::of(&serde_json::from_value(service).unwrap()).unwrap();
    let services = [(("shop".to_owned(), "db".to_owned()), service)].into();
    let facts = Facts {
        api_endpoints: [("192.0.2.1".parse().unwrap(), 6443)].into(),
        api_service: [("10.96.0.1".parse().unwrap(), 443)].into(),
        ..facts()
    };
    let cluster = Cluster { facts: &facts, population: &population, services: &services };
    render(&intent(network), ("shop", "rampart-web-0123abcd"), &cluster, (&[], &[])).unwrap()
}

fn pod(namespace: &str, app: &str, ports: Value) -> Value {
    json!({"namespace": namespace, "name": app, "labels": {"app": app}, "ports": ports})
}

/// Ports of the egress rules, and ids of findings.
fn ports_and_findings(rendered: &Rendered) -> (Value, Vec<&str>) {
    let spec = serde_json::to_value(&rendered.policies[0].spec).unwrap();
    let rules = spec["egress"].as_array().unwrap().iter();
    let ports =
        rules.map(|rule| json!(rule["ports"].as_array().unwrap().iter().map(|port| &port["port"]).collect::<Vec<_>>()));
    (ports.collect(), rendered.findings.iter().map(|it| it.id.as_str()).collect())
}

fn to(peer: &Value, ports: &Value) -> Value {
    json!({"podSelector": {}, "isolate": ["Egress"], "allowNoDns": true,
           "egress": [{"name": "out", "peers": [peer], "ports": ports}]})
}

#[rstest]
#[case::one_number(json!([pod("shop", "db", json!([{"name": "pg", "port": 5432}]))]), json!([[5432]]), &[])]
#[case::of_the_destination_alone(
    json!([pod("shop", "db", json!([{"name": "pg", "port": 5432}])), pod("shop", "web", json!([{"name": "pg", "port": 1}])),
           pod("else", "db", json!([{"name": "pg", "port": 2}]))]),
    json!([[5432]]), &[])]
#[case::of_its_protocol(json!([pod("shop", "db", json!([{"name": "pg", "port": 5432, "protocol": "UDP"}]))]), json!([]), &["NamedPortUnknown/shop/out"])]
#[case::pods_disagree(
    json!([pod("shop", "db", json!([{"name": "pg", "port": 5432}])), pod("shop", "db", json!([{"name": "pg", "port": 6432}]))]),
    json!([[5432, 6432]]), &["NamedPortAmbiguous/shop/out"])]
#[case::nobody_has_it(json!([]), json!([]), &["NamedPortUnknown/shop/out"])]
fn a_name_is_the_number_that_the_destination_means(#[case] pods: Value, #[case] ports: Value, #[case] found: &[&str]) {
    let by_name = among(to(&app("db"), &json!([{"port": "pg"}])), pods);
    assert_eq!(ports_and_findings(&by_name), (ports, found.to_vec()));
}

#[test]
fn a_name_of_ingress_is_what_the_selected_pods_mean() {
    let network = json!({"podSelector": {"matchLabels": {"app": "db"}}, "isolate": ["Ingress"],
        "ingress": [{"name": "in", "peers": [app("web")], "ports": [{"port": "pg"}]}]});
    let pods = json!([
        pod("shop", "db", json!([{"name": "pg", "port": 5432}])),
        pod("shop", "web", json!([{"name": "pg", "port": 1}]))
    ]);
    let spec = serde_json::to_value(&among(network, pods).policies[0].spec).unwrap();
    assert_eq!(spec["ingress"][0]["ports"], json!([{"protocol": "TCP", "port": 5432}]));
}

#[rstest]
#[case::all(json!(null), json!([[5432, 9100]]), &[])]
#[case::by_number(json!([{"port": 81}]), json!([[9100]]), &[])]
#[case::by_name(json!([{"port": "sql"}]), json!([[5432]]), &[])]
#[case::the_pods_port_is_not_the_services(json!([{"port": 5432}]), json!([]), &["NamedPortUnknown/shop/out", "ServicePortUnknown/shop/out"])]
fn a_service_stands_for_its_pods_on_their_ports(#[case] ports: Value, #[case] wanted: Value, #[case] found: &[&str]) {
    let pods = json!([pod("shop", "db", json!([{"name": "pg", "port": 5432}]))]);
    let rendered = among(to(&json!({"service": {"name": "db"}}), &ports), pods);
    assert_eq!(ports_and_findings(&rendered), (wanted, found.to_vec()));
    let spec = serde_json::to_value(&rendered.policies[0].spec).unwrap();
    for rule in spec["egress"].as_array().unwrap() {
        assert_eq!(rule["to"], json!([{"podSelector": {"matchLabels": {"app": "db"}}}]));
    }
}

#[test]
fn namespaces_that_are_not_there_are_named() {
    let peer = json!({"pods": {"selector": {}, "namespaces": ["data", "dtaa", "shop"]}});
    let (intent, facts) = (intent(egress(json!([peer]))), facts());
    let found = |there: Value| {
        let namespaces: Vec<Namespace> = serde_json::from_value(there).unwrap();
        let population = Population::new(namespaces, std::iter::empty());
        let cluster = Cluster { population: &population, ..Cluster::of_facts(&facts) };
        render(&intent, ("shop", "b"), &cluster, (&[], &[])).unwrap().findings
    };
    let told = found(json!([{"name": "shop", "labels": {}}, {"name": "data", "labels": {}}]));
    assert_eq!(told.iter().map(|it| it.id.as_str()).collect::<Vec<_>>(), ["NamespaceUnknown/shop/out"]);
    assert!(told[0].message.contains("not there: dtaa;"), "{}", told[0].message);
    assert!(found(json!([])).is_empty(), "nobody knows them");
}

#[test]
fn a_service_that_is_not_there_opens_nothing() {
    let rendered = among(to(&json!({"service": {"name": "db", "namespace": "else"}}), &json!(null)), json!([]));
    assert_eq!(ports_and_findings(&rendered), (json!([]), vec!["ServiceUnknown/shop/out"]));
}

#[test]
fn the_api_server_is_its_endpoints_and_its_service_on_their_ports() {
    let rendered = among(to(&json!({"entity": "APIServer"}), &json!(null)), json!([]));
    let spec = serde_json::to_value(&rendered.policies[0].spec).unwrap();
    let rule = |address: &str, port: u16| json!({"to": [{"ipBlock": {"cidr": address}}], "ports": [{"protocol": "TCP", "port": port}]});
    assert_eq!(spec["egress"], json!([rule("10.96.0.1/32", 443), rule("192.0.2.1/32", 6443)]));
    let unknown = render(
        &intent(to(&json!({"entity": "APIServer"}), &json!(null))),
        ("shop", "x"),
        &Cluster::of_facts(&facts()),
        (&[], &[]),
    );
    assert_eq!(unknown, Err(Unrenderable::UnknownApiServer { rule: "out".into() }));
}

#[test]
fn the_ingress_controller_is_who_the_administrator_says() {
    let network = json!({"podSelector": {}, "isolate": ["Ingress"],
        "ingress": [{"name": "in", "peers": [{"entity": "IngressController"}], "ports": [{"port": 80}]}]});
    let named =
        r#"{"podSelector": {"matchLabels": {"app": "proxy"}}, "namespaceSelector": {"matchLabels": {"team": "edge"}}}"#;
    let facts = Facts { ingress_controller: Some(named.parse().unwrap()), ..facts() };
    let spec = serde_json::to_value(&rendered(network.clone(), &facts, &[]).policies[0].spec).unwrap();
    assert_eq!(spec["ingress"][0]["from"], json!([serde_json::from_str::<Value>(named).unwrap()]));
    let unnamed = render(&intent(network), ("n", "b"), &Cluster::of_facts(&Facts::default()), (&[], &[])).unwrap_err();
    let fix = "--network-ingress-controller (network.ingressController of the chart)";
    assert!(unnamed.reason() == "Invalid" && unnamed.to_string().ends_with(fix), "{unnamed}");
}

#[rstest]
#[case("{}", "missing field")]
#[case(r#"{"podSelector": {}, "namespaceSelector": {}, "ipBlock": {}}"#, "unknown field")]
#[case(
    r#"{"podSelector": {"matchExpressions": [{"key": "a", "operator": "Is"}]}, "namespaceSelector": {}}"#,
    "podSelector"
)]
fn an_entity_that_is_misnamed_is_told(#[case] named: &str, #[case] told: &str) {
    let error = named.parse::<EntityPods>().unwrap_err();
    assert!(error.contains(told), "{error}");
}

#[test]
fn any_is_everybody_on_the_listed_ports_and_a_finding() {
    let rendered = among(to(&json!({"any": true}), &json!([{"port": 443}])), json!([]));
    let spec = serde_json::to_value(&rendered.policies[0].spec).unwrap();
    assert_eq!(spec["egress"], json!([{"ports": [{"protocol": "TCP", "port": 443}]}]));
    assert_eq!(rendered.findings[0].id, "OpenToAll/shop/out");
}

#[rstest]
#[case(json!([{"port": "Not-A-Name"}]), "spec.network.egress[0].ports[0].port")]
#[case(json!([{"port": "443"}]), "spec.network.egress[0].ports[0].port")]
#[case(json!([{"port": "http", "endPort": 90}]), "spec.network.egress[0].ports[0].endPort")]
#[case(json!([{"port": 0}]), "spec.network.egress[0].ports[0].port")]
fn a_port_that_is_none_is_named(#[case] ports: Value, #[case] field: &str) {
    let network: Network = serde_json::from_value(to(&app("db"), &ports)).unwrap();
    let error = Intent::try_from(&network).unwrap_err();
    assert_eq!(error.field, field, "{error}");
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

#[rstest]
#[case::by_way_of_any_node("LoadBalancer", "Cluster", "web", &["CallersMasked/shop/outer"])]
#[case::by_way_of_its_node("LoadBalancer", "Local", "web", &[])]
#[case::not_from_outside("ClusterIP", "Cluster", "web", &[])]
#[case::other_pods("NodePort", "Cluster", "db", &[])]
fn callers_that_a_node_stands_in_for_are_told(
    #[case] kind: &str,
    #[case] traffic: &str,
    #[case] app: &str,
    #[case] told: &[&str],
) {
    let service = json!({"spec": {"type": kind, "externalTrafficPolicy": traffic, "selector": {"app": app},
        "ports": [{"port": 80}]}});
    let service = Service::of(&serde_json::from_value(service).unwrap()).unwrap();
    let services = [(("shop".to_owned(), "outer".to_owned()), service)].into();
    let pod = |app: &str| json!({"namespace": "shop", "name": app, "labels": {"app": app}});
    let population = inhabited(json!([pod("web"), pod("db")]));
    let intent = intent(json!({"podSelector": {"matchLabels": {"app": "web"}}, "isolate": ["Ingress"],
        "ingress": [{"name": "in", "peers": [{"external": {"cidrs": ["0.0.0.0/0"]}}], "ports": [{"port": 80}]}]}));
    let facts = facts();
    let cluster = Cluster { facts: &facts, population: &population, services: &services };
    let rendered = render(&intent, ("shop", "rampart-web-0123abcd"), &cluster, (&[], &[])).unwrap();
    // That ranges of the cluster are cut out is told, too.
    let found: Vec<&str> = rendered.findings.iter().map(|it| it.id.as_str()).collect();
    assert_eq!(found.iter().filter(|id| id.starts_with("Callers")).copied().collect::<Vec<_>>(), told);
}
