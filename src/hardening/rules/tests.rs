//! What each rule says of pods.

use rstest::rstest;
use serde_json::{Value, json};

use super::{Pod, RULES, Rules};
use crate::api;

fn rules(asked: &Value) -> Rules {
    let wire: api::Rules = serde_json::from_value(asked.clone()).unwrap();
    Rules::try_from(&wire).unwrap()
}

/// Details by rule, in order.
fn said(asked: &Value, spec: &Value) -> Vec<String> {
    let pod: Pod = serde_json::from_value(json!({"spec": spec})).unwrap();
    rules(asked).violations(&pod, None).iter().map(ToString::to_string).collect()
}

fn one(container: &Value) -> Value {
    let mut container = container.clone();
    container["name"] = json!("a");
    json!({"containers": [container]})
}

#[rstest]
#[case::set(json!({"securityContext": {"readOnlyRootFilesystem": true}}), &[])]
#[case::unset(json!({}), &[r#"hardening/readOnlyRootFilesystem (container "a" must set securityContext.readOnlyRootFilesystem=true)"#])]
#[case::off(json!({"securityContext": {"readOnlyRootFilesystem": false}}), &[r#"hardening/readOnlyRootFilesystem (container "a" must set securityContext.readOnlyRootFilesystem=true)"#])]
fn read_only_root(#[case] container: Value, #[case] wanted: &[&str]) {
    assert_eq!(said(&json!({"readOnlyRootFilesystem": "Required"}), &one(&container)), wanted);
}

#[test]
fn windows_pods_and_ephemeral_containers_are_left_out_where_they_must_be() {
    let asked = json!({"readOnlyRootFilesystem": "Required", "resourceLimits": ["memory"]});
    let windows = json!({"os": {"name": "windows"}, "containers": [{"name": "a"}]});
    assert_eq!(
        said(&asked, &windows),
        [r#"hardening/resourceLimits (container "a" must set resources.limits.memory)"#]
    );
    assert!(said(&asked, &json!({"ephemeralContainers": [{"name": "debug"}]})).is_empty());
}

#[rstest]
#[case::own(json!({"containers": [{"name": "a", "resources": {"requests": {"cpu": 1}}}]}), 0)]
#[case::by_limit(json!({"containers": [{"name": "a", "resources": {"limits": {"cpu": "1"}}}]}), 0)]
#[case::of_the_pod(json!({"resources": {"requests": {"cpu": "1"}}, "containers": [{"name": "a"}]}), 0)]
#[case::another(json!({"containers": [{"name": "a", "resources": {"requests": {"memory": "1Gi"}}}]}), 1)]
#[case::of_an_init_container(json!({"initContainers": [{"name": "a"}], "containers": []}), 1)]
#[case::null(json!({"containers": [{"name": "a", "resources": null}]}), 1)]
#[case::zero_is_none(json!({"containers": [{"name": "a", "resources": {"limits": {"cpu": "0"}, "requests": {"cpu": "0.00"}}}]}), 1)]
#[case::a_fraction(json!({"containers": [{"name": "a", "resources": {"requests": {"cpu": ".05"}}}]}), 0)]
fn requests(#[case] spec: Value, #[case] wanted: usize) {
    assert_eq!(said(&json!({"resourceRequests": ["cpu"]}), &spec).len(), wanted);
}

#[rstest]
#[case::in_the_list(json!({"allow": ["registry.example.com/**"]}), "registry.example.com/a/b:1", true)]
#[case::one_step_only(json!({"allow": ["registry.example.com/*"]}), "registry.example.com/a/b:1", false)]
#[case::registry_is_defaulted(json!({"allow": ["nginx"]}), "docker.io/library/nginx:1.27", true)]
#[case::registry_of_the_image_is_defaulted(json!({"allow": ["docker.io/library/nginx"]}), "nginx", true)]
#[case::no_prefix_of_a_name(json!({"allow": ["nginx"]}), "nginx-evil", false)]
#[case::no_lookalike_registry(json!({"allow": ["registry.example.com/**"]}), "registry-example.com/a", false)]
#[case::no_registry_in_a_path(json!({"allow": ["*.example.com/app"]}), "evil.com/x.example.com/app", false)]
#[case::registry_in_capitals(json!({"deny": ["quay.io/**"]}), "Quay.io/evil/app", false)]
#[case::registry_with_its_port(json!({"deny": ["quay.io/**"]}), "quay.io:0443/evil/app", false)]
#[case::with_a_port(json!({"allow": ["localhost:5000/**"]}), "localhost:5000/app", true)]
#[case::another_port(json!({"allow": ["localhost/**"]}), "localhost:5000/app", false)]
#[case::a_tag_is_meant(json!({"allow": ["nginx:1.27"]}), "nginx:1.28", false)]
#[case::a_tag_with_any_digest(json!({"allow": ["nginx:1.27"]}), &format!("nginx:1.27@sha256:{}", "a".repeat(64)), true)]
#[case::no_tag_is_latest(json!({"deny": ["nginx:latest"]}), "nginx", false)]
#[case::and_allowed_as_that(json!({"allow": ["nginx:latest"]}), "docker.io/nginx", true)]
#[case::and_as_any_tag(json!({"allow": ["nginx:*"]}), "nginx", true)]
#[case::no_tag_is_no_other(json!({"deny": ["nginx:1.*"]}), "nginx", true)]
#[case::a_digest_alone_is_not_latest(json!({"deny": ["nginx:latest"]}), &format!("nginx@sha256:{}", "a".repeat(64)), true)]
#[case::latest_anywhere(json!({"deny": ["**:latest"]}), "localhost:5000/a/b", false)]
#[case::latest_in_a_step(json!({"deny": ["localhost:5000/*/b*:latest"]}), "localhost:5000/a/b", false)]
#[case::latest_alone(json!({"deny": ["**:latest"]}), "localhost:5000/a/b:1", true)]
#[case::latest_alone_in_a_step(json!({"deny": ["quay.io/*:latest"]}), "quay.io/a:1", true)]
#[case::a_name_does_not_end_in_latest(json!({"allow": ["quay.io/*test"]}), "quay.io/a", false)]
#[case::a_tag_does_not_end_the_name(json!({"allow": ["quay.io/*-approved"]}), "quay.io/evil:x-approved", false)]
#[case::nor_in_any_step(json!({"allow": ["quay.io/**-approved"]}), "quay.io/a/evil:x-approved", false)]
#[case::a_name_that_ends_so(json!({"allow": ["quay.io/**-approved"]}), "quay.io/a/b-approved:1", true)]
#[case::a_name_anywhere(json!({"allow": ["**nginx"]}), "ghcr.io/a/nginx:1", true)]
#[case::a_digest_with_any_tag(json!({"allow": [format!("quay.io/*@sha256:{}", "a".repeat(64))]}), &format!("quay.io/a:1@sha256:{}", "a".repeat(64)), true)]
#[case::everything(json!({"allow": ["**"]}), "ghcr.io/a/b", true)]
#[case::but_no_image_name_at_all(json!({"allow": ["**"]}), "UPPER", false)]
#[case::denied(json!({"deny": ["docker.io/**"]}), "busybox", false)]
#[case::brackets_are_no_path_of_docker_io(json!({"allow": ["docker.io/**"]}), "[1]/x", false)]
#[case::old_name_of_the_same_registry(json!({"deny": ["docker.io/**"]}), "index.docker.io/library/busybox", false)]
#[case::not_denied(json!({"deny": ["docker.io/**"]}), "quay.io/busybox", true)]
#[case::digest(json!({"requireDigest": true}), &format!("a/b@sha256:{}", "0".repeat(64)), true)]
#[case::short_digest(json!({"requireDigest": true}), &format!("a/b@sha256:{}", "0".repeat(32)), false)]
#[case::no_digest(json!({"requireDigest": true}), "a/b:1", false)]
#[case::untagged_is_latest(json!({"forbidTags": ["latest"]}), "a/b", false)]
#[case::digest_alone_has_no_tag(json!({"forbidTags": ["latest"]}), &format!("a/b@sha256:{}", "0".repeat(64)), true)]
#[case::tag_beside_a_digest(json!({"forbidTags": ["latest"]}), &format!("a/b:latest@sha256:{}", "0".repeat(64)), false)]
#[case::port_is_no_tag(json!({"forbidTags": ["5000"]}), "localhost:5000/b:1", true)]
fn images(#[case] asked: Value, #[case] image: &str, #[case] admitted: bool) {
    let asked = json!({"images": asked});
    let violations = said(&asked, &one(&json!({"image": image})));
    assert_eq!(violations.is_empty(), admitted, "{violations:?}");
    let of_a_volume = said(&asked, &json!({"volumes": [{"name": "v", "image": {"reference": image}}]}));
    assert_eq!(of_a_volume.is_empty(), admitted, "{of_a_volume:?}");
}

#[rstest]
#[case("images", json!({"allow": ["*"]}), "spec.hardening.rules.images.allow[0]")]
#[case("images", json!({"deny": ["a b"]}), "spec.hardening.rules.images.deny[0]")]
#[case("images", json!({"allow": ["myorg*/app"]}), "spec.hardening.rules.images.allow[0]")]
#[case("volumes", json!({"allow": ["configmap"]}), "spec.hardening.rules.volumes.allow[0]")]
#[case("volumes", json!({"hostPaths": [{"prefix": "/var/../etc"}]}), "spec.hardening.rules.volumes.hostPaths[0].prefix")]
fn bad_input_names_the_field(#[case] rule: &str, #[case] asked: Value, #[case] field: &str) {
    let wire: api::Rules = serde_json::from_value(json!({rule: asked})).unwrap();
    let error = Rules::try_from(&wire).unwrap_err().to_string();
    assert!(error.contains(field), "{error}");
}

#[rstest]
#[case::of_the_container(json!({"containers": [{"name": "a", "securityContext": {"runAsUser": 999}}]}), 1)]
#[case::of_the_pod(json!({"securityContext": {"runAsUser": 999}, "containers": [{"name": "a"}]}), 1)]
#[case::the_container_counts(json!({"securityContext": {"runAsUser": 1}, "containers": [{"name": "a", "securityContext": {"runAsUser": 1000}}]}), 0)]
#[case::unset(json!({"containers": [{"name": "a"}]}), 0)]
#[case::group_of_files(json!({"securityContext": {"fsGroup": 0}, "containers": []}), 1)]
fn users(#[case] spec: Value, #[case] wanted: usize) {
    let asked = json!({"users": {"minUid": 1000, "minFsGroup": 1}});
    assert_eq!(said(&asked, &spec).len(), wanted);
}

#[test]
fn ids_may_have_to_be_set() {
    let asked = json!({"users": {"minUid": 1000, "minFsGroup": 1, "requireExplicit": true}});
    let wanted = r#"hardening/users (container "a" must set securityContext.runAsUser to 1000 or more; pod must set securityContext.fsGroup to 1 or more)"#;
    assert_eq!(said(&asked, &one(&json!({}))), [wanted]);
}

#[rstest]
#[case(json!({"capabilities": {"allowAdd": ["CHOWN"]}}), json!({"securityContext": {"capabilities": {"add": ["CHOWN", "KILL", "chown"]}}}),
    r#"hardening/capabilities.allowAdd (container "a" must not include KILL in securityContext.capabilities.add, allowed: CHOWN; container "a" must not include chown in securityContext.capabilities.add, allowed: CHOWN)"#)]
#[case(json!({"capabilities": {"allowAdd": []}}), json!({"securityContext": {"capabilities": {"add": ["KILL"]}}}),
    r#"hardening/capabilities.allowAdd (container "a" must not include KILL in securityContext.capabilities.add, allowed: none)"#)]
#[case(json!({"seccomp": {"localhostProfiles": ["x"]}}), json!({"securityContext": {"seccompProfile": {"type": "Localhost", "localhostProfile": "y"}}}),
    r#"hardening/seccomp.localhostProfiles (container "a" must not set securityContext.seccompProfile.localhostProfile to y, allowed: x)"#)]
#[case(json!({"appArmor": {"localhostProfiles": ["x"]}}), json!({"securityContext": {"appArmorProfile": {"type": "Localhost", "localhostProfile": "y"}}}),
    r#"hardening/appArmor (container "a" must set securityContext.appArmorProfile to RuntimeDefault or Localhost x)"#)]
#[case(json!({"probes": ["readiness"]}), json!({}), r#"hardening/probes (container "a" must set readinessProbe)"#)]
#[case(json!({"hostPorts": {"allow": [{"min": 8000, "max": 8002}]}}), json!({"ports": [{"hostPort": 8002}, {"hostPort": 8003}, {"hostPort": 1}, {"containerPort": 5}]}),
    r#"hardening/hostPorts (container "a" must not take hostPort 8003, allowed: 8000-8002; container "a" must not take hostPort 1, allowed: 8000-8002)"#)]
fn of_containers(#[case] asked: Value, #[case] container: Value, #[case] wanted: &str) {
    assert_eq!(said(&asked, &one(&container)), [wanted]);
}

#[rstest]
#[case::by_the_scheduler(json!({}), 0)]
#[case::by_itself(json!({"spec": {"nodeName": "control-plane-1"}}), 2)]
#[case::a_static_pod(
    json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": "x"}}, "spec": {"nodeName": "control-plane-1"}}), 0
)]
fn a_pod_does_not_pass_the_scheduler_by(#[case] pod: Value, #[case] wanted: usize) {
    let asked = json!({"nodeSelector": {"forbid": ["role"]}, "tolerations": {"forbid": ["role"]}});
    let pod: Pod = serde_json::from_value(pod).unwrap();
    assert_eq!(rules(&asked).violations(&pod, None).len(), wanted);
    assert_eq!(rules(&asked).violations(&pod.scheduled(), None).len(), 0, "once it is there, it has a node");
}

#[test]
fn a_pod_may_keep_away_from_nodes() {
    let away = json!({"key": "role", "operator": "DoesNotExist"});
    let terms = json!({"nodeSelectorTerms": [{"matchExpressions": [away]}, {"matchFields": []}]});
    let spec = json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}});
    assert_eq!(said(&json!({"nodeSelector": {"forbid": ["role"]}}), &spec), [] as [&str; 0]);
}

#[rstest]
#[case(json!({"userNamespaces": "Required"}), json!({"hostUsers": true}), "hardening/userNamespaces (pod must set hostUsers=false)")]
#[case(json!({"serviceAccountToken": "Explicit"}), json!({}),
    "hardening/serviceAccountToken (pod must set automountServiceAccountToken to true or false)")]
#[case(json!({"serviceAccountToken": "Forbidden"}),
    json!({"automountServiceAccountToken": false, "volumes": [{"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]}),
    r#"hardening/serviceAccountToken (volume "t" must not project a serviceAccountToken)"#)]
#[case(json!({"terminationGracePeriod": {"max": "20s"}}), json!({}),
    "hardening/terminationGracePeriod (pod must not set terminationGracePeriodSeconds to 30, at most 20)")]
#[case(json!({"priorityClasses": {"allow": ["low"]}}), json!({"priorityClassName": "system-node-critical"}),
    "hardening/priorityClasses (pod must not set priorityClassName to anything else than: low)")]
#[case(json!({"runtimeClasses": {"require": ["gvisor"]}}), json!({}), "hardening/runtimeClasses (pod must set runtimeClassName to one of: gvisor)")]
#[case(json!({"nodeSelector": {"forbid": ["role"]}}), json!({"nodeSelector": {"role": "control-plane"}}),
    "hardening/nodeSelector (pod must not set nodeName, nor nodeSelector or nodeAffinity for any of: role)")]
#[case(json!({"nodeSelector": {"forbid": ["role"]}}),
    json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
        {"matchExpressions": [{"key": "disk", "operator": "Exists"}, {"key": "role", "operator": "In", "values": ["x"]}]}]}}}}),
    "hardening/nodeSelector (pod must not set nodeName, nor nodeSelector or nodeAffinity for any of: role)")]
#[case(json!({"nodeSelector": {"forbid": ["role"]}}),
    json!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 1, "preference": {"matchExpressions": [{"key": "role", "operator": "Exists"}]}}]}}}),
    "hardening/nodeSelector (pod must not set nodeName, nor nodeSelector or nodeAffinity for any of: role)")]
#[case(json!({"tolerations": {"forbid": ["role"]}}), json!({"tolerations": [{"operator": "Exists"}]}),
    "hardening/tolerations (pod must not set nodeName, nor tolerations of all taints, or of any of: role)")]
#[case(json!({"volumes": {"allow": ["configMap"]}}),
    json!({"volumes": [{"name": "c", "configMap": {}}, {"name": "h", "hostPath": {"path": "/"}}, {"name": "kube-api-access-x", "projected": {"sources": [{"serviceAccountToken": {}}, {"configMap": {"name": "kube-root-ca.crt"}}]}}]}),
    r#"hardening/volumes.allow (volume "h" is of the type hostPath, allowed types: configMap)"#)]
fn of_pods(#[case] asked: Value, #[case] spec: Value, #[case] wanted: &str) {
    assert_eq!(said(&asked, &spec), [wanted]);
}

#[test]
fn only_what_the_api_server_adds_needs_no_leave() {
    let asked = json!({"volumes": {"allow": ["emptyDir"]}});
    let spec =
        json!({"volumes": [{"name": "kube-api-access-x", "projected": {"sources": [{"secret": {"name": "s"}}]}}]});
    assert_eq!(said(&asked, &spec).len(), 1);
    assert_eq!(said(&asked, &json!({"volumes": [{"name": "kube-api-access-x", "secret": {}}]})).len(), 1);
}

#[rstest]
#[case::itself("/var/log", true, true)]
#[case::below("/var/log/pods", true, true)]
#[case::no_prefix_of_a_name("/var/logs", true, false)]
#[case::outside("/etc", true, false)]
#[case::writable("/var/log", false, false)]
#[case::writable_elsewhere("/data", false, true)]
fn host_paths(#[case] path: &str, #[case] read_only: bool, #[case] admitted: bool) {
    let asked = json!({"volumes": {"hostPaths": [{"prefix": "/var/log", "readOnly": true}, {"prefix": "/data/"}]}});
    let spec = json!({
        "volumes": [{"name": "h", "hostPath": {"path": path}}],
        "containers": [{"name": "a", "volumeMounts": [{"name": "h", "readOnly": read_only}]}],
    });
    assert_eq!(said(&asked, &spec).is_empty(), admitted);
}

#[test]
fn probes_are_asked_of_what_goes_on_running() {
    let asked = json!({"probes": ["liveness"]});
    let spec = json!({
        "initContainers": [{"name": "init"}, {"name": "sidecar", "restartPolicy": "Always"}],
        "containers": [{"name": "a", "livenessProbe": {}}], "ephemeralContainers": [{"name": "debug"}],
    });
    assert_eq!(said(&asked, &spec), [r#"hardening/probes (container "sidecar" must set livenessProbe)"#]);
    let mut job = spec;
    job["restartPolicy"] = json!("Never");
    assert!(said(&asked, &job).is_empty());
}

/// Cases of `reference_test.go` of the distribution project.
#[rstest]
#[case("test_com", true)]
#[case("test.com:tag", true)]
#[case("test.com:5000", true)]
#[case("test.com/repo:tag", true)]
#[case("test:5000/repo", true)]
#[case("test:5000/repo:tag", true)]
#[case("test:5000/repo@sha256:ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff", true)]
#[case("test:5000/repo:tag@sha256:ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff", true)]
#[case("", false)]
#[case(":justtag", false)]
#[case("@sha256:ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff", false)]
#[case("repo@sha256:ffffffffffffffffffffffffffffff", false)]
#[case("Uppercase:tag", false)]
#[case("test:5000/Uppercase/lowercase:tag", false)]
#[case("lowercase:Uppercase", true)]
#[case("aa/asdf$$^/aa", false)]
#[case("sub-dom1.foo.com/bar/baz/quux", true)]
#[case("sub-dom1.foo.com/bar/baz/quux:some-long-tag", true)]
#[case("b.gcr.io/test.example.com/my-app:test.example.com", true)]
#[case("xn--n3h.com/myimage:xn--n3h.com", true)]
#[case("foo_bar.com:8080", true)]
#[case("foo/foo_bar.com:8080", true)]
#[case("192.168.1.1:8080/repo", true)]
#[case("[2001:db8::1]:5000/repo:tag", true)]
#[case("[2001:db8:1:2:3:4:5:6]/repo", true)]
#[case("2001:db8::1/repo", false)]
#[case("-foo/bar", false)]
#[case("foo.-com/bar", false)]
fn the_grammar_of_references(#[case] image: &str, #[case] valid: bool) {
    assert_eq!(super::reference::is_reference(image), valid);
}

#[test]
fn ids_are_sorted_and_distinct() {
    let ids: Vec<&str> = RULES.iter().map(|about| about.id).collect();
    assert!(ids.is_sorted() && ids.windows(2).all(|pair| pair[0] != pair[1]), "{ids:?}");
}
