//! Random SecurityPolicies about the pods that there are: every kind of peer, every form of port.

use rampart_e2e::node::network::OUTSIDE;
use rand::{
    RngExt as _,
    rngs::StdRng,
    seq::{IndexedRandom as _, IteratorRandom as _},
};
use serde_json::{Map, Value, json};

use crate::world::NAMESPACES;

/// An intent in a random namespace.
pub(crate) fn random(rng: &mut StdRng, name: &str) -> Value {
    let isolate: &[&str] = [&["Ingress"][..], &["Egress"], &["Ingress", "Egress"], &["Ingress", "Egress"]]
        .choose(rng)
        .copied()
        .unwrap_or(&[]);
    let mut network = json!({
        "mode": "Enforce", "podSelector": selector(rng), "isolate": isolate,
        "reciprocal": if rng.random_bool(0.6) { "Generate" } else { "Report" },
    });
    for direction in isolate {
        let rules = (0..rng.random_range(0..4)).map(|nth| rule(rng, direction, &format!("rule-{nth}"))).collect();
        network[direction.to_lowercase()] = Value::Array(rules);
    }
    if isolate.contains(&"Egress") {
        network["allowNoDns"] = json!(true);
    }
    json!({
        "apiVersion": "rampart.dev/v1alpha1", "kind": "SecurityPolicy",
        "metadata": {"name": name, "namespace": namespace(rng)}, "spec": {"network": network},
    })
}

fn namespace(rng: &mut StdRng) -> &'static str {
    NAMESPACES.choose(rng).map_or("x", |(name, _)| name)
}

fn selector(rng: &mut StdRng) -> Value {
    let mut made = Map::new();
    if rng.random_bool(0.5) {
        let (key, value) =
            [("a", "one"), ("a", "two"), ("b", "one"), ("c", "one")].choose(rng).copied().unwrap_or_default();
        made.insert("matchLabels".into(), json!({key: value}));
    }
    if rng.random_bool(0.3) {
        let key = ["a", "b", "c"].choose(rng).copied().unwrap_or("a");
        let expression = match rng.random_range(0..4) {
            0 => json!({"key": key, "operator": "In", "values": ["one"]}),
            1 => json!({"key": key, "operator": "NotIn", "values": ["two", "three"]}),
            2 => json!({"key": key, "operator": "Exists"}),
            _ => json!({"key": key, "operator": "DoesNotExist"}),
        };
        made.insert("matchExpressions".into(), json!([expression]));
    }
    made.into()
}

fn rule(rng: &mut StdRng, direction: &str, name: &str) -> Value {
    let peers: Vec<Value> = (0..rng.random_range(1..4)).map(|_| peer(rng, direction)).collect();
    let brings = |peer: &Value| !peer["service"].is_null() || peer["entity"] == "DNS" || peer["entity"] == "APIServer";
    let mut rule = json!({"name": name, "peers": peers});
    if direction == "Egress" && peers.iter().all(brings) && rng.random_bool(0.7) {
        return rule;
    }
    if rng.random_bool(0.25) {
        rule["anyPort"] = json!(true);
        return rule;
    }
    rule["ports"] = (0..rng.random_range(1..4)).map(|_| port(rng)).collect();
    rule
}

fn peer(rng: &mut StdRng, direction: &str) -> Value {
    let entities: &[&str] = if direction == "Egress" {
        &["SameNamespace", "DNS", "APIServer"]
    } else {
        &["SameNamespace", "Monitoring", "Webhooks"]
    };
    match rng.random_range(0..12) {
        0..5 => json!({"pods": pods(rng)}),
        5..7 => {
            let name = ["front", "back"].choose(rng);
            let mut service = json!({"name": name});
            if rng.random_bool(0.5) {
                service["namespace"] = json!(namespace(rng));
            }
            json!({"service": service})
        }
        7..9 => json!({"external": external(rng)}),
        9..11 => {
            let entity = entities.choose(rng);
            json!({"entity": entity})
        }
        _ => json!({"any": true}),
    }
}

fn pods(rng: &mut StdRng) -> Value {
    let mut pods = json!({"selector": selector(rng)});
    match rng.random_range(0..4) {
        0 => {
            let count = rng.random_range(1..3);
            let mut names: Vec<&str> = NAMESPACES.iter().map(|(name, _)| *name).sample(rng, count);
            names.sort_unstable();
            pods["namespaces"] = json!(names);
        }
        1 => {
            let selectors = [
                json!({}),
                json!({"matchLabels": {"team": "one"}}),
                json!({"matchExpressions": [{"key": "team", "operator": "NotIn", "values": ["one"]}]}),
                json!({"matchExpressions": [{"key": "team", "operator": "Exists"}]}),
            ];
            pods["namespaceSelector"] = selectors.choose(rng).cloned().unwrap_or_default();
        }
        _ => {}
    }
    pods
}

/// Ranges with and without what is outside here; the cluster's own are always left out.
fn external(rng: &mut StdRng) -> Value {
    let [first, second] = OUTSIDE;
    let all = [
        json!({"cidrs": ["0.0.0.0/0"]}),
        json!({"cidrs": ["0.0.0.0/0"], "except": [format!("{first}/32")]}),
        json!({"cidrs": ["198.18.0.0/15"], "except": ["198.19.0.0/16"]}),
        json!({"cidrs": [format!("{second}/32"), "203.0.113.0/24"]}),
        json!({"cidrs": ["10.0.0.0/8"]}),
    ];
    all.choose(rng).cloned().unwrap_or_default()
}

fn port(rng: &mut StdRng) -> Value {
    let all = [
        json!({"port": 80}),
        json!({"port": 443}),
        json!({"port": 8080}),
        json!({"port": 8080, "protocol": "UDP"}),
        json!({"port": 53, "protocol": "UDP"}),
        json!({"port": 53, "protocol": "TCP"}),
        json!({"port": 80, "endPort": 443}),
        json!({"port": 81, "endPort": 9000}),
        json!({"port": 1, "endPort": 1024, "protocol": "UDP"}),
        json!({"port": "http"}),
        json!({"port": "https"}),
        json!({"port": "dns", "protocol": "UDP"}),
        json!({"port": "web"}),
    ];
    all.choose(rng).cloned().unwrap_or_default()
}
