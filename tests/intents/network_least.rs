//! What may not be weaker: the isolation that a class of data asks, and that of a ClusterSecurityPolicy.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::needless_pass_by_value,
    reason = "tests fail by panicking, and cases are values"
)]

use rampart::{
    api::{ClusterSecurityPolicy, Network, SecurityPolicy},
    hardening::ClusterWide,
    network::Intent,
    policy,
};
use rstest::rstest;
use serde_json::{Value, json};

fn network(mode: &str, isolate: &Value, peers: &Value) -> Value {
    json!({"mode": mode, "podSelector": {}, "isolate": isolate, "allowNoDns": true,
        "egress": [{"name": "out", "anyPort": true, "peers": peers}]})
}

fn both() -> Value {
    json!(["Ingress", "Egress"])
}

#[rstest]
#[case::none(json!({}), Some("spec.network"))]
#[case::disabled(json!({"network": network("Disabled", &both(), &json!([{"entity": "SameNamespace"}]))}), Some("spec.network"))]
#[case::one_way(json!({"network": network("Enforce", &json!(["Egress"]), &json!([{"entity": "SameNamespace"}]))}), Some("spec.network.isolate"))]
#[case::open(json!({"network": network("Enforce", &both(), &json!([{"any": true}]))}), Some("spec.network.egress[out].peers"))]
#[case::preview(json!({"network": network("Preview", &both(), &json!([{"entity": "SameNamespace"}]))}), None)]
#[case::enforced(json!({"network": network("Enforce", &both(), &json!([{"entity": "SameNamespace"}]))}), None)]
fn a_class_asks_for_isolation(#[case] spec: Value, #[case] wrong: Option<&str>) {
    for class in ["Confidential", "Restricted"] {
        let mut spec = spec.clone();
        spec["dataClass"] = json!(class);
        let own: SecurityPolicy = read("SecurityPolicy", &spec);
        let error = policy::parse(&own).map(drop).err();
        assert_eq!(error.as_ref().map(|it| it.field.as_str()), wrong, "{error:?}");
        assert!(error.is_none_or(|error| error.to_string().contains(class)));
        spec["namespaceSelector"] = json!({});
        let wide: ClusterSecurityPolicy = read("ClusterSecurityPolicy", &spec);
        assert_eq!(ClusterWide::try_from(&wide).err().map(|it| it.field).as_deref(), wrong);
    }
    for class in ["Public", "Internal"] {
        let mut spec = spec.clone();
        spec["dataClass"] = json!(class);
        assert!(policy::parse(&read("SecurityPolicy", &spec)).is_ok());
    }
}

fn read<K: serde::de::DeserializeOwned>(kind: &str, spec: &Value) -> K {
    let object = json!({"apiVersion": "rampart.dev/v1alpha1", "kind": kind, "metadata": {"name": "p"}, "spec": spec});
    serde_json::from_value(object).unwrap()
}

fn intent(selector: &Value, isolate: &Value, peers: &Value) -> Intent {
    let mut network = network("Enforce", isolate, peers);
    network["podSelector"] = selector.clone();
    Intent::try_from(&serde_json::from_value::<Network>(network).unwrap()).unwrap()
}

#[test]
fn everybody_is_left_out_where_the_cluster_isolates() {
    let web = json!({"matchLabels": {"app": "web"}});
    let own = intent(&web, &both(), &json!([{"any": true}, {"entity": "SameNamespace"}]));
    let clamped = |selector: &Value, isolate: &Value| {
        let least = intent(selector, isolate, &json!([{"entity": "SameNamespace"}]));
        let (clamped, findings) = own.clamped("shop", [("base", &least)].into_iter());
        (
            clamped.egress.first().map_or(0, |rule| rule.peers.len()),
            findings.into_iter().map(|it| it.id).collect::<Vec<_>>(),
        )
    };
    let told = vec!["Clamped/shop/out".to_owned()];
    assert_eq!(clamped(&json!({}), &json!(["Egress"])), (1, told.clone()));
    assert_eq!(clamped(&web, &both()), (1, told));
    assert_eq!(clamped(&json!({}), &json!(["Ingress"])), (2, vec![]), "another direction");
    assert_eq!(clamped(&json!({"matchLabels": {"app": "db"}}), &both()), (2, vec![]), "other pods");
}

#[rstest]
#[case::all_of_them(json!({}), json!({"matchLabels": {"tier": "backend"}}), true)]
#[case::by_another_label(json!({"matchLabels": {"app": "web"}}), json!({"matchLabels": {"tier": "backend"}}), true)]
#[case::others(json!({"matchLabels": {"app": "web"}}), json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}), false)]
fn a_wider_selector_opens_nothing_of_what_the_cluster_isolates(
    #[case] own: Value,
    #[case] least: Value,
    #[case] is_clamped: bool,
) {
    let own = intent(&own, &both(), &json!([{"any": true}]));
    let least = intent(&least, &both(), &json!([{"entity": "SameNamespace"}]));
    let (clamped, findings) = own.clamped("shop", [("base", &least)].into_iter());
    assert_eq!((clamped.egress.is_empty(), !findings.is_empty()), (is_clamped, is_clamped));
}

#[test]
fn a_rule_that_is_about_nobody_else_goes() {
    let own = intent(&json!({}), &both(), &json!([{"any": true}]));
    let (clamped, findings) = own.clamped("shop", [("base", &own)].into_iter());
    assert!(clamped.egress.is_empty() && findings.len() == 1);
}
