//! Secrets that tokens are imported from are watched, and wake who imports.

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client, ResourceExt as _,
    core::{DeserializeGuard, PartialObjectMeta},
    runtime::{WatchStreamExt as _, reflector::ObjectRef, watcher},
};
use tokio::sync::mpsc;

use super::super::Roots;
use crate::api::{ApiKey, labels::IMPORT};

/// Follows them for as long as the future runs: those alone whose owner agreed, and only that they changed.
pub(super) async fn follow(
    client: Client,
    roots: &Roots<ApiKey>,
    one: &mpsc::UnboundedSender<ObjectRef<DeserializeGuard<ApiKey>>>,
) {
    let secrets = Api::<PartialObjectMeta<Secret>>::all(client);
    let agreed = watcher::Config::default().labels(&format!("{IMPORT}=true"));
    let mut stream = std::pin::pin!(watcher(secrets, agreed).default_backoff());
    while let Some(event) = stream.next().await {
        match event {
            Ok(watcher::Event::Apply(secret) | watcher::Event::Delete(secret)) => {
                wake(roots, one, |namespace, name| {
                    secret.namespace().as_deref() == namespace && secret.name_any() == name
                });
            }
            // What changed while nobody watched brought no event of its own.
            Ok(watcher::Event::InitDone) => wake(roots, one, |_, _| true),
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "a watch failed and is being restarted"),
        }
    }
}

/// Wakes ApiKeys by the namespace and the name of the Secret that they import from.
fn wake(
    roots: &Roots<ApiKey>,
    one: &mpsc::UnboundedSender<ObjectRef<DeserializeGuard<ApiKey>>>,
    is_meant: impl Fn(Option<&str>, &str) -> bool,
) {
    roots.wake(one, |key| {
        let imported = key.0.as_ref().ok().and_then(|it| it.spec.imported());
        imported.is_some_and(|it| is_meant(key.namespace().as_deref(), &it.secret_ref.name))
    });
}
