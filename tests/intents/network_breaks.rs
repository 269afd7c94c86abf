//! What an intent would break, and what it would not.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::needless_pass_by_value,
    reason = "tests fail by panicking, and cases are values"
)]

use rampart::{
    api::Network,
    network::{
        BackendPort, Cluster, Facts, Intent, Monitor, Population, Resident, Service, Surroundings, View, backends,
        breaks, render, understood,
    },
};
use rampart_reach::{Change, Policy};
use rstest::rstest;
use serde_json::{Value, json};

fn resident(namespace: &str, labels: &Value, annotations: &Value, spec: &Value) -> Resident {
    let metadata = json!({"namespace": namespace, "name": labels["app"], "labels": labels, "annotations": annotations});
    Resident::of(&serde_json::from_value(metadata).unwrap(), &json!({"spec": spec})).unwrap()
}

fn population() -> Population {
    let ports = json!({"containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 8000}]}],
        "serviceAccountName": "caller"});
    let (none, scraped) = (json!({}), json!({"prometheus.io/scrape": "true", "prometheus.io/port": "9100"}));
    let pods = [
        resident("shop", &json!({"app": "web"}), &scraped, &ports),
        resident("shop", &json!({"app": "db"}), &none, &none),
        resident("edge", &json!({"app": "proxy"}), &none, &none),
        resident("kube-system", &json!({"app": "dns", "k8s-app": "kube-dns"}), &none, &none),
        resident("monitoring", &json!({"app": "p", "app.kubernetes.io/name": "prometheus"}), &none, &none),
    ];
    Population::new(vec![], pods.into_iter())
}

fn surroundings() -> Surroundings {
    let service = |kind: &str, target: Value| {
        let spec = json!({"type": kind, "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": target}]});
        Service::of(&serde_json::from_value(json!({"spec": spec})).unwrap()).unwrap()
    };
    let name = |name: &str| ("shop".to_owned(), name.to_owned());
    Surroundings {
        services: [
            (name("outer"), service("LoadBalancer", json!("http"))),
            (name("inner"), service("ClusterIP", json!(8000))),
            (name("hook"), service("ClusterIP", json!(8443))),
        ]
        .into(),
        ingresses: [(name("site"), [(name("inner"), BackendPort::Number(80))].into())].into(),
        webhooks: [(("ValidatingWebhookConfiguration".into(), "v".into()), [(name("hook"), 80)].into())].into(),
        ..Surroundings::default()
    }
}

fn facts() -> Facts {
    Facts {
        cluster_ranges: ["10.96.0.0/16", "10.244.0.0/16", "192.0.2.1/32"].map(|range| range.parse().unwrap()).into(),
        dns_addresses: vec!["10.96.0.10".parse().unwrap()],
        api_endpoints: [("192.0.2.1".parse().unwrap(), 6443)].into(),
        api_service: [("10.96.0.1".parse().unwrap(), 443)].into(),
        ..Facts::default()
    }
}

/// Ids of what an intent for the pods of the app `web` would break where nothing isolated them before.
fn broken(isolate: &[&str], ingress: Value, egress: Value) -> Vec<String> {
    broken_among(&facts(), isolate, ingress, egress)
}

fn broken_among(facts: &Facts, isolate: &[&str], ingress: Value, egress: Value) -> Vec<String> {
    let network = json!({"podSelector": {"matchLabels": {"app": "web"}}, "isolate": isolate, "ingress": ingress, "egress": egress});
    broken_by("shop", &network, (&population(), &surroundings(), facts))
}

/// Ids of what a policy `web` of a namespace would break.
fn broken_by(
    namespace: &str,
    network: &Value,
    (population, around, facts): (&Population, &Surroundings, &Facts),
) -> Vec<String> {
    let network: Network = serde_json::from_value(network.clone()).unwrap();
    let intent = Intent::try_from(&network).unwrap();
    let rendered = render(&intent, (namespace, "rampart-web"), &Cluster::of_facts(facts), (&[], &[])).unwrap();
    let added: Vec<Policy> = rendered.policies.iter().filter_map(understood).collect();
    let change = Change::new(&population.index, &[], &[], &added.iter().collect::<Vec<_>>());
    let found = breaks(&View {
        change: &change,
        population,
        selected: &intent.selected(&population.index, namespace),
        around,
        facts,
        policy: (namespace, "web"),
        allow_no_dns: network.allow_no_dns == Some(true),
    });
    found.into_iter().map(|it| it.id).collect()
}

fn rule(peer: Value, port: u16) -> Value {
    json!({"name": format!("p{port}"), "peers": [peer], "ports": [{"port": port}]})
}

#[test]
fn isolation_without_a_rule_breaks_everything_that_is_needed() {
    let all = [
        "IngressBlocked/shop/inner",
        "ScrapeBlocked/shop/web",
        "ServiceBlocked/shop/outer",
        "WebhookBlocked/shop/hook",
    ];
    assert_eq!(broken(&["Ingress"], json!([]), json!([])), all);
    assert_eq!(broken(&["Egress"], json!([]), json!([])), ["ApiServerBlocked/shop/caller", "DnsBlocked/shop/web"]);
}

#[rstest]
#[case(json!({"entity": "Webhooks"}), 8443, "WebhookBlocked")]
#[case(json!({"external": {"cidrs": ["203.0.113.0/24"]}}), 8000, "ServiceBlocked")]
#[case(json!({"pods": {"selector": {"matchLabels": {"app": "proxy"}}, "namespaces": ["edge"]}}), 8000, "IngressBlocked")]
#[case(json!({"pods": {"selector": {}, "namespaces": ["monitoring"]}}), 9100, "ScrapeBlocked")]
#[case(json!({"any": true}), 8443, "WebhookBlocked")]
fn what_a_rule_allows_is_not_broken(#[case] peer: Value, #[case] port: u16, #[case] mended: &str) {
    let left = broken(&["Ingress"], json!([rule(peer.clone(), port)]), json!([]));
    assert!(!left.iter().any(|id| id.starts_with(mended)), "{left:?}");
    // The same peer on a port that nobody needs mends nothing.
    let left = broken(&["Ingress"], json!([rule(peer, 1)]), json!([]));
    assert!(left.iter().any(|id| id.starts_with(mended)), "{left:?}");
}

#[rstest]
#[case(json!({"name": "x", "peers": [{"entity": "DNS"}]}), "ApiServerBlocked")]
#[case(json!({"name": "x", "peers": [{"entity": "APIServer"}]}), "DnsBlocked")]
fn entities_open_what_they_are_named_for(#[case] rule: Value, #[case] left: &str) {
    let found = broken(&["Egress"], json!([]), json!([rule]));
    assert!(found.len() == 1 && found[0].starts_with(left), "{found:?}");
}

#[rstest]
#[case(json!([]), &["DnsBlocked/kube-system/kube-dns"])]
#[case(json!([{"entity": "SameNamespace"}]), &["DnsBlocked/kube-system/kube-dns"])]
#[case(json!([{"pods": {"selector": {}, "namespaceSelector": {}}}]), &[])]
fn name_servers_must_be_reached_from_everywhere(#[case] peers: Value, #[case] broken: &[&str]) {
    let rules = if peers == json!([]) { json!([]) } else { json!([{"name": "dns", "peers": peers, "anyPort": true}]) };
    let network = json!({"podSelector": {}, "isolate": ["Ingress"], "ingress": rules, "allowNoDns": true});
    assert_eq!(broken_by("kube-system", &network, (&population(), &surroundings(), &facts())), broken);
}

#[rstest]
#[case(53, &["DnsBlocked/kube-system/kube-dns"])]
#[case(8053, &[])]
fn name_servers_must_be_reached_where_they_answer(#[case] port: u16, #[case] broken: &[&str]) {
    let facts = Facts { dns_ports: [8053].into(), ..facts() };
    let all = json!({"pods": {"selector": {}, "namespaceSelector": {}}});
    let rules = json!([{"name": "dns", "peers": [all], "ports": [{"port": port, "protocol": "UDP"}]}]);
    let network = json!({"podSelector": {}, "isolate": ["Ingress"], "ingress": rules, "allowNoDns": true});
    assert_eq!(broken_by("kube-system", &network, (&population(), &surroundings(), &facts)), broken);
    // Whoever asks: by `entity: DNS` on the right port.
    let asking = |egress: Value| broken_among(&facts, &["Egress"], json!([]), json!([egress]));
    let is_blocked = |found: &[String]| found.contains(&"DnsBlocked/shop/web".to_owned());
    assert!(!is_blocked(&asking(json!({"name": "dns", "peers": [{"entity": "DNS"}]}))));
    let by_hand = json!({"pods": {"selector": {}, "namespaces": ["kube-system"]}});
    let found = asking(json!({"name": "dns", "peers": [by_hand], "ports": [{"port": port, "protocol": "UDP"}]}));
    assert_eq!(is_blocked(&found), port == 53);
}

#[test]
fn what_is_callers_of_one_namespace_is_no_scrape() {
    let own = json!([rule(json!({"entity": "SameNamespace"}), 9100)]);
    assert!(broken(&["Ingress"], own, json!([])).contains(&"ScrapeBlocked/shop/web".to_owned()));
}

#[test]
fn who_was_named_is_the_one_who_must_get_through() {
    let named = |app: &str| {
        Some(
            format!(r#"{{"podSelector": {{"matchLabels": {{"app": "{app}"}}}}, "namespaceSelector": {{}}}}"#)
                .parse()
                .unwrap(),
        )
    };
    let from = |app: &str, port: u16| {
        rule(json!({"pods": {"selector": {"matchLabels": {"app": app}}, "namespaceSelector": {}}}), port)
    };
    let ingress = json!([from("p", 8000), from("proxy", 9100)]);
    let left = |facts: Facts| broken_among(&facts, &["Ingress"], ingress.clone(), json!([]));
    let right = left(Facts { ingress_controller: named("p"), monitoring: named("proxy"), ..facts() });
    assert!(!right.iter().any(|id| id.starts_with("Ingress") || id.starts_with("Scrape")), "{right:?}");
    let wrong = left(Facts { ingress_controller: named("proxy"), monitoring: named("p"), ..facts() });
    assert!(wrong.contains(&"IngressBlocked/shop/inner".to_owned()), "{wrong:?}");
    assert!(wrong.contains(&"ScrapeBlocked/shop/web".to_owned()), "{wrong:?}");
    // Where no pod is called so, whoever is known otherwise.
    let nobody =
        broken_among(&Facts { ingress_controller: named("nobody"), ..facts() }, &["Ingress"], json!([]), json!([]));
    assert!(nobody.contains(&"IngressBlocked/shop/inner".to_owned()), "{nobody:?}");
}

/// What lets a peer in to the pods of the app `web`, on one port.
fn letting_in(peer: Value, port: u16) -> Value {
    json!({"podSelector": {"matchLabels": {"app": "web"}}, "isolate": ["Ingress"], "ingress": [rule(peer, port)]})
}

#[rstest]
#[case(8080, &["IngressBlocked/shop/outer", "ServiceBlocked/shop/outer"])]
#[case(8443, &["ServiceBlocked/shop/outer"])]
fn each_port_that_is_led_to_must_be_reached(#[case] port: u16, #[case] left: &[&str]) {
    let outer = ("shop".to_owned(), "outer".to_owned());
    let ports = json!([{"name": "one", "port": 8080}, {"name": "other", "port": 8443}]);
    let service = json!({"spec": {"type": "LoadBalancer", "selector": {"app": "web"}, "ports": ports}});
    let backend = json!({"service": {"name": "outer", "port": {"name": "other"}}});
    let ingress = json!({"metadata": {"name": "site", "namespace": "shop"}, "spec": {"defaultBackend": backend}});
    let around = Surroundings {
        services: [(outer.clone(), Service::of(&serde_json::from_value(service).unwrap()).unwrap())].into(),
        ingresses: [(outer, backends(&serde_json::from_value(ingress).unwrap()))].into(),
        ..Surroundings::default()
    };
    let network = letting_in(json!({"external": {"cidrs": ["203.0.113.0/24"]}}), port);
    let found = broken_by("shop", &network, (&population(), &around, &facts()));
    assert_eq!(found.iter().filter(|id| !id.starts_with("Scrape")).collect::<Vec<_>>(), left);
}

#[test]
fn who_is_known_by_its_label_must_get_through() {
    let none = json!({});
    let named = |namespace: &str, name: &str| {
        resident(namespace, &json!({"app": namespace, "app.kubernetes.io/name": name}), &none, &none)
    };
    let scraped = json!({"prometheus.io/scrape": "true", "prometheus.io/port": "8000"});
    let pods = [
        resident("shop", &json!({"app": "web"}), &scraped, &none),
        named("edge", "ingress-nginx"),
        named("m1", "prometheus"),
        named("m2", "prometheus"),
    ];
    let population = Population::new(vec![], pods.into_iter());
    let left = |namespaces: &[&str]| {
        let network = letting_in(json!({"pods": {"selector": {}, "namespaces": namespaces}}), 8000);
        let found = broken_by("shop", &network, (&population, &surroundings(), &facts()));
        let of = |reason: &str| found.iter().any(|id| id.starts_with(reason));
        (of("Ingress"), of("Scrape"))
    };
    assert_eq!(left(&["m1"]), (true, true), "another Prometheus, and no Ingress controller");
    assert_eq!(left(&["m1", "m2"]), (true, false));
    assert_eq!(left(&["edge"]), (false, true));
}

#[rstest]
#[case::of_its_own("shop", "p", &["ScrapeBlocked/shop/web"], &["ScrapeBlocked/shop/web"])]
#[case::where_the_readers_run("monitoring", "p", &["ScrapeUncertain/shop/web"], &["ScrapeBlocked/shop/web"])]
#[case::anybodys("books", "p", &["ScrapeUncertain/shop/web"], &[])]
#[case::no_readers_run("monitoring", "nobody", &["ScrapeUncertain/shop/web"], &[])]
fn a_monitor_is_in_the_way_where_the_administrator_or_the_namespace_itself_has_it(
    #[case] of: &str,
    #[case] readers: &str,
    #[case] unnamed: &[&str],
    #[case] named: &[&str],
) {
    let spec =
        json!({"selector": {}, "namespaceSelector": {"any": true}, "podMetricsEndpoints": [{"portNumber": 9187}]});
    let monitor = Monitor::of_pods(of, &serde_json::from_value(spec).unwrap()).unwrap();
    let around = Surroundings {
        monitors: [(("PodMonitor", (of.to_owned(), "it".to_owned())), monitor)].into(),
        ..Surroundings::default()
    };
    let none = json!({});
    let pods = [
        resident("shop", &json!({"app": "web"}), &none, &none),
        resident("books", &json!({"app": "b"}), &none, &none),
        resident("monitoring", &json!({"app": "p", "app.kubernetes.io/name": "prometheus"}), &none, &none),
    ];
    let population = Population::new(vec![], pods.into_iter());
    let network = letting_in(json!({"pods": {"selector": {}, "namespaces": ["monitoring"]}}), 1);
    let found = |facts: &Facts| broken_by("shop", &network, (&population, &around, facts));
    assert_eq!(found(&facts()), unnamed);
    let monitoring =
        format!(r#"{{"podSelector": {{"matchLabels": {{"app": "{readers}"}}}}, "namespaceSelector": {{}}}}"#);
    assert_eq!(found(&Facts { monitoring: Some(monitoring.parse().unwrap()), ..facts() }), named);
}

#[rstest]
#[case::on_a_node("cilium", "192.0.2.1", true)]
#[case::elsewhere("cilium", "192.0.2.9", false)]
#[case::of_another_plug_in("calico-node", "192.0.2.1", false)]
fn rules_about_an_api_server_on_a_node_may_be_without_effect(
    #[case] agent: &str,
    #[case] address: &str,
    #[case] is_uncertain: bool,
) {
    let metadata = json!({"namespace": "kube-system", "name": "agent", "labels": {"k8s-app": agent}});
    let agent = json!({"spec": {"hostNetwork": true}, "status": {"podIP": address}});
    let agent = Resident::of(&serde_json::from_value(metadata).unwrap(), &agent).unwrap();
    let web = json!({"serviceAccountName": "caller"});
    let web = resident("shop", &json!({"app": "web"}), &json!({}), &web);
    let population = Population::new(vec![], [web, agent].into_iter());
    let broken = |isolate: &str, rules: &str, rule: Value| {
        let network = json!({"podSelector": {}, "isolate": [isolate], "allowNoDns": true, rules: [rule]});
        let found = broken_by("shop", &network, (&population, &surroundings(), &facts()));
        found.into_iter().filter(|id| id.contains("Uncertain")).collect::<Vec<_>>()
    };
    let wanted = |id: &str| if is_uncertain { vec![id.to_owned()] } else { vec![] };
    let out = broken("Egress", "egress", json!({"name": "api", "peers": [{"entity": "APIServer"}]}));
    assert_eq!(out, wanted("ApiServerUncertain/shop/caller"));
    let webhooks = rule(json!({"entity": "Webhooks"}), 8443);
    assert_eq!(broken("Ingress", "ingress", webhooks), wanted("WebhookUncertain/shop/hook"));
}
