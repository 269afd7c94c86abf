//! What is wrong with a workload, as a Report of OpenReports (`openreports.io/v1alpha1`): of bounded size, and the same
//! for as long as the same is wrong. So it holds no time and no number of pods.

use std::collections::BTreeMap;

use rampart_pss::Level;
use serde::Serialize;
use serde_json::{Value, json};

use super::{Broken, Found, Namespace, Owners, Scan, Workload, report::shown};
use crate::{
    api::HardeningMode,
    hardening::{Covering, Requirement},
};

/// Results of a Report; its summary counts the others, too.
const RESULTS: usize = 50;
/// Before the UID of its workload in the name of a Report.
const PREFIX: &str = "rampart-";

/// A Report.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenReport {
    /// Namespace of the workload, and of the Report.
    pub namespace: String,
    /// What it is of, and what it goes with.
    pub workload: Workload,
    /// All of it but metadata.
    pub content: Value,
}

impl OpenReport {
    /// Its name: another workload of the same name has another.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{PREFIX}{}", self.workload.uid)
    }

    /// UID of the workload that a Report of this name is of.
    #[must_use]
    pub fn uid_in(name: &str) -> Option<&str> {
        name.strip_prefix(PREFIX)
    }
}

/// What is wrong by one rule of one policy. In the order of results: the gravest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Wrong<'s> {
    severity: Severity,
    /// Place among the policies that cover the namespace.
    policy: usize,
    /// `None` of a pod that can't be read.
    rule: Option<&'s str>,
    level: Option<Level>,
}

/// As OpenReports spells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Severity {
    High,
    Medium,
}

impl Scan {
    /// Reports of all workloads with pods that violate. Those whose pods are as they should be have none: they are most
    /// of a cluster, and statuses count them.
    pub fn open_reports(&self, owners: &Owners) -> impl Iterator<Item = OpenReport> {
        self.namespaces.iter().flat_map(|(namespace, of)| of.open_reports(namespace, owners))
    }
}

impl Namespace {
    fn open_reports(&self, namespace: &str, owners: &Owners) -> Vec<OpenReport> {
        let mut workloads: BTreeMap<Workload, BTreeMap<Wrong<'_>, &str>> = BTreeMap::new();
        // One that is being deleted may outlive its workload for a moment, and would be told by itself.
        for (name, pod) in self.pods.iter().filter(|(_, pod)| pod.violates() && !pod.kept.ending) {
            let wrong = workloads.entry(shown(name, pod, owners)).or_default();
            for (policy, found) in pod.found.iter().enumerate() {
                for (what, text) in all_wrong(policy, found) {
                    // Pods of a workload that is being rolled out may be wrong in different ways.
                    wrong.entry(what).and_modify(|first| *first = text.min(first)).or_insert(text);
                }
            }
        }
        let report = |(workload, wrong)| {
            let content = content(namespace, &workload, &wrong, &self.covering);
            OpenReport { namespace: namespace.into(), workload, content }
        };
        workloads.into_iter().map(report).collect()
    }
}

fn all_wrong(policy: usize, found: &Found) -> Vec<(Wrong<'_>, &str)> {
    let Found::Violating { broken, message } = found else { return vec![] };
    if broken.is_empty() {
        return vec![(Wrong { severity: Severity::High, policy, rule: None, level: None }, message)];
    }
    let wrong = broken.iter().map(|Broken { rule, level, what }| {
        (Wrong { severity: Severity::of(*level), policy, rule: Some(rule.as_str()), level: *level }, what.as_str())
    });
    wrong.collect()
}

impl Severity {
    /// Baseline prevents known privilege escalations; restricted, and what goes beyond it, is best practice
    /// (kubernetes.io, Pod Security Standards).
    const fn of(level: Option<Level>) -> Self {
        match level {
            Some(Level::Privileged | Level::Baseline) => Self::High,
            Some(Level::Restricted) | None => Self::Medium,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Medium => "medium",
        }
    }
}

/// `configuration` says to readers how the Report is bounded, and that what passes is not in it.
fn content(namespace: &str, workload: &Workload, wrong: &BTreeMap<Wrong<'_>, &str>, policies: &[Covering]) -> Value {
    let Workload { api_version, kind, name, uid } = workload;
    let errors = wrong.keys().filter(|wrong| wrong.rule.is_none()).count();
    let results: Vec<ReportResult<'_>> = wrong
        .iter()
        .filter_map(|(wrong, text)| Some(result(wrong, text, policies.get(wrong.policy)?)))
        .take(RESULTS)
        .collect();
    json!({
        "source": "rampart",
        "scope": {"apiVersion": api_version, "kind": kind, "namespace": namespace, "name": name, "uid": uid},
        "configuration": {"limits": {"maxResults": RESULTS, "statusFilter": ["fail", "error"]}},
        "summary": {"pass": 0, "fail": wrong.len().saturating_sub(errors), "warn": 0, "error": errors, "skip": 0},
        "results": results,
    })
}

/// As OpenReports spells it.
#[derive(Debug, Serialize)]
struct ReportResult<'s> {
    policy: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'s str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    category: Option<&'static str>,
    severity: &'static str,
    result: &'static str,
    scored: bool,
    message: &'s str,
    properties: Properties,
}

#[derive(Debug, Serialize)]
struct Properties {
    mode: HardeningMode,
    /// Of which level and version the check is asked, where it is of the standards.
    #[serde(skip_serializing_if = "Option::is_none")]
    standard: Option<String>,
}

fn result<'s>(wrong: &Wrong<'s>, message: &'s str, policy: &Covering) -> ReportResult<'s> {
    let Requirement { mode, level, version, .. } = &policy.requirement;
    let named = policy.origin.named().map(|(kind, name)| format!("{kind}/{name}"));
    let category = match wrong.level {
        Some(Level::Restricted) => "Pod Security Standards (Restricted)",
        Some(_) => "Pod Security Standards (Baseline)",
        None => "Hardening",
    };
    ReportResult {
        policy: named.unwrap_or_default(),
        rule: wrong.rule,
        category: wrong.rule.map(|_| category),
        severity: wrong.severity.as_str(),
        result: if wrong.rule.is_some() { "fail" } else { "error" },
        scored: true,
        message,
        properties: Properties { mode: *mode, standard: wrong.level.map(|_| format!("{level}:{version}")) },
    }
}
