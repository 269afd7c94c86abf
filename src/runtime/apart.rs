//! What must not wait for the rest of the process.

use anyhow::{Result, anyhow};
use tokio::sync::oneshot;

/// Runs a task on a thread and a runtime of its own, to its end: it goes on whatever the others keep busy. It is made
/// there, so that connections that it makes are of that runtime, too. That the others hang is for the liveness probe to see.
///
/// # Errors
/// That of the task, or that there is no such thread.
pub async fn apart<F>(name: &'static str, task: impl FnOnce() -> F + Send + 'static) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (end, ended) = oneshot::channel();
    std::thread::Builder::new().name(name.into()).spawn(move || {
        let _entered = runtime.enter();
        let _ = end.send(runtime.block_on(task()));
    })?;
    ended.await.unwrap_or_else(|_| Err(anyhow!("the thread of {name} panicked")))
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use super::*;

    #[tokio::test]
    async fn it_goes_on_while_the_runtime_of_the_others_is_kept_busy() {
        let (tell, told) = mpsc::channel();
        let task = move || async move {
            tokio::spawn(async {}).await?;
            tell.send(())?;
            anyhow::Ok(())
        };
        let running = tokio::spawn(apart("apart", task));
        // It begins, and then the only thread of this runtime does nothing else.
        tokio::task::yield_now().await;
        told.recv_timeout(Duration::from_secs(10)).unwrap();
        running.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn its_end_is_told_however_it_ends() {
        assert!(apart("apart", || async { Ok(()) }).await.is_ok());
        assert_eq!(apart("apart", || async { Err(anyhow!("no")) }).await.unwrap_err().to_string(), "no");
        let panics = || async { panic!("as a test has it") };
        assert_eq!(apart("apart", panics).await.unwrap_err().to_string(), "the thread of apart panicked");
    }
}
