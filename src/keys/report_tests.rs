use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::*;
use crate::{
    api::{ApiKey, RecordState, VersionState},
    keys::{Caps, Grant, RecordSeen, Refusal, SecretSeen, Standing},
};

const START: Timestamp = Timestamp::constant(1_800_000_000, 0);

fn days(days: i64) -> Timestamp {
    START.checked_add(SignedDuration::from_hours(24 * days)).unwrap()
}

fn spec(days: i64) -> Spec {
    let key: ApiKey = serde_json::from_value(serde_json::json!({
        "apiVersion": "rampart.dev/v1alpha1", "kind": "ApiKey", "metadata": {"name": "k", "namespace": "n"},
        "spec": {"owner": {"customerId": "n"}, "audiences": ["a"], "role": "Viewer", "prefix": "ab",
                 "ttl": format!("{}h", 24 * days), "rotation": {"interval": "24h", "overlap": "1h"},
                 "secret": {"name": "s"}},
    }))
    .unwrap();
    Spec::parse(&key, &Caps::default()).unwrap()
}

fn living(life: i64) -> ApiKeyStatus {
    let current = VersionStatus {
        n: 1,
        id: "one".into(),
        state: VersionState::Current,
        created_at: Time(START),
        expires_at: Time(days(life)),
        replaced_by: None,
        destroy_at: None,
    };
    ApiKeyStatus { versions: vec![current], current_version: Some(1), ..ApiKeyStatus::default() }
}

#[test]
fn an_end_is_told_of_at_30_7_and_1_days_before() {
    let status = living(100);
    let at = |day| EndsSoon::of(&spec(100), &Observed::default(), &status, days(day));
    let wanted = [None, Some(EndsSoon::Month), Some(EndsSoon::Month), Some(EndsSoon::Week), Some(EndsSoon::Day)];
    assert_eq!([69, 70, 92, 93, 99].map(at), wanted);
    let moments: Vec<Timestamp> = EndsSoon::moments(&spec(100), &status.versions[0]).collect();
    assert_eq!(moments, [99, 93, 70].map(days));
}

#[test]
fn the_end_of_a_key_that_is_replaced_before_is_not_told_of() {
    let replaced = ApiKeyStatus { next_rotation_time: Some(Time(days(90))), ..living(100) };
    let of = |seen: &Observed, status: &ApiKeyStatus| EndsSoon::of(&spec(100), seen, status, days(99));
    let mut seen = Observed::default();
    assert_eq!(of(&seen, &replaced), None);
    let under_way = ApiKeyStatus { next_version: Some(2), ..living(100) };
    assert_eq!(of(&seen, &under_way), None);
    let mut made = |created_at| {
        let secret = SecretSeen { id: "two".into(), created_at, digest: String::new(), proven: true };
        seen.secrets.insert(2, secret);
        of(&seen, &under_way)
    };
    assert_eq!(made(days(99)), None);
    assert_eq!(made(days(98)), Some(EndsSoon::Day), "it waits for a verifier that does not come");
    let failing = ApiKeyStatus { failed_attempts: Some(3), ..under_way };
    assert_eq!(of(&Observed::default(), &failing), Some(EndsSoon::Day));
}

#[test]
fn who_is_refused_is_told_of_the_end_and_of_verifiers_all_the_same() {
    let grant = Grant::nothing();
    let standing = Standing {
        state: RecordState::Active,
        replaced_by: None,
        destroy_at: None,
        expires_at: days(100),
        grant,
        retained: false,
    };
    let record = RecordSeen { standing, digest: None, revision: "1".into() };
    let seen = Observed { records: [("one".to_owned(), record)].into(), ..Observed::default() };
    let status = ApiKeyStatus { next_rotation_time: Some(Time(days(95))), ..living(100) };
    let step = Step::Refuse(Refusal::ForeignConsumer { secret: "s".into(), owner: None });
    let told = |day| conditions(None, &spec(100), &seen, &status, &step, days(day)).carried_from(&[], days(day));
    let reason = |day, kind: &str| told(day).iter().find(|it| it.type_ == kind).map(|it| it.reason.clone());
    assert_eq!(reason(1, "Expiring"), None);
    assert_eq!(reason(96, "Expiring").as_deref(), Some("Within7Days"), "nothing replaces it although it was due");
    assert_eq!(reason(96, "Stalled").as_deref(), Some("Conflicted"));
    assert_eq!(reason(96, "VerifiersSynced").as_deref(), Some("NoVerifiers"));
    assert_eq!(reason(1, "Ready").as_deref(), Some("Conflicted"));
    let idle = Spec { suspended: true, idle: true, ..spec(100) };
    let told = conditions(None, &idle, &seen, &status, &step, days(1)).carried_from(&[], days(1));
    assert_eq!(told.iter().find(|it| it.type_ == "Ready").map(|it| it.reason.as_str()), Some("Idle"));
}

#[test]
fn a_write_that_is_refused_is_told_beside_what_is_known() {
    let told = |status: &ApiKeyStatus, day| {
        let (spec, seen, now) = (spec(100), Observed::default(), days(day));
        let mut told = conditions(None, &spec, &seen, status, &Step::CreateSecret { n: 2 }, now);
        write_refused(&mut told, &spec, status, "creating Secret k-v2: no", now);
        let list = told.carried_from(&[], now);
        ["Ready", "Programmed", "Rotating", "Reconciling", "Expiring"].map(|kind| {
            let it = list.iter().find(|it| it.type_ == kind);
            it.map_or_else(String::new, |it| format!("{} {}", it.status, it.reason))
        })
    };
    let (refused, going) = ("False WriteRefused", "True WriteRefused");
    let rotating = ApiKeyStatus { next_version: Some(2), ..living(100) };
    assert_eq!(told(&rotating, 1), ["True Ready", "True Programmed", refused, "", ""]);
    assert_eq!(told(&rotating, 93), ["True Ready", "True Programmed", refused, "", "True Within7Days"]);
    let first = ApiKeyStatus { next_version: Some(1), ..ApiKeyStatus::default() };
    assert_eq!(told(&first, 1), [refused, refused, refused, going, ""]);
}

#[test]
fn a_short_life_is_not_a_warning_from_its_start() {
    let of = |life, day| EndsSoon::of(&spec(life), &Observed::default(), &living(20), days(day));
    assert_eq!(of(20, 1), None);
    assert_eq!(of(20, 14), Some(EndsSoon::Week));
    // Cut short by a hardExpiry.
    assert_eq!(of(365, 1), Some(EndsSoon::Month));
}
