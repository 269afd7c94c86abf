//! The sample intent, said right: it lets through exactly what it should.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::{collections::BTreeSet, net::IpAddr};

use k8s_openapi::api::networking::v1::NetworkPolicy;
use rampart::{
    api::Network,
    network::{Cluster, Facts, Intent, render, understood},
};
use rampart_reach::{Analysis, End, Index, IpBlocks, Pod, Policy, Protocol};
use serde_json::{Value, json};

const OWN: &str = "ai-marketing-platform";
/// The application, its callers and servers, somebody else of the namespace, of another one, and the name servers.
const PODS: [(&str, &str); 7] = [
    (OWN, OWN),
    (OWN, "frontend"),
    (OWN, "postgres"),
    (OWN, "redis"),
    (OWN, "job"),
    ("other", "frontend"),
    ("kube-system", "kube-dns"),
];
/// Inside of 10.0.0.0/8, a pod's and a Service's address, the internet, and where clouds keep credentials.
const ADDRESSES: [&str; 5] = ["10.1.2.3", "10.244.0.9", "10.96.0.7", "198.51.100.1", "169.254.169.254"];
const PORTS: [u16; 7] = [53, 80, 443, 5432, 6379, 8000, 8080];

fn intent() -> Intent {
    let app = |app: &str| json!({"pods": {"selector": {"matchLabels": {"app": app}}}});
    let network = json!({
        "mode": "Enforce", "podSelector": {"matchLabels": {"app": OWN}}, "isolate": ["Ingress", "Egress"],
        "ingress": [{"name": "web", "ports": [{"port": 8000}],
            "peers": [{"entity": "SameNamespace"}, app("frontend"), {"external": {"cidrs": ["10.0.0.0/8"]}}]}],
        "egress": [
            {"name": "pg", "peers": [app("postgres")], "ports": [{"port": 5432}]},
            {"name": "cache", "peers": [app("redis")], "ports": [{"port": 6379}]},
            {"name": "out", "peers": [{"external": {"cidrs": ["0.0.0.0/0"]}}], "ports": [{"port": 443}, {"port": 80}]},
            {"name": "dns", "peers": [{"entity": "DNS"}]},
        ],
        "reciprocal": "Generate",
    });
    Intent::try_from(&serde_json::from_value::<Network>(network).unwrap()).unwrap()
}

/// A server takes nobody by itself.
fn deny(app: &str) -> NetworkPolicy {
    let spec = json!({"podSelector": {"matchLabels": {"app": app}}, "policyTypes": ["Ingress"]});
    serde_json::from_value(json!({"metadata": {"name": app, "namespace": OWN}, "spec": spec})).unwrap()
}

fn pod((namespace, app): &(&str, &str)) -> Pod {
    let label = if *app == "kube-dns" { "k8s-app" } else { "app" };
    let pod: Value = json!({"namespace": namespace, "name": app, "labels": {(label): app}});
    serde_json::from_value(pod).unwrap()
}

/// What is allowed of all connections that begin or end at the application or at its servers.
fn allowed() -> BTreeSet<(String, String, String)> {
    let facts = Facts {
        cluster_ranges: ["10.96.0.0/16", "10.244.0.0/16"].map(|range| range.parse().unwrap()).into(),
        ..Facts::default()
    };
    let own = ["postgres", "redis"].map(deny);
    let others: Vec<&NetworkPolicy> = own.iter().collect();
    let rendered = render(&intent(), (OWN, "rampart-web"), &Cluster::of_facts(&facts), (&others, &[])).unwrap();
    let policies: Vec<Policy> = rendered.policies.iter().chain(own.iter()).filter_map(understood).collect();
    let index = Index::new(&[], PODS.iter().map(pod).collect(), IpBlocks::External);
    let analysis = Analysis::new(&index, &policies);
    let pods = PODS.iter().enumerate().map(|(place, (namespace, app))| (format!("{namespace}/{app}"), End::Pod(place)));
    let outside = ADDRESSES.iter().map(|it| ((*it).to_owned(), End::Address(it.parse::<IpAddr>().unwrap())));
    let ends: Vec<(String, End)> = pods.chain(outside).collect();
    let is_meant = |end: &End| matches!(end, End::Pod(0 | 2 | 3));
    let mut found = BTreeSet::new();
    for (from, one) in &ends {
        for (to, other) in ends.iter().filter(|(_, other)| other != one && (is_meant(one) || is_meant(other))) {
            let ports = [Protocol::TCP, Protocol::UDP].into_iter().flat_map(|it| PORTS.map(|port| (it, port)));
            let open = ports.filter(|port| analysis.verdict(*one, *other, *port).allowed);
            found.extend(open.map(|(protocol, port)| (from.clone(), to.clone(), format!("{port}/{protocol}"))));
        }
    }
    found
}

#[test]
fn exactly_what_it_should_is_let_through() {
    let web = format!("{OWN}/{OWN}");
    let of = |app: &str| format!("{OWN}/{app}");
    let mut wanted = BTreeSet::new();
    let mut allow =
        |from: &str, to: &str, port: &str| wanted.extend([(from.to_owned(), to.to_owned(), port.to_owned())]);
    for caller in ["frontend", "postgres", "redis", "job"] {
        allow(&of(caller), &web, "8000/TCP");
    }
    allow("10.1.2.3", &web, "8000/TCP");
    allow(&web, &of("postgres"), "5432/TCP");
    allow(&web, &of("redis"), "6379/TCP");
    for port in ["80/TCP", "443/TCP"] {
        allow(&web, "198.51.100.1", port);
        allow(&web, "10.1.2.3", port);
    }
    for port in ["53/TCP", "53/UDP"] {
        allow(&web, "kube-system/kube-dns", port);
    }
    // What the servers themselves call is nobody's business here.
    let is_theirs = |(from, to, _): &(String, String, String)| {
        [of("postgres"), of("redis")].contains(from) && *to != web && ![of("postgres"), of("redis")].contains(to)
    };
    let found: BTreeSet<_> = allowed().into_iter().filter(|it| !is_theirs(it)).collect();
    assert_eq!(found, wanted);
}
