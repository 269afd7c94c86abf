//! For people: an object a paragraph, nothing about what passes, and a summary.

use std::io::{Result, Write};

use crate::cli::check::{Report, verdict::Severity};

pub(super) fn write(report: &Report, out: &mut impl Write) -> Result<()> {
    for outcome in report.outcomes.iter().filter(|outcome| !outcome.violations.is_empty()) {
        let verdict = if outcome.allowed { "admitted" } else { "denied" };
        let (file, line) = (&outcome.file, outcome.line);
        writeln!(out, "{file}:{line}: {} {}/{}: {verdict}", outcome.kind, outcome.namespace, outcome.name)?;
        for row in &outcome.violations {
            let severity = match row.severity {
                Severity::Error => "",
                Severity::Warning => "warning: ",
                Severity::Note if row.rule.starts_with("network/") => "note: ",
                Severity::Note => "audit: ",
            };
            let policy = row.policy.as_ref().map(|policy| format!(" [{policy}]")).unwrap_or_default();
            writeln!(out, "  {severity}{}: {} ({}){policy}", row.rule, row.reason, row.detail)?;
            writeln!(out, "    at {}", row.path)?;
        }
    }
    for (rule, on) in report.open() {
        writeln!(out, "note: what {rule} finds may differ in a cluster: {on}")?;
    }
    let denied = report.denied();
    let allowed = report.outcomes.len().saturating_sub(denied);
    writeln!(out, "{allowed} allowed, {denied} denied, {} without pods", report.skipped)
}
