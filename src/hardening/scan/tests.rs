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
    let covering = Covering { origin: Origin::SecurityPolicy("own".into()), requirement, exceptions: Arc::default() };
    let wide: ClusterSecurityPolicy = serde_json::from_value(json!({
        "apiVersion": "rampart.dev/v1alpha1", "kind": "ClusterSecurityPolicy", "metadata": {"name": "wide"},
        "spec": {"namespaceSelector": {"matchLabels": {"a": "b"}}, "hardening": hardening,
                 "exceptions": {"namespaces": ["n"], "maxDuration": "1000h"}}}))
    .unwrap();
    let labels: BTreeMap<_, _> = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Policies {
        own: Arc::new([("n".to_owned(), [covering].into())].into()),
        wide: Arc::new([("wide".to_owned(), ClusterWide::try_from(&wide).unwrap())].into()),
        labels: Arc::new([("n".to_owned(), labels)].into()),
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
    let web = Workload { kind: "Deployment".into(), name: "web".into() };
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
