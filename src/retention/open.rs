//! A plan that exceeded the caps, while nobody has carried it out: nothing goes but what it was approved for.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::{Spec, evidence};
use crate::api::{RetentionMode, RetentionReport};

/// Such a plan, of the spec as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// Name of its report.
    pub report: String,
    /// When it was made.
    pub made_at: Timestamp,
    /// UIDs of what it was approved for; `None` until somebody has.
    pub approved: Option<BTreeSet<String>>,
}

impl Open {
    /// `None` for a report that was carried out, or of an older spec, or within the caps.
    #[must_use]
    pub fn of(spec: &Spec, report: &RetentionReport) -> Option<Self> {
        let is_finished = report.status.as_ref().is_some_and(|status| status.finished_at.is_some());
        (!is_finished && exceeds(spec, report)).then(|| Self {
            report: report.metadata.name.clone().unwrap_or_default(),
            made_at: report.spec.record.made_at.0,
            approved: approved(spec, report),
        })
    }

    /// Why something that would be deleted waits, although a set was approved.
    #[must_use]
    pub fn leaves_out(&self, uid: &str) -> Option<String> {
        let is_left_out = self.approved.as_ref().is_some_and(|approved| !approved.contains(uid));
        is_left_out
            .then(|| format!("RetentionReport {} was approved without it; it waits for the next plan", self.report))
    }
}

/// Whether a plan of this very spec exceeded the caps.
#[must_use]
pub fn exceeds(spec: &Spec, plan: &RetentionReport) -> bool {
    spec.is_of(&plan.spec.record) && plan.spec.record.breaker.is_some()
}

/// What of a plan of this very spec may be deleted, because somebody approved it: UIDs.
#[must_use]
pub fn approved(spec: &Spec, plan: &RetentionReport) -> Option<BTreeSet<String>> {
    evidence::approved(plan).filter(|_| spec.is_of(&plan.spec.record) && spec.mode == RetentionMode::Enforce)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::{
        api::{ReportType, RetentionReportStatus},
        retention::{
            Caps, Target,
            evidence::{record, spec_of, tests::header, to_approve},
            plan,
            plan::tests::{NOW, at, marked, spec},
        },
    };

    fn report(spec: &Spec, names: &[&str]) -> RetentionReport {
        let items = names.iter().map(|name| marked(name, "policy", 9)).collect();
        let plan = plan(spec, &[Target { items }], at(NOW));
        RetentionReport::new("exports-plan-1", spec_of(record(spec, header(ReportType::Plan), &plan, &[])))
    }

    #[test]
    fn it_waits_and_then_is_approved_for_what_it_names() {
        let spec = Spec { caps: Caps { count: 1, percent: 100 }, ..spec(1, 100) };
        let mut report = report(&spec, &["a", "b"]);
        let open = Open::of(&spec, &report).unwrap();
        assert_eq!((open.report.as_str(), open.made_at), ("exports-plan-1", at(NOW)));
        assert!(open.approved.is_none() && open.leaves_out("uid-a").is_none());

        report.spec.approval = to_approve(&report.spec.record);
        let open = Open::of(&spec, &report).unwrap();
        assert_eq!(open.leaves_out("uid-a"), None);
        let late = open.leaves_out("uid-late").unwrap();
        assert_eq!(late, "RetentionReport exports-plan-1 was approved without it; it waits for the next plan");
    }

    #[test]
    fn none_is_open_within_the_caps_nor_of_another_spec_nor_when_it_was_carried_out() {
        let spec = Spec { caps: Caps { count: 1, percent: 100 }, ..spec(1, 100) };
        assert_eq!(Open::of(&spec, &report(&spec, &["a"])), None);
        let mut report = report(&spec, &["a", "b"]);
        assert_eq!(Open::of(&Spec { generation: spec.generation + 1, ..spec.clone() }, &report), None);
        let finished_at = Some(Time(at(NOW)));
        report.status = Some(RetentionReportStatus { finished_at, ..RetentionReportStatus::default() });
        assert_eq!(Open::of(&spec, &report), None);
    }
}
