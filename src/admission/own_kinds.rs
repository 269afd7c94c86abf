//! Validation of our own kinds, by the very parsers that the controllers use: what is admitted here can
//! be carried out, and what can't be is refused where its author sees it.

use serde::de::DeserializeOwned;

use super::{Answer, Operation, Request};
use crate::{
    api::{ApiKey, ClusterSecurityPolicy, Invalid, PolicyException, RetentionPolicy, SecurityPolicy},
    hardening::{ClusterWide, Exception},
    keys, policy, retention,
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
        "ApiKey" => validate(request, object, |key: &ApiKey| keys::Spec::parse(key, &keys::Caps::default()).map(drop)),
        "RetentionPolicy" => {
            validate(request, object, |policy: &RetentionPolicy| retention::Spec::try_from(policy).map(drop))
        }
        _ => Answer::allow(),
    }
}

fn validate<K: DeserializeOwned>(request: &Request<'_>, object: &str, check: fn(&K) -> Result<(), Invalid>) -> Answer {
    let problem = match serde_json::from_str(object).as_ref().map(check) {
        Ok(Ok(())) => return Answer::allow(),
        Ok(Err(invalid)) => invalid.to_string(),
        Err(error) => error.to_string(),
    };
    if already_so(request, object, check) {
        // An object that was admitted by an older release must still be labelled, fixed and deleted.
        return Answer::allow().with_warning(problem);
    }
    let name = request.name.as_deref().unwrap_or_default();
    Answer::deny(422, "Invalid", format!("{} {name:?} is invalid: {problem}", request.kind.kind))
}

/// Whether the spec is as it was, and was refused before too.
fn already_so<K: DeserializeOwned>(request: &Request<'_>, object: &str, check: fn(&K) -> Result<(), Invalid>) -> bool {
    let spec = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok()?.get("spec").cloned();
    let Some(old) = request.old_object.map(serde_json::value::RawValue::get) else { return false };
    let was_bad = !matches!(serde_json::from_str(old).as_ref().map(check), Ok(Ok(())));
    was_bad && spec(old) == spec(object)
}
