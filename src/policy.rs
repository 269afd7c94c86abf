//! A SecurityPolicy, parsed whole.

use thiserror::Error;

use crate::{
    api::{HardeningMode, Invalid, NetworkMode, Reciprocal, SecurityPolicy},
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

/// The intent of another policy, with its namespace and name, where an intent accepts it: while it is enforced, also
/// where it is suspended, which leaves everything as it is.
#[must_use]
pub fn accepted(intent: &Intent, other: &SecurityPolicy) -> Option<(String, String, Intent)> {
    let (namespace, name) = (other.metadata.namespace.clone()?, other.metadata.name.clone()?);
    let key = (namespace, name);
    let enforces = other.spec.network.as_ref().is_some_and(|it| it.mode == NetworkMode::Enforce);
    if !intent.accept_from.contains(&key) || !enforces {
        return None;
    }
    let theirs = self::intent(other, &key.0).ok().flatten()?;
    Some((key.0, key.1, theirs))
}

/// Why nothing is opened for a policy of another namespace that an intent accepts, as far as that is for the policy as a
/// whole; `None` for `other`: there is none of that name.
#[must_use]
pub fn consent_unused(other: Option<&SecurityPolicy>) -> Option<&'static str> {
    let Some(other) = other else { return Some("there is no such policy") };
    if other.spec.network.as_ref().is_none_or(|it| it.mode != NetworkMode::Enforce) {
        return Some("its network part is not enforced: it sets no spec.network.mode: Enforce");
    }
    match intent(other, other.metadata.namespace.as_deref().unwrap_or_default()) {
        Ok(Some(theirs)) if theirs.reciprocal == Reciprocal::Generate => None,
        Ok(_) => Some("it does not ask for it: it sets no spec.network.reciprocal: Generate"),
        Err(_) => Some("its spec is refused, as its status tells"),
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
        let why = |namespace: &str, network: serde_json::Value| {
            let metadata = json!({"name": "a", "namespace": namespace});
            let spec =
                json!({"hardening": {"mode": "Audit", "podSecurity": {"level": "baseline"}}, "network": network});
            let other: SecurityPolicy = serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap();
            consent_unused(Some(&other)).unwrap_or_default()
        };
        let network = |mode: &str, reciprocal: &str| json!({"mode": mode, "podSelector": {}, "isolate": ["Ingress"], "reciprocal": reciprocal});
        assert_eq!(why("a", network("Enforce", "Generate")), "");
        assert!(why("a", network("Preview", "Generate")).contains("mode: Enforce"));
        assert!(why("a", network("Enforce", "Report")).contains("reciprocal: Generate"));
        assert!(why("kube-system", network("Enforce", "Generate")).contains("refused"));
        assert!(consent_unused(None).unwrap().contains("no such policy"));
    }

    #[test]
    fn what_is_accepted_stays_while_its_policy_is_suspended() {
        let policy = |name: &str, suspend: bool, mode: &str, accepts: serde_json::Value| -> SecurityPolicy {
            let network = json!({"mode": mode, "podSelector": {}, "isolate": ["Ingress"], "acceptFrom": accepts});
            let metadata = json!({"name": name, "namespace": name});
            serde_json::from_value(json!({"metadata": metadata, "spec": {"suspend": suspend, "network": network}}))
                .unwrap()
        };
        let accepting = policy("b", false, "Enforce", json!([{"namespace": "a", "policy": "a"}]));
        let accepting = intent(&accepting, "b").unwrap().unwrap();
        let is_accepted = |suspend, mode| accepted(&accepting, &policy("a", suspend, mode, json!([]))).is_some();
        assert!(is_accepted(false, "Enforce") && is_accepted(true, "Enforce"));
        assert!(!is_accepted(false, "Preview"));
    }
}
