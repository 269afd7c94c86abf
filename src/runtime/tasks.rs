//! Supervised tasks: one that ends early takes the process down, so that it is started anew whole.

use std::{future::Future, time::Duration};

use anyhow::{Result, anyhow, bail};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::{JoinError, JoinSet},
};
use tokio_util::sync::CancellationToken;

use super::readiness::Readiness;

/// How long tasks may take to finish what they are at.
const DRAIN: Duration = Duration::from_secs(20);
/// How long those may take that outlast the others.
const LAST: Duration = Duration::from_secs(3);

type Set = JoinSet<(&'static str, Result<()>)>;

/// The tasks of a process, and the two phases of its end: first `stopping` (no longer ready, still
/// serving, so that endpoints are withdrawn), then `stopped` (finish what is under way, and go).
pub struct Tasks {
    set: Set,
    /// What must not end before the others have.
    lasting: Set,
    stopped: CancellationToken,
    alone: CancellationToken,
    readiness: Readiness,
    lame_duck: Duration,
}

impl Tasks {
    /// No tasks yet. `lame_duck` is the length of the first phase.
    #[must_use]
    pub fn new(readiness: Readiness, lame_duck: Duration) -> Self {
        let (set, lasting) = (JoinSet::new(), JoinSet::new());
        Self { set, lasting, stopped: CancellationToken::new(), alone: CancellationToken::new(), readiness, lame_duck }
    }

    /// Cancelled when tasks must finish.
    #[must_use]
    pub fn stopped(&self) -> CancellationToken {
        self.stopped.clone()
    }

    /// Adds a task, which is to run until [`Tasks::stopped`].
    pub fn spawn(&mut self, name: &'static str, task: impl Future<Output = Result<()>> + Send + 'static) {
        self.set.spawn(async move { (name, task.await) });
    }

    /// Cancelled when no other task runs any more.
    #[must_use]
    pub fn alone(&self) -> CancellationToken {
        self.alone.clone()
    }

    /// Adds a task that outlasts the others: it is to run until it is [`Tasks::alone`].
    pub fn spawn_lasting(&mut self, name: &'static str, task: impl Future<Output = Result<()>> + Send + 'static) {
        self.lasting.spawn(async move { (name, task.await) });
    }

    /// Runs until a signal (a clean end) or until a task ends by itself (an error).
    ///
    /// # Errors
    /// When a task failed, ended early, panicked, or did not finish in time.
    pub async fn run(mut self) -> Result<()> {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let early = tokio::select! {
            _ = terminate.recv() => None,
            _ = interrupt.recv() => None,
            ended = self.set.join_next() => Some(ended),
            ended = ended_of(&mut self.lasting) => Some(Some(ended)),
        };
        self.readiness.shut_down();
        if let Some(ended) = early {
            // At once, without draining: who lost the Lease, say, must not finish what it is at.
            self.stopped.cancel();
            return early_end(ended);
        }
        tracing::info!(lame_duck_seconds = self.lame_duck.as_secs(), "shutting down");
        tokio::select! {
            () = tokio::time::sleep(self.lame_duck) => {}
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            ended = ended_of(&mut self.lasting) => return early_end(Some(ended)),
        }
        self.stopped.cancel();
        tokio::select! {
            result = self.finish() => result,
            _ = terminate.recv() => bail!("a second signal cut the shutdown short"),
            _ = interrupt.recv() => bail!("a second signal cut the shutdown short"),
        }
    }

    /// Waits for the tasks, which were asked to finish, and then for those that outlast them.
    async fn finish(&mut self) -> Result<()> {
        let joined = tokio::select! {
            joined = tokio::time::timeout(DRAIN, join(&mut self.set)) => joined,
            ended = ended_of(&mut self.lasting) => return early_end(Some(ended)),
        };
        let result = joined.unwrap_or_else(|_| {
            // What they are at is cut off, and then they do nothing any more.
            self.set.abort_all();
            Err(anyhow!("tasks were still running {DRAIN:?} after they were asked to finish"))
        });
        self.alone.cancel();
        let last = tokio::time::timeout(LAST, join(&mut self.lasting)).await;
        result.and(last.unwrap_or(Ok(())))
    }
}

type Ended = Result<(&'static str, Result<()>), JoinError>;

/// Waits until one of these ends; for ever, where there is none.
async fn ended_of(set: &mut Set) -> Ended {
    match set.join_next().await {
        Some(ended) => ended,
        None => std::future::pending().await,
    }
}

/// What it means that a task ended that was not asked to.
fn early_end(ended: Option<Ended>) -> Result<()> {
    match ended {
        Some(Ok((name, Ok(())))) => bail!("{name} ended before the process was asked to"),
        Some(Ok((name, Err(error)))) => Err(error.context(format!("{name} failed"))),
        Some(Err(panic)) => bail!("a task panicked: {panic}"),
        None => bail!("there was nothing to run"),
    }
}

async fn join(set: &mut Set) -> Result<()> {
    let mut result = Ok(());
    while let Some(ended) = set.join_next().await {
        match ended {
            Ok((_, Ok(()))) => {}
            Ok((name, Err(error))) => result = Err(error.context(format!("{name} failed while stopping"))),
            Err(panic) => result = Err(anyhow!("a task panicked while stopping: {panic}")),
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };

    use super::*;

    #[tokio::test]
    async fn what_lasts_ends_after_the_others() {
        let mut tasks = Tasks::new(Readiness::default(), Duration::ZERO);
        let (stopped, alone) = (tasks.stopped(), tasks.alone());
        let (works, worked) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(true)));
        let (working, seen) = (Arc::clone(&works), Arc::clone(&worked));
        tasks.spawn("work", async move {
            stopped.cancelled().await;
            // What is under way needs a while.
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            working.store(false, Ordering::Relaxed);
            Ok(())
        });
        tasks.spawn_lasting("election", async move {
            alone.cancelled().await;
            seen.store(works.load(Ordering::Relaxed), Ordering::Relaxed);
            Ok(())
        });
        tasks.stopped.cancel();
        tasks.finish().await.unwrap();
        assert!(!worked.load(Ordering::Relaxed));
    }

    #[tokio::test]
    async fn who_loses_what_it_needs_while_it_drains_ends_at_once() {
        let mut tasks = Tasks::new(Readiness::default(), Duration::ZERO);
        tasks.spawn("work", std::future::pending());
        tasks.spawn_lasting("election", async { Err(anyhow!("the Lease was taken")) });
        assert!(format!("{:#}", tasks.finish().await.unwrap_err()).contains("election failed: the Lease was taken"));
    }
}
