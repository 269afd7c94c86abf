//! Containers that are excepted from a check.

use rampart_pss::{CHECKS, ContainerKind, Excepted, Level, Pod, Values, Version, aggregate, explain_except};

const PRIVILEGED: &str = r#""securityContext": {"privileged": true}"#;

/// What is still said of a pod spec.
fn told(level: Level, spec: &str, excepted: impl Fn(&str, Excepted<'_>) -> bool) -> String {
    let json = format!(r#"{{"spec": {{{spec}}}}}"#);
    let pod: Pod<'_> = serde_json::from_str(&json).expect("a pod");
    aggregate(&explain_except(level, Version::LATEST, &pod, excepted))
}

/// At baseline, with exceptions for containers.
fn said(spec: &str, excepted: impl Fn(&str, ContainerKind, usize) -> bool) -> String {
    told(Level::Baseline, spec, |check, what| match what {
        Excepted::Container(kind, index) => excepted(check, kind, index),
        _ => false,
    })
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

/// With exceptions for one value of any check.
fn but(level: Level, spec: &str, value: &str) -> String {
    told(level, spec, |_, what| match what {
        Excepted::Container(..) => false,
        Excepted::ValueOf(_, _, found) | Excepted::Value(found) => found == value,
    })
}

#[test]
fn a_check_with_values_decides_as_if_excepted_ones_were_not_set() {
    let volumes = r#""volumes": [{"name": "logs", "hostPath": {"path": "/var/log"}}, {"name": "share", "nfs": {}}]"#;
    let ports = r#""containers": [{"name": "a", "ports": [{"hostPort": 80}, {"hostPort": 443}]},
                                  {"name": "b", "ports": [{"hostPort": 80}]}]"#;
    let sysctls = r#""securityContext": {"sysctls": [{"name": "net.core.somaxconn"}, {"name": "kernel.msgmax"}]}"#;
    let added = r#""containers": [
        {"name": "a", "securityContext": {"capabilities": {"add": ["NET_ADMIN", "SYS_TIME"], "drop": ["ALL"]}}},
        {"name": "b", "securityContext": {"capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]}}}]"#;
    let (baseline, restricted) = (Level::Baseline, Level::Restricted);
    assert_eq!(but(baseline, volumes, "/var/log"), "");
    assert_eq!(but(baseline, volumes, "/var"), r#"hostPath volumes (volume "logs")"#);
    assert_eq!(
        but(restricted, volumes, "/var/log"),
        r#"restricted volume types (volume "share" uses restricted volume type "nfs")"#
    );
    assert!(but(restricted, volumes, "nfs").contains(r#"(volume "logs" uses restricted volume type "hostPath")"#));
    assert!(but(restricted, volumes, "hostPath").contains(r#"volumes "logs", "share" use"#), "by path alone");
    let relative = r#""volumes": [{"name": "logs", "hostPath": {"path": "nfs"}}]"#;
    assert!(but(restricted, relative, "nfs").contains(r#"volume "logs""#), "a path that looks like a type");
    assert_eq!(but(baseline, ports, "80"), r#"hostPort (container "a" uses hostPort 443)"#);
    assert_eq!(but(baseline, ports, "443"), r#"hostPort (containers "a", "b" use hostPort 80)"#);
    assert_eq!(but(baseline, sysctls, "kernel.msgmax"), "forbidden sysctls (net.core.somaxconn)");
    let time = r#"(container "a" must not include "SYS_TIME" in securityContext.capabilities.add)"#;
    assert_eq!(but(baseline, added, "NET_ADMIN"), format!("non-default capabilities {time}"));
    assert!(but(restricted, added, "NET_ADMIN").contains(&format!("unrestricted capabilities {time}")));
    // What the other container does is not admitted with it.
    let of_first = |_: &str, what: Excepted<'_>| matches!(what, Excepted::ValueOf(ContainerKind::Regular, 0, _));
    let other = r#"(container "b" must not include "NET_ADMIN" in securityContext.capabilities.add)"#;
    assert_eq!(told(baseline, added, of_first), format!("non-default capabilities {other}"));
    assert!(told(restricted, added, of_first).contains(&format!("unrestricted capabilities {other}")));
}

#[test]
fn what_would_make_it_pass_keeps_excepted_values() {
    let json = r#"{"spec": {"containers": [{"name": "a", "securityContext":
        {"capabilities": {"add": ["NET_ADMIN", "SYS_TIME", "CHOWN"], "drop": ["ALL"]}}}]}}"#;
    let pod: Pod<'_> = serde_json::from_str(json).expect("a pod");
    let fix = |level, check: &str| {
        let excepted = |_: &str, what: Excepted<'_>| matches!(what, Excepted::ValueOf(_, _, "NET_ADMIN"));
        let violations = explain_except(level, Version::LATEST, &pod, excepted);
        let violation = violations.into_iter().find(|it| it.check == check).expect("a violation");
        violation.fixes.into_iter().next().and_then(|fix| fix.value).expect("a value").into_owned()
    };
    assert_eq!(fix(Level::Baseline, "capabilities_baseline"), r#"["NET_ADMIN", "CHOWN"]"#);
    assert_eq!(fix(Level::Restricted, "capabilities_restricted"), r#"["NET_ADMIN"]"#);
}

#[test]
fn what_would_make_the_rest_pass_is_not_set_for_excepted_containers() {
    let hardened = r#""allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}"#;
    let fixes = |of_a: &str, excepted: bool| {
        let container =
            |name: &str, more: &str| format!(r#"{{"name": "{name}", "securityContext": {{{hardened}{more}}}}}"#);
        let containers = format!("{}, {}, {}", container("a", of_a), container("b", ""), container("c", ""));
        let json = format!(r#"{{"spec": {{"containers": [{containers}]}}}}"#);
        let pod: Pod<'_> = serde_json::from_str(&json).expect("a pod");
        let last = |_: &str, what: Excepted<'_>| excepted && what == Excepted::Container(ContainerKind::Regular, 2);
        let violations = explain_except(Level::Restricted, Version::LATEST, &pod, last);
        violations.iter().flat_map(|it| &it.fixes).map(|fix| fix.path.to_string()).collect::<Vec<_>>()
    };
    let (root, seccomp) = ("securityContext.runAsNonRoot", "securityContext.seccompProfile");
    let of = |container: u32, field: &str| format!("spec.containers[{container}].{field}");
    assert_eq!(fixes("", false), [format!("spec.{root}"), format!("spec.{seccomp}")]);
    assert_eq!(fixes("", true), [of(0, root), of(1, root), of(0, seccomp), of(1, seccomp)]);
    let refusing = r#", "runAsNonRoot": false, "seccompProfile": {"type": "Unconfined"}"#;
    assert_eq!(fixes(refusing, true), [of(0, root), of(1, root), of(0, seccomp), of(1, seccomp)]);
}

#[test]
fn checks_with_values_are_those_that_refuse_them_one_by_one() {
    let with: Vec<_> = CHECKS.iter().filter_map(|check| Some((check.id, check.values?))).collect();
    assert_eq!(
        with,
        [
            ("capabilities_baseline", Values::Capability),
            ("hostPathVolumes", Values::Directory),
            ("hostPorts", Values::HostPort),
            ("sysctls", Values::Sysctl),
            ("capabilities_restricted", Values::Capability),
            ("restrictedVolumes", Values::Volume),
        ]
    );
}
