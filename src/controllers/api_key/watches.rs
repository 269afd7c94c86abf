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
    keys_namespace: &str,
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
                if let Some(name) = owner(&object, keys_namespace) {
                    visits.heard(&name, &object);
                }
            }
            Ok(watcher::Event::Delete(object)) => {
                if let Some(name) = owner(&object, keys_namespace) {
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

/// The ApiKey of an object: in its namespace, but for what is kept in that of the keys. Elsewhere anybody could have the
/// keys of others looked at, as often as they like.
fn owner<K: Resource>(object: &K, keys_namespace: &str) -> Option<Name> {
    let (labels, own) = (object.labels(), object.namespace().unwrap_or_default());
    let told = labels.get(OWNER_NAMESPACE).filter(|_| own == keys_namespace).cloned();
    Some((told.unwrap_or(own), labels.get(OWNER_NAME)?.clone()))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Secret;
    use serde_json::json;

    use super::*;

    #[test]
    fn nobody_wakes_the_keys_of_another_namespace() {
        let owner = |namespace: &str, labels: serde_json::Value| {
            let secret = json!({"metadata": {"name": "s", "namespace": namespace, "labels": labels}});
            owner(&serde_json::from_value::<Secret>(secret).unwrap(), "rampart-keys")
        };
        let labels = || json!({OWNER_NAMESPACE: "shop", OWNER_NAME: "orders"});
        let name = |namespace: &str| Some((namespace.to_owned(), "orders".to_owned()));
        assert_eq!(owner("rampart-keys", labels()), name("shop"));
        assert_eq!(owner("mallory", labels()), name("mallory"));
        assert_eq!(owner("shop", json!({OWNER_NAME: "orders"})), name("shop"));
        assert_eq!(owner("shop", json!({})), None);
    }
}
