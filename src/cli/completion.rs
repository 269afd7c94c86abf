//! `rampart completion`: what shells complete.

use std::{io::Write as _, process::ExitCode};

use anyhow::Result;
use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::Cli;

/// Prints what a shell needs to complete commands: `source <(rampart completion bash)`, or where your shell looks for
/// it.
#[derive(Debug, Args)]
pub(super) struct Completion {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

impl Completion {
    pub(super) fn run(self) -> Result<ExitCode> {
        let (mut text, mut command) = (vec![], Cli::command());
        let name = command.get_name().to_owned();
        clap_complete::generate(self.shell, &mut command, name, &mut text);
        std::io::stdout().lock().write_all(&text)?;
        Ok(ExitCode::SUCCESS)
    }
}
