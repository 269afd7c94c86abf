//! SARIF 2.1.0 (OASIS Standard, 27 March 2020).

use std::io::{Result, Write};

use rampart_pss::CHECKS;
use serde_json::{Value, json};

use crate::{
    cli::{
        check::{
            Report, leaked,
            verdict::{Outcome, Row, Severity},
        },
        source::Unreadable,
    },
    hardening::{About, RULES, rule_of_check},
    network::{TRAPS, Trap},
};

const SCHEMA: &str = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";
const STANDARDS: &str = "https://kubernetes.io/docs/concepts/security/pod-security-standards/";

pub(super) fn write(report: &Report, out: &mut impl Write) -> Result<()> {
    let results: Vec<Value> =
        report.outcomes.iter().flat_map(|outcome| outcome.violations.iter().map(|row| result(outcome, row))).collect();
    let notifications: Vec<Value> = report.unreadable.iter().map(notification).collect();
    let log = json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "rampart",
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "informationUri": env!("CARGO_PKG_REPOSITORY"),
                "rules": rules(),
            }},
            "invocations": [{
                "executionSuccessful": report.unreadable.is_empty(),
                "toolExecutionNotifications": notifications,
            }],
            "results": results,
        }],
    });
    serde_json::to_writer_pretty(&mut *out, &log)?;
    writeln!(out)
}

fn rules() -> Vec<Value> {
    let rule = |check: &&rampart_pss::Check| {
        json!({
            "id": rule_of_check(check.id),
            "name": check.id,
            "shortDescription": {"text": format!("Pod Security Standards, {}: {}", check.level, check.id)},
            "helpUri": STANDARDS,
        })
    };
    let of_ours = |about: &&About| {
        let more = about.depends_on.map(|on| format!(". What it finds may differ in a cluster: {on}"));
        json!({
            "id": about.rule(),
            "name": about.id,
            "shortDescription": {"text": about.title},
            "fullDescription": {"text": format!("{}{}", about.title, more.unwrap_or_default())},
            "helpUri": env!("CARGO_PKG_REPOSITORY"),
        })
    };
    let of_networks = |trap: &&Trap| {
        json!({
            "id": trap.rule(),
            "name": trap.id,
            "shortDescription": {"text": trap.title},
            "helpUri": env!("CARGO_PKG_REPOSITORY"),
        })
    };
    let of_keys = json!({
        "id": leaked::RULE,
        "name": "apiKey",
        "shortDescription": {"text": leaked::TITLE},
        "helpUri": env!("CARGO_PKG_REPOSITORY"),
    });
    let known = CHECKS.iter().map(rule).chain(RULES.iter().map(of_ours)).chain(TRAPS.iter().map(of_networks));
    known.chain([of_keys]).collect()
}

fn result(outcome: &Outcome, row: &Row) -> Value {
    let level = match row.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    };
    let object = format!("{} {}/{}", outcome.kind, outcome.namespace, outcome.name);
    json!({
        "ruleId": row.rule,
        "level": level,
        "message": {"text": format!("{object}: {} ({})", row.reason, row.detail)},
        "locations": [{
            "physicalLocation": location(&outcome.file, Some(outcome.line)),
            "logicalLocations": [{"fullyQualifiedName": format!("{object}{}", row.path), "kind": "object"}],
        }],
        // What makes it the same finding in the next run.
        "partialFingerprints": {"object/v1": format!("{object} {} {}", row.rule, row.path)},
    })
}

fn notification(unreadable: &Unreadable) -> Value {
    json!({
        "level": "error",
        "message": {"text": unreadable.why},
        "locations": [{"physicalLocation": location(&unreadable.file, unreadable.line)}],
    })
}

fn location(file: &str, line: Option<usize>) -> Value {
    let artifact = json!({"uri": uri(file)});
    match line {
        Some(line) => json!({"artifactLocation": artifact, "region": {"startLine": line.max(1)}}),
        None => json!({"artifactLocation": artifact}),
    }
}

/// A relative reference (RFC 3986): everything but unreserved characters and slashes is escaped.
fn uri(file: &str) -> String {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(byte);
    file.bytes()
        .map(|byte| if is_plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}
