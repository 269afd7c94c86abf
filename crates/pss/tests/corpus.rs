#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]
//! Pods and what the reference says of them at each level and version (`corpus.jsonl`, made by
//! `e2e/tests/pss.rs` from the Go module `k8s.io/pod-security-admission`), and the fixes that we name.

use rampart_pss::{Level, Pod, Version, aggregate, evaluate, explain, reasons};
use serde_json::Value;

const CORPUS: &str = include_str!("corpus.jsonl");
/// `latest` comes after v1.0 to v1.37.
const LATEST: u32 = 38;

fn version(index: u32) -> Version {
    if index == LATEST { Version::LATEST } else { Version::minor(index) }
}

#[test]
fn verdict_reason_and_detail_are_the_references() {
    for line in CORPUS.lines() {
        let case: Value = serde_json::from_str(line).expect("JSON");
        let text = case["pod"].to_string();
        let pod: Pod<'_> = serde_json::from_str(&text).expect("a pod");
        for level in [Level::Baseline, Level::Restricted] {
            let verdicts = case["reference"][level.as_str()].as_array().expect("verdicts");
            for index in 0..=LATEST {
                let wanted = verdicts.iter().rev().find(|verdict| verdict["since"].as_u64() <= Some(index.into()));
                let wanted = wanted.expect("a verdict");
                let violations = evaluate(level, version(index), &pod);
                let at = format!("{level}:{} of {text}", version(index));
                assert_eq!(violations.is_empty(), wanted["allowed"], "{at}");
                assert_eq!(reasons(&violations), wanted["reason"].as_str().expect("a reason"), "{at}");
                assert_eq!(aggregate(&violations), wanted["detail"].as_str().expect("a detail"), "{at}");
                for violation in &violations {
                    assert!(violation.level <= level && violation.fixes.is_empty(), "{violation:?}");
                }
            }
        }
        assert_eq!(evaluate(Level::Privileged, Version::LATEST, &pod), []);
    }
}

/// Sets or removes what a JSON Pointer names, making objects on the way.
fn apply(pod: &mut Value, pointer: &str, value: Option<&str>) {
    let keys: Vec<String> = pointer.split('/').skip(1).map(|part| part.replace("~1", "/").replace("~0", "~")).collect();
    let (field, parents) = keys.split_last().expect("a pointer");
    let mut here = pod;
    for step in parents {
        here = match step.parse::<usize>() {
            Ok(index) => &mut here[index],
            Err(_) => &mut here[step],
        };
    }
    match (value, here) {
        (Some(value), here) => here[field] = serde_json::from_str(value).expect("JSON"),
        (None, Value::Array(list)) => drop(list.remove(field.parse().expect("an index"))),
        (None, Value::Object(object)) => assert!(object.remove(field).is_some(), "{pointer} names nothing"),
        (None, other) => panic!("{pointer} is in {other}"),
    }
}

#[test]
fn what_the_fixes_say_makes_every_pod_pass() {
    let mut tried = 0;
    for line in CORPUS.lines() {
        let case: Value = serde_json::from_str(line).expect("JSON");
        for level in [Level::Baseline, Level::Restricted] {
            for index in [0, 18, 21, 30, 34, LATEST] {
                let mut pod = case["pod"].clone();
                let judge = |pod: &Value| {
                    let text = pod.to_string();
                    explain(level, version(index), &serde_json::from_str::<Pod<'_>>(&text).expect("a pod"))
                };
                // A volume may have several sources, of which the first is named.
                for _ in 0..3 {
                    let fixes: Vec<_> = judge(&pod).into_iter().flat_map(|violation| violation.fixes).collect();
                    tried += fixes.len();
                    // Backwards, so that removing an item of a list moves none that is still to be removed.
                    for fix in fixes.iter().rev() {
                        apply(&mut pod, &fix.path.pointer(), fix.value.as_deref());
                    }
                }
                assert_eq!(aggregate(&judge(&pod)), "", "{pod}");
            }
        }
    }
    assert!(tried > 1_000, "only {tried} fixes were tried");
}
