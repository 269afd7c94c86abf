//! One visit of a policy: what is written ahead, what is done, and what came of it.

use std::collections::BTreeSet;

use futures::{StreamExt as _, stream};
use jiff::Timestamp;
use kube::ResourceExt;

use super::planned;
use crate::{
    api::{
        ApprovedPlan, ItemResult, Outcome, RecordDecision, ReportType, RetentionMode, RetentionPolicy, RetentionRecord,
        RetentionReport, RunStatus,
    },
    cluster::{Error, Result, events::Reason, retained::Retained, retention_reports::Reports},
    controllers::Context,
    retention::{
        Act, Mark, Permit, Plan, Spec,
        evidence::{self, Header},
    },
    runtime::clock,
};

/// Marks and deletions under way at once.
const AT_ONCE: usize = 16;

/// Longest message of a result.
const LONGEST_MESSAGE: usize = 500;

/// What is needed for one visit.
pub(super) struct Run<'a> {
    pub(super) context: &'a Context,
    pub(super) policy: &'a RetentionPolicy,
    pub(super) spec: &'a Spec,
    pub(super) targets: &'a [Retained],
}

/// Whether the caps hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Brake {
    /// They were not exceeded.
    Released,
    /// Nothing is deleted until a set is approved.
    Tripped,
    /// A set is approved, and waits for its grace period or for the schedule.
    Approved,
}

/// What a visit found and did.
pub(super) struct Carried {
    pub(super) plan: Plan,
    pub(super) breaker: Brake,
    /// Report of the plan.
    pub(super) report: Option<String>,
    pub(super) last_run: Option<RunStatus>,
    /// What the service account may not, in the API server's words; or that the namespace does not agree.
    pub(super) denied: Option<String>,
    /// Whether a batch was full.
    pub(super) more: bool,
    /// Whether this was the schedule's turn, and it has been taken.
    pub(super) due: bool,
}

/// What came of a batch.
#[derive(Default)]
struct Done {
    acted: bool,
    denied: Option<String>,
    more: bool,
}

impl Run<'_> {
    pub(super) async fn carry_out(&self) -> Result<Carried> {
        let mut reports = Reports::read(&self.context.client, self.policy).await?;
        let mut plan = planned(&self.context.client, self.spec, self.targets).await?;
        let settled = self.settle(&mut reports, &plan).await?;
        if settled.acted {
            plan = planned(&self.context.client, self.spec, self.targets).await?;
        }
        let due = self.is_due();
        let mut done = if due { self.act(&mut reports, &plan).await? } else { Done::default() };
        if done.acted {
            plan = planned(&self.context.client, self.spec, self.targets).await?;
        }
        done.denied = done.denied.or(settled.denied);
        let tripped = plan.would_delete().next().is_some() && (plan.breaker.is_some() || self.is_tripped(&reports));
        self.keep_plan(&mut reports, &plan).await?;
        let is_approved = reports.plan.as_ref().and_then(|plan| self.approved(plan)).is_some();
        Ok(Carried {
            breaker: match (tripped, is_approved) {
                (false, _) => Brake::Released,
                (true, false) => Brake::Tripped,
                (true, true) => Brake::Approved,
            },
            report: reports.plan.as_ref().map(ResourceExt::name_any),
            last_run: reports.last.as_ref().map(run_status),
            plan,
            denied: done.denied,
            more: done.more,
            due,
        })
    }

    /// Whether something may be done now.
    fn is_due(&self) -> bool {
        let Some(status) = &self.policy.status else { return self.spec.schedule.is_none() };
        let planned =
            status.next_run_time.as_ref().filter(|_| status.observed_generation == Some(self.spec.generation));
        self.spec.schedule.is_none() || planned.is_some_and(|time| time.0 <= clock::now())
    }

    /// Whether the caps were exceeded by a plan of this very spec, and nothing has been approved since. Who changes the
    /// spec is asked anew: its caps are the author's.
    fn is_tripped(&self, reports: &Reports) -> bool {
        let record = reports.plan.as_ref().map(|plan| &plan.spec.record);
        record.is_some_and(|record| self.is_of_spec(record) && record.breaker.is_some())
    }

    fn is_of_spec(&self, record: &RetentionRecord) -> bool {
        record.policy.generation == self.spec.generation && record.mode == self.spec.mode
    }

    fn approved(&self, plan: &RetentionReport) -> Option<BTreeSet<String>> {
        evidence::approved(plan)
            .filter(|_| self.is_of_spec(&plan.spec.record) && self.spec.mode == RetentionMode::Enforce)
    }

    /// Ends a run that an operator began before: what still may be done is done, and the rest is told as it is found.
    async fn settle(&self, reports: &mut Reports, plan: &Plan) -> Result<Done> {
        let Some(last) = reports.last.clone() else { return Ok(Done::default()) };
        if last.status.as_ref().is_none_or(|status| status.finished_at.is_none()) {
            let record = &last.spec.record;
            let named = record.items.iter().filter(|item| item.decision == RecordDecision::Delete);
            let permit = match &record.approved {
                Some(_) => Permit::Approved(named.map(|item| item.uid.clone()).collect()),
                None => plan.permit(None, self.is_tripped(reports)),
            };
            let done = self.resume(reports, &last, plan, &plan.acts(self.spec, &permit)).await?;
            self.close_carried_out(reports).await?;
            return Ok(done);
        }
        self.close_carried_out(reports).await?;
        Ok(Done::default())
    }

    /// A plan that was carried out is no longer one that could be.
    async fn close_carried_out(&self, reports: &mut Reports) -> Result<()> {
        let carried_out = reports.last.as_ref().and_then(|last| last.spec.record.approved.as_ref());
        let is_it = |plan: &RetentionReport| carried_out.is_some_and(|approved| approved.report == plan.name_any());
        if reports.plan.as_ref().is_some_and(is_it) { self.discard_plan(reports).await } else { Ok(()) }
    }

    /// Does what can be done now, in one run with one report.
    async fn act(&self, reports: &mut Reports, plan: &Plan) -> Result<Done> {
        let approved = reports.plan.as_ref().and_then(|plan| self.approved(plan));
        let permit = plan.permit(approved.clone(), self.is_tripped(reports));
        let mut acts = plan.acts(self.spec, &permit);
        let more = acts.len() > self.spec.batch && !matches!(permit, Permit::Approved(_));
        if let Some(approved) = &approved
            && !plan.would_delete().any(|it| approved.contains(&it.item.uid))
        {
            // Nothing of it is left: an approval is for now, and not for whatever comes to match again.
            self.discard_plan(reports).await?;
        }
        if acts.is_empty() {
            return Ok(Done::default());
        }
        // What failed before, and nothing else, is tried again under the report that named it.
        let failed = |last: &&RetentionReport| {
            let pending = evidence::pending(last);
            acts.iter().all(|act| pending.iter().any(|it| is_about(act, it)))
        };
        if let Some(last) = reports.last.clone().as_ref().filter(failed) {
            return self.resume(reports, last, plan, &acts).await;
        }
        acts.truncate(if matches!(permit, Permit::Approved(_)) { acts.len() } else { self.spec.batch });
        acts.truncate(crate::api::MOST_ITEMS);
        let executes = approved.is_some() && acts.iter().any(|act| act.decision == RecordDecision::Delete);
        let carried_out = reports.plan.as_ref().filter(|_| executes).map(|plan| ApprovedPlan {
            report: plan.name_any(),
            digest: plan.spec.approval.as_ref().map(|approval| approval.digest.clone()).unwrap_or_default(),
        });
        let record = evidence::record(self.spec, self.header(reports, ReportType::Run, carried_out), plan, &acts);
        self.count_skipped(plan);
        let report = reports.write(record).await?;
        let done = self.perform(reports, &report, &acts, vec![]).await?;
        self.close_carried_out(reports).await?;
        Ok(Done { more, ..done })
    }

    /// Goes on with a run: what it named and can still be done is done, and the rest of it is told as it is found.
    async fn resume(
        &self,
        reports: &mut Reports,
        report: &RetentionReport,
        plan: &Plan,
        acts: &[Act<'_>],
    ) -> Result<Done> {
        let pending = evidence::pending(report);
        let acts: Vec<Act> =
            acts.iter().filter(|act| pending.iter().any(|item| is_about(act, item))).copied().collect();
        let left = pending.iter().filter(|item| !acts.iter().any(|act| is_about(act, item)));
        let found = |uid: &str| plan.items.iter().find(|planned| planned.item.uid == uid);
        let told = left.map(|item| evidence::settle(item, found(&item.uid))).collect();
        self.perform(reports, report, &acts, told).await
    }

    async fn perform(
        &self,
        reports: &mut Reports,
        report: &RetentionReport,
        acts: &[Act<'_>],
        mut results: Vec<ItemResult>,
    ) -> Result<Done> {
        let mut tries = vec![];
        for act in acts {
            tries.push(self.one(*act));
        }
        let done: Vec<(ItemResult, Option<Error>)> = stream::iter(tries).buffer_unordered(AT_ONCE).collect().await;
        let denied = done.iter().filter_map(|(_, error)| error.as_ref()).find(|error| error.code() == Some(403));
        let denied = denied.map(|error| error.refusal().map_or_else(|| error.to_string(), Into::into));
        let new: Vec<ItemResult> = done.into_iter().map(|(result, _)| result).collect();
        self.tell(&new).await;
        let changed = new.iter().any(|it| it.result != Outcome::Failed);
        results.extend(new);
        let status = evidence::results(report, results, whole_second());
        let finished = reports.finish(report, status).await?;
        if let Some(status) = finished.status.as_ref().filter(|status| report.status.as_ref() != Some(status)) {
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
        reports.last = Some(finished);
        Ok(Done { acted: changed, denied, more: false })
    }

    /// Does one thing, about exactly the item that was judged.
    async fn one(&self, act: Act<'_>) -> (ItemResult, Option<Error>) {
        let item = &act.planned.item;
        let told = |result, message: String| ItemResult { uid: item.uid.clone(), result, message };
        let Some(target) = self.targets.get(act.planned.target) else {
            return (told(Outcome::Failed, "it is of no target".into()), None);
        };
        let now = whole_second();
        let (done, tried) = match act.decision {
            RecordDecision::Delete => (Outcome::Deleted, target.delete(item).await),
            RecordDecision::Mark => {
                let mark = Mark {
                    policy_uid: self.spec.uid.clone(),
                    marked_at: now,
                    delete_after: now.checked_add(self.spec.grace).unwrap_or(Timestamp::MAX),
                    uid: item.uid.clone(),
                };
                (Outcome::Marked, target.mark(item, Some(&mark)).await)
            }
            RecordDecision::Unmark | RecordDecision::Keep => (Outcome::Unmarked, target.mark(item, None).await),
        };
        match tried {
            Ok(true) => (told(done, String::new()), None),
            Ok(false) => (told(Outcome::Kept, "it changed, or went, since it was listed".into()), None),
            Err(error) => {
                let said = error.refusal().map_or_else(|| error.to_string(), Into::into);
                (told(Outcome::Failed, said.chars().take(LONGEST_MESSAGE).collect()), Some(error))
            }
        }
    }

    /// Events and metrics of what was done.
    async fn tell(&self, results: &[ItemResult]) {
        let kinds = [(Outcome::Deleted, "Deleted"), (Outcome::Marked, "Marked"), (Outcome::Unmarked, "Unmarked")];
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
                Outcome::Marked => format!("{count} objects were marked for deletion"),
                _ => format!("{count} objects lost their mark"),
            };
            self.context.events.publish(self.policy, Reason::normal(reason), &note).await;
        }
    }

    fn count_skipped(&self, plan: &Plan) {
        for reason in plan.items.iter().filter_map(crate::retention::Planned::skipped) {
            self.context.metrics.retention.skip(reason);
        }
    }

    fn header(&self, reports: &Reports, kind: ReportType, approved: Option<ApprovedPlan>) -> Header {
        Header {
            kind,
            number: reports.next(kind),
            made_at: whole_second(),
            previous: reports.previous().filter(|_| kind == ReportType::Run),
            approved,
            tripped: self.is_tripped(reports),
        }
    }

    /// Keeps a report of the plan where nothing is done about it: in a dry run, or because the caps forbid it.
    async fn keep_plan(&self, reports: &mut Reports, plan: &Plan) -> Result<()> {
        if let Some(stale) = reports.take_stale() {
            self.discard(reports, &stale).await?;
        }
        // One that somebody approved waits for its turn; what is new since then waits for the next plan.
        if reports.plan.as_ref().is_some_and(|plan| self.approved(plan).is_some()) {
            return Ok(());
        }
        let goes = plan.would_delete().next().is_some();
        let (tripped, was_tripped) = (plan.breaker.is_some(), self.is_tripped(reports));
        let wanted = match self.spec.mode {
            RetentionMode::DryRun => goes,
            RetentionMode::Enforce => goes && (tripped || was_tripped),
            RetentionMode::Disabled | RetentionMode::Mark => false,
        };
        if !wanted {
            return self.discard_plan(reports).await;
        }
        let record = evidence::record(self.spec, self.header(reports, ReportType::Plan, None), plan, &[]);
        if reports.plan.as_ref().is_some_and(|old| evidence::is_same_plan(&old.spec.record, &record)) {
            return Ok(());
        }
        let counts = record.counts.clone();
        // The new one first: that the caps were exceeded must not be forgotten in between.
        let written = reports.write(record).await?;
        if let Some(stale) = reports.take_stale() {
            self.discard(reports, &stale).await?;
        }
        self.count_skipped(plan);
        let note =
            format!("{} objects would be deleted, {} are kept: {}", counts.delete, counts.kept, written.name_any());
        self.context.events.publish(self.policy, Reason::normal("PlanComputed"), &note).await;
        if self.spec.mode == RetentionMode::Enforce && !was_tripped {
            let note = format!(
                "more would be deleted than the caps allow; nothing is until {note} is approved",
                note = written.name_any()
            );
            self.context.events.publish(self.policy, Reason::warning("BreakerTripped"), &note).await;
        }
        Ok(())
    }

    async fn discard_plan(&self, reports: &mut Reports) -> Result<()> {
        match reports.take_plan() {
            Some(plan) => self.discard(reports, &plan).await,
            None => Ok(()),
        }
    }

    /// Removes a plan that has no use any more; one that was approved is evidence, and is closed instead.
    async fn discard(&self, reports: &Reports, plan: &RetentionReport) -> Result<()> {
        if plan.spec.approval.is_none() {
            return reports.remove(plan).await;
        }
        reports.finish(plan, evidence::results(plan, vec![], whole_second())).await.map(drop)
    }
}

fn is_about(act: &Act<'_>, item: &crate::api::RecordItem) -> bool {
    act.planned.item.uid == item.uid && act.decision == item.decision
}

fn run_status(run: &RetentionReport) -> RunStatus {
    let results = run.status.clone().unwrap_or_default();
    RunStatus {
        report: run.name_any(),
        number: run.spec.record.number,
        digest: results.digest.unwrap_or_default(),
        expires_at: run.spec.record.expires_at.clone(),
        marked: results.marked,
        unmarked: results.unmarked,
        deleted: results.deleted,
        failed: results.failed,
    }
}

/// Times on the wire have whole seconds.
fn whole_second() -> Timestamp {
    Timestamp::from_second(clock::now().as_second()).unwrap_or_default()
}
