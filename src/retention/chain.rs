//! Whether the reports of a policy are all there, and as they were written.

use jiff::Timestamp;

use super::{
    evidence::{digest, digest_of_results},
    implied::implied,
    rollup::unrolled,
};
use crate::api::{ReportType, RetentionReport, RunStatus};

/// Runs that hang together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    /// Number of the first that is there, and of the last.
    pub runs: Option<(i64, i64)>,
    /// Plans that are there.
    pub plans: usize,
    /// Items that they say were deleted.
    pub deleted: i64,
    /// Digest of the last.
    pub digest: Option<String>,
    /// Whether the last was not finished.
    pub unfinished: bool,
}

/// The first link that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Name of the report.
    pub report: String,
    /// What is wrong with it.
    pub problem: String,
}

/// Checks the reports of one policy, whose status says which run was the last.
///
/// # Errors
/// The first report that was changed, or that is missing before its time.
pub fn verify(reports: &[RetentionReport], last: Option<&RunStatus>, now: Timestamp) -> Result<Verified, Broken> {
    let mut verified = Verified::default();
    let reports = &unrolled(reports);
    for report in reports {
        as_written(report)?;
    }
    let mut runs: Vec<&RetentionReport> =
        reports.iter().filter(|report| report.spec.record.kind == ReportType::Run).collect();
    runs.sort_by_key(|report| report.spec.record.number);
    verified.plans = reports.len() - runs.len();
    let mut before: Option<&RetentionReport> = None;
    for run in &runs {
        follows(run, before, now)?;
        carries_out(run, reports, now)?;
        before = Some(run);
        verified.deleted += run.status.as_ref().map_or(0, |status| status.deleted);
    }
    let numbers = |run: &&RetentionReport| run.spec.record.number;
    verified.runs = runs.first().map(numbers).zip(runs.last().map(numbers));
    verified.unfinished = runs.last().is_some_and(|run| finished(run).is_none());
    verified.digest = runs.last().and_then(|run| finished(run)).map(Into::into);
    if let Some(last) = last {
        ends_with(last, runs.last().copied(), now)?;
    }
    Ok(verified)
}

fn name(report: &RetentionReport) -> String {
    report.metadata.name.clone().unwrap_or_default()
}

fn broken(report: &RetentionReport, problem: impl Into<String>) -> Broken {
    Broken { report: name(report), problem: problem.into() }
}

/// Digest of what came of it, once it is finished.
fn finished(report: &RetentionReport) -> Option<&str> {
    report.status.as_ref()?.digest.as_deref()
}

fn as_written(report: &RetentionReport) -> Result<(), Broken> {
    if digest(&report.spec.record) != report.spec.digest {
        return Err(broken(report, "what it says is not what was written: spec.digest is another one"));
    }
    let Some(status) = &report.status else { return Ok(()) };
    if status.digest.as_ref().is_none_or(|found| *found != digest_of_results(&report.spec.digest, status)) {
        return Err(broken(report, "its results are not what was written: status.digest is another one"));
    }
    Ok(())
}

fn follows(run: &RetentionReport, before: Option<&RetentionReport>, now: Timestamp) -> Result<(), Broken> {
    let record = &run.spec.record;
    let Some(previous) = &record.previous else {
        return match before {
            None if record.number == 1 => Ok(()),
            _ => Err(broken(run, format!("it is run {}, and names none before it", record.number))),
        };
    };
    match before {
        Some(before) if name(before) == previous.report => match finished(before) {
            Some(digest) if digest == previous.digest => Ok(()),
            // The operator is about to write them, or was when it ended.
            None if finished(run).is_none() && implied(before, record).is_some() => Ok(()),
            _ => Err(broken(before, format!("{} was written after another state of it", name(run)))),
        },
        // What is older than its time is gone by right, although something before it may have been held.
        _ if previous.expires_at.0 <= now => Ok(()),
        _ => Err(Broken {
            report: previous.report.clone(),
            problem: format!("it is missing: {} follows it, and it is kept until {}", name(run), previous.expires_at.0),
        }),
    }
}

/// An approved plan is there until its own time is over.
fn carries_out(run: &RetentionReport, all: &[RetentionReport], now: Timestamp) -> Result<(), Broken> {
    let Some(approved) = &run.spec.record.approved else { return Ok(()) };
    let plan = all.iter().find(|report| name(report) == approved.report);
    match plan {
        None if approved.expires_at.as_ref().unwrap_or(&run.spec.record.expires_at).0 <= now => Ok(()),
        None => Err(Broken {
            report: approved.report.clone(),
            problem: format!("it is missing: {} carried its approval out", name(run)),
        }),
        Some(plan) => {
            let set = plan.spec.approval.as_ref().map(|approval| digest(&approval.items));
            if set.as_ref() == Some(&approved.digest) {
                return Ok(());
            }
            Err(broken(plan, format!("its approval is not the one that {} carried out", name(run))))
        }
    }
}

fn ends_with(last: &RunStatus, found: Option<&RetentionReport>, now: Timestamp) -> Result<(), Broken> {
    let is_there = found.is_some_and(|run| run.spec.record.number >= last.number);
    if !is_there && last.expires_at.0 <= now {
        return Ok(());
    }
    if !is_there {
        let problem = "it is missing: the policy's status names it as the last run".into();
        return Err(Broken { report: last.report.clone(), problem });
    }
    match found {
        Some(run) if run.spec.record.number == last.number && finished(run) != Some(&last.digest) => {
            Err(broken(run, "the policy's status has another digest of it"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use jiff::SignedDuration;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::{
        api::{Approval, ApprovedPlan, ItemResult, Outcome, PreviousRun},
        retention::{
            Permit, Target,
            evidence::{Header, record, results, spec_of, to_approve},
            plan,
            plan::tests::{NOW, at, marked, spec},
        },
    };

    fn report(number: i64, kind: ReportType, previous: Option<&RetentionReport>) -> RetentionReport {
        let spec = spec(100, 100);
        let made_at = at(NOW + number * 3600);
        let plan = plan(&spec, &[Target { items: vec![marked(&number.to_string(), "policy", 9)] }], at(NOW));
        let previous = previous.map(|before| PreviousRun {
            report: name(before),
            number: number - 1,
            digest: finished(before).unwrap().into(),
            expires_at: before.spec.record.expires_at.clone(),
        });
        let header = Header { kind, number, made_at, previous, approved: None, tripped: false, kept: None };
        let acts = if kind == ReportType::Run { plan.acts(&spec, &Permit::Caps) } else { vec![] };
        let mut report =
            RetentionReport::new(&format!("{kind:?}-{number}"), spec_of(record(&spec, header, &plan, &acts)));
        if kind == ReportType::Run {
            let deleted = ItemResult { uid: format!("uid-{number}"), result: Outcome::Deleted, message: String::new() };
            report.status = Some(results(&report, vec![deleted], made_at));
        }
        report
    }

    pub(in crate::retention) fn runs(count: i64) -> Vec<RetentionReport> {
        let mut runs: Vec<RetentionReport> = vec![];
        for number in 1..=count {
            runs.push(report(number, ReportType::Run, runs.last()));
        }
        runs
    }

    fn last(run: &RetentionReport) -> RunStatus {
        RunStatus {
            report: name(run),
            number: run.spec.record.number,
            digest: finished(run).unwrap_or_default().into(),
            expires_at: run.spec.record.expires_at.clone(),
            marked: 0,
            unmarked: 0,
            deleted: 1,
            failed: 0,
        }
    }

    fn checked(reports: &[RetentionReport], last: Option<&RunStatus>) -> Result<Verified, String> {
        verify(reports, last, at(NOW + 10 * 3600)).map_err(|broken| broken.report)
    }

    #[test]
    fn a_whole_chain_in_any_order() {
        let mut reports = runs(4);
        reports.push(report(1, ReportType::Plan, None));
        reports.reverse();
        let verified = checked(&reports, Some(&last(&reports[1]))).unwrap();
        assert_eq!((verified.runs, verified.plans, verified.deleted, verified.unfinished), (Some((1, 4)), 1, 4, false));
    }

    #[test]
    fn what_was_changed_is_named() {
        let tampered = |change: fn(&mut RetentionReport)| {
            let mut reports = runs(4);
            change(&mut reports[1]);
            checked(&reports, None).unwrap_err()
        };
        assert_eq!(tampered(|it| it.spec.record.acts[0].kind = "another".into()), "Run-2");
        assert_eq!(tampered(|it| it.status.as_mut().unwrap().deleted = 0), "Run-2");
        assert_eq!(tampered(|it| it.status.as_mut().unwrap().digest = None), "Run-2");
        assert_eq!(tampered(|it| it.status = None), "Run-2", "the next one holds the digest of what it was");
        // Who computes its own digests anew is found by the next run's.
        let forge = |it: &mut RetentionReport| {
            it.spec.record.acts[0].kind = "another".into();
            it.spec = spec_of(it.spec.record.clone());
            it.status = Some(results(it, vec![], it.spec.record.made_at.0));
        };
        assert_eq!(tampered(forge), "Run-2");
    }

    #[test]
    fn results_may_be_missing_only_while_a_run_that_proves_them_is_under_way() {
        let mut reports = runs(2);
        let finished_at = reports[0].status.take().unwrap().finished_at.unwrap();
        reports[1].spec.record.made_at = finished_at;
        reports[1].spec = spec_of(reports[1].spec.record.clone());
        let mut under_way = reports.clone();
        under_way[1].status = None;
        assert!(checked(&under_way, None).unwrap().unfinished);
        let bare = RetentionReport { status: None, ..reports[1].clone() };
        reports[1].status = Some(results(&bare, vec![], at(NOW)));
        assert_eq!(checked(&reports, None), Err("Run-1".into()), "somebody took them away");
    }

    #[test]
    fn what_is_missing_before_its_time_is_named() {
        let without = |number: usize| {
            let mut reports = runs(4);
            let known = last(&reports[3]);
            reports.remove(number - 1);
            checked(&reports, Some(&known)).unwrap_err()
        };
        assert_eq!([1, 2, 3, 4].map(without), ["Run-1", "Run-2", "Run-3", "Run-4"]);
    }

    #[test]
    fn what_is_over_is_gone_by_right() {
        let reports = runs(3);
        let over = reports[0].spec.record.expires_at.0;
        assert!(verify(&reports[1..], None, over).is_ok());
        assert!(verify(&reports[1..], None, at(over.as_second() - 1)).is_err());
        assert!(verify(&[], Some(&last(&reports[2])), reports[2].spec.record.expires_at.0).is_ok());
        // The first is held, and stays; the second is gone.
        let (held, over) = ([reports[0].clone(), reports[2].clone()], reports[1].spec.record.expires_at.0);
        assert!(verify(&held, None, over).is_ok());
        assert!(verify(&held, None, at(over.as_second() - 1)).is_err());
    }

    #[test]
    fn an_approval_stays_as_it_was_carried_out() {
        let mut plan = report(1, ReportType::Plan, None);
        let approval = to_approve(&plan.spec.record).unwrap();
        plan.spec.approval = Some(approval.clone());
        let mut run = report(1, ReportType::Run, None);
        let expires_at = Some(plan.spec.record.expires_at.clone());
        run.spec.record.approved = Some(ApprovedPlan { report: name(&plan), digest: approval.digest, expires_at });
        run.spec = spec_of(run.spec.record);
        run.status = Some(results(&RetentionReport { status: None, ..run.clone() }, vec![], at(NOW)));
        assert!(checked(&[plan.clone(), run.clone()], None).is_ok());
        assert_eq!(checked(std::slice::from_ref(&run), None), Err("Plan-1".into()));
        // It was made before its run, and goes before it.
        run.spec.record.expires_at = Time(plan.spec.record.expires_at.0 + SignedDuration::from_hours(48));
        run.spec = spec_of(run.spec.record);
        run.status = Some(results(&RetentionReport { status: None, ..run.clone() }, vec![], at(NOW)));
        let verified = |now| verify(std::slice::from_ref(&run), None, now).is_ok();
        let over = plan.spec.record.expires_at.0;
        assert!(verified(over) && !verified(over - SignedDuration::from_secs(1)));
        plan.spec.approval = Some(Approval { items: vec![], ..plan.spec.approval.unwrap() });
        assert_eq!(checked(&[plan, run], None), Err("Plan-1".into()));
    }
}
