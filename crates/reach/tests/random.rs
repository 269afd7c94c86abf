//! Random policies on random pods: every connection as a few lines that read the JSON by the documentation of
//! `networking.k8s.io/v1` decide it, both ways to read an `ipBlock`, one by one and as sets.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::print_stdout,
    reason = "tests"
)]

use std::net::IpAddr;

use ipnet::IpNet;
use rampart_reach::{
    Analysis, Change, Direction, End, Index, IpBlocks, Namespace, Place, Pod, Policy, PortRange, Protocol, Totals,
};
use rand::{Rng, RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use serde_json::{Value, json};

const WORLDS: usize = 200;
const PORTS: [u16; 6] = [79, 80, 81, 90, 8080, 65535];
const OUTSIDE: [&str; 4] = ["8.8.8.8", "10.1.0.1", "10.1.200.1", "2001:db8::1"];

fn pick<'a, T>(rng: &mut StdRng, from: &'a [T]) -> &'a T {
    from.choose(rng).unwrap()
}

fn labels(rng: &mut StdRng) -> Value {
    let mut labels = json!({});
    for key in ["a", "b"] {
        if rng.random_bool(0.7) {
            labels[key] = json!(pick(rng, &["1", "2", ""]));
        }
    }
    labels
}

fn selector(rng: &mut StdRng) -> Value {
    let mut selector = json!({});
    if rng.random_bool(0.5) {
        selector["matchLabels"] = labels(rng);
    }
    if rng.random_bool(0.4) {
        let mut expression = json!({"key": pick(rng, &["a", "b", "c", "kubernetes.io/metadata.name"]), "operator": pick(rng, &["In", "NotIn", "Exists", "DoesNotExist"])});
        if expression["operator"].as_str().unwrap().ends_with("In") {
            expression["values"] = json!([pick(rng, &["1", "2", "x"]), pick(rng, &["1", "", "3", "y"])]);
        }
        selector["matchExpressions"] = json!([expression]);
    }
    selector
}

fn peer(rng: &mut StdRng) -> Value {
    if rng.random_bool(0.3) {
        let (cidr, except) = *pick(
            rng,
            &[
                ("0.0.0.0/0", &["10.0.0.0/8"][..]),
                ("10.0.0.0/8", &["10.1.128.0/17", "10.0.0.3/32"]),
                ("10.0.0.2/32", &[]),
                ("10.1.0.0/16", &[]),
                ("::/0", &["2001:db8::/64"]),
                ("2001:db8::/32", &[]),
                ("0.0.0.0/0", &[]),
            ],
        );
        return json!({"ipBlock": {"cidr": cidr, "except": except}});
    }
    let mut peer = json!({});
    let which = rng.random_range(0..3);
    if which != 0 {
        peer["podSelector"] = selector(rng);
    }
    if which != 1 {
        peer["namespaceSelector"] = selector(rng);
    }
    peer
}

fn port(rng: &mut StdRng) -> Value {
    let mut port = json!({});
    if rng.random_bool(0.6) {
        port["protocol"] = json!(pick(rng, &["TCP", "UDP", "SCTP"]));
    }
    match rng.random_range(0..4) {
        0 => {}
        1 => port["port"] = json!(pick(rng, &["http", "dns", "nobody"])),
        2 => port["port"] = json!(pick(rng, &PORTS)),
        _ => {
            port["port"] = json!(80);
            port["endPort"] = json!(pick(rng, &[80, 85, 8080]));
        }
    }
    port
}

fn some(rng: &mut StdRng, make: fn(&mut StdRng) -> Value) -> Value {
    match rng.random_range(0..5) {
        0 => Value::Null,
        count => (1..count).map(|_| make(rng)).collect(),
    }
}

fn policy(rng: &mut StdRng, number: usize) -> Value {
    let rules = |rng: &mut StdRng, peers: &str| -> Value {
        (0..rng.random_range(0..3)).map(|_| json!({peers: some(rng, peer), "ports": some(rng, port)})).collect()
    };
    let mut spec = json!({"podSelector": selector(rng)});
    if rng.random_bool(0.7) {
        spec["ingress"] = rules(rng, "from");
    }
    if rng.random_bool(0.7) {
        spec["egress"] = rules(rng, "to");
    }
    if rng.random_bool(0.8) {
        spec["policyTypes"] = pick(rng, &[json!(["Ingress"]), json!(["Egress"]), json!(["Egress", "Ingress"])]).clone();
    }
    json!({"metadata": {"namespace": pick(rng, &["x", "y"]), "name": format!("p{number}")}, "spec": spec})
}

fn pod(rng: &mut StdRng, number: usize) -> Value {
    let ports = [
        json!([]),
        json!([{"name": "http", "port": 80, "protocol": "TCP"}]),
        json!([{"name": "http", "port": 8080, "protocol": "TCP"}, {"name": "dns", "port": 80, "protocol": "UDP"}]),
    ];
    json!({"namespace": pick(rng, &["x", "y", "z"]), "name": format!("pod-{number}"), "labels": labels(rng),
           "ips": [format!("10.0.0.{number}"), format!("2001:db8::{number}")], "ports": pick(rng, &ports),
           "hostNetwork": rng.random_bool(0.1)})
}

struct World {
    namespaces: Vec<Value>,
    pods: Vec<Value>,
    policies: Vec<Value>,
    ip_blocks: IpBlocks,
}

/// A pod or an address.
#[derive(Clone, Copy)]
enum Side<'w> {
    Pod(&'w Value),
    Address(&'w str),
}

impl World {
    fn random(rng: &mut StdRng) -> Self {
        let namespaces = ["x", "y"].map(|name| {
            let mut labels = labels(rng);
            if rng.random_bool(0.2) {
                // The API server would have set it right.
                labels["kubernetes.io/metadata.name"] = json!("y");
            }
            json!({"name": name, "labels": labels})
        });
        let namespaces = namespaces.into();
        let pods = (1..=rng.random_range(2..8)).map(|number| pod(rng, number)).collect();
        let policies = (0..rng.random_range(0..6)).map(|number| policy(rng, number)).collect();
        let ip_blocks = *pick(rng, &[IpBlocks::External, IpBlocks::Pods]);
        Self { namespaces, pods, policies, ip_blocks }
    }

    fn selects(selector: &Value, labels: &Value) -> bool {
        let given = selector["matchLabels"].as_object().into_iter().flatten();
        given.into_iter().all(|(key, value)| labels.get(key) == Some(value))
            && selector["matchExpressions"].as_array().into_iter().flatten().all(|it| {
                let value = labels.get(it["key"].as_str().unwrap());
                let listed = value.is_some_and(|value| it["values"].as_array().is_some_and(|all| all.contains(value)));
                match it["operator"].as_str().unwrap() {
                    "In" => listed,
                    "NotIn" => !listed,
                    "Exists" => value.is_some(),
                    _ => value.is_none(),
                }
            })
    }

    fn is_peer(&self, peer: &Value, policy: &Value, other: Side<'_>) -> bool {
        if let Some(block) = peer.get("ipBlock") {
            let held = |address: &str| {
                let address: IpAddr = address.parse().unwrap();
                let inside = |text: &Value| text.as_str().unwrap().parse::<IpNet>().unwrap().contains(&address);
                inside(&block["cidr"]) && !block["except"].as_array().unwrap().iter().any(inside)
            };
            return match other {
                Side::Address(address) => held(address),
                Side::Pod(pod) => {
                    (self.ip_blocks == IpBlocks::Pods || pod["hostNetwork"] == true)
                        && pod["ips"].as_array().unwrap().iter().any(|ip| held(ip.as_str().unwrap()))
                }
            };
        }
        let Side::Pod(pod) = other else { return false };
        if pod["hostNetwork"] == true {
            return false;
        }
        let name = &pod["namespace"];
        let in_namespace = match peer.get("namespaceSelector") {
            None => *name == policy["metadata"]["namespace"],
            Some(selector) => {
                let known = self.namespaces.iter().find(|it| it["name"] == *name);
                let mut labels = known.map_or_else(|| json!({}), |it| it["labels"].clone());
                labels["kubernetes.io/metadata.name"] = name.clone();
                Self::selects(selector, &labels)
            }
        };
        in_namespace && peer.get("podSelector").is_none_or(|it| Self::selects(it, &pod["labels"]))
    }

    fn is_port(listed: &Value, destination: Side<'_>, protocol: Protocol, port: u16) -> bool {
        let of = listed["protocol"].as_str().unwrap_or("TCP");
        of == protocol.to_string()
            && match (&listed["port"], destination) {
                (Value::Null, _) => true,
                (Value::String(name), Side::Pod(pod)) => pod["ports"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .any(|it| it["name"] == **name && it["port"] == port && it["protocol"] == protocol.to_string()),
                (Value::String(_), Side::Address(_)) => false,
                (first, _) => {
                    let last = listed.get("endPort").unwrap_or(first).as_u64().unwrap();
                    (first.as_u64().unwrap()..=last).contains(&port.into())
                }
            }
    }

    /// Whether one side of a connection allows it.
    fn side(&self, direction: Direction, end: Side<'_>, other: Side<'_>, (protocol, port): (Protocol, u16)) -> bool {
        let Side::Pod(pod) = end else { return true };
        let (kind, rules, peers) = match direction {
            Direction::Ingress => ("Ingress", "ingress", "from"),
            Direction::Egress => ("Egress", "egress", "to"),
        };
        let destination = if direction == Direction::Ingress { end } else { other };
        let about = self.policies.iter().filter(|policy| {
            let spec = &policy["spec"];
            let has_egress = spec["egress"].as_array().is_some_and(|rules| !rules.is_empty());
            let typed = match spec.get("policyTypes").and_then(Value::as_array) {
                Some(types) => types.iter().any(|it| it == kind),
                None => direction == Direction::Ingress || has_egress,
            };
            typed
                && policy["metadata"]["namespace"] == pod["namespace"]
                && pod["hostNetwork"] != true
                && Self::selects(&spec["podSelector"], &pod["labels"])
        });
        let mut isolated = false;
        for policy in about {
            isolated = true;
            for rule in policy["spec"][rules].as_array().into_iter().flatten() {
                let peer_is = rule[peers]
                    .as_array()
                    .is_none_or(|list| list.is_empty() || list.iter().any(|it| self.is_peer(it, policy, other)));
                let port_is = rule["ports"].as_array().is_none_or(|list| {
                    list.is_empty() || list.iter().any(|it| Self::is_port(it, destination, protocol, port))
                });
                if peer_is && port_is {
                    return true;
                }
            }
        }
        !isolated
    }

    fn allowed(&self, from: Side<'_>, to: Side<'_>, port: (Protocol, u16)) -> bool {
        let itself = matches!((from, to), (Side::Pod(from), Side::Pod(to)) if from["name"] == to["name"]);
        itself || (self.side(Direction::Egress, from, to, port) && self.side(Direction::Ingress, to, from, port))
    }

    fn ends(&self) -> Vec<(End, Side<'_>)> {
        let pods = self.pods.iter().enumerate().map(|(place, pod)| (End::Pod(place), Side::Pod(pod)));
        pods.chain(OUTSIDE.iter().map(|it| (End::Address(it.parse().unwrap()), Side::Address(it)))).collect()
    }
}

#[expect(clippy::disallowed_methods, reason = "a seed to repeat a run with")]
fn seed() -> u64 {
    let given = std::env::var("RAMPART_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| rand::rng().next_u64());
    println!("RAMPART_SEED={seed}");
    seed
}

#[test]
fn every_connection_is_decided_as_documented() {
    let mut rng = StdRng::seed_from_u64(seed());
    let (mut allowed, mut denied) = (0, 0);
    for _ in 0..WORLDS {
        let world = World::random(&mut rng);
        let namespaces: Vec<Namespace> =
            world.namespaces.iter().map(|it| serde_json::from_value(it.clone()).unwrap()).collect();
        let pods: Vec<Pod> = world.pods.iter().map(|it| serde_json::from_value(it.clone()).unwrap()).collect();
        let policies: Vec<Policy> =
            world.policies.iter().map(|it| serde_json::from_value(it.clone()).unwrap()).collect();
        let index = Index::new(&namespaces, pods, world.ip_blocks);
        let analysis = Analysis::new(&index, &policies);
        for (from, from_side) in world.ends() {
            for (to, to_side) in world.ends() {
                for protocol in Protocol::ALL {
                    for port in PORTS {
                        let wanted = world.allowed(from_side, to_side, (protocol, port));
                        let verdict = analysis.verdict(from, to, (protocol, port));
                        let told = || {
                            format!(
                                "{from:?} to {to:?} {protocol} {port}, {:?}\n{}\n{}",
                                world.ip_blocks,
                                json!(world.pods),
                                json!(world.policies)
                            )
                        };
                        assert_eq!(verdict.allowed, wanted, "{}", told());
                        assert_eq!(as_sets(&analysis, from, to, (protocol, port)), wanted, "as sets: {}", told());
                        *(if wanted { &mut allowed } else { &mut denied }) += 1;
                        // Who denies is there, and who allows is a rule.
                        assert!(wanted || !verdict.by.is_empty());
                        assert!(verdict.by.iter().all(|by| by.rule.is_some() == wanted));
                    }
                }
            }
        }
    }
    println!("{allowed} allowed, {denied} denied");
    assert!(denied > 1000 && allowed > 1000, "{allowed} allowed, {denied} denied: the worlds are one-sided");
}

#[test]
fn what_a_change_changes_is_what_differs_pair_by_pair() {
    let mut rng = StdRng::seed_from_u64(seed());
    let (mut lost, mut gained) = (0, 0);
    for _ in 0..WORLDS {
        let world = World::random(&mut rng);
        let read = |it: &Value| serde_json::from_value::<Policy>(it.clone()).unwrap();
        let before: Vec<Policy> = world.policies.iter().map(read).collect();
        let added = read(&policy(&mut rng, 99));
        let mut after = before.clone();
        let removed = if after.is_empty() { None } else { Some(after.remove(0)) };
        after.push(added.clone());
        let namespaces: Vec<Namespace> =
            world.namespaces.iter().map(|it| serde_json::from_value(it.clone()).unwrap()).collect();
        let pods: Vec<Pod> = world.pods.iter().map(|it| serde_json::from_value(it.clone()).unwrap()).collect();
        let index = Index::new(&namespaces, pods, world.ip_blocks);
        let [was, is] = [&before, &after].map(|all| Analysis::new(&index, all));
        let kept: Vec<&Policy> = before.iter().skip(1).collect();
        let removed: Vec<&Policy> = removed.iter().collect();
        let change = Change::new(&index, &kept, &removed, &[&added]);
        let difference = change.difference();
        // Where either cuts.
        let both = before.iter().chain(&after).cloned().collect::<Vec<_>>();
        let both = Analysis::new(&index, &both);
        let cuts = both.cuts();
        let ends: Vec<End> = (0..index.pods().len())
            .map(End::Pod)
            .chain(cuts.addresses().iter().map(|range| End::Address(range.first)))
            .collect();
        let is_about = |end: &End, isolates: fn(&Policy) -> bool| {
            let End::Pod(place) = end else { return false };
            let pod = &index.pods()[*place];
            let selects = |it: &Policy| it.namespace == pod.namespace && it.pods.matches(&pod.labels) && isolates(it);
            !pod.host_network && removed.iter().copied().chain([&added]).any(selects)
        };
        let (mut denied, mut allowed, mut unchanged) = (0, 0, 0);
        for from in &ends {
            for to in &ends {
                let on = |analysis: &Analysis<'_>, port: &PortRange| {
                    analysis.verdict(*from, *to, (port.protocol, port.first)).allowed
                };
                for port in cuts.ports() {
                    let asked = (*from, *to, (port.protocol, port.first));
                    let told =
                        (change.was_allowed(asked.0, asked.1, asked.2), change.verdict(asked.0, asked.1, asked.2));
                    assert_eq!((told.0, told.1.allowed), (on(&was, port), on(&is, port)), "{asked:?}");
                }
                denied += u64::from(cuts.ports().iter().any(|port| on(&was, port) && !on(&is, port)));
                allowed += u64::from(cuts.ports().iter().any(|port| !on(&was, port) && on(&is, port)));
                let concerned = is_about(to, |it| it.ingress.is_some()) || is_about(from, |it| it.egress.is_some());
                let same = cuts.ports().iter().all(|port| on(&was, port) == on(&is, port));
                let talks = cuts.ports().iter().any(|port| on(&is, port));
                unchanged += u64::from(from != to && concerned && same && talks);
            }
        }
        assert_eq!(
            (difference.newly_denied.pairs, difference.newly_allowed.pairs, difference.unchanged),
            (denied, allowed, unchanged),
            "{before:#?}\n{after:#?}"
        );
        for (flows, analysis, other) in [(&difference.newly_denied, &was, &is), (&difference.newly_allowed, &is, &was)]
        {
            assert_eq!(flows.pairs == 0, flows.samples.is_empty());
            for flow in &flows.samples {
                let [from, to] = [flow.from, flow.to].map(|place| match place {
                    Place::Pod(pod) => End::Pod(pod),
                    Place::Addresses(range) => End::Address(range.first),
                });
                for port in &flow.ports {
                    let on = (port.protocol, port.first);
                    assert!(analysis.verdict(from, to, on).allowed && !other.verdict(from, to, on).allowed, "{flow:?}");
                }
            }
        }
        totals_are_those_of_the_pairs(&is);
        (lost, gained) = (lost + denied, gained + allowed);
    }
    assert!(lost > 100 && gained > 100, "{lost} newly denied, {gained} newly allowed");
}

fn totals_are_those_of_the_pairs(analysis: &Analysis<'_>) {
    let pods = analysis.index().pods().len();
    let pairs = (0..pods).flat_map(|from| (0..pods).filter(move |to| from != *to).map(move |to| (from, to)));
    let mut totals = Totals::default();
    for (from, to) in pairs {
        let on = |port: &PortRange| analysis.verdict(End::Pod(from), End::Pod(to), (port.protocol, port.first)).allowed;
        totals.pairs += 1;
        totals.reachable += u64::from(analysis.cuts().ports().iter().any(on));
        totals.open += u64::from(analysis.cuts().ports().iter().all(on));
    }
    assert_eq!(analysis.totals(), totals);
}

/// The same by [`Analysis::reach`], from both ends.
fn as_sets(analysis: &Analysis<'_>, from: End, to: End, (protocol, port): (Protocol, u16)) -> bool {
    let place = |end| match end {
        End::Pod(pod) => analysis.index().class_of(pod).unwrap(),
        End::Address(address) => {
            let held = |it: &rampart_reach::AddressRange| {
                it.first.is_ipv4() == address.is_ipv4() && (it.first..=it.last).contains(&address)
            };
            analysis.index().classes().len() + analysis.cuts().addresses().iter().position(held).unwrap()
        }
    };
    let port =
        analysis.cuts().ports().iter().position(|it| it.protocol == protocol && (it.first..=it.last).contains(&port));
    let port = port.unwrap();
    let one = |end, other, direction| {
        let parts = analysis.reach(end, direction);
        let holding: Vec<_> = parts.iter().filter(|part| part.ports.contains(port)).collect();
        assert_eq!(holding.len(), 1, "the parts are apart");
        holding[0].ends.contains(other)
    };
    let (sources, targets) =
        (one(place(to), place(from), Direction::Ingress), one(place(from), place(to), Direction::Egress));
    assert_eq!(sources, targets, "seen from both ends");
    sources || from == to
}
