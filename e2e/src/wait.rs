//! Waiting for a condition with a deadline.

use std::{future::Future, time::Duration};

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep};

/// How long a test waits for something that should come true at once, on a machine that does much else: who sees it sooner
/// waits no longer. What must not take as long has a deadline of its own.
pub const SOON: Duration = Duration::from_mins(2);

/// Polls `probe` until it yields a value, at most `deadline` long.
///
/// # Errors
/// When the deadline passes, with the last reason that `probe` gave.
pub async fn until<T, F, Fut>(what: &str, deadline: Duration, mut probe: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T>>,
{
    let end = Instant::now() + deadline;
    let mut pause = Duration::from_millis(10);
    loop {
        let reason = match probe().await {
            Ok(value) => return Ok(value),
            Err(reason) => reason,
        };
        if Instant::now() >= end {
            bail!("waited {deadline:?} for {what}: {reason:#}");
        }
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(200));
    }
}
