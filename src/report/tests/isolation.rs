//! Where networks are isolated.

use super::*;

fn network(mode: &str, pods: &Value, isolate: &Value) -> Value {
    json!({"network": {"mode": mode, "podSelector": pods, "isolate": isolate,
        "egress": [{"name": "all", "peers": [{"any": true}], "anyPort": true},
                   {"name": "out", "peers": [{"external": {"cidrs": ["0.0.0.0/0"]}}], "ports": [{"port": 443}]}]}})
}

#[rstest]
#[case::all_pods_and_open_to_all("Enforce", json!({}), json!(["Ingress", "Egress"]), "True", [0, 1, 0])]
#[case::one_way("Enforce", json!({}), json!(["Ingress"]), "True", [0, 1, 0])]
#[case::some_pods("Enforce", json!({"matchLabels": {"app": "web"}}), json!(["Ingress", "Egress"]), "True", [0, 1, 0])]
#[case::refused("Enforce", json!({}), json!(["Ingress", "Egress"]), "False", [0, 0, 1])]
#[case::preview("Preview", json!({}), json!(["Ingress", "Egress"]), "True", [0, 0, 1])]
fn networks_are_isolated_where_an_intent_is_programmed(
    #[case] mode: &str,
    #[case] pods: Value,
    #[case] isolate: Value,
    #[case] programmed: &str,
    #[case] wanted: [usize; 3],
) {
    let status =
        json!({"observedGeneration": 2, "conditions": [condition("Programmed", programmed, "EnforceRefused")]});
    let told = told(&shop(vec![policy("web", &network(mode, &pods, &isolate), &status)]));
    assert_eq!(places(&told, "networkIsolation"), wanted);
    let exposure = &told.network.items[0];
    assert_eq!(exposure.open_to_all, ["egress/all"]);
    assert_eq!(exposure.addresses, ["egress/out 0.0.0.0/0"]);
    let why = (mode == "Enforce" && programmed == "False").then(|| "EnforceRefused: because".to_owned());
    assert_eq!(exposure.reason, why);
}

/// A SecurityPolicy in force that isolates every pod both ways, with some rules for ingress.
fn isolating(ingress: &Value, suspend: bool, widened_by: &Value) -> SecurityPolicy {
    let spec = json!({"suspend": suspend, "hardening": {"mode": "Enforce", "podSecurity": {"level": "restricted"}},
        "network": {"mode": "Enforce", "podSelector": {}, "isolate": ["Ingress", "Egress"], "ingress": ingress}});
    let status = json!({"observedGeneration": 2, "conditions": [condition("Programmed", "True", "Programmed")],
        "hardening": {"enforcedBy": ["Webhook"]}, "network": {"rendered": ["rampart-web-1"], "widenedBy": widened_by}});
    policy("web", &spec, &status)
}

/// A ClusterSecurityPolicy in force that isolates every pod for ingress.
fn least(suspend: bool, widened_by: &Value) -> ClusterSecurityPolicy {
    of(&json!({"metadata": {"name": "least", "generation": 1},
        "spec": {"suspend": suspend, "namespaceSelector": {},
                 "network": {"mode": "Enforce", "podSelector": {}, "isolate": ["Ingress"]}},
        "status": {"observedGeneration": 1, "conditions": [condition("Programmed", "True", "Programmed")],
                   "network": {"namespaces": 1, "programmed": 1, "widenedBy": widened_by}}}))
}

fn open() -> Value {
    json!([{"name": "web", "peers": [{"any": true}], "ports": [{"port": 443}]}])
}

#[rstest]
#[case::closed(isolating(&json!([]), false, &json!([])), None, [1, 0, 0])]
#[case::open_to_all(isolating(&open(), false, &json!([])), None, [0, 1, 0])]
#[case::widened(isolating(&json!([]), false, &json!(["allow-all"])), None, [0, 1, 0])]
#[case::the_least_keeps_it_closed(isolating(&open(), false, &json!([])), Some(least(false, &json!([]))), [1, 0, 0])]
#[case::suspended(isolating(&json!([]), true, &json!([])), None, [0, 0, 1])]
#[case::the_least_is_widened(isolating(&json!([]), false, &json!([])), Some(least(false, &json!(["shop/all"]))), [0, 1, 0])]
#[case::elsewhere(isolating(&json!([]), false, &json!([])), Some(least(false, &json!(["books/all"]))), [1, 0, 0])]
#[case::a_list_that_is_full(isolating(&json!([]), false, &json!([])), Some(least(false, &json!(vec!["books/all"; 20]))), [0, 1, 0])]
#[case::the_least_alone_in_force(isolating(&json!([]), true, &json!([])), Some(least(false, &json!([]))), [0, 1, 0])]
#[case::both_suspended(isolating(&json!([]), true, &json!([])), Some(least(true, &json!([]))), [0, 0, 1])]
fn isolation_is_in_part_where_something_is_let_through_and_asked_while_suspended(
    #[case] own: SecurityPolicy,
    #[case] wide: Option<ClusterSecurityPolicy>,
    #[case] wanted: [usize; 3],
) {
    let is_suspended = own.spec.suspend == Some(true);
    let mut world = shop(vec![own]);
    world.cluster_policies.items.extend(wide);
    let told = told(&world);
    assert_eq!(places(&told, "networkIsolation"), wanted);
    assert_eq!(places(&told, "runAsNonRoot"), [1, 0, 0], "admission goes on");
    let why = told.network.items.iter().find(|it| it.name == "web").unwrap().reason.as_deref();
    assert_eq!(why.is_some_and(|why| why.starts_with("Suspended: ")), is_suspended, "{why:?}");
}

#[test]
fn what_a_suspended_policy_left_open_is_open() {
    let mut world = shop(vec![isolating(&open(), true, &json!([]))]);
    let mut closed = isolating(&json!([]), false, &json!([]));
    closed.metadata.name = Some("closed".into());
    world.policies.items.push(closed);
    let told = told(&world);
    let shop = told.posture.items.iter().find(|it| it.namespace == "shop").unwrap();
    assert_eq!((shop.ingress, shop.egress), (Isolation::Some, Isolation::All));
}
