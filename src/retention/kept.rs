//! What is kept: named once, and told of by its digest for as long as it stays the same.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    Plan, Spec,
    evidence::{self, Header, digest, number},
};
use crate::api::{KeptRecord, RecordItem, ReportType, RetentionRecord};

/// It is named again after this long: reports go by age, and one that names it is to be there.
const NAMED_FOR: SignedDuration = SignedDuration::from_hours(30 * 24);

/// What a report tells of it.
#[derive(Debug, PartialEq)]
pub(super) struct Kept {
    /// How many there are.
    pub(super) count: usize,
    pub(super) named: Vec<RecordItem>,
    /// How many of them no report names.
    pub(super) unnamed: usize,
    pub(super) record: Option<KeptRecord>,
}

/// Names it, as far as there is room, unless a run before has named the same.
pub(super) fn tell(mut items: Vec<RecordItem>, header: &Header, room: usize) -> Kept {
    let (count, fits) = (items.len(), items.len().min(room));
    if header.kind == ReportType::Plan || items.is_empty() {
        items.truncate(fits);
        return Kept { count, named: items, unnamed: count - fits, record: None };
    }
    let digest = digest(&items);
    let known = header.kept.as_ref().filter(|known| {
        let is_fresh = known.named_at.0.checked_add(NAMED_FOR).is_ok_and(|end| header.made_at < end);
        known.digest == digest && known.named >= number(fits) && is_fresh
    });
    if let Some(known) = known {
        let named = usize::try_from(known.named).unwrap_or_default();
        return Kept { count, named: vec![], unnamed: count.saturating_sub(named), record: Some(known.clone()) };
    }
    items.truncate(fits);
    let record =
        KeptRecord { digest, named_in: header.number, named_at: Time(header.made_at), named: number(items.len()) };
    Kept { count, named: items, unnamed: count - fits, record: Some(record) }
}

/// The report of a run that does nothing: what it keeps, and why. `None` where a run before has told the same.
#[must_use]
pub fn kept_alone(spec: &Spec, header: Header, plan: &Plan) -> Option<RetentionRecord> {
    let record = evidence::record(spec, header, plan, &[]);
    let is_news = record.kept.as_ref().is_some_and(|kept| kept.named_in == record.number);
    is_news.then_some(record)
}

/// When a report may go: never before the one that it follows, and where it names what is kept, not before those that
/// refer to it.
pub(super) fn expires_at(header: &Header, retain_for: SignedDuration, kept: Option<&KeptRecord>) -> Timestamp {
    let names = kept.is_some_and(|kept| kept.named_in == header.number);
    let longer = if names { NAMED_FOR } else { SignedDuration::ZERO };
    let own = header.made_at.checked_add(retain_for.saturating_add(longer)).unwrap_or(Timestamp::MAX);
    header.previous.as_ref().map_or(own, |previous| own.max(previous.expires_at.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::RecordDecision,
        retention::{
            Expiry, Item, Permit, Protection, Target, plan,
            plan::tests::{NOW, at, item, marked, spec},
        },
    };

    const DAY: i64 = 24 * 3600;

    fn items(count: usize) -> Vec<RecordItem> {
        let item = |nth: usize| RecordItem {
            kind: "Job".into(),
            name: format!("job-{nth}"),
            uid: format!("uid-{nth}"),
            decision: RecordDecision::Keep,
            reason: "kept: a LegalHold holds it".into(),
            too_old_since: None,
        };
        (0..count).map(item).collect()
    }

    fn header(number: i64, made_at: i64, kept: Option<KeptRecord>) -> Header {
        let (previous, approved) = (None, None);
        Header { kind: ReportType::Run, number, made_at: at(made_at), previous, approved, tripped: false, kept }
    }

    #[test]
    fn it_is_named_once_and_then_told_by_its_digest() {
        let first = tell(items(3), &header(7, NOW, None), 1000);
        assert_eq!((first.named.len(), first.unnamed), (3, 0));
        let then = tell(items(3), &header(8, NOW + 60, first.record.clone()), 1000);
        assert_eq!((then.count, then.named.len(), then.unnamed), (3, 0, 0));
        assert_eq!(then.record.unwrap().named_in, 7);
    }

    #[test]
    fn another_set_or_another_reason_is_named_anew() {
        let known = tell(items(3), &header(7, NOW, None), 1000).record;
        assert_eq!(tell(items(4), &header(8, NOW, known.clone()), 1000).named.len(), 4);
        let mut other = items(3);
        other[1].reason = "kept: its age can't be read".into();
        let told = tell(other, &header(8, NOW, known), 1000);
        assert_eq!((told.named.len(), told.record.unwrap().named_in), (3, 8));
    }

    #[test]
    fn it_is_named_again_while_the_report_that_named_it_is_there() {
        let known = tell(items(3), &header(7, NOW, None), 1000).record;
        assert_eq!(tell(items(3), &header(8, NOW + 30 * DAY - 1, known.clone()), 1000).named.len(), 0);
        assert_eq!(tell(items(3), &header(8, NOW + 30 * DAY, known), 1000).named.len(), 3);
    }

    #[test]
    fn who_names_it_outlives_who_refers_to_it() {
        let (first, last) = (header(7, NOW, None), NOW + 30 * DAY - 1);
        let known = tell(items(3), &first, 1000).record;
        let refers = tell(items(3), &header(8, last, known.clone()), 1000).record;
        let over = |header: &Header, kept: Option<&KeptRecord>| {
            expires_at(header, SignedDuration::from_hours(720), kept).as_second()
        };
        assert_eq!(over(&first, known.as_ref()), NOW + 60 * DAY);
        assert_eq!(over(&header(8, last, None), refers.as_ref()), last + 30 * DAY, "what it names goes no earlier");
        assert_eq!(over(&first, None), NOW + 30 * DAY, "nothing is kept");
    }

    #[test]
    fn who_had_no_room_leaves_it_to_the_next() {
        let full = tell(items(3), &header(7, NOW, None), 0);
        assert_eq!((full.named.len(), full.unnamed), (0, 3));
        let then = tell(items(3), &header(8, NOW, full.record), 2);
        assert_eq!((then.named.len(), then.unnamed), (2, 1));
        let no_better = tell(items(3), &header(9, NOW, then.record), 1);
        assert_eq!((no_better.named.len(), no_better.unnamed), (0, 1), "run 8 names two of them");
    }

    #[test]
    fn a_run_that_does_nothing_tells_it_once() {
        let going = |it| Item { protection: Some(Protection::BeingDeleted), ..it };
        let unknown = Item { born: None, ..item("unknown", 20) };
        let plan = |items: Vec<Item>| plan(&spec(100, 100), &[Target { items }], at(NOW));
        let told = |header, items| kept_alone(&spec(100, 100), header, &plan(items));
        assert_eq!(told(header(7, NOW, None), vec![item("young", 1), going(item("gone", 20))]), None);
        let first = told(header(7, NOW, None), vec![unknown.clone()]).unwrap();
        assert_eq!((first.acts.len(), first.items.len(), first.counts.kept), (0, 1, 1));
        let then = |items| told(header(8, NOW + 60, first.kept.clone()), items);
        assert_eq!(then(vec![unknown.clone(), item("young", 1), going(item("gone", 20))]), None);
        assert!(then(vec![unknown, Item { born: None, ..item("another", 20) }]).is_some());
    }

    #[test]
    fn a_run_that_does_nothing_tells_of_each_why_it_is_kept() {
        let by = |name: &str, protection: Protection| Item { protection: Some(protection), ..item(name, 20) };
        let items = vec![
            by("held", Protection::Held("LegalHold/case-17".into())),
            by("owned", Protection::ControllerOwned),
            Item { expires: Some(Expiry::Never), ..item("forever", 20) },
            marked("another", "another policy", 1),
            item("youngest", 20),
        ];
        let spec = Spec { min_remaining: items.len(), ..spec(100, 100) };
        let plan = plan(&spec, &[Target { items }], at(NOW));
        assert!(plan.acts(&spec, &Permit::Caps).is_empty());
        let told = kept_alone(&spec, header(7, NOW, None), &plan).unwrap();
        let named: Vec<_> = told.items.iter().map(|it| (it.name.as_str(), it.reason.as_str())).collect();
        let wanted = [
            ("another", "kept: another policy has marked it"),
            ("forever", "kept: its annotation says forever"),
            ("held", "kept: held by LegalHold/case-17"),
            ("owned", "kept: a controller owns it"),
            ("youngest", "kept: it is one of the youngest, which stay (safety.minRemaining)"),
        ];
        assert_eq!(named, wanted);
        assert_eq!((told.counts.kept, told.counts.not_named), (5, 0));
    }

    #[test]
    fn a_plan_names_it_each_time() {
        let known = tell(items(3), &header(7, NOW, None), 1000).record;
        let told = tell(items(3), &Header { kind: ReportType::Plan, ..header(1, NOW, known) }, 1000);
        assert_eq!((told.named.len(), told.record), (3, None));
    }
}
