//! `rampart retention plan`: object by object.

use std::{fmt::Write as _, io::Write as _, process::ExitCode};

use anyhow::{Result, anyhow};
use clap::Args;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Serialize;

use super::{
    super::{
        BAD_INPUT, FOUND,
        connection::block_on,
        output::{Output, answered},
        terminal::{Paint, Progress, Tone},
    },
    Place,
};
use crate::{
    api::{RetentionMode, RetentionPolicy},
    cluster::{self, Error, holds::in_namespace, retained},
    retention::{Holds, Open, Plan, Planned, Spec, plan_while_open},
    runtime::clock,
};

/// Says what a RetentionPolicy would delete and what it keeps, each with the reason, as of now: its objects are listed
/// with your own rights. Nothing is changed. Where you may not read legal holds, it says so, and tells the rest.
///
/// Exits 1 when something would be deleted, now or when its grace period is over.
#[derive(Debug, Args)]
pub(in crate::cli) struct PlanCommand {
    #[command(flatten)]
    place: Place,
    /// How to tell it.
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    schema_version: u32,
    namespace: String,
    policy: String,
    mode: RetentionMode,
    /// Nothing comes of the plan until that is taken back.
    suspended: bool,
    listed: usize,
    would_delete: usize,
    kept: usize,
    /// Most that may be deleted in one run, where that is less.
    #[serde(skip_serializing_if = "Option::is_none")]
    allowed: Option<usize>,
    /// How many of these go, because an open plan was approved for them; the others wait for the next plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    approved: Option<usize>,
    /// RetentionReport that can be approved, or holds the plan that the operator made last.
    #[serde(skip_serializing_if = "Option::is_none")]
    report: Option<String>,
    items: Vec<Row>,
}

/// One that is too old, or whose age can't be told.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    kind: String,
    name: String,
    uid: String,
    would_delete: bool,
    decision: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    too_old_since: Option<Time>,
}

impl PlanCommand {
    pub(super) fn run(self) -> Result<ExitCode> {
        block_on(async {
            let (client, namespace) = self.place.client().await?;
            let Some(policy) = self.place.policy(&client, &namespace).await? else {
                self.place.says_there_is_none(&namespace);
                return Ok(ExitCode::from(BAD_INPUT));
            };
            let spec = match Spec::try_from(&policy) {
                Ok(spec) => spec,
                Err(invalid) => {
                    eprintln!("rampart: RetentionPolicy {namespace}/{}: {invalid}", self.place.name);
                    return Ok(ExitCode::from(BAD_INPUT));
                }
            };
            let targets = retained::targets(&client, &spec).await?.map_err(|target| {
                anyhow!("the API server has no namespaced kind {} in {:?}", target.kind, target.group)
            })?;
            let now = clock::now();
            let holds = as_far_as_known(in_namespace(&client, &spec.namespace, now).await)?;
            let progress = Progress::open(format!("listing what RetentionPolicy {namespace}/{} is about", spec.name));
            let listed = retained::listed(&targets, &holds).await?;
            let report = self.place.plan_report(&client, &policy).await;
            drop(progress);
            let report = report.unwrap_or_else(|error| {
                eprintln!("rampart: whether a plan waits for approval, or has it, is not known: {error}");
                None
            });
            let open = report.as_ref().and_then(|report| Open::of(&spec, report));
            let plan = plan_while_open(&spec, listed, open.as_ref().map(|open| open.made_at), now);
            let answer = Answer::of(&policy, &spec, &plan, open.as_ref());
            let text = match self.output {
                Output::Text => answer.text(Paint::stdout()),
                Output::Json => serde_json::to_string_pretty(&answer)? + "\n",
            };
            let written = std::io::stdout().lock().write_all(text.as_bytes());
            let code = if answer.would_delete > 0 { ExitCode::from(FOUND) } else { ExitCode::SUCCESS };
            answered(written.map_err(Into::into), code)
        })
    }
}

/// The holds, or none where they may not be read: `view` and `edit` leave them out, and the plan is for their people.
fn as_far_as_known(read: cluster::Result<Holds>) -> cluster::Result<Holds> {
    match read {
        Err(Error::Holds(error)) if error.code() == Some(403) => {
            eprintln!("rampart: what legal holds keep is not known, and told as if there were none: {error}");
            Ok(Holds::default())
        }
        read => read,
    }
}

impl Answer {
    fn of(policy: &RetentionPolicy, spec: &Spec, plan: &Plan, open: Option<&Open>) -> Self {
        let told = |planned: &&Planned| planned.decision.deletes() || planned.skipped().is_some();
        let items: Vec<Row> = plan.items.iter().filter(told).map(|planned| Row::of(planned, open)).collect();
        let approved = open.and_then(|open| open.approved.as_ref());
        let approved = approved.map(|set| plan.would_delete().filter(|it| set.contains(&it.item.uid)).count());
        let would_delete = items.iter().filter(|row| row.would_delete).count();
        let report = policy.status.as_ref().and_then(|status| status.plan.as_ref()?.report.clone());
        Self {
            schema_version: 1,
            namespace: spec.namespace.clone(),
            policy: spec.name.clone(),
            mode: spec.mode,
            suspended: policy.spec.suspend == Some(true),
            listed: plan.listed(),
            would_delete,
            kept: items.len() - would_delete,
            // Once exceeded, they stay so until the set is approved, or is gone.
            allowed: plan.breaker.map(|breaker| breaker.allowed).or_else(|| open.map(|_| spec.caps.count)),
            approved,
            report,
            items,
        }
    }

    fn text(&self, paint: Paint) -> String {
        let Self { namespace, policy, mode, listed, would_delete, kept, .. } = self;
        let suspended = if self.suspended { ", suspended" } else { "" };
        let mut text = paint.head(format!(
            "RetentionPolicy {namespace}/{policy} ({mode:?}{suspended}): of {listed} objects {would_delete} would be deleted, {kept} are too old and kept"
        )) + "\n";
        let width = |of: fn(&Row) -> &str| self.items.iter().map(|row| of(row).len()).max().unwrap_or_default();
        let (kinds, names) = (width(|row| &row.kind), width(|row| &row.name));
        for row in &self.items {
            let since = row.too_old_since.as_ref().map_or_else(|| "-".into(), |time| time.0.to_string());
            let decision = paint.tone(if row.would_delete { Tone::Bad } else { Tone::Good }, &row.decision);
            let _ = writeln!(text, "  {:kinds$}  {:names$}  {since:20}  {decision}", row.kind, row.name);
        }
        if let (Some(approved), Some(report)) = (self.approved, &self.report) {
            let goes =
                format!("{report} is approved: {approved} of these go once the grace period of all of them is over");
            let waits = would_delete - approved;
            let waits = if waits > 0 { format!("; {waits} wait for the next plan") } else { String::new() };
            text = text + &paint.tone(Tone::Warn, goes + &waits) + "\n";
        } else if let Some(allowed) = self.allowed {
            let stopped = format!("The caps allow {allowed}: nothing is deleted until the set is approved");
            text.push_str(&paint.tone(Tone::Warn, stopped));
            let _ = match &self.report {
                Some(report) => writeln!(text, " (rampart retention approve {policy} -n {namespace}: {report})"),
                None => writeln!(text, "; the operator has made no plan of it yet"),
            };
        }
        text
    }
}

impl Row {
    fn of(planned: &Planned, open: Option<&Open>) -> Self {
        let deletes = planned.decision.deletes();
        let waits = open.filter(|_| deletes).and_then(|open| open.leaves_out(&planned.item.uid));
        Self {
            kind: planned.item.kind.clone(),
            name: planned.item.name.clone(),
            uid: planned.item.uid.clone(),
            would_delete: deletes,
            decision: waits.map_or_else(|| planned.reason(), |waits| format!("{}; {waits}", planned.reason())),
            too_old_since: planned.too_old.map(Time),
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use kube::core::Status;
    use serde_json::json;

    use super::*;

    #[test]
    fn who_may_not_read_holds_gets_a_plan_without_them() {
        let refused = |code| {
            let status = Box::new(Status::failure("no", "No").with_code(code));
            let error = Error::Api { doing: "listing LegalHolds".into(), source: Box::new(kube::Error::Api(status)) };
            as_far_as_known(Err(Error::Holds(Box::new(error)))).ok()
        };
        assert_eq!([403, 401, 500].map(refused), [Some(Holds::default()), None, None]);
    }

    #[test]
    fn a_plan_says_that_its_policy_is_suspended() {
        let told = |suspend: bool| {
            let policy: RetentionPolicy = serde_json::from_value(json!({
                "metadata": {"name": "exports", "namespace": "shop", "uid": "r"},
                "spec": {"suspend": suspend, "mode": "Enforce", "serviceAccountName": "retention", "maxAge": "720h",
                         "targets": [{"resources": {"apiVersion": "batch/v1", "kind": "Job", "selector": {}}}]},
            }))
            .unwrap();
            let spec = Spec::try_from(&policy).unwrap();
            let plan = plan_while_open(&spec, vec![], None, Timestamp::UNIX_EPOCH);
            let answer = Answer::of(&policy, &spec, &plan, None);
            (answer.suspended, answer.text(Paint::default()).split(": ").next().map(str::to_owned))
        };
        assert_eq!(told(true), (true, Some("RetentionPolicy shop/exports (Enforce, suspended)".into())));
        assert_eq!(told(false), (false, Some("RetentionPolicy shop/exports (Enforce)".into())));
    }
}
