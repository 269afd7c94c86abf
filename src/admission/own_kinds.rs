//! Validation of our own kinds, by the very parsers that the controllers use: what is admitted here can
//! be carried out, and what can't be is refused where its author sees it.

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Answer, Operation, Request};
use crate::{
    api::{
        ApiKey, ClusterLegalHold, ClusterSecurityPolicy, Invalid, LegalHold, PolicyException, RetentionPolicy,
        SecurityPolicy,
    },
    hardening::{ClusterWide, Exception},
    keys::{Caps, FORMAT_FIELD, Spec},
    policy,
    retention::{self, Hold},
};

pub(super) fn decide(request: &Request<'_>) -> Answer {
    let Some(object) = request.object() else { return Answer::allow() };
    if !matches!(request.operation, Operation::Create | Operation::Update) {
        return Answer::allow();
    }
    let object = object.get();
    match &*request.kind.kind {
        "SecurityPolicy" => validate(request, object, |policy: &SecurityPolicy| policy::parse(policy).map(drop)),
        "ClusterSecurityPolicy" => {
            validate(request, object, |policy: &ClusterSecurityPolicy| ClusterWide::try_from(policy).map(drop))
        }
        "PolicyException" => {
            validate(request, object, |exception: &PolicyException| Exception::try_from(exception).map(drop))
        }
        "RetentionPolicy" => {
            validate(request, object, |policy: &RetentionPolicy| retention::Spec::try_from(policy).map(drop))
        }
        "LegalHold" => validate_hold::<LegalHold>(request, object, Hold::before),
        "ClusterLegalHold" => validate_hold::<ClusterLegalHold>(request, object, Hold::cluster_before),
        _ => Answer::allow(),
    }
}

/// Whether a request is about an ApiKey, which [`decide_api_key`] judges.
#[must_use]
pub fn is_of_api_key(request: &Request<'_>) -> bool {
    request.kind.group == crate::GROUP && request.kind.kind == "ApiKey"
}

/// Decides a request about an ApiKey, within the caps of its namespace.
#[must_use]
pub fn decide_api_key(request: &Request<'_>, caps: &Caps) -> Answer {
    let Some(object) = request.object() else { return Answer::allow() };
    if !matches!(request.operation, Operation::Create | Operation::Update) {
        return Answer::allow();
    }
    let read = |text: &str| serde_json::from_str::<ApiKey>(text);
    let old = request.old_object.and_then(|old| read(old.get()).ok());
    if let (Some(old), Ok(new)) = (old, read(object.get()))
        && let Ok((_, Some(beyond))) = Spec::tolerate(&new, caps)
        && asks_the_same(&old, &new)
        && (beyond.field != FORMAT_FIELD || old.spec.source == new.spec.source)
    {
        // A cap or a rule that came later must keep nobody from suspending, revoking or mending the key.
        return Answer::allow().with_warning(format!("no new version of the key is issued: {beyond}"));
    }
    validate(request, object.get(), |key: &ApiKey| Spec::parse(key, caps).map(drop))
}

/// Whether two ApiKeys ask for the same of what caps are about.
fn asks_the_same(old: &ApiKey, new: &ApiKey) -> bool {
    let (old, new) = (&old.spec, &new.spec);
    (&old.owner, &old.audiences, &old.role, &old.permissions, old.ttl, &old.rate_limit)
        == (&new.owner, &new.audiences, &new.role, &new.permissions, new.ttl, &new.rate_limit)
        && (old.rotation.policy, old.rotation.interval) == (new.rotation.policy, new.rotation.interval)
}

/// A hold that earlier builds admitted, and that nobody can make any more, may be given a sooner end.
fn validate_hold<K: DeserializeOwned>(request: &Request<'_>, object: &str, before: fn(&K) -> Option<Hold>) -> Answer
where
    for<'a> Hold: TryFrom<&'a K, Error = Invalid>,
{
    let answer = validate(request, object, |hold: &K| Hold::try_from(hold).map(drop));
    let read = |text: &str| before(&serde_json::from_str::<K>(text).ok()?);
    let both = request.old_object.and_then(|old| Some((read(old.get())?, read(object)?)));
    let is_no_longer = both.is_some_and(|(old, new)| new.is_no_longer_than(&old));
    let refused = answer.status.as_ref().filter(|_| is_no_longer).map(|status| status.message.clone());
    refused.map_or(answer, |why| Answer::allow().with_warning(why))
}

fn validate<K: DeserializeOwned>(
    request: &Request<'_>,
    object: &str,
    check: impl Fn(&K) -> Result<(), Invalid>,
) -> Answer {
    let check = &check;
    let problem = match serde_json::from_str(object).as_ref().map(check) {
        Ok(Ok(())) => return Answer::allow(),
        Ok(Err(invalid)) => invalid.to_string(),
        Err(error) => far_time_of(object).unwrap_or_else(|| error.to_string()),
    };
    if already_so(request, object, check) {
        // An object that was admitted by an older release must still be labelled, fixed and deleted.
        return Answer::allow().with_warning(problem);
    }
    let name = request.name.as_deref().unwrap_or_default();
    Answer::deny(422, "Invalid", format!("{} {name:?} is invalid: {problem}", request.kind.kind))
}

/// Names the field of the spec with a time that the schema admits (RFC 3339) and that can't be read: [`Timestamp`] ends
/// two hours and a day before the year 9999 does.
fn far_time_of(object: &str) -> Option<String> {
    let object: Value = serde_json::from_str(object).ok()?;
    far_time(object.get("spec")?, "spec")
}

fn far_time(value: &Value, field: &str) -> Option<String> {
    let is_time = |text: &str| matches!(text.as_bytes(), [_, _, _, _, b'-', _, _, b'-', _, _, b'T' | b't', ..]);
    match value {
        Value::Object(fields) => fields.iter().find_map(|(name, value)| far_time(value, &format!("{field}.{name}"))),
        Value::Array(items) => {
            items.iter().enumerate().find_map(|(index, value)| far_time(value, &format!("{field}[{index}]")))
        }
        Value::String(text) if is_time(text) && text.parse::<Timestamp>().is_err() => {
            Some(format!("{field}: {text:?} can't be told: write a time before 9999-12-30T22:00:00Z"))
        }
        _ => None,
    }
}

/// Whether the spec is as it was, and was refused before too.
fn already_so<K: DeserializeOwned>(
    request: &Request<'_>,
    object: &str,
    check: &impl Fn(&K) -> Result<(), Invalid>,
) -> bool {
    let spec = |text: &str| serde_json::from_str::<Value>(text).ok()?.get("spec").cloned();
    let Some(old) = request.old_object.map(serde_json::value::RawValue::get) else { return false };
    let was_bad = !matches!(serde_json::from_str(old).as_ref().map(check), Ok(Ok(())));
    was_bad && spec(old) == spec(object)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use crate::{admission::Review, api::KeyCaps, keys::PolicyCaps};

    fn key(more: &Value) -> Value {
        let mut key = json!({
            "apiVersion": "rampart.dev/v1alpha1", "kind": "ApiKey", "metadata": {"name": "k", "namespace": "shop"},
            "spec": {"owner": {"customerId": "shop"}, "audiences": ["orders-api"], "role": "Editor",
                     "prefix": "shop", "secret": {"name": "s"}},
        });
        let spec = key["spec"].as_object_mut().unwrap();
        spec.extend(more.as_object().unwrap().clone());
        key
    }

    fn decided(old: Option<&Value>, new: &Value) -> (bool, String) {
        let viewers: KeyCaps = serde_json::from_value(json!({"roles": [{"name": "Viewer"}]})).unwrap();
        let caps = Caps::of(vec![("caps".into(), Arc::new(PolicyCaps::try_from(&viewers).unwrap()))]);
        let review = json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": {
                "uid": "u", "kind": {"group": "rampart.dev", "version": "v1alpha1", "kind": "ApiKey"},
                "resource": {"group": "rampart.dev", "version": "v1alpha1", "resource": "apikeys"},
                "name": "k", "namespace": "shop", "operation": if old.is_some() { "UPDATE" } else { "CREATE" },
                "userInfo": {"username": "me"}, "object": new, "oldObject": old,
            },
        })
        .to_string();
        let request = Review::parse(review.as_bytes()).unwrap();
        assert!(is_of_api_key(&request));
        let answer = decide_api_key(&request, &caps);
        let said = answer.status.map(|status| status.message).into_iter().chain(answer.warnings);
        (answer.allowed, said.collect::<Vec<_>>().join("; "))
    }

    #[test]
    fn a_key_beyond_a_cap_is_refused_with_the_field_and_the_policy() {
        let wanted = "ApiKey \"k\" is invalid: spec.role: must be one of Viewer (ClusterSecurityPolicy caps)";
        assert_eq!(decided(None, &key(&json!({}))), (false, wanted.into()));
        assert_eq!(decided(None, &key(&json!({"role": "Viewer"}))), (true, String::new()));
    }

    #[test]
    fn a_time_that_the_schema_admits_and_nobody_can_count_with_is_named_by_its_field() {
        let last = "9999-12-31T23:59:59Z";
        let said = format!("spec.hardExpiry: {last:?} can't be told: write a time before 9999-12-30T22:00:00Z");
        let refused = format!("ApiKey \"k\" is invalid: {said}");
        assert_eq!(decided(None, &key(&json!({"role": "Viewer", "hardExpiry": last}))), (false, refused));
        let field =
            |object: &Value| far_time_of(&object.to_string()).map(|it| it.split(": ").next().map(str::to_owned));
        assert_eq!(field(&json!({"spec": {"a": [{"b": "x"}, {"b": last}]}})), Some(Some("spec.a[1].b".into())));
        assert_eq!(field(&json!({"spec": {"a": "9999-12-30T22:00:00Z", "b": "until"}, "status": {"at": last}})), None);
    }

    #[test]
    fn a_format_of_before_keeps_nobody_from_ending_a_token_and_no_other_comes_in() {
        let token = |format: &str, more: &Value| {
            let from = json!({"secretRef": {"name": "github", "key": "token"}, "format": format});
            let mut spec = json!({"role": null, "prefix": "", "ttl": "8760h", "source": {"imported": from}});
            spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            key(&spec)
        };
        let may = |old: Option<&Value>, new: &Value| {
            let (allowed, said) = decided(old, new);
            (allowed, said.contains("spec.source.imported.format: must be a name in front"))
        };
        let (as_before, ends) = (json!({}), json!({"hardExpiry": "2030-01-01T00:00:00Z"}));
        let curious = token("ghp_R.*", &as_before);
        let good = token("ghp_[A-Za-z0-9]{36}", &as_before);
        assert_eq!(may(None, &curious), (false, true));
        assert_eq!(may(Some(&good), &curious), (false, true));
        assert_eq!(may(Some(&curious), &token("ghp_RS.*", &as_before)), (false, true));
        // Who is admitted all the same is told.
        assert_eq!(may(Some(&curious), &curious), (true, true));
        assert_eq!(may(Some(&curious), &token("ghp_R.*", &ends)), (true, true));
        assert_eq!(may(Some(&curious), &good), (true, false));
        let revoked = token("ghp_R.*", &json!({"revocation": {"reason": "Leaked"}}));
        assert_eq!(may(Some(&curious), &revoked), (true, false));
    }

    /// What is said of a hold of these kinds, with this change of its terms, and whether it is admitted.
    fn decided_of_hold(old: Option<(&Value, &Value)>, new: (&Value, &Value)) -> (bool, String) {
        let hold = |(kinds, change): (&Value, &Value)| {
            let mut spec = json!({"resources": kinds, "selector": {}, "indefinite": true, "ground": "litigation"});
            spec.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            json!({"apiVersion": "rampart.dev/v1alpha1", "kind": "LegalHold",
                   "metadata": {"name": "case-17", "namespace": "shop"}, "spec": spec})
        };
        let review = json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": {
                "uid": "u", "kind": {"group": "rampart.dev", "version": "v1alpha1", "kind": "LegalHold"},
                "resource": {"group": "rampart.dev", "version": "v1alpha1", "resource": "legalholds"},
                "name": "case-17", "namespace": "shop", "operation": if old.is_some() { "UPDATE" } else { "CREATE" },
                "userInfo": {"username": "me"}, "object": hold(new), "oldObject": old.map(hold),
            },
        })
        .to_string();
        let answer = decide(&Review::parse(review.as_bytes()).unwrap());
        let said = answer.status.map(|status| status.message).into_iter().chain(answer.warnings);
        (answer.allowed, said.collect::<Vec<_>>().join("; "))
    }

    #[test]
    fn a_hold_of_before_may_end_sooner_and_no_new_one_comes_in() {
        let keys = json!([{"group": "rampart.dev", "resource": "apikeys"}]);
        let maps = json!([{"resource": "configmaps"}]);
        let both = json!([keys[0], maps[0]]);
        let until = |year: i32| json!({"indefinite": null, "until": format!("{year}-01-01T00:00:00Z")});
        let (sooner, later, ever) = (until(2030), until(2040), json!({}));
        let other = json!({"selector": {"matchLabels": {"case": "17"}}});
        let may = |old: Option<(&Value, &Value)>, new: (&Value, &Value)| {
            let (allowed, said) = decided_of_hold(old, new);
            // Whoever is admitted all the same is told.
            assert_eq!(said.contains("apikeys can't be held"), new.0 != &maps, "{said}");
            allowed
        };
        assert!(!may(None, (&keys, &ever)) && !may(None, (&keys, &sooner)));
        assert!(!may(Some((&maps, &later)), (&both, &sooner)) && !may(Some((&maps, &ever)), (&keys, &ever)));
        assert!(may(Some((&keys, &ever)), (&keys, &later)) && may(Some((&both, &later)), (&both, &sooner)));
        assert!(!may(Some((&keys, &sooner)), (&keys, &later)) && !may(Some((&keys, &later)), (&keys, &ever)));
        assert!(!may(Some((&keys, &ever)), (&both, &ever)) && !may(Some((&both, &ever)), (&keys, &ever)));
        assert!(!may(Some((&keys, &ever)), (&keys, &other)));
        assert!(may(Some((&keys, &ever)), (&keys, &ever)) && may(Some((&both, &ever)), (&maps, &ever)));
    }

    #[rstest]
    #[case(json!({"revocation": {"reason": "Leaked"}}), true)]
    #[case(json!({"suspended": true}), true)]
    #[case(json!({"role": "Viewer"}), true)]
    #[case(json!({"role": "Admin"}), false)]
    #[case(json!({"ttl": "9000h"}), false)]
    #[case(json!({"rotation": {"interval": "1h", "overlap": "2h"}}), false)]
    fn a_cap_that_came_later_keeps_nobody_from_ending_a_key(#[case] change: Value, #[case] allowed: bool) {
        let (is_allowed, said) = decided(Some(&key(&json!({}))), &key(&change));
        assert_eq!(is_allowed, allowed, "{said}");
        // Of one that ends nobody asks what it may do.
        let is_within = change["role"] == "Viewer" || change.get("revocation").is_some();
        assert_eq!(said.is_empty(), is_within, "{said}");
    }
}
