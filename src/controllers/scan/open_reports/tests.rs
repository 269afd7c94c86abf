use serde_json::{Value, json};

use super::*;
use crate::hardening::Workload;

fn report(name: &str, message: &str) -> OpenReport {
    let (api_version, kind) = ("v1".to_owned(), "Pod".to_owned());
    let workload = Workload { api_version, kind, name: name.into(), uid: format!("{name}-uid") };
    OpenReport { namespace: "n".into(), workload, content: json!({"results": [{"message": message}]}) }
}

fn key(name: &str) -> Key {
    ("n".to_owned(), format!("rampart-{name}-uid"))
}

fn seen(digests: &Digests, content: &Value) -> Seen {
    let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": "x", "uid": "x-uid"});
    let object = json!({"apiVersion": "openreports.io/v1alpha1", "kind": "Report",
                        "metadata": {"name": "rampart-x-uid", "uid": "u", "ownerReferences": [owner]}});
    let mut object: kube::api::DynamicObject = serde_json::from_value(object).unwrap();
    object.data = content.clone();
    digests.seen(&object)
}

fn known(digests: &Digests, live: &[(&str, &str)]) -> Known {
    let live = live.iter().map(|(name, message)| (key(name), seen(digests, &report(name, message).content)));
    Known { live: Some(live.collect()), ..Known::default() }
}

/// `write a`, `replace a`, `remove a`.
fn told(plan: &Plan) -> Vec<String> {
    let words = plan.changes.iter().map(|change| {
        let verb = match change {
            Change::Write(_, None) => "write",
            Change::Write(_, Some(_)) => "replace",
            Change::Remove(..) => "remove",
        };
        format!("{verb} {}", change.key().1)
    });
    words.collect()
}

#[test]
fn what_is_as_wanted_is_not_written_and_the_rest_once() {
    let (digests, now) = (Digests::default(), Instant::now());
    let known = known(&digests, &[("same", "a"), ("other", "a"), ("stale", "a")]);
    let wanted = [report("same", "a"), report("other", "b"), report("new", "a")];
    let plan = plan(wanted.into_iter(), &known, &digests, (&mut BTreeMap::new(), now));
    assert_eq!(told(&plan), ["replace rampart-other-uid", "write rampart-new-uid", "remove rampart-stale-uid"]);
    assert_eq!((plan.kept, plan.pending), (1, 3));
}

#[test]
fn nothing_is_written_before_what_is_there_is_known() {
    let (digests, now) = (Digests::default(), Instant::now());
    let plan = plan([report("a", "a")].into_iter(), &Known::default(), &digests, (&mut BTreeMap::new(), now));
    assert_eq!((told(&plan).len(), plan.pending), (0, 1));
}

#[test]
fn what_failed_waits_and_keeps_nothing_else() {
    let (digests, now) = (Digests::default(), Instant::now());
    let mut known = known(&digests, &[("stale", "a")]);
    known.failed = [(key("taken"), now + PAUSE), (key("stale"), now + PAUSE)].into();
    let wanted = || [report("taken", "a"), report("new", "a")].into_iter();
    let first = plan(wanted(), &known, &digests, (&mut BTreeMap::new(), now));
    assert_eq!((told(&first), first.pending), (vec!["write rampart-new-uid".to_owned()], 3));
    assert_eq!(told(&plan(wanted(), &known, &digests, (&mut BTreeMap::new(), now + PAUSE))).len(), 3);
}

#[test]
fn no_more_than_two_hundred_at_once() {
    let (digests, now) = (Digests::default(), Instant::now());
    let known = known(&digests, &[]);
    let plan =
        plan((0..500).map(|number| report(&number.to_string(), "a")), &known, &digests, (&mut BTreeMap::new(), now));
    assert_eq!((plan.changes.len(), plan.pending), (200, 500));
}

#[test]
fn what_the_api_server_keeps_otherwise_is_not_written_again_and_again() {
    let (digests, now) = (Digests::default(), Instant::now());
    let mut known = known(&digests, &[("a", "pruned")]);
    let of = |message: &str| digests.of(&report("a", message).content);
    known.kept_as = [(key("a"), (of("whole"), of("pruned")))].into();
    assert_eq!(plan([report("a", "whole")].into_iter(), &known, &digests, (&mut BTreeMap::new(), now)).kept, 1);
    let other = plan([report("a", "another")].into_iter(), &known, &digests, (&mut BTreeMap::new(), now));
    assert_eq!(told(&other), ["replace rampart-a-uid"]);
}

#[test]
fn the_report_of_a_cron_job_stays_between_its_runs() {
    let (digests, now) = (Digests::default(), Instant::now());
    let mut known = known(&digests, &[("nightly", "a")]);
    known.live.iter_mut().flat_map(|live| live.values_mut()).for_each(|seen| seen.of_cron_job = true);
    let mut lingering = BTreeMap::new();
    let at = |minutes: u64| now + Duration::from_mins(minutes);
    let mut left = |wanted: bool, minutes: u64| {
        let reports = wanted.then(|| report("nightly", "a")).into_iter();
        let plan = plan(reports, &known, &digests, (&mut lingering, at(minutes)));
        (told(&plan).len(), plan.kept)
    };
    assert_eq!((left(true, 0), left(false, 1), left(false, 60)), ((0, 1), (0, 1), (0, 1)));
    assert_eq!((left(true, 61), left(false, 62), left(false, 121)), ((0, 1), (0, 1), (0, 1)), "it ran again");
    assert_eq!(left(false, 122), (1, 0));
}

#[test]
fn a_report_that_lost_its_owner_is_written_anew() {
    let (digests, now) = (Digests::default(), Instant::now());
    let mut known = known(&digests, &[("a", "a")]);
    known.live.iter_mut().flat_map(|live| live.values_mut()).for_each(|seen| seen.is_owned = false);
    let plan = plan([report("a", "a")].into_iter(), &known, &digests, (&mut BTreeMap::new(), now));
    assert_eq!(told(&plan), ["replace rampart-a-uid"]);
}
