//! Reasons and details as the reference words them (its `check_*_test.go`).

use rampart_pss::{Level, Pod, Version, aggregate, evaluate};

/// What the reference says of the pod spec at restricted, or "" when it is allowed.
fn restricted(version: Version, spec: &str) -> String {
    let json = format!(r#"{{"spec": {spec}}}"#);
    let pod: Pod<'_> = serde_json::from_str(&json).expect("a pod");
    aggregate(&evaluate(Level::Restricted, version, &pod))
}

/// A pod that passes, with room for what a case changes.
fn pod(context: &str, containers: &str) -> String {
    format!(r#"{{"securityContext": {{{context}}}, {containers}}}"#)
}

const GOOD_POD: &str = r#""runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}"#;
const DROPS: &str = r#""allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}"#;

fn one(name: &str, context: &str) -> String {
    format!(r#"{{"name": "{name}", "securityContext": {{{context}}}}}"#)
}

#[test]
fn a_hardened_pod_passes() {
    let spec = pod(GOOD_POD, &format!(r#""containers": [{}]"#, one("a", DROPS)));
    assert_eq!(restricted(Version::LATEST, &spec), "");
}

#[test]
fn a_bare_pod_fails_in_order_of_id() {
    assert_eq!(
        restricted(Version::LATEST, r#"{"containers": [{"name": "a"}, {"name": "b"}]}"#),
        concat!(
            r#"allowPrivilegeEscalation != false (containers "a", "b" must set securityContext.allowPrivilegeEscalation=false), "#,
            r#"unrestricted capabilities (containers "a", "b" must set securityContext.capabilities.drop=["ALL"]), "#,
            r#"runAsNonRoot != true (pod or containers "a", "b" must set securityContext.runAsNonRoot=true), "#,
            r#"seccompProfile (pod or containers "a", "b" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")"#,
        )
    );
}

#[test]
fn containers_are_named_init_first_then_regular_then_ephemeral() {
    let spec = pod(
        GOOD_POD,
        r#""containers": [{"name": "b"}], "ephemeralContainers": [{"name": "c"}], "initContainers": [{"name": "a"}]"#,
    );
    let said = restricted(Version::LATEST, &spec);
    assert_eq!(
        said.split_once("), ").expect("two checks").1,
        r#"unrestricted capabilities (containers "a", "b", "c" must set securityContext.capabilities.drop=["ALL"])"#
    );
}

#[test]
fn only_net_bind_service_may_be_added_and_spelling_is_exact() {
    let context = r#""allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE", "net_bind_service", "CHOWN"]}"#;
    let spec = pod(GOOD_POD, &format!(r#""containers": [{}]"#, one("a", context)));
    assert_eq!(
        restricted(Version::LATEST, &spec),
        r#"unrestricted capabilities (container "a" must not include "CHOWN", "net_bind_service" in securityContext.capabilities.add)"#
    );
    let dropped_in_part =
        pod(GOOD_POD, &format!(r#""containers": [{}]"#, one("a", r#""capabilities": {"drop": ["all", "NET_RAW"]}"#)));
    assert!(restricted(Version::LATEST, &dropped_in_part).contains("drop"), "\"all\" is not \"ALL\"");
}

#[test]
fn a_pod_that_says_false_is_not_healed_by_its_containers() {
    let spec = pod(
        r#""runAsNonRoot": false, "seccompProfile": {"type": "Localhost"}"#,
        &format!(
            r#""containers": [{}, {}]"#,
            one("a", &format!(r#""runAsNonRoot": true, {DROPS}"#)),
            one("b", &format!(r#""runAsNonRoot": false, {DROPS}"#))
        ),
    );
    assert_eq!(
        restricted(Version::LATEST, &spec),
        r#"runAsNonRoot != true (pod and container "b" must not set securityContext.runAsNonRoot=false)"#
    );
}

#[test]
fn a_bad_seccomp_profile_is_named_with_its_kind() {
    let spec = pod(
        r#""runAsNonRoot": true, "seccompProfile": {"type": "Unconfined"}"#,
        &format!(r#""containers": [{}]"#, one("a", &format!(r#""seccompProfile": {{"type": ""}}, {DROPS}"#))),
    );
    assert_eq!(
        restricted(Version::LATEST, &spec),
        r#"seccompProfile (pod and container "a" must not set securityContext.seccompProfile.type to "", "Unconfined")"#
    );
}

#[test]
fn windows_is_exempt_since_1_25_and_only_when_spelt_exactly() {
    let spec = |os: &str| {
        format!(
            r#"{{"os": {{"name": "{os}"}}, "securityContext": {{"runAsNonRoot": true}}, "containers": [{{"name": "a"}}]}}"#
        )
    };
    assert_eq!(restricted(Version::minor(25), &spec("windows")), "");
    assert_ne!(restricted(Version::minor(24), &spec("windows")), "");
    assert_ne!(restricted(Version::LATEST, &spec("Windows")), "");
}

#[test]
fn a_user_namespace_excuses_root_since_1_35() {
    let spec = |users: &str| {
        format!(
            r#"{{{users} "securityContext": {{"seccompProfile": {{"type": "RuntimeDefault"}}}}, "containers": [{}]}}"#,
            one("a", DROPS)
        )
    };
    assert_eq!(restricted(Version::minor(35), &spec(r#""hostUsers": false,"#)), "");
    assert_ne!(restricted(Version::minor(34), &spec(r#""hostUsers": false,"#)), "");
    assert_ne!(restricted(Version::LATEST, &spec(r#""hostUsers": true,"#)), "");
    assert_ne!(restricted(Version::LATEST, &spec("")), "");
}

#[test]
fn checks_do_not_exist_before_their_first_version() {
    let bare = r#"{"containers": [{"name": "a"}]}"#;
    assert_eq!(
        restricted(Version::minor(7), bare),
        r#"runAsNonRoot != true (pod or container "a" must set securityContext.runAsNonRoot=true)"#
    );
    assert!(!restricted(Version::minor(21), bare).contains("capabilities"));
    assert!(restricted(Version::minor(22), bare).contains("capabilities"));
}

#[test]
fn lower_levels_bring_none_of_the_restricted_checks() {
    let pod: Pod<'_> = serde_json::from_str(r#"{"spec": {"containers": [{"name": "a"}]}}"#).expect("a pod");
    for level in [Level::Privileged, Level::Baseline] {
        assert_eq!(evaluate(level, Version::LATEST, &pod), []);
    }
}

#[test]
fn nulls_are_absent_and_unknown_fields_are_ignored() {
    let spec = pod(
        GOOD_POD,
        &format!(r#""initContainers": null, "futureField": {{"a": [1]}}, "containers": [{}]"#, one("a", DROPS)),
    );
    assert_eq!(restricted(Version::LATEST, &spec), "");
}

#[test]
fn versions_and_levels_are_parsed_strictly() {
    for good in ["latest", "v1.0", "v1.37", "v1.99"] {
        assert_eq!(good.parse::<Version>().expect(good).to_string(), good);
    }
    for bad in ["", "1.25", "v1.", "v1.025", "v2.0", "v1.2.3", "v1.+5", "Latest"] {
        assert!(bad.parse::<Version>().is_err(), "{bad}");
    }
    for good in ["privileged", "baseline", "restricted"] {
        assert_eq!(good.parse::<Level>().expect(good).to_string(), good);
    }
    assert!("Restricted".parse::<Level>().is_err());
    let error = "strict".parse::<Level>().expect_err("no such level").to_string();
    assert_eq!(error, r#"must be privileged, baseline or restricted, not "strict""#);
    let digits = "v1.99999999999".parse::<Version>().expect("more than fit");
    assert_eq!((digits, digits.known_minor()), (Version::LATEST, 37));
}
