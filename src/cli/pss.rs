//! `rampart pss eval`: the Pod Security Standards as a filter.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use rampart_pss::{Level, Pod, Version, aggregate, evaluate, reasons};
use serde::{Serialize, Serializer};

use super::cores;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Reads a Pod (metadata, spec) in JSON from each line and writes a line of verdicts for each.
    ///
    /// The pods must be as the API server stores them: defaulted. A line that is no pod answers with
    /// an error, and the command goes on, exiting 2 at the end.
    Eval(Eval),
}

#[derive(Debug, Args)]
pub(super) struct Eval {
    /// Level: privileged, baseline or restricted; may be repeated [default: baseline and restricted].
    #[arg(long = "level", value_name = "LEVEL")]
    levels: Vec<Level>,
    /// Version: latest or v1.N; may be repeated [default: v1.0 to the newest, and latest].
    #[arg(long = "version", value_name = "VERSION")]
    versions: Vec<Version>,
}

#[derive(Serialize)]
struct Judged {
    v: Verdicts,
}

struct Verdicts(Vec<(Level, Version, Verdict)>);

#[derive(Serialize)]
struct Verdict {
    allowed: bool,
    reason: String,
    detail: String,
}

impl Serialize for Verdicts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(level, version, verdict)| (format!("{level}:{version}"), verdict)))
    }
}

impl Command {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let Self::Eval(mut eval) = self;
        if eval.levels.is_empty() {
            eval.levels = vec![Level::Baseline, Level::Restricted];
        }
        if eval.versions.is_empty() {
            eval.versions = (0..=Version::NEWEST_MINOR).map(Version::minor).chain([Version::LATEST]).collect();
        }
        cores::filter(|line| eval.judge(line))
    }
}

impl Eval {
    fn judge(&self, line: &[u8]) -> anyhow::Result<Judged> {
        let pod: Pod<'_> = serde_json::from_slice(line)?;
        let pairs = self.levels.iter().flat_map(|level| self.versions.iter().map(move |version| (*level, *version)));
        let verdicts = pairs.map(|(level, version)| {
            let violations = evaluate(level, version, &pod);
            let verdict = Verdict {
                allowed: violations.is_empty(),
                reason: reasons(&violations),
                detail: aggregate(&violations),
            };
            (level, version, verdict)
        });
        Ok(Judged { v: Verdicts(verdicts.collect()) })
    }
}
