//! API keys: their format, what proves that Rampart made one, and the machine that rotates them.

pub mod adoption;
pub mod format;
mod machine;
mod selftest_job;
mod spec;

pub use machine::{ConsumerSeen, Observed, RecordSeen, Refusal, SecretSeen, Step, TestSeen, decide};
pub use selftest_job::{selftest_job, selftest_name};
pub use spec::{Rotation, Spec};
