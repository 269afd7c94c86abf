//! API keys: their format, what proves that Rampart made one, and the machine that rotates them.

pub mod adoption;
mod caps;
pub mod format;
mod grant;
mod machine;
mod names;
mod policy_caps;
mod seen;
mod selftest_job;
mod spec;
mod step;

pub use caps::Caps;
pub use grant::{DEFAULT_RATE, Grant, Role};
pub use machine::decide;
pub use policy_caps::PolicyCaps;
pub use seen::{ConsumerSeen, Observed, RecordSeen, SecretSeen, TestSeen};
pub use selftest_job::{selftest_job, selftest_name};
pub use spec::{Rotation, Spec, is_issue};
pub use step::{Refusal, Step};
