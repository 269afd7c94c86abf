//! What is judged by policies from files.

use std::fs;

use rstest::rstest;
use tempfile::TempDir;

use super::*;

const PRIVILEGED: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: one, namespace: NAMESPACE}
spec: {template: {spec: {containers: [{name: a, image: a, securityContext: {privileged: true}}]}}}
";

/// What is said of some manifests by some policies, each a file.
fn judged(manifests: &[String], policies: &[String]) -> Report {
    let dir = TempDir::new().unwrap();
    let written = |name: &str, texts: &[String]| {
        let place = dir.path().join(name);
        fs::create_dir(&place).unwrap();
        for (number, text) in texts.iter().enumerate() {
            fs::write(place.join(format!("{number}.yaml")), text).unwrap();
        }
        place
    };
    let check = Check {
        paths: vec![written("manifests", manifests)],
        policies: vec![written("policies", policies)],
        namespace: "default".into(),
        level: Level::Restricted,
        version: Version::LATEST,
        output: Format::default(),
        output_file: None,
        fail_on: FailOn::default(),
    };
    check.report().unwrap()
}

fn policy(selector: &str) -> String {
    format!(
        "apiVersion: rampart.dev/v1alpha1\nkind: ClusterSecurityPolicy\nmetadata: {{name: prod}}\n\
         spec: {{namespaceSelector: {selector}, hardening: {{mode: Enforce, podSecurity: {{level: baseline}}}}}}\n"
    )
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    WithThePolicy,
    AmongTheManifests,
    Nowhere,
}

#[rstest]
#[case::match_labels("{matchLabels: {env: prod}}", 1, 0, true)]
#[case::exists("{matchExpressions: [{key: env, operator: Exists}]}", 1, 0, true)]
#[case::not_in("{matchExpressions: [{key: env, operator: NotIn, values: [dev]}]}", 1, 1, true)]
#[case::all("{}", 1, 1, false)]
#[case::by_name("{matchLabels: {kubernetes.io/metadata.name: shop}}", 1, 1, false)]
#[case::by_another_name("{matchLabels: {kubernetes.io/metadata.name: books, env: prod}}", 0, 0, false)]
fn who_does_not_know_the_labels_of_a_namespace_does_not_say_that_all_is_well(
    #[case] selector: &str,
    #[case] denied_where_known: usize,
    #[case] denied_elsewhere: usize,
    #[case] is_open: bool,
    #[values(Known::WithThePolicy, Known::AmongTheManifests, Known::Nowhere)] known: Known,
) {
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {env: prod}}\n".to_owned();
    let (mut manifests, mut policies) = (vec![PRIVILEGED.replace("NAMESPACE", "shop")], vec![policy(selector)]);
    // Two of a namespace: what is to be said of it is said once.
    manifests.push(PRIVILEGED.replace("NAMESPACE", "shop").replace("one", "two").replace("true", "false"));
    match known {
        Known::WithThePolicy => policies.push(namespace),
        Known::AmongTheManifests => manifests.push(namespace),
        Known::Nowhere => {}
    }
    let report = judged(&manifests, &policies);
    let said: Vec<String> = report.unreadable.iter().map(ToString::to_string).collect();
    let names: Vec<&str> = report.outcomes.iter().map(|outcome| outcome.name.as_str()).collect();
    assert_eq!(names, ["one", "two"], "the order is that of the input");
    if known == Known::Nowhere {
        assert_eq!(report.denied(), denied_elsewhere, "{said:?}");
        assert_eq!(said.len(), usize::from(is_open), "{said:?}");
        let told = "0.yaml:1: whether ClusterSecurityPolicy prod covers namespace shop is not known";
        assert!(said.iter().all(|said| said.contains(told)), "{said:?}");
    } else {
        assert!(said.is_empty() && report.denied() == denied_where_known, "{said:?}");
    }
}

#[test]
fn of_a_system_namespace_that_no_policy_covers_nothing_is_said() {
    let manifests = [PRIVILEGED.replace("NAMESPACE", "kube-system")];
    let report = judged(&manifests, &[policy("{matchLabels: {env: prod}}")]);
    assert!(report.unreadable.is_empty() && report.denied() == 0, "{:?}", report.unreadable);
}

#[test]
fn policies_that_are_none_are_bad_input() {
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n".to_owned();
    let report = judged(&[PRIVILEGED.replace("NAMESPACE", "shop")], &[namespace]);
    assert!(report.unreadable[0].why.starts_with("holds no SecurityPolicy"), "{:?}", report.unreadable);
}
