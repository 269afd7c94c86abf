//! The fix: pods that are being created are completed by what policies ask, as JSON patches (RFC 6902).

use jiff::Timestamp;
use serde_json::{Value, value::RawValue};

use super::{Answer, Operation, Request, Target};
use crate::{
    api::Fix,
    hardening::{Covering, Enforcement, Mend, mend, mount_token},
};

/// Pods of a longer text are left as they are: read as values, and compared, it takes many times its length.
pub(super) const LONGEST: usize = 256 << 10;

/// What came of fixing pods, for a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fixed {
    /// Fields were set.
    Applied,
    /// It was told what would be set.
    Previewed,
    /// Nothing that could be set makes the pod meet the policy.
    Impossible,
}

/// What is set in a pod that is being created. Several policies that ask are met one after the other; one
/// that can't be met changes nothing. During a pause pods are made as they were asked for.
#[must_use]
pub fn fix(
    request: &Request<'_>,
    policies: &[Covering],
    enforcement: Enforcement,
    now: Timestamp,
) -> (Answer, Vec<Fixed>) {
    let creates = Target::of(request) == Some(Target::Pod) && request.operation == Operation::Create;
    let mut fixing = policies.iter().filter(|covering| covering.requirement.fixes()).peekable();
    if !creates || enforcement != Enforcement::InForce {
        return (Answer::allow(), vec![]);
    }
    let Some(text) = request.object().map(RawValue::get) else { return (Answer::allow(), vec![]) };
    if text.len() > LONGEST {
        let why = format!("the pod is not completed: its text is longer than {} KiB", LONGEST >> 10);
        let told = fixing.peek().map(|_| Answer::allow().with_warning(why));
        return (told.unwrap_or_else(Answer::allow), vec![]);
    }
    let before = serde_json::from_str::<Value>(text).ok();
    let Some(before) = before else { return (Answer::allow(), vec![]) };
    let (mut pod, mut answer, mut outcomes, mut set) = (before.clone(), Answer::allow(), vec![], vec![]);
    // First what is changed, so that a preview tells of what is left.
    let (applying, previewing): (Vec<_>, Vec<_>) = fixing.partition(|it| it.requirement.fix == Fix::Apply);
    for covering in applying.into_iter().chain(previewing) {
        // What is no pod, the API server refuses itself.
        let Ok(mended) = mend(covering, &pod, now) else { return (Answer::allow(), vec![]) };
        answer.warnings.extend(told(covering, &mended));
        match (mended, covering.requirement.fix) {
            (Mend::Meets, _) => {}
            (Mend::Set { fields, pod: with }, Fix::Apply) => {
                outcomes.push(Fixed::Applied);
                set.extend(fields);
                pod = with;
            }
            (Mend::Set { .. }, _) => outcomes.push(Fixed::Previewed),
            (Mend::Cannot(_), _) => outcomes.push(Fixed::Impossible),
        }
    }
    if !set.is_empty() {
        answer.audit_annotations.insert("fix".into(), set.join(", "));
        answer.patch(&json_patch::diff(&before, &pod));
    }
    (answer, outcomes)
}

/// What whoever makes an object with a pod template is told of what becomes of its pods.
pub(super) fn told_of_template(request: &Request<'_>, policies: &[Covering], now: Timestamp) -> Vec<String> {
    let mut fixing = policies.iter().filter(|covering| covering.requirement.fixes()).peekable();
    if fixing.peek().is_none() {
        return vec![];
    }
    let object = request.object().filter(|object| object.get().len() <= LONGEST);
    let template = Target::of(request).zip(object).and_then(|(target, it)| target.pod::<Value>(it.get()).ok()?);
    let Some(mut pod) = template else { return vec![] };
    // As it comes to be completed: what can't be taken away then must not be promised.
    mount_token(&mut pod);
    fixing.filter_map(|covering| told(covering, &mend(covering, &pod, now).ok()?)).collect()
}

/// What is done for a policy, in a line.
fn told(covering: &Covering, mended: &Mend) -> Option<String> {
    let (kind, name) = covering.origin.named()?;
    let policy = format!("{kind} {name}");
    match (mended, covering.requirement.fix) {
        (Mend::Meets, _) | (_, Fix::Disabled) => None,
        (Mend::Set { fields, .. }, Fix::Apply) => Some(format!("{policy} sets {} in the pod", fields.join(", "))),
        (Mend::Set { fields, .. }, Fix::Preview) => {
            Some(format!("{policy} with fix: Apply would set {} in the pod", fields.join(", ")))
        }
        (Mend::Cannot(fields), _) => {
            let fields = fields.join(", ");
            Some(format!("{policy} sets nothing in the pod: a fix would have to change {fields}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::ByteString;
    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use crate::{
        admission::Review,
        hardening::{Origin, Requirement},
    };

    fn covering(name: &str, fix: &str, level: &str, rules: &Value) -> Covering {
        let hardening = json!({"mode": "Audit", "podSecurity": {"level": level}, "rules": rules, "fix": fix});
        let requirement = Requirement::try_from(&serde_json::from_value(hardening).unwrap()).unwrap();
        Covering { origin: Origin::SecurityPolicy(name.into()), made: None, requirement, exceptions: Arc::default() }
    }

    fn asked(policies: &[Covering], operation: &str, spec: &Value, enforcement: Enforcement) -> (Value, Vec<Fixed>) {
        let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
            "uid": "1", "kind": {"group": "", "version": "v1", "kind": "Pod"}, "operation": operation,
            "object": {"spec": spec}, "oldObject": {"spec": spec}}});
        let text = review.to_string();
        let request = Review::parse(text.as_bytes()).unwrap();
        let (answer, outcomes) = fix(&request, policies, enforcement, Timestamp::UNIX_EPOCH);
        let mut body: Value = serde_json::from_slice(&answer.to_body("1").unwrap()).unwrap();
        (body["response"].take(), outcomes)
    }

    fn patch(response: &Value) -> Value {
        assert_eq!(response["patchType"], "JSONPatch");
        let patch: ByteString = serde_json::from_value(response["patch"].clone()).unwrap();
        serde_json::from_slice(&patch.0).unwrap()
    }

    #[test]
    fn the_patch_adds_what_is_unset_and_nothing_else() {
        let policies = [covering("p", "Apply", "restricted", &json!({}))];
        let spec = json!({"containers": [{"name": "a", "securityContext": {"runAsGroup": 7}}]});
        let (response, outcomes) = asked(&policies, "CREATE", &spec, Enforcement::InForce);
        let container = "/spec/containers/0/securityContext";
        assert_eq!(
            patch(&response),
            json!([
                {"op": "add", "path": format!("{container}/allowPrivilegeEscalation"), "value": false},
                {"op": "add", "path": format!("{container}/capabilities"), "value": {"drop": ["ALL"]}},
                {"op": "add", "path": "/spec/securityContext",
                 "value": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}}},
            ])
        );
        assert_eq!(outcomes, [Fixed::Applied]);
        assert_eq!(response["allowed"], true);
        assert!(response["auditAnnotations"]["fix"].as_str().unwrap().contains("runAsNonRoot=true"));
    }

    #[rstest]
    #[case::an_update("UPDATE", "Apply", json!({}), Enforcement::InForce, &[])]
    #[case::a_pause("CREATE", "Apply", json!({}), Enforcement::Paused, &[])]
    #[case::a_preview("CREATE", "Preview", json!({}), Enforcement::InForce, &[Fixed::Previewed])]
    #[case::no_remedy("CREATE", "Apply", json!({"hostPID": true}), Enforcement::InForce, &[Fixed::Impossible])]
    #[case::windows("CREATE", "Apply", json!({"os": {"name": "windows"}}), Enforcement::InForce, &[Fixed::Impossible])]
    fn nothing_is_changed(
        #[case] operation: &str,
        #[case] mode: &str,
        #[case] more: Value,
        #[case] enforcement: Enforcement,
        #[case] wanted: &[Fixed],
    ) {
        let mut spec = json!({"containers": [{"name": "a"}]});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let policies = [covering("p", mode, "restricted", &json!({}))];
        let (response, outcomes) = asked(&policies, operation, &spec, enforcement);
        assert_eq!((response.get("patch"), outcomes.as_slice()), (None, wanted));
        assert_eq!(response.get("warnings").is_some(), !wanted.is_empty(), "{response}");
    }

    #[test]
    fn a_pod_that_is_too_long_is_left_as_it_is() {
        let policies = [covering("p", "Apply", "restricted", &json!({}))];
        let spec = json!({"containers": [{"name": "a", "args": ["a".repeat(LONGEST)]}]});
        let (response, outcomes) = asked(&policies, "CREATE", &spec, Enforcement::InForce);
        assert_eq!((response.get("patch"), outcomes.len()), (None, 0));
        assert_eq!(response["warnings"], json!(["the pod is not completed: its text is longer than 256 KiB"]));
    }

    #[rstest]
    #[case::it_is_mounted_before(json!({}), Some("p sets nothing in the pod: a fix would have to change spec.volumes[0].projected"))]
    #[case::it_is_not(json!({"automountServiceAccountToken": false}), None)]
    fn of_a_template_no_fix_is_promised_that_comes_too_late(#[case] more: Value, #[case] wanted: Option<&str>) {
        let mut spec = json!({"containers": [{"name": "a"}]});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
            "uid": "1", "kind": {"group": "apps", "version": "v1", "kind": "Deployment"}, "operation": "CREATE",
            "object": {"spec": {"template": {"spec": spec}}}}});
        let text = review.to_string();
        let request = Review::parse(text.as_bytes()).unwrap();
        let policies = [covering("p", "Apply", "privileged", &json!({"serviceAccountToken": "Forbidden"}))];
        let told = told_of_template(&request, &policies, Timestamp::UNIX_EPOCH);
        assert_eq!(told, wanted.map(|it| format!("SecurityPolicy {it}")).into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn policies_add_up_and_one_that_cant_be_met_changes_nothing() {
        let policies = [
            covering(
                "impossible",
                "Apply",
                "privileged",
                &json!({"resourceLimits": ["memory"], "userNamespaces": "Required"}),
            ),
            covering("told", "Preview", "restricted", &json!({"readOnlyRootFilesystem": "Required"})),
            covering("met", "Apply", "restricted", &json!({})),
        ];
        let spec = json!({"containers": [{"name": "a"}]});
        let (response, outcomes) = asked(&policies, "CREATE", &spec, Enforcement::InForce);
        assert_eq!(outcomes, [Fixed::Impossible, Fixed::Applied, Fixed::Previewed]);
        let patch = patch(&response).to_string();
        assert!(
            !patch.contains("hostUsers") && !patch.contains("readOnly") && patch.contains("runAsNonRoot"),
            "{patch}"
        );
        let last = response["warnings"].as_array().unwrap().last().unwrap().as_str().unwrap().to_owned();
        let left = "SecurityPolicy told with fix: Apply would set spec.containers[0].securityContext.readOnlyRootFilesystem=true in the pod";
        assert_eq!(last, left, "what is left after the others");
    }
}
