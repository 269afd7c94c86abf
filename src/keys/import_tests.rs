use rstest::rstest;
use serde_json::{Value, json};

use super::*;
use crate::{
    api::ApiKey,
    keys::{Caps, Observed, Spec, Step, adoption::AdoptionKey, decide, is_issue},
};

fn key(more: &Value) -> ApiKey {
    let mut spec = json!({
        "owner": {"customerId": "shop"}, "audiences": ["api.github.com"], "ttl": "8760h", "secret": {"name": "s"},
        "source": {"imported": {"secretRef": {"name": "github", "key": "token"}, "format": "ghp_[A-Za-z0-9]{36}"}},
    });
    let fields = spec.as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    fields.retain(|_, value| !value.is_null());
    serde_json::from_value(json!({"metadata": {"name": "k", "namespace": "shop"}, "spec": spec})).unwrap()
}

fn parse(more: &Value) -> Result<Spec, String> {
    Spec::parse(&key(more), &Caps::default()).map_err(|invalid| invalid.to_string())
}

fn import(format: &Value) -> Import {
    let from = json!({"secretRef": {"name": "github", "key": "token"}, "format": format});
    parse(&json!({"source": {"imported": from}})).unwrap().imported.unwrap()
}

const TOKEN: &str = "ghp_R4nd0mQ7xV2bK9sLw3TzYc8HfJ5uN1mPgEaD";

#[rstest]
#[case(json!({"prefix": "ghp"}), "spec.prefix: must be left out")]
#[case(json!({"role": "Viewer"}), "spec.role: must be left out")]
#[case(json!({"permissions": ["a.b"]}), "spec.permissions: must be left out")]
#[case(json!({"rateLimit": {"perDay": 5}}), "spec.rateLimit: must be left out")]
#[case(json!({"suspended": true}), "spec.suspended: must be left out")]
#[case(json!({"ttl": null}), "spec.ttl: is required for an imported token")]
#[case(json!({"rotation": {"policy": "Disabled"}}), "spec.rotation.policy: must be Automatic or Manual")]
#[case(json!({"rotation": {"windows": [{"cron": "0 2 * * *", "duration": "1h"}]}}), "spec.rotation.windows: must be left")]
#[case(json!({"rotation": {"retireWhen": "ElapsedAndIdle"}}), "spec.rotation.retireWhen: must be Elapsed")]
#[case(json!({"secret": {"name": "s", "deletionPolicy": "Retain"}}), "spec.secret.deletionPolicy: must be Delete")]
#[case(json!({"secret": {"name": "github"}}), "spec.secret.name: must be another Secret")]
#[case(json!({"source": {"imported": {"secretRef": {"name": "a", "key": "b"}, "format": "a)|(b"}}}), "spec.source.imported.format: is no regular expression")]
#[case(json!({"source": {"imported": {"secretRef": {"name": "a", "key": "b"}, "format": "((a{99}){99}){99}"}}}), "spec.source.imported.format: is no regular expression")]
#[case(json!({"source": {"imported": {"secretRef": {"name": "a", "key": "b"}, "format": "ghp_R.*"}}}), "spec.source.imported.format: must be a name in front")]
#[case(json!({"source": null, "role": "Viewer"}), "spec.prefix: is required")]
#[case(json!({"source": {"generated": {}}, "role": "Viewer"}), "spec.prefix: is required")]
#[case(json!({"owner": {"customerId": "acme"}}), "spec.owner.customerId: must be \"shop\"")]
fn what_does_not_go_with_an_imported_token(#[case] more: Value, #[case] wanted: &str) {
    let said = parse(&more).map_or_else(|said| said, |_| "allowed".into());
    assert!(said.starts_with(wanted), "{said}");
}

#[test]
fn an_imported_token_is_granted_nothing_here_and_is_never_idle() {
    let spec = parse(&json!({})).unwrap();
    assert_eq!(spec.grant, Some(crate::keys::Grant::nothing()));
    assert_eq!((spec.suspend_idle_after, spec.suspended), (None, false));
    let revoked = parse(&json!({"revocation": {"reason": "Leaked"}})).unwrap();
    assert_eq!(revoked.imported.unwrap().secret, "github", "else its versions were taken for another's, and left");
}

#[rstest]
#[case(json!(null), TOKEN, "good")]
#[case(json!("ghp_[A-Za-z0-9]{36}"), TOKEN, "good")]
#[case(json!("(?:a|ghp)_.*"), TOKEN, "good")]
#[case(json!("ghp_[A-Za-z0-9]{35}"), TOKEN, "TokenMalformed: does not match")]
#[case(json!("ghp_[0-9]*"), TOKEN, "TokenMalformed: does not match")]
#[case(json!(null), "", "TokenMalformed: is empty")]
#[case(json!(null), " ghp_R4nd0mQ7xV2bK9sLw3TzYc8HfJ5uN1mPgEaD", "TokenMalformed: begins or ends with a space")]
#[case(json!(null), "ghp_R4nd0mQ7xV2bK9sLw3TzYc8HfJ5uN1mPgEaD\n", "TokenMalformed: ends in a line break")]
#[case(json!(null), "ghp_R4nd0mQ7xV2bK9sLw3TzYc8HfJ5uN1mPgEä", "TokenMalformed: is not printable ASCII")]
#[case(json!(null), "correct horse", "TokenWeak")]
#[case(json!("hunt.*"), "hunter2", "TokenWeak")]
fn what_a_token_must_be_like(#[case] format: Value, #[case] token: &str, #[case] wanted: &str) {
    let import = import(&format);
    let said = match import.read(token.as_bytes()) {
        Ok(read) => {
            assert_eq!((read.expose(), format!("{read:?}").as_str()), (token, "TokenText"), "and it is never printed");
            "good".to_owned()
        }
        Err(fault) => {
            let problem = import.problem(fault);
            let text = problem.to_string();
            assert!(text.contains("github") && (token.is_empty() || !text.contains(token.trim())), "{text}");
            let how = if let Fault::Malformed(how) = fault { format!(": {how}") } else { String::new() };
            format!("{}{how}", problem.reason())
        }
    };
    assert!(said.starts_with(wanted), "{said}");
}

#[rstest]
#[case("2027-01-31T00:00:00Z", true)]
#[case(" 2027-01-31T01:00:00+01:00\n", true)]
#[case("2027-01-31T00:00:00.9Z", true)]
#[case("2027-01-31", false)]
#[case("2027-01-31 00:00:00 UTC", false)]
#[case("1801353600", false)]
#[case("never", false)]
#[case("", false)]
fn when_a_token_ends(#[case] annotation: &str, #[case] is_read: bool) {
    let at = "2027-01-31T00:00:00Z".parse().unwrap();
    assert_eq!(read_end(annotation), if is_read { Ok(at) } else { Err(Fault::NoTime) });
    let problem = import(&json!(null)).problem(Fault::NoTime);
    assert_eq!(problem.reason(), "TokenExpiryMalformed");
    let text = problem.to_string();
    assert!(text.contains("rampart.dev/token-expires-at of Secret github") && text.contains("RFC 3339"), "{text}");
}

#[test]
fn longer_than_any_token() {
    let long = TOKEN.repeat(300);
    assert!(matches!(import(&json!(null)).read(long.as_bytes()), Err(Fault::Malformed(how)) if how.contains("8192")));
    assert!(matches!(import(&json!(null)).read(&[0xff; 40]), Err(Fault::Malformed(_))));
}

/// The spec of a key whose format an earlier build took, and what is to be mended.
fn tolerated(more: &Value) -> (Spec, Option<Invalid>) {
    let from = json!({"secretRef": {"name": "github", "key": "token"}, "format": "ghp_R.*"});
    let mut fields = json!({"source": {"imported": from}});
    fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Spec::tolerate(&key(&fields), &Caps::default()).unwrap()
}

/// What comes after all that is only written into status, unless that begins a version.
fn next(spec: &Spec, seen: &mut Observed, now: &str) -> Step {
    loop {
        let step = decide(spec, seen, now.parse().unwrap());
        match &step {
            Step::Remember(status) if !is_issue(&step, seen) => seen.status.clone_from(status),
            _ => return step,
        }
    }
}

#[test]
fn of_a_format_of_before_what_lives_ends_and_nothing_is_taken() {
    let (spec, beyond) = tolerated(&json!({}));
    let beyond = beyond.unwrap();
    assert!(beyond.field == FORMAT_FIELD && beyond.problem.contains("(ghp|gho)_[A-Za-z0-9]{36}"), "{beyond}");
    assert_eq!((spec.rotation.interval, spec.ttl.as_hours()), (None, 8760));
    let import = spec.imported.as_ref().unwrap();
    assert!(import.read(TOKEN.replace("_R", "_S").as_bytes()).is_ok(), "no token is asked for it");

    let version = json!({"n": 1, "id": "aaaaaaaa", "state": "Current", "createdAt": "2026-01-01T00:00:00Z",
                         "expiresAt": "2027-01-01T00:00:00Z"});
    let status = serde_json::from_value(json!({"currentVersion": 1, "versions": [version]})).unwrap();
    let offered = Token { id: "bbbbbbbb".into(), digest: "sha256:bb".into(), ends: None };
    let mut seen = Observed { status, supplied: Some(Ok(offered)), ..Observed::default() };
    let step = next(&spec, &mut seen, "2026-06-01T00:00:00Z");
    assert!(is_issue(&step, &seen), "{step:?}");
    let ended = next(&spec, &mut seen, "2027-01-01T00:00:00Z");
    assert!(matches!(&ended, Step::EndRecord { id, .. } if id == "aaaaaaaa"), "{ended:?}");
    // When the system that issued it says so, and when it is revoked, too.
    let ends = Some("2026-07-01T00:00:00Z".parse().unwrap());
    seen.supplied = Some(Ok(Token { id: "aaaaaaaa".into(), digest: "sha256:aa".into(), ends }));
    assert!(matches!(next(&spec, &mut seen, "2026-06-01T00:00:00Z"), Step::CreateSecret { n: 1 }));
    let ended = next(&spec, &mut seen, "2026-07-01T00:00:00Z");
    assert!(matches!(&ended, Step::EndRecord { id, .. } if id == "aaaaaaaa"), "{ended:?}");
    let (revoked, beyond) = tolerated(&json!({"revocation": {"reason": "Leaked"}}));
    assert_eq!((revoked.revoked.as_deref(), beyond), (Some("Leaked"), None));
}

#[test]
fn the_id_of_a_token_is_the_same_in_a_namespace_and_tells_nothing_of_it() {
    let key = |byte| AdoptionKey::new(vec![byte; 32]).unwrap();
    let id = key(1).token_id("shop", "sha256:aa");
    assert_eq!(id, key(1).token_id("shop", "sha256:aa"));
    assert!(crate::keys::verify::KeyId::parse(&id).is_some(), "it can name a record: {id}");
    let others = [
        key(1).token_id("shop", "sha256:ab"),
        key(1).token_id("else", "sha256:aa"),
        key(2).token_id("shop", "sha256:aa"),
    ];
    assert!(others.iter().all(|other| *other != id), "{id}: {others:?}");
}
