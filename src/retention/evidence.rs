//! What a report says, and by which digests nobody can change it unseen.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{
    Act, Mark, Plan, Planned, Spec, kept,
    named::{self, Named, named},
};
use crate::api::{
    Approval, ApprovedItem, ApprovedPlan, BreakerRecord, ItemResult, KeptRecord, MOST_ITEMS, Outcome, PreviousRun,
    RecordCounts, RecordDecision, ReportPolicy, ReportType, RetentionRecord, RetentionReport, RetentionReportSpec,
    RetentionReportStatus,
};

/// `sha256:` and the digest of a value as JSON with sorted keys and no white space (`jq -cjS`), in hexadecimal.
#[must_use]
pub fn digest(value: &impl Serialize) -> String {
    // serde_json's maps are sorted, and a value is made of maps.
    let value = serde_json::to_value(value).unwrap_or_default();
    format!("sha256:{}", hex::encode(Sha256::digest(value.to_string())))
}

/// Digest of what came of a report, and with it of the report.
#[must_use]
pub fn digest_of_results(record: &str, status: &RetentionReportStatus) -> String {
    let mut results = serde_json::to_value(status).unwrap_or_default();
    if let Value::Object(fields) = &mut results {
        fields.remove("digest");
    }
    digest(&json!({"record": record, "results": results}))
}

/// What a report is about, besides the plan.
#[derive(Debug, Clone)]
pub struct Header {
    /// Plan or run.
    pub kind: ReportType,
    /// Its number.
    pub number: i64,
    /// When it is made.
    pub made_at: Timestamp,
    /// The run before.
    pub previous: Option<PreviousRun>,
    /// The approved plan that is carried out.
    pub approved: Option<ApprovedPlan>,
    /// Whether the caps were exceeded before, and nothing was approved since.
    pub tripped: bool,
    /// What the run before says of what is kept.
    pub kept: Option<KeptRecord>,
}

/// What a report says: what is done, and then what is too old and stays.
#[must_use]
pub fn record(spec: &Spec, header: Header, plan: &Plan, acts: &[Act<'_>]) -> RetentionRecord {
    let done: BTreeSet<&str> = acts.iter().map(|act| act.planned.item.uid.as_str()).collect();
    let is_plan = header.kind == ReportType::Plan;
    let goes = plan.items.iter().filter(|it| is_plan && it.decision.deletes());
    let kept = plan.items.iter().filter(|it| it.is_kept() && !done.contains(it.item.uid.as_str()));
    let acts = acts.iter().map(|act| (act.planned, act.decision));
    let mut all: Vec<(&Planned, RecordDecision)> = acts.chain(goes.map(|it| (it, RecordDecision::Delete))).collect();
    let count = |wanted| number(all.iter().filter(|(_, decision)| *decision == wanted).count());
    let (mark, unmark, delete) =
        (count(RecordDecision::Mark), count(RecordDecision::Unmark), count(RecordDecision::Delete));
    let kept = kept.map(|it| named::item(it, RecordDecision::Keep)).collect();
    let (not_fit, room) = (all.len().saturating_sub(MOST_ITEMS), MOST_ITEMS.saturating_sub(all.len()));
    let kept = kept::tell(kept, &header, room);
    all.truncate(MOST_ITEMS);
    let (acts, mut items) = named::tell(all);
    items.extend(kept.named);
    let tripped = header.tripped && plan.would_delete().next().is_some();
    RetentionRecord {
        kind: header.kind,
        number: header.number,
        policy: ReportPolicy {
            namespace: spec.namespace.clone(),
            name: spec.name.clone(),
            uid: spec.uid.clone(),
            generation: spec.generation,
        },
        mode: spec.mode,
        data_class: spec.data_class,
        max_age: spec.max_age.unsigned_abs().into(),
        processing: spec.processing.clone(),
        made_at: Time(header.made_at),
        expires_at: Time(kept::expires_at(&header, spec.retain_for, kept.record.as_ref())),
        previous: header.previous,
        approved: header.approved,
        breaker: (plan.breaker.is_some() || tripped).then(|| BreakerRecord {
            would_delete: number(plan.would_delete().count()),
            allowed: plan.breaker.map_or_else(|| number(spec.caps.count), |breaker| number(breaker.allowed)),
        }),
        counts: RecordCounts {
            mark,
            unmark,
            delete,
            kept: number(kept.count),
            not_named: number(not_fit.saturating_add(kept.unnamed)),
        },
        kept: kept.record,
        acts,
        items,
    }
}

pub(super) fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// The spec of a report.
#[must_use]
pub fn spec_of(record: RetentionRecord) -> RetentionReportSpec {
    RetentionReportSpec { digest: digest(&record), record, approval: None, earlier: vec![] }
}

/// Whether two plans say the same, whenever they were made: then the older one stands.
#[must_use]
pub fn is_same_plan(one: &RetentionRecord, other: &RetentionRecord) -> bool {
    (&one.policy, &one.acts, &one.items, &one.counts, one.breaker.is_some())
        == (&other.policy, &other.acts, &other.items, &other.counts, other.breaker.is_some())
}

/// The set of a plan that can be approved, oldest first.
#[must_use]
pub fn to_approve(record: &RetentionRecord) -> Option<Approval> {
    let mut goes: Vec<Named<'_>> = named(record).filter(|it| it.decision == RecordDecision::Delete).collect();
    goes.sort_by_key(|it| (it.too_old_since, it.name, it.uid));
    let items: Vec<ApprovedItem> = goes
        .iter()
        .map(|it| ApprovedItem {
            kind: it.kind.into(),
            namespace: record.policy.namespace.clone(),
            name: it.name.into(),
            uid: it.uid.into(),
        })
        .collect();
    (!items.is_empty()).then(|| Approval { digest: digest(&items), items })
}

/// The UIDs of an approval, as far as the plan names them; `None` where nothing is approved, or what is can't be
/// trusted to be what somebody saw.
#[must_use]
pub fn approved(plan: &RetentionReport) -> Option<BTreeSet<String>> {
    let approval = plan.spec.approval.as_ref()?;
    if approval.digest != digest(&approval.items) {
        return None;
    }
    let named = to_approve(&plan.spec.record)?.items;
    Some(approval.items.iter().filter(|item| named.contains(item)).map(|item| item.uid.clone()).collect())
}

/// What came of each item that a run was to do something about; `None` where that was not written.
pub fn outcomes(report: &RetentionReport) -> impl Iterator<Item = (Named<'_>, Option<Outcome>)> {
    let results = report.status.iter().flat_map(|status| &status.results);
    let told: BTreeMap<&str, Outcome> = results.map(|it| (it.uid.as_str(), it.result)).collect();
    named(&report.spec.record).filter_map(move |item| {
        let as_decided = as_decided(item.decision)?;
        let outcome = told.get(item.uid).copied().unwrap_or(as_decided);
        Some((item, is_finished(report).then_some(outcome)))
    })
}

/// The outcome that needs no words; `None` where nothing was to be done.
const fn as_decided(decision: RecordDecision) -> Option<Outcome> {
    match decision {
        RecordDecision::Delete => Some(Outcome::Deleted),
        RecordDecision::Mark => Some(Outcome::Marked),
        RecordDecision::Unmark => Some(Outcome::Unmarked),
        RecordDecision::Keep => None,
    }
}

/// Only what came of all items is written.
pub(super) fn is_finished(report: &RetentionReport) -> bool {
    let is_run = report.spec.record.kind == ReportType::Run;
    is_run && report.status.as_ref().is_some_and(|status| status.finished_at.is_some())
}

/// The items that something was to be done about, and that are not settled yet.
#[must_use]
pub fn pending(report: &RetentionReport) -> Vec<Named<'_>> {
    let open = |outcome| matches!(outcome, None | Some(Outcome::Failed));
    outcomes(report).filter(|(_, outcome)| open(*outcome)).map(|(item, _)| item).collect()
}

/// Whether a run has used up the approval of a plan: one that could delete none of it, such as for want of a right, has
/// not.
#[must_use]
pub fn uses_up(run: &RetentionReport, plan: &str) -> bool {
    let is_of_plan = run.spec.record.approved.as_ref().is_some_and(|approved| approved.report == plan);
    let mut deletions = outcomes(run).filter(|(item, _)| item.decision == RecordDecision::Delete);
    is_of_plan && deletions.any(|(_, outcome)| outcome.is_some_and(|outcome| outcome != Outcome::Failed))
}

/// What came of an item that a run was to do something about, and that was not heard of: by what is there now.
#[must_use]
pub fn settle(item: Named<'_>, found: Option<&Planned>) -> ItemResult {
    let told = |result, message: String| ItemResult { uid: item.uid.into(), result, message };
    let Some(found) = found else {
        return told(
            Outcome::Gone,
            "it is gone, or no longer one of the policy's; whether this run deleted it was not heard".into(),
        );
    };
    let marked = Mark::of(&found.item).is_some();
    match item.decision {
        RecordDecision::Mark if marked && found.decision.deletes() => told(Outcome::Marked, String::new()),
        RecordDecision::Unmark if !marked => told(Outcome::Unmarked, String::new()),
        RecordDecision::Delete if found.decision.deletes() => told(Outcome::Kept, "it was not its turn".into()),
        _ => told(Outcome::Kept, found.reason()),
    }
}

/// The status of a report, from the results that were there and those that are new. What was to be done and is in
/// neither was not done.
#[must_use]
pub fn results(report: &RetentionReport, new: Vec<ItemResult>, now: Timestamp) -> RetentionReportStatus {
    let old = report.status.clone().unwrap_or_default();
    let named = old.results.iter().cloned().chain(new);
    let mut by_uid: BTreeMap<String, ItemResult> = named.map(|it| (it.uid.clone(), it)).collect();
    let (mut done, mut results): (BTreeMap<Outcome, i64>, Vec<ItemResult>) = Default::default();
    for (item, written) in outcomes(report).filter(|_| report.spec.record.kind == ReportType::Run) {
        let result = by_uid.remove(item.uid).unwrap_or_else(|| match written {
            Some(result) => ItemResult { uid: item.uid.into(), result, message: String::new() },
            None => ItemResult { uid: item.uid.into(), result: Outcome::Failed, message: "it was not tried".into() },
        });
        *done.entry(result.result).or_default() += 1;
        if Some(result.result) != as_decided(item.decision) {
            results.push(result);
        }
    }
    let count = |outcome| done.get(&outcome).copied().unwrap_or_default();
    // The same results again are no news.
    let at = old.finished_at.filter(|_| results == old.results).unwrap_or(Time(now));
    let mut status = RetentionReportStatus {
        finished_at: Some(at),
        marked: count(Outcome::Marked),
        unmarked: count(Outcome::Unmarked),
        deleted: count(Outcome::Deleted),
        failed: count(Outcome::Failed),
        results,
        digest: None,
    };
    status.digest = Some(digest_of_results(&report.spec.digest, &status));
    status
}

#[cfg(test)]
pub(in crate::retention) mod tests {
    use super::*;
    use crate::retention::{
        Item, Permit, Protection, Target, plan,
        plan::tests::{NOW, at, item, marked, spec},
    };

    /// Of a first report.
    pub(in crate::retention) fn header(kind: ReportType) -> Header {
        Header { kind, number: 1, made_at: at(NOW), previous: None, approved: None, tripped: false, kept: None }
    }

    fn planned(items: Vec<Item>) -> Plan {
        plan(&spec(100, 100), &[Target { items }], at(NOW))
    }

    fn told(record: &RetentionRecord) -> Vec<(&str, RecordDecision)> {
        named(record).map(|item| (item.name, item.decision)).collect()
    }

    /// `echo -n '{"a":[1,"é\n"],"b":{"c":null,"d":true}}' | sha256sum`
    #[test]
    fn a_digest_is_of_sorted_json_without_white_space() {
        let value = json!({"b": {"d": true, "c": null}, "a": [1, "é\n"]});
        assert_eq!(value.to_string(), r#"{"a":[1,"é\n"],"b":{"c":null,"d":true}}"#);
        let wanted = "sha256:e0b58a8d0c7f1a3885854b8cb34d69bd84491ab97edec41ffe2256581f05a8df";
        assert_eq!(digest(&value), wanted);
    }

    #[test]
    fn a_run_names_what_it_does_and_what_is_kept_with_the_reason() {
        let owned = Item { protection: Some(Protection::ControllerOwned), ..item("owned", 20) };
        let unknown = Item { born: None, ..item("unknown", 20) };
        let plan = planned(vec![item("young", 1), owned, unknown, item("new", 20), marked("due", "policy", 9)]);
        let spec = spec(100, 100);
        let acts = plan.acts(&spec, &Permit::Caps);
        let run = record(&spec, header(ReportType::Run), &plan, &acts);
        let keep = RecordDecision::Keep;
        let done = [("due", RecordDecision::Delete), ("new", RecordDecision::Mark)];
        assert_eq!(told(&run), [done[0], done[1], ("unknown", keep), ("owned", keep)]);
        assert!(run.items.iter().all(|item| !item.reason.is_empty()), "{:?}", run.items);
        assert!(run.acts.iter().all(|act| !act.reason.is_empty() && act.too_old_since.len() == 1), "{:?}", run.acts);
        assert_eq!((run.counts.delete, run.counts.mark, run.counts.kept, run.counts.not_named), (1, 1, 2, 0));
        assert_eq!(run.expires_at.0.as_second(), NOW + (9600 + 720) * 3600, "later runs refer to what it names");
        let dry = record(&spec, header(ReportType::Plan), &plan, &[]);
        assert_eq!(told(&dry)[..2], [("due", RecordDecision::Delete), ("new", RecordDecision::Delete)]);
        assert_eq!((dry.acts.len(), dry.items.len()), (1, 2));
        assert_eq!(dry.expires_at.0.as_second(), NOW + 9600 * 3600);
    }

    #[test]
    fn a_report_is_bounded_and_says_how_many_it_does_not_name() {
        let plan = planned((0..1500).map(|n| item(&n.to_string(), 20)).collect());
        let record = record(&spec(9, 100), header(ReportType::Plan), &plan, &[]);
        assert_eq!((told(&record).len(), record.counts.delete, record.counts.not_named), (1000, 1500, 500));
        let size = serde_json::to_string(&record).unwrap().len();
        // What the wire allows of names and reasons: half of etcd's 1.5 MiB.
        assert!(size < 400_000, "{size} bytes");
        assert_eq!(to_approve(&record).unwrap().items.len(), 1000, "nobody approves what is not named");
    }

    #[test]
    fn the_same_plan_later_is_the_same_plan() {
        let dry = |items: Vec<Item>, made_at| {
            let header = Header { made_at, ..header(ReportType::Plan) };
            record(&spec(100, 100), header, &planned(items), &[])
        };
        let first = dry(vec![item("a", 20), item("y", 1)], at(NOW));
        assert!(is_same_plan(&first, &dry(vec![item("a", 20), item("y", 2), item("z", 1)], at(NOW + 60))));
        assert!(is_same_plan(
            &first,
            &dry(vec![Item { mark: marked("a", "policy", 1).mark, ..item("a", 20) }], at(NOW))
        ));
        assert!(!is_same_plan(&first, &dry(vec![item("a", 20), item("b", 20)], at(NOW))));
    }

    #[test]
    fn an_approval_is_of_what_the_plan_names_and_no_more() {
        let plan = planned(vec![item("a", 20), item("b", 20)]);
        let record = record(&spec(1, 100), header(ReportType::Plan), &plan, &[]);
        let mut report = RetentionReport::new("r", spec_of(record.clone()));
        assert_eq!(approved(&report), None);
        let approval = to_approve(&record).unwrap();
        report.spec.approval = Some(approval.clone());
        assert_eq!(approved(&report), Some(["uid-a".to_owned(), "uid-b".to_owned()].into()));
        // Items that nobody was shown, in two ways.
        let mut items = approval.items.clone();
        items[0].uid = "uid-c".into();
        report.spec.approval = Some(Approval { digest: digest(&items), items: items.clone() });
        assert_eq!(approved(&report), Some(["uid-b".to_owned()].into()));
        report.spec.approval = Some(Approval { items, ..approval });
        assert_eq!(approved(&report), None, "its digest is of another set");
    }

    #[test]
    fn what_was_not_heard_of_is_settled_by_what_is_there() {
        let of = |decision| Named { kind: "Job", name: "a", uid: "uid-a", decision, too_old_since: None };
        let settled = |decision, items: Vec<Item>| {
            let plan = planned(items);
            settle(of(decision), plan.items.first()).result
        };
        let young = Item { born: Some(at(NOW)), ..item("a", 0) };
        assert_eq!(settled(RecordDecision::Delete, vec![]), Outcome::Gone);
        assert_eq!(settled(RecordDecision::Delete, vec![marked("a", "policy", 9)]), Outcome::Kept);
        assert_eq!(settled(RecordDecision::Mark, vec![marked("a", "policy", 1)]), Outcome::Marked);
        assert_eq!(settled(RecordDecision::Mark, vec![young.clone()]), Outcome::Kept);
        assert_eq!(settled(RecordDecision::Unmark, vec![young]), Outcome::Unmarked);
    }

    #[test]
    fn results_name_what_came_otherwise_and_counts_are_of_all() {
        let plan = planned(["a", "b", "c", "d"].map(|name| marked(name, "policy", 9)).into());
        let spec = spec(100, 100);
        let record = record(&spec, header(ReportType::Run), &plan, &plan.acts(&spec, &Permit::Caps));
        let mut report = RetentionReport::new("r", spec_of(record));
        let told = |name: &str, result| ItemResult { uid: format!("uid-{name}"), result, message: String::new() };
        let heard = vec![told("a", Outcome::Deleted), told("b", Outcome::Kept), told("c", Outcome::Gone)];
        report.status = Some(results(&report, heard, at(NOW)));
        let status = report.status.as_ref().unwrap();
        assert_eq!((status.deleted, status.failed), (1, 1));
        let named: Vec<_> = status.results.iter().map(|it| it.uid.as_str()).collect();
        assert_eq!(named, ["uid-b", "uid-c", "uid-d"]);
        let all: Vec<_> = outcomes(&report).map(|(item, outcome)| (item.name, outcome.unwrap())).collect();
        let [kept, gone, failed] = [Outcome::Kept, Outcome::Gone, Outcome::Failed];
        assert_eq!(all, [("a", Outcome::Deleted), ("b", kept), ("c", gone), ("d", failed)]);
        assert_eq!(pending(&report).len(), 1, "what nobody tried is still to do");
    }

    #[test]
    fn a_run_that_could_delete_nothing_uses_no_approval_up() {
        let plan = planned(["a", "b"].map(|name| marked(name, "policy", 9)).into());
        let spec = spec(1, 100);
        let approved = Some(ApprovedPlan { report: "plan".into(), digest: String::new(), expires_at: None });
        let acts = plan.acts(&spec, &Permit::Approved(["uid-a".to_owned(), "uid-b".to_owned()].into()));
        let record = record(&spec, Header { approved, ..header(ReportType::Run) }, &plan, &acts);
        let mut run = RetentionReport::new("r", spec_of(record));
        assert!(!uses_up(&run, "plan"), "it has not ended");
        let told = |name: &str, result| ItemResult { uid: format!("uid-{name}"), result, message: String::new() };
        run.status = Some(results(&run, ["a", "b"].map(|name| told(name, Outcome::Failed)).into(), at(NOW)));
        assert!(!uses_up(&run, "plan"));
        run.status = Some(results(&run, vec![told("b", Outcome::Deleted)], at(NOW)));
        assert!(uses_up(&run, "plan") && !uses_up(&run, "another plan"));
    }

    #[test]
    fn the_same_results_again_are_no_news() {
        let plan = planned(vec![marked("a", "policy", 9)]);
        let spec = spec(100, 100);
        let record = record(&spec, header(ReportType::Run), &plan, &plan.acts(&spec, &Permit::Caps));
        let mut report = RetentionReport::new("r", spec_of(record));
        let failed = || vec![ItemResult { uid: "uid-a".into(), result: Outcome::Failed, message: "no".into() }];
        assert_eq!(pending(&report).len(), 1);
        let first = results(&report, failed(), at(NOW));
        report.status = Some(first.clone());
        assert_eq!(pending(&report).len(), 1, "it is tried again");
        assert_eq!(results(&report, failed(), at(NOW + 60)), first);
        let deleted = ItemResult { uid: "uid-a".into(), result: Outcome::Deleted, message: String::new() };
        let then = results(&report, vec![deleted], at(NOW + 60));
        assert_eq!((then.deleted, then.failed), (1, 0));
        report.status = Some(then);
        assert!(pending(&report).is_empty());
    }
}
