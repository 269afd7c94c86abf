//! Verification: the order of its steps, what each says, and that nothing but a good key is ever admitted.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use rampart::{
    api::{KeyRecordSpec, Verb},
    keys::{
        format::ApiKeyText,
        verify::{Answer, Credentials, Form, Header, Refusal, Request, Route, Verdict, Verifier, answer},
    },
};
use rstest::rstest;
use serde_json::{Value, json};

const ID: &str = "0123abcd";

fn now() -> Timestamp {
    "2026-11-26T12:00:00Z".parse().unwrap()
}

fn key(id: &str) -> String {
    ApiKeyText::new("acme_live", id, &[7; 32]).expose().to_owned()
}

fn record(id: &str, change: impl Fn(&mut Value)) -> KeyRecordSpec {
    let mut record = json!({
        "apiKey": {"namespace": "shop", "name": "orders", "version": 1},
        "digest": ApiKeyText::new("acme_live", id, &[7; 32]).digest(),
        "owner": {"customerId": "shop"}, "role": "Editor", "verbs": ["Read", "Write"],
        "permissions": ["models.*"], "audiences": ["orders-api"], "state": "Active",
        "limits": {"perSecond": 10, "burst": 20, "perMinute": 100, "perHour": 1000, "perDay": 10000},
        "expiresAt": "2027-01-01T00:00:00Z",
    });
    change(&mut record);
    serde_json::from_value(record).unwrap()
}

fn verifier(change: impl Fn(&mut Value)) -> Verifier {
    let verifier = Verifier::new(vec!["/admin".into()]);
    let mut changes = verifier.changes();
    changes.apply(ID, &record(ID, change)).unwrap();
    changes.commit();
    verifier
}

/// An answer that outlives its verdict.
fn owned(answer: Answer<'_>) -> Answer<'static> {
    let own = |headers: Vec<Header<'_>>| {
        headers.into_iter().map(|(name, value)| (name, value.into_owned().into())).collect::<Vec<Header<'static>>>()
    };
    Answer { status: answer.status, identity: own(answer.identity), client: own(answer.client), body: answer.body }
}

/// A question; the default one is admitted.
#[derive(Clone)]
struct Ask {
    headers: Vec<(&'static str, String)>,
    method: &'static str,
    path: &'static str,
    route: Route<'static>,
    source: Option<IpAddr>,
}

impl Default for Ask {
    fn default() -> Self {
        Self {
            headers: vec![("authorization", format!("Bearer {}", key(ID)))],
            method: "GET",
            path: "/orders",
            route: Route { audience: Some("orders-api"), permission: None, customer: None },
            source: None,
        }
    }
}

impl Ask {
    fn verdict(&self, verifier: &Verifier, at: Timestamp) -> Verdict {
        let mut credentials = Credentials::default();
        for (name, value) in &self.headers {
            credentials.header(name, value.as_bytes());
        }
        let Self { method, path, route, source, .. } = *self;
        verifier.decide(&Request { credentials, method, path, route, source }, at).0
    }

    fn answer(&self, verifier: &Verifier) -> Answer<'static> {
        owned(answer(&self.verdict(verifier, now()), Form::Plain))
    }
}

fn header<'a>(answer: &'a Answer, name: &str) -> &'a str {
    let mut all = answer.identity.iter().chain(&answer.client);
    all.find(|(header, _)| *header == name).map_or("", |(_, value)| value)
}

#[test]
fn a_good_key_is_admitted_and_named() {
    let answer = Ask::default().answer(&verifier(|_| {}));
    assert_eq!(answer.status, 200);
    let identity: Vec<_> = answer.identity.iter().map(|(name, value)| (name.as_str(), &**value)).collect();
    let wanted = [
        ("x-apikey-id", ID),
        ("x-apikey-owner", "shop"),
        ("x-apikey-role", "Editor"),
        ("x-apikey-scopes", "read write models.*"),
    ];
    assert_eq!(identity, wanted);
    assert_eq!(header(&answer, "ratelimit"), "\"second\";r=9;t=1");
    assert!(header(&answer, "deprecation").is_empty());
}

#[rstest]
#[case::no_credential(|ask: &mut Ask| ask.headers.clear(), 401, "")]
#[case::not_a_key(|ask: &mut Ask| ask.headers = vec![("x-api-key", "nonsense".into())], 401, "invalid_token")]
#[case::cut(|ask: &mut Ask| ask.headers[0].1.truncate(74), 401, "invalid_token")]
#[case::unknown(|ask: &mut Ask| ask.headers = vec![("x-api-key", key("99999999"))], 401, "invalid_token")]
#[case::twice(|ask: &mut Ask| ask.headers.push(ask.headers[0].clone()), 401, "invalid_token")]
#[case::long(|ask: &mut Ask| ask.headers = vec![("x-api-key", "a".repeat(20_000))], 401, "invalid_token")]
#[case::other_service(|ask: &mut Ask| ask.route.audience = Some("payments-api"), 403, "insufficient_scope")]
#[case::may_not_delete(|ask: &mut Ask| ask.method = "DELETE", 403, "scope=\"delete\"")]
#[case::no_such_method(|ask: &mut Ask| ask.method = "BREW", 403, "insufficient_scope")]
#[case::administrators(|ask: &mut Ask| ask.path = "/admin/users", 403, "scope=\"admin\"")]
#[case::permission(|ask: &mut Ask| ask.route.permission = Some("users.read"), 403, "scope=\"users.read\"")]
#[case::customer(|ask: &mut Ask| ask.route.customer = Some("other"), 403, "insufficient_scope")]
#[case::no_audience(|ask: &mut Ask| ask.route.audience = None, 503, "")]
fn what_is_refused(#[case] change: fn(&mut Ask), #[case] status: u16, #[case] challenge: &str) {
    let mut ask = Ask::default();
    change(&mut ask);
    let answer = ask.answer(&verifier(|_| {}));
    assert_eq!(answer.status, status, "{answer:?}");
    assert!(header(&answer, "www-authenticate").contains(challenge), "{answer:?}");
    assert_eq!(header(&answer, "content-type"), "application/problem+json");
    let body: Value = serde_json::from_str(answer.body.as_deref().unwrap()).unwrap();
    assert_eq!(body["status"], status);
    assert!(!format!("{answer:?}").contains(&key(ID)), "an answer never has a key in it");
}

#[rstest]
#[case::suspended(|record: &mut Value| record["state"] = json!("Suspended"), 401, "suspended")]
#[case::expired(|record: &mut Value| record["expiresAt"] = json!("2026-11-26T12:00:00Z"), 401, "expired")]
#[case::ended(|record: &mut Value| record["destroyAt"] = json!("2026-11-26T11:59:59Z"), 401, "expired")]
#[case::other_digest(|record: &mut Value| record["digest"] = json!(format!("sha256:{}", "0".repeat(64))), 401, "not known")]
fn records_that_admit_nobody(#[case] change: fn(&mut Value), #[case] status: u16, #[case] word: &str) {
    let answer = Ask::default().answer(&verifier(change));
    assert_eq!(answer.status, status);
    assert!(answer.body.as_deref().unwrap().contains(word), "{answer:?}");
}

#[test]
fn the_permission_of_the_route_stands_in_for_the_verb() {
    let mut ask = Ask { method: "DELETE", path: "/admin", ..Ask::default() };
    ask.route.permission = Some("models.read");
    assert_eq!(ask.answer(&verifier(|_| {})).status, 200);
}

#[test]
fn a_replaced_key_is_admitted_until_its_end_and_told() {
    let verifier = verifier(|record| {
        record["state"] = json!("Deprecated");
        record["replacedBy"] = json!("99999999");
        record["destroyAt"] = json!("2026-11-26T12:00:01Z");
    });
    let answer = Ask::default().answer(&verifier);
    assert_eq!((answer.status, header(&answer, "sunset")), (200, "Thu, 26 Nov 2026 12:00:01 GMT"));
    // Without an event: by the verifier's own clock.
    let later = now() + SignedDuration::from_secs(1);
    assert!(matches!(Ask::default().verdict(&verifier, later), Verdict::Refused(_)));
}

#[test]
fn a_verifier_without_an_index_admits_nobody() {
    assert!(matches!(Verdict::default(), Verdict::Unavailable), "deny is the zero value");
    let verdict = Ask::default().verdict(&Verifier::new(vec![]), now());
    assert_eq!(answer(&verdict, Form::Plain).status, 503);
    assert_eq!(answer(&verdict, Form::AuthRequest).status, 503);
}

#[rstest]
#[case::of_another_body(ApiKeyText::new("acme_live", ID, &[8; 32]).expose().to_owned(), &Refusal::Unknown)]
#[case::that_nobody_knows(key("99999999"), &Refusal::Unknown)]
#[case::mistyped(key(ID).replacen("live", "test", 1), &Refusal::Malformed)]
#[case::mistyped_where_it_is_known_by(key(ID).replacen(ID, "99999999", 1), &Refusal::Malformed)]
fn a_mistyped_key_is_told_from_one_that_is_not_known(#[case] key: String, #[case] wanted: &Refusal) {
    let ask = Ask { headers: vec![("x-api-key", key)], ..Ask::default() };
    let Verdict::Refused(refusal) = ask.verdict(&verifier(|_| {}), now()) else { panic!("it is admitted") };
    assert_eq!(&refusal, wanted);
}

#[test]
fn what_is_refused_before_costs_no_quota() {
    let verifier = verifier(|_| {});
    let mut ask = Ask { method: "DELETE", ..Ask::default() };
    for _ in 0..100 {
        assert_eq!(ask.answer(&verifier).status, 403);
    }
    ask.method = "GET";
    assert_eq!(header(&ask.answer(&verifier), "ratelimit"), "\"second\";r=9;t=1");
}

#[test]
fn too_many_calls_are_told_every_window_that_has_none_left() {
    let verifier = verifier(|record| {
        record["limits"] = json!({"perSecond": 2, "burst": 2, "perMinute": 5, "perHour": 10, "perDay": 10});
    });
    let ask = Ask::default();
    assert_eq!([ask.answer(&verifier).status, ask.answer(&verifier).status], [200, 200]);
    let refused = ask.answer(&verifier);
    assert_eq!(refused.status, 429);
    assert_eq!(header(&refused, "ratelimit"), "\"second\";r=0;t=1, \"burst\";r=0;t=5");
    assert_eq!(header(&refused, "retry-after"), "5", "the longest of them");
    let body: Value = serde_json::from_str(refused.body.as_deref().unwrap()).unwrap();
    assert_eq!(body["violated-policies"], json!(["second", "burst"]));
    assert_eq!(body["type"], "https://iana.org/assignments/http-problem-types#quota-exceeded");

    // nginx hands on 401 and 403 alone.
    let verdict = ask.verdict(&verifier, now());
    let nginx = answer(&verdict, Form::AuthRequest);
    assert_eq!((nginx.status, header(&nginx, "x-status"), header(&nginx, "retry-after")), (403, "429", "5"));
}

#[test]
fn keys_of_an_owner_can_share_their_rates() {
    let other = "9876wxyz";
    let verifier = Verifier::new(vec![]);
    let mut changes = verifier.changes();
    for id in [ID, other] {
        let shared = |record: &mut Value| record["limits"]["shared"] = json!("Owner");
        changes.apply(id, &record(id, shared)).unwrap();
    }
    changes.commit();
    let second = Ask { headers: vec![("x-api-key", key(other))], ..Ask::default() };
    for _ in 0..5 {
        assert_eq!([Ask::default().answer(&verifier).status, second.answer(&verifier).status], [200, 200]);
    }
    assert_eq!([Ask::default().answer(&verifier).status, second.answer(&verifier).status], [429, 429]);
}

#[test]
fn who_guesses_is_shut_out_good_key_or_not() {
    let verifier = verifier(|_| {});
    let source = Some("192.0.2.7".parse().unwrap());
    let guess = Ask { headers: vec![("x-api-key", key("99999999"))], source, ..Ask::default() };
    let mut at = now();
    let guesses = (0..20).map(|_| {
        at += SignedDuration::from_secs(1);
        answer(&guess.verdict(&verifier, at), Form::Plain).status
    });
    let wanted: Vec<u16> = std::iter::repeat_n(401, 11).chain(std::iter::repeat_n(429, 9)).collect();
    assert_eq!(guesses.collect::<Vec<_>>(), wanted);
    let good = Ask { source, ..Ask::default() };
    assert_eq!(good.answer(&verifier).status, 429);
    assert_eq!(verifier.blocked(at).len(), 1);
    // Others are not.
    let elsewhere = Ask { source: Some("192.0.2.8".parse().unwrap()), ..Ask::default() };
    assert_eq!(elsewhere.answer(&verifier).status, 200);
}

#[test]
fn use_is_counted_of_admitted_calls_alone() {
    let verifier = verifier(|_| {});
    for method in ["GET", "POST", "DELETE"] {
        Ask { method, ..Ask::default() }.answer(&verifier);
    }
    let used = verifier.used_since(now());
    assert_eq!(used.len(), 1);
    assert_eq!((used[0].0.to_string().as_str(), used[0].1.count, used[0].1.last), (ID, 2, now()));
}

#[test]
fn changes_are_in_force_together_and_not_before() {
    let other = "9876wxyz";
    let asks = [Ask::default(), Ask { headers: vec![("x-api-key", key(other))], ..Ask::default() }];
    let verifier = Verifier::new(vec![]);
    let statuses = || asks.each_ref().map(|ask| ask.answer(&verifier).status);
    let mut changes = verifier.changes();
    changes.apply(ID, &record(ID, |_| {})).unwrap();
    assert_eq!(statuses(), [503, 503], "not all keys are known");
    changes.commit();
    assert_eq!(statuses(), [200, 401]);
    changes.remove(ID);
    changes.apply(other, &record(other, |_| {})).unwrap();
    assert_eq!(statuses(), [200, 401]);
    assert_eq!(changes.commit(), 1);
    assert_eq!(statuses(), [401, 200]);
}

#[test]
fn a_list_made_anew_is_what_there_is() {
    let verifier = verifier(|_| {});
    let mut changes = verifier.changes();
    // What it says last counts, be it what is in force already.
    changes.apply(ID, &record(ID, |record| record["state"] = json!("Suspended"))).unwrap();
    changes.apply(ID, &record(ID, |_| {})).unwrap();
    changes.apply("9876wxyz", &record("9876wxyz", |_| {})).unwrap();
    changes.retain(&[ID.to_owned()].into());
    assert_eq!(changes.commit(), 1);
    assert_eq!(Ask::default().answer(&verifier).status, 200);
    changes.retain(&["9876wxyz".to_owned()].into());
    assert_eq!((changes.commit(), verifier.keys()), (0, Some(0)));
    assert_eq!(Ask::default().answer(&verifier).status, 401);
}

#[test]
fn calls_are_counted_on_whatever_becomes_of_the_record() {
    let verifier = verifier(|_| {});
    Ask::default().answer(&verifier);
    let mut changes = verifier.changes();
    let counted = |changes: &mut rampart::keys::verify::Changes, change: fn(&mut Value)| {
        changes.apply(ID, &record(ID, change)).unwrap();
        changes.commit();
        Ask::default().answer(&verifier);
        verifier.used_since(now()).first().map(|(_, used)| used.count)
    };
    assert_eq!(counted(&mut changes, |record| record["role"] = json!("Viewer")), Some(2));
    let others = |record: &mut Value| record["owner"]["customerId"] = json!("somebody-else");
    assert_eq!(counted(&mut changes, others), Some(1), "another owner's calls are their own");
}

#[test]
fn a_bad_record_takes_its_own_key_out_and_no_other() {
    let verifier = Verifier::new(vec![]);
    let mut changes = verifier.changes();
    changes.apply(ID, &record(ID, |_| {})).unwrap();
    changes.apply("9876wxyz", &record("9876wxyz", |_| {})).unwrap();
    assert!(changes.apply(ID, &record(ID, |record| record["digest"] = json!("md5:00"))).is_err());
    changes.commit();
    assert_eq!(Ask::default().answer(&verifier).status, 401);
    let other = Ask { headers: vec![("x-api-key", key("9876wxyz"))], ..Ask::default() };
    assert_eq!(other.answer(&verifier).status, 200);
}

/// The HTTP drafts' own examples, and what we say, read with a library of structured fields.
#[rstest]
#[case("\"burst\";q=100;w=60,\"daily\";q=1000;w=86400")]
#[case("\"default\";r=50;t=30")]
#[case("\"problemPolicy\";r=0;t=10")]
fn examples_of_the_draft_are_lists_of_structured_fields(#[case] field: &str) {
    let list: sfv::List = sfv::Parser::new(field).parse().unwrap();
    assert!(!list.is_empty());
}

#[test]
fn what_is_said_of_rates_parses_as_structured_fields() {
    let verifier = verifier(|_| {});
    let mut answers = vec![];
    for _ in 0..12 {
        answers.push(Ask::default().answer(&verifier));
    }
    assert_eq!(answers.last().unwrap().status, 429);
    for answer in answers {
        for (field, parameters) in [("ratelimit-policy", ["q", "w"]), ("ratelimit", ["r", "t"])] {
            let list: sfv::List = sfv::Parser::new(header(&answer, field)).parse().unwrap();
            for entry in list {
                let sfv::ListEntry::Item(item) = entry else { panic!("{field} has an inner list") };
                assert!(item.bare_item.as_string().is_some(), "a policy's name is a string");
                for name in parameters {
                    let value = item.params.get(name).and_then(sfv::BareItem::as_integer).unwrap();
                    assert!(i64::from(value) >= 0, "{field} {name}");
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever comes, an admitted request had the key of a living record for that service, once.
    #[test]
    fn nothing_but_a_good_key_is_admitted(
        headers in prop::collection::vec((prop::sample::select(vec!["authorization", "x-api-key", "cookie"]), 0_u8..6), 0..4),
        method in prop::sample::select(vec!["GET", "POST", "DELETE", "get", ""]),
        audience in prop::sample::select(vec![None, Some("orders-api"), Some("payments-api"), Some("")]),
        customer in prop::sample::select(vec![None, Some("shop"), Some("other"), Some("")]),
        state in prop::sample::select(vec!["Active", "Deprecated", "Suspended", "Revoked", "Destroyed"]),
        seconds in -10_i64..10,
    ) {
        let value = |kind: u8| match kind {
            0 => key(ID),
            1 => format!("Bearer {}", key(ID)),
            2 => key("99999999"),
            3 => format!("Bearer {}", &key(ID)[1..]),
            4 => String::new(),
            _ => format!("{0},{0}", key(ID)),
        };
        let headers: Vec<_> = headers.into_iter().map(|(name, kind)| (name, value(kind))).collect();
        let end = now() + SignedDuration::from_secs(seconds);
        let verifier = verifier(|record| {
            record["state"] = json!(state);
            record["expiresAt"] = json!(end.to_string());
        });
        let route = Route { audience, permission: None, customer };
        let ask = Ask { headers: headers.clone(), method, path: "/", route, source: None };
        if let Verdict::Admitted(admission) = ask.verdict(&verifier, now()) {
            let presented: Vec<_> = headers.iter().filter(|(name, _)| *name != "cookie").collect();
            prop_assert!(!presented.is_empty() && presented.len() <= 2);
            for (name, value) in presented {
                let form = if *name == "authorization" { format!("Bearer {}", key(ID)) } else { key(ID) };
                prop_assert_eq!(value, &form);
            }
            prop_assert!(seconds > 0 && ["Active", "Deprecated"].contains(&state));
            prop_assert_eq!(audience, Some("orders-api"));
            prop_assert!(customer.is_none_or(|customer| customer == "shop"));
            let verb = if method == "GET" { Verb::Read } else { Verb::Write };
            prop_assert!(["GET", "POST"].contains(&method) && admission.access.may(verb));
        }
    }
}
