//! What the API server itself refuses, by the schema and the CEL rules of the CRDs.

use anyhow::{Result, bail, ensure};
use kube::api::PostParams;
use rampart_e2e::{fixtures, stories};
use serde_json::{Value, json};

use crate::{Env, Tests};

pub(crate) fn tests(tests: &mut Tests) {
    tests.add("crd_rules::bad_specs_are_refused_with_the_field_and_the_reason", bad_specs_are_refused);
    tests.add("crd_rules::what_is_immutable_stays", what_is_immutable_stays);
    tests.add("crd_rules::a_selector_is_replaced_as_a_whole", a_selector_is_replaced_as_a_whole);
}

/// As in Kubernetes' own kinds: field by field, `{}` would become null, and two managers would mix what they select.
async fn a_selector_is_replaced_as_a_whole(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    for selector in [json!({"matchLabels": {"a": "x"}}), json!({"matchLabels": {"b": "y"}}), json!({})] {
        let mut policy = with(stories::sample_policy(), "/metadata/namespace", json!(namespace));
        policy["spec"]["network"]["podSelector"] = selector.clone();
        let applied = fixtures::apply(&client, &policy).await?;
        let live = &applied.data["spec"]["network"]["podSelector"];
        ensure!(*live == selector, "{selector} was applied, and it is {live}");
    }
    Ok(())
}

/// An object with one field changed; `Null` removes it.
fn with(mut object: Value, pointer: &str, value: Value) -> Value {
    let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
    let parent = object.pointer_mut(parent).expect("a parent");
    match (parent, value) {
        (Value::Object(fields), Value::Null) => drop(fields.remove(key)),
        (parent, value) => match key.parse::<usize>() {
            Ok(index) => parent[index] = value,
            Err(_) => parent[key] = value,
        },
    }
    object
}

#[expect(clippy::too_many_lines, reason = "a table of cases")]
async fn bad_specs_are_refused(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    let policy = || with(stories::sample_policy(), "/metadata/namespace", json!(namespace));
    let key = || stories::api_key(&namespace);
    let retention = || stories::retention_policy(&namespace, "DryRun");
    let hold = || {
        json!({
            "apiVersion": "rampart.dev/v1alpha1", "kind": "LegalHold",
            "metadata": {"name": "case-17", "namespace": namespace},
            "spec": {"resources": [{"resource": "configmaps"}], "selector": {}, "indefinite": true, "ground": "litigation"},
        })
    };
    let at = "/spec/network";
    let cases = [
        ("nothing asked", with(policy(), "/spec", json!({"netwrok": {}})), "set hardening or network, or both"),
        ("unknown enum", with(policy(), &format!("{at}/mode"), json!("Off")), "spec.network.mode"),
        ("no DNS", with(policy(), &format!("{at}/egress"), json!([])), "cuts the pods off from name resolution"),
        (
            "no namespace",
            with(
                policy(),
                &format!("{at}/egress/0/peers/0"),
                json!({"pods": {"selector": {}, "namespaces": ["shop", "Data"]}}),
            ),
            "namespaces[1]",
        ),
        (
            "no Service",
            with(policy(), &format!("{at}/egress/0/peers/0"), json!({"service": {"name": "db.shop"}})),
            "service.name",
        ),
        ("two kinds of peer", with(policy(), &format!("{at}/egress/0/peers/0/entity"), json!("DNS")), "exactly one of"),
        ("no kind of peer", with(policy(), &format!("{at}/egress/0/peers/0"), json!({})), "exactly one of"),
        (
            "not a range",
            with(policy(), &format!("{at}/egress/2/peers/0/external/cidrs/0"), json!("10.0.0.0")),
            "address ranges",
        ),
        (
            "port 0",
            with(policy(), &format!("{at}/egress/0/ports/0/port"), json!(0)),
            "port is a number from 1 to 65535, or the name of a port",
        ),
        (
            "end before port",
            with(policy(), &format!("{at}/egress/0/ports/0/endPort"), json!(80)),
            "endPort needs a port that is a number, and must not be below it",
        ),
        (
            "end of a name",
            with(policy(), &format!("{at}/egress/0/ports/0"), json!({"port": "sql", "endPort": 80})),
            "endPort needs a port that is a number",
        ),
        (
            "any is false",
            with(policy(), &format!("{at}/egress/0/peers/0"), json!({"any": false})),
            "any is true or absent",
        ),
        ("no ports", with(policy(), &format!("{at}/egress/0/ports"), Value::Null), "either ports or anyPort"),
        (
            "rules without isolation",
            with(policy(), &format!("{at}/isolate"), json!(["Egress"])),
            "need Ingress in isolate",
        ),
        ("one name twice", with(policy(), &format!("{at}/egress/0/name"), json!("dns")), "Duplicate value"),
        // The webhook's turn: what CEL can't afford, by the same parser as the controller's.
        (
            "not a selector",
            with(policy(), &format!("{at}/podSelector"), json!({"matchExpressions": [{"key": "a", "operator": "Is"}]})),
            "spec.network.podSelector.matchExpressions[0].operator: must be In, NotIn, Exists or DoesNotExist",
        ),
        (
            "except outside",
            with(
                policy(),
                &format!("{at}/egress/2/peers/0/external"),
                json!({"cidrs": ["10.0.0.0/8"], "except": ["11.0.0.0/16"]}),
            ),
            "external.except[0]: lies inside none of cidrs",
        ),
        (
            "a number in quotes",
            with(policy(), &format!("{at}/egress/0/ports/0/port"), json!("5432")),
            "a number goes unquoted",
        ),
        (
            "a Service that calls brings no ports",
            with(policy(), &format!("{at}/ingress/0"), json!({"name": "x", "peers": [{"service": {"name": "s"}}]})),
            "spec.network.ingress[0].ports",
        ),
        (
            "webhooks do not call",
            with(policy(), &format!("{at}/egress/0/peers/0"), json!({"entity": "Webhooks"})),
            "name `entity: APIServer`",
        ),
        (
            "DNS calls nobody",
            with(policy(), &format!("{at}/ingress/0/peers/0/entity"), json!("DNS")),
            "spec.network.ingress[0].peers[0].entity",
        ),
        (
            "overlap",
            with(key(), "/spec/rotation", json!({"interval": "10h", "overlap": "10h"})),
            "overlap must be shorter",
        ),
        ("ttl", with(key(), "/spec/ttl", json!("24h")), "must fit into ttl"),
        ("negative duration", with(key(), "/spec/ttl", json!("-1h")), "spec.ttl"),
        ("days", with(key(), "/spec/ttl", json!("30d")), "spec.ttl"),
        ("never rotated, never ends", with(key(), "/spec/rotation", json!({"policy": "Disabled"})), "needs a ttl"),
        ("prefix", with(key(), "/spec/prefix", json!("Shop")), "spec.prefix"),
        ("long name", with(key(), "/metadata/name", json!("a".repeat(41))), "at most 40 characters"),
        ("called as a version", with(key(), "/spec/secret/name", json!("orders-v12")), "versions are called so"),
        ("another's customer", with(key(), "/spec/owner/customerId", json!("others")), "spec.owner.customerId"),
        ("Admin", with(key(), "/spec/role", json!("Admin")), "Admin needs a ClusterSecurityPolicy"),
        (
            "permission called as a verb",
            with(with(key(), "/spec/role", Value::Null), "/spec/permissions", json!(["orders.read", "admin"])),
            "give a permission another name",
        ),
        ("no audience", with(key(), "/spec/audiences", json!([])), "spec.audiences"),
        ("age 0", with(retention(), "/spec/maxAge", json!("0s")), "maxAge must be longer than 0s"),
        (
            "no annotation",
            with(retention(), "/spec/targets/0/resources/annotation", Value::Null),
            "annotation is for ageFrom",
        ),
        ("no age", with(retention(), "/spec/maxAge", Value::Null), "say maxAge, or dataClass"),
        ("beyond the class", with(retention(), "/spec/dataClass", json!("Restricted")), "longer than dataClass allows"),
        ("least above most", with(retention(), "/spec/minAge", json!("721h")), "minAge must not be longer than maxAge"),
        ("zone alone", with(retention(), "/spec/timeZone", json!("UTC")), "timeZone is for schedule"),
        ("no cron", with(retention(), "/spec/schedule", json!("every night")), "spec.schedule: is no cron expression"),
        (
            "evidence",
            with(retention(), "/spec/evidence", json!({"retainFor": "24h"})),
            "retainFor must be at least 720h",
        ),
        ("skew", with(retention(), "/spec/safety/maxClockSkew", json!("2h")), "maxClockSkew must be from 5s to 1h"),
        ("percent", with(retention(), "/spec/safety/maxPercentPerRun", json!(101)), "maxPercentPerRun"),
        ("secrets", with(retention(), "/spec/targets/0/resources/kind", json!("Secret")), "allowSensitiveKinds"),
        (
            "api version",
            with(retention(), "/spec/targets/0/resources/apiVersion", json!("a/b/c")),
            "spec.targets[0].resources.apiVersion",
        ),
        (
            "another path",
            with(retention(), "/spec/targets/0/resources/apiVersion", json!("v1%2Fsecrets")),
            "spec.targets[0].resources.apiVersion",
        ),
        ("a hold of everything", with(hold(), "/spec/resources/0/resource", json!("*")), "spec.resources[0].resource"),
        ("a hold of pods", with(hold(), "/spec/resources/0/resource", json!("pods")), "pods can't be held"),
        (
            "a hold of leases",
            with(hold(), "/spec/resources/0", json!({"group": "coordination.k8s.io", "resource": "leases"})),
            "leases can't be held",
        ),
        (
            "a hold with two ends",
            with(hold(), "/spec/until", json!("2030-01-01T00:00:00Z")),
            "set either until or indefinite",
        ),
        ("a hold without an end", with(hold(), "/spec/indefinite", Value::Null), "set either until or indefinite"),
        ("a hold that is not meant", with(hold(), "/spec/indefinite", json!(false)), "indefinite is true or absent"),
        (
            "a hold of null",
            with(
                hold(),
                "/spec",
                json!({"resources": [{"resource": "configmaps"}], "selector": {},
            "until": null, "ground": "litigation"}),
            ),
            "set either until or indefinite",
        ),
        ("a hold without a ground", with(hold(), "/spec/ground", json!("")), "spec.ground"),
    ];
    for (name, object, wanted) in cases {
        let api = fixtures::api_of(&client, &object).await?;
        let params = PostParams { dry_run: true, ..PostParams::default() };
        match api.create(&params, &serde_json::from_value(object)?).await {
            Err(kube::Error::Api(status)) => {
                ensure!(status.message.contains(wanted), "{name}: {}", status.message);
            }
            Err(other) => bail!("{name}: {other}"),
            Ok(_) => bail!("{name} was accepted"),
        }
    }
    Ok(())
}

async fn what_is_immutable_stays(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    let key = with(stories::api_key(&namespace), "/spec/suspend", json!(true));
    fixtures::apply(&client, &key).await?;
    for (pointer, value) in [
        ("/spec/prefix", json!("other")),
        ("/spec/audiences", json!(["another-api"])),
        ("/spec/owner/contact", json!("somebody@example.com")),
        ("/spec/secret/name", json!("another")),
    ] {
        let refused = fixtures::apply(&client, &with(key.clone(), pointer, value)).await;
        let message = refused.expect_err(pointer).to_string();
        ensure!(message.contains("immutable"), "{pointer}: {message}");
    }
    Ok(())
}
