//! Supervised tasks: one that ends early takes the process down, so that it is started anew whole.

use std::{future::Future, time::Duration};

use anyhow::{Result, bail};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::readiness::Readiness;

/// How long tasks may take to finish what they are at.
const DRAIN: Duration = Duration::from_secs(20);

/// The tasks of a process, and the two phases of its end: first `stopping` (no longer ready, still
/// serving, so that endpoints are withdrawn), then `stopped` (finish what is under way, and go).
pub struct Tasks {
    set: JoinSet<(&'static str, Result<()>)>,
    stopped: CancellationToken,
    readiness: Readiness,
    lame_duck: Duration,
}

impl Tasks {
    /// No tasks yet. `lame_duck` is the length of the first phase.
    #[must_use]
    pub fn new(readiness: Readiness, lame_duck: Duration) -> Self {
        Self { set: JoinSet::new(), stopped: CancellationToken::new(), readiness, lame_duck }
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
        };
        self.readiness.shut_down();
        if let Some(ended) = early {
            // At once, without draining: who lost the Lease, say, must not finish what it is at.
            self.stopped.cancel();
            match ended {
                Some(Ok((name, Ok(())))) => bail!("{name} ended before the process was asked to"),
                Some(Ok((name, Err(error)))) => return Err(error.context(format!("{name} failed"))),
                Some(Err(panic)) => bail!("a task panicked: {panic}"),
                None => bail!("there was nothing to run"),
            }
        }
        tracing::info!(lame_duck_seconds = self.lame_duck.as_secs(), "shutting down");
        tokio::select! {
            () = tokio::time::sleep(self.lame_duck) => {}
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        self.stopped.cancel();
        tokio::select! {
            joined = tokio::time::timeout(DRAIN, self.join()) => match joined {
                Ok(result) => result,
                Err(_) => bail!("tasks were still running {DRAIN:?} after they were asked to finish"),
            },
            _ = terminate.recv() => bail!("a second signal cut the shutdown short"),
            _ = interrupt.recv() => bail!("a second signal cut the shutdown short"),
        }
    }

    async fn join(&mut self) -> Result<()> {
        let mut result = Ok(());
        while let Some(ended) = self.set.join_next().await {
            match ended {
                Ok((_, Ok(()))) => {}
                Ok((name, Err(error))) => result = Err(error.context(format!("{name} failed while stopping"))),
                Err(panic) => bail!("a task panicked while stopping: {panic}"),
            }
        }
        result
    }
}
