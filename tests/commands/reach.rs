//! `rampart reach`: who reaches whom, in text, in JSON, and line by line.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::{
    io::Write as _,
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};

/// A web server that policies of both kinds isolate, and a database that nothing isolates.
const SHOP: &str = "apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec: {template: {metadata: {labels: {app: web}}, spec: {containers: [{name: a, ports: [{containerPort: 8080}]}]}}}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop, labels: {app: db}}
spec: {containers: [{name: a, ports: [{name: pg, containerPort: 5432}]}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny, namespace: shop}
spec: {podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress]}
---
apiVersion: rampart.dev/v1alpha1
kind: SecurityPolicy
metadata: {name: web, namespace: shop}
spec:
  network:
    mode: Enforce
    podSelector: {matchLabels: {app: web}}
    isolate: [Egress]
    egress: [{name: pg, peers: [{pods: {selector: {matchLabels: {app: db}}}}], ports: [{port: 5432}]}, {name: dns, peers: [{entity: DNS}]}]
";

fn reach(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_rampart"))
        .arg("reach")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn cells(arguments: &[&str]) -> Value {
    let output = reach(&[&["-", "--output", "json"], arguments].concat(), SHOP);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["schemaVersion"], 1);
    report["cells"].clone()
}

#[test]
fn each_pair_is_told_on_the_ports_of_the_destination_with_who_decides() {
    let output = reach(&["-"], SHOP);
    let wanted = "FROM      TO        PORT      VERDICT  BY
shop/db   shop/web  8080/TCP  denied   shop/deny
shop/web  shop/db   5432/TCP  allowed  shop/rampart-web
";
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), wanted));
}

#[test]
fn ends_and_ports_can_be_named() {
    let denied = json!([{"from": "shop/web", "to": "shop/db", "port": 80, "protocol": "TCP", "allowed": false,
                         "by": ["shop/rampart-web"]}]);
    assert_eq!(cells(&["--from", "shop/web", "--to", "shop/db", "--port", "80"]), denied);
    let outside = cells(&["--from", "shop/web", "--to", "8.8.8.8", "--port", "53/UDP"]);
    assert_eq!((&outside[0]["to"], &outside[0]["allowed"]), (&json!("8.8.8.8"), &json!(false)));
    // Where none is declared, every range that policies tell apart.
    let ranges = cells(&["--from", "shop/db", "--to", "8.8.8.8"]);
    assert!(ranges.as_array().unwrap().iter().any(|it| it["port"] == 5433 && it["endPort"] == 65535), "{ranges}");
}

#[test]
fn what_is_unknown_or_wrong_is_named() {
    let unknown = reach(&["-", "--to", "shop/nobody"], SHOP);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(text(&unknown.stderr).starts_with("--to: there is no pod \"shop/nobody\""), "{}", text(&unknown.stderr));
    let bad = SHOP.replace("policyTypes: [Ingress]", "ingress: [{from: [{}]}]").replace("port: 5432}", "port: 70000}");
    let bad = reach(&["-"], &bad);
    let said = text(&bad.stderr);
    assert_eq!(bad.status.code(), Some(2));
    assert!(said.contains("<stdin>:14: spec.ingress[0].from[0]: names nobody"), "{said}");
    assert!(said.contains("spec.network.egress[0].ports[0].port: 70000 is not a port"), "{said}");
    assert!(text(&bad.stdout).contains("shop/web"), "the rest is told all the same");
    assert_eq!(reach(&["-", "--port", "http"], SHOP).status.code(), Some(2));
}

#[test]
fn a_line_is_a_case_and_a_bad_one_hides_no_other() {
    let case = json!({"namespaces": {"x": {"labels": null}}, "policies": [{"metadata": {"namespace": "x", "name": "deny"},
        "spec": {"podSelector": {"matchLabels": {"app": "a"}}}}], "pods": [
            {"namespace": "x", "name": "a", "labels": {"app": "a"}, "ip": "10.0.0.1", "ports": [{"name": "p", "port": 80}]},
            {"namespace": "x", "name": "b", "labels": null, "ip": "10.0.0.2", "ports": null}]});
    let output = reach(&["--input", "jsonl", "--port", "80/TCP"], &format!("{case}\n{{\n{{}}\n"));
    assert_eq!(output.status.code(), Some(2));
    let lines: Vec<Value> = text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let verdicts: Vec<bool> =
        lines[0]["cells"].as_array().unwrap().iter().map(|it| it["allowed"].as_bool().unwrap()).collect();
    assert_eq!(verdicts, [true, true, false, true]);
    assert!(lines[1]["error"].is_string() && lines[1]["i"] == 1, "{}", lines[1]);
    assert_eq!(lines[2], json!({"i": 2, "cells": []}));
}

#[test]
fn the_other_side_is_opened_as_in_the_cluster_where_another_policy_isolates_it() {
    let isolated = "---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny-db, namespace: shop}
spec: {podSelector: {matchLabels: {app: db}}, policyTypes: [Ingress]}
";
    let verdict = |input: &str| {
        let output = reach(&["-", "--from", "shop/web", "--to", "shop/db", "--output", "json"], input);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        report["cells"][0]["allowed"].as_bool().unwrap()
    };
    let generating = SHOP.replace("isolate: [Egress]", "isolate: [Egress]\n    reciprocal: Generate");
    assert!(!verdict(&format!("{SHOP}{isolated}")));
    assert!(verdict(&format!("{generating}{isolated}")));
}
