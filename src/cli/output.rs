//! How something is told, and to whom.

use std::{io, process::ExitCode};

use anyhow::Result;
use clap::ValueEnum;

/// How to tell it.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub(super) enum Output {
    /// For people.
    #[default]
    Text,
    /// The shape has `schemaVersion` 1.
    Json,
}

/// Whether an error says that nobody reads standard output any more, as after `| head`.
pub(super) fn is_unread(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
    let kind = kind.or_else(|| error.downcast_ref::<serde_json::Error>()?.io_error_kind());
    kind == Some(io::ErrorKind::BrokenPipe)
}

/// The exit code of a command that has told what it found, and be it to who had read enough before the end.
pub(super) fn answered(written: Result<()>, code: ExitCode) -> Result<ExitCode> {
    match written {
        Err(error) if is_unread(&error) => Ok(code),
        written => written.map(|()| code),
    }
}
