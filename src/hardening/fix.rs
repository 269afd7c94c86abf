//! What would make a pod meet a policy without changing anything that the pod says.

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{Covering, Finding, Seen, judge::finding};

/// What can be done for a pod that is to meet a policy.
#[derive(Debug, Clone, PartialEq)]
pub enum Mend {
    /// Nothing is to be done: it meets the policy.
    Meets,
    /// These fields are unset, and with these values it does: `spec.hostUsers=false`.
    Set {
        /// The fields, with their values.
        fields: Vec<String>,
        /// The pod with them.
        pod: Value,
    },
    /// Nothing: these fields are set otherwise, or have no value that is right for every pod.
    Cannot(Vec<String>),
}

/// Tries to make a pod, or a pod template, meet a policy at a time. Windows pods are left as they are: what
/// the standards ask is about Linux.
///
/// # Errors
/// When the JSON is no pod.
pub fn mend(covering: &Covering, pod: &Value, now: Timestamp) -> serde_json::Result<Mend> {
    let text = pod.to_string();
    let seen = Seen::read(&text, true)?;
    let Some(finding) = finding(covering, &covering.exceptions, &seen, now) else { return Ok(Mend::Meets) };
    if is_windows(pod) {
        return Ok(Mend::Cannot(vec!["spec.os.name".into()]));
    }
    let (mut mended, mut fields, mut blocked) = (pod.clone(), vec![], vec![]);
    for wanted in wanted(&finding) {
        let value = wanted.value.and_then(|value| serde_json::from_str::<Value>(value).ok());
        // Another check may have asked for the same.
        if value.is_some() && mended.pointer(&wanted.pointer) == value.as_ref() {
            continue;
        }
        let value = value.filter(|_| !is_annotated(pod, &wanted.pointer) && !escalates(pod, &wanted.pointer));
        match value.and_then(|value| Some((vacant(&mut mended, &wanted.pointer)?, value))) {
            Some((place, value)) => {
                fields.push(format!("{}={value}", wanted.field));
                *place = value;
            }
            None => blocked.push(wanted.field),
        }
    }
    blocked.dedup();
    if !blocked.is_empty() {
        return Ok(Mend::Cannot(blocked));
    }
    let text = mended.to_string();
    let still = self::finding(covering, &covering.exceptions, &Seen::read(&text, true)?, now);
    Ok(still.map_or(Mend::Set { fields, pod: mended }, |finding| {
        Mend::Cannot(wanted(&finding).into_iter().map(|wanted| wanted.field).collect())
    }))
}

/// A field that is not as a policy asks.
struct Wanted<'f> {
    field: String,
    pointer: String,
    value: Option<&'f str>,
}

fn wanted<'f>(finding: &'f Finding<'_>) -> Vec<Wanted<'f>> {
    let of_checks = finding.violations.iter().flat_map(|violation| &violation.fixes);
    let of_checks = of_checks.map(|fix| (&fix.path, fix.value.as_deref()));
    let of_rules = finding.rules.iter().flat_map(|violation| &violation.complaints);
    let all = of_checks.chain(of_rules.map(|complaint| (&complaint.path, complaint.fix)));
    all.map(|(path, value)| {
        let pointer = path.pointer();
        // A volume without a source that we know has one that we don't.
        let value = value.filter(|_| !pointer.starts_with("/spec/volumes/"));
        Wanted { field: path.to_string(), pointer, value }
    })
    .collect()
}

/// The place of a field that is unset, made where its parents are unset, too; `None` where it is set.
fn vacant<'v>(root: &'v mut Value, pointer: &str) -> Option<&'v mut Value> {
    let mut at = root;
    for token in pointer.split('/').skip(1) {
        if at.is_null() {
            *at = Value::Object(Map::new());
        }
        at = match at {
            Value::Object(fields) => fields.entry(token.replace("~1", "/").replace("~0", "~")).or_insert(Value::Null),
            Value::Array(items) => items.get_mut(token.parse::<usize>().ok()?)?,
            _ => return None,
        };
    }
    at.is_null().then_some(at)
}

/// Whether a profile is set by an annotation, which the API server wants equal to the field
/// (`ValidatePodSpec`, "type in annotation and field must match").
fn is_annotated(pod: &Value, pointer: &str) -> bool {
    const PROFILES: [(&str, &str); 2] =
        [("/seccompProfile", "seccomp.security.alpha."), ("/appArmorProfile", "apparmor.security.beta.")];
    let annotations = pod.pointer("/metadata/annotations").and_then(Value::as_object);
    let has = |profile: &str| annotations.is_some_and(|all| all.keys().any(|key| key.contains(profile)));
    PROFILES.iter().any(|(field, profile)| pointer.contains(field) && has(profile))
}

/// Whether the API server takes no container that is forbidden to escalate (`validateContainerSecurityContext`,
/// "cannot set `allowPrivilegeEscalation` to false and ..."): an exception may be for what makes it so alone.
fn escalates(pod: &Value, pointer: &str) -> bool {
    let Some(context) = pointer.strip_suffix("/allowPrivilegeEscalation") else { return false };
    let at = |field: &str| pod.pointer(&format!("{context}/{field}"));
    let added = at("capabilities/add").and_then(Value::as_array);
    at("privileged").and_then(Value::as_bool) == Some(true)
        || added.is_some_and(|added| added.iter().any(|name| name == "CAP_SYS_ADMIN"))
}

/// By the field, or by where it may run: older manifests have no `spec.os`.
fn is_windows(pod: &Value) -> bool {
    let says = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str) == Some("windows");
    says("/spec/os/name") || says("/spec/nodeSelector/kubernetes.io~1os")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use crate::hardening::{Exception, Origin, Requirement};

    fn covering(hardening: Value) -> Covering {
        let requirement = Requirement::try_from(&serde_json::from_value(hardening).unwrap()).unwrap();
        Covering { origin: Origin::SecurityPolicy("p".into()), made: None, requirement, exceptions: Arc::default() }
    }

    fn restricted() -> Value {
        json!({"mode": "Audit", "podSecurity": {"level": "restricted"}})
    }

    fn mended(hardening: Value, spec: &Value) -> Mend {
        mend(&covering(hardening), &json!({"spec": spec}), Timestamp::UNIX_EPOCH).unwrap()
    }

    #[test]
    fn what_is_unset_is_set_and_the_rest_stays() {
        let spec = json!({"containers": [
            {"name": "a", "securityContext": {"capabilities": {"add": ["NET_BIND_SERVICE"]}, "runAsGroup": 7}},
            {"name": "b", "unknown": {"stays": true}},
        ]});
        let Mend::Set { fields, pod } = mended(restricted(), &spec) else { panic!("not mended") };
        let context = |container: usize| &pod["spec"]["containers"][container]["securityContext"];
        assert_eq!(
            *context(0),
            json!({"capabilities": {"add": ["NET_BIND_SERVICE"], "drop": ["ALL"]}, "runAsGroup": 7,
                   "allowPrivilegeEscalation": false})
        );
        assert_eq!(*context(1), json!({"capabilities": {"drop": ["ALL"]}, "allowPrivilegeEscalation": false}));
        assert_eq!(pod["spec"]["containers"][1]["unknown"], json!({"stays": true}));
        assert_eq!(
            pod["spec"]["securityContext"],
            json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}})
        );
        assert_eq!(fields.len(), 6, "{fields:?}");
        assert!(fields.contains(&"spec.securityContext.runAsNonRoot=true".to_owned()), "{fields:?}");
        assert_eq!(mend(&covering(restricted()), &pod, Timestamp::UNIX_EPOCH).unwrap(), Mend::Meets, "idempotent");
    }

    #[rstest]
    #[case::set_otherwise(json!({"securityContext": {"runAsNonRoot": false}}), "spec.securityContext.runAsNonRoot")]
    #[case::forbidden_value(json!({"hostNetwork": true}), "spec.hostNetwork")]
    #[case::volume_of_a_kind_that_came_later(
        json!({"volumes": [{"name": "v", "teleport": {}}]}), "spec.volumes[0].emptyDir"
    )]
    #[case::windows(json!({"os": {"name": "windows"}}), "spec.os.name")]
    #[case::windows_by_its_nodes(json!({"nodeSelector": {"kubernetes.io/os": "windows"}}), "spec.os.name")]
    #[case::a_list_is_not_added_to(
        json!({"containers": [{"name": "a", "securityContext": {"capabilities": {"drop": ["KILL"]}}}]}),
        "spec.containers[0].securityContext.capabilities.drop"
    )]
    fn nothing_is_changed_where_that_would_not_do(#[case] more: Value, #[case] field: &str) {
        let mut spec = json!({"containers": [{"name": "a"}]});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        assert_eq!(mended(restricted(), &spec), Mend::Cannot(vec![field.into()]));
    }

    #[rstest]
    #[case(json!({"userNamespaces": "Required"}), json!({}), Some("spec.hostUsers=false"))]
    #[case::the_api_server_takes_no_such_pod(json!({"userNamespaces": "Required"}), json!({"hostPID": true}), None)]
    #[case::nor_one_with_a_block_device(
        json!({"userNamespaces": "Required"}),
        json!({"initContainers": [{"name": "i", "volumeDevices": [{"name": "d", "devicePath": "/dev/d"}]}]}), None
    )]
    #[case::without_any(
        json!({"userNamespaces": "Required"}), json!({"initContainers": [{"name": "i", "volumeDevices": []}]}),
        Some("spec.hostUsers=false")
    )]
    #[case(
        json!({"readOnlyRootFilesystem": "Required"}), json!({}),
        Some("spec.containers[0].securityContext.readOnlyRootFilesystem=true")
    )]
    #[case::no_value_is_right_for_every_pod(json!({"resourceLimits": ["memory"]}), json!({}), None)]
    fn rules_are_met_too(#[case] rules: Value, #[case] more: Value, #[case] wanted: Option<&str>) {
        let mut spec = json!({"containers": [{"name": "a"}]});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let hardening = json!({"mode": "Enforce", "podSecurity": {"level": "privileged"}, "rules": rules});
        let set = match mended(hardening, &spec) {
            Mend::Set { fields, .. } => Some(fields),
            Mend::Cannot(_) => None,
            Mend::Meets => panic!("it was judged"),
        };
        assert_eq!(set, wanted.map(|field| vec![field.to_owned()]));
    }

    /// Two containers that are to meet the restricted standard, but for what the second is excepted from.
    fn mended_beside(rules: &[&str], second: &Value) -> Mend {
        let exception = json!({"metadata": {"name": "e"}, "spec": {
            "policies": [{"kind": "SecurityPolicy", "name": "p"}], "rules": rules, "images": ["**"],
            "containers": ["b"], "reason": "a test", "expiresAt": "2027-01-01T00:00:00Z",
        }});
        let exception = Exception::try_from(&serde_json::from_value(exception).unwrap()).unwrap();
        let covering = Covering { exceptions: [exception].into(), ..covering(restricted()) };
        let pod = json!({"spec": {"containers": [{"name": "a"}, {"name": "b", "securityContext": second}]}});
        mend(&covering, &pod, Timestamp::UNIX_EPOCH).unwrap()
    }

    #[test]
    fn nothing_is_set_for_a_container_that_is_excepted() {
        let excepted = ["pss/runAsNonRoot", "pss/seccompProfile_restricted"];
        let Mend::Set { pod, .. } = mended_beside(&excepted, &json!({})) else { panic!("not mended") };
        assert_eq!(pod["spec"].get("securityContext"), None, "it would be that of both");
        let hardened = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
        let context = |container: usize| pod["spec"]["containers"][container]["securityContext"].clone();
        assert_eq!(context(1), hardened);
        let mut of_first = hardened;
        (of_first["runAsNonRoot"], of_first["seccompProfile"]) = (json!(true), json!({"type": "RuntimeDefault"}));
        assert_eq!(context(0), of_first);
    }

    #[rstest]
    #[case::privileged("pss/privileged", json!({"privileged": true}), false)]
    #[case::an_administrator("pss/capabilities_restricted", json!({"capabilities": {"add": ["CAP_SYS_ADMIN"]}}), false)]
    #[case::taken_by_the_api_server("pss/capabilities_restricted", json!({"capabilities": {"add": ["SYS_ADMIN"]}}), true)]
    fn a_container_that_must_escalate_is_left_alone(#[case] rule: &str, #[case] second: Value, #[case] set: bool) {
        match mended_beside(&[rule], &second) {
            Mend::Set { .. } => assert!(set, "the API server refuses it"),
            mended => {
                let field = "spec.containers[1].securityContext.allowPrivilegeEscalation".to_owned();
                assert_eq!((mended, set), (Mend::Cannot(vec![field]), false));
            }
        }
        // Nothing is left to be set where that is excepted, too.
        assert!(matches!(mended_beside(&[rule, "pss/allowPrivilegeEscalation"], &second), Mend::Set { .. }));
    }

    #[rstest]
    #[case("seccomp.security.alpha.kubernetes.io/pod", "localhost/a")]
    #[case("container.seccomp.security.alpha.kubernetes.io/a", "runtime/default")]
    #[case("container.apparmor.security.beta.kubernetes.io/a", "localhost/a")]
    fn a_profile_that_an_annotation_sets_is_left_alone(#[case] key: &str, #[case] value: &str) {
        let pod = json!({"metadata": {"annotations": {key: value}}, "spec": {"containers": [{"name": "a"}]}});
        let asked = json!({"mode": "Audit", "podSecurity": {"level": "restricted"}, "rules": {"appArmor": {}}});
        let Mend::Cannot(fields) = mend(&covering(asked), &pod, Timestamp::UNIX_EPOCH).unwrap() else {
            panic!("the API server refuses a field beside the annotation");
        };
        assert!(fields.iter().all(|field| field.contains("Profile")), "{fields:?}");
    }
}
