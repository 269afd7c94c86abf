//! What is made for an ApiKey is watched, and wakes it.

use futures::StreamExt as _;
use kube::{
    Api, Resource, ResourceExt as _,
    core::DeserializeGuard,
    runtime::{WatchStreamExt as _, reflector::ObjectRef, watcher},
};
use tokio::sync::{mpsc, watch};

use crate::api::{
    ApiKey,
    labels::{OWNER_NAME, OWNER_NAMESPACE},
};

/// Wakes the ApiKey that an object was made for, whenever the object changes.
pub(super) async fn wake<K>(
    api: Api<K>,
    config: watcher::Config,
    note: impl Fn(&watcher::Event<K>),
    (one, all): (mpsc::UnboundedSender<ObjectRef<DeserializeGuard<ApiKey>>>, watch::Sender<u64>),
) where
    K: Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    let stream = watcher(api, config).default_backoff();
    let mut stream = std::pin::pin!(stream);
    while let Some(event) = stream.next().await {
        if let Ok(event) = &event {
            note(event);
        }
        match event {
            Ok(watcher::Event::Apply(object) | watcher::Event::Delete(object)) => {
                let labels = object.labels();
                let namespace = labels.get(OWNER_NAMESPACE).cloned().or_else(|| object.namespace()).unwrap_or_default();
                if let Some(name) = labels.get(OWNER_NAME) {
                    let _ = one.send(ObjectRef::new(name).within(&namespace));
                }
            }
            // What was deleted while nobody watched brought no event of its own.
            Ok(watcher::Event::InitDone) => all.send_modify(|count| *count += 1),
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "a watch failed and is being restarted"),
        }
    }
}
