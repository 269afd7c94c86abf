//! Containers that are excepted from a check.

use rampart_pss::{ContainerKind, Level, Pod, Version, aggregate, explain_except};

const PRIVILEGED: &str = r#""securityContext": {"privileged": true}"#;

/// What is still said at baseline of a pod spec.
fn said(spec: &str, excepted: impl Fn(&str, ContainerKind, usize) -> bool) -> String {
    let json = format!(r#"{{"spec": {{{spec}}}}}"#);
    let pod: Pod<'_> = serde_json::from_str(&json).expect("a pod");
    aggregate(&explain_except(Level::Baseline, Version::LATEST, &pod, excepted))
}

#[test]
fn the_rest_is_judged_as_if_it_were_alone() {
    let spec = format!(
        r#""initContainers": [{{"name": "i", {PRIVILEGED}}}],
           "containers": [{{"name": "a", {PRIVILEGED}}}, {{"name": "b", {PRIVILEGED}}}]"#
    );
    let privileged = |named: &str| format!("privileged ({named} must not set securityContext.privileged=true)");
    assert_eq!(said(&spec, |_, _, _| false), privileged(r#"containers "i", "a", "b""#));
    assert_eq!(said(&spec, |_, kind, _| kind == ContainerKind::Init), privileged(r#"containers "a", "b""#));
    assert_eq!(
        said(&spec, |_, kind, index| (kind, index) == (ContainerKind::Regular, 1)),
        privileged(r#"containers "i", "a""#)
    );
    assert_eq!(said(&spec, |_, _, index| index == 0), privileged(r#"container "b""#));
}

#[test]
fn an_exception_is_from_one_check() {
    let spec = format!(r#""containers": [{{"name": "a", "ports": [{{"hostPort": 80}}], {PRIVILEGED}}}]"#);
    assert_eq!(said(&spec, |check, _, _| check == "privileged"), r#"hostPort (container "a" uses hostPort 80)"#);
    assert_eq!(said(&spec, |_, _, _| true), "");
}

#[test]
fn the_pods_own_settings_are_excepted_with_its_last_container() {
    let spec = r#""hostPID": true, "containers": [{"name": "a"}, {"name": "b"}]"#;
    let refused = "host namespaces (hostPID=true)";
    assert_eq!(said(spec, |_, _, index| index == 0), refused);
    assert_eq!(said(spec, |_, _, _| true), "");
    assert_eq!(said(r#""hostPID": true, "containers": []"#, |_, _, _| true), refused, "there is none to except");
}
