//! Results of a run that the next one proves.
//!
//! Where everything went as a run had named it, its results are known before they are written, and the next run, which
//! names their digest, need not wait for that.

use super::evidence::{is_finished, results};
use crate::api::{RetentionRecord, RetentionReport, RetentionReportStatus};

/// What came of `run`, whose results are not there: `next` names them by a digest that only this has.
///
/// `None` where results are there, or something went otherwise than it was named.
#[must_use]
pub fn implied(run: &RetentionReport, next: &RetentionRecord) -> Option<RetentionReportStatus> {
    let previous = next.previous.as_ref()?;
    if run.status.is_some() || run.metadata.name.as_ref() != Some(&previous.report) {
        return None;
    }
    // Of a finished run, what is not among its results went as it was decided.
    let as_named =
        RetentionReportStatus { finished_at: Some(next.made_at.clone()), ..RetentionReportStatus::default() };
    let status = results(&RetentionReport { status: Some(as_named), ..run.clone() }, vec![], next.made_at.0);
    (status.digest.as_ref() == Some(&previous.digest)).then_some(status)
}

/// Whether everything went as the run had named it, so that the next may begin before its results are written.
#[must_use]
pub fn is_as_named(run: &RetentionReport) -> bool {
    is_finished(run) && run.status.as_ref().is_some_and(|status| status.results.is_empty())
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::retention::chain::tests::runs;

    /// Run 1 without its results, the record of run 2, which was made when they were, and these results.
    fn two() -> (RetentionReport, RetentionRecord, RetentionReportStatus) {
        let mut both = runs(2);
        let (mut record, mut run) = (both.remove(1).spec.record, both.remove(0));
        let written = run.status.take().unwrap();
        record.made_at = written.finished_at.clone().unwrap();
        (run, record, written)
    }

    #[test]
    fn what_went_as_named_is_proven_by_the_next() {
        let (run, next, written) = two();
        assert_eq!(implied(&run, &next), Some(written));
    }

    #[test]
    fn and_nothing_else_is() {
        let (run, next, written) = two();
        let but = |change: fn(&mut RetentionRecord)| {
            let mut next = next.clone();
            change(&mut next);
            implied(&run, &next)
        };
        assert_eq!(but(|next| next.made_at.0 = Timestamp::MAX), None, "another time");
        assert_eq!(but(|next| next.previous.as_mut().unwrap().digest = "sha256:0".into()), None, "another outcome");
        assert_eq!(but(|next| next.previous.as_mut().unwrap().report = "another".into()), None);
        assert_eq!(but(|next| next.previous = None), None);
        let finished = RetentionReport { status: Some(written), ..run.clone() };
        assert_eq!(implied(&finished, &next), None, "they are there");
    }
}
