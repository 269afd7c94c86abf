mod isolation;

use jiff::Timestamp;
use rstest::rstest;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{
    ExceptionStanding::{Active, Expired, NotPermitted, Unseen},
    KeyStanding::{InUse, Overdue, Revoked, Suspended},
    *,
};
use crate::api::DataClass::{self, Internal, Restricted};

const NOW: &str = "2026-11-27T00:00:00Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

fn of<K: DeserializeOwned>(object: &Value) -> K {
    serde_json::from_value(object.clone()).unwrap()
}

fn namespace(name: &str, labels: &[(&str, &str)]) -> Namespace {
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Namespace { name: name.into(), labels }
}

fn condition(kind: &str, status: &str, reason: &str) -> Value {
    json!({"type": kind, "status": status, "reason": reason, "message": "because", "lastTransitionTime": NOW})
}

/// A SecurityPolicy of namespace `shop`.
fn policy(name: &str, spec: &Value, status: &Value) -> SecurityPolicy {
    of(&json!({"metadata": {"name": name, "namespace": "shop", "generation": 2}, "spec": spec, "status": status}))
}

fn hardening(mode: &str, level: &str) -> Value {
    json!({"hardening": {"mode": mode, "podSecurity": {"level": level}}})
}

fn told(world: &World) -> Report {
    report(world, now())
}

fn shop(policies: Vec<SecurityPolicy>) -> World {
    World {
        namespaces: Listed { items: vec![namespace("shop", &[]), namespace("kube-system", &[])], unread: vec![] },
        policies: Listed { items: policies, unread: vec![] },
        ..World::default()
    }
}

fn control<'r>(report: &'r Report, id: &str) -> &'r Control {
    report.controls.items.iter().find(|it| it.id == id).unwrap()
}

/// Where a control is: in force, in part, asked.
fn places(report: &Report, id: &str) -> [usize; 3] {
    let control = control(report, id);
    [&control.in_force, &control.partial, &control.asked].map(Vec::len)
}

#[rstest]
#[case::refused(json!({"observedGeneration": 2, "hardening": {"enforcedBy": ["AdmissionPolicy"]}}), "Enforce", [1, 0, 0])]
#[case::of_an_older_spec(json!({"observedGeneration": 1, "hardening": {"enforcedBy": ["AdmissionPolicy"]}}), "Enforce", [0, 0, 1])]
#[case::nobody_refuses(json!({"observedGeneration": 2, "hardening": {"enforcedBy": []}}), "Enforce", [0, 0, 1])]
#[case::nobody_saw_it(json!(null), "Enforce", [0, 0, 1])]
#[case::observed(json!({"observedGeneration": 2, "hardening": {}}), "Audit", [0, 1, 0])]
#[case::disabled(json!({"observedGeneration": 2, "hardening": {}}), "Disabled", [0, 0, 0])]
fn hardening_is_in_force_where_a_status_says_so_of_the_spec_as_it_is(
    #[case] status: Value,
    #[case] mode: &str,
    #[case] wanted: [usize; 3],
) {
    let told = told(&shop(vec![policy("web", &hardening(mode, "restricted"), &status)]));
    assert_eq!(places(&told, "runAsNonRoot"), wanted);
    assert_eq!(control(&told, "runAsNonRoot").namespaces, 1, "kube-system is not counted");
}

#[test]
fn a_pause_makes_refusals_observations() {
    let status = json!({"observedGeneration": 2, "hardening": {"enforcedBy": ["Webhook"]}});
    let mut world = shop(vec![policy("web", &hardening("Enforce", "restricted"), &status)]);
    let pause = |until: &str| Pause { until: until.parse().unwrap(), reason: "fire".into() };
    world.pause.items = vec![pause("2026-11-27T01:00:00Z")];
    let paused = told(&world);
    assert_eq!((places(&paused, "seccomp"), paused.pause.is_some()), ([0, 1, 0], true));
    world.pause.items = vec![pause(NOW)];
    let over = told(&world);
    assert_eq!((places(&over, "seccomp"), over.pause), ([1, 0, 0], None));
}

#[test]
fn levels_and_versions_decide_which_checks_are_asked() {
    let status = json!({"observedGeneration": 2, "hardening": {"enforcedBy": ["Webhook"]}});
    let asks = |level: &str, version: &str| {
        let mut spec = hardening("Enforce", level);
        spec["hardening"]["podSecurity"]["version"] = json!(version);
        let told = told(&shop(vec![policy("web", &spec, &status)]));
        ["runAsNonRoot", "dropCapabilities", "readOnlyRootFilesystem"].map(|id| places(&told, id)[0])
    };
    assert_eq!(asks("restricted", "latest"), [1, 1, 0]);
    assert_eq!(asks("restricted", "v1.21"), [1, 0, 0], "capabilities are dropped since v1.22");
    assert_eq!(asks("baseline", "latest"), [0, 0, 0]);
}

#[test]
fn rules_beyond_the_standards_are_controls_too() {
    let status = json!({"observedGeneration": 2, "hardening": {"enforcedBy": ["Webhook"]}});
    let rules = |rules: Value| {
        let mut spec = hardening("Enforce", "privileged");
        spec["hardening"]["rules"] = rules;
        let told = told(&shop(vec![policy("web", &spec, &status)]));
        ["readOnlyRootFilesystem", "noServiceAccountToken"].map(|id| places(&told, id)[0])
    };
    assert_eq!(rules(json!({"readOnlyRootFilesystem": "Required", "serviceAccountToken": "Forbidden"})), [1, 1]);
    assert_eq!(rules(json!({"serviceAccountToken": "Explicit"})), [0, 0], "it may be mounted");
}

#[test]
fn a_cluster_policy_covers_by_label_and_the_strictest_is_told() {
    let wide: ClusterSecurityPolicy = of(&json!({"metadata": {"name": "platform", "generation": 1},
        "spec": {"namespaceSelector": {"matchLabels": {"team": "a"}},
                 "hardening": {"mode": "Enforce", "podSecurity": {"level": "baseline"}}},
        "status": {"observedGeneration": 1, "hardening": {"enforcedBy": ["AdmissionPolicy", "Webhook"]}}}));
    let own = policy("web", &hardening("Warn", "restricted"), &json!({"observedGeneration": 2}));
    let mut world = shop(vec![own]);
    world.namespaces.items.extend([namespace("books", &[("team", "a")]), namespace("shop", &[("team", "a")])]);
    world.cluster_policies.items = vec![wide];
    let told = told(&world);
    let by_name = |name: &str| told.posture.items.iter().find(|it| it.namespace == name).unwrap();
    let strictest = by_name("shop").hardening.as_ref().unwrap();
    assert_eq!((strictest.level, strictest.state), ("baseline", State::InForce));
    assert_eq!(by_name("shop").policies.len(), 2);
    assert_eq!(by_name("books").policies.len(), 1);
    assert!(by_name("kube-system").hardening.is_none() && by_name("kube-system").system);
}

#[test]
fn a_workload_counts_once_for_a_rule_and_the_rest_is_counted() {
    let sample = |pods: u32, rules: Value| json!({"kind": "Deployment", "name": "web", "pods": pods, "rules": rules, "message": "m"});
    let status = |samples: Value, more: Value| json!({"observedGeneration": 2, "hardening": {"samples": samples, "moreSamples": more}});
    let one = policy(
        "a",
        &hardening("Audit", "restricted"),
        &status(json!([sample(2, json!(["pss/x", "pss/y"]))]), json!(null)),
    );
    let two = policy("b", &hardening("Audit", "baseline"), &status(json!([sample(3, json!(["pss/x"]))]), json!(4)));
    let told = told(&shop(vec![one, two]));
    let counts: Vec<(&str, u32, usize)> =
        told.violations.items.iter().map(|it| (it.rule.as_str(), it.pods, it.policies.len())).collect();
    assert_eq!(counts, [("pss/x", 3, 2), ("pss/y", 2, 1)]);
    assert_eq!(
        told.violations.notes,
        ["SecurityPolicy shop/b: 4 more workloads violate it, which its status does not name"]
    );
}

#[test]
fn of_one_namespace_what_is_about_others_is_left_out() {
    let wide = |name: &str, team: &str| -> ClusterSecurityPolicy {
        let sample = |namespace: &str| json!({"namespace": namespace, "kind": "Pod", "name": "a", "pods": 1, "rules": ["pss/x"], "message": "m"});
        of(&json!({"metadata": {"name": name, "generation": 1},
            "spec": {"namespaceSelector": {"matchLabels": {"team": team}},
                     "hardening": {"mode": "Audit", "podSecurity": {"level": "baseline"}},
                     "network": {"mode": "Enforce", "podSelector": {}, "isolate": ["Ingress"]}},
            "status": {"observedGeneration": 1, "hardening": {"samples": [sample("shop"), sample("books")]}}}))
    };
    let hold = |name: &str, team: &str| -> ClusterLegalHold {
        of(&json!({"metadata": {"name": name}, "spec": {"namespaceSelector": {"matchLabels": {"team": team}},
            "resources": [{"resource": "configmaps"}], "selector": {}, "indefinite": true, "ground": "g"}}))
    };
    let mut world = World {
        only: Some("shop".into()),
        namespaces: Listed { items: vec![namespace("shop", &[("team", "a")])], unread: vec![] },
        cluster_policies: Listed { items: vec![wide("of-a", "a"), wide("of-b", "b")], unread: vec![] },
        cluster_holds: Listed { items: vec![hold("of-a", "a"), hold("of-b", "b")], unread: vec![] },
        ..World::default()
    };
    let names = |report: &Report| {
        let holds: Vec<String> = report.holds.items.iter().map(|it| it.name.clone()).collect();
        (report.network.items.iter().map(|it| it.name.clone()).collect::<Vec<_>>(), holds)
    };
    let of_a = || vec!["of-a".to_owned()];
    let told_of_it = told(&world);
    assert_eq!(names(&told_of_it), (of_a(), of_a()));
    assert_eq!(told_of_it.violations.items[0].pods, 1, "books is another");
    assert_eq!(told_of_it.posture.items.len(), 1);
    // Whose labels are not known, any may be about.
    world.namespaces = Listed { items: vec![], unread: vec!["namespaces: forbidden".into()] };
    let told = told(&world);
    assert_eq!((names(&told).0.len(), names(&told).1.len(), told.posture.items.len()), (2, 2, 1));
}

fn exception(name: &str, ends: &str, status: &Value) -> PolicyException {
    of(&json!({"metadata": {"name": name, "namespace": "shop", "generation": 1}, "status": status,
        "spec": {"policies": [{"kind": "SecurityPolicy", "name": "web"}], "rules": ["pss/privileged"], "images": ["a"],
                 "reason": "legacy", "expiresAt": ends}}))
}

#[test]
fn exceptions_end_by_the_clock_and_the_next_to_end_is_first() {
    let active = json!({"observedGeneration": 1, "state": "Active", "podsRelying": 2});
    let all = [
        exception("gone", "2026-11-26T23:59:59Z", &active),
        exception("late", "2027-01-01T00:00:00Z", &active),
        exception("soon", "2026-12-01T00:00:00Z", &json!({"observedGeneration": 1, "state": "NotPermitted"})),
        exception("new", "2027-06-01T00:00:00Z", &json!(null)),
    ];
    let told = exceptions::exceptions(&all, now());
    let told: Vec<(&str, ExceptionStanding)> = told.iter().map(|it| (it.name.as_str(), it.state)).collect();
    assert_eq!(told, [("soon", NotPermitted), ("late", Active), ("new", Unseen), ("gone", Expired)]);
}

fn key(name: &str, created: &str, due: &Value, more: &Value) -> ApiKey {
    let mut spec = json!({"owner": {"customerId": "shop"}, "audiences": ["a"], "role": "Viewer", "prefix": "shop",
                          "secret": {"name": name}});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    of(&json!({"metadata": {"name": name, "namespace": "shop", "generation": 1}, "spec": spec, "status": {
        "observedGeneration": 1, "nextRotationTime": due, "conditions": [condition("Ready", "True", "Ready")],
        "versions": [{"n": 1, "id": format!("id-{name}"), "state": "Current", "createdAt": created,
                      "expiresAt": "2027-11-27T00:00:00Z"}]}}))
}

#[test]
fn keys_stand_by_age_and_late_ones_are_named() {
    let later = json!("2026-12-27T00:00:00Z");
    let all = [
        key("young", "2026-11-20T00:00:00Z", &later, &json!({})),
        key("late", "2026-08-01T00:00:00Z", &json!("2026-11-26T22:59:59Z"), &json!({})),
        key("at-it", "2026-08-02T00:00:00Z", &json!("2026-11-26T23:30:00Z"), &json!({})),
        key("dead", "2025-01-01T00:00:00Z", &later, &json!({"revocation": {"reason": "Leaked"}})),
        key("held", "2026-10-01T00:00:00Z", &later, &json!({"suspended": true})),
    ];
    let told = keys::keys(&all, now());
    let standings: Vec<(&str, KeyStanding)> = told.iter().map(|it| (it.name.as_str(), it.state)).collect();
    let wanted = [("dead", Revoked), ("late", Overdue), ("at-it", InUse), ("held", Suspended), ("young", InUse)];
    assert_eq!(standings, wanted);
    assert_eq!(told[4].age_days, Some(7));
    let bands: Vec<usize> = keys::by_age(&told).iter().map(|band| band.keys).collect();
    assert_eq!(bands, [1, 1, 2, 0], "a revoked key is not in use");
    let ended = Timestamp::from_second(now().as_second() + 366 * 86_400).unwrap();
    assert_eq!(keys::keys(&all, ended)[1].state, KeyStanding::Expired);
}

#[rstest]
#[case::generated(json!({}), [1, 0, 0])]
#[case::not_reconciled(json!({"suspend": true}), [0, 0, 1])]
#[case::supplied_by_a_person(json!({"source": {"imported": {"secretRef": {"name": "own", "key": "token"}}}}), [0, 0, 1])]
fn a_key_that_waits_for_somebody_does_not_rotate_by_itself(#[case] more: Value, #[case] wanted: [usize; 3]) {
    let mut world = shop(vec![]);
    world.keys.items = vec![key("k", NOW, &json!("2026-12-27T00:00:00Z"), &more)];
    assert_eq!(places(&told(&world), "keyRotation"), wanted);
    world.keys.items.push(key("other", NOW, &json!("2026-12-27T00:00:00Z"), &json!({})));
    let wanted = if wanted == [1, 0, 0] { wanted } else { [0, 1, 0] };
    assert_eq!(places(&told(&world), "keyRotation"), wanted);
}

#[test]
fn a_key_in_json_has_nothing_but_what_its_status_shows() {
    let world = World {
        keys: Listed { items: vec![key("k", NOW, &json!(null), &json!({}))], unread: vec![] },
        ..World::default()
    };
    let told = serde_json::to_value(told(&world)).unwrap();
    let fields: Vec<&str> = told["keys"]["items"][0].as_object().unwrap().keys().map(String::as_str).collect();
    let known = "ageDays createdAt expiresAt grants imported name namespace owner prefix ready reason rotation state \
                 suspend versions";
    assert_eq!(fields, known.split(' ').collect::<Vec<_>>());
}

#[test]
fn retention_is_told_by_class_and_what_has_no_effect_is_not_in_force() {
    let policy = |namespace: &str, class: Value, mode: &str, suspend: bool| -> RetentionPolicy {
        of(&json!({"metadata": {"name": "old", "namespace": namespace, "generation": 1},
            "spec": {"mode": mode, "suspend": suspend, "serviceAccountName": "retention", "dataClass": class,
                     "maxAge": "24h",
                     "targets": [{"resources": {"apiVersion": "batch/v1", "kind": "Job", "selector": {}}}]},
            "status": {"observedGeneration": 1, "conditions": [condition("Ready", "True", "Ready")]}}))
    };
    let items = vec![
        policy("shop", json!("Restricted"), "Enforce", false),
        policy("books", json!("Internal"), "DryRun", false),
        policy("stopped", json!("Internal"), "Enforce", true),
        policy("default", json!(null), "Enforce", false),
    ];
    let told = told(&World { retention: Listed { items, unread: vec![] }, ..World::default() });
    let classes: Vec<Option<DataClass>> = told.retention.items.iter().map(|it| it.class).collect();
    assert_eq!(classes, [Some(Restricted), Some(Internal), None]);
    let broken = &told.retention.items[2].policies[0];
    assert!(!broken.ready && broken.reason.contains("protected") && broken.max_age.is_none(), "{broken:?}");
    assert_eq!(places(&told, "retention"), [1, 1, 2]);
    assert_eq!(control(&told, "retention").asked, ["default", "stopped"]);
    assert_eq!(control(&told, "dataClassification").in_force, ["books", "shop", "stopped"]);
}

#[test]
fn what_was_not_read_stands_in_its_section_and_at_the_top() {
    let mut world = shop(vec![]);
    world.policies.unread = vec!["securitypolicies: forbidden".into()];
    world.keys.unread = vec!["apikeys: forbidden".into()];
    let told = told(&world);
    assert_eq!(told.unread, ["securitypolicies: forbidden", "apikeys: forbidden"]);
    assert_eq!(told.posture.unread, ["securitypolicies: forbidden"]);
    assert_eq!(told.keys.unread, ["apikeys: forbidden"]);
    assert_eq!(told.controls.unread.len(), 2);
    assert!(told.exceptions.unread.is_empty());
}

#[test]
fn what_can_not_be_parsed_is_told_and_the_rest_all_the_same() {
    let broken = policy(
        "broken",
        &json!({"network": {"podSelector": {"matchLabels": {"a b": ""}}, "isolate": ["Ingress"]}}),
        &json!(null),
    );
    let status = json!({"observedGeneration": 2, "hardening": {"enforcedBy": ["Webhook"]}});
    let told = told(&shop(vec![broken, policy("web", &hardening("Enforce", "restricted"), &status)]));
    assert!(
        told.posture.notes[0].starts_with("SecurityPolicy shop/broken has no effect: spec.network.podSelector"),
        "{:?}",
        told.posture.notes
    );
    assert_eq!(places(&told, "runAsNonRoot"), [1, 0, 0]);
}

#[test]
fn every_mapping_has_ids_and_a_source_and_each_framework_is_supported() {
    let told = told(&World::default());
    let all: Vec<&Mapping> = told.controls.items.iter().flat_map(|it| it.supports).collect();
    for framework in FRAMEWORKS {
        assert!(all.iter().any(|it| it.framework == framework), "{framework}");
    }
    for mapping in all {
        assert!(!mapping.requirements.is_empty() && !mapping.sources.is_empty(), "{mapping:?}");
        assert!(mapping.requirements.iter().all(|id| id.len() >= 2 && !id.contains(' ')), "{mapping:?}");
        // What nobody else says is never said in their name.
        assert!(mapping.relation == Relation::Supports || mapping.sources == [Source::ProjectJudgement], "{mapping:?}");
    }
    let ids: std::collections::BTreeSet<&str> = told.controls.items.iter().map(|it| it.id).collect();
    assert_eq!(ids.len(), told.controls.items.len(), "ids are unique");
}

#[test]
fn what_controls_look_for_exists() {
    let checks: Vec<String> = rampart_pss::CHECKS.iter().map(|it| crate::hardening::rule_of_check(it.id)).collect();
    let rules = crate::hardening::RULES.iter().map(|about| about.rule());
    let known: Vec<String> = checks.into_iter().chain(rules).collect();
    for asked in controls::asked() {
        assert!(known.iter().any(|it| it == asked), "{asked}");
    }
}
