//! The command line.
//!
//! Exit codes: 0 nothing to report; 1 violations or differences; 2 bad input or usage; 3 internal error.

mod check;
mod completion;
mod connection;
mod cores;
mod explain;
mod facts;
mod fields;
mod generate;
mod gitops;
mod import;
mod keys;
mod lead;
mod output;
mod page;
mod pause;
mod process;
mod pss;
mod reach;
mod reader;
mod reference;
mod render;
mod report;
mod retention;
mod server;
mod source;
mod terminal;
mod uninstall;
mod verifier;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use kube::config::{InferConfigError, KubeconfigError};

/// Something was found.
const FOUND: u8 = 1;
/// Something that was given can't be read.
const BAD_INPUT: u8 = 2;
/// Something broke.
const BROKEN: u8 = 3;

/// Keeps a Kubernetes cluster's security policy true.
#[derive(Debug, Parser)]
#[command(name = "rampart", version, about)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    /// When text is coloured.
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    color: terminal::Color,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Controller and webhook in one process, for development and small clusters.
    Run(Box<server::Options>),
    /// The controller.
    Controller(Box<server::Options>),
    /// The admission webhook.
    Webhook(Box<server::Options>),
    Verifier(Box<verifier::VerifierOptions>),
    /// Prints the custom resource definitions.
    Crds,
    Check(check::Check),
    Render(render::RenderCommand),
    Reach(reach::ReachCommand),
    Explain(explain::ExplainCommand),
    Pause(pause::PauseCommand),
    Resume(pause::ResumeCommand),
    /// The Pod Security Standards by themselves.
    #[command(subcommand)]
    Pss(pss::Command),
    #[command(subcommand)]
    Import(import::Command),
    /// API keys.
    #[command(subcommand)]
    Keys(keys::Command),
    /// What RetentionPolicies would delete, and what they did.
    #[command(subcommand)]
    Retention(retention::Command),
    Report(report::ReportCommand),
    Uninstall(uninstall::UninstallCommand),
    Completion(completion::Completion),
    /// Writes the generated files of the repository: crds/, manifests/webhook.yaml and docs/reference/.
    #[command(hide = true)]
    Generate {
        /// Root of the repository.
        root: PathBuf,
        /// Write nothing; exit 1 if a file is not what it should be.
        #[arg(long)]
        check: bool,
    },
}

impl Cli {
    /// Reads the arguments of the process, and ends it if they are none. Named `kubectl-rampart`, it is kubectl's
    /// plug-in, and says so in its usage.
    #[must_use]
    pub fn from_args() -> Self {
        let name = std::env::args_os().next();
        let is_plugin = name.is_some_and(|name| Path::new(&name).file_stem().is_some_and(|it| it == "kubectl-rampart"));
        let command = Self::command();
        let command = if is_plugin { command.bin_name("kubectl rampart") } else { command };
        Self::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit())
    }

    /// Carries the command out.
    #[must_use]
    pub fn run(self) -> ExitCode {
        self.color.apply();
        let result = match self.command {
            Command::Run(options) => options.run(server::Parts { controller: true, webhook: true }),
            Command::Controller(options) => options.run(server::Parts { controller: true, webhook: false }),
            Command::Webhook(options) => options.run(server::Parts { controller: false, webhook: true }),
            Command::Verifier(options) => options.run(),
            Command::Crds => generate::print_crds(),
            Command::Check(check) => check.run(),
            Command::Render(command) => command.run(),
            Command::Reach(command) => command.run(),
            Command::Explain(command) => command.run(),
            Command::Pause(command) => command.run(),
            Command::Resume(command) => command.run(),
            Command::Pss(command) => command.run(),
            Command::Import(command) => command.run(),
            Command::Keys(command) => command.run(),
            Command::Retention(command) => command.run(),
            Command::Report(command) => command.run(),
            Command::Uninstall(command) => command.run(),
            Command::Completion(command) => command.run(),
            Command::Generate { root, check } => generate::files(&root, check),
        };
        match result {
            Ok(code) => code,
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "rampart ends");
                if output::is_unread(&error) {
                    return ExitCode::SUCCESS;
                }
                eprintln!("rampart: {error:#}");
                // What a flag or KUBECONFIG names, or nothing does.
                let is_config = error.is::<KubeconfigError>() || error.is::<InferConfigError>();
                ExitCode::from(if is_config { BAD_INPUT } else { BROKEN })
            }
        }
    }
}
