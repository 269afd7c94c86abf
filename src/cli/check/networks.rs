//! NetworkPolicies: the traps that they are in.

use std::{collections::HashMap, path::Path};

use k8s_openapi::api::networking::v1::NetworkPolicy;
use rampart_reach::Policy;
use serde::Deserialize as _;
use serde_json::Value;

use super::{
    Report, leaked,
    verdict::{Outcome, Row, Severity},
};
use crate::{
    cli::source::{Object, group_kind},
    network::{Caught, Trap, traps},
};

pub(super) fn is_one(object: &Object) -> bool {
    group_kind(&object.value) == ("networking.k8s.io", "NetworkPolicy")
}

/// Moves the NetworkPolicies of a report to its outcomes, in the order of the input.
pub(super) fn judge(report: &mut Report, namespace: &str, files: &[impl AsRef<Path>]) {
    if report.networks.is_empty() {
        return;
    }
    let mut read: Vec<(Object, NetworkPolicy, Policy)> = vec![];
    for mut object in std::mem::take(&mut report.networks) {
        if let Some(metadata) = object.value.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.entry("namespace").or_insert_with(|| namespace.into());
        }
        let understood = NetworkPolicy::deserialize(&object.value)
            .map_err(|error| error.to_string())
            .and_then(|written| Ok((written, Policy::deserialize(&object.value).map_err(|error| error.to_string())?)));
        match understood {
            Ok((written, policy)) => read.push((object, written, policy)),
            Err(why) => {
                report.outcomes.extend(leaked::outcome(&object, namespace, leaked::rows(&object)));
                report.unreadable.push(object.unreadable(why));
            }
        }
    }
    let all: Vec<&Policy> = read.iter().map(|(.., policy)| policy).collect();
    report
        .outcomes
        .extend(read.iter().map(|(object, written, policy)| outcome(object, policy, traps(written, policy, &all))));
    let places: HashMap<String, usize> =
        files.iter().enumerate().map(|(place, file)| (file.as_ref().display().to_string(), place)).collect();
    report.outcomes.sort_by_key(|outcome| (places.get(&outcome.file).copied(), outcome.document, outcome.line));
}

fn outcome(object: &Object, policy: &Policy, caught: Vec<(&'static Trap, Caught)>) -> Outcome {
    let violations: Vec<Row> = caught
        .into_iter()
        .map(|(trap, caught)| Row {
            rule: trap.rule(),
            check: trap.id,
            level: None,
            reason: trap.title,
            detail: caught.detail,
            path: format!("{}{}", object.pointer, caught.path),
            severity: if caught.is_certain { Severity::Warning } else { Severity::Note },
            policy: None,
        })
        .collect();
    let mut outcome = Outcome {
        file: object.file.clone(),
        document: object.document,
        line: object.line,
        kind: "NetworkPolicy".into(),
        namespace: policy.namespace.clone(),
        name: policy.name.clone(),
        allowed: true,
        message: violations.iter().map(|row| row.reason).collect::<Vec<_>>().join("; "),
        violations,
        open: vec![],
    };
    leaked::add(&mut outcome, leaked::rows(object));
    outcome
}
