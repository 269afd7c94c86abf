//! `rampart retention approve`: a set, by name and UID.

use std::{
    io::{BufRead as _, IsTerminal as _, Write as _},
    process::ExitCode,
};

use anyhow::{Result, anyhow};
use clap::Args;
use kube::{
    Api, ResourceExt as _,
    api::{Patch, PatchParams},
};
use serde_json::json;

use super::{
    super::{BAD_INPUT, connection::block_on},
    Place,
};
use crate::{
    api::{Approval, RetentionMode, RetentionPolicy, RetentionReport},
    cluster::error::call,
    retention::evidence::to_approve,
};

/// Approves that a set of objects is deleted, although it is more than the caps allow: those that the operator's plan
/// names, by UID, and no others. The next run deletes what of them still matches; what came since waits.
///
/// Writes `spec.approval` of the plan's RetentionReport, which takes the verbs `patch` and `approve` on
/// retentionreports.rampart.dev. Exits 2 when there is nothing to approve.
#[derive(Debug, Args)]
pub(in crate::cli) struct Approve {
    #[command(flatten)]
    place: Place,
    /// Do not ask.
    #[arg(long, short)]
    yes: bool,
}

impl Approve {
    pub(super) fn run(self) -> Result<ExitCode> {
        block_on(async {
            let (client, namespace) = self.place.client().await?;
            let Some(policy) = self.place.policy(&client, &namespace).await? else {
                self.place.says_there_is_none(&namespace);
                return Ok(ExitCode::from(BAD_INPUT));
            };
            let report = self.place.plan_report(&client, &policy).await?;
            let (report, approval) = match to_be_approved(&policy, report) {
                Ok(found) => found,
                Err(why) => {
                    eprintln!("rampart: {why}");
                    return Ok(ExitCode::from(BAD_INPUT));
                }
            };
            // Also when who was to read it has gone: that ends other commands well.
            show(&report, &approval).map_err(|error| anyhow!("nothing was approved: {error}"))?;
            if !self.yes && !agreed(&self.place.name, approval.items.len())? {
                return Ok(ExitCode::from(BAD_INPUT));
            }
            // Exactly the report that was shown.
            let name = report.name_any();
            let patch = json!({
                "metadata": {"uid": report.uid(), "resourceVersion": report.resource_version()},
                "spec": {"approval": approval},
            });
            let api: Api<RetentionReport> = Api::namespaced(client, &namespace);
            let params = PatchParams { field_manager: Some("rampart-cli".into()), ..PatchParams::default() };
            call(|| format!("approving RetentionReport {name}"), api.patch(&name, &params, &Patch::Merge(&patch)))
                .await?;
            eprintln!("{} objects are approved for deletion ({name}, {})", approval.items.len(), approval.digest);
            Ok(ExitCode::SUCCESS)
        })
    }
}

/// The plan that waits for an approval, with the set; or why there is none.
fn to_be_approved(
    policy: &RetentionPolicy,
    report: Option<RetentionReport>,
) -> Result<(RetentionReport, Approval), String> {
    let place = format!("{}/{}", policy.namespace().unwrap_or_default(), policy.name_any());
    if policy.spec.mode != RetentionMode::Enforce {
        return Err(format!("RetentionPolicy {place} deletes nothing: its mode is {:?}", policy.spec.mode));
    }
    let Some(report) = report else {
        return Err(format!("RetentionPolicy {place} waits for no approval: what it would delete is within its caps"));
    };
    let (name, record) = (report.name_any(), &report.spec.record);
    let finished = report.status.as_ref().is_some_and(|status| status.finished_at.is_some());
    if finished || Some(record.policy.generation) != policy.metadata.generation || record.mode != policy.spec.mode {
        return Err(format!("RetentionReport {name} is of the past: wait for the operator's next plan of {place}"));
    }
    if report.spec.approval.is_some() {
        return Err(format!("RetentionReport {name} is approved already"));
    }
    match to_approve(record) {
        Some(approval) if record.breaker.is_some() => Ok((report, approval)),
        _ => Err(format!("RetentionPolicy {place} waits for no approval: what it would delete is within its caps")),
    }
}

fn show(report: &RetentionReport, approval: &Approval) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let record = &report.spec.record;
    for item in &approval.items {
        writeln!(out, "{} {}/{}  {}", item.kind, item.namespace, item.name, item.uid)?;
    }
    if record.counts.not_named > 0 {
        eprintln!(
            "{} more are not named in {}, and are not part of the set",
            record.counts.not_named,
            report.name_any()
        );
    }
    if let Some(breaker) = &record.breaker {
        eprintln!(
            "{} objects are to be deleted for good; the caps allow {} at once",
            approval.items.len(),
            breaker.allowed
        );
    }
    Ok(())
}

/// Asks on a terminal; elsewhere nobody can answer.
fn agreed(policy: &str, count: usize) -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        eprintln!("rampart: nothing was approved: the deletion of {count} objects can't be taken back, so say --yes");
        return Ok(false);
    }
    eprint!("Write the name of the RetentionPolicy to go on: ");
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    let is_so = answer.trim() == policy;
    if !is_so {
        eprintln!("rampart: nothing was approved");
    }
    Ok(is_so)
}
