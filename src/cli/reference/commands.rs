//! The command line, from clap. By hand, since a page should also say which environment variable a flag reads.

use std::fmt::Write as _;

use clap::{Arg, Command, CommandFactory as _};

use super::{cell, code};
use crate::cli::Cli;

const HEAD: &str = "# The command line\n\n\
     `rampart help COMMAND` says the same. Named `kubectl-rampart` on the PATH it is kubectl's plug-in (`kubectl rampart`). \
     Exit codes: 0 nothing to report, 1 something was found, 2 bad input or usage, 3 an internal error.\n\n\
     Every command takes `--color auto|always|never`. `auto` colours text on a terminal, unless NO_COLOR is set or TERM is \
     `dumb`; CLICOLOR_FORCE does it elsewhere, too. No colour says what the text does not. On a terminal, standard error shows \
     how far long work is.\n";

/// The page.
pub(super) fn page() -> String {
    let (mut text, mut root) = (HEAD.to_owned(), Cli::command());
    root.build();
    for command in root.get_subcommands() {
        section(&mut text, root.get_name(), command);
    }
    text
}

fn section(text: &mut String, above: &str, command: &Command) {
    if command.is_hide_set() || command.get_name() == "help" {
        return;
    }
    let name = format!("{above} {}", command.get_name());
    if command.has_subcommands() {
        command.get_subcommands().for_each(|below| section(text, &name, below));
        return;
    }
    let about = command.get_long_about().or_else(|| command.get_about()).map(ToString::to_string).unwrap_or_default();
    let _ = write!(text, "\n## {name}\n\n{}\n", paragraphs(&about));
    let _ = write!(text, "\n```\n{}\n```\n", command.clone().bin_name(&name).render_usage().to_string().trim());
    let args: Vec<&Arg> = command.get_arguments().filter(|arg| is_told(arg)).collect();
    if args.is_empty() {
        return;
    }
    text.push_str("\n| argument | default | environment | |\n|---|---|---|---|\n");
    for arg in args {
        let _ = writeln!(text, "{}", row(arg));
    }
}

/// Those that every command has are told once.
fn is_told(arg: &Arg) -> bool {
    !arg.is_hide_set() && !arg.is_global_set() && arg.get_id() != "help"
}

fn row(arg: &Arg) -> String {
    let takes = arg.get_action().takes_values();
    let value: Vec<&str> = arg.get_value_names().into_iter().flatten().map(clap::builder::Str::as_str).collect();
    let value = value.join(" ");
    let name = match (arg.get_long(), arg.get_short()) {
        (Some(long), Some(short)) => format!("-{short}, --{long}"),
        (Some(long), None) => format!("--{long}"),
        (None, Some(short)) => format!("-{short}"),
        (None, None) => String::new(),
    };
    let name = if takes { format!("{name} {value}") } else { name };
    let defaults: Vec<String> = arg.get_default_values().iter().map(|it| code(&it.to_string_lossy())).collect();
    let environment = arg.get_env().map(|it| code(&it.to_string_lossy())).unwrap_or_default();
    let help = arg.get_long_help().or_else(|| arg.get_help()).map(ToString::to_string).unwrap_or_default();
    let possible: Vec<String> = if takes {
        arg.get_possible_values().iter().filter(|it| !it.is_hide_set()).map(|it| code(it.get_name())).collect()
    } else {
        vec![]
    };
    let possible = if possible.is_empty() { String::new() } else { format!("; one of {}", possible.join(", ")) };
    let defaults = if takes { defaults.join(" ") } else { String::new() };
    format!("| {} | {defaults} | {environment} | {}{possible} |", code(name.trim()), cell(help.trim_end_matches('.')))
}

/// Lines of help, which breaks where the source does.
fn paragraphs(text: &str) -> String {
    let joined = text.split("\n\n").map(|part| part.split_whitespace().collect::<Vec<_>>().join(" "));
    joined.collect::<Vec<_>>().join("\n\n")
}
