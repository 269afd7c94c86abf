//! How many files and connections a process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Takes as many as the system allows. Programs start with fewer, often 1,024, for the sake of those that call
/// `select`; Go's do the same.
pub fn allow_all() {
    let limit = getrlimit(Resource::Nofile);
    let all = Rlimit { current: limit.maximum, ..limit };
    if let Err(error) = setrlimit(Resource::Nofile, all) {
        tracing::warn!(%error, allowed = limit.current, "no more connections and files can be had");
    }
}
