//! For people: an object a paragraph, nothing about what passes, and a summary.

use std::io::{Result, Write};

use crate::cli::{
    check::{Report, verdict::Severity},
    terminal::{Paint, Tone, fit},
};

pub(super) fn write(report: &Report, out: &mut impl Write, paint: Paint) -> Result<()> {
    for outcome in report.outcomes.iter().filter(|outcome| !outcome.violations.is_empty()) {
        let (tone, verdict) = if outcome.allowed { (Tone::Good, "admitted") } else { (Tone::Bad, "denied") };
        let object = format!("{} {}/{}", outcome.kind, outcome.namespace, outcome.name);
        let place = paint.head(fit(&format!("{}:{}: {object}", outcome.file, outcome.line)));
        writeln!(out, "{place}: {}", paint.tone(tone, verdict))?;
        for row in &outcome.violations {
            let (tone, severity) = match row.severity {
                Severity::Error => (Tone::Bad, ""),
                Severity::Warning => (Tone::Warn, "warning: "),
                Severity::Note if row.rule.starts_with("network/") => (Tone::Plain, "note: "),
                Severity::Note => (Tone::Plain, "audit: "),
            };
            let rule = paint.tone(tone, format!("{severity}{}", row.rule));
            let policy = row.policy.as_ref().map(|policy| format!(" [{policy}]")).unwrap_or_default();
            let found = fit(&format!("{} ({}){policy}", row.reason, row.detail));
            writeln!(out, "  {rule}: {found}")?;
            writeln!(out, "    {}", paint.aside(fit(&format!("at {}", row.path))))?;
        }
    }
    for (rule, on) in report.depends_on() {
        writeln!(out, "note: what {rule} finds may differ in a cluster: {on}")?;
    }
    let denied = report.denied();
    let allowed = report.outcomes.len().saturating_sub(denied);
    let tone = if denied == 0 { Tone::Good } else { Tone::Bad };
    let denials = paint.tone(tone, format!("{denied} denied"));
    writeln!(out, "{allowed} allowed, {denials}, {} without pods", report.skipped)
}
