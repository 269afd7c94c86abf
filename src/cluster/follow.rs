//! Following all objects of a kind into a map of what each says.

use std::{collections::BTreeMap, fmt::Debug};

use futures::StreamExt as _;
use kube::{
    Api, Resource, ResourceExt as _,
    runtime::{WatchStreamExt as _, watcher},
};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::client::PAGE;

/// Namespace and name.
pub type Key = (String, String);

/// Follows a kind for ever. `read` says what an object says, given what it said before; `changed` is told
/// of one that changed, or of all after a list.
pub async fn follow<K, V>(
    api: Api<K>,
    read: impl Fn(&K, Option<&V>) -> Option<V>,
    changed: impl Fn(&BTreeMap<Key, V>, Option<&Key>),
    listed: &watch::Sender<bool>,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
    V: PartialEq,
{
    follow_those(api, (&K::kind(&()), watcher::Config::default()), read, changed, listed).await;
}

/// As [`follow`], of those of a kind that a configuration selects.
pub async fn follow_those<K, V>(
    api: Api<K>,
    (kind, which): (&str, watcher::Config),
    read: impl Fn(&K, Option<&V>) -> Option<V>,
    changed: impl Fn(&BTreeMap<Key, V>, Option<&Key>),
    listed: &watch::Sender<bool>,
) where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
    V: PartialEq,
{
    let stream = watcher(api, which.page_size(PAGE)).default_backoff();
    let mut stream = std::pin::pin!(stream);
    let (mut all, mut listing) = (BTreeMap::new(), BTreeMap::new());
    while let Some(event) = stream.next().await {
        match event {
            Ok(watcher::Event::Init) => listing = BTreeMap::new(),
            Ok(watcher::Event::InitApply(object)) => {
                let key = key(&object);
                if let Some(value) = read(&object, all.get(&key)) {
                    listing.insert(key, value);
                }
            }
            Ok(watcher::Event::InitDone) => {
                all = std::mem::take(&mut listing);
                changed(&all, None);
                listed.send_replace(true);
            }
            Ok(watcher::Event::Apply(object)) => {
                let key = key(&object);
                let value = read(&object, all.get(&key));
                if value.as_ref() == all.get(&key) {
                    continue;
                }
                match value {
                    Some(value) => drop(all.insert(key.clone(), value)),
                    None => drop(all.remove(&key)),
                }
                changed(&all, Some(&key));
            }
            Ok(watcher::Event::Delete(object)) => {
                let key = key(&object);
                if all.remove(&key).is_some() {
                    changed(&all, Some(&key));
                }
            }
            Err(watcher::Error::InitialListFailed(kube::Error::Api(status))) if status.code == 404 => {
                // No such kind: nothing is asked, and what was asked before stays until it is back.
                tracing::warn!(kind, "the API server does not serve this kind: is its CRD installed?");
                listed.send_replace(true);
            }
            Err(error) => {
                tracing::warn!(kind, %error, "a watch failed and is being restarted");
            }
        }
    }
}

fn key<K: Resource>(object: &K) -> Key {
    (object.namespace().unwrap_or_default(), object.name_any())
}
