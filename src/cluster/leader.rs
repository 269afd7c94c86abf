//! Leader election on a Lease.
//!
//! As client-go does it: every write carries the resourceVersion that was read, and another holder is
//! overtaken only after this process watched its record stand still for the whole lease duration, by
//! its own monotonic clock; the times in the record are never compared with local ones.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, bail};
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::error::{self, call, found};
use super::prune::Confirmation;
use crate::{
    api::labels::CONFIRM_PRUNE,
    runtime::{
        apart::apart,
        clock,
        metrics::{LeaseLabel, Metrics},
    },
};

/// Name of the Lease.
pub const LEASE: &str = "rampart";

/// Who elects, and how fast.
#[derive(Debug, Clone)]
pub struct Election {
    /// Namespace of the Lease.
    pub namespace: String,
    /// This process; a restart under the same identity takes its own Lease up again.
    pub identity: Arc<str>,
    /// How long a silent holder is respected.
    pub duration: Duration,
    /// How long the holder tries to renew before it gives up and the process ends.
    pub renew_deadline: Duration,
    /// Pause between tries.
    pub retry: Duration,
}

/// What the election tells the rest of the process.
#[derive(Debug, Clone)]
pub struct Leadership {
    leads: watch::Receiver<bool>,
    confirmed: watch::Receiver<Confirmation>,
}

impl Leadership {
    /// Waits until this process leads.
    pub async fn acquired(&mut self) {
        if self.leads.wait_for(|leads| *leads).await.is_err() {
            // The election has ended, and the process with it.
            std::future::pending::<()>().await;
        }
    }

    /// How many orphans may be pruned although the brake holds.
    #[must_use]
    pub fn confirmed_prune(&self) -> watch::Receiver<Confirmation> {
        self.confirmed.clone()
    }
}

/// Runs the election in the background: the returned future ends with an error when leadership is lost. `alone` is to be
/// cancelled when nothing of this process writes any more: until then the Lease is renewed, and then released.
///
/// On a thread of its own, over a connection of its own, which `connect` makes: what leadership is for can be so much that
/// the Lease would be lost over it.
pub fn elect(
    election: Election,
    connect: impl FnOnce() -> kube::Result<Client> + Send + 'static,
    metrics: Metrics,
    alone: CancellationToken,
) -> (Leadership, impl Future<Output = Result<()>>) {
    let (leads_tx, leads) = watch::channel(false);
    let (confirmed_tx, confirmed) = watch::channel(Confirmation::default());
    let electing = move || async move {
        let api = Api::namespaced(connect()?, &election.namespace);
        let state = State { election, api, metrics, leads: leads_tx, confirmed: confirmed_tx, observed: None };
        state.run(alone).await
    };
    (Leadership { leads, confirmed }, apart("leader-election", electing))
}

struct State {
    election: Election,
    api: Api<Lease>,
    metrics: Metrics,
    leads: watch::Sender<bool>,
    confirmed: watch::Sender<Confirmation>,
    /// The record of another holder, and since when it stands still.
    observed: Option<(String, Instant)>,
}

impl State {
    async fn run(mut self, alone: CancellationToken) -> Result<()> {
        let mut renewed = Instant::now();
        loop {
            let began = Instant::now();
            let left = self.election.renew_deadline.saturating_sub(renewed.elapsed()).max(self.election.retry);
            let attempt = tokio::time::timeout(left, self.attempt()).await;
            match attempt.unwrap_or_else(|_| Err(error::Error::Deadline { doing: "renewing the Lease".into() })) {
                Ok(leads) => {
                    if leads {
                        // From before the request: the holder of a slow answer is older than it thinks.
                        renewed = began;
                    } else if *self.leads.borrow() {
                        bail!("the Lease {LEASE} was taken by another process");
                    }
                    self.announce(leads);
                }
                Err(error) => {
                    tracing::warn!(%error, "the Lease could not be renewed");
                    if *self.leads.borrow() && renewed.elapsed() >= self.election.renew_deadline {
                        bail!("the Lease {LEASE} could not be renewed for {:?}", self.election.renew_deadline);
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(self.election.retry) => {}
                () = alone.cancelled() => break,
            }
        }
        self.release().await;
        Ok(())
    }

    /// Lets the next process start at once.
    async fn release(&self) {
        let Ok(mut lease) = call(|| "reading the Lease".into(), self.api.get(LEASE)).await else { return };
        let Some(spec) = &mut lease.spec else { return };
        if spec.holder_identity.as_deref() == Some(&*self.election.identity) {
            spec.holder_identity = None;
            spec.lease_duration_seconds = Some(1);
            let params = PostParams::default();
            let replaced = self.api.replace(LEASE, &params, &lease);
            let _ = call(|| "releasing the Lease".into(), replaced).await;
        }
    }

    fn announce(&self, leads: bool) {
        self.metrics.leader.get_or_create(&LeaseLabel { name: LEASE }).set(leads.into());
        self.leads.send_if_modified(|before| {
            let changed = *before != leads;
            if changed {
                tracing::info!(leads, identity = &*self.election.identity, "leader election");
            }
            *before = leads;
            changed
        });
    }

    /// One try to become or stay the leader.
    async fn attempt(&mut self) -> error::Result<bool> {
        let lease = found(call(|| "reading the Lease".into(), self.api.get(LEASE)).await)?;
        let Some(mut lease) = lease else {
            let lease = Lease {
                metadata: ObjectMeta { name: Some(LEASE.into()), ..ObjectMeta::default() },
                spec: Some(self.record(0)),
            };
            let created = call(|| "creating the Lease".into(), self.api.create(&PostParams::default(), &lease)).await;
            return lost_race(created);
        };
        self.read_confirmation(&lease);
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.clone().unwrap_or_default();
        let mine = holder == *self.election.identity;
        if !mine && !holder.is_empty() && !self.stands_still(&lease) {
            return Ok(false);
        }
        let transitions = spec.lease_transitions.unwrap_or_default();
        let mut record = self.record(if mine { transitions } else { transitions + 1 });
        if mine {
            record.acquire_time = spec.acquire_time;
        }
        lease.spec = Some(record);
        let replaced =
            call(|| "renewing the Lease".into(), self.api.replace(LEASE, &PostParams::default(), &lease)).await;
        match replaced {
            // Somebody annotated it meanwhile, perhaps: the next try reads it again.
            Err(error) if mine && error.code() == Some(409) => Ok(*self.leads.borrow()),
            other => lost_race(other),
        }
    }

    fn stands_still(&mut self, lease: &Lease) -> bool {
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        match &self.observed {
            Some((seen, since)) if *seen == version => since.elapsed() >= self.election.duration,
            _ => {
                self.observed = Some((version, Instant::now()));
                false
            }
        }
    }

    fn record(&self, transitions: i32) -> LeaseSpec {
        let now = MicroTime(clock::now());
        LeaseSpec {
            holder_identity: Some(self.election.identity.to_string()),
            lease_duration_seconds: i32::try_from(self.election.duration.as_secs().max(1)).ok(),
            acquire_time: Some(now.clone()),
            renew_time: Some(now),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }

    fn read_confirmation(&self, lease: &Lease) {
        let annotations = lease.metadata.annotations.as_ref();
        let said = annotations.and_then(|all| all.get(CONFIRM_PRUNE));
        let confirmed = said.map(|said| Confirmation::parse(said)).unwrap_or_default();
        self.confirmed.send_if_modified(|before| {
            let differs = *before != confirmed;
            *before = confirmed;
            differs
        });
    }
}

fn lost_race(result: error::Result<Lease>) -> error::Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(error) if error.code() == Some(409) => Ok(false),
        Err(error) => Err(error),
    }
}
