//! The report that a verifier keeps of itself.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Result, error::call};
use crate::{
    api::{AddressBlock, KeyUse, VerifierReport, VerifierReportSpec},
    keys::verify::Verifier,
    runtime::{clock, metrics::Moment},
};

/// A verifier is waited for while it renewed its report within 60 s.
const RENEW: Duration = Duration::from_secs(20);
/// A change of the records is reported by then; changes closer together are reported together.
const SOON: Duration = Duration::from_millis(300);
/// Keys that were used within this time are in the report, so that one that gets lost loses no count.
const LATELY: SignedDuration = SignedDuration::from_mins(15);
const MOST_KEYS: usize = 5000;
const MOST_BLOCKS: usize = 50;
const FIELD_MANAGER: &str = "rampart-verifier";

/// Writes the report of one verifier.
pub struct Reporting {
    /// What it reports about.
    pub verifier: Arc<Verifier>,
    /// resourceVersion up to which every change is in force.
    pub revision: watch::Receiver<Option<u64>>,
    /// Name of the report: that of the pod.
    pub name: String,
    /// Namespace of KeyRecords.
    pub namespace: String,
    /// When the API server was last heard of: while no key changes, this is the only answer that it gives.
    pub heard: Moment,
}

impl Reporting {
    /// Reports until the process stops, and then says so: nobody needs to wait for this verifier any more.
    ///
    /// # Errors
    /// None: what could not be written is written next time.
    pub async fn run(mut self, client: Client, stopped: CancellationToken) -> anyhow::Result<()> {
        let api: Api<VerifierReport> = Api::namespaced(client, &self.namespace);
        let started = clock::now();
        // Before the first index there is nothing to report.
        tokio::select! {
            _ = self.revision.wait_for(Option::is_some) => {}
            () = stopped.cancelled() => return Ok(()),
        }
        let mut retry = false;
        loop {
            let revision = self.revision.borrow_and_update().unwrap_or_default();
            let stopping = stopped.is_cancelled();
            let written = self.write(&api, self.report(started, revision, stopping, clock::now())).await;
            match &written {
                Ok(()) => self.heard.set(clock::now()),
                Err(error) => tracing::warn!(%error, "the report of this verifier could not be written"),
            }
            if stopping {
                return Ok(());
            }
            retry = written.is_err() && !retry;
            let pause = if retry { SOON } else { RENEW };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = async {
                    let _ = self.revision.changed().await;
                    tokio::time::sleep(SOON).await;
                } => {}
                () = stopped.cancelled() => {}
            }
        }
    }

    async fn write(&self, api: &Api<VerifierReport>, report: VerifierReportSpec) -> Result<()> {
        let name = &self.name;
        let report = VerifierReport::new(name, report);
        let params = PatchParams::apply(FIELD_MANAGER).force();
        call(|| format!("writing VerifierReport {name}"), api.patch(name, &params, &Patch::Apply(&report)))
            .await
            .map(drop)
    }

    fn report(&self, started: Timestamp, revision: u64, stopped: bool, now: Timestamp) -> VerifierReportSpec {
        let mut used = self.verifier.used_since(now.checked_sub(LATELY).unwrap_or(now));
        used.sort_unstable_by_key(|(id, used)| (std::cmp::Reverse(used.last), *id));
        used.truncate(MOST_KEYS);
        let usage = used.into_iter().map(|(id, used)| KeyUse {
            id: id.to_string(),
            count: i64::try_from(used.count).unwrap_or(i64::MAX),
            last_used: Time(whole(used.last)),
        });
        let mut blocked = self.verifier.blocked(now);
        blocked.sort_unstable_by_key(|(_, until)| std::cmp::Reverse(*until));
        blocked.truncate(MOST_BLOCKS);
        let blocks = blocked
            .into_iter()
            .map(|(address, until)| AddressBlock { address: address.to_string(), until: Time(whole(until)) });
        VerifierReportSpec {
            revision: revision.to_string(),
            stopped,
            started_at: Time(whole(started)),
            renewed_at: Time(whole(now)),
            keys: self.verifier.keys().and_then(|keys| i64::try_from(keys).ok()).unwrap_or_default(),
            usage: usage.collect(),
            blocks: blocks.collect(),
        }
    }
}

fn whole(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}
