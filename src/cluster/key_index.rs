//! Following KeyRecords into the index of a verifier.

use std::{collections::HashSet, sync::Arc, time::Duration};

use futures::{FutureExt as _, StreamExt as _};
use kube::{
    Api, Client, ResourceExt as _,
    core::DeserializeGuard,
    runtime::{WatchStreamExt as _, watcher},
};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::client::{PAGE, RESUMED_AFTER};
use crate::{
    api::KeyRecord,
    keys::verify::{Changes, Verifier},
    runtime::{
        clock,
        metrics::{KindLabel, Metrics},
        readiness::Gate,
    },
};

/// Changes that come closer together than this are put in force together.
const TOGETHER: Duration = Duration::from_millis(20);

type Record = DeserializeGuard<KeyRecord>;

/// What a verifier knows, and up to which change.
pub struct Following {
    /// What decides by it.
    pub verifier: Arc<Verifier>,
    /// resourceVersion up to which every change is in force.
    pub revision: watch::Sender<Option<u64>>,
    /// When the watch last failed, where nothing has come of it since.
    pub failed: watch::Sender<Option<Instant>>,
    /// Opens when all records are known.
    pub synced: Gate,
    /// Metrics.
    pub metrics: Metrics,
}

impl Following {
    /// Follows the records until the process stops. While the API server is away, what was known stays in force.
    ///
    /// # Errors
    /// None: a failing watch is restarted.
    pub async fn run(self, client: Client, namespace: String, stopped: CancellationToken) -> anyhow::Result<()> {
        // An increase is seen only of what was 0 before.
        drop(self.metrics.invalid_objects.get_or_create(&KindLabel { kind: "KeyRecord" }));
        let records = Api::<Record>::namespaced(client, &namespace);
        let config = watcher::Config::default().page_size(PAGE).timeout(RESUMED_AFTER);
        let stream = watcher(records, config).default_backoff();
        let mut stream = std::pin::pin!(stream);
        let changes = self.verifier.changes();
        let mut state = State { changes, listing: None, revision: 0, changed: false };
        loop {
            let event = tokio::select! {
                event = stream.next() => event,
                () = stopped.cancelled() => return Ok(()),
            };
            let Some(event) = event else { return Ok(()) };
            self.take(&mut state, event);
            // What is there already, and what comes in a moment.
            let together = tokio::time::sleep(TOGETHER);
            let mut together = std::pin::pin!(together);
            while state.changed {
                tokio::select! {
                    event = stream.next() => match event {
                        Some(event) => self.take(&mut state, event),
                        None => break,
                    },
                    () = &mut together => break,
                    () = stopped.cancelled() => return Ok(()),
                }
                while let Some(Some(event)) = stream.next().now_or_never() {
                    self.take(&mut state, event);
                }
            }
            if std::mem::take(&mut state.changed) {
                self.put(&mut state);
            }
        }
    }

    fn put(&self, state: &mut State) {
        let keys = state.changes.commit();
        self.metrics.verifier.keys.set(i64::try_from(keys).unwrap_or(i64::MAX));
        self.revision.send_replace(Some(state.revision));
        self.synced.open();
    }

    fn take(&self, state: &mut State, event: watcher::Result<watcher::Event<Record>>) {
        match event {
            Ok(watcher::Event::Init) => {
                state.listing = Some(Listing::default());
                // It is about to ask.
                return;
            }
            Ok(watcher::Event::InitApply(record)) => {
                if let Some(listing) = &mut state.listing {
                    listing.names.insert(record.name_any());
                    listing.revision = listing.revision.max(revision(&record));
                }
                self.apply(state, &record);
            }
            Ok(watcher::Event::InitDone) => {
                if let Some(listing) = state.listing.take() {
                    state.changes.retain(&listing.names);
                    // Not the highest ever seen: of a store that was restored from a backup, it is yet to come.
                    state.revision = listing.revision;
                }
                state.changed = true;
            }
            Ok(watcher::Event::Apply(record)) => {
                state.seen(&record);
                self.apply(state, &record);
                state.changed = true;
            }
            Ok(watcher::Event::Delete(record)) => {
                state.seen(&record);
                state.changes.remove(&record.name_any());
                state.changed = true;
            }
            Err(error) => {
                tracing::warn!(%error, "the watch of KeyRecords failed and is being restarted");
                self.failed.send_replace(Some(Instant::now()));
                return;
            }
        }
        self.failed.send_if_modified(|failed| failed.take().is_some());
        self.metrics.verifier.heard.set(clock::now());
    }

    fn apply(&self, state: &mut State, record: &Record) {
        let name = record.name_any();
        let problem = match &record.0 {
            Ok(record) => state.changes.apply(&name, &record.spec).err().map(|error| error.to_string()),
            Err(error) => {
                state.changes.remove(&name);
                Some(error.error.clone())
            }
        };
        if let Some(problem) = problem {
            self.metrics.invalid_objects.get_or_create(&KindLabel { kind: "KeyRecord" }).inc();
            tracing::warn!(id = name, problem, "a KeyRecord can't be used: its key is refused, and no other");
        }
    }
}

struct State {
    changes: Changes,
    /// The list that is under way.
    listing: Option<Listing>,
    revision: u64,
    changed: bool,
}

/// What a list has told of so far.
#[derive(Default)]
struct Listing {
    /// What is not among them is gone.
    names: HashSet<String>,
    /// In force once all of them are. No record that there is has a higher one, so nobody waits for more.
    revision: u64,
}

impl State {
    fn seen(&mut self, record: &Record) {
        self.revision = self.revision.max(revision(record));
    }
}

/// resourceVersions are decimal and grow (KEP-5504).
fn revision(record: &Record) -> u64 {
    record.resource_version().and_then(|revision| revision.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use kube::runtime::watcher::Event::{Apply, Delete, Init, InitApply, InitDone};

    use super::*;
    use crate::{
        cluster::client::tests::{silent, until_next},
        runtime::readiness::Readiness,
    };

    fn following() -> (Following, State) {
        let verifier = Arc::new(Verifier::new(vec![]));
        let state = State { changes: verifier.changes(), listing: None, revision: 0, changed: false };
        let (revision, failed) = (watch::Sender::new(None), watch::Sender::new(None));
        let synced = Readiness::default().gate("key-records");
        (Following { verifier, revision, failed, synced, metrics: Metrics::default() }, state)
    }

    #[test]
    fn after_a_restore_of_the_store_nothing_is_in_force_that_is_yet_to_come() {
        let (following, mut state) = following();
        let record = |version: &str| -> Record {
            serde_json::from_value(serde_json::json!({
                "apiVersion": "rampart.dev/v1alpha1", "kind": "KeyRecord",
                "metadata": {"name": "a", "resourceVersion": version}, "spec": {},
            }))
            .unwrap()
        };
        let mut told = |events: Vec<watcher::Event<Record>>| {
            for event in events {
                following.take(&mut state, Ok(event));
            }
            following.put(&mut state);
            *following.revision.borrow()
        };
        assert_eq!(told(vec![Init, InitApply(record("40")), InitDone, Apply(record("900"))]), Some(900));
        assert_eq!(told(vec![Init, InitApply(record("35"))]), Some(900), "not before all of it is known");
        assert_eq!(told(vec![InitDone]), Some(35));
        assert_eq!(told(vec![Apply(record("41")), Delete(record("50"))]), Some(50));
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_says_nothing_is_asked_for_anew_within_a_minute() {
        let ((following, _), (client, watches)) = (following(), silent());
        let failed = following.failed.subscribe();
        let pause = tokio::select! {
            _ = following.run(client, "rampart-keys".into(), CancellationToken::new()) => None,
            pause = until_next(watches) => pause,
        };
        assert!(pause.is_some_and(|pause| pause < Duration::from_mins(1)), "{pause:?}");
        assert_eq!(*failed.borrow(), None, "its end is no failure");
    }

    #[test]
    fn that_a_watch_failed_is_not_hearing_of_the_api_server() {
        let (following, mut state) = following();
        let metrics = following.metrics.clone();
        let is_heard = || metrics.text().unwrap().contains("rampart_apikey_index_heard_timestamp_seconds ");
        for nothing_heard in [Ok(watcher::Event::Init), Err(watcher::Error::NoResourceVersion)] {
            following.take(&mut state, nothing_heard);
            assert!(!is_heard());
        }
        assert!(following.failed.borrow().is_some());
        following.take(&mut state, Ok(watcher::Event::InitDone));
        assert!(is_heard(), "a list that was answered");
        assert_eq!(*following.failed.borrow(), None);
    }
}
