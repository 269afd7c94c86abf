use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::{Value, json};

use super::*;
use crate::{
    api::{ClusterSecurityPolicy, PodCounts, PolicyException, SecurityPolicy},
    hardening::{ClusterWide, Exception, Origin, Requirement},
};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

/// A SecurityPolicy `own` in `n`, and a ClusterSecurityPolicy `wide` that covers namespaces labelled `a: b`.
fn policies(level: &str, labels: &[(&str, &str)], exceptions: Vec<Exception>) -> Policies {
    let hardening = json!({"mode": "Audit", "podSecurity": {"level": level}});
    let own: SecurityPolicy = serde_json::from_value(json!({
        "apiVersion": "rampart.dev/v1alpha1", "kind": "SecurityPolicy", "metadata": {"name": "own", "namespace": "n"},
        "spec": {"hardening": hardening}}))
    .unwrap();
    let requirement = Requirement::try_from(&own.spec.hardening.unwrap()).unwrap();
    let origin = Origin::SecurityPolicy("own".into());
    let covering = Covering { origin, made: None, requirement, exceptions: Arc::default() };
    let wide: ClusterSecurityPolicy = serde_json::from_value(json!({
        "apiVersion": "rampart.dev/v1alpha1", "kind": "ClusterSecurityPolicy", "metadata": {"name": "wide"},
        "spec": {"namespaceSelector": {"matchLabels": {"a": "b"}}, "hardening": hardening,
                 "exceptions": {"namespaces": ["n"], "maxDuration": "1000h"}}}))
    .unwrap();
    let labels: BTreeMap<_, _> = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Policies {
        own: Arc::new([("n".to_owned(), [covering].into())].into()),
        wide: Arc::new([("wide".to_owned(), ClusterWide::try_from(&wide).unwrap())].into()),
        labels: Arc::new([("n".to_owned(), Arc::new(labels))].into()),
        exceptions: Arc::new([("n".to_owned(), exceptions)].into()),
    }
}

fn exception(name: &str, rule: &str, end: i64) -> Exception {
    exception_of(name, "**", rule, end)
}

fn exception_of(name: &str, image: &str, rule: &str, end: i64) -> Exception {
    let exception: PolicyException = serde_json::from_value(json!({
        "apiVersion": "rampart.dev/v1alpha1", "kind": "PolicyException",
        "metadata": {"name": name, "namespace": "n", "creationTimestamp": at(0).to_string()},
        "spec": {"policies": [{"kind": "SecurityPolicy", "name": "own"}], "rules": [rule], "images": [image],
                 "reason": "why", "expiresAt": at(end).to_string()}}))
    .unwrap();
    Exception::try_from(&exception).unwrap()
}

fn pod(spec: &Value, owner: Option<&str>) -> Option<Kept> {
    let owner = owner.map(|uid| {
        vec![OwnerReference {
            api_version: "apps/v1".into(),
            kind: "ReplicaSet".into(),
            name: "web-1".into(),
            uid: uid.into(),
            controller: Some(true),
            ..OwnerReference::default()
        }]
    });
    let namespace = Some("n".to_owned());
    Kept::of(&ObjectMeta { namespace, owner_references: owner, ..ObjectMeta::default() }, json!({"spec": spec}))
}

fn good() -> Value {
    json!({"containers": [{"name": "a", "image": "x"}]})
}

fn bad() -> Value {
    json!({"hostNetwork": true, "containers": [{"name": "a", "image": "x"}]})
}

fn counts(selected: u32, compliant: u32, violating: u32, exempt: u32) -> PodCounts {
    PodCounts { selected, compliant, violating, exempt }
}

fn own(report: &Report) -> &Counted {
    &report.own[&("n".to_owned(), "own".to_owned())]
}

#[test]
fn pods_are_counted_by_policy_as_pods_and_policies_change() {
    let mut scan = Scan::default();
    let mut all = policies("baseline", &[], vec![]);
    scan.cover(&all, at(1));
    scan.put("n", "good", pod(&good(), None), &all, at(1));
    scan.put("n", "bad", pod(&bad(), None), &all, at(1));
    scan.put("elsewhere", "bad", pod(&bad(), None), &all, at(1));
    let report = scan.report(&Owners::new());
    assert_eq!(own(&report).pods, counts(2, 1, 1, 0));
    assert_eq!((report.wide["wide"].pods, report.pods), (PodCounts::default(), counts(2, 1, 1, 0)));
    assert_eq!(own(&report).samples[0].rules, ["pss/hostNamespaces"]);

    all = policies("restricted", &[("a", "b")], vec![]);
    scan.cover(&all, at(2));
    let report = scan.report(&Owners::new());
    assert_eq!((own(&report).pods, report.wide["wide"].pods), (counts(2, 0, 2, 0), counts(2, 0, 2, 0)));
    assert_eq!(report.wide["wide"].samples[0].namespace.as_deref(), Some("n"));

    scan.put("n", "good", None, &all, at(2));
    scan.remove("n", "bad");
    assert_eq!(own(&scan.report(&Owners::new())).pods, PodCounts::default());
}

#[test]
fn an_exception_exempts_until_it_ends_and_knows_who_relies_on_it() {
    let mut scan = Scan::default();
    let all = policies(
        "baseline",
        &[],
        vec![exception("host", "pss/hostNamespaces", 10), exception("ports", "pss/hostPorts", 20)],
    );
    scan.cover(&all, at(1));
    scan.put("n", "good", pod(&good(), None), &all, at(1));
    scan.put("n", "bad", pod(&bad(), None), &all, at(1));
    let report = scan.report(&Owners::new());
    assert_eq!(own(&report).pods, counts(2, 1, 0, 1));
    let relying: Vec<_> = report.relying.iter().map(|((_, name), pods)| (name.as_str(), *pods)).collect();
    assert_eq!(relying, [("host", 1), ("ports", 0)]);
    assert_eq!(scan.next_end(), Some(at(10)));

    scan.cover(&all, at(10));
    let report = scan.report(&Owners::new());
    assert_eq!(own(&report).pods, counts(2, 1, 1, 0));
    assert_eq!(scan.next_end(), Some(at(20)));
}

#[test]
fn exceptions_that_are_needed_together_are_both_relied_on() {
    let of = |name: &str, image: &str| exception_of(name, image, "pss/hostNamespaces", 10);
    let all = policies("baseline", &[], vec![of("one", "x"), of("two", "y"), of("idle", "z")]);
    let mut scan = Scan::default();
    scan.cover(&all, at(1));
    let spec = json!({"hostNetwork": true, "containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "y"}]});
    scan.put("n", "both", pod(&spec, None), &all, at(1));
    let report = scan.report(&Owners::new());
    assert_eq!(own(&report).pods, counts(1, 0, 0, 1));
    let relying: Vec<_> = report.relying.iter().map(|((_, name), pods)| (name.as_str(), *pods)).collect();
    assert_eq!(relying, [("idle", 0), ("one", 1), ("two", 1)]);
}

#[test]
fn pods_fold_into_a_workload_that_is_there_and_only_where_they_violate_alike() {
    let mut scan = Scan::default();
    let all = policies("baseline", &[], vec![]);
    scan.cover(&all, at(1));
    let mut worse = bad();
    worse["hostPID"] = json!(true);
    for (name, spec, owner) in [
        ("web-1-a", bad(), "real"),
        ("web-1-b", bad(), "real"),
        ("web-1-c", worse, "real"),
        ("stray", bad(), "made-up"),
    ] {
        scan.put("n", name, pod(&spec, Some(owner)), &all, at(1));
    }
    let web = web();
    let read = |controller: Controller| {
        let workload = (controller.uid == "real").then(|| web.clone());
        (controller, workload)
    };
    let owners: Owners = scan.controllers().into_iter().map(read).collect();
    assert_eq!(owners.len(), 2);
    let report = scan.report(&owners);
    let shown: Vec<_> = own(&report).samples.iter().map(|it| (it.kind.as_str(), it.name.as_str(), it.pods)).collect();
    assert_eq!(shown, [("Deployment", "web", 2), ("Deployment", "web", 1), ("Pod", "stray", 1)]);
}

#[test]
fn no_more_than_twenty_samples_and_the_rest_counted() {
    let mut scan = Scan::default();
    let all = policies("baseline", &[], vec![]);
    scan.cover(&all, at(1));
    for number in 0..23 {
        scan.put("n", &format!("pod-{number}"), pod(&bad(), None), &all, at(1));
    }
    let report = scan.report(&Owners::new());
    assert_eq!((own(&report).samples.len(), own(&report).more, own(&report).pods.violating), (20, 3, 23));
}

#[test]
fn a_list_forgets_what_is_gone() {
    let mut scan = Scan::default();
    let all = policies("baseline", &[], vec![]);
    scan.cover(&all, at(1));
    scan.put("n", "here", pod(&bad(), None), &all, at(1));
    scan.put("n", "gone", pod(&bad(), None), &all, at(1));
    scan.retain(&[("n".to_owned(), "here".to_owned())].into());
    assert_eq!(own(&scan.report(&Owners::new())).pods, counts(1, 0, 1, 0));
}

fn web() -> Workload {
    Workload { api_version: "apps/v1".into(), kind: "Deployment".into(), name: "web".into(), uid: "web-uid".into() }
}

/// Every controller that is asked for is the Deployment's.
fn of_web(scan: &Scan) -> Owners {
    scan.controllers().into_iter().map(|controller| (controller, Some(web()))).collect()
}

fn reports(scan: &Scan, owners: &Owners) -> Vec<OpenReport> {
    scan.open_reports(owners).collect()
}

#[test]
fn a_report_is_of_a_workload_that_violates_and_says_the_same_while_the_same_is_wrong() {
    let mut scan = Scan::default();
    let all = policies("baseline", &[], vec![]);
    scan.cover(&all, at(1));
    scan.put("n", "good", pod(&good(), None), &all, at(1));
    scan.put("n", "web-1-a", pod(&bad(), Some("one")), &all, at(1));
    let report = json!({
        "source": "rampart",
        "scope": {"apiVersion": "apps/v1", "kind": "Deployment", "namespace": "n", "name": "web", "uid": "web-uid"},
        "configuration": {"limits": {"maxResults": 50, "statusFilter": ["fail", "error"]}},
        "summary": {"pass": 0, "fail": 1, "warn": 0, "error": 0, "skip": 0},
        "results": [{
            "policy": "SecurityPolicy/own", "rule": "pss/hostNamespaces",
            "category": "Pod Security Standards (Baseline)", "severity": "high", "result": "fail", "scored": true,
            "message": "host namespaces (hostNetwork=true)",
            "properties": {"mode": "Audit", "standard": "baseline:latest"},
        }],
    });
    let before = reports(&scan, &of_web(&scan));
    assert_eq!(before.iter().map(|it| &it.content).collect::<Vec<_>>(), [&report]);
    assert_eq!((before[0].name().as_str(), before[0].namespace.as_str()), ("rampart-web-uid", "n"));

    // More pods, another ReplicaSet, later.
    scan.put("n", "web-1-b", pod(&bad(), Some("one")), &all, at(2));
    scan.put("n", "web-2-a", pod(&bad(), Some("two")), &all, at(2));
    scan.cover(&all, at(3));
    assert_eq!(reports(&scan, &of_web(&scan)), before);

    for name in ["web-1-a", "web-1-b"] {
        scan.put("n", name, pod(&good(), Some("one")), &all, at(4));
    }
    assert_eq!(reports(&scan, &of_web(&scan)), before);
    let mut ending = pod(&bad(), Some("two")).unwrap();
    ending.ending = true;
    scan.put("n", "web-2-a", Some(ending), &all, at(4));
    assert_eq!(reports(&scan, &of_web(&scan)), []);
}

#[test]
fn the_gravest_is_told_first_and_what_exceptions_cover_not_at_all() {
    let mut scan = Scan::default();
    let all = policies("restricted", &[("a", "b")], vec![exception("net", "pss/hostNamespaces", 10)]);
    scan.cover(&all, at(1));
    scan.put("n", "bad", pod(&bad(), None), &all, at(1));
    let told = |scan: &Scan| -> Vec<(String, String, String)> {
        let content = reports(scan, &Owners::new()).remove(0).content;
        let text = |it: &Value, field: &str| it[field].as_str().unwrap_or_default().to_owned();
        let results = content["results"].as_array().unwrap();
        results.iter().map(|it| (text(it, "severity"), text(it, "policy"), text(it, "rule"))).collect()
    };
    let (first, rest) = (told(&scan)[0].clone(), told(&scan)[1..].to_vec());
    let wide = ("high".to_owned(), "ClusterSecurityPolicy/wide".to_owned(), "pss/hostNamespaces".to_owned());
    assert_eq!(first, wide, "the exception is from the other policy");
    assert!(!rest.is_empty() && rest.iter().all(|(severity, ..)| severity == "medium"), "{rest:?}");
    assert!(rest.iter().all(|(.., rule)| rule != "pss/hostNamespaces"));

    scan.cover(&all, at(10));
    assert_eq!(told(&scan)[1].2, "pss/hostNamespaces", "the exception has ended");
}

#[test]
fn a_report_holds_fifty_results_and_counts_all() {
    let mut all = policies("restricted", &[], vec![]);
    let mut own: Vec<Covering> = all.own["n"].to_vec();
    for number in 0..20 {
        own.push(Covering { origin: Origin::SecurityPolicy(format!("p{number:02}")), ..own[0].clone() });
    }
    all.own = Arc::new([("n".to_owned(), own.into())].into());
    let mut scan = Scan::default();
    scan.cover(&all, at(1));
    scan.put("n", "bad", pod(&bad(), None), &all, at(1));
    let content = reports(&scan, &Owners::new()).remove(0).content;
    let results = content["results"].as_array().unwrap();
    assert_eq!(results.len(), 50);
    assert_eq!(content["summary"]["fail"].as_u64(), Some(21 * 5), "hostNamespaces and four of restricted: {content}");
    assert!(results[..21].iter().all(|it| it["severity"] == "high") && results[21]["severity"] == "medium");
    assert!(content.to_string().len() < 20_000, "{} bytes", content.to_string().len());
}

#[test]
fn a_pod_that_cannot_be_read_is_an_error_and_long_words_are_cut() {
    let mut scan = Scan::default();
    let all = policies("baseline", &[], vec![]);
    scan.cover(&all, at(1));
    scan.put("n", "odd", pod(&json!({"containers": 1}), None), &all, at(1));
    let content = reports(&scan, &Owners::new()).remove(0).content;
    assert_eq!((&content["summary"]["fail"], &content["summary"]["error"]), (&json!(0), &json!(1)));
    assert_eq!((&content["results"][0]["result"], &content["results"][0]["rule"]), (&json!("error"), &Value::Null));

    let container = |number: usize| {
        json!({"name": format!("{}-{number}", "c".repeat(60)), "image": "x",
               "securityContext": {"privileged": true}})
    };
    let many: Vec<Value> = (0..100).map(container).collect();
    scan.put("n", "odd", pod(&json!({"containers": many}), None), &all, at(1));
    let content = reports(&scan, &Owners::new()).remove(0).content;
    assert_eq!(content["results"][0]["message"].as_str().unwrap().chars().count(), 512);
}
