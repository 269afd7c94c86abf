//! What a visit does about its plan: batch by batch, each under a report that was written before.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use futures::{
    FutureExt as _, StreamExt as _,
    future::{self, BoxFuture, OptionFuture},
    stream,
};
use jiff::Timestamp;
use kube::{Api, ResourceExt};

use super::{
    opted_in,
    run::{Run, Seen, run_status, this_second},
};
use crate::{
    api::{
        ApprovedPlan, ItemResult, MOST_ITEMS, Outcome, RecordDecision, ReportType, RetentionPolicy, RetentionReport,
    },
    cluster::{
        Error, Result,
        error::call,
        events::Reason,
        holds::in_namespace,
        retention_reports::{Reports, finish},
    },
    retention::{Act, Mark, Named, Permit, Plan, Planned, evidence, is_as_named, kept_alone, waited_for},
    runtime::clock,
};

/// Marks and deletions under way at once.
const AT_ONCE: usize = 16;

/// Longest message of a result.
const LONGEST_MESSAGE: usize = 500;

/// After this long, whatever is left is listed anew.
const LONGEST: Duration = Duration::from_mins(1);

/// Where something could not be done.
#[derive(Debug, Clone)]
pub(super) struct Failed {
    /// Name of the report.
    pub(super) report: String,
    /// Items.
    pub(super) count: i64,
}

/// What came of it.
#[derive(Default)]
pub(super) struct Done {
    /// Whether anything has changed.
    pub(super) acted: bool,
    pub(super) failed: Option<Failed>,
    /// What the service account may not, in the API server's words.
    pub(super) denied: Option<String>,
    /// Whether more can be done at once.
    pub(super) more: bool,
}

/// A run that has ended.
struct Ended<'a> {
    done: Done,
    /// Its report, as it will be.
    finished: RetentionReport,
    /// Writes and tells it.
    writing: BoxFuture<'a, Result<RetentionReport>>,
}

impl Run<'_> {
    /// Does what can be done now, oldest first.
    pub(super) async fn sweep(&self, reports: &mut Reports, seen: &Seen) -> Result<Done> {
        let plan = &seen.plan;
        let approved = reports.plan.as_ref().and_then(|plan| self.approved(plan));
        let permit = plan.permit(self.spec, approved.clone(), self.is_tripped(reports), clock::now());
        let mut acts = plan.acts(self.spec, &permit);
        if let Some(approved) = &approved
            && !plan.would_delete().any(|it| approved.contains(&it.item.uid))
        {
            // Nothing of it is left: an approval is for now, and not for whatever comes to match again.
            self.discard_plan(reports).await?;
        }
        if acts.is_empty() {
            self.tell_kept(reports, plan).await?;
            return Ok(Done::default());
        }
        let last = reports.last.clone();
        let failed: Decided = last.iter().flat_map(evidence::pending).map(decided).collect();
        let has_failed = |act: &Act| is_among(&failed, to_do(act));
        let approval = self.carries_out(reports, &acts);
        let same_approval = |last: &RetentionReport| approval.is_none() || last.spec.record.approved == approval;
        // What failed before, and nothing else, is tried again under the report that named it.
        if let Some(last) = last.as_ref().filter(|last| acts.iter().all(has_failed) && same_approval(last)) {
            let done = self.resume(reports, last, plan, &acts).await?;
            self.close_carried_out(reports).await?;
            return Ok(done);
        }
        self.count_skipped(plan);
        // It keeps nothing else from its turn.
        acts.sort_by_cached_key(has_failed);
        if matches!(permit, Permit::Approved(_)) {
            let batch = acts.get(..MOST_ITEMS).unwrap_or(&acts);
            let report = self.begin(reports, plan, batch, this_second()).await?;
            let done = self.end(reports, &report, self.try_all(batch).await, vec![]).await?;
            self.close_carried_out(reports).await?;
            return Ok(done);
        }
        self.in_batches(reports, seen, &acts).await
    }

    /// A run that does nothing says what it keeps, once. Not while the last one waits to see gone what it deletes: its
    /// results can't be written any more when another follows it.
    async fn tell_kept(&self, reports: &mut Reports, plan: &Plan) -> Result<()> {
        let waits = reports.last.as_ref().is_some_and(|last| waited_for(self.spec, last).next().is_some());
        if waits || self.wants_plan(reports, plan) {
            return Ok(());
        }
        let Some(record) = kept_alone(self.spec, self.header(reports, ReportType::Run, None, this_second()), plan)
        else {
            return Ok(());
        };
        let report = reports.write(record).await?;
        self.count_skipped(plan);
        self.end(reports, &report, vec![], vec![]).await.map(drop)
    }

    /// Batch by batch, for as long as everything is as it was planned by.
    ///
    /// The results of one are written while the next is under way, where these are as its report named them: the next
    /// one's report proves them then.
    async fn in_batches(&self, reports: &mut Reports, seen: &Seen, acts: &[Act<'_>]) -> Result<Done> {
        let (began, mut done) = (Instant::now(), Done::default());
        let mut batches = acts.chunks(self.spec.batch).peekable();
        let (mut now, mut before): (_, Option<BoxFuture<'_, Result<RetentionReport>>>) = (this_second(), None);
        while let Some(batch) = batches.next() {
            let report = self.begin(reports, &seen.plan, batch, now).await;
            let turn = OptionFuture::from(report.is_ok().then(|| self.try_all(batch)));
            // Beside the deletions, for nothing is deleted while a report is waited for.
            let (written, tried) = future::join(OptionFuture::from(before.take()), turn).await;
            let (report, tried) = (report?, tried.unwrap_or_default());
            if let Some(Err(error)) = written {
                tracing::warn!(reason = error.reason(), %error, "results of a retention run are written once more");
                self.complete_before(reports, &report).await?;
            }
            now = this_second();
            let Ended { done: this, finished, writing } = self.ended(&report, tried, vec![], now);
            done.acted |= this.acted;
            done.failed = done.failed.or(this.failed);
            done.denied = done.denied.or(this.denied);
            // Who may not delete one may not delete the next.
            let is_denied = done.denied.is_some() && !this.acted;
            let has_next = batches.peek().is_some() && !is_denied;
            let goes_on = if has_next { self.still_holds(seen, began).await } else { Ok(false) };
            if matches!(goes_on, Ok(true)) && is_as_named(&finished) {
                (reports.last, before) = (Some(finished), Some(writing));
                continue;
            }
            reports.last = Some(writing.await?);
            if !goes_on? {
                done.more = done.acted && has_next;
                break;
            }
        }
        Ok(done)
    }

    /// Whether everything is as it was planned by: the policy, the holds, and that the namespace agrees. Listed some
    /// batches ago is as good as now: whatever has changed since keeps what it is about.
    async fn still_holds(&self, seen: &Seen, began: Instant) -> Result<bool> {
        let (client, spec) = (&self.context.client, self.spec);
        if self.context.stopped.is_cancelled() || began.elapsed() > LONGEST {
            return Ok(false);
        }
        let policies: Api<RetentionPolicy> = Api::namespaced(client.clone(), &spec.namespace);
        let policy = call(|| format!("reading RetentionPolicy {}", spec.name), policies.get_metadata_opt(&spec.name));
        let agrees = async { Ok(!spec.opt_in || opted_in(client, &spec.namespace).await?) };
        let holds = in_namespace(client, &spec.namespace, clock::now());
        let (policy, agrees, holds) = future::try_join3(policy, agrees, holds).await?;
        let same = policy.is_some_and(|it| {
            (it.metadata.generation, it.uid()) == (Some(spec.generation), Some(spec.uid.clone()))
                && it.metadata.deletion_timestamp.is_none()
        });
        Ok(same && agrees && holds == seen.holds)
    }

    /// The approved plan by which something is deleted.
    fn carries_out(&self, reports: &Reports, acts: &[Act<'_>]) -> Option<ApprovedPlan> {
        let approved = reports.plan.as_ref().filter(|plan| self.approved(plan).is_some());
        let executes = acts.iter().any(|act| act.decision == RecordDecision::Delete);
        approved.filter(|_| executes).map(|plan| ApprovedPlan {
            report: plan.name_any(),
            digest: plan.spec.approval.as_ref().map(|approval| approval.digest.clone()).unwrap_or_default(),
            expires_at: Some(plan.spec.record.expires_at.clone()),
        })
    }

    /// Writes what is about to be done.
    async fn begin(
        &self,
        reports: &mut Reports,
        plan: &Plan,
        acts: &[Act<'_>],
        made_at: Timestamp,
    ) -> Result<RetentionReport> {
        let carried_out = self.carries_out(reports, acts);
        let header = self.header(reports, ReportType::Run, carried_out, made_at);
        let record = evidence::record(self.spec, header, plan, acts);
        reports.write(record).await
    }

    /// Goes on with a run: what it named and can still be done is done, and the rest of it is told as it is found.
    pub(super) async fn resume(
        &self,
        reports: &mut Reports,
        report: &RetentionReport,
        plan: &Plan,
        acts: &[Act<'_>],
    ) -> Result<Done> {
        let pending = evidence::pending(report);
        let named: Decided = pending.iter().copied().map(decided).collect();
        let can_be: Decided = acts.iter().map(to_do).collect();
        let acts: Vec<Act> = acts.iter().filter(|act| is_among(&named, to_do(act))).copied().collect();
        let left = pending.iter().filter(|item| !is_among(&can_be, decided(**item)));
        let found: BTreeMap<&str, &Planned> = plan.items.iter().map(|it| (it.item.uid.as_str(), it)).collect();
        let told = left.map(|item| evidence::settle(*item, found.get(item.uid).copied())).collect();
        self.end(reports, report, self.try_all(&acts).await, told).await
    }

    async fn try_all(&self, acts: &[Act<'_>]) -> Vec<Tried> {
        let mut tries = vec![];
        self.so_far().began |= !acts.is_empty();
        for act in acts {
            tries.push(self.one(*act));
        }
        stream::iter(tries).buffer_unordered(AT_ONCE).collect().await
    }

    /// Writes and tells what came of it.
    pub(super) async fn end(
        &self,
        reports: &mut Reports,
        report: &RetentionReport,
        tried: Vec<Tried>,
        results: Vec<ItemResult>,
    ) -> Result<Done> {
        let ended = self.ended(report, tried, results, this_second());
        reports.last = Some(ended.writing.await?);
        Ok(ended.done)
    }

    /// What came of it, to be written and told.
    fn ended(
        &self,
        report: &RetentionReport,
        tried: Vec<Tried>,
        mut results: Vec<ItemResult>,
        now: Timestamp,
    ) -> Ended<'_> {
        let denied = tried.iter().filter_map(|(_, error)| error.as_ref()).find(|error| error.code() == Some(403));
        let denied = denied.map(|error| error.refusal().map_or_else(|| error.to_string(), Into::into));
        let new: Vec<ItemResult> = tried.into_iter().map(|(result, _)| result).collect();
        let acted = new.iter().any(|it| it.result != Outcome::Failed);
        results.extend(new.iter().cloned());
        let status = evidence::results(report, results, now);
        let failed = (status.failed > 0).then(|| Failed { report: report.name_any(), count: status.failed });
        let finished = RetentionReport { status: Some(status.clone()), ..report.clone() };
        let report = report.clone();
        let writing = async move {
            let (finished, ()) = future::join(finish(&self.context.client, &report, status), self.tell(&new)).await;
            let finished = finished?;
            self.so_far().last_run = Some(run_status(&finished));
            self.log(&finished, &report);
            Ok(finished)
        };
        Ended { done: Done { acted, failed, denied, more: false }, finished, writing: writing.boxed() }
    }

    /// Keeps the digest where no one who may write reports can change it.
    fn log(&self, finished: &RetentionReport, before: &RetentionReport) {
        let Some(status) = finished.status.as_ref().filter(|status| before.status.as_ref() != Some(status)) else {
            return;
        };
        tracing::info!(
            namespace = self.spec.namespace,
            policy = self.spec.name,
            report = finished.name_any(),
            deleted = status.deleted,
            marked = status.marked,
            unmarked = status.unmarked,
            failed = status.failed,
            digest = status.digest,
            "a retention run was recorded"
        );
    }

    /// Does one thing, about exactly the item that was judged.
    async fn one(&self, act: Act<'_>) -> Tried {
        let item = &act.planned.item;
        let told = |result, message: String| ItemResult { uid: item.uid.clone(), result, message };
        let Some(target) = self.targets.get(act.planned.target) else {
            return (told(Outcome::Failed, "it is of no target".into()), None);
        };
        let now = this_second();
        let of_mark =
            |result: Outcome, tried: Result<bool>| tried.map(|done| if done { result } else { Outcome::Kept });
        let tried = match act.decision {
            RecordDecision::Delete => target.delete(item).await,
            RecordDecision::Mark => {
                let mark = Mark {
                    policy_uid: self.spec.uid.clone(),
                    marked_at: now,
                    delete_after: now.checked_add(self.spec.grace).unwrap_or(Timestamp::MAX),
                    uid: item.uid.clone(),
                };
                of_mark(Outcome::Marked, target.mark(item, Some(&mark)).await)
            }
            RecordDecision::Unmark | RecordDecision::Keep => of_mark(Outcome::Unmarked, target.mark(item, None).await),
        };
        match tried {
            Ok(Outcome::Kept) => (told(Outcome::Kept, "it changed, or went, since it was listed".into()), None),
            Ok(done) => (told(done, String::new()), None),
            Err(error) => {
                let said = error.refusal().map_or_else(|| error.to_string(), Into::into);
                (told(Outcome::Failed, said.chars().take(LONGEST_MESSAGE).collect()), Some(error))
            }
        }
    }

    /// Events and metrics of what was done.
    async fn tell(&self, results: &[ItemResult]) {
        let kinds = [
            (Outcome::Deleted, "Deleted"),
            (Outcome::Terminating, "Terminating"),
            (Outcome::Marked, "Marked"),
            (Outcome::Unmarked, "Unmarked"),
        ];
        for (outcome, reason) in kinds {
            let count = results.iter().filter(|it| it.result == outcome).count();
            if count == 0 {
                continue;
            }
            if outcome == Outcome::Deleted {
                self.context.metrics.retention.deleted.inc_by(count.try_into().unwrap_or_default());
            }
            let note = match outcome {
                Outcome::Deleted => format!("{count} objects were deleted"),
                Outcome::Terminating => format!("{count} objects are being deleted, and wait for their finalizers"),
                Outcome::Marked => format!("{count} objects were marked for deletion"),
                _ => format!("{count} objects lost their mark"),
            };
            self.context.events.publish(self.policy, Reason::normal(reason), &note).await;
        }
    }
}

/// What came of one item, and the error where it failed.
type Tried = (ItemResult, Option<Error>);

/// What is decided about items, by UID.
type Decided<'a> = BTreeMap<&'a str, RecordDecision>;

const fn decided(item: Named<'_>) -> (&str, RecordDecision) {
    (item.uid, item.decision)
}

fn to_do<'a>(act: &Act<'a>) -> (&'a str, RecordDecision) {
    (&act.planned.item.uid, act.decision)
}

fn is_among(decided: &Decided<'_>, (uid, decision): (&str, RecordDecision)) -> bool {
    decided.get(uid) == Some(&decision)
}
