//! The report that a verifier keeps of itself.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{Result, error::call};
use crate::{
    api::{AddressBlock, KeyUse, VerifierReport, VerifierReportSpec, whole_second},
    keys::verify::{KeyId, Used, Verifier},
    runtime::{clock, metrics::Moment},
};

/// A verifier is waited for while it renewed its report within 60 s; which keys are used is told at this pace.
const RENEW: Duration = Duration::from_secs(20);
/// A change of the records is reported by then; changes closer together are reported together.
const SOON: Duration = Duration::from_millis(300);
/// Keys that were used within this time are in the report, so that one that gets lost loses no count.
pub(super) const LATELY: SignedDuration = SignedDuration::from_mins(15);
/// A watch that failed is tried again within this time: one that has not failed again is back.
const BACK: Duration = Duration::from_secs(90);
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
    /// When the watch of records last failed, where nothing has come of it since.
    pub failed: watch::Receiver<Option<Instant>>,
    /// When the API server was last heard of: while no key changes, this is the only answer that it gives.
    pub heard: Moment,
    /// When the report was last written, and with it which keys were used.
    pub told: Moment,
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
        let (mut retry, mut told, mut due) = (false, None, Instant::now());
        loop {
            let revision = self.revision.borrow_and_update().unwrap_or_default();
            let stopping = stopped.is_cancelled();
            // Of a change of the records it tells at once, and of all keys that are used only at its time.
            let written = if stopping || due <= Instant::now() {
                let report = self.report((started, stopping), revision, told, clock::now());
                let last = report.usage.last().and_then(|last| KeyId::parse(&last.id));
                let written = self.write(&api, report).await;
                if written.is_ok() {
                    (told, due) = (last, Instant::now() + RENEW);
                    self.told.set(clock::now());
                }
                written
            } else {
                self.advance(&api, revision).await
            };
            match &written {
                // Who can write, and does not hear of revocations, is deaf all the same.
                Ok(()) if is_back(*self.failed.borrow(), Instant::now()) => self.heard.set(clock::now()),
                Ok(()) => {}
                Err(error) => {
                    // There is none any more to be changed.
                    due = if error.code() == Some(404) { Instant::now() } else { due };
                    tracing::warn!(%error, "the report of this verifier could not be written");
                }
            }
            if stopping {
                return Ok(());
            }
            retry = written.is_err() && !retry;
            let pause = match &written {
                Ok(()) => due.saturating_duration_since(Instant::now()),
                Err(_) if retry => SOON,
                Err(_) => RENEW,
            };
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

    /// Writes what a change of the records changes in the report that there is.
    async fn advance(&self, api: &Api<VerifierReport>, revision: u64) -> Result<()> {
        let name = &self.name;
        let change = json!({"spec": {
            "revision": revision.to_string(),
            "renewedAt": Time(whole_second(clock::now())),
            "keys": self.keys(),
        }});
        let (params, change) = (PatchParams::apply(FIELD_MANAGER), Patch::Merge(change));
        // The answer is without the usage, too.
        call(|| format!("writing VerifierReport {name}"), api.patch_metadata(name, &params, &change)).await.map(drop)
    }

    fn keys(&self) -> i64 {
        self.verifier.keys().and_then(|keys| i64::try_from(keys).ok()).unwrap_or_default()
    }

    async fn write(&self, api: &Api<VerifierReport>, report: VerifierReportSpec) -> Result<()> {
        let name = &self.name;
        let report = VerifierReport::new(name, report);
        let params = PatchParams::apply(FIELD_MANAGER).force();
        call(|| format!("writing VerifierReport {name}"), api.patch(name, &params, &Patch::Apply(&report)))
            .await
            .map(drop)
    }

    /// `told` is the last key of the report before.
    fn report(
        &self,
        (started, stopped): (Timestamp, bool),
        revision: u64,
        told: Option<KeyId>,
        now: Timestamp,
    ) -> VerifierReportSpec {
        let used = self.verifier.used_since(now.checked_sub(LATELY).unwrap_or(now));
        let used = in_turn(used, told, MOST_KEYS);
        let usage = used.into_iter().map(|(id, used)| KeyUse {
            id: id.to_string(),
            count: i64::try_from(used.count).unwrap_or(i64::MAX),
            last_used: Time(whole_second(used.last)),
        });
        let mut blocked = self.verifier.blocked(now);
        blocked.sort_unstable_by_key(|(_, until)| std::cmp::Reverse(*until));
        blocked.truncate(MOST_BLOCKS);
        let blocks = blocked
            .into_iter()
            .map(|(address, until)| AddressBlock { address: address.to_string(), until: Time(whole_second(until)) });
        VerifierReportSpec {
            revision: revision.to_string(),
            stopped,
            started_at: Time(whole_second(started)),
            renewed_at: Time(whole_second(now)),
            keys: self.keys(),
            usage: usage.collect(),
            blocks: blocks.collect(),
        }
    }
}

fn is_back(failed: Option<Instant>, now: Instant) -> bool {
    failed.is_none_or(|failed| now.duration_since(failed) >= BACK)
}

/// As many keys as there is room for, in the order of their ids, from the one after which the report before ended: else
/// those that are seldom used would never be told, and be taken for idle.
fn in_turn(mut used: Vec<(KeyId, Used)>, told: Option<KeyId>, most: usize) -> Vec<(KeyId, Used)> {
    used.sort_unstable_by_key(|(id, _)| *id);
    let next = used.partition_point(|(id, _)| Some(*id) <= told);
    used.rotate_left(next);
    used.truncate(most);
    used
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, convert::Infallible};

    use http::{Request, Response, header::CONTENT_TYPE};
    use kube::client::Body;
    use serde_json::Value;
    use tokio::sync::mpsc;

    use super::*;

    /// An API server that tells of each write: its form, and what is in it.
    fn telling() -> (Client, mpsc::UnboundedReceiver<(String, Value)>) {
        let (told, writes) = mpsc::unbounded_channel();
        let answer = move |request: Request<Body>| {
            let told = told.clone();
            async move {
                let (head, body) = request.into_parts();
                let form = head.headers[CONTENT_TYPE].to_str().unwrap().to_owned();
                told.send((form, serde_json::from_slice(&body.collect_bytes().await.unwrap()).unwrap())).unwrap();
                let time = "2026-01-01T00:00:00Z";
                let report = json!({
                    "apiVersion": "rampart.dev/v1alpha1", "kind": "VerifierReport", "metadata": {"name": "v-1"},
                    "spec": {"revision": "1", "startedAt": time, "renewedAt": time, "keys": 0},
                });
                Ok::<_, Infallible>(Response::new(Body::from(report.to_string().into_bytes())))
            }
        };
        (Client::new(tower::service_fn(answer), "default"), writes)
    }

    #[tokio::test]
    async fn a_change_of_the_records_is_told_without_the_use_of_keys() {
        let ((client, mut writes), (revision, revisions)) = (telling(), watch::channel(Some(7)));
        let (_failed, failed) = watch::channel(None);
        let reporting = Reporting {
            verifier: Arc::new(Verifier::new(vec![])),
            revision: revisions,
            name: "v-1".into(),
            namespace: "rampart-keys".into(),
            failed,
            heard: Moment::default(),
            told: Moment::default(),
        };
        let stopped = CancellationToken::new();
        let running = tokio::spawn(reporting.run(client, stopped.clone()));
        let mut next = async || writes.recv().await.unwrap();
        let (form, whole) = next().await;
        assert_eq!((form.as_str(), &whole["spec"]["revision"]), ("application/apply-patch+yaml", &json!("7")));
        revision.send_replace(Some(8));
        let (form, change) = next().await;
        assert_eq!((form.as_str(), &change["spec"]["revision"]), ("application/merge-patch+json", &json!("8")));
        let fields: BTreeSet<&str> = change["spec"].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(fields, BTreeSet::from(["keys", "renewedAt", "revision"]));
        stopped.cancel();
        let (form, last) = next().await;
        assert_eq!((form.as_str(), &last["spec"]["stopped"]), ("application/apply-patch+yaml", &json!(true)));
        running.await.unwrap().unwrap();
    }

    #[test]
    fn a_verifier_whose_watch_fails_does_not_say_that_it_hears() {
        let now = Instant::now();
        assert!(is_back(None, now));
        assert!(!is_back(Some(now), now) && !is_back(Some(now), now + BACK / 2));
        assert!(is_back(Some(now), now + BACK), "it may be long before a key changes");
    }

    #[test]
    fn all_keys_are_told_in_turn() {
        let id = |nth: usize| KeyId::parse(&format!("{nth:08}")).unwrap();
        let used = Used { count: 1, last: Timestamp::UNIX_EPOCH };
        let all: Vec<_> = (0..11).map(|nth| (id(nth), used)).collect();
        let (mut told, mut seen) = (None, vec![]);
        for _ in 0..3 {
            let report = in_turn(all.clone(), told, 4);
            assert_eq!(report.len(), 4);
            told = report.last().map(|(id, _)| *id);
            seen.extend(report.into_iter().map(|(id, _)| id));
        }
        assert_eq!(seen[8..], [id(8), id(9), id(10), id(0)]);
        assert_eq!(BTreeSet::from_iter(seen).len(), 11);
        assert_eq!(in_turn(all, told, 100).len(), 11, "where there is room all of them are told at once");
    }
}
