//! What a process is made of: clock, randomness, logs, metrics, readiness, supervised tasks, signals.

pub mod apart;
pub mod clock;
mod connection_metrics;
mod key_metrics;
pub mod logs;
mod metric_names;
pub mod metrics;
mod moment;
pub mod open_files;
pub mod random;
pub mod readiness;
pub mod redact;
mod retention_metrics;
mod standings;
pub mod tasks;
mod verifier_metrics;
