//! Reports of runs are rolled up: a policy that deletes a little now and then leaves few objects.

use std::collections::BTreeMap;

use kube::{Api, ResourceExt as _};

use crate::{
    api::{RetentionReport, RolledRun, labels::ROLLED_UP},
    cluster::{
        Result,
        retention_reports::{Listed, read, remove, run_named, write_rolled_up},
    },
    controllers::Context,
    retention::rollup::{rolled, unrolled},
};

/// The latest runs of a policy keep reports of their own, for people to look at; and so does the last, which may not
/// have ended.
const ALONE: usize = 20;
/// Fewer than these are not worth the writes.
const LEAST: usize = 10;

/// The report of a run, by what its metadata says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    number: i64,
    name: String,
    rolled_up: bool,
}

/// Rolls up what has become old; where that can't be done, the other policies' is.
pub(super) async fn roll_up(context: &Context, reports: &[Listed]) {
    for ((namespace, policy), runs) in runs_of(reports) {
        let api: Api<RetentionReport> = Api::namespaced(context.client.clone(), namespace);
        let written = match of_policy(&api, &old(runs)).await {
            Ok(written) => written,
            Err(error) => {
                tracing::warn!(namespace, policy, reason = error.reason(), %error, "reports could not be rolled up");
                continue;
            }
        };
        for run in written {
            tracing::info!(
                namespace,
                report = run.name_any(),
                runs = run.spec.earlier.len() + 1,
                "reports were rolled up"
            );
        }
    }
}

/// The reports of runs, by namespace and policy.
fn runs_of(reports: &[Listed]) -> BTreeMap<(&str, &str), Vec<Found>> {
    let mut policies: BTreeMap<(&str, &str), Vec<Found>> = BTreeMap::new();
    for report in reports {
        if let Some((policy, number)) = run_named(&report.name) {
            let run = Found { number, name: report.name.clone(), rolled_up: report.rolled_up };
            policies.entry((&report.namespace, policy)).or_default().push(run);
        }
    }
    policies
}

/// Those of one policy that are old, oldest first; none where it is not worth the writes.
fn old(mut runs: Vec<Found>) -> Vec<Found> {
    runs.sort();
    runs.truncate(runs.len().saturating_sub(ALONE));
    if runs.iter().filter(|run| !run.rolled_up).count() < LEAST { vec![] } else { runs }
}

/// Goes on from the last that was rolled up, and tells of the reports that it has written.
async fn of_policy(api: &Api<RetentionReport>, runs: &[Found]) -> Result<Vec<RetentionReport>> {
    let begin = runs.iter().rposition(|run| run.rolled_up).unwrap_or_default();
    let (before, rest) = runs.split_at(begin);
    let (mut written, mut last): (_, Option<Fold>) = (vec![], None);
    for run in rest {
        let Some(report) = read(api, &run.name).await? else { continue };
        let Some(fold) = last.take() else {
            left_over(api, &report, before).await?;
            last = Some(Fold { report, absorbed: vec![] });
            continue;
        };
        last = Some(if let Some(earlier) = rolled(&fold.report, &report) {
            fold.into_next(report, earlier)
        } else {
            written.extend(fold.write(api).await?);
            Fold { report, absorbed: vec![] }
        });
    }
    if let Some(fold) = last {
        written.extend(fold.write(api).await?);
    }
    Ok(written)
}

/// Removes what was rolled up into `report` and is still there: the operator ended in between.
async fn left_over(api: &Api<RetentionReport>, report: &RetentionReport, before: &[Found]) -> Result<()> {
    let rolled_up: Vec<&str> = report.spec.earlier.iter().map(|run| run.report.as_str()).collect();
    for run in before.iter().filter(|run| rolled_up.contains(&run.name.as_str())) {
        let Some(old) = read(api, &run.name).await? else { continue };
        // Of each run that it tells of, nothing is lost with it.
        let count = unrolled(std::slice::from_ref(report)).len();
        if unrolled(&[report.clone(), old.clone()]).len() == count {
            remove_unless_held(api, &old).await?;
        }
    }
    Ok(())
}

/// Removes a report whose runs another one tells of, too. One that must not go stays, and keeps nothing else.
async fn remove_unless_held(api: &Api<RetentionReport>, report: &RetentionReport) -> Result<()> {
    match remove(api, report).await {
        Err(error) if error.code() == Some(403) => {
            tracing::debug!(report = report.name_any(), %error, "a report that was rolled up stays");
            Ok(())
        }
        other => other,
    }
}

/// A report, and those that were rolled up into it and not removed yet.
struct Fold {
    report: RetentionReport,
    absorbed: Vec<RetentionReport>,
}

impl Fold {
    fn into_next(self, mut next: RetentionReport, earlier: Vec<RolledRun>) -> Self {
        let mut absorbed = self.absorbed;
        absorbed.push(self.report);
        next.spec.earlier = earlier;
        Self { report: next, absorbed }
    }

    /// Writes it, and only then removes what is in it; `None` where there is nothing to write.
    async fn write(self, api: &Api<RetentionReport>) -> Result<Option<RetentionReport>> {
        if self.absorbed.is_empty() && self.report.labels().contains_key(ROLLED_UP) {
            return Ok(None);
        }
        let written = write_rolled_up(api, &self.report).await?;
        for report in &self.absorbed {
            remove_unless_held(api, report).await?;
        }
        Ok((!self.absorbed.is_empty()).then_some(written))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(count: i64, rolled_up: i64) -> Vec<Found> {
        (1..=count)
            .rev()
            .map(|number| Found { number, name: format!("run-{number}"), rolled_up: number <= rolled_up })
            .collect()
    }

    #[test]
    fn the_latest_stay_alone_and_a_few_are_not_worth_it() {
        assert_eq!(old(runs(29, 0)).len(), 0);
        let old_ones = old(runs(30, 0));
        assert_eq!((old_ones.len(), old_ones[0].number, old_ones[9].number), (10, 1, 10));
        assert_eq!(old(runs(39, 10)).len(), 0, "nine are new");
        assert_eq!(old(runs(40, 10)).len(), 20);
    }
}
