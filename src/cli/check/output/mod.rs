//! The forms of the answer, a file each.

mod github;
mod json;
mod junit;
mod sarif;
mod text;

use std::io::Write;

use clap::ValueEnum;

use super::Report;
use crate::cli::terminal::Paint;

/// Form of the answer.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub(super) enum Format {
    /// For people.
    #[default]
    Text,
    /// The command's own contract, schemaVersion 1.
    Json,
    /// SARIF 2.1.0 (OASIS), for code scanning.
    Sarif,
    /// JUnit XML, for build servers.
    Junit,
    /// Annotations of GitHub Actions.
    Github,
}

impl Format {
    /// Text alone is coloured.
    pub(super) fn write(self, report: &Report, out: &mut impl Write, paint: Paint) -> anyhow::Result<()> {
        match self {
            Self::Text => text::write(report, out, paint)?,
            Self::Json => json::write(report, out)?,
            Self::Sarif => sarif::write(report, out)?,
            Self::Junit => junit::write(report, out)?,
            Self::Github => github::write(report, out)?,
        }
        Ok(())
    }
}
