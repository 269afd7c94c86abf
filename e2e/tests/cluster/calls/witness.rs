//! Watches every object of a key, and tells afterwards whether anything was there at any time that must not be.
//!
//! Changes are judged in the order in which they were made, by their resourceVersions: the watches of several kinds run
//! at their own pace.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context as _, Result, bail, ensure};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::ListParams,
    runtime::{WatchStreamExt as _, watcher},
};
use rampart::{
    api::{
        ApiKey, KeyRecord, RecordState,
        labels::{KEY_VERSION, OWNER_NAMESPACE},
    },
    keys::format::ApiKeyText,
};
use rampart_e2e::wait;
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;

use crate::{Env, keys::text};

/// What was there from a change on.
enum Change {
    Status { current: Option<i64>, next: Option<i64> },
    Version { n: i64, made: String, digest: String },
    VersionGone(i64),
    Record { id: String, n: i64, state: RecordState, digest: Option<String> },
    RecordGone(String),
}

#[derive(Default)]
struct Seen {
    changes: BTreeMap<(u64, String), Change>,
    /// The newest change of each kind.
    newest: BTreeMap<&'static str, u64>,
    problems: Vec<String>,
}

/// A running witness; dropping it ends its watches.
pub(crate) struct Witness {
    secrets: Api<Secret>,
    records: Api<KeyRecord>,
    keys: Api<ApiKey>,
    of_namespace: String,
    seen: Arc<Mutex<Seen>>,
    _tasks: JoinSet<()>,
}

impl Witness {
    /// Starts one for the key of a namespace, before the key is made: what was before a watch begins is not told in order.
    pub(crate) async fn start(client: &Client, namespace: &str) -> Result<Self> {
        let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
        let records: Api<KeyRecord> = Api::namespaced(client.clone(), "rampart-keys");
        let keys: Api<ApiKey> = Api::namespaced(client.clone(), namespace);
        let of_namespace = format!("{OWNER_NAMESPACE}={namespace}");
        let seen = Arc::<Mutex<Seen>>::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(watch(secrets.clone(), KEY_VERSION.into(), ("secrets", version), seen.clone()));
        tasks.spawn(watch(records.clone(), of_namespace.clone(), ("records", record), seen.clone()));
        tasks.spawn(watch(keys.clone(), String::new(), ("keys", status), seen.clone()));
        let this = Self { secrets, records, keys, of_namespace, seen, _tasks: tasks };
        wait::until("the witness to watch", wait::SOON, || async {
            let seen = this.seen.lock().unwrap_or_else(PoisonError::into_inner);
            Ok(ensure!(seen.newest.len() == 3, "it watches {:?}", seen.newest.keys()))
        })
        .await?;
        Ok(this)
    }

    /// Judges what has happened up to now. How many versions there are is told.
    pub(crate) async fn check(&self) -> Result<i64> {
        let [secrets, records, keys] = [
            newest(&self.secrets, KEY_VERSION).await?,
            newest(&self.records, &self.of_namespace).await?,
            newest(&self.keys, "").await?,
        ];
        wait::until("the witness to have seen everything", wait::SOON, || async {
            let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            for (kind, wanted) in [("secrets", secrets), ("records", records), ("keys", keys)] {
                let newest = seen.newest.get(kind).copied().unwrap_or_default();
                ensure!(newest >= wanted, "of {kind} {newest} is the newest, and not {wanted}");
            }
            Ok(())
        })
        .await?;
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(seen.problems.is_empty(), "{:?}", seen.problems);
        judge(&seen.changes)
    }
}

fn revision<K: Resource>(object: &K) -> u64 {
    object.resource_version().and_then(|revision| revision.parse().ok()).unwrap_or_default()
}

async fn newest<K>(api: &Api<K>, labels: &str) -> Result<u64>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    let all = api.list(&ListParams::default().labels(labels)).await?;
    Ok(all.iter().map(revision).max().unwrap_or_default())
}

/// What an object says, or its end.
type Read<K> = fn(&K, bool) -> Result<Change>;

async fn watch<K>(api: Api<K>, labels: String, (kind, read): (&'static str, Read<K>), seen: Arc<Mutex<Seen>>)
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let config = watcher::Config::default().labels(&labels);
    let mut events = std::pin::pin!(watcher(api, config).default_backoff());
    while let Some(event) = events.next().await {
        let (object, is_gone) = match event {
            Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => (object, false),
            Ok(watcher::Event::Delete(object)) => (object, true),
            Ok(watcher::Event::InitDone) => {
                seen.lock().unwrap_or_else(PoisonError::into_inner).newest.entry(kind).or_default();
                continue;
            }
            _ => continue,
        };
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        let revision = revision(&object);
        match read(&object, is_gone) {
            Ok(change) => drop(seen.changes.insert((revision, object.name_any()), change)),
            Err(error) => seen.problems.push(format!("{kind} {}: {error:#}", object.name_any())),
        }
        let newest = seen.newest.entry(kind).or_default();
        *newest = revision.max(*newest);
    }
}

fn version(secret: &Secret, is_gone: bool) -> Result<Change> {
    let n = secret.labels().get(KEY_VERSION).context("a version")?.parse()?;
    if is_gone {
        return Ok(Change::VersionGone(n));
    }
    let key = text(secret, "key").context("a key")?;
    let digest = ApiKeyText::parse(&key).map_err(|error| anyhow::anyhow!("{error:?}"))?.digest();
    Ok(Change::Version { n, made: secret.uid().unwrap_or_default(), digest })
}

#[allow(clippy::unnecessary_wraps, reason = "the form of a look")]
fn record(record: &KeyRecord, is_gone: bool) -> Result<Change> {
    let (id, spec) = (record.name_any(), &record.spec);
    if is_gone {
        return Ok(Change::RecordGone(id));
    }
    Ok(Change::Record { id, n: spec.api_key.version, state: spec.state, digest: spec.digest.clone() })
}

#[allow(clippy::unnecessary_wraps, reason = "the form of a look")]
fn status(key: &ApiKey, is_gone: bool) -> Result<Change> {
    let status = key.status.clone().filter(|_| !is_gone).unwrap_or_default();
    Ok(Change::Status { current: status.current_version, next: status.next_version })
}

/// At no time two versions under way, none made that was not written down before, none made twice, none changed; no key
/// that consumers may hold taken back.
fn judge(changes: &BTreeMap<(u64, String), Change>) -> Result<i64> {
    let mut versions: BTreeMap<i64, (&str, &str)> = BTreeMap::new();
    // The last that was handed out, also where its status was lost since.
    let mut handed_out = 0;
    let mut announced: BTreeSet<i64> = BTreeSet::new();
    for ((revision, _), change) in changes {
        match change {
            Change::Status { current, next } => {
                handed_out = handed_out.max(current.unwrap_or_default());
                announced.extend(current.iter().chain(next));
            }
            Change::Version { n, made, digest } => {
                ensure!(announced.contains(n), "{revision}: version {n} was made before it was written down");
                let before = *versions.entry(*n).or_insert((made, digest));
                ensure!(before == (made, digest), "{revision}: version {n} was made again");
                let pending: Vec<&i64> = versions.keys().filter(|n| **n > handed_out).collect();
                ensure!(pending.len() <= 1, "{revision}: pending are versions {pending:?}");
            }
            Change::Record { id, n, state, digest } => {
                let lives = matches!(state, RecordState::Active | RecordState::Deprecated);
                ensure!(lives, "{revision}: the key {id} of version {n} is {state:?}");
                let (_, made) = versions.get(n).with_context(|| format!("{revision}: a record of no version {n}"))?;
                ensure!(digest.as_deref() == Some(*made), "{revision}: the record of version {n} is of another key");
            }
            Change::VersionGone(n) => bail!("{revision}: the Secret of version {n} is lost"),
            Change::RecordGone(id) => bail!("{revision}: the record of {id} is lost"),
        }
    }
    let digests: BTreeSet<&str> = versions.values().map(|(_, digest)| *digest).collect();
    ensure!(digests.len() == versions.len(), "two versions have the same key");
    Ok(i64::try_from(versions.len())?)
}

/// What it is there for.
pub(crate) async fn sees_what_must_not_be(_: Env) -> Result<()> {
    let status = |current: Option<i64>, next| Change::Status { current, next };
    let version = |n: i64, made: &str| Change::Version { n, made: made.into(), digest: format!("digest-{n}") };
    let record = |n: i64, digest: Option<String>, state| Change::Record { id: format!("id-{n}"), n, state, digest };
    let good = || {
        let active = record(1, Some("digest-1".into()), RecordState::Active);
        let first = vec![status(None, Some(1)), version(1, "a"), active, status(Some(1), None)];
        first.into_iter().chain([status(Some(1), Some(2)), version(2, "b")]).collect::<Vec<_>>()
    };
    let judged = |more: Vec<Change>| {
        let all = good().into_iter().chain(more).enumerate();
        judge(&all.map(|(at, change)| ((at as u64, String::new()), change)).collect())
    };
    ensure!(judged(vec![])? == 2);
    for (more, problem) in [
        (vec![status(Some(1), Some(3)), version(3, "c")], "pending are versions [2, 3]"),
        (vec![version(3, "c")], "version 3 was made before it was written down"),
        (vec![version(2, "c")], "version 2 was made again"),
        (vec![Change::VersionGone(1)], "the Secret of version 1 is lost"),
        (vec![Change::RecordGone("id-1".into())], "the record of id-1 is lost"),
        (vec![record(1, None, RecordState::Destroyed)], "the key id-1 of version 1 is Destroyed"),
        (vec![record(1, None, RecordState::Active)], "the record of version 1 is of another key"),
    ] {
        let said = judged(more).err().with_context(|| format!("not seen: {problem}"))?.to_string();
        ensure!(said.contains(problem), "{said} is not: {problem}");
    }
    Ok(())
}
