//! From an object to what is said of it.

use std::borrow::Cow;

use rampart_pss::{Level, Path, Pod, aggregate};
use serde::{Deserialize as _, Serialize};
use serde_json::Value;

use super::policies::Judges;
use crate::{
    admission::template_path,
    api::HardeningMode,
    cli::source::{Object, Unreadable, group_kind},
    hardening::{
        About, Finding, Origin, RulesPod, Seen, ask_rules, default_pod, default_template, findings, rule_of_check,
    },
    runtime::clock,
};

/// What is said of one object.
#[derive(Debug, Serialize)]
pub(super) struct Outcome {
    pub(super) file: String,
    pub(super) document: usize,
    #[serde(skip)]
    pub(super) line: usize,
    pub(super) kind: String,
    pub(super) namespace: String,
    pub(super) name: String,
    /// Whether its pods would be admitted.
    pub(super) allowed: bool,
    pub(super) message: String,
    pub(super) violations: Vec<Row>,
    /// Rules whose verdict a cluster may still change.
    #[serde(skip)]
    pub(super) open: Vec<&'static About>,
}

/// One violated rule.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) rule: String,
    pub(super) check: &'static str,
    /// Level of the standards that brings the check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) level: Option<&'static str>,
    pub(super) reason: &'static str,
    pub(super) detail: String,
    /// JSON Pointer to the first field that is wrong.
    pub(super) path: String,
    pub(super) severity: Severity,
    /// The policy that asks, where it is not a flag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) policy: Option<String>,
}

/// What a violation leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Severity {
    /// Refusal.
    Error,
    /// A warning.
    Warning,
    /// A line in the audit log.
    Note,
}

impl From<HardeningMode> for Severity {
    fn from(mode: HardeningMode) -> Self {
        match mode {
            HardeningMode::Enforce => Self::Error,
            HardeningMode::Warn => Self::Warning,
            HardeningMode::Audit | HardeningMode::Disabled => Self::Note,
        }
    }
}

/// Judges an object by the policies of its namespace, which is `namespace` where it names none; `None`
/// where it holds no pod.
pub(super) fn judge(object: &mut Object, judges: &Judges, namespace: &str) -> Result<Option<Outcome>, Unreadable> {
    let text = |value: &Value, pointer: &str| value.pointer(pointer).and_then(Value::as_str).map(ToOwned::to_owned);
    let (group, kind) = group_kind(&object.value);
    let Some(path) = template_path(group, kind) else { return Ok(None) };
    let kind = kind.to_owned();
    let namespace = object.namespace(namespace).to_owned();
    let name = text(&object.value, "/metadata/name").or_else(|| text(&object.value, "/metadata/generateName"));
    let pointer = path.iter().fold(String::new(), |pointer, key| pointer + "/" + key);
    let found = match object.value.pointer_mut(&pointer) {
        Some(template) => {
            if path.is_empty() {
                default_pod(template);
            } else {
                default_template(template);
            }
            let unreadable = |error: serde_json::Error| Unreadable {
                file: object.file.clone(),
                line: Some(object.line),
                why: format!("{kind} {}: {error}", name.as_deref().unwrap_or_default()),
            };
            let covering = judges.of_namespace(&namespace);
            let standards = Cow::Owned(Pod::deserialize(&*template).map_err(unreadable)?);
            let rules = ask_rules(&covering).then(|| RulesPod::deserialize(&*template)).transpose();
            let pod = Seen { standards, rules: rules.map_err(unreadable)? };
            let findings = findings(&covering, &pod, clock::now());
            let prefix = format!("{}{pointer}", object.pointer);
            let asked = covering.iter().flat_map(|covering| covering.requirement.rules.asked());
            let open = asked.filter(|about| about.depends_on.is_some()).collect();
            (said(&findings), findings.iter().flat_map(|finding| rows(finding, &prefix)).collect(), open)
        }
        None => (String::new(), vec![], vec![]),
    };
    let (message, violations, open): (String, Vec<Row>, Vec<&'static About>) = found;
    Ok(Some(Outcome {
        file: object.file.clone(),
        document: object.document,
        line: object.line,
        kind,
        namespace,
        name: name.unwrap_or_default(),
        allowed: violations.iter().all(|row| row.severity != Severity::Error),
        message,
        violations,
        open,
    }))
}

fn said(findings: &[Finding<'_>]) -> String {
    let of = |finding: &Finding<'_>| match finding.covering.origin {
        Origin::CommandLine => aggregate(&finding.violations),
        _ => finding.to_string(),
    };
    findings.iter().map(of).collect::<Vec<_>>().join("; ")
}

fn rows<'a>(finding: &'a Finding<'_>, prefix: &'a str) -> impl Iterator<Item = Row> + 'a {
    let severity = finding.covering.requirement.mode.into();
    let policy = move || finding.covering.origin.named().map(|(kind, name)| format!("{kind}/{name}"));
    let at = move |path: Option<&Path>| path.map_or_else(String::new, |path| format!("{prefix}{}", path.pointer()));
    let of_standard = finding.violations.iter().map(move |violation| Row {
        rule: rule_of_check(violation.check),
        check: violation.check,
        level: Some(Level::as_str(violation.level)),
        reason: violation.reason,
        detail: violation.detail.clone(),
        path: at(violation.fixes.first().map(|fix| &fix.path)),
        severity,
        policy: policy(),
    });
    let of_rules = finding.rules.iter().map(move |violation| Row {
        rule: violation.about.rule(),
        check: violation.about.id,
        level: None,
        reason: violation.about.title,
        detail: violation.detail(),
        path: at(violation.complaints.first().map(|complaint| &complaint.path)),
        severity,
        policy: policy(),
    });
    of_standard.chain(of_rules)
}
