//! One visit of a policy: what is written ahead, what is done, and what came of it.

use std::collections::BTreeSet;

use jiff::Timestamp;
use kube::ResourceExt;
use parking_lot::{Mutex, MutexGuard};

use super::sweep::{Done, Failed};
use crate::{
    api::{ApprovedPlan, ReportType, RetentionMode, RetentionPolicy, RetentionReport, RunStatus, whole_second},
    cluster::{
        Result,
        events::Reason,
        holds::in_namespace,
        retained::{self, Retained},
        retention_reports::{Reports, finish},
    },
    controllers::Context,
    retention::{
        Decision, Gone, Holds, Plan, Planned, Spec,
        evidence::{self, Header},
        implied, open, plan_while_open,
    },
    runtime::clock,
};

/// What is needed for one visit.
pub(super) struct Run<'a> {
    pub(super) context: &'a Context,
    pub(super) policy: &'a RetentionPolicy,
    pub(super) spec: &'a Spec,
    pub(super) targets: &'a [Retained],
    pub(super) so_far: &'a Mutex<SoFar>,
}

/// What a visit has done, as far as it came: it may fail after that, or be cut off.
#[derive(Debug, Clone, Default)]
pub(super) struct SoFar {
    /// Whether it has begun to mark or delete.
    pub(super) began: bool,
    /// The last run whose results were written.
    pub(super) last_run: Option<RunStatus>,
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

/// What was listed and judged, and by which holds.
pub(super) struct Seen {
    pub(super) plan: Plan,
    pub(super) holds: Holds,
}

/// What a visit found and did.
pub(super) struct Carried {
    pub(super) plan: Plan,
    pub(super) breaker: Brake,
    /// What of an approved set the rest waits for.
    pub(super) awaited: Option<String>,
    /// Report of the plan.
    pub(super) report: Option<String>,
    pub(super) last_run: Option<RunStatus>,
    /// Where something could not be marked or deleted in this visit.
    pub(super) failed: Option<Failed>,
    /// What the service account may not, in the API server's words; or that the namespace does not agree.
    pub(super) denied: Option<String>,
    /// Whether more can be done at once.
    pub(super) more: bool,
    /// Whether this was the schedule's turn, and it has been taken.
    pub(super) due: bool,
}

impl Run<'_> {
    pub(super) async fn carry_out(&self) -> Result<Carried> {
        let mut reports = Reports::read(&self.context.client, self.policy).await?;
        let mut seen = self.look(&reports).await?;
        let settled = self.settle(&mut reports, &seen.plan).await?;
        if settled.acted {
            // There may be so many objects that they are not held twice.
            drop(seen);
            seen = self.look(&reports).await?;
        }
        let due = self.is_due();
        let done = if due { Box::pin(self.sweep(&mut reports, &seen)).await? } else { Done::default() };
        if done.acted {
            drop(seen);
            seen = self.look(&reports).await?;
        }
        let plan = seen.plan;
        let tripped = plan.would_delete().next().is_some() && (plan.breaker.is_some() || self.is_tripped(&reports));
        self.keep_plan(&mut reports, &plan).await?;
        let approved = reports.plan.as_ref().and_then(|plan| self.approved(plan));
        let awaited = approved.as_ref().and_then(|approved| plan.awaited(self.spec, approved, clock::now()));
        Ok(Carried {
            awaited: awaited.map(awaits),
            breaker: match (tripped, approved.is_some()) {
                (false, _) => Brake::Released,
                (true, false) => Brake::Tripped,
                (true, true) => Brake::Approved,
            },
            report: reports.plan.as_ref().map(ResourceExt::name_any),
            last_run: reports.last.as_ref().map(run_status),
            plan,
            failed: done.failed.or(settled.failed),
            denied: done.denied.or(settled.denied),
            more: done.more,
            due,
        })
    }

    pub(super) fn so_far(&self) -> MutexGuard<'_, SoFar> {
        self.so_far.lock()
    }

    /// What the targets list, judged now, by the holds that are there now.
    async fn look(&self, reports: &Reports) -> Result<Seen> {
        let holds = in_namespace(&self.context.client, &self.spec.namespace, clock::now()).await?;
        let listed = retained::listed(self.targets, &holds).await?;
        let open = reports.plan.as_ref().filter(|_| self.is_tripped(reports));
        let made_at = open.map(|plan| plan.spec.record.made_at.0);
        Ok(Seen { plan: plan_while_open(self.spec, listed, made_at, clock::now()), holds })
    }

    /// Whether something may be done now.
    fn is_due(&self) -> bool {
        let Some(status) = &self.policy.status else { return self.spec.schedule.is_none() };
        let planned =
            status.next_run_time.as_ref().filter(|_| status.observed_generation == Some(self.spec.generation));
        self.spec.schedule.is_none() || planned.is_some_and(|time| time.0 <= clock::now())
    }

    /// Whether the caps were exceeded by a plan of this very spec, and nothing has been approved since.
    pub(super) fn is_tripped(&self, reports: &Reports) -> bool {
        reports.plan.as_ref().is_some_and(|plan| open::exceeds(self.spec, plan))
    }

    pub(super) fn approved(&self, plan: &RetentionReport) -> Option<BTreeSet<String>> {
        open::approved(self.spec, plan)
    }

    /// Ends a run that an operator began before: what still may be done is done, and the rest is told as it is found.
    async fn settle(&self, reports: &mut Reports, plan: &Plan) -> Result<Done> {
        let Some(last) = reports.last.clone() else { return Ok(Done::default()) };
        if last.status.as_ref().is_none_or(|status| status.finished_at.is_none()) {
            self.complete_before(reports, &last).await?;
            let permit = plan.permit_to_go_on(self.spec, &last.spec.record, self.is_tripped(reports));
            let done = self.resume(reports, &last, plan, &plan.acts(self.spec, &permit)).await?;
            self.close_carried_out(reports).await?;
            return Ok(done);
        }
        self.settle_gone(reports, &last, plan).await?;
        self.close_carried_out(reports).await?;
        Ok(Done::default())
    }

    /// What failed is tried again under the report that named it; where what came of that could not be written, it is
    /// told by what is there. So is what waited for its finalizers: no later run has named these results yet.
    async fn settle_gone(&self, reports: &mut Reports, last: &RetentionReport, plan: &Plan) -> Result<()> {
        let gone = Gone::of(self.spec, last, plan);
        if gone.is_empty() {
            return Ok(());
        }
        let deleted = gone.deleted.into_iter().map(|result| (result, None)).collect();
        self.end(reports, last, deleted, gone.unheard).await.map(drop)
    }

    /// Writes the results of the run that `run` follows, where they are missing and `run` proves them: the operator
    /// ended, or failed, while it wrote them.
    pub(super) async fn complete_before(&self, reports: &Reports, run: &RetentionReport) -> Result<()> {
        let Some(before) = reports.before(run).await? else { return Ok(()) };
        match implied(&before, &run.spec.record) {
            Some(status) => finish(&self.context.client, &before, status).await.map(drop),
            None => Ok(()),
        }
    }

    /// A plan that was carried out is no longer one that could be.
    pub(super) async fn close_carried_out(&self, reports: &mut Reports) -> Result<()> {
        let plan = reports.plan.as_ref().map(ResourceExt::name_any);
        let is_done = plan.is_some_and(|plan| reports.last.as_ref().is_some_and(|run| evidence::uses_up(run, &plan)));
        if is_done { self.discard_plan(reports).await } else { Ok(()) }
    }

    pub(super) fn count_skipped(&self, plan: &Plan) {
        for reason in plan.items.iter().filter_map(Planned::skipped) {
            self.context.metrics.retention.skip(reason);
        }
    }

    pub(super) fn header(
        &self,
        reports: &Reports,
        kind: ReportType,
        approved: Option<ApprovedPlan>,
        made_at: Timestamp,
    ) -> Header {
        // A report of another spec may go before one that would refer to it.
        let last = reports.last.as_ref().map(|last| &last.spec.record).filter(|record| self.spec.is_of(record));
        Header {
            kind,
            number: reports.next(kind),
            made_at,
            previous: reports.previous().filter(|_| kind == ReportType::Run),
            approved,
            tripped: self.is_tripped(reports),
            kept: last.and_then(|record| record.kept.clone()),
        }
    }

    /// Whether nothing is done about the plan: in a dry run, or because the caps or the namespace forbid it.
    pub(super) fn wants_plan(&self, reports: &Reports, plan: &Plan) -> bool {
        let goes = plan.would_delete().next().is_some();
        match self.spec.mode {
            RetentionMode::DryRun => goes || plan.items.iter().any(Planned::is_kept),
            RetentionMode::Mark => goes && !self.spec.agreed,
            RetentionMode::Enforce => goes && (plan.breaker.is_some() || self.is_tripped(reports) || !self.spec.agreed),
            RetentionMode::Disabled => false,
        }
    }

    /// Keeps a report of a plan about which nothing is done.
    async fn keep_plan(&self, reports: &mut Reports, plan: &Plan) -> Result<()> {
        if let Some(stale) = reports.take_stale() {
            self.discard(reports, &stale).await?;
        }
        // One that somebody approved waits for its turn; what is new since then waits for the next plan.
        if reports.plan.as_ref().is_some_and(|plan| self.approved(plan).is_some()) {
            return Ok(());
        }
        if !self.wants_plan(reports, plan) {
            return self.discard_plan(reports).await;
        }
        let (tripped, was_tripped) = (plan.breaker.is_some(), self.is_tripped(reports));
        let record =
            evidence::record(self.spec, self.header(reports, ReportType::Plan, None, this_second()), plan, &[]);
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
        if self.spec.mode == RetentionMode::Enforce && tripped && !was_tripped {
            let note = format!(
                "more would be deleted than the caps allow; nothing is until {note} is approved",
                note = written.name_any()
            );
            self.context.events.publish(self.policy, Reason::warning("BreakerTripped"), &note).await;
        }
        Ok(())
    }

    pub(super) async fn discard_plan(&self, reports: &mut Reports) -> Result<()> {
        match reports.take_plan() {
            Some(plan) => self.discard(reports, &plan).await,
            None => Ok(()),
        }
    }

    /// Removes a plan that has no use any more; one that was approved is evidence, and one that is held has to stay, so
    /// these are closed instead.
    async fn discard(&self, reports: &Reports, plan: &RetentionReport) -> Result<()> {
        if plan.spec.approval.is_none() {
            match reports.remove(plan).await {
                Err(error) if error.code() == Some(403) => {
                    tracing::debug!(report = plan.name_any(), %error, "a plan that can't be removed is closed");
                }
                other => return other,
            }
        }
        finish(&self.context.client, plan, evidence::results(plan, vec![], this_second())).await.map(drop)
    }
}

pub(super) fn run_status(run: &RetentionReport) -> RunStatus {
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

/// What an approved set waits for, in words.
fn awaits(Planned { item, decision, .. }: &Planned) -> String {
    match decision {
        Decision::Wait(at) => format!("{} {} may not go before {at}", item.kind, item.name),
        _ => format!("{} {} is not marked", item.kind, item.name),
    }
}

/// Now, as it is written.
pub(super) fn this_second() -> Timestamp {
    whole_second(clock::now())
}
