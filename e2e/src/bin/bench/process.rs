//! What a process costs, as the kernel tells it.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rampart_e2e::{Operator, wait};

/// How long the operator needs until it is ready, if it was started at `began`.
pub(crate) async fn ready_after(operator: &Operator, began: Instant) -> Result<f64> {
    while !operator.admin("/readyz").await.is_ok_and(|(code, _)| code == 200) {
        ensure!(began.elapsed() < wait::SOON, "not ready: {}", operator.log_tail());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(began.elapsed().as_secs_f64())
}

/// Resident memory once it has stopped falling for ten seconds, which is how long the allocator takes
/// to give back what a burst needed.
pub(crate) async fn settled_memory(pid: u32) -> Result<f64> {
    let (mut least, mut since) = (memory(pid)?, Instant::now());
    while since.elapsed() < Duration::from_secs(10) {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = memory(pid)?;
        if now < least - 0.1 {
            (least, since) = (now, Instant::now());
        }
    }
    memory(pid)
}

/// Resident memory of a process, MiB.
pub(crate) fn memory(pid: u32) -> Result<f64> {
    of_status(pid, "VmRSS:")
}

/// The most that a process ever had of it.
pub(crate) fn peak_memory(pid: u32) -> Result<f64> {
    of_status(pid, "VmHWM:")
}

fn of_status(pid: u32, field: &str) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)).with_context(|| field.to_owned())?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024.0)
}

/// Seconds that the threads of a process have run so far.
pub(crate) fn cpu_seconds(pid: u32) -> Result<f64> {
    let mut nanoseconds = 0.0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end while it is looked at.
        let text = fs::read_to_string(thread?.path().join("schedstat")).unwrap_or_default();
        nanoseconds += text.split(' ').next().and_then(|first| first.parse::<f64>().ok()).unwrap_or_default();
    }
    Ok(nanoseconds / 1e9)
}
