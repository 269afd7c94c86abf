//! Which profile of `kubectl debug` a refused debug container would pass with.

use std::collections::HashSet;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::Request;
use crate::{
    api::HardeningMode,
    hardening::{Covering, Seen, findings},
};

/// What profiles set in an ephemeral container, the most capable first (`k8s.io/kubectl`,
/// pkg/cmd/debug/profiles.go).
fn profiles() -> [(&'static str, Value); 3] {
    [
        ("general", json!({"capabilities": {"add": ["SYS_PTRACE"]}})),
        ("baseline", Value::Null),
        (
            "restricted",
            json!({"runAsNonRoot": true, "capabilities": {"drop": ["ALL"]}, "allowPrivilegeEscalation": false,
                   "seccompProfile": {"type": "RuntimeDefault"}}),
        ),
    ]
}

/// Debug containers above which nobody is helped: a pod is judged once more for each profile.
const MOST: usize = 64;

/// The first profile with which nothing that is enforced would refuse the new debug containers of a request; `None`
/// where the request is about none, or no profile would help.
pub(super) fn profile(request: &Request<'_>, policies: &[Covering], now: Timestamp) -> Option<&'static str> {
    if request.sub_resource.as_deref() != Some("ephemeralcontainers") {
        return None;
    }
    let (new, old): (Value, Value) =
        (serde_json::from_str(request.object()?.get()).ok()?, serde_json::from_str(request.old_object?.get()).ok()?);
    let of =
        |pod: &Value| pod.pointer("/spec/ephemeralContainers").and_then(Value::as_array).cloned().unwrap_or_default();
    let name = |container: &Value| container.get("name").and_then(Value::as_str).map(ToOwned::to_owned);
    let known: HashSet<String> = of(&old).iter().filter_map(name).collect();
    if known.len() > MOST {
        return None;
    }
    let passes = |context: &Value| {
        let mut pod = new.clone();
        let debug = pod.pointer_mut("/spec/ephemeralContainers").and_then(Value::as_array_mut);
        for container in debug.into_iter().flatten().filter_map(Value::as_object_mut) {
            if !container.get("name").and_then(Value::as_str).is_some_and(|name| known.contains(name)) {
                container.insert("securityContext".into(), context.clone());
            }
        }
        let text = pod.to_string();
        let Ok(seen) = Seen::read(&text, true) else { return false };
        let found = findings(policies, &seen, now);
        found.iter().all(|finding| finding.covering.requirement.mode != HardeningMode::Enforce)
    };
    profiles().into_iter().find(|(_, context)| passes(context)).map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rstest::rstest;

    use super::*;
    use crate::{
        admission::{Review, decide},
        hardening::{Enforcement, Origin, Requirement},
    };

    #[rstest]
    #[case::baseline("baseline", json!({}), Some("baseline"))]
    #[case::restricted("restricted", json!({}), Some("restricted"))]
    #[case::the_pod_itself_violates("baseline", json!({"hostNetwork": true}), None)]
    fn the_denial_names_the_profile(#[case] level: &str, #[case] more: Value, #[case] wanted: Option<&str>) {
        let hardening = json!({"mode": "Enforce", "podSecurity": {"level": level}});
        let requirement = Requirement::try_from(&serde_json::from_value(hardening).unwrap()).unwrap();
        let origin = Origin::SecurityPolicy("p".into());
        let covering = Covering { origin, requirement, exceptions: Arc::default() };
        let context = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
        let mut old = json!({"spec": {
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "a", "image": "x", "securityContext": context}]}});
        old["spec"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let mut new = old.clone();
        new["spec"]["ephemeralContainers"] =
            json!([{"name": "debugger", "image": "busybox", "securityContext": {"privileged": true}}]);
        let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
            "uid": "1", "kind": {"group": "", "version": "v1", "kind": "Pod"}, "subResource": "ephemeralcontainers",
            "operation": "UPDATE", "object": new, "oldObject": old}});
        let text = review.to_string();
        let request = Review::parse(text.as_bytes()).unwrap();
        let answer = decide(&request, &[covering], Enforcement::InForce, Timestamp::UNIX_EPOCH);
        let message = answer.status.unwrap().message;
        let named = message.split_once("; `kubectl debug --profile=").and_then(|(_, rest)| rest.split_once('`'));
        assert_eq!(named.map(|(name, _)| name), wanted, "{message}");
    }
}
