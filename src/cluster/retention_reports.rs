//! Reports of retention: found, written once, and removed.

use jiff::Timestamp;
use kube::{
    Api, Client, ResourceExt as _,
    api::{ListParams, PostParams},
};

use super::{
    Result,
    apply::exactly,
    error::{call, found},
    metadata_list,
    owner::Owner,
    status,
};
use crate::{
    api::{
        PreviousRun, ReportType, RetentionPolicy, RetentionRecord, RetentionReport, RetentionReportStatus,
        labels::{OWNER_KIND, OWNER_UID, REPORT_EXPIRES_AT, ROLLED_UP},
    },
    retention::evidence::spec_of,
};

/// Field manager of reports.
const MANAGER: &str = "rampart-retention";

/// The reports of a policy that its next step depends on.
pub struct Reports {
    api: Api<RetentionReport>,
    owner: Owner,
    /// The last run.
    pub last: Option<RetentionReport>,
    /// The plan that may be approved, and that nothing has carried out yet.
    pub plan: Option<RetentionReport>,
    /// A plan that another one takes the place of: the operator ended in between.
    stale: Option<RetentionReport>,
    next_plan: i64,
    /// The last run that the policy's status knows of, where it is a later one than any that is there.
    lost: Option<PreviousRun>,
}

impl Reports {
    /// Finds them.
    ///
    /// # Errors
    /// When a call fails.
    pub async fn read(client: &Client, policy: &RetentionPolicy) -> Result<Self> {
        let owner = Owner::of(policy)?;
        let api: Api<RetentionReport> = Api::namespaced(client.clone(), &owner.namespace);
        let ours = ListParams::default().labels(&format!("{OWNER_UID}={}", owner.uid));
        let (mut runs, mut plans) = (vec![], vec![]);
        metadata_list::each(&api, ours, "RetentionReports", |report| {
            let name = report.name.unwrap_or_default();
            runs.extend(number(&owner, ReportType::Run, &name));
            plans.extend(number(&owner, ReportType::Plan, &name));
        })
        .await?;
        plans.sort_unstable();
        let next_plan = plans.last().copied().unwrap_or_default() + 1;
        let mut reports = Self { api, last: None, plan: None, stale: None, next_plan, lost: None, owner };
        if let Some(run) = runs.iter().max() {
            reports.last = reports.get(ReportType::Run, *run).await?;
        }
        // No more than two are open: one is written before the other is removed.
        let mut open = vec![];
        for plan in plans.iter().rev().take(2) {
            let plan = reports.get(ReportType::Plan, *plan).await?;
            open.extend(plan.filter(|plan| plan.status.as_ref().is_none_or(|status| status.finished_at.is_none())));
        }
        // One that somebody approved stands, although another was about to take its place.
        open.sort_by_key(|plan| (plan.spec.approval.is_some(), plan.spec.record.number));
        reports.plan = open.pop();
        reports.stale = open.pop();
        reports.lost = lost(policy, reports.last.as_ref());
        Ok(reports)
    }

    async fn get(&self, kind: ReportType, number: i64) -> Result<Option<RetentionReport>> {
        read(&self.api, &name(&self.owner, kind, number)).await
    }

    /// Number of the next report.
    #[must_use]
    pub fn next(&self, kind: ReportType) -> i64 {
        match kind {
            ReportType::Plan => self.next_plan,
            ReportType::Run => self.previous().map_or(1, |run| run.number + 1),
        }
    }

    /// The last run, as the next one names it.
    #[must_use]
    pub fn previous(&self) -> Option<PreviousRun> {
        let last = self.last.as_ref().map(|last| PreviousRun {
            report: last.name_any(),
            number: last.spec.record.number,
            digest: last.status.as_ref().and_then(|status| status.digest.clone()).unwrap_or_default(),
            expires_at: last.spec.record.expires_at.clone(),
        });
        self.lost.clone().or(last)
    }

    /// Writes a report that was not there. Two operators can't both write the same run.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn write(&mut self, record: RetentionRecord) -> Result<RetentionReport> {
        let kind = record.kind;
        let name = name(&self.owner, kind, record.number);
        let expires_at = record.expires_at.0.to_string();
        let mut report = RetentionReport::new(&name, spec_of(record));
        report.metadata.namespace = Some(self.owner.namespace.clone());
        report.metadata.labels = Some(self.owner.labels());
        report.metadata.annotations = Some([(REPORT_EXPIRES_AT.into(), expires_at)].into());
        let params = PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() };
        let written = call(|| format!("writing RetentionReport {name}"), self.api.create(&params, &report)).await?;
        match kind {
            ReportType::Run => (self.last, self.lost) = (Some(written.clone()), None),
            ReportType::Plan => {
                self.next_plan += 1;
                self.stale = self.plan.replace(written.clone());
            }
        }
        Ok(written)
    }

    /// The run that `run` follows, if it is there.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn before(&self, run: &RetentionReport) -> Result<Option<RetentionReport>> {
        match &run.spec.record.previous {
            Some(previous) => read(&self.api, &previous.report).await,
            None => Ok(None),
        }
    }

    /// Takes the plan that waits; it is no longer the one that may be approved.
    pub fn take_plan(&mut self) -> Option<RetentionReport> {
        self.plan.take()
    }

    /// Takes a plan that another one took the place of.
    pub fn take_stale(&mut self) -> Option<RetentionReport> {
        self.stale.take()
    }

    /// Removes a report exactly as it was seen: one that was approved meanwhile stays.
    ///
    /// # Errors
    /// When the call fails, or somebody changed the report meanwhile.
    pub async fn remove(&self, report: &RetentionReport) -> Result<()> {
        remove(&self.api, report).await
    }
}

/// Writes what came of a report, over the very object that was seen.
///
/// # Errors
/// When the call fails, or somebody changed the report meanwhile.
pub async fn finish(
    client: &Client,
    report: &RetentionReport,
    status: RetentionReportStatus,
) -> Result<RetentionReport> {
    let version = status::remember(client, report, &status).await?;
    let mut finished = report.clone();
    finished.metadata.resource_version = version;
    finished.status = Some(status);
    Ok(finished)
}

/// A report, by what its metadata says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// When its time is over, by an annotation that anybody may write.
    pub expires_at: Option<Timestamp>,
    /// Whether other runs were rolled up into it.
    pub rolled_up: bool,
}

/// All reports there are, whether their policy is still there or not.
///
/// # Errors
/// When a call fails.
pub async fn list(client: &Client) -> Result<Vec<Listed>> {
    let all: Api<RetentionReport> = Api::all(client.clone());
    let ours = ListParams::default().labels(&format!("{OWNER_KIND}=RetentionPolicy"));
    let mut reports = vec![];
    metadata_list::each(&all, ours, "RetentionReports", |report| {
        let (labels, annotations) = (report.labels.unwrap_or_default(), report.annotations.unwrap_or_default());
        reports.push(Listed {
            namespace: report.namespace.unwrap_or_default(),
            name: report.name.unwrap_or_default(),
            expires_at: annotations.get(REPORT_EXPIRES_AT).and_then(|text| text.parse().ok()),
            rolled_up: labels.contains_key(ROLLED_UP),
        });
    })
    .await?;
    Ok(reports)
}

/// Reads a report; `None` where it is gone.
///
/// # Errors
/// When the call fails.
pub async fn read(api: &Api<RetentionReport>, name: &str) -> Result<Option<RetentionReport>> {
    found(call(|| format!("reading RetentionReport {name}"), api.get(name)).await)
}

/// Removes a report exactly as it was seen. One that is gone already is fine.
///
/// # Errors
/// When the call fails, or somebody changed the report meanwhile.
pub async fn remove(api: &Api<RetentionReport>, report: &RetentionReport) -> Result<()> {
    let name = report.name_any();
    let doing = || format!("removing RetentionReport {name}");
    found(call(doing, api.delete(&name, &exactly(report))).await).map(drop)
}

/// The last run by the policy's status, where its report is missing: the next one names it all the same, so that it is
/// missed.
fn lost(policy: &RetentionPolicy, last: Option<&RetentionReport>) -> Option<PreviousRun> {
    let known = policy.status.as_ref()?.last_run.as_ref()?;
    let is_there = last.is_some_and(|last| last.spec.record.number >= known.number);
    (!is_there).then(|| PreviousRun {
        report: known.report.clone(),
        number: known.number,
        digest: known.digest.clone(),
        expires_at: known.expires_at.clone(),
    })
}

const fn infix(kind: ReportType) -> &'static str {
    match kind {
        ReportType::Plan => "plan",
        ReportType::Run => "run",
    }
}

/// Name of a report: a policy that is made anew under its name has reports of its own.
fn name(owner: &Owner, kind: ReportType, number: i64) -> String {
    format!("{}-{}-{}-{number}", owner.name, owner.short_uid(), infix(kind))
}

fn number(owner: &Owner, kind: ReportType, name: &str) -> Option<i64> {
    let (policy, number) = split(kind, name)?;
    (policy == format!("{}-{}", owner.name, owner.short_uid())).then_some(number)
}

/// What the name of a run's report says: its policy, by name and short UID, and the run's number.
#[must_use]
pub fn run_named(name: &str) -> Option<(&str, i64)> {
    split(ReportType::Run, name)
}

fn split(kind: ReportType, name: &str) -> Option<(&str, i64)> {
    let (policy, number) = name.rsplit_once(&format!("-{}-", infix(kind)))?;
    Some((policy, number.parse().ok().filter(|number| *number > 0)?))
}

/// Writes what was rolled up into a report, over the very object that was seen.
///
/// # Errors
/// When the call fails, or somebody changed the report meanwhile.
pub async fn write_rolled_up(api: &Api<RetentionReport>, report: &RetentionReport) -> Result<RetentionReport> {
    let (name, mut report) = (report.name_any(), report.clone());
    let runs = report.spec.earlier.len() + 1;
    report.labels_mut().insert(ROLLED_UP.into(), runs.to_string());
    let params = PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() };
    call(|| format!("rolling up RetentionReport {name}"), api.replace(&name, &params, &report)).await
}
