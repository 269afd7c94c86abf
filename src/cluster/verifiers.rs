//! Verifiers, as their reports show them: who is live, what each has in force, which keys were used.
//!
//! A verifier is live while its report is seen to change, by this process' own monotonic clock: of the times in a
//! report none is believed that is later than when it was heard. One that was there when this process started is taken for live at
//! first, so that no rotation outruns it. Nor does one outrun a verifier that is silent because its watch is: before it
//! goes on without one, its report is read.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use kube::{Api, Client, ResourceExt as _, api::ListParams, core::DeserializeGuard, runtime::watcher};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{
    Result,
    apply::exactly,
    client::RESUMED_AFTER,
    error::{call, found},
    follow::{Key, follow_those},
    pages,
    verifier_report::LATELY,
};
use crate::{
    api::VerifierReport,
    keys::{Use, VerifierSeen},
    runtime::clock,
};

/// For so long a verifier is waited for that does not renew its report.
const LIVE: Duration = Duration::from_mins(1);
/// For so long the report of a verifier is kept that does not renew it.
const KEPT: Duration = Duration::from_hours(1);
/// For so long an answer counts: of thousands of keys that are rotated, each would read all reports.
const ASKED: Duration = Duration::from_secs(1);
const SWEEP: Duration = Duration::from_mins(5);
/// For so long it is remembered when a key was used, whatever becomes of the report that told it.
const REMEMBERED: Duration = Duration::from_hours(25);

/// A report, and when it was seen to change.
#[derive(Debug, Clone)]
struct Seen {
    report: Arc<VerifierReport>,
    changed: Instant,
    heard: Timestamp,
}

impl Seen {
    /// What a report tells was before it was heard: by a time to come a key would count as used for ever.
    fn past(&self, told: Timestamp) -> Timestamp {
        told.min(self.heard)
    }

    /// Whether it did not say that it stops, and does not renew its report.
    fn is_silent(&self, now: Instant) -> bool {
        !self.report.spec.stopped && !is_live(self.changed, now)
    }
}

impl PartialEq for Seen {
    fn eq(&self, other: &Self) -> bool {
        self.changed == other.changed && self.report.resource_version() == other.report.resource_version()
    }
}

/// When a key was used last, and when a report was heard that told of it.
#[derive(Debug, Clone, Copy)]
struct LastUse {
    at: Timestamp,
    told: Instant,
}

/// What was answered last, and when.
type Asked = tokio::sync::Mutex<Option<(Instant, Vec<VerifierSeen>)>>;

/// The verifiers that there are.
#[derive(Clone)]
pub struct Verifiers {
    known: watch::Receiver<Arc<BTreeMap<Key, Seen>>>,
    listed: watch::Receiver<bool>,
    used: Arc<Mutex<BTreeMap<String, LastUse>>>,
    /// Uses from before were forgotten with the process that heard of them.
    heard_since: Arc<OnceLock<Timestamp>>,
    /// Keys that are rotated together ask together.
    asked: Arc<Asked>,
}

impl Verifiers {
    /// Follows the reports of a namespace, for as long as the future runs.
    pub fn follow(client: &Client, namespace: &str) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let api: Api<VerifierReport> = Api::namespaced(client.clone(), namespace);
        let reports: Api<DeserializeGuard<VerifierReport>> = Api::namespaced(client.clone(), namespace);
        let (known_tx, known) = watch::channel(Arc::new(BTreeMap::new()));
        let (listed_tx, listed) = watch::channel(false);
        let this = Self { known, listed, used: Arc::default(), heard_since: Arc::default(), asked: Arc::default() };
        let (used, heard_since) = (this.used.clone(), this.heard_since.clone());
        let following = async move {
            let changed = |all: &BTreeMap<Key, Seen>, one: Option<&Key>| {
                heard_since.get_or_init(|| {
                    let now = clock::now();
                    now.checked_sub(LATELY).unwrap_or(now)
                });
                let told = one.map_or_else(|| all.values().collect(), |one| all.get(one).into_iter().collect());
                remember(&used, told);
                known_tx.send_replace(Arc::new(all.clone()));
            };
            let which = ("VerifierReport", watcher::Config::default().timeout(RESUMED_AFTER));
            tokio::select! {
                () = follow_those(reports, which, read, changed, &listed_tx) => {}
                () = sweep(&api, known_tx.subscribe(), &used) => {}
            }
        };
        (this, following)
    }

    /// Waits until all reports have been listed once.
    pub async fn listed(&self) {
        let _ = self.listed.clone().wait_for(|listed| *listed).await;
    }

    /// Changes whenever a report does.
    pub async fn changed(&mut self) {
        if self.known.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Those that are waited for.
    #[must_use]
    pub fn live(&self) -> Vec<VerifierSeen> {
        self.live_of(self.known.borrow().values())
    }

    /// Whether some are not waited for, and never said that they stop: it may be that their watch is silent.
    #[must_use]
    pub fn are_silent(&self) -> bool {
        let now = Instant::now();
        self.known.borrow().values().any(|seen| seen.is_silent(now))
    }

    /// Those that are waited for by what the API server says, within a second: who renewed a report since it was last
    /// heard is live.
    ///
    /// # Errors
    /// When a call fails.
    pub async fn ask(&self, client: &Client, namespace: &str) -> Result<Vec<VerifierSeen>> {
        let mut asked = self.asked.lock().await;
        if let Some((at, live)) = &*asked
            && at.elapsed() < ASKED
        {
            return Ok(live.clone());
        }
        let api: Api<DeserializeGuard<VerifierReport>> = Api::namespaced(client.clone(), namespace);
        let known = self.known.borrow().clone();
        let mut all = vec![];
        pages::each(&api, ListParams::default(), "VerifierReports", |report: DeserializeGuard<VerifierReport>| {
            let key = (report.namespace().unwrap_or_default(), report.name_any());
            all.extend(read(&report, known.get(&key)));
        })
        .await?;
        let live = self.live_of(all.iter());
        *asked = Some((Instant::now(), live.clone()));
        Ok(live)
    }

    fn live_of<'a>(&self, all: impl Iterator<Item = &'a Seen>) -> Vec<VerifierSeen> {
        let heard_since = self.heard_since.get().copied().unwrap_or(Timestamp::MIN);
        let seen = |seen: &Seen| VerifierSeen {
            revision: seen.report.spec.revision.clone(),
            started_at: seen.past(seen.report.spec.started_at.0).max(heard_since),
        };
        let now = Instant::now();
        let lives = |it: &&Seen| is_live(it.changed, now) && !it.report.spec.stopped;
        all.filter(lives).map(seen).collect()
    }

    /// What all reports that there are, also of verifiers that are gone, tell of the use of some keys.
    #[must_use]
    pub fn uses(&self, of: impl Fn(&str) -> bool) -> Vec<Use> {
        let mut uses = vec![];
        for (key, seen) in &**self.known.borrow() {
            let report = &seen.report.spec;
            uses.extend(report.usage.iter().filter(|told| of(&told.id)).map(|told| Use {
                verifier: key.1.clone(),
                started_at: report.started_at.0,
                id: told.id.clone(),
                count: told.count,
                last_used: seen.past(told.last_used.0),
            }));
        }
        uses
    }

    /// When keys were used last, as far as verifiers told within the last day.
    #[must_use]
    pub fn last_used<'a>(&self, ids: impl Iterator<Item = &'a String>) -> BTreeMap<String, Timestamp> {
        let used = self.used.lock();
        ids.filter_map(|id| Some((id.clone(), used.get(id)?.at))).collect()
    }
}

fn is_live(changed: Instant, now: Instant) -> bool {
    now.saturating_duration_since(changed) <= LIVE
}

/// One that can't be read renews nothing: its verifier is waited for no longer than one that has gone silent.
fn read(report: &DeserializeGuard<VerifierReport>, before: Option<&Seen>) -> Option<Seen> {
    let report = match &report.0 {
        Ok(report) => report,
        Err(error) => {
            tracing::warn!(name = report.name_any(), %error, "the report of a verifier can't be read");
            return before.cloned();
        }
    };
    let same = before.filter(|before| before.report.resource_version() == report.resource_version());
    let new = || Seen { report: Arc::new(report.clone()), changed: Instant::now(), heard: clock::now() };
    Some(same.cloned().unwrap_or_else(new))
}

/// Forward only: a verifier that was started anew takes nothing back.
fn remember(used: &Mutex<BTreeMap<String, LastUse>>, told: Vec<&Seen>) {
    let mut used = used.lock();
    for seen in told {
        for of in &seen.report.spec.usage {
            let told = LastUse { at: seen.past(of.last_used.0), told: seen.changed };
            let last = used.entry(of.id.clone()).or_insert(told);
            *last = LastUse { at: last.at.max(told.at), told: last.told.max(told.told) };
        }
    }
}

/// Forgets what no report told of for so long: by the time that has passed, since a clock that is set a day ahead would
/// have every key count as unused.
fn forget(used: &Mutex<BTreeMap<String, LastUse>>, now: Instant) {
    used.lock().retain(|_, last| now.saturating_duration_since(last.told) < REMEMBERED);
}

/// Clears away reports of verifiers that are gone, and what nobody asks about any more.
async fn sweep(
    api: &Api<VerifierReport>,
    known: watch::Receiver<Arc<BTreeMap<Key, Seen>>>,
    used: &Mutex<BTreeMap<String, LastUse>>,
) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let gone: Vec<Seen> = known.borrow().values().filter(|seen| seen.changed.elapsed() > KEPT).cloned().collect();
        for seen in gone {
            let name = seen.report.name_any();
            // Exactly as it was seen: one that was renewed this moment stays.
            let doing = || format!("deleting VerifierReport {name}");
            match found(call(doing, api.delete(&name, &exactly(&*seen.report))).await) {
                Ok(_) => tracing::info!(name, "a verifier that did not report for an hour is forgotten"),
                Err(error) => tracing::warn!(%error, "the report of a verifier that is gone was not deleted"),
            }
        }
        forget(used, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::client::tests::{nobody, silent, until_next};

    fn report(version: &str, used: &str) -> DeserializeGuard<VerifierReport> {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "rampart.dev/v1alpha1", "kind": "VerifierReport",
            "metadata": {"name": "v-1", "namespace": "rampart-keys", "resourceVersion": version},
            "spec": {"revision": version, "startedAt": "2026-01-01T00:00:00Z", "renewedAt": "2026-01-01T00:00:00Z",
                     "keys": 1, "usage": [{"id": "abc", "count": 1, "lastUsed": used}]},
        }))
        .unwrap()
    }

    #[test]
    fn a_verifier_is_live_while_its_report_changes() {
        let first = read(&report("7", "2026-01-01T00:00:00Z"), None).unwrap();
        let later = |seconds| first.changed + Duration::from_secs(seconds);
        assert!(is_live(first.changed, later(59)));
        // Seen again without a change: a list after a lost watch.
        let again = read(&report("7", "2026-01-01T00:00:00Z"), Some(&first)).unwrap();
        assert!(!is_live(again.changed, later(61)));
        let renewed = read(&report("8", "2026-01-01T00:00:00Z"), Some(&again)).unwrap();
        assert!(renewed.changed > first.changed && is_live(renewed.changed, Instant::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_says_nothing_is_asked_for_anew_before_a_verifier_counts_as_gone() {
        let (client, watches) = silent();
        let (_verifiers, following) = Verifiers::follow(&client, "rampart-keys");
        let pause = tokio::select! {
            () = following => None,
            pause = until_next(watches) => pause,
        };
        assert!(pause.is_some_and(|pause| pause < LIVE), "{pause:?}");
    }

    /// A client of an API server that lists one report, of this version.
    fn listing(version: &'static str) -> Client {
        let answer = move |_: http::Request<kube::client::Body>| async move {
            let time = "2026-01-01T00:00:00Z";
            let list = serde_json::json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": [{
                "metadata": {"name": "v-1", "namespace": "rampart-keys", "resourceVersion": version},
                "spec": {"revision": version, "startedAt": time, "renewedAt": time, "keys": 1},
            }]});
            let body = kube::client::Body::from(list.to_string().into_bytes());
            Ok::<_, std::convert::Infallible>(http::Response::new(body))
        };
        Client::new(tower::service_fn(answer), "default")
    }

    #[tokio::test]
    async fn nobody_counts_as_gone_who_renews_a_report_that_was_not_heard() {
        let key = ("rampart-keys".to_owned(), "v-1".to_owned());
        let heard = read(&report("7", "2026-01-01T00:00:00Z"), None).unwrap();
        let long_ago = Instant::now().checked_sub(LIVE + Duration::from_secs(1)).unwrap();
        let (known_tx, known) = watch::channel(Arc::new(BTreeMap::from([(key.clone(), heard.clone())])));
        let (_listed, listed) = watch::channel(true);
        let (used, heard_since) = (Arc::default(), Arc::default());
        let verifiers = Verifiers { known, listed, used, heard_since, asked: Arc::default() };
        assert!(!verifiers.are_silent());
        let quiet = Seen { changed: long_ago, ..heard };
        known_tx.send_replace(Arc::new(BTreeMap::from([(key.clone(), quiet.clone())])));
        assert!(verifiers.are_silent() && verifiers.live().is_empty());
        let ask = async |version| {
            verifiers.asked.lock().await.take();
            verifiers.ask(&listing(version), "rampart-keys").await.unwrap()
        };
        assert_eq!(ask("8").await[0].revision, "8", "the watch was silent, and not the verifier");
        assert!(ask("7").await.is_empty(), "it has not renewed its report");
        assert!(verifiers.ask(&nobody(), "rampart-keys").await.unwrap().is_empty(), "it was asked just now");
        verifiers.asked.lock().await.take();
        assert!(verifiers.ask(&nobody(), "rampart-keys").await.is_err(), "nobody answers: nobody knows");
        let mut said = (*quiet.report).clone();
        said.spec.stopped = true;
        known_tx.send_replace(Arc::new(BTreeMap::from([(key, Seen { report: Arc::new(said), ..quiet })])));
        assert!(!verifiers.are_silent(), "it said that it stops");
    }

    #[test]
    fn a_report_that_can_t_be_read_keeps_nobody_waiting() {
        let far = report("8", "9999-12-31T23:59:59Z");
        assert!(far.0.is_err() && far.name_any() == "v-1");
        assert!(read(&far, None).is_none());
        let first = read(&report("7", "2026-01-01T00:00:00Z"), None).unwrap();
        let kept = read(&far, Some(&first)).unwrap();
        assert_eq!(kept.changed, first.changed, "it was taken for renewed");
    }

    #[test]
    fn nobody_has_watched_for_longer_than_reports_were_heard() {
        let key = ("rampart-keys".to_owned(), "v-1".to_owned());
        let seen = read(&report("7", "2026-01-01T00:00:00Z"), None).unwrap();
        let (_known, known) = watch::channel(Arc::new(BTreeMap::from([(key, seen)])));
        let (_listed, listed) = watch::channel(true);
        let (used, heard_since) = (Arc::default(), Arc::default());
        let verifiers = Verifiers { known, listed, used, heard_since, asked: Arc::default() };
        let watched = || verifiers.live()[0].started_at.to_string();
        assert_eq!(watched(), "2026-01-01T00:00:00Z");
        verifiers.heard_since.set("2026-03-01T00:00:00Z".parse().unwrap()).unwrap();
        assert_eq!(watched(), "2026-03-01T00:00:00Z", "the operator was started anew");
    }

    #[test]
    fn the_last_use_only_moves_forward() {
        let used = Mutex::default();
        for time in ["2026-01-01T10:00:00Z", "2026-01-01T09:00:00Z"] {
            let seen = read(&report("7", time), None).unwrap();
            remember(&used, vec![&seen]);
        }
        assert_eq!(used.lock()["abc"].at, "2026-01-01T10:00:00Z".parse::<Timestamp>().unwrap());
    }

    #[test]
    fn a_use_is_forgotten_by_the_time_that_has_passed() {
        let used = Mutex::default();
        // Long ago by the clock.
        let first = read(&report("7", "2026-01-01T10:00:00Z"), None).unwrap();
        remember(&used, vec![&first]);
        let later = |hours| first.changed + Duration::from_hours(hours);
        forget(&used, later(24));
        assert!(used.lock().contains_key("abc"), "its report was heard less than a day ago");
        let again = Seen { changed: later(24), ..first.clone() };
        for seen in [&again, &first] {
            remember(&used, vec![seen]);
        }
        forget(&used, later(48));
        assert!(used.lock().contains_key("abc"), "it was told of again");
        forget(&used, later(50));
        assert!(used.lock().is_empty());
    }

    #[test]
    fn no_key_was_used_after_that_was_heard() {
        let key = ("rampart-keys".to_owned(), "v-1".to_owned());
        let heard: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
        let seen = Seen { heard, ..read(&report("7", "9999-01-01T00:00:00Z"), None).unwrap() };
        let used = Mutex::default();
        remember(&used, vec![&seen]);
        assert_eq!(used.lock()["abc"].at, heard);
        let (_known, known) = watch::channel(Arc::new(BTreeMap::from([(key, seen.clone())])));
        let (_listed, listed) = watch::channel(true);
        let (used, heard_since) = (Arc::default(), Arc::default());
        let verifiers = Verifiers { known, listed, used, heard_since, asked: Arc::default() };
        assert_eq!(verifiers.uses(|_| true)[0].last_used, heard);
        // The same report tells no later use, however often it is listed.
        let listed = DeserializeGuard(Ok((*seen.report).clone()));
        let again = read(&listed, Some(&seen)).unwrap();
        assert_eq!(again.heard, heard);
    }
}
