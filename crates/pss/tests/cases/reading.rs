//! How a Pod is read from its JSON, and how violations are put in words.

use rampart_pss::{Level, Pod, Version, Violation, aggregate, evaluate, reasons};

fn baseline(json: &str) -> String {
    let pod: Pod<'_> = serde_json::from_str(json).expect(json);
    aggregate(&evaluate(Level::Baseline, Version::LATEST, &pod))
}

#[test]
fn what_has_not_the_shape_of_a_pod_is_refused_and_said_so() {
    for (json, wanted) in [
        (r#"{"spec": {"containers": [{"name": 1}]}}"#, "invalid type: integer `1`, expected a string"),
        (r#"{"metadata": {"annotations": {"a": true}}}"#, "invalid type: boolean `true`, expected a string"),
        (r#"{"spec": {"volumes": ["data"]}}"#, r#"invalid type: string "data", expected a volume"#),
        (
            r#"{"spec": {"containers": [{"ports": [{"hostPort": "80"}]}]}}"#,
            r#"invalid type: string "80", expected i32"#,
        ),
    ] {
        let error = serde_json::from_str::<Pod<'_>>(json).expect_err(json).to_string();
        assert!(error.starts_with(wanted), "{error}");
    }
}

#[test]
fn a_null_is_the_empty_string() {
    let container = r#"{"name": null, "securityContext": {"privileged": true, "procMount": null}}"#;
    assert_eq!(
        baseline(&format!(r#"{{"spec": {{"containers": [{container}]}}}}"#)),
        r#"privileged (container "" must not set securityContext.privileged=true)"#
    );
    assert_eq!(
        baseline(r#"{"spec": {"securityContext": {"seccompProfile": {"type": null}}}}"#),
        r#"seccompProfile (pod must not set securityContext.seccompProfile.type to "")"#
    );
}

#[test]
fn a_volumes_source_that_is_null_is_none() {
    let volumes = |volumes: &str| {
        let json = format!(r#"{{"spec": {{"volumes": [{volumes}]}}}}"#);
        let pod: Pod<'_> = serde_json::from_str(&json).expect("a pod");
        aggregate(&evaluate(Level::Restricted, Version::LATEST, &pod))
    };
    assert_eq!(volumes(r#"{"name": "a", "hostPath": null, "secret": {}}"#), "");
    let of = |kind: &str| format!(r#"restricted volume types (volume "a" uses restricted volume type "{kind}")"#);
    assert_eq!(volumes(r#"{"name": "a", "secret": null, "storageos": {}}"#), of("storageos"));
    assert_eq!(volumes(r#"{"name": "a", "futureKind": {}}"#), of("unknown"));
    assert_eq!(volumes(r#"{"nfs": {}, "gitRepo": {}, "name": "a"}"#), of("gitRepo"), "the first that is looked for");
    assert_eq!(volumes(r#"{"hostPath": {}, "secret": {}, "name": "a"}"#), "", "one that is allowed is enough");
}

#[test]
fn names_are_told_as_they_are_escaped_or_not() {
    let named = |name: &str| {
        format!(r#"{{"spec": {{"containers": [{{"name": "{name}", "securityContext": {{"privileged": true}}}}]}}}}"#)
    };
    for (json, wanted) in [("a", "a"), (r"a\u0062\n", "ab\n"), (r#"\""#, "\"")] {
        let wanted = format!("privileged (container \"{wanted}\" must not set securityContext.privileged=true)");
        assert_eq!(baseline(&named(json)), wanted);
    }
}

#[test]
fn a_pod_in_a_log_shows_its_strings() {
    let pod: Pod<'_> = serde_json::from_str(r#"{"spec": {"os": {"name": "plan9"}}}"#).expect("a pod");
    assert!(format!("{pod:?}").contains(r#"name: "plan9""#), "{pod:?}");
}

#[test]
fn violations_are_joined_and_an_empty_detail_is_left_out() {
    let violation = |reason, detail: &str| Violation {
        check: "some",
        level: Level::Baseline,
        reason,
        detail: detail.into(),
        fixes: vec![],
    };
    let all = [violation("one", ""), violation("two", "so"), violation("three", "")];
    assert_eq!((reasons(&all), aggregate(&all)), ("one, two, three".into(), "one, two (so), three".into()));
    assert_eq!((reasons(&[]), aggregate(&[])), (String::new(), String::new()));
}

#[test]
fn a_pod_without_spec_passes() {
    for json in ["{}", r#"{"spec": null, "metadata": null}"#, r#"{"metadata": {"annotations": null}}"#] {
        assert_eq!(baseline(json), "");
    }
}
