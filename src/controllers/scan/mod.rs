//! The background scan: follows pods and policies, and tells statuses how pods fare.

mod open_reports;
mod owners;
mod wake;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt as _, Stream, StreamExt as _, future::BoxFuture};
use kube::{
    Api, ResourceExt as _,
    runtime::{WatchStreamExt as _, watcher},
};
use tokio::{
    sync::watch::{self, error::RecvError},
    task::block_in_place,
    time::Instant,
};

use self::open_reports::OpenReports;
pub(super) use self::wake::wake_changed;
use super::{
    Context, Residents,
    news::{HOLD, due},
};
use crate::{
    api::{Enforcer, HardeningStatus},
    cluster::{client::PAGE, leader::Leadership, policy_index::PolicyIndex, slim::Pod},
    hardening::{Counted, Kept, Owners, Report, Scan},
    network::Resident,
    runtime::{clock, readiness::Gate, tasks::Tasks},
};

/// Pods are counted at most this often.
const COUNT: Duration = Duration::from_secs(1);
/// Changes that come together are counted together.
const SETTLE: Duration = Duration::from_millis(200);
/// Policies and labels of namespaces are looked up for all pods at most this often.
const COVER: Duration = Duration::from_secs(1);
/// Events of pods that are taken in before anything else is.
const BATCH: usize = 256;
/// A clock may be set, and a machine may sleep.
const LOOK_AGAIN: Duration = Duration::from_mins(1);

/// Where it is told how pods fare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Telling {
    /// Nowhere: pods are followed for network intent alone.
    Nothing,
    /// In statuses.
    Statuses,
    /// In Reports (openreports.io), too.
    Reports,
}

/// What was last counted; `None` until all pods have been seen.
pub type Known = Option<Arc<Report>>;

/// The scan of a process.
pub struct Scanner {
    context: Context,
    index: PolicyIndex,
    residents: Residents,
    scan: Scan,
    owners: Owners,
    /// Owners that are being read. Pods come and go meanwhile, and are counted when they are known.
    reading: Option<BoxFuture<'static, (Owners, bool)>>,
    /// Pods of a list that is under way.
    listing: BTreeSet<(String, String)>,
    /// Whether one list has been read whole.
    listed: bool,
    known: watch::Sender<Known>,
    told: Told,
    /// Whether violations are told at all.
    tells: bool,
    /// Where violations are told in Reports, too.
    reports: Option<OpenReports>,
}

/// When each object was last told other counts.
#[derive(Debug, Default)]
struct Told {
    own: BTreeMap<(String, String), Instant>,
    wide: BTreeMap<String, Instant>,
    relying: BTreeMap<(String, String), Instant>,
}

impl Scanner {
    /// Adds the scan to the tasks of a process; the answer follows what is counted.
    pub fn spawn(
        context: &Context,
        (index, synced): (PolicyIndex, Gate),
        leadership: Leadership,
        telling: Telling,
        tasks: &mut Tasks,
    ) -> (watch::Receiver<Known>, Residents) {
        let (known, follow) = watch::channel(None);
        let residents = Residents::new(index.clone());
        let (scan, owners, listing, told) = (Scan::default(), Owners::new(), BTreeSet::new(), Told::default());
        let of_scan = residents.clone();
        if telling == Telling::Statuses {
            tasks.spawn("open-reports", open_reports::clear(context.clone(), leadership.clone()));
        }
        let reports = (telling == Telling::Reports).then(|| OpenReports::spawn(context, leadership.clone(), tasks));
        let scanner = Self {
            context: context.clone(),
            index,
            residents: of_scan,
            scan,
            owners,
            reading: None,
            listing,
            listed: false,
            known,
            told,
            tells: telling != Telling::Nothing,
            reports,
        };
        tasks.spawn("scan", scanner.run(synced, leadership));
        (follow, residents)
    }

    async fn run(mut self, synced: Gate, mut leadership: Leadership) -> anyhow::Result<()> {
        let stopped = self.context.stopped.clone();
        let (mut changes, mut labels) = (self.index.changes(), self.index.label_changes());
        tokio::select! {
            () = async { leadership.acquired().await; synced.was_opened().await } => {}
            () = stopped.cancelled() => return Ok(()),
        }
        let api: Api<Pod> = Api::all(self.context.client.clone());
        let pods = watcher(api, watcher::Config::default().page_size(PAGE)).default_backoff();
        let mut pods = std::pin::pin!(pods);
        let mut reports = self.reports.as_ref().map(OpenReports::news);
        self.cover();
        let (mut count_at, mut counted): (Option<Instant>, Option<Instant>) = (None, None);
        let (mut cover_at, mut covered): (Option<Instant>, Instant) = (None, Instant::now());
        let mut reading_since = Instant::now();
        loop {
            let end = self.until_next_end();
            let ended = tokio::select! {
                event = pods.next() => match event {
                    Some(event) => self.take(event, &mut pods),
                    None => true,
                },
                result = either(&mut changes, &mut labels) => match result {
                    Ok(()) => {
                        cover_at.get_or_insert((Instant::now() + SETTLE).max(covered + COVER));
                        continue;
                    }
                    Err(_) => true,
                },
                () = due(cover_at) => {
                    self.cover();
                    (cover_at, covered) = (None, Instant::now());
                    false
                }
                () = tokio::time::sleep(end) => { self.cover(); false }
                () = told(&mut reports) => false,
                () = due(count_at) => {
                    count_at = None;
                    // Those that are being read are waited for.
                    if self.reading.is_none() {
                        reading_since = Instant::now();
                        if !self.read_owners() {
                            count_at = self.publish(false).then(|| Instant::now() + HOLD);
                            counted = Some(Instant::now());
                        }
                    }
                    continue;
                }
                (read, unread) = finished(&mut self.reading) => {
                    self.owners.extend(read);
                    let is_late = unread || reading_since.elapsed() >= owners::DEADLINE;
                    // Of pods that came meanwhile, too.
                    if is_late || !self.read_owners() {
                        count_at = self.publish(is_late).then(|| Instant::now() + HOLD);
                        counted = Some(Instant::now());
                    }
                    continue;
                }
                () = stopped.cancelled() => true,
            };
            if ended {
                stopped.cancelled().await;
                return Ok(());
            }
            if self.listed && self.tells {
                let soon = Instant::now() + SETTLE;
                let at = counted.map_or(soon, |counted| soon.max(counted + COUNT));
                count_at = Some(count_at.map_or(at, |before| before.min(at)));
            }
        }
    }

    /// Takes in an event, and those that have come after it; returns whether none will come any more. Nothing else may
    /// keep pods waiting for long, nor they anything else.
    fn take<S>(&mut self, first: watcher::Result<watcher::Event<Pod>>, pods: &mut S) -> bool
    where
        S: Stream<Item = watcher::Result<watcher::Event<Pod>>> + Unpin,
    {
        self.apply(first);
        for _ in 1..BATCH {
            match pods.next().now_or_never() {
                Some(Some(event)) => self.apply(event),
                Some(None) => return true,
                None => break,
            }
        }
        false
    }

    /// How long until an exception ends, and pods fare otherwise though nothing has happened.
    fn until_next_end(&self) -> Duration {
        let left = self.scan.next_end().map(|end| Duration::try_from(end.duration_since(clock::now())));
        left.map_or(LOOK_AGAIN, |left| left.unwrap_or_default().min(LOOK_AGAIN))
    }

    fn cover(&mut self) {
        block_in_place(|| self.scan.cover(&self.index.known(), clock::now()));
    }

    fn apply(&mut self, event: watcher::Result<watcher::Event<Pod>>) {
        match event {
            Ok(watcher::Event::Init) => self.listing.clear(),
            Ok(watcher::Event::InitApply(pod)) => {
                self.listing.insert((pod.namespace().unwrap_or_default(), pod.name_any()));
                self.put(pod);
            }
            Ok(watcher::Event::InitDone) => {
                let listing = std::mem::take(&mut self.listing);
                self.scan.retain(&listing);
                self.residents.listed(&listing);
                self.listed = true;
            }
            Ok(watcher::Event::Apply(pod)) => self.put(pod),
            Ok(watcher::Event::Delete(pod)) => {
                self.scan.remove(&pod.namespace().unwrap_or_default(), &pod.name_any());
                self.residents.put((pod.namespace().unwrap_or_default(), pod.name_any()), None);
            }
            Err(error) => tracing::warn!(%error, "the watch of pods failed and is being restarted"),
        }
    }

    fn put(&mut self, pod: Pod) {
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        let (metadata, data) = pod.read();
        self.residents.put((namespace.clone(), name.clone()), Resident::of(&metadata, &data));
        if !self.tells {
            return;
        }
        let kept = Kept::of(&metadata, data);
        self.scan.put(&namespace, &name, kept, &self.index.known(), clock::now());
    }

    /// Begins to read owners that nobody knows yet, and forgets those that nobody asks for; returns whether there are any
    /// to be read.
    fn read_owners(&mut self) -> bool {
        if let Some(reports) = &self.reports {
            // With their workloads, perhaps.
            let gone = reports.gone();
            self.owners.retain(|_, owner| owner.as_ref().is_none_or(|owner| !gone.contains(&owner.uid)));
        }
        let mut wanted = self.scan.controllers();
        self.owners.retain(|controller, _| wanted.contains(controller));
        wanted.retain(|controller| !self.owners.contains_key(controller));
        if wanted.is_empty() {
            return false;
        }
        let (client, proven) = (self.context.client.clone(), self.reports.is_some());
        self.reading = Some(owners::read(client, wanted.into_iter().collect(), proven).boxed());
        true
    }

    /// Counts, and tells; `unread`: not all owners are known. Returns whether something is left to be told later.
    fn publish(&mut self, unread: bool) -> bool {
        // The webhook and the Lease have threads of their own meanwhile.
        let mut report = block_in_place(|| self.scan.report(&self.owners));
        self.context.metrics.count_pods(report.pods);
        let before = self.known.borrow().clone().unwrap_or_default();
        let mut held = hold(&before.own, &mut report.own, &mut self.told.own);
        held |= hold(&before.wide, &mut report.wide, &mut self.told.wide);
        held |= hold(&before.relying, &mut report.relying, &mut self.told.relying);
        self.known.send_if_modified(|known| {
            let differs = known.as_deref() != Some(&report);
            *known = Some(Arc::new(report));
            differs
        });
        // Before owners are read their pods would have Reports of their own.
        let reports = self.reports.as_mut().filter(|_| !unread);
        held |= reports.is_some_and(|it| block_in_place(|| it.keep(self.scan.open_reports(&self.owners))));
        held || unread
    }
}

/// Leaves counts as they were told last, of objects that were told a moment ago. What is new is told at once.
fn hold<K: Ord + Clone, V: PartialEq + Clone>(
    before: &BTreeMap<K, V>,
    now: &mut BTreeMap<K, V>,
    told: &mut BTreeMap<K, Instant>,
) -> bool {
    let (mut held, moment) = (false, Instant::now());
    told.retain(|key, _| now.contains_key(key));
    for (key, counts) in now {
        match before.get(key) {
            Some(before) if before == counts => {}
            Some(before) if told.get(key).is_some_and(|told| moment < *told + HOLD) => {
                before.clone_into(counts);
                held = true;
            }
            _ => drop(told.insert(key.clone(), moment)),
        }
    }
    held
}

/// Waits until one of two values changes.
async fn either(one: &mut watch::Receiver<u64>, other: &mut watch::Receiver<u64>) -> Result<(), RecvError> {
    tokio::select! {
        changed = one.changed() => changed,
        changed = other.changed() => changed,
    }
}

/// Waits until what is being read has been, if anything is.
async fn finished<T>(reading: &mut Option<BoxFuture<'static, T>>) -> T {
    let Some(under_way) = reading else { return std::future::pending().await };
    let read = under_way.await;
    *reading = None;
    read
}

/// Waits until something else is known of Reports, where these are asked for.
async fn told(news: &mut Option<watch::Receiver<open_reports::Known>>) {
    let is_news = match news {
        Some(news) => news.changed().await.is_ok(),
        None => false,
    };
    if !is_news {
        std::future::pending::<()>().await;
    }
}

/// What a status says of hardening; what is not known yet stays as it was.
pub(super) fn hardening_status(
    enforced_by: Vec<Enforcer>,
    counted: Option<&Counted>,
    before: Option<&HardeningStatus>,
) -> HardeningStatus {
    match counted {
        Some(Counted { pods, samples, more }) => HardeningStatus {
            enforced_by,
            pods: Some(*pods),
            samples: samples.clone(),
            more_samples: (*more > 0).then_some(*more),
        },
        None => HardeningStatus { enforced_by, ..before.cloned().unwrap_or_default() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_being_read_goes_on_where_waiting_for_it_was_given_up() {
        let (tell, told) = tokio::sync::oneshot::channel::<u8>();
        let mut reading = Some(told.map(Result::unwrap_or_default).boxed());
        assert!(finished(&mut reading).now_or_never().is_none() && reading.is_some());
        tell.send(7).unwrap();
        assert_eq!(finished(&mut reading).await, 7);
        assert!(reading.is_none() && finished(&mut reading).now_or_never().is_none(), "nothing is read");
    }
}
