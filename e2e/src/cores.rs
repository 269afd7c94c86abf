//! Which cores a process runs on.

use anyhow::{Context as _, Result};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The cores that this thread may run on.
///
/// # Errors
/// When the system can't tell.
pub fn allowed() -> Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect())
}

/// Runs something on a thread that stays on one core, and so do the processes that it starts: a child
/// inherits the affinity of the thread that started it.
///
/// # Errors
/// Those of `what`; or when the core is not to be had.
pub fn on<T: Send>(core: usize, what: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let pinned = move || {
        let mut set = CpuSet::new();
        set.set(core);
        sched_setaffinity(None, &set).with_context(|| format!("pinning to core {core}"))?;
        what()
    };
    std::thread::scope(|scope| scope.spawn(pinned).join()).map_err(|_| anyhow::anyhow!("a pinned thread panicked"))?
}
