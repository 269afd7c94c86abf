//! How something is told.

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
