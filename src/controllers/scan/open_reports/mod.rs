//! Reports of OpenReports: what the scan finds, as others read it. The scan says what is wanted, what differs from what
//! is there is written by a task of its own, and what is as wanted is never written.

mod clear;
mod watch;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch as channel},
    time::Instant,
};

pub(super) use clear::clear;

use crate::{
    cluster::{
        Error, Result,
        follow::Key,
        leader::Leadership,
        open_reports::{self, Digests, Seen},
    },
    controllers::{Backoff, Context},
    hardening::OpenReport,
    runtime::{
        metrics::{Metrics, ResultLabel},
        tasks::Tasks,
    },
};

/// Writes at once, and no more in [`PAUSE`]: a cluster where much begins to violate is told of within minutes.
const WRITES: usize = 200;
/// Between two times that something is written.
const PAUSE: Duration = Duration::from_secs(10);
/// How long the Report of a CronJob stays when none of its pods is there any more: it would come and go with each run.
const LINGER: Duration = Duration::from_hours(1);

/// Reports as the scan has them.
pub(super) struct OpenReports {
    known: channel::Sender<Known>,
    work: mpsc::UnboundedSender<Vec<Change>>,
    digests: Digests,
    metrics: Metrics,
    /// Not before this is anything written again.
    next: Option<Instant>,
    /// Those of CronJobs that nothing says are wanted, and since when.
    lingering: BTreeMap<Key, Instant>,
}

/// What is known of Reports.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Those of ours that are there; `None` until they have been listed, and while the API server has no such kind.
    live: Option<BTreeMap<Key, Seen>>,
    /// UIDs of the workloads that may have gone since the scan last asked, since their Reports have.
    gone: BTreeSet<String>,
    /// Those that could not be written or removed, and when to try again.
    failed: BTreeMap<Key, Instant>,
    /// Those that the API server keeps otherwise than they were written: digests of both.
    kept_as: BTreeMap<Key, (u64, u64)>,
    /// Whether changes are being written.
    busy: bool,
}

/// What is to be done to a Report.
#[derive(Debug)]
enum Change {
    Write(OpenReport, Option<Seen>),
    Remove(Key, Seen),
}

/// What is to be done.
#[derive(Debug, Default)]
struct Plan {
    changes: Vec<Change>,
    /// Reports that are as wanted.
    kept: usize,
    /// Those that are not, whether it is their turn or not.
    pending: usize,
}

impl OpenReports {
    /// Adds what follows and writes Reports to the tasks of a process.
    pub(super) fn spawn(context: &Context, leadership: Leadership, tasks: &mut Tasks) -> Self {
        let (known, digests) = (channel::Sender::new(Known::default()), Digests::default());
        let (work, changes) = mpsc::unbounded_channel();
        let following = watch::follow(context.clone(), leadership, known.clone(), digests.clone());
        tasks.spawn("open-reports-watch", following);
        tasks.spawn("open-reports", carry_out(context.clone(), known.clone(), digests.clone(), changes));
        Self { known, work, digests, metrics: context.metrics.clone(), next: None, lingering: BTreeMap::new() }
    }

    /// Changes whenever something else is known.
    pub(super) fn news(&self) -> channel::Receiver<Known> {
        self.known.subscribe()
    }

    /// UIDs of the workloads that may have gone since this was last asked.
    pub(super) fn gone(&self) -> BTreeSet<String> {
        let mut gone = BTreeSet::new();
        self.known.send_if_modified(|known| {
            gone = std::mem::take(&mut known.gone);
            false
        });
        gone
    }

    /// Has written what differs from what is wanted. Returns whether something is left for later.
    pub(super) fn keep(&mut self, wanted: impl Iterator<Item = OpenReport>) -> bool {
        let now = Instant::now();
        if self.next.is_some_and(|next| now < next) || self.known.borrow().busy {
            return true;
        }
        let Plan { changes, kept, pending } =
            plan(wanted, &self.known.borrow(), &self.digests, (&mut self.lingering, now));
        for (result, count) in [("kept", kept), ("pending", pending)] {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.metrics.open_reports.get_or_create(&ResultLabel { result }).set(count);
        }
        if !changes.is_empty() {
            self.next = Some(now + PAUSE);
            self.known.send_if_modified(|known| {
                known.busy = true;
                false
            });
            let _ = self.work.send(changes);
        }
        // That the API server begins to serve them is news.
        pending > 0 && self.known.borrow().live.is_some()
    }
}

fn plan(
    wanted: impl Iterator<Item = OpenReport>,
    known: &Known,
    digests: &Digests,
    (lingering, now): (&mut BTreeMap<Key, Instant>, Instant),
) -> Plan {
    let mut plan = Plan::default();
    let Some(live) = &known.live else {
        plan.pending = wanted.count();
        return plan;
    };
    let mut stale: BTreeMap<&Key, &Seen> = live.iter().collect();
    for report in wanted {
        let key = (report.namespace.clone(), report.name());
        let seen = stale.remove(&key);
        let digest = digests.of(&report.content);
        let kept_as = known.kept_as.get(&key).filter(|(written, _)| *written == digest).map(|(_, kept)| *kept);
        if seen.is_some_and(|seen| seen.is_owned && seen.digest == kept_as.unwrap_or(digest)) {
            plan.kept += 1;
        } else {
            plan.add(known, now, &key, || Change::Write(report, seen.cloned()));
        }
    }
    lingering.retain(|key, _| stale.contains_key(key));
    for (key, seen) in stale {
        if seen.of_cron_job && now < *lingering.entry(key.clone()).or_insert(now) + LINGER {
            plan.kept += 1;
            continue;
        }
        plan.add(known, now, key, || Change::Remove(key.clone(), seen.clone()));
    }
    plan
}

impl Plan {
    fn add(&mut self, known: &Known, now: Instant, key: &Key, change: impl FnOnce() -> Change) {
        self.pending += 1;
        let waits = known.failed.get(key).is_some_and(|until| now < *until);
        if !waits && self.changes.len() < WRITES {
            self.changes.push(change());
        }
    }
}

impl Change {
    fn key(&self) -> Key {
        match self {
            Self::Write(report, _) => (report.namespace.clone(), report.name()),
            Self::Remove(key, _) => key.clone(),
        }
    }

    /// Does it. Returns digests of what was written and of what is kept, where these differ.
    async fn carry_out(&self, context: &Context, digests: &Digests) -> Result<Option<(u64, u64)>> {
        match self {
            Self::Write(report, seen) => {
                let kept = open_reports::write(&context.client, report, seen.as_ref()).await?;
                let digests = (digests.of(&report.content), digests.of(&kept));
                Ok(Some(digests).filter(|(written, kept)| written != kept))
            }
            Self::Remove(key, seen) => open_reports::remove(&context.client, key, seen).await.map(|()| None),
        }
    }
}

/// Whether the next look tells more: it was changed or went meanwhile.
fn is_outdated(error: &Error) -> bool {
    matches!(error.code(), Some(404 | 409)) || error.is_of_ending_namespace()
}

/// Carries changes out, one after the other, until the process stops.
async fn carry_out(
    context: Context,
    known: channel::Sender<Known>,
    digests: Digests,
    mut changes: mpsc::UnboundedReceiver<Vec<Change>>,
) -> anyhow::Result<()> {
    let backoff = Backoff::default();
    let stopped = context.stopped.clone();
    while let Some(changes) = stopped.run_until_cancelled(changes.recv()).await.flatten() {
        let (mut failures, mut last) = (0_usize, None);
        for change in changes {
            if stopped.is_cancelled() {
                return Ok(());
            }
            let (key, result) = (change.key(), change.carry_out(&context, &digests).await);
            let result = match result {
                Err(error) if is_outdated(&error) => Ok(None),
                other => other,
            };
            known.send_if_modified(|known| {
                known.kept_as.remove(&key);
                known.failed.remove(&key);
                match &result {
                    Ok(kept_as) => known.kept_as.extend(kept_as.map(|kept_as| (key.clone(), kept_as))),
                    Err(_) => drop(known.failed.insert(key.clone(), Instant::now() + backoff.failed(&key))),
                }
                false
            });
            match result {
                Ok(_) => backoff.succeeded(&key),
                Err(error) => (failures, last) = (failures + 1, Some(error)),
            }
        }
        if let Some(error) = last {
            tracing::warn!(failures, reason = error.reason(), %error, "Reports could not be written or removed");
        }
        known.send_modify(|known| known.busy = false);
    }
    stopped.cancelled().await;
    Ok(())
}

#[cfg(test)]
mod tests;
