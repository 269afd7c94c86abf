//! Roll-up: reports of small runs become one report, and stay the evidence that they were.

use std::collections::BTreeMap;

use super::{evidence::spec_of, named::named};
use crate::api::{MOST_ITEMS, ReportType, RetentionReport, RolledRun};

/// Runs of one report at the most.
const MOST_RUNS: usize = 1000;
/// Bytes of the runs that are rolled up into one report, as JSON: a fifth of what etcd takes.
const MOST_BYTES: usize = 300_000;

/// The earlier runs of `into` when `from` is rolled up into it; `None` where the two don't belong together, or would be
/// too large.
#[must_use]
pub fn rolled(from: &RetentionReport, into: &RetentionReport) -> Option<Vec<RolledRun>> {
    let previous = into.spec.earlier.first().map_or(&into.spec.record, |first| &first.record).previous.as_ref()?;
    let ended = |report: &RetentionReport| {
        report
            .status
            .as_ref()
            .and_then(|status| status.digest.clone())
            .filter(|_| report.spec.record.kind == ReportType::Run && report.spec.approval.is_none())
    };
    let same_policy = from.spec.record.policy.uid == into.spec.record.policy.uid;
    let follows =
        Some(&previous.report) == from.metadata.name.as_ref() && Some(&previous.digest) == ended(from).as_ref();
    if !same_policy || !follows || ended(into).is_none() {
        return None;
    }
    let mut runs = from.spec.earlier.clone();
    runs.push(RolledRun {
        report: from.metadata.name.clone()?,
        record: from.spec.record.clone(),
        status: from.status.clone()?,
    });
    runs.extend(into.spec.earlier.iter().cloned());
    let items: usize = runs.iter().map(|run| named(&run.record).count()).sum();
    let bytes = serde_json::to_vec(&runs).ok()?.len();
    let fits = runs.len() <= MOST_RUNS && items <= MOST_ITEMS && bytes <= MOST_BYTES;
    fits.then_some(runs)
}

/// All runs and plans, as if none had been rolled up. One that was, and is there on its own too, is one.
#[must_use]
pub fn unrolled(reports: &[RetentionReport]) -> Vec<RetentionReport> {
    let mut all: Vec<RetentionReport> = vec![];
    let mut names: BTreeMap<String, usize> = BTreeMap::new();
    let mut add = |report: RetentionReport| {
        let name = report.metadata.name.clone().unwrap_or_default();
        let same =
            |known: &RetentionReport| (&known.spec.record, &known.status) == (&report.spec.record, &report.status);
        match names.get(&name).and_then(|index| all.get(*index)) {
            Some(known) if same(known) => {}
            _ => {
                names.insert(name, all.len());
                all.push(report);
            }
        }
    };
    for report in reports {
        for run in &report.spec.earlier {
            let mut alone = RetentionReport::new(&run.report, spec_of(run.record.clone()));
            alone.status = Some(run.status.clone());
            add(alone);
        }
        let mut alone = report.clone();
        alone.spec.earlier.clear();
        add(alone);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retention::{
        chain::{tests::runs, verify},
        plan::tests::{NOW, at},
    };

    /// Runs 1 to `count`, of which the first `in_one` are one report.
    fn chain(count: i64, in_one: usize) -> Vec<RetentionReport> {
        let mut all = runs(count);
        let mut into = all.remove(0);
        for _ in 1..in_one {
            let mut next = all.remove(0);
            next.spec.earlier = rolled(&into, &next).unwrap();
            into = next;
        }
        all.insert(0, into);
        all
    }

    fn broken(reports: &[RetentionReport]) -> Option<String> {
        verify(reports, None, at(NOW)).err().map(|broken| broken.report)
    }

    #[test]
    fn what_is_rolled_up_is_the_same_evidence() {
        let reports = chain(6, 4);
        assert_eq!(reports.len(), 3);
        let verified = verify(&reports, None, at(NOW)).unwrap();
        assert_eq!((verified.runs, verified.deleted), (Some((1, 6)), 6));
        assert_eq!(verified, verify(&runs(6), None, at(NOW)).unwrap());
    }

    #[test]
    fn what_is_there_twice_is_one() {
        // The operator ended before it removed what it had rolled up.
        let mut reports = chain(6, 4);
        reports.extend(runs(6).into_iter().take(2));
        assert_eq!(broken(&reports), None);
        assert_eq!(unrolled(&reports).len(), 6);
        // But not if they tell two tales.
        reports[3].spec.record.acts[0].kind = "another".into();
        assert_eq!(broken(&reports), Some("Run-1".into()));
    }

    #[test]
    fn what_was_changed_or_taken_out_is_named() {
        let tampered = |change: fn(&mut Vec<RolledRun>)| {
            let mut reports = chain(6, 4);
            change(&mut reports[0].spec.earlier);
            broken(&reports)
        };
        assert_eq!(tampered(|earlier| earlier[1].record.acts[0].kind = "another".into()), Some("Run-2".into()));
        assert_eq!(tampered(|earlier| earlier[1].status.deleted = 0), Some("Run-2".into()));
        assert_eq!(tampered(|earlier| drop(earlier.remove(1))), Some("Run-2".into()));
        assert_eq!(tampered(|earlier| drop(earlier.remove(0))), Some("Run-1".into()));
        assert_eq!(tampered(Vec::clear), Some("Run-3".into()));
    }

    #[test]
    fn only_neighbours_that_have_ended_are_rolled_up() {
        let runs = runs(4);
        assert!(rolled(&runs[0], &runs[1]).is_some());
        assert!(rolled(&runs[0], &runs[2]).is_none(), "one is between them");
        assert!(rolled(&runs[1], &runs[0]).is_none());
        let unfinished = RetentionReport { status: None, ..runs[1].clone() };
        assert!(rolled(&runs[0], &unfinished).is_none());
        assert!(rolled(&unfinished, &runs[2]).is_none());
    }

    #[test]
    fn it_stays_within_what_etcd_takes() {
        let [mut from, into] = <[RetentionReport; 2]>::try_from(runs(2)).unwrap();
        let act = &mut from.spec.record.acts[0];
        act.names = (0..MOST_ITEMS).map(|nth| (nth.to_string(), "a".into())).collect();
        assert!(rolled(&from, &into).is_some());
        from.spec.record.acts[0].names.insert("one more".into(), "a".into());
        assert!(rolled(&from, &into).is_none(), "too many items");
        let act = &mut from.spec.record.acts[0];
        act.names.retain(|nth, _| nth == "0");
        act.reason = "x".repeat(MOST_BYTES);
        assert!(rolled(&from, &into).is_none(), "too many bytes");
    }
}
