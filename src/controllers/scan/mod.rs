//! The background scan: follows pods and policies, and tells statuses how pods fare.

mod open_reports;
mod owners;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures::StreamExt as _;
use kube::{
    Api, ResourceExt as _,
    core::DeserializeGuard,
    runtime::{WatchStreamExt as _, reflector::ObjectRef, watcher},
};
use tokio::{
    sync::{mpsc, watch},
    task::block_in_place,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use self::open_reports::OpenReports;
use super::{
    Context, Residents, Roots,
    news::{HOLD, due},
};
use crate::{
    api::{Enforcer, HardeningStatus, SecurityPolicy},
    cluster::{client::PAGE, leader::Leadership, policy_index::PolicyIndex, slim::Pod},
    hardening::{Counted, Kept, Owners, Report, Scan},
    network::Resident,
    runtime::{clock, readiness::Gate, tasks::Tasks},
};

/// Pods are counted at most this often.
const COUNT: Duration = Duration::from_secs(1);
/// Changes that come together are counted together.
const SETTLE: Duration = Duration::from_millis(200);
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
        loop {
            let end = self.until_next_end();
            let ended = tokio::select! {
                event = pods.next() => match event {
                    Some(event) => { self.apply(event); false }
                    None => true,
                },
                result = changes.changed() => { self.cover(); result.is_err() }
                result = labels.changed() => { self.cover(); result.is_err() }
                () = tokio::time::sleep(end) => { self.cover(); false }
                () = told(&mut reports) => false,
                () = due(count_at) => {
                    count_at = self.publish().await.then(|| Instant::now() + HOLD);
                    counted = Some(Instant::now());
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

    /// Counts, and tells. Returns whether something is left to be told later.
    async fn publish(&mut self) -> bool {
        let proven = self.reports.is_some();
        if let Some(reports) = &self.reports {
            // With their workloads, perhaps.
            let gone = reports.gone();
            self.owners.retain(|_, owner| owner.as_ref().is_none_or(|owner| !gone.contains(&owner.uid)));
        }
        let unread = owners::follow(&self.context.client, &self.scan.controllers(), &mut self.owners, proven).await;
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

/// Wakes the SecurityPolicies of which something else is counted than before.
pub(super) async fn wake_changed(
    mut known: watch::Receiver<Known>,
    roots: Roots<SecurityPolicy>,
    one: mpsc::UnboundedSender<ObjectRef<DeserializeGuard<SecurityPolicy>>>,
    stopped: CancellationToken,
) -> anyhow::Result<()> {
    let mut before: Known = None;
    while known.changed().await.is_ok() {
        let now = known.borrow_and_update().clone();
        let counted = |known: &Known, of: &(String, String)| known.as_ref().and_then(|it| it.own.get(of).cloned());
        for key in now.iter().flat_map(|report| report.own.keys()) {
            if counted(&now, key) != counted(&before, key) && roots.contains(&key.0, &key.1) {
                let _ = one.send(ObjectRef::new(&key.1).within(&key.0));
            }
        }
        before = now;
    }
    stopped.cancelled().await;
    Ok(())
}
