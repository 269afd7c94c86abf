use serde_json::{Value, json};

use super::*;

fn ranges(gathered: &Gathered, given: &[&str]) -> Vec<String> {
    let cluster_ranges = given.iter().map(|range| range.parse().unwrap()).collect();
    let facts = gathered.facts(&Facts { cluster_ranges, ..Facts::default() });
    facts.cluster_ranges.iter().map(ToString::to_string).collect()
}

fn said(range: &str) -> Said {
    Said { ranges: vec![range.parse().unwrap()], ..Said::default() }
}

fn node(range: Option<&str>, ready: Option<&str>) -> Said {
    let conditions: Vec<Value> = ready.iter().map(|it| json!({"type": "Ready", "status": it})).collect();
    let node = json!({"spec": {"podCIDR": range}, "status": {"conditions": conditions}});
    of_node(&serde_json::from_value(node).unwrap())
}

#[test]
fn ranges_are_unknown_until_every_node_and_the_services_are_read() {
    let mut gathered = Gathered::default();
    assert!(ranges(&gathered, &[]).is_empty());
    gathered.by_object.insert((NODE, "a".into()), node(Some("10.244.0.0/24"), Some("True")));
    assert!(ranges(&gathered, &[]).is_empty(), "services are missing");
    gathered.by_object.insert((SERVICE_CIDR, "s".into()), said("10.96.0.0/16"));
    assert_eq!(ranges(&gathered, &[]), ["10.96.0.0/16", "10.244.0.0/24"]);
    for ready in ["True", "Unknown"] {
        gathered.by_object.insert((NODE, "b".into()), node(None, Some(ready)));
        assert!(ranges(&gathered, &[]).is_empty(), "a node without a pod range");
    }
}

#[test]
fn a_node_that_joins_takes_no_ranges_away_and_brings_none() {
    let mut gathered = Gathered::default();
    gathered.by_object.insert((SERVICE_CIDR, "s".into()), said("10.96.0.0/16"));
    for ready in [None, Some("False")] {
        gathered.by_object.insert((NODE, "b".into()), node(None, ready));
        assert!(ranges(&gathered, &[]).is_empty(), "no node has pods yet");
    }
    gathered.by_object.insert((NODE, "a".into()), node(Some("10.244.0.0/24"), Some("True")));
    assert_eq!(ranges(&gathered, &[]), ["10.96.0.0/16", "10.244.0.0/24"]);
}

#[test]
fn the_pods_of_a_node_that_is_gone_are_the_clusters_still() {
    let mut gathered = Gathered::default();
    gathered.by_object.insert((SERVICE_CIDR, "s".into()), said("10.96.0.0/16"));
    for (name, range, address) in [("a", "10.244.0.0/24", "192.0.2.7/32"), ("b", "10.244.2.0/24", "192.0.2.9/32")] {
        let mut node = node(Some(range), Some("True"));
        node.ranges.push(address.parse().unwrap());
        gathered.by_object.insert((NODE, name.into()), node);
    }
    let now = Instant::now();
    gathered.forget(NODE, "b".into(), now);
    let pods = ["10.96.0.0/16", "10.244.0.0/24", "10.244.2.0/24"];
    assert_eq!(ranges(&gathered, &[])[..3], pods);
    assert_eq!(ranges(&gathered, &[])[3..], ["192.0.2.7/32", "192.0.2.9/32"], "for a while");
    assert_eq!(gathered.let_go(now), Some(now + LEAVING));
    assert_eq!(gathered.let_go(now + LEAVING), None);
    assert_eq!(ranges(&gathered, &[])[3..], ["192.0.2.7/32"]);
    gathered.forget(NODE, "a".into(), now);
    assert!(ranges(&gathered, &[]).is_empty(), "no node is there");
    gathered.forget(SERVICE_CIDR, "s".into(), now);
    assert!(!gathered.by_object.contains_key(&(SERVICE_CIDR, "s".into())));
}

#[test]
fn a_node_in_the_place_of_another_is_one_change() {
    let (mut gathered, now) = (Gathered::default(), Instant::now());
    let given = ["10.0.0.0/16"];
    gathered.put(NODE, "a".into(), said("192.0.2.7/32"), now);
    gathered.forget(NODE, "a".into(), now);
    gathered.put(NODE, "b".into(), said("192.0.2.7/32"), now);
    assert_eq!(ranges(&gathered, &given), ["10.0.0.0/16", "192.0.2.7/32"], "of the same address");
    gathered.put(NODE, "c".into(), said("192.0.2.20/32"), now);
    gathered.forget(NODE, "c".into(), now);
    // What it says of itself over and over brings nothing.
    gathered.put(NODE, "b".into(), said("192.0.2.7/32"), now + LEFT);
    assert_eq!(ranges(&gathered, &given).len(), 3);
    gathered.put(NODE, "d".into(), said("192.0.2.40/32"), now + LEFT);
    assert_eq!(ranges(&gathered, &given), ["10.0.0.0/16", "192.0.2.7/32", "192.0.2.40/32"]);
}

#[test]
fn nodes_inside_of_a_given_range_change_nothing() {
    let (mut gathered, now) = (Gathered::default(), Instant::now());
    let given = ["10.0.0.0/16", "192.0.2.0/24"];
    let before = ranges(&gathered, &given);
    gathered.put(NODE, "a".into(), said("192.0.2.7/32"), now);
    assert_eq!(ranges(&gathered, &given), before);
    gathered.forget(NODE, "a".into(), now);
    assert_eq!(ranges(&gathered, &given), before);
}

#[test]
fn the_ports_of_name_servers_are_those_that_their_service_leads_to() {
    let ports = |ports: &Value| {
        let spec = json!({"clusterIPs": ["10.96.0.10", "None"], "ports": ports});
        let said = of_service(&serde_json::from_value(json!({"spec": spec})).unwrap());
        assert_eq!(said.dns, ["10.96.0.10".parse::<IpAddr>().unwrap()]);
        said.dns_ports
    };
    let metrics = json!({"port": 9153, "targetPort": 9153});
    assert_eq!(ports(&json!([{"port": 53, "targetPort": 8053, "protocol": "UDP"}, metrics])), [8053]);
    assert_eq!(ports(&json!([{"port": 53}, {"port": 53, "targetPort": "dns-tcp"}])), [53]);
}

#[test]
fn what_was_given_is_completed_by_what_is_read() {
    let mut gathered = Gathered::default();
    assert_eq!(ranges(&gathered, &["10.0.0.0/16"]), ["10.0.0.0/16"]);
    gathered.by_object.insert((NODE, "a".into()), said("10.1.0.0/16"));
    assert_eq!(ranges(&gathered, &["10.0.0.0/16"]), ["10.0.0.0/15"], "neighbours are joined");
}
