//! What is made for an ApiKey is watched, and wakes it.

use std::sync::Arc;

use futures::StreamExt as _;
use kube::{
    Api, Resource, ResourceExt as _,
    runtime::{WatchStreamExt as _, watcher},
};
use tokio::sync::watch;

use super::visits::{Name, Visits};
use crate::api::labels::{OWNER_NAME, OWNER_NAMESPACE};

/// Wakes the ApiKey that an object was made for, whenever the object has changed in a way that matters to it.
pub(super) async fn wake<K>(
    (api, config): (Api<K>, watcher::Config),
    note: impl Fn(&watcher::Event<K>),
    matters: impl Fn(&K) -> bool,
    (visits, all): &(Arc<Visits>, watch::Sender<u64>),
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
            Ok(watcher::Event::Apply(object)) if matters(&object) => {
                if let Some(name) = owner(&object) {
                    visits.heard(&name, &object);
                }
            }
            Ok(watcher::Event::Delete(object)) => {
                if let Some(name) = owner(&object) {
                    visits.wake(&name);
                }
            }
            // What was deleted while nobody watched brought no event of its own.
            Ok(watcher::Event::InitDone) => {
                visits.own.forget();
                all.send_modify(|count| *count += 1);
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "a watch failed and is being restarted"),
        }
    }
}

fn owner<K: Resource>(object: &K) -> Option<Name> {
    let labels = object.labels();
    let namespace = labels.get(OWNER_NAMESPACE).cloned().or_else(|| object.namespace()).unwrap_or_default();
    Some((namespace, labels.get(OWNER_NAME)?.clone()))
}
