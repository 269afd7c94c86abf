//! A SecurityPolicy, parsed whole.

use thiserror::Error;

use crate::{
    api::{HardeningMode, Invalid, NetworkMode, Reciprocal, SecurityPolicy, condition::Type},
    hardening::{Requirement, is_system_namespace},
    network::{Intent, meets},
};

/// Reads a policy whole; webhook, controller and index all do it here.
///
/// # Errors
/// At the first field that is not accepted.
pub fn parse(policy: &SecurityPolicy) -> Result<(Option<Requirement>, Option<Intent>), Invalid> {
    let hardening = policy.spec.hardening.as_ref().map(Requirement::try_from).transpose()?;
    let network = policy.spec.network.as_ref().map(Intent::try_from).transpose()?;
    let disabled = policy.spec.network.as_ref().is_none_or(|network| network.mode == NetworkMode::Disabled);
    meets(policy.spec.data_class, network.as_ref().filter(|_| !disabled))?;
    Ok((hardening, network))
}

/// Why nothing of a policy is rendered.
#[derive(Debug, Error)]
pub enum Refused {
    /// A field is not accepted.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// It hardens a namespace where it is not heard.
    #[error("spec.hardening: pods of {0} are never judged by a SecurityPolicy: remove it")]
    NotPermitted(String),
}

/// The namespace, name and intent of another policy, where an intent accepts it. No intent where what the other one has
/// in force is not what its spec says, as in a preview, or while it is refused or suspended: what was opened for it stays.
#[must_use]
pub fn accepted(intent: &Intent, other: &SecurityPolicy, in_force: bool) -> Option<(String, String, Option<Intent>)> {
    let (namespace, name) = (other.metadata.namespace.clone()?, other.metadata.name.clone()?);
    let key = (namespace, name);
    let mode = mode(other);
    if !intent.accept_from.contains(&key) || mode == NetworkMode::Disabled {
        return None;
    }
    let theirs =
        if in_force && mode == NetworkMode::Enforce { self::intent(other, &key.0).ok().flatten() } else { None };
    Some((key.0, key.1, theirs))
}

/// Whether the status of a policy says that its spec as it is now is in force.
#[must_use]
pub fn is_programmed(policy: &SecurityPolicy) -> bool {
    policy.status.iter().flat_map(|status| &status.conditions).any(|it| {
        let is_so = it.type_ == Type::Programmed.as_str() && it.status == "True";
        is_so && it.observed_generation == policy.metadata.generation
    })
}

fn mode(policy: &SecurityPolicy) -> NetworkMode {
    policy.spec.network.as_ref().map_or(NetworkMode::Disabled, |network| network.mode)
}

/// Why nothing is opened for a policy of another namespace that an intent accepts, or no more than was, as far as that is
/// for the policy as a whole; `None` for `other`: there is none of that name.
#[must_use]
pub fn consent_unused(other: Option<&SecurityPolicy>, in_force: bool) -> Option<&'static str> {
    let Some(other) = other else { return Some("nothing is opened for it: there is no such policy") };
    match mode(other) {
        NetworkMode::Disabled => {
            return Some(
                "nothing is opened for it: its network part is not enforced: it sets no spec.network.mode: Enforce",
            );
        }
        NetworkMode::Preview => {
            return Some(
                "no more is opened for it than was: its network part is not enforced: it sets no spec.network.mode: \
                 Enforce",
            );
        }
        NetworkMode::Enforce => {}
    }
    match intent(other, other.metadata.namespace.as_deref().unwrap_or_default()) {
        Err(_) => Some("no more is opened for it than was: its spec is refused, as its status tells"),
        Ok(_) if !in_force => {
            Some("no more is opened for it than was: what it asks is not in force, as its status tells")
        }
        Ok(Some(theirs)) if theirs.reciprocal == Reciprocal::Generate => None,
        Ok(_) => Some("nothing is opened for it: it does not ask for it: it sets no spec.network.reciprocal: Generate"),
    }
}

/// The network intent to render in a namespace, if any; hardening is checked along, so that one answer covers the
/// spec.
///
/// # Errors
/// When the policy is not accepted there.
pub fn intent(policy: &SecurityPolicy, namespace: &str) -> Result<Option<Intent>, Refused> {
    let hardens = policy.spec.hardening.as_ref().is_some_and(|it| it.mode != HardeningMode::Disabled);
    if hardens && is_system_namespace(namespace) {
        return Err(Refused::NotPermitted(namespace.into()));
    }
    let (_, intent) = parse(policy)?;
    let disabled = policy.spec.network.as_ref().is_none_or(|network| network.mode == NetworkMode::Disabled);
    Ok(intent.filter(|_| !disabled))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_that_asks_for_nothing_is_refused_by_the_api_server() {
        let said = |spec: serde_json::Value| {
            let policy: SecurityPolicy =
                serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "shop"}, "spec": spec})).unwrap();
            policy.validate_cel().err().map(|errors| errors.to_string()).unwrap_or_default()
        };
        let nothing = "set hardening or network, or both";
        assert!(said(json!({"dataClass": "Public"})).contains(nothing));
        let network = json!({"podSelector": {}, "isolate": ["Ingress"]});
        assert!(!said(json!({"network": network})).contains(nothing));
    }

    #[test]
    fn a_consent_that_opens_nothing_says_why() {
        let why_of = |namespace: &str, network: serde_json::Value, in_force: bool| {
            let metadata = json!({"name": "a", "namespace": namespace});
            let spec =
                json!({"hardening": {"mode": "Audit", "podSecurity": {"level": "baseline"}}, "network": network});
            let other: SecurityPolicy = serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap();
            consent_unused(Some(&other), in_force).unwrap_or_default()
        };
        let network = |mode: &str, reciprocal: &str| json!({"mode": mode, "podSelector": {}, "isolate": ["Ingress"], "reciprocal": reciprocal});
        let why = |namespace: &str, network: serde_json::Value| why_of(namespace, network, true);
        assert_eq!(why("a", network("Enforce", "Generate")), "");
        assert!(why_of("a", network("Enforce", "Generate"), false).contains("than was: what it asks is not in force"));
        assert!(why("a", network("Preview", "Generate")).contains("than was: its network part is not enforced"));
        assert!(why("a", network("Disabled", "Generate")).starts_with("nothing is opened for it"));
        assert!(why("a", network("Enforce", "Report")).contains("reciprocal: Generate"));
        assert!(why("kube-system", network("Enforce", "Generate")).contains("refused"));
        assert!(consent_unused(None, false).unwrap().contains("no such policy"));
    }

    #[test]
    fn what_is_opened_follows_what_its_policy_has_in_force() {
        let policy = |name: &str, mode: &str, accepts: serde_json::Value| -> SecurityPolicy {
            let network = json!({"mode": mode, "podSelector": {}, "isolate": ["Ingress"], "acceptFrom": accepts});
            let metadata = json!({"name": name, "namespace": name});
            serde_json::from_value(json!({"metadata": metadata, "spec": {"network": network}})).unwrap()
        };
        let accepting = policy("b", "Enforce", json!([{"namespace": "a", "policy": "a"}]));
        let accepting = intent(&accepting, "b").unwrap().unwrap();
        // Whether it is heard at all, and what it asks is to be opened.
        let is_accepted = |name: &str, mode, in_force| {
            let found = accepted(&accepting, &policy(name, mode, json!([])), in_force);
            (found.is_some(), found.is_some_and(|(.., intent)| intent.is_some()))
        };
        assert_eq!(is_accepted("a", "Enforce", true), (true, true));
        assert_eq!(is_accepted("a", "Enforce", false), (true, false), "it is refused, or suspended");
        assert_eq!(is_accepted("a", "Preview", true), (true, false));
        assert_eq!(is_accepted("a", "Disabled", true), (false, false));
        assert_eq!(is_accepted("c", "Enforce", true), (false, false));
    }

    #[test]
    fn what_status_says_of_another_generation_is_not_programmed() {
        let is_so = |status: &str, generation: i64| {
            let condition = json!({"type": "Programmed", "status": status, "reason": "R", "message": "",
                "observedGeneration": generation, "lastTransitionTime": "2026-01-01T00:00:00Z"});
            let policy = json!({"metadata": {"name": "a", "generation": 2}, "spec": {},
                "status": {"conditions": [condition]}});
            is_programmed(&serde_json::from_value(policy).unwrap())
        };
        assert_eq!([is_so("True", 2), is_so("True", 1), is_so("False", 2)], [true, false, false]);
    }
}
