//! API keys: their format, what proves that Rampart made one, and the machine that rotates them.

pub mod adoption;
mod caps;
pub mod coalesce;
pub mod format;
mod grant;
mod hook_job;
mod import;
mod jobs;
mod machine;
mod names;
mod offer;
mod policy_caps;
mod report;
pub mod rollout;
mod schedule;
mod seen;
mod selftest_job;
mod spec;
mod step;
mod strength;
mod token_format;
mod usage;
pub mod verify;
mod windows;

pub use caps::Caps;
pub use coalesce::Neighbour;
pub use grant::{DEFAULT_RATE, Grant, Role};
pub use hook_job::{HOOK_MOUNT, check_hook, hook_job};
pub use import::{FORMAT_FIELD, Fault, Import, Token, TokenProblem, TokenText, read_end};
pub use jobs::{HookProblem, JobSeen, JobStep, KeyJob, has_job, hook_of, job_under_way, jobs_that_matter};
pub use machine::{decide, failed_at, is_of_clock, is_of_time, is_of_verifiers, next_moment, restarts};
pub use offer::ROTATION_DUE;
pub use policy_caps::PolicyCaps;
pub use report::{
    EndsSoon, IDLE, conditions, count, count_seldom, failed_job, is_stopped, reached, refused, verifier_counts,
    write_refused,
};
pub use rollout::{Workload, WorkloadSeen};
pub use seen::{ConsumerSeen, Made, Observed, RecordSeen, SecretSeen, Standing, VerifierSeen};
pub use selftest_job::selftest_job;
pub use spec::{Rotation, Spec, is_issue};
pub use step::{CONFLICTED, Refusal, Step};
pub use usage::{Use, deprecated_in_use, fold};
pub use windows::Windows;
