//! `rampart keys pattern`: how scanners recognise a key.

use std::{io::Write as _, process::ExitCode};

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::keys::format::PATTERN;

/// Prints the pattern of keys, for scanners of repositories and logs.
///
/// The last six characters are a checksum (CRC-32 of all before, in base62), which a pattern can't check: `rampart check`
/// does.
#[derive(Debug, Args)]
pub(in crate::cli) struct Pattern {
    /// For whom.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Format {
    /// The regular expression alone (RE2, Rust, PCRE, Hyperscan).
    #[default]
    Regex,
    /// The fields of a custom pattern of GitHub secret scanning.
    Github,
    /// A rule for `.gitleaks.toml`.
    Gitleaks,
    /// A custom detector for the configuration of TruffleHog.
    Trufflehog,
}

impl Pattern {
    pub(super) fn run(&self) -> Result<ExitCode> {
        let text = match self.format {
            Format::Regex => format!("{PATTERN}\n"),
            Format::Github => github(),
            Format::Gitleaks => format!(
                "[[rules]]\nid = \"rampart-api-key\"\ndescription = \"API key issued by Rampart\"\n\
                 regex = '''{PATTERN}'''\nkeywords = [\"_\"]\n"
            ),
            Format::Trufflehog => {
                format!("detectors:\n- name: rampart-api-key\n  keywords: [\"_\"]\n  regex:\n    key: '({PATTERN})'\n")
            }
        };
        std::io::stdout().lock().write_all(text.as_bytes())?;
        Ok(ExitCode::SUCCESS)
    }
}

/// GitHub asks for what stands before and after by itself.
fn github() -> String {
    let bare = PATTERN.trim_start_matches(r"\b").trim_end_matches(r"\b");
    format!(
        "Pattern name: Rampart API key\nSecret format: {bare}\nBefore secret: \\A|[^0-9A-Za-z_]\n\
         After secret: \\z|[^0-9A-Za-z_]\n"
    )
}
