//! `rampart pss eval`: the Pod Security Standards as a filter.

use std::{
    io::{BufRead as _, Write as _},
    num::NonZero,
    process::ExitCode,
};

use clap::{Args, Subcommand};
use rampart_pss::{Level, Pod, Version, aggregate, evaluate, reasons};
use serde::{Serialize, Serializer};

use super::BAD_INPUT;

/// Lines that are read before they are judged, on every core.
const BATCH: usize = 4_096;

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
#[serde(untagged)]
enum Line {
    Judged { i: usize, v: Verdicts },
    Unreadable { i: usize, error: String },
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
        let (mut input, mut output) = (std::io::stdin().lock(), std::io::BufWriter::new(std::io::stdout().lock()));
        let (mut first, mut all_readable) = (0_usize, true);
        loop {
            let mut batch = vec![];
            while batch.len() < BATCH {
                let mut line = vec![];
                if input.read_until(b'\n', &mut line)? == 0 {
                    break;
                }
                batch.push(line);
            }
            if batch.is_empty() {
                break;
            }
            for (text, readable) in eval.batch(&batch, first)? {
                output.write_all(&text)?;
                all_readable &= readable;
            }
            first = first.saturating_add(batch.len());
        }
        output.flush()?;
        Ok(if all_readable { ExitCode::SUCCESS } else { ExitCode::from(BAD_INPUT) })
    }
}

impl Eval {
    /// Judges lines on every core; each part of the answer says whether every line of it was a pod.
    fn batch(&self, lines: &[Vec<u8>], first: usize) -> anyhow::Result<Vec<(Vec<u8>, bool)>> {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let share = lines.len().div_ceil(cores).max(1);
        std::thread::scope(|scope| {
            let shares = lines.chunks(share).enumerate().map(|(number, lines)| {
                scope.spawn(move || self.share(lines, first.saturating_add(number.saturating_mul(share))))
            });
            let running: Vec<_> = shares.collect();
            running
                .into_iter()
                .map(|thread| thread.join().map_err(|_| anyhow::anyhow!("a judging thread panicked"))?)
                .collect()
        })
    }

    fn share(&self, lines: &[Vec<u8>], first: usize) -> anyhow::Result<(Vec<u8>, bool)> {
        let (mut text, mut readable) = (vec![], true);
        for (offset, line) in lines.iter().enumerate() {
            let answer = self.line(line, first.saturating_add(offset));
            readable &= matches!(answer, Line::Judged { .. });
            serde_json::to_writer(&mut text, &answer)?;
            text.push(b'\n');
        }
        Ok((text, readable))
    }

    fn line(&self, line: &[u8], i: usize) -> Line {
        let pod: Pod<'_> = match serde_json::from_slice(line) {
            Ok(pod) => pod,
            Err(error) => return Line::Unreadable { i, error: error.to_string() },
        };
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
        Line::Judged { i, v: Verdicts(verdicts.collect()) }
    }
}
