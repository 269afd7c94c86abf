use jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{decide, kinds, known::Known, terrain::Inhabitant};
use crate::cli::terminal::Paint;

/// As it is where it is piped.
fn text(told: &decide::Explanation) -> String {
    super::text::text(told, Paint::default())
}

fn of<K: DeserializeOwned>(objects: &[Value]) -> Vec<K> {
    objects.iter().map(|object| serde_json::from_value(object.clone()).unwrap()).collect()
}

/// A pod of a Deployment, that is called after it.
fn pod(namespace: &str, app: &str, nth: usize) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("{app}-7d9f-{nth}"), "namespace": namespace, "uid": format!("{app}-{nth}"),
            "labels": {"app": app, "pod-template-hash": "7d9f"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{app}-7d9f"),
                                 "uid": "r", "controller": true}]},
        "spec": {"containers": [{"name": "main", "image": "registry.example.com/app:1",
                                 "env": [{"name": "PASSWORD", "value": "hunter2"}]}]}})
}

fn rendered(name: &str, owner: &str, spec: &Value) -> Value {
    let labels = json!({"app.kubernetes.io/managed-by": "rampart", "rampart.dev/owner-kind": "SecurityPolicy",
        "rampart.dev/owner-name": owner, "rampart.dev/owner-uid": owner});
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": "shop", "labels": labels}, "spec": spec})
}

fn security_policy(name: &str, spec: &Value, status: &Value) -> Value {
    json!({"apiVersion": "rampart.dev/v1alpha1", "kind": "SecurityPolicy",
        "metadata": {"name": name, "namespace": "shop", "uid": name, "generation": 1}, "spec": spec, "status": status})
}

/// A shop of two tiers: what reaches `web` is in force, what would reach `db` is a preview.
fn shop() -> Known {
    let pods = [("shop", "web", 0), ("shop", "web", 1), ("shop", "db", 0), ("ingress", "nginx", 0)];
    let pods = pods.map(|(namespace, app, nth)| pod(namespace, app, nth));
    let app = |app: &str| json!({"matchLabels": {"app": app}});
    let web = json!({"podSelector": app("web"), "policyTypes": ["Ingress"], "ingress": [
        {"from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress"}}},
                  {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}}],
         "ports": [{"port": 8000, "protocol": "TCP"}]}]});
    let ready = json!({"observedGeneration": 1, "conditions": [
        {"type": "Programmed", "status": "True", "reason": "Programmed", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"},
        {"type": "Ready", "status": "True", "reason": "Ready", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
        "hardening": {"enforcedBy": ["Webhook", "AdmissionPolicy"]}});
    let web_asks = json!({
        "hardening": {"mode": "Enforce", "podSecurity": {"level": "restricted"}},
        "network": {"mode": "Enforce", "podSelector": app("web"), "isolate": ["Ingress"]}});
    let callers = json!({"name": "web", "peers": [{"pods": {"selector": app("web")}}], "ports": [{"port": 5432}]});
    let db_asks = json!({"network": {
        "mode": "Preview", "podSelector": app("db"), "isolate": ["Ingress"], "ingress": [callers]}});
    let seen = json!({"observedGeneration": 1});
    let policies = [security_policy("web", &web_asks, &ready), security_policy("db", &db_asks, &seen)];
    let wide = json!({"apiVersion": "rampart.dev/v1alpha1", "kind": "ClusterSecurityPolicy", "metadata": {"name": "platform"},
        "spec": {"namespaceSelector": {}, "hardening": {"mode": "Warn", "podSecurity": {"level": "baseline"}},
                 "exceptions": {"namespaces": ["shop"], "maxDuration": "8760h"}}});
    let exception = json!({"apiVersion": "rampart.dev/v1alpha1", "kind": "PolicyException",
        "metadata": {"name": "root", "namespace": "shop", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"policies": [{"kind": "SecurityPolicy", "name": "web"}], "rules": ["pss/runAsNonRoot"],
                 "images": ["registry.example.com/app"], "reason": "a test", "expiresAt": "2026-12-01T00:00:00Z"}});
    let namespace = |name: &str, labels: Value| json!({"name": name, "labels": labels});
    Known {
        namespaces: of(&[namespace("shop", json!({})), namespace("ingress", json!({}))]),
        pods: pods.iter().filter_map(|pod| Inhabitant::of(&serde_json::from_value(pod.clone()).unwrap())).collect(),
        network_policies: of(&[rendered("rampart-web-1", "web", &web)]),
        policies: of(&policies),
        cluster_policies: of(&[wide]),
        exceptions: of(&[exception]),
        ..Known::default()
    }
}

fn explained(asked: &str, object: &Value, known: &Known) -> decide::Explanation {
    let now: Timestamp = "2026-06-01T00:00:00Z".parse().unwrap();
    let object: DynamicObject = serde_json::from_value(object.clone()).unwrap();
    decide::explain(kinds::parse(asked).unwrap().kind.listed().unwrap(), &object, known, now)
}

#[test]
fn a_pod() {
    let told = explained("pod/web-7d9f-0", &pod("shop", "web", 0), &shop());
    insta::assert_snapshot!(text(&told));
}

#[test]
fn a_pod_in_json() {
    let told = explained("pod/db-7d9f-0", &pod("shop", "db", 0), &shop());
    insta::assert_json_snapshot!(told);
}

#[test]
fn a_deployment_is_told_as_one_of_its_pods() {
    let deployment = |name: &str, app: &str| {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "shop"},
            "spec": {"template": {"metadata": {"labels": {"app": app}}, "spec": {"containers": [{"name": "main", "image": "a"}]}}}})
    };
    let of_pods = |it: &decide::Explanation| {
        let network = it.network.as_ref().unwrap();
        (network.ingress.isolated_by.len(), it.hardening.as_ref().unwrap().admitted)
    };
    let told = explained("deploy/web", &deployment("web", "web"), &shop());
    assert!(told.notes.is_empty() && of_pods(&told) == (1, false), "{told:?}");
    // None is there, and one that it would make is selected all the same.
    let told = explained("deploy/new", &deployment("new", "web"), &shop());
    assert!(told.notes[0].starts_with("no pods of it are there") && of_pods(&told) == (1, false), "{told:?}");
}

#[test]
fn policies_and_namespaces() {
    let known = shop();
    let namespace = explained("ns/shop", &json!({"metadata": {"name": "shop"}}), &known);
    let web = serde_json::to_value(&known.policies[0]).unwrap();
    let rendered = serde_json::to_value(&known.network_policies[0]).unwrap();
    let (web, rendered) = (explained("rsp/web", &web, &known), explained("netpol/rampart-web-1", &rendered, &known));
    insta::assert_snapshot!([namespace, web, rendered].iter().map(text).collect::<Vec<_>>().join("---\n"));
}

#[test]
fn when_a_job_goes_and_what_holds_it() {
    let policy = |mode: &str, least: usize| {
        json!({"apiVersion": "rampart.dev/v1alpha1", "kind": "RetentionPolicy",
            "metadata": {"name": "exports", "namespace": "shop", "uid": "r"},
            "spec": {"mode": mode, "serviceAccountName": "retention", "maxAge": "720h",
                "safety": {"minRemaining": least}, "targets": [{"resources": {
                "apiVersion": "v1", "kind": "ConfigMap", "selector": {"matchLabels": {"data": "export"}}}}]}})
    };
    let mark = json!({"policyUID": "r", "markedAt": "2026-05-31T12:00:00Z", "deleteAfter": "2026-06-01T12:00:00Z", "uid": "u"});
    let map = json!({"metadata": {"name": "a", "namespace": "shop", "uid": "u", "labels": {"data": "export"},
        "creationTimestamp": "2026-05-01T00:00:00Z", "annotations": {"rampart.dev/retention-mark": mark.to_string()}}});
    let told_of = |policy: Value, labels: Value| {
        let namespaces = of(&[json!({"name": "shop", "labels": labels})]);
        let known = Known { namespaces, retention: of(&[policy]), ..Known::default() };
        let text = text(&explained("cm/a", &map, &known));
        text.split_once("RETENTION\n").unwrap().1.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let told = |mode: &str, labels: Value| told_of(policy(mode, 0), labels);
    let decided = "is marked, and will be deleted after the grace period; too old from 2026-05-31T00:00:00Z; \
                   marked at 2026-05-31T12:00:00Z; goes after 2026-06-01T12:00:00Z";
    let allowed = json!({"rampart.dev/retention": "allowed"});
    assert_eq!(told("Enforce", allowed.clone()), format!("RetentionPolicy exports (Enforce): {decided}"));
    assert!(told("Enforce", json!({})).ends_with("held: its namespace is not labelled rampart.dev/retention=allowed"));
    let least = told_of(policy("Enforce", 3), allowed.clone());
    let unless =
        "after the grace period, unless it is one of the 3 youngest of its target (safety.minRemaining); too old";
    assert!(least.contains(unless), "{least}");
    assert!(told("DryRun", allowed).ends_with("held: DryRun marks and deletes nothing"));
}

#[test]
fn a_namespace_tells_which_retention_is_suspended() {
    let policy = |name: &str, suspend: bool| {
        json!({"apiVersion": "rampart.dev/v1alpha1", "kind": "RetentionPolicy",
            "metadata": {"name": name, "namespace": "shop"},
            "spec": {"suspend": suspend, "mode": "Enforce", "serviceAccountName": "retention", "maxAge": "720h",
                "targets": [{"resources": {"apiVersion": "v1", "kind": "ConfigMap", "selector": {}}}]}})
    };
    let known = Known { retention: of(&[policy("exports", true), policy("logs", false)]), ..Known::default() };
    let told = text(&explained("ns/shop", &json!({"metadata": {"name": "shop"}}), &known));
    assert!(told.contains("RetentionPolicy exports: Enforce after 720h: ConfigMap; suspended\n"), "{told}");
    assert!(told.contains("RetentionPolicy logs: Enforce after 720h: ConfigMap\n"), "{told}");
}

#[test]
fn who_holds_an_object() {
    let hold = |kind: &str, name: &str, spec: Value| {
        let mut terms = json!({"resources": [{"resource": "configmaps"}], "selector": {"matchLabels": {"case": "17"}},
                               "ground": "litigation"});
        terms.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        json!({"apiVersion": "rampart.dev/v1alpha1", "kind": kind, "metadata": {"name": name, "namespace": "shop",
               "generation": 1}, "spec": terms, "status": {"observedGeneration": 1, "state": "Expired"}})
    };
    let until = |until: &str| json!({"until": until, "caseRef": "C-17"});
    let wide = json!({"indefinite": true, "namespaceSelector": {"matchLabels": {"tier": "web"}}});
    let known = Known {
        namespaces: of(&[json!({"name": "shop", "labels": {"tier": "web"}})]),
        holds: of(&[
            hold("LegalHold", "goes-on", until("2027-01-01T00:00:00Z")),
            hold("LegalHold", "over", until("2026-01-01T00:00:00Z")),
        ]),
        cluster_holds: of(&[hold("ClusterLegalHold", "wide", wide)]),
        ..Known::default()
    };
    let map = |case: &str| json!({"metadata": {"name": "a", "namespace": "shop", "labels": {"case": case}}});
    let told = text(&explained("cm/a", &map("17"), &known));
    let lines: Vec<&str> = told.lines().map(str::trim).filter(|line| line.starts_with("held by ")).collect();
    let wanted = [
        "held by LegalHold/goes-on until 2027-01-01T00:00:00Z: litigation, case C-17",
        "held by ClusterLegalHold/wide until it is released: litigation",
    ];
    assert_eq!(lines, wanted, "{told}");
    assert!(!text(&explained("cm/a", &map("18"), &known)).contains("held by "));
    let namespace = text(&explained("ns/shop", &json!({"metadata": {"name": "shop"}}), &known));
    assert!(namespace.contains("LegalHold goes-on: holds configmaps, until 2027-01-01T00:00:00Z"), "{namespace}");
    assert!(!namespace.contains("over"), "{namespace}");
}

#[test]
fn what_a_hold_keeps_and_whether_it_does() {
    let told_of = |kind: &str, more: &Value, state: &Value| {
        let mut spec = json!({"resources": [{"resource": "jobs", "group": "batch"}], "ground": "litigation",
            "selector": {"matchLabels": {"case": "17"}}, "caseRef": "C-17"});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let mut status = json!({"observedGeneration": 1});
        status.as_object_mut().unwrap().extend(state.as_object().unwrap().clone());
        let namespace = (kind == "rhold").then_some("shop");
        let hold = json!({"metadata": {"name": "case", "namespace": namespace, "generation": 1}, "spec": spec, "status": status});
        let tiers = [json!({"name": "shop", "labels": {"tier": "web"}}), json!({"name": "books", "labels": {}})];
        let seen = super::known::Seen { namespaces: super::known::Extent::Whole, ..Default::default() };
        let known = Known { namespaces: of(&tiers), seen, ..Known::default() };
        text(&explained(&format!("{kind}/case"), &hold, &known))
    };
    let ready = |status: &str, reason: &str| {
        json!([{"type": "Ready", "status": status, "reason": reason, "message": "why",
                "lastTransitionTime": "2026-02-01T00:00:00Z"}])
    };
    let active = json!({"state": "Active", "conditions": ready("True", "Active")});
    let told = told_of("rhold", &json!({"until": "2027-01-01T00:00:00Z"}), &active);
    let wanted = "LegalHold shop/case\n  in force since 2026-02-01T00:00:00Z; until 2027-01-01T00:00:00Z\n  \
                  ground: litigation, case C-17\n  \
                  to see what it holds: kubectl get jobs.batch -n shop -l 'case=17'\n";
    assert_eq!(told, wanted);
    let wide = json!({"indefinite": true, "namespaceSelector": {"matchLabels": {"tier": "web"}}});
    let pending = json!({"state": "Pending", "conditions": ready("False", "UnknownResource")});
    let told = told_of("rchold", &wide, &pending);
    for line in [
        "ClusterLegalHold case\n",
        "  Ready=False, UnknownResource: why\n",
        "  not in force yet; until it is released\n",
        "  namespaces that it covers: shop\n",
    ] {
        assert!(told.contains(line), "{told}");
    }
    let over = json!({"state": "Expired", "conditions": ready("False", "Expired")});
    assert!(
        told_of("rhold", &json!({"until": "2026-01-01T00:00:00Z"}), &over).contains("  over: nothing is held by it;")
    );
}

#[test]
fn of_evidence_it_is_told_who_holds_it_and_nothing_where_nobody_does() {
    let hold = json!({"apiVersion": "rampart.dev/v1alpha1", "kind": "LegalHold",
        "metadata": {"name": "proof", "namespace": "shop", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"resources": [{"resource": "retentionreports", "group": "rampart.dev"}], "indefinite": true,
                 "selector": {"matchLabels": {"case": "17"}}, "ground": "litigation"}});
    let known = Known { holds: of(&[hold]), ..shop() };
    let mut report = json!({"apiVersion": "rampart.dev/v1alpha1", "kind": "RetentionReport",
        "metadata": {"name": "run", "namespace": "shop", "creationTimestamp": "2026-01-01T00:00:00Z"}});
    let told = |report: &Value| text(&explained("rrep/run", report, &known));
    assert!(!told(&report).contains("held by"), "{}", told(&report));
    report["metadata"]["labels"] = json!({"case": "17"});
    assert!(told(&report).contains("held by LegalHold/proof until it is released: litigation"), "{}", told(&report));
}

#[test]
fn that_statuses_are_old_is_told() {
    let known = Known { away_since: Some("2026-05-31T00:00:00Z".parse().unwrap()), ..shop() };
    let told = explained("pod/web-7d9f-0", &pod("shop", "web", 0), &known);
    let said = "since 2026-05-31T00:00:00Z: what statuses tell is as of then";
    assert!(told.notes.iter().any(|note| note.ends_with(said)), "{told:?}");
}

#[test]
fn what_could_not_be_read_is_told_and_secrets_are_not() {
    let known = Known { unread: vec!["networkpolicies in shop: forbidden".into()], ..shop() };
    let told = explained("pod/web-7d9f-0", &pod("shop", "web", 0), &known);
    let (text, json) = (text(&told), serde_json::to_string(&told).unwrap());
    assert!(text.ends_with("could not read networkpolicies in shop: forbidden\n"), "{text}");
    assert!(json.ends_with(r#""unread":["networkpolicies in shop: forbidden"]}"#), "{json}");
    assert!(!json.contains("hunter2") && !text.contains("hunter2"));
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
}

#[test]
fn every_kind_is_called_as_the_api_server_calls_it() {
    let named = |text: &str| kinds::parse(text).unwrap().kind.listed().unwrap().resource();
    assert_eq!(named("rsp/a"), ApiResource::erase::<crate::api::SecurityPolicy>(&()));
    assert_eq!(named("rcsp/a"), ApiResource::erase::<crate::api::ClusterSecurityPolicy>(&()));
    assert_eq!(named("rkey/a"), ApiResource::erase::<crate::api::ApiKey>(&()));
    assert_eq!(named("rhold/a"), ApiResource::erase::<crate::api::LegalHold>(&()));
    assert_eq!(named("rchold/a"), ApiResource::erase::<crate::api::ClusterLegalHold>(&()));
    assert_eq!(named("rpx/a"), ApiResource::erase::<crate::api::PolicyException>(&()));
    assert_eq!(named("rret/a"), ApiResource::erase::<crate::api::RetentionPolicy>(&()));
    assert_eq!(named("rrep/a"), ApiResource::erase::<crate::api::RetentionReport>(&()));
    assert_eq!(named("netpol/a"), ApiResource::erase::<k8s_openapi::api::networking::v1::NetworkPolicy>(&()));
    assert_eq!(named("deploy/a"), ApiResource::erase::<k8s_openapi::api::apps::v1::Deployment>(&()));
}

#[test]
fn the_least_isolation_of_many_namespaces_is_pending_in_each() {
    let wide: Value = json!({"apiVersion": "rampart.dev/v1alpha1", "kind": "ClusterSecurityPolicy",
        "metadata": {"name": "least", "uid": "least"}, "spec": {"namespaceSelector": {}, "network": {
            "mode": "Preview", "podSelector": {}, "isolate": ["Ingress"],
            "ingress": [{"name": "own", "peers": [{"entity": "SameNamespace"}], "anyPort": true}]}}});
    let known = Known { cluster_policies: of(std::slice::from_ref(&wide)), ..shop() };
    let told = explained("pod/db-7d9f-0", &pod("shop", "db", 0), &known);
    let pending = told.pending.unwrap();
    let least = pending.iter().find(|it| it.kind == "ClusterSecurityPolicy").unwrap();
    assert!(least.policy == "least" && least.selects && least.why.is_empty(), "{least:?}");
    let who = |rows: &[super::network::Row]| rows.iter().map(|row| row.peers.who.clone()).collect::<Vec<_>>();
    assert_eq!(who(&least.newly_denied.ingress), ["ingress/nginx, every address outside"]);
    assert_eq!(who(&least.newly_denied.egress), ["ingress/nginx"], "isolated there, too");
    let namespace = explained("ns/shop", &json!({"metadata": {"name": "shop"}}), &known);
    assert!(text(&namespace).contains("ClusterSecurityPolicy least: network Preview, at the least"));
    let policy = text(&explained("rcsp/least", &wide, &known));
    assert!(policy.contains("namespaces that it covers: ingress, shop"), "{policy}");
    assert!(policy.contains("NETWORK: Preview, isolates Ingress"), "{policy}");
}

#[test]
fn an_apikey_is_told_with_what_it_may_do_and_by_whose_caps() {
    let wide = |roles: Value| {
        json!({"apiVersion": "rampart.dev/v1alpha1", "kind": "ClusterSecurityPolicy", "metadata": {"name": "caps"},
            "spec": {"namespaceSelector": {}, "apiKeys": {"roles": roles, "maxRate": {"perSecond": 50}}}})
    };
    let key = json!({"metadata": {"name": "orders", "namespace": "shop", "generation": 1}, "spec": {
        "owner": {"customerId": "shop"}, "audiences": ["orders-api"], "role": "Editor", "prefix": "shop",
        "secret": {"name": "s"}}, "status": {"observedGeneration": 1, "versions": [{"n": 1, "id": "0123abcd",
        "state": "Current", "createdAt": "2026-01-01T00:00:00Z", "expiresAt": "2027-01-01T00:00:00Z"}]}});
    let told = |roles: Value| {
        let known = Known { cluster_policies: of(&[wide(roles)]), ..shop() };
        text(&explained("rkey/orders", &key, &known))
    };
    let allowed = told(json!([{"name": "Editor"}]));
    for line in [
        "capped by caps\n",
        "role: Editor\n",
        "verbs: Read, Write\n",
        "calls: 50 a second, 50 in ten seconds",
        "1 0123abcd Current, expires 2027-01-01T00:00:00Z\n",
    ] {
        assert!(allowed.contains(line), "{allowed}");
    }
    let beyond = told(json!([{"name": "Viewer"}]));
    assert!(beyond.contains("no new version is issued: spec.role: must be one of Viewer"), "{beyond}");
    assert!(!beyond.contains("MAY DO"), "{beyond}");
    let known = Known { cluster_policies: of(&[wide(json!([{"name": "Viewer"}]))]), ..shop() };
    let namespace = text(&explained("ns/shop", &json!({"metadata": {"name": "shop"}}), &known));
    assert!(namespace.contains("ClusterSecurityPolicy caps: caps what ApiKeys may ask for"), "{namespace}");
    let policy = text(&explained("rcsp/caps", &wide(json!([{"name": "Viewer"}])), &known));
    assert!(policy.contains("roles: [{\"name\":\"Viewer\"}]"), "{policy}");
}
