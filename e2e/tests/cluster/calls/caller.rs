//! A consumer that calls 200 times a second with the key that its mounted file holds.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client,
    runtime::{WatchStreamExt as _, watcher},
};
use rampart_e2e::{Envoy, Verifier, wait};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::{sync::watch, task::JoinSet, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::keys::text;

/// Between two calls: 200 a second.
const PACE: Duration = Duration::from_millis(5);
/// kubelet is that late at the most.
const LAG: Duration = Duration::from_secs(1);

/// What calls go through: Envoy, or straight to the verifiers in turn.
pub(crate) struct Front {
    pub(crate) verifiers: Vec<Verifier>,
    pub(crate) envoy: Option<Envoy>,
}

impl Front {
    async fn ask(&self, nth: usize, key: &str) -> Result<u16> {
        match &self.envoy {
            Some(envoy) => envoy.ask(key).await,
            None => self.verifiers[nth % self.verifiers.len()].ask(key).await,
        }
    }
}

#[derive(Default)]
struct Tally {
    calls: usize,
    /// Calls by the id of the key.
    keys: BTreeMap<String, usize>,
    refused: Vec<String>,
    lost: Vec<String>,
    slowest: Duration,
}

/// A running consumer; dropping it ends its calls.
pub(crate) struct Caller {
    file: watch::Receiver<String>,
    tally: Arc<Mutex<Tally>>,
    began: Instant,
    enough: CancellationToken,
    tasks: JoinSet<()>,
}

impl Caller {
    /// Starts one in a namespace whose key is issued.
    pub(crate) async fn start(front: &Arc<Front>, client: &Client, namespace: &str, seed: u64) -> Result<Self> {
        let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
        let first = text(&secrets.get("orders-key").await?, "API_KEY").context("a key")?;
        let (latest_tx, latest) = watch::channel(first.clone());
        let (file_tx, file) = watch::channel(first);
        let mut tasks = JoinSet::new();
        tasks.spawn(follow(secrets, latest_tx));
        tasks.spawn(mount(latest, file_tx, StdRng::seed_from_u64(seed)));
        let (tally, enough) = (Arc::<Mutex<Tally>>::default(), CancellationToken::new());
        tasks.spawn(call(front.clone(), file.clone(), tally.clone(), enough.clone()));
        Ok(Self { file, tally, began: Instant::now(), enough, tasks })
    }

    /// Waits until the file holds what the Secret holds.
    pub(crate) async fn has(&self, key: &str) -> Result<()> {
        wait::until("the consumer to have the new key", wait::SOON, || async {
            Ok(ensure!(*self.file.borrow() == key, "it has an older one"))
        })
        .await
    }

    /// Ends the calls; an error if one was refused, or too few were made. What it did is told.
    pub(crate) async fn finish(mut self) -> Result<String> {
        let took = self.began.elapsed();
        self.enough.cancel();
        let tally = self.tally.clone();
        // Calls under way are heard to their end.
        tokio::time::timeout(wait::SOON, self.tasks.join_next()).await.context("calls that do not end")?;
        let tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |all: &[String]| format!("{}, the first: {:?}", all.len(), &all[..all.len().min(5)]);
        ensure!(tally.refused.is_empty(), "of {} calls refused were {}", tally.calls, of(&tally.refused));
        ensure!(tally.lost.is_empty(), "of {} calls lost were {}", tally.calls, of(&tally.lost));
        let wanted = took.as_millis() / PACE.as_millis() * 9 / 10;
        ensure!(tally.calls as u128 >= wanted, "{} calls in {took:?} are too few", tally.calls);
        let (calls, keys, slowest) = (tally.calls, tally.keys.len(), tally.slowest);
        Ok(format!("{calls} calls in {took:.1?} with {keys} keys, none refused, the slowest in {slowest:.0?}"))
    }
}

/// What the Secret holds.
async fn follow(secrets: Api<Secret>, latest: watch::Sender<String>) {
    let only = watcher::Config::default().fields("metadata.name=orders-key");
    let mut events = std::pin::pin!(watcher(secrets, only).default_backoff());
    while let Some(event) = events.next().await {
        if let Ok(watcher::Event::Apply(secret) | watcher::Event::InitApply(secret)) = event
            && let Some(key) = text(&secret, "API_KEY")
        {
            latest.send_if_modified(|held| std::mem::replace(held, key.clone()) != key);
        }
    }
}

/// The file: as kubelet writes it, some time after.
async fn mount(mut latest: watch::Receiver<String>, file: watch::Sender<String>, mut rng: StdRng) {
    while latest.changed().await.is_ok() {
        tokio::time::sleep(LAG.mul_f64(rng.random_range(0.0..1.0))).await;
        file.send_replace(latest.borrow_and_update().clone());
    }
}

/// Calls until it is enough, at its pace however long an answer takes.
async fn call(front: Arc<Front>, file: watch::Receiver<String>, tally: Arc<Mutex<Tally>>, enough: CancellationToken) {
    let mut calls = JoinSet::new();
    let mut pace = tokio::time::interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for nth in 0.. {
        tokio::select! {
            _ = pace.tick() => {}
            () = enough.cancelled() => break,
        }
        while calls.try_join_next().is_some() {}
        let (front, key, tally) = (front.clone(), file.borrow().clone(), tally.clone());
        calls.spawn(async move {
            let began = Instant::now();
            let answer = front.ask(nth, &key).await;
            let took = began.elapsed();
            let id = key.rsplit('_').nth(1).unwrap_or_default().to_owned();
            let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
            tally.calls += 1;
            *tally.keys.entry(id.clone()).or_default() += 1;
            tally.slowest = tally.slowest.max(took);
            let when = jiff::Timestamp::now();
            match answer {
                Ok(200) => {}
                Ok(status) => tally.refused.push(format!("{status} with {id} at {when} after {took:?}")),
                Err(error) => tally.lost.push(format!("{error:#} with {id} at {when} after {took:?}")),
            }
        });
    }
    while calls.join_next().await.is_some() {}
}
