//! API keys: their format, what proves that Rampart made one, and the machine that rotates them.

pub mod adoption;
mod caps;
pub mod format;
mod grant;
mod hook_job;
mod import;
mod jobs;
mod machine;
mod names;
mod policy_caps;
mod report;
pub mod rollout;
mod schedule;
mod seen;
mod selftest_job;
mod spec;
mod step;
mod strength;
mod usage;
pub mod verify;
mod windows;

pub use caps::Caps;
pub use grant::{DEFAULT_RATE, Grant, Role};
pub use hook_job::{HOOK_MOUNT, check_hook, hook_job};
pub use import::{Fault, Import, ROTATION_DUE, Token, TokenProblem, TokenText};
pub use jobs::{HookProblem, JobSeen, JobStep, KeyJob, has_job, hook_of, jobs_that_matter};
pub use machine::{decide, next_moment};
pub use policy_caps::PolicyCaps;
pub use report::{EndsSoon, IDLE, conditions, count};
pub use rollout::{Workload, WorkloadSeen};
pub use seen::{ConsumerSeen, Observed, RecordSeen, SecretSeen, Standing, VerifierSeen};
pub use selftest_job::selftest_job;
pub use spec::{Rotation, Spec, is_issue};
pub use step::{Refusal, Step};
pub use usage::{Use, deprecated_in_use, fold};
pub use windows::Windows;
