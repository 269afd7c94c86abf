//! The checks, a file each.

use crate::check::Check;

mod capabilities_restricted;
mod run_as_non_root;
mod seccomp_profile_restricted;

/// Every check, baseline before restricted, each sorted by id.
pub static CHECKS: &[&Check] =
    &[&capabilities_restricted::CHECK, &run_as_non_root::CHECK, &seccomp_profile_restricted::CHECK];
