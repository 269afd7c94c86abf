//! Traps of hand-written NetworkPolicies, as `rampart check` names them.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::disallowed_methods, reason = "tests")]

use std::{
    collections::BTreeSet,
    io::Write as _,
    process::{Command, Stdio},
};

use rstest::rstest;
use serde_json::Value;

const NAIVE: &str = include_str!("../fixtures/naive-network-policy.yaml");
const DENY: &str = "
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: default-deny, namespace: ai-marketing-platform}
spec: {podSelector: {matchLabels: {app: postgres}}, policyTypes: [Ingress]}
";
const OPEN: &str = "
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: open, namespace: ai-marketing-platform}
spec:
  podSelector: {matchLabels: {app: postgres}}
  policyTypes: [Ingress]
  ingress: [{from: [{podSelector: {matchLabels: {app: ai-marketing-platform}}}], ports: [{protocol: TCP, port: 5432}]}]
";

/// Exit code, and what is found in policies that are not called `open` or `default-deny`: rule, path and severity.
fn check(manifests: &str, arguments: &[&str]) -> (i32, BTreeSet<[String; 3]>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rampart"));
    command.args(["check", "-", "-o", "json"]).args(arguments);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(manifests.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let results = report["results"].as_array().unwrap().iter();
    let meant = results.filter(|it| it["name"] != "open" && it["name"] != "default-deny");
    let rows = meant.flat_map(|it| it["violations"].as_array().unwrap());
    let row = |row: &Value| ["rule", "path", "severity"].map(|field| row[field].as_str().unwrap().to_owned());
    (output.status.code().unwrap(), rows.map(row).collect())
}

fn rules(manifests: &str) -> BTreeSet<String> {
    check(manifests, &[]).1.into_iter().map(|[rule, ..]| rule).collect()
}

#[test]
fn the_naive_sample_is_in_five_traps_each_at_its_field() {
    let (code, found) = check(NAIVE, &[]);
    let row = |rule: &str, path: &str, severity: &str| [format!("network/{rule}"), path.into(), severity.into()];
    let wanted = [
        row("namespaceNameLabel", "/spec/ingress/0/from/0/namespaceSelector/matchLabels/name", "warning"),
        row("inClusterRange", "/spec/ingress/0/from/2/ipBlock/cidr", "warning"),
        row("noDns", "/spec/egress", "warning"),
        row("openPeers", "/spec/egress/2/to", "warning"),
        row("otherSide", "/spec/egress/0/to/0/podSelector", "note"),
        row("otherSide", "/spec/egress/1/to/0/podSelector", "note"),
    ];
    assert_eq!(found, wanted.into());
    assert_eq!(code, 0, "nobody is refused for a trap");
    assert_eq!(check(NAIVE, &["--fail-on", "warn"]).0, 1);
}

#[test]
fn the_other_side_is_shown_closed_or_open_by_what_was_given() {
    let at = "/spec/egress/0/to/0/podSelector";
    let of =
        |found: BTreeSet<[String; 3]>| found.into_iter().find(|[_, path, _]| path == at).map(|[.., severity]| severity);
    assert_eq!(of(check(&format!("{NAIVE}{DENY}"), &[]).1).as_deref(), Some("warning"));
    assert_eq!(of(check(&format!("{NAIVE}{DENY}{OPEN}"), &[]).1), None);
    let other_port = OPEN.replace("port: 5432", "port: 1");
    assert_eq!(of(check(&format!("{NAIVE}{DENY}{other_port}"), &[]).1).as_deref(), Some("warning"));
}

#[rstest]
#[case("namespaceNameLabel", "{name: ai-marketing-platform}", "{kubernetes.io/metadata.name: ai-marketing-platform}")]
#[case("inClusterRange", "{cidr: 10.0.0.0/8}", "{cidr: 10.0.0.0/8, except: [10.244.0.0/16]}")]
#[case("inClusterRange", "{cidr: 10.0.0.0/8}", "{cidr: 203.0.113.0/24}")]
#[case("noDns", "port: 80}", "port: 80}\n    - {protocol: UDP, port: 53}")]
#[case("openPeers", "to: []", "to: [{ipBlock: {cidr: 203.0.113.0/24}}]")]
fn each_is_left_by_what_it_says(#[case] trap: &str, #[case] naive: &str, #[case] mended: &str) {
    let (rule, before) = (format!("network/{trap}"), rules(NAIVE));
    assert!(NAIVE.contains(naive) && before.contains(&rule));
    let mut wanted = before;
    wanted.remove(&rule);
    assert_eq!(rules(&NAIVE.replace(naive, mended)), wanted);
}

#[rstest]
#[case("{podSelector: {}, policyTypes: [Ingress]}", &[])]
#[case("{podSelector: {}, policyTypes: [Ingress, Egress]}", &["network/noDns"])]
#[case("{podSelector: {}, egress: [{ports: [{port: 53, protocol: UDP}], to: [{namespaceSelector: {}}]}]}", &["network/policyTypes"])]
#[case("{podSelector: {}, policyTypes: [Ingress], ingress: [{}]}", &["network/openPeers"])]
#[case("{podSelector: {}, policyTypes: [Ingress], ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}}]}]}", &["network/inClusterRange"])]
fn small_policies(#[case] spec: &str, #[case] wanted: &[&str]) {
    let manifest = format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: x, namespace: shop}}\nspec: {spec}\n"
    );
    assert_eq!(rules(&manifest).into_iter().collect::<Vec<_>>(), wanted);
}

#[test]
fn a_policy_that_no_api_server_takes_is_bad_input() {
    let wrong = NAIVE.replace("port: 5432", "port: 0");
    assert_eq!(check(&wrong, &[]).0, 2);
}
