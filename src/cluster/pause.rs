//! Break-glass: a ConfigMap that suspends enforcement until a time, and ends by itself.

use std::collections::BTreeMap;

use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::{api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams},
    runtime::{WatchStreamExt as _, watcher},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    Result,
    apply::exactly,
    error::{call, found},
};
use crate::runtime::readiness::Gate;

/// Name of the ConfigMap, in the install namespace.
pub const CONFIG_MAP: &str = "rampart-pause";
const UNTIL: &str = "until";
const REASON: &str = "reason";
const FIELD_MANAGER: &str = "rampart-pause";

/// What to do about a ConfigMap that names no time.
pub const IGNORED: &str = "it pauses nothing: data.until must be a time such as 2026-01-31T12:00:00Z (RFC 3339), and data.reason may say why; `rampart pause` writes both";

/// Enforcement is suspended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// When it ends.
    pub until: Timestamp,
    /// Why, in the words of who asked.
    pub reason: String,
}

/// What everybody in the process knows of the pause.
pub type Pauses = watch::Receiver<Option<Pause>>;

impl Pause {
    /// Reads a ConfigMap; `None` where it names no time: enforcement is not suspended by accident.
    #[must_use]
    pub fn read(found: &ConfigMap) -> Option<Self> {
        let data = found.data.as_ref()?;
        let until = data.get(UNTIL).map(|until| until.parse());
        if let Some(Ok(until)) = until {
            return Some(Self { until, reason: data.get(REASON).cloned().unwrap_or_default() });
        }
        tracing::error!("the ConfigMap {CONFIG_MAP} names no time in `{UNTIL}` (RFC 3339), and pauses nothing");
        None
    }
}

/// Whether a pause holds at `now`.
#[must_use]
pub fn holds(pause: Option<&Pause>, now: Timestamp) -> bool {
    pause.is_some_and(|pause| now < pause.until)
}

/// The pause that is set, and the object that sets it.
///
/// # Errors
/// When the call fails.
pub async fn read(client: &Client, namespace: &str) -> Result<Option<(Pause, ConfigMap)>> {
    let object = object(client, namespace).await?;
    Ok(object.and_then(|object| Some((Pause::read(&object)?, object))))
}

/// The object that sets a pause, or is meant to.
///
/// # Errors
/// When the call fails.
pub async fn object(client: &Client, namespace: &str) -> Result<Option<ConfigMap>> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    found(call(|| format!("reading the ConfigMap {CONFIG_MAP}"), api.get(CONFIG_MAP)).await)
}

/// Sets a pause.
///
/// # Errors
/// When the call fails.
pub async fn set(client: &Client, namespace: &str, pause: &Pause) -> Result<()> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let data = [(UNTIL, pause.until.to_string()), (REASON, pause.reason.clone())];
    let object = ConfigMap {
        metadata: ObjectMeta { name: Some(CONFIG_MAP.into()), ..ObjectMeta::default() },
        data: Some(data.map(|(key, value)| (key.to_owned(), value)).into_iter().collect::<BTreeMap<_, _>>()),
        ..ConfigMap::default()
    };
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let doing = || format!("writing the ConfigMap {CONFIG_MAP}");
    call(doing, api.patch(CONFIG_MAP, &params, &Patch::Apply(object))).await.map(drop)
}

/// Removes the pause: the given object, or whichever there is.
///
/// # Errors
/// When the call fails; one that is gone already is fine.
pub async fn remove(client: &Client, namespace: &str, seen: Option<&ConfigMap>) -> Result<()> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let params = seen.map_or_else(DeleteParams::default, exactly);
    let doing = || format!("deleting the ConfigMap {CONFIG_MAP}");
    found(call(doing, api.delete(CONFIG_MAP, &params)).await).map(drop)
}

/// Follows the pause until the process stops.
///
/// # Errors
/// None: a failing watch is restarted.
pub async fn follow(
    client: Client,
    namespace: String,
    pauses: watch::Sender<Option<Pause>>,
    synced: Gate,
    stopped: CancellationToken,
) -> anyhow::Result<()> {
    let api: Api<ConfigMap> = Api::namespaced(client, &namespace);
    let only = watcher::Config::default().fields(&format!("metadata.name={CONFIG_MAP}"));
    let stream = watcher(api, only).default_backoff().take_until(stopped.cancelled());
    let mut stream = std::pin::pin!(stream);
    let mut listed = None;
    while let Some(event) = stream.next().await {
        match event {
            Ok(watcher::Event::Init) => listed = None,
            Ok(watcher::Event::InitApply(object)) => listed = Pause::read(&object),
            Ok(watcher::Event::InitDone) => {
                pauses.send_replace(listed.take());
                synced.open();
            }
            Ok(watcher::Event::Apply(object)) => drop(pauses.send_replace(Pause::read(&object))),
            Ok(watcher::Event::Delete(_)) => drop(pauses.send_replace(None)),
            Err(error) => tracing::warn!(%error, "the watch of {CONFIG_MAP} failed and is being restarted"),
        }
    }
    Ok(())
}
