//! Workflow commands of GitHub Actions, which become annotations of the lines they name.

use std::io::{Result, Write};

use crate::cli::check::{Report, verdict::Severity};

pub(super) fn write(report: &Report, out: &mut impl Write) -> Result<()> {
    for outcome in &report.outcomes {
        for row in &outcome.violations {
            let command = match row.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
                Severity::Note => "notice",
            };
            let (file, line, rule) = (property(&outcome.file), outcome.line, property(&row.rule));
            let object = format!("{} {}/{}", outcome.kind, outcome.namespace, outcome.name);
            let message = data(&format!("{object}: {} ({}) at {}", row.reason, row.detail, row.path));
            writeln!(out, "::{command} file={file},line={line},title={rule}::{message}")?;
        }
    }
    for unreadable in &report.unreadable {
        let line = unreadable.line.map(|line| format!(",line={line}")).unwrap_or_default();
        let (file, message) = (property(&unreadable.file), data(&unreadable.why));
        writeln!(out, "::error file={file}{line},title=unreadable::{message}")?;
    }
    Ok(())
}

/// Escapes of a command's message.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// Escapes of a command's property.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}
