//! The command line: what is printed, and the exit code, which never changes its meaning.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests"
)]

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};
use tempfile::TempDir;

const GOOD: &str = "apiVersion: v1
kind: Pod
metadata: {name: good, namespace: shop}
spec:
  securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
  containers:
  - name: main
    image: registry.example.com/app:1
    securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
  volumes: [{name: tmp}]
";
const BAD: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: bad, namespace: shop}
spec:
  template:
    spec:
      hostNetwork: true
      containers: [{name: main, image: a, securityContext: {privileged: true}}]
";

fn rampart(arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rampart"));
    let mut child =
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

/// The exit code and standard error, where nobody reads standard output.
fn unread(arguments: &[&str], input: &str) -> (Option<i32>, String) {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_rampart"));
    let mut child =
        command.args(arguments).stdin(Stdio::piped()).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn who_has_read_enough_gets_the_verdict_all_the_same() {
    for form in ["text", "json", "sarif", "junit", "github"] {
        assert_eq!(unread(&["check", "-", "-o", form], BAD), (Some(1), String::new()), "{form}");
        assert_eq!(unread(&["check", "-", "-o", form], GOOD), (Some(0), String::new()), "{form}");
    }
    assert_eq!(unread(&["crds"], ""), (Some(0), String::new()));
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: n, labels: {pod-security.kubernetes.io/enforce: baseline}}\n---\nkind: [";
    let (code, said) = unread(&["import", "psa-labels", "-"], namespace);
    assert!(code == Some(2) && !said.contains("Broken pipe"), "{code:?} {said}");
}

fn check(arguments: &[&str], input: &str) -> (i32, String, String) {
    let output = rampart(&[&["check"], arguments].concat(), input);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn dir(files: &[(&str, &str)]) -> TempDir {
    let dir = TempDir::new().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    dir
}

fn shown(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn exit_codes_tell_violations_from_bad_input() {
    assert_eq!(check(&["-"], GOOD).0, 0);
    assert_eq!(check(&["-"], BAD).0, 1);
    assert_eq!(check(&["-", "--fail-on=never"], BAD).0, 0);
    assert_eq!(check(&["-", "--level=privileged"], BAD).0, 0);
    assert_eq!(check(&["-", "--level=strict"], BAD).0, 2, "usage");
    assert_eq!(check(&["/no/such/file"], "").0, 2);
    let (code, out, err) = check(&["-"], &format!("{BAD}---\nkind: [\n---\n{GOOD}"));
    assert_eq!(code, 2, "bad input weighs more than violations");
    assert!(out.contains("1 allowed, 1 denied"), "what is readable is judged all the same: {out}");
    assert!(err.starts_with("<stdin>:10"), "the line is named: {err}");
}

#[test]
fn directories_are_walked_and_objects_without_pods_are_counted() {
    let dir = dir(&[
        ("a/good.yaml", GOOD),
        ("b/bad.yml", BAD),
        ("b/notes.txt", "kind: ["),
        ("c/service.json", r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}}"#),
    ]);
    let (code, out, err) = check(&[shown(dir.path())], "");
    assert_eq!(code, 1, "{err}");
    assert!(out.ends_with("1 allowed, 1 denied, 1 without pods\n"), "{out}");
    assert!(out.contains("bad.yml:1: Deployment shop/bad: denied"), "{out}");
    assert!(out.contains("at /spec/template/spec/containers/0/securityContext/privileged"), "{out}");
}

#[test]
fn json_is_the_contract() {
    let (_, out, _) = check(&["-", "--output=json", "--level=baseline"], &format!("{BAD}---\n{GOOD}"));
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(answer["schemaVersion"], 1);
    assert_eq!(answer["summary"], json!({"documents": 2, "allowed": 1, "denied": 1, "skipped": 0, "unreadable": 0}));
    let bad = &answer["results"][0];
    assert_eq!(
        bad["message"],
        "host namespaces (hostNetwork=true), privileged (container \"main\" must not set securityContext.privileged=true)"
    );
    assert_eq!(
        bad["violations"][1],
        json!({
            "rule": "pss/privileged", "check": "privileged", "level": "baseline", "reason": "privileged",
            "detail": "container \"main\" must not set securityContext.privileged=true",
            "path": "/spec/template/spec/containers/0/securityContext/privileged", "severity": "error",
        })
    );
    assert_eq!(answer["results"][1]["allowed"], true, "a volume without a source is an emptyDir");
}

#[test]
fn a_verdict_that_a_cluster_may_change_says_so() {
    let policy = "apiVersion: rampart.dev/v1alpha1\nkind: SecurityPolicy\nmetadata: {name: p, namespace: shop}\n\
                  spec: {hardening: {mode: Enforce, podSecurity: {level: baseline}, rules: {resourceLimits: [memory]}}}\n";
    let dir = dir(&[("policy.yaml", policy)]);
    let path = dir.path().join("policy.yaml");
    let (code, out, _) = check(&["-", "--policy", shown(&path)], GOOD);
    assert_eq!(code, 1);
    let note = "note: what hardening/resourceLimits finds may differ in a cluster: a LimitRange of the namespace sets";
    assert_eq!(out.matches(note).count(), 1, "{out}");
    let (_, out, _) = check(&["-", "--policy", shown(&path), "--output=json"], GOOD);
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert!(answer["dependsOn"]["hardening/resourceLimits"].is_string(), "{out}");
    assert!(!check(&["-"], GOOD).1.contains("note:"), "the standards depend on no cluster");
}

#[test]
fn policies_judge_their_own_namespace_in_their_own_mode() {
    let policy = |namespace: &str, mode: &str| {
        format!(
            "apiVersion: rampart.dev/v1alpha1\nkind: SecurityPolicy\nmetadata: {{name: p, namespace: {namespace}}}\n\
             spec: {{hardening: {{mode: {mode}, podSecurity: {{level: restricted}}}}}}\n"
        )
    };
    let dir = dir(&[
        ("enforce.yaml", &policy("shop", "Enforce")),
        ("warn.yaml", &policy("shop", "Warn")),
        ("elsewhere.yaml", &policy("other", "Enforce")),
        ("wrong.yaml", &policy("shop", "Enforce").replace("level: restricted", "level: restricted, version: v2")),
    ]);
    let by = |policy: &str, more: &[&str]| {
        let path = dir.path().join(policy);
        check(&[&["-", "--policy", shown(&path)], more].concat(), BAD)
    };
    let (code, out, _) = by("enforce.yaml", &[]);
    assert_eq!(code, 1);
    assert!(out.contains("[SecurityPolicy/p]"), "{out}");
    assert_eq!(by("warn.yaml", &[]).0, 0);
    assert_eq!(by("warn.yaml", &["--fail-on=warn"]).0, 1);
    assert_eq!(by("elsewhere.yaml", &[]).0, 0);
    let unnamed = BAD.replace(", namespace: shop", "");
    let path = dir.path().join("enforce.yaml");
    let arguments = ["-", "--policy", shown(&path)];
    assert_eq!(check(&arguments, &unnamed).0, 0);
    assert_eq!(check(&[&arguments[..], &["-n", "shop"]].concat(), &unnamed).0, 1);
    let (code, _, err) = by("wrong.yaml", &[]);
    assert_eq!(code, 2);
    assert!(err.contains("spec.hardening.podSecurity.version"), "{err}");
}

#[test]
fn sarif_is_valid_by_its_schema() {
    let mut schema: Value = serde_json::from_str(include_str!("../schemas/sarif-2.1.0.json")).unwrap();
    // The published schema holds a bracket too many, which only lenient regex engines read.
    for pointer in
        ["/definitions/run/properties/language/pattern", "/definitions/toolComponent/properties/language/pattern"]
    {
        if let Some(pattern) = schema.pointer_mut(pointer) {
            *pattern = json!("^[a-zA-Z]{2}(-[a-zA-Z]{2})?$");
        }
    }
    let validator = jsonschema::validator_for(&schema).unwrap();
    for input in [GOOD, BAD, "kind: [", ""] {
        let (_, out, _) = check(&["-", "--output=sarif"], input);
        let log: Value = serde_json::from_str(&out).unwrap();
        let errors: Vec<String> = validator.iter_errors(&log).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{errors:?}");
    }
    let (_, out, _) = check(&["-", "--output=sarif"], BAD);
    let log: Value = serde_json::from_str(&out).unwrap();
    let results = log["runs"][0]["results"].as_array().unwrap();
    let rules = log["runs"][0]["tool"]["driver"]["rules"].as_array().unwrap();
    assert!(results.iter().all(|result| rules.iter().any(|rule| rule["id"] == result["ruleId"])));
    assert_eq!(results.len(), 6, "{results:#?}");
}

#[test]
fn junit_reads_back() {
    let dir = dir(&[("a.yaml", GOOD), ("b.yaml", BAD), ("c.yaml", "kind: [")]);
    let file = dir.path().join("report.xml");
    let (code, out, _) = check(&[shown(dir.path()), "--output=junit", "--output-file", shown(&file)], "");
    assert_eq!((code, out.as_str()), (2, ""));
    let report = quick_junit::Report::deserialize_from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    let counts = report.test_suites.iter().map(|suite| (suite.tests, suite.failures, suite.errors));
    assert_eq!(counts.collect::<Vec<_>>(), [(1, 0, 0), (1, 1, 0), (1, 0, 1)]);
}

#[test]
fn github_annotations_name_file_and_line() {
    let (_, out, _) = check(&["-", "--output=github"], &format!("{GOOD}---\n{BAD}"));
    assert!(out.lines().all(|line| line.starts_with("::error file=<stdin>,line=11,title=pss/")), "{out}");
}

#[test]
fn what_could_not_be_read_is_told_in_every_form() {
    let dir = dir(&[("broken.yaml", "apiVersion: v1\nkind: [\n"), ("good.yaml", GOOD)]);
    let broken = dir.path().join("broken.yaml");
    for form in ["text", "json", "sarif", "junit", "github"] {
        let (code, out, err) = check(&[shown(dir.path()), "--output", form], "");
        assert!(code == 2 && err.starts_with(&format!("{}:2: ", shown(&broken))), "{form}: {err}");
        assert!(form == "text" || out.contains(shown(&broken)), "{form}: {out}");
    }
    let (_, out, _) = check(&[shown(dir.path()), "-o", "json"], "");
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(answer["summary"]["unreadable"], 1);
    let unreadable = &answer["unreadable"][0];
    assert_eq!((&unreadable["file"], &unreadable["line"]), (&json!(broken), &json!(2)));
    assert!(unreadable["message"].is_string(), "{unreadable}");
    let (_, out, _) = check(&[shown(dir.path()), "-o", "github"], "");
    assert!(out.starts_with(&format!("::error file={},line=2,title=unreadable::", shown(&broken))), "{out}");
}

#[test]
fn pss_eval_answers_line_by_line() {
    let good = json!({"spec": {"containers": [{"name": "a"}]}}).to_string();
    let arguments = ["pss", "eval", "--level=baseline", "--level=restricted", "--version=v1.7"];
    let output = rampart(&arguments, &format!("{good}\nnonsense\n{good}"));
    assert_eq!(output.status.code(), Some(2));
    let lines: Vec<Value> =
        String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let said = "runAsNonRoot != true (pod or container \"a\" must set securityContext.runAsNonRoot=true)";
    let verdicts = json!({
        "baseline:v1.7": {"allowed": true, "reason": "", "detail": ""},
        "restricted:v1.7": {"allowed": false, "reason": "runAsNonRoot != true", "detail": said},
    });
    assert_eq!(lines[0], json!({"i": 0, "v": verdicts}));
    assert!(lines[1]["error"].is_string() && lines[1]["i"] == 1);
    assert_eq!(lines[2], json!({"i": 2, "v": verdicts}));
    let all = rampart(&["pss", "eval"], &good);
    let line: Value = serde_json::from_slice(&all.stdout).unwrap();
    assert_eq!(line["v"].as_object().unwrap().len(), 2 * 39);
}

#[test]
fn rules_of_a_policy_are_told_with_their_ids_and_paths() {
    let policy = "apiVersion: rampart.dev/v1alpha1
kind: SecurityPolicy
metadata: {name: p, namespace: shop}
spec:
  hardening:
    mode: Enforce
    podSecurity: {level: privileged}
    rules:
      images: {requireDigest: true}
      resourceLimits: [memory]
";
    let dir = dir(&[("policy.yaml", policy), ("pod.yaml", GOOD)]);
    let (policy, pod) = (dir.path().join("policy.yaml"), dir.path().join("pod.yaml"));
    let (code, out, err) = check(&["--policy", shown(&policy), "--output", "json", shown(&pod)], "");
    assert_eq!((code, err.as_str()), (1, ""));
    let answer: Value = serde_json::from_str(&out).unwrap();
    let found = &answer["results"][0]["violations"];
    assert_eq!(found[0]["rule"], "hardening/images.requireDigest");
    assert_eq!(found[0]["path"], "/spec/containers/0/image");
    assert_eq!(found[1]["rule"], "hardening/resourceLimits");
    assert_eq!(found[1]["detail"], "container \"main\" must set resources.limits.memory");
    assert!(found[1].get("level").is_none() && found.as_array().unwrap().len() == 2, "{found}");
}

/// A cluster policy that permits exceptions in one namespace, and an exception there.
const PLATFORM: &str = "apiVersion: rampart.dev/v1alpha1
kind: ClusterSecurityPolicy
metadata: {name: platform}
spec:
  namespaceSelector: {matchLabels: {tier: web}}
  hardening: {mode: Enforce, podSecurity: {level: baseline}}
  exceptions: {namespaces: [shop], maxDuration: 24h}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {tier: web}}
---
apiVersion: v1
kind: Namespace
metadata: {name: other, labels: {tier: web}}
---
apiVersion: v1
kind: Namespace
metadata: {name: unselected}
";

fn exception(namespace: &str, expires: &str) -> String {
    format!(
        "---
apiVersion: rampart.dev/v1alpha1
kind: PolicyException
metadata: {{name: agent, namespace: {namespace}, labels: {{}}}}
spec:
  policies: [{{kind: ClusterSecurityPolicy, name: platform}}]
  rules: [pss/hostPathVolumes]
  images: [registry.example.com/agent]
  reason: reads logs
  expiresAt: '{expires}'
"
    )
}

#[test]
fn exceptions_are_matched_as_in_the_cluster() {
    let agent = |namespace: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: agent, namespace: {namespace}}}\nspec:\n  \
             containers: [{{name: a, image: 'registry.example.com/agent:1'}}]\n  \
             volumes: [{{name: logs, hostPath: {{path: /var/log}}}}]\n"
        )
    };
    let code = |namespace: &str, expires: &str, of: &str| {
        let policies = format!("{PLATFORM}{}", exception(namespace, expires));
        let dir = dir(&[("policies/all.yaml", &policies)]);
        check(&["--policy", shown(&dir.path().join("policies")), "-"], &agent(of))
    };
    let in_an_hour = (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1)).to_string();
    let in_a_year = (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(8760)).to_string();
    assert_eq!(code("shop", &in_an_hour, "shop").0, 0);
    assert_eq!(code("shop", "2026-01-02T00:00:00Z", "shop").0, 1, "it has ended");
    let (denied, _, err) = code("shop", &in_a_year, "shop");
    assert!(denied == 1 && err.contains("permits exceptions until"), "{denied} {err}");
    let (denied, _, err) = code("other", &in_an_hour, "other");
    assert!(denied == 1 && err.contains("permits no exceptions in other"), "{denied} {err}");
    assert_eq!(code("shop", &in_an_hour, "other").0, 1);
    assert_eq!(code("shop", &in_an_hour, "unselected").0, 0, "no policy covers it");
}

#[test]
fn who_renders_static_policies_is_told_how_long_exceptions_last() {
    let in_an_hour = (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1)).to_string();
    let policies = format!("{PLATFORM}{}", exception("shop", &in_an_hour));
    let told = |arguments: &[&str]| {
        let output = rampart(arguments, &policies);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{said}");
        said
    };
    assert_eq!(told(&["render", "-"]), "", "the operator ends them");
    let said = told(&["render", "--static", "-"]);
    assert!(said.starts_with("PolicyException shop/agent ends at ") && said.contains("rendered anew"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn what_is_rendered_from_standard_input_is_what_the_operator_applies() {
    let policy = |name: &str, mode: &str| {
        json!({"apiVersion": "rampart.dev/v1alpha1", "kind": "SecurityPolicy", "metadata": {"name": name},
               "spec": {"hardening": {"mode": "Enforce", "podSecurity": {"level": "baseline"}},
                        "network": {"mode": mode, "podSelector": {}, "isolate": ["Ingress"]}}})
    };
    let hold = |kind: &str| {
        json!({"apiVersion": "rampart.dev/v1alpha1", "kind": kind, "metadata": {"name": "case-17"},
               "spec": {"resources": [{"resource": "configmaps"}], "selector": {}, "indefinite": true,
                        "ground": "litigation"}})
    };
    let mut wide = hold("ClusterLegalHold");
    wide["spec"]["namespaceSelector"] = json!({});
    let list = |items: &[Value]| json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string();
    let (policies, holds) =
        (list(&[policy("on", "Enforce"), policy("off", "Disabled")]), list(&[hold("LegalHold"), wide]));
    let kinds = |arguments: &[&str], list: &str| -> Vec<String> {
        let output = rampart(arguments, list);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().filter_map(|line| line.strip_prefix("kind: ")).map(ToOwned::to_owned).collect()
    };
    let floor = ["ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"];
    assert_eq!(kinds(&["render", "-"], &policies), [&floor[..], &["NetworkPolicy"]].concat());
    assert_eq!(kinds(&["render", "--static", "-"], &policies), floor);
    for arguments in [&["render", "-"][..], &["render", "--static", "-"]] {
        assert_eq!(kinds(arguments, &holds), floor.repeat(4), "two for each hold");
    }
}

#[test]
fn a_field_that_a_policy_does_not_have_is_bad_input() {
    let policy = |name: &str, mode: &str| {
        format!(
            "---\napiVersion: rampart.dev/v1alpha1\nkind: SecurityPolicy\nmetadata: {{name: {name}, namespace: shop}}\n\
             spec: {{hardening: {{{mode}: Enforce, podSecurity: {{level: baseline}}}}}}\n"
        )
    };
    let dir = dir(&[("policy.yaml", &format!("{}{}", policy("right", "mode"), policy("wrong", "modee")))]);
    let path = dir.path().join("policy.yaml");
    let named = format!("{}:6: SecurityPolicy wrong has a field spec.hardening.modee that", shown(&path));

    let (code, out, err) = check(&["-", "--policy", shown(&path)], BAD);
    assert_eq!(code, 2, "{err}");
    assert!(
        err.starts_with(&named) && err.contains("(known there: admissionPolicy, fix, mode, podSecurity, rules)"),
        "{err}"
    );
    assert!(out.contains("[SecurityPolicy/right]"), "what is readable judges all the same: {out}");

    let output = rampart(&["render", shown(&path)], "");
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(2), "{err}");
    assert!(err.starts_with(&named) && err.lines().count() == 1, "{err}");
    assert_eq!(out.matches("kind: ValidatingAdmissionPolicy\n").count(), 1, "what is readable is rendered: {out}");
}

#[test]
fn what_says_nothing_to_a_command_is_counted_and_left_out() {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/samples");
    let output = rampart(&["render", "--network-cluster-cidrs=10.0.0.0/8", shown(&samples)], "");
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{err}");
    assert!(err.contains("rampart: 7 objects are of kinds that say nothing here\n"), "{err}");
    let there = GOOD.replace("namespace: shop", "namespace: ai-marketing-platform");
    let (code, _, err) = check(&["-", "--policy", shown(&samples)], &there);
    assert!(code != 2 && err.contains("of kinds that say nothing here"), "{err}");
    let envoys =
        "apiVersion: gateway.envoyproxy.io/v1alpha1\nkind: SecurityPolicy\nmetadata: {name: p}\nspec: {jwt: {}}\n";
    let output = rampart(&["render", "-"], envoys);
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        (output.status.code(), err.as_str()),
        (Some(0), "rampart: 1 object is of a kind that says nothing here\n")
    );
    assert!(output.stdout.is_empty(), "it is another product's kind");
}

#[test]
fn pod_security_labels_of_manifests_become_policies() {
    let namespaces = "apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {pod-security.kubernetes.io/enforce: baseline}}
---
apiVersion: v1
kind: Namespace
metadata: {name: kube-system, labels: {pod-security.kubernetes.io/enforce: baseline}}
";
    let output = rampart(&["import", "psa-labels", "-"], namespaces);
    let (text, said) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(0));
    assert!(text.contains("name: psa-enforce") && text.contains("namespace: shop"), "{text}");
    assert!(!text.contains("kube-system") && said.contains("namespace kube-system: "), "{said}");
    let broken = rampart(&["import", "psa-labels", "-"], "kind: [");
    assert_eq!(broken.status.code(), Some(2));
    let one = |name: &str| {
        let output = rampart(&["import", "psa-labels", "-", "-n", name], &namespaces.replace("kube-system", "other"));
        let [text, said] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        (output.status.code().unwrap(), text.contains("namespace: shop"), text.contains("namespace: other"), said)
    };
    assert_eq!(one("shop"), (0, true, false, String::new()));
    assert_eq!(one("typo"), (2, false, false, "rampart: there is no namespace typo\n".into()));
}

/// `rampart explain`, where there is no cluster.
fn explain(arguments: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_rampart"))
        .arg("explain")
        .args(arguments)
        .env("KUBECONFIG", "/no/such/kubeconfig")
        .output()
        .unwrap();
    assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn explaining_what_is_no_object_or_of_no_cluster_is_usage_and_without_an_answer_it_is_broken() {
    for (arguments, said) in [
        (&["web"][..], "write KIND/NAME"),
        (&["pod/"], "write KIND/NAME"),
        (&["pod/web", "--output=yaml"], "invalid value 'yaml'"),
        (&[], "KIND/NAME"),
    ] {
        let (code, err) = explain(arguments);
        assert!(code == 2 && err.contains(said), "{arguments:?}: {code} {err}");
    }
    let (code, err) = explain(&["pod/web"]);
    assert!(code == 2 && err.contains("/no/such/kubeconfig"), "{code} {err}");
    let (code, err) = explain(&["pod/web", "--kubeconfig=/no/such/file"]);
    assert!(code == 2 && err.contains("/no/such/file"), "{code} {err}");
    // Nobody listens there.
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c", "users": [],
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": ""}}],
    });
    let dir = dir(&[("kubeconfig", &kubeconfig.to_string())]);
    let kubeconfig = format!("--kubeconfig={}", dir.path().join("kubeconfig").display());
    let (code, err) = explain(&["pod/web", &kubeconfig, "--context=typo"]);
    assert!(code == 2 && err.contains("typo"), "{code} {err}");
    let (code, err) = explain(&["pod/web", &kubeconfig]);
    assert_eq!(code, 3, "{err}");
}

#[test]
fn keys_are_found_in_any_kind_and_printed_in_no_form() {
    use rampart::keys::format::ApiKeyText;
    let key = ApiKeyText::new("acme_live", "0123abcd", &[7; 32]);
    let key = key.expose();
    let leaks = [
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c, namespace: shop}}\ndata: {{f: 'k: {key}'}}\n"),
        format!("{GOOD}  hostname: {key}\n"),
        format!("apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: net, annotations: {{a: {key}}}}}\nspec: {{podSelector: {{}}}}\n"),
        format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: broken}}\nspec: {{containers: {key}}}\n"),
    ]
    .join("---\n");
    for form in ["text", "json", "sarif", "junit", "github"] {
        let (code, out, err) = check(&["-", "--output", form], &leaks);
        assert_eq!(code, 2, "one is no pod: {err}");
        let secret = &key["acme_live_0123abcd_".len()..];
        assert!(!out.contains(secret) && !err.contains(secret), "{form}: {out}{err}");
        assert_eq!(out.matches("prefix acme_live and id 0123abcd").count(), 4, "{form}: {out}");
    }
    let (code, out, _) = check(&["-", "--output=json"], leaks.split("---\n").next().unwrap());
    let told: Value = serde_json::from_str(&out).unwrap();
    let row = &told["results"][0]["violations"][0];
    assert_eq!((code, &row["rule"], &row["path"]), (1, &json!("data/apiKey"), &json!("/data/f")));
    let (code, out, _) = check(&["-"], "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a_b: c_d}\n");
    assert_eq!((code, out.as_str()), (0, "0 allowed, 0 denied, 1 without pods\n"));
}

#[test]
fn the_pattern_is_published_in_the_forms_of_scanners() {
    let pattern =
        |format: &str| String::from_utf8(rampart(&["keys", "pattern", "--format", format], "").stdout).unwrap();
    let bare = "[a-z][a-z0-9]{1,15}(?:_(?:live|test))?_[0-9a-z]{8}_[0-9A-Za-z]{49}";
    assert_eq!(pattern("regex"), format!("\\b{bare}\\b\n"));
    assert!(pattern("github").contains(&format!("Secret format: {bare}\n")));
    assert!(pattern("gitleaks").contains(&format!("regex = '''\\b{bare}\\b'''")));
    let trufflehog: Value = serde_saphyr::from_str(&pattern("trufflehog")).unwrap();
    assert_eq!(trufflehog["detectors"][0]["regex"]["key"], format!("(\\b{bare}\\b)"));
}

#[test]
fn completion_knows_every_command_and_a_plugin_says_whose_it_is() {
    for shell in ["bash", "zsh", "fish"] {
        let output = rampart(&["completion", shell], "");
        let script = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{shell}");
        assert!(["check", "retention", "explain"].iter().all(|it| script.contains(it)), "{shell}: {script}");
    }
    assert_eq!(rampart(&["completion", "cobol"], "").status.code(), Some(2));
    let dir = TempDir::new().unwrap();
    let plugin = dir.path().join("kubectl-rampart");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_rampart"), &plugin).unwrap();
    let output = Command::new(&plugin).args(["keys", "list", "--help"]).output().unwrap();
    let usage = String::from_utf8(output.stdout).unwrap();
    assert!(usage.contains("Usage: kubectl rampart keys list"), "{usage}");
}

#[test]
fn a_report_of_files_names_what_it_could_not_read() {
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/report.yaml");
    let report = |arguments: &[&str], input: &str| {
        let output = rampart(&[&["report"], arguments].concat(), input);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    };
    let (code, out, err) = report(&[fixture, "-o", "json"], "");
    let told: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &told["schemaVersion"], err.as_str()), (0, &json!(1), ""));
    let (code, out, _) = report(&[fixture, "-n", "books"], "");
    assert!(code == 0 && out.contains("books/importer") && !out.contains("shop/orders"), "{code} {out}");
    let (code, html, _) = report(&[fixture, "-o", "html"], "");
    assert!(code == 0 && html.starts_with("<!DOCTYPE html>") && html.ends_with("</html>\n"), "{code} {html}");
    let (code, out, err) =
        report(&["-"], &format!("{GOOD}---\napiVersion: rampart.dev/v1alpha1\nkind: ApiKey\nspec: 1\n"));
    assert!(code == 2 && out.contains("There are no keys"), "{code} {out}");
    assert!(err.contains("1 object is of a kind that a report does not tell of"), "{err}");
    assert!(err.contains("<stdin>:11: "), "the line is named: {err}");
    assert_eq!(report(&["/no/such/file"], "").0, 2);
    let none = (2, String::new(), "rampart: there is no namespace typo\n".to_owned());
    assert_eq!(report(&[fixture, "-n", "typo"], ""), none);
    assert_eq!(report(&["-o", "pdf"], "").0, 2, "usage");
}

/// `rampart retention approve` reads the policy to find the plan that waits.
#[test]
fn who_may_approve_a_plan_may_read_its_policy() {
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/rbac.yaml")).unwrap();
    let role = manifest.split("\n---\n").find(|it| it.contains("\n  name: rampart-admin\n")).unwrap();
    let role: Value = serde_saphyr::from_str(role).unwrap();
    let names = |rule: &Value, field: &str, wanted: &str| rule[field].as_array().unwrap().contains(&json!(wanted));
    for (resource, verb) in
        [("retentionreports", "approve"), ("retentionreports", "patch"), ("retentionpolicies", "get")]
    {
        let mut rules = role["rules"].as_array().unwrap().iter();
        assert!(rules.any(|it| names(it, "resources", resource) && names(it, "verbs", verb)), "{verb} {resource}");
    }
}
