//! When a controller has to look again.

use std::{fmt::Debug, time::Duration};

use futures::{
    StreamExt as _,
    stream::{BoxStream, select_all},
};
use jiff::Timestamp;
use kube::{
    Api, Resource,
    core::PartialObjectMeta,
    runtime::{WatchStreamExt as _, watcher},
};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::runtime::clock;

/// An object's status is written at most this often for counts alone.
pub(super) const HOLD: Duration = Duration::from_secs(10);

/// That something has changed, whatever it is.
pub(super) type News = BoxStream<'static, Result<(), watcher::Error>>;

/// Changes of objects.
pub(super) fn of<K>(api: Api<PartialObjectMeta<K>>, which: watcher::Config) -> News
where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + 'static,
{
    watcher(api, which).default_backoff().map(|event| event.map(drop)).boxed()
}

/// The object of a name.
pub(super) fn named(name: &str) -> watcher::Config {
    watcher::Config::default().fields(&format!("metadata.name={name}"))
}

/// Counts what is new of `what` until the process stops.
pub(super) async fn follow(
    what: &'static str,
    news: Vec<News>,
    count: watch::Sender<u64>,
    stopped: CancellationToken,
) -> anyhow::Result<()> {
    let mut news = std::pin::pin!(select_all(news).take_until(stopped.cancelled()));
    while let Some(event) = news.next().await {
        match event {
            Ok(()) => count.send_modify(|count| *count = count.wrapping_add(1)),
            Err(error) => tracing::warn!(%error, "the watch of {what} failed and is being restarted"),
        }
    }
    Ok(())
}

/// Sleeps, for ever where nothing is to come.
pub(super) async fn after(pause: Option<Duration>) {
    match pause {
        Some(pause) => tokio::time::sleep(pause).await,
        None => std::future::pending().await,
    }
}

/// Waits for a moment, for ever where none is to come.
pub(super) async fn due(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// How long to sleep for a time to come. Not longer than a minute: a clock may be set, and a machine may sleep.
pub(super) fn until(time: Timestamp) -> Duration {
    let left = Duration::try_from(time.duration_since(clock::now())).unwrap_or_default();
    left.clamp(Duration::from_millis(10), Duration::from_mins(1))
}
