//! The command's own JSON; `schemaVersion` grows when a field changes its meaning or goes.

use std::{
    collections::BTreeMap,
    io::{Result, Write},
};

use serde::Serialize;

use crate::cli::check::{Report, verdict::Outcome};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    schema_version: u32,
    results: &'a [Outcome],
    /// Rules whose verdict a cluster may still change, and what of it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    depends_on: BTreeMap<String, &'static str>,
    unreadable: Vec<Unread<'a>>,
    summary: Summary,
}

/// What could not be read.
#[derive(Serialize)]
struct Unread<'a> {
    file: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    message: &'a str,
}

#[derive(Serialize)]
struct Summary {
    documents: usize,
    allowed: usize,
    denied: usize,
    skipped: usize,
    unreadable: usize,
}

pub(super) fn write(report: &Report, out: &mut impl Write) -> Result<()> {
    let denied = report.denied();
    let summary = Summary {
        documents: report.outcomes.len().saturating_add(report.skipped),
        allowed: report.outcomes.len().saturating_sub(denied),
        denied,
        skipped: report.skipped,
        unreadable: report.unreadable.len(),
    };
    let unreadable = report.unreadable.iter().map(|it| Unread { file: &it.file, line: it.line, message: &it.why });
    let unreadable = unreadable.collect();
    let answer =
        Answer { schema_version: 1, results: &report.outcomes, depends_on: report.depends_on(), unreadable, summary };
    serde_json::to_writer_pretty(&mut *out, &answer)?;
    writeln!(out)
}
