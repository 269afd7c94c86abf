//! Which profile of `kubectl debug` a debug container would pass with that is refused, or warned about.

use std::collections::HashSet;

use jiff::Timestamp;
use serde_json::{Value, json, value::RawValue};

use super::{Request, fix::LONGEST};
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

/// The first profile with which the new debug containers of a request violate no policy of a mode above `silent`: with
/// Warn nothing refuses them, with Audit nothing warns about them either. `None` where the request is about none, or no
/// profile would help.
pub(super) fn profile(
    request: &Request<'_>,
    policies: &[Covering],
    silent: HardeningMode,
    now: Timestamp,
) -> Option<&'static str> {
    if request.sub_resource.as_deref() != Some("ephemeralcontainers") {
        return None;
    }
    let read = |pod: &RawValue| -> Option<Value> {
        let text = Some(pod.get()).filter(|text| text.len() <= LONGEST)?;
        serde_json::from_str(text).ok()
    };
    let (new, old) = (read(request.object()?)?, read(request.old_object?)?);
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
        let found = findings(policies, &seen.scheduled(), now);
        found.iter().all(|finding| finding.covering.requirement.mode <= silent)
    };
    profiles().into_iter().find(|(_, context)| passes(context)).map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rstest::rstest;

    use super::*;
    use crate::{
        admission::{Answer, Review, decide},
        hardening::{Enforcement, Origin, Requirement},
    };

    /// The answer to a privileged debug container, where policies of these modes ask these levels.
    fn answered(policies: &[(&str, &str)], more: &Value, enforcement: Enforcement) -> Answer {
        let covering = |(mode, level): &(&str, &str)| {
            let hardening = json!({"mode": mode, "podSecurity": {"level": level}});
            let requirement = Requirement::try_from(&serde_json::from_value(hardening).unwrap()).unwrap();
            Covering { origin: Origin::SecurityPolicy("p".into()), made: None, requirement, exceptions: Arc::default() }
        };
        let policies: Vec<Covering> = policies.iter().map(covering).collect();
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
        decide(&request, &policies, enforcement, Timestamp::UNIX_EPOCH)
    }

    /// The profile that is named at the end.
    fn named(message: &str) -> Option<&str> {
        let (_, named) = message.split_once("; `kubectl debug --profile=")?;
        named.strip_suffix("` would pass")
    }

    #[rstest]
    #[case::baseline("baseline", json!({}), Some("baseline"))]
    #[case::restricted("restricted", json!({}), Some("restricted"))]
    #[case::the_pod_itself_violates("baseline", json!({"hostNetwork": true}), None)]
    #[case::too_long_to_be_read_again("baseline", json!({"hostname": "a".repeat(LONGEST)}), None)]
    fn the_denial_names_the_profile(#[case] level: &str, #[case] more: Value, #[case] wanted: Option<&str>) {
        let answer = answered(&[("Enforce", level), ("Warn", "restricted")], &more, Enforcement::InForce);
        let message = answer.status.unwrap().message;
        assert_eq!(named(&message), wanted, "{message}");
        assert!(answer.warnings.is_empty(), "{:?}", answer.warnings);
    }

    #[rstest]
    #[case::baseline(&[("Warn", "baseline")], json!({}), &[Some("baseline")])]
    #[case::restricted(&[("Warn", "restricted")], json!({}), &[Some("restricted")])]
    #[case::for_all_of_them(&[("Warn", "restricted"), ("Warn", "baseline")], json!({}), &[None, Some("restricted")])]
    #[case::what_is_paused(&[("Warn", "baseline"), ("Enforce", "restricted")], json!({}), &[None, Some("restricted")])]
    #[case::what_is_audited_does_not(&[("Warn", "baseline"), ("Audit", "restricted")], json!({}), &[Some("baseline")])]
    #[case::nobody_warns(&[("Audit", "restricted")], json!({}), &[])]
    #[case::the_pod_itself_violates(&[("Warn", "baseline")], json!({"hostNetwork": true}), &[None])]
    fn the_last_warning_names_the_profile(
        #[case] policies: &[(&str, &str)],
        #[case] more: Value,
        #[case] wanted: &[Option<&str>],
    ) {
        let answer = answered(policies, &more, Enforcement::Paused);
        assert!(answer.allowed);
        let told: Vec<Option<&str>> = answer.warnings.iter().map(|warning| named(warning)).collect();
        assert_eq!(told, wanted, "{:?}", answer.warnings);
    }
}
