//! From a hold to ValidatingAdmissionPolicies and their bindings: one about what is held, one about its namespaces.
//!
//! A hold ends when these are taken back: on DELETE and UPDATE an admission policy knows no time.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::admissionregistration::v1::{
        MatchCondition, MatchResources, NamedRuleWithOperations, ValidatingAdmissionPolicy,
        ValidatingAdmissionPolicyBinding, ValidatingAdmissionPolicyBindingSpec, ValidatingAdmissionPolicySpec,
        Validation,
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
};
use sha2::{Digest as _, Sha256};

use super::{Hold, HoldKind};
use crate::{
    api::labels::{HOLD, MANAGED_BY, MANAGER, OWNER_KIND, OWNER_NAME, OWNER_NAMESPACE, OWNER_UID, PART},
    hardening::{
        SYSTEM_NAMESPACES,
        cel::{selects, strings},
    },
};

/// An admission policy and its binding, which has the same name.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// What is refused, and where.
    pub policy: ValidatingAdmissionPolicy,
    /// Puts it into force.
    pub binding: ValidatingAdmissionPolicyBinding,
}

const OLD_LABELS: &str = "oldObject.metadata.?labels.orValue({})";
const LABELS: &str = "object.metadata.?labels.orValue({})";
/// Everything at the top of an object but what the cluster itself writes. The types are left out: kinds differ.
const SAME_CONTENT: &str = "dyn(object).all(k, k in ['metadata', 'status'] || \
    (k in dyn(oldObject) && dyn(object)[k] == dyn(oldObject)[k])) && \
    dyn(oldObject).all(k, k in ['metadata', 'status'] || k in dyn(object))";
/// What was being deleted before it was held would be gone without its last finalizer.
const SAME_FINALIZERS: &str = "!has(oldObject.metadata.deletionTimestamp) || \
    oldObject.metadata.?finalizers.orValue([]).all(f, f in object.metadata.?finalizers.orValue([]))";

/// What the API server has to refuse while a hold holds.
///
/// Deterministic: the same hold gives the same names and the same text.
#[must_use]
pub fn refusals(hold: &Hold) -> [Refusal; 2] {
    [of_objects(hold), of_namespaces(hold)]
}

/// The objects: they stay, with their content and the labels by which they are held.
fn of_objects(hold: &Hold) -> Refusal {
    // In a namespace alone: who may hold there must not hold what stands in none.
    let scope = if hold.kind == HoldKind::LegalHold { "Namespaced" } else { "*" };
    let rules = hold.resources.iter().flat_map(|(group, plural)| {
        let of_status = format!("{plural}/status");
        [
            rule(group, &[plural], &["UPDATE", "DELETE"], scope),
            // Of many kinds it writes labels, too.
            rule(group, &[&of_status], &["UPDATE"], scope),
        ]
    });
    let by = about(hold);
    let may_not = |what: &str| format!("held by {by}: {what}; who may, releases the hold first (verb release)");
    let validations = vec![
        refuse("request.operation != 'DELETE'", may_not("it can't be deleted")),
        refuse_update(&selected(&hold.selector, LABELS), may_not("its labels must stay as the hold selects them")),
        refuse_update(SAME_CONTENT, may_not("its content can't be changed")),
        refuse_update(SAME_FINALIZERS, may_not("its finalizers must stay")),
    ];
    let places = Places {
        namespaces: hold.namespaces.clone(),
        objects: hold.selector.clone(),
        rules: rules.collect(),
        system: "oldObject.metadata.?namespace.orValue('')",
    };
    refusal(hold, "", places, validations)
}

/// The namespaces: they stay, with the labels by which they are selected.
fn of_namespaces(hold: &Hold) -> Refusal {
    let by = about(hold);
    let validations = vec![
        refuse(
            "request.operation != 'DELETE'",
            format!("the namespace has {by}: it can't be deleted; who may, releases the hold first (verb release)"),
        ),
        refuse_update(
            &selected(&hold.namespaces, LABELS),
            format!("the namespace has {by}: its labels must stay as the hold selects them"),
        ),
    ];
    let places = Places {
        namespaces: LabelSelector::default(),
        // The selector of namespaces would look at the new labels alone.
        objects: hold.namespaces.clone(),
        rules: vec![
            rule("", &["namespaces"], &["UPDATE", "DELETE"], "Cluster"),
            rule("", &["namespaces/status", "namespaces/finalize"], &["UPDATE"], "Cluster"),
        ],
        system: "oldObject.metadata.name",
    };
    refusal(hold, "-namespaces", places, validations)
}

/// `LegalHold shop/case-17`: neither ground nor case, which are not everybody's business.
fn about(hold: &Hold) -> String {
    let place = if hold.namespace.is_empty() { String::new() } else { format!("{}/", hold.namespace) };
    format!("{} {place}{}", hold.kind.as_str(), hold.name)
}

fn selected(selector: &LabelSelector, labels: &str) -> String {
    selects(selector, labels).unwrap_or_else(|| "true".into())
}

fn refuse(unless: &str, message: String) -> Validation {
    Validation {
        expression: unless.into(),
        message: Some(message),
        message_expression: None,
        reason: Some("Forbidden".into()),
    }
}

fn refuse_update(unless: &str, message: String) -> Validation {
    refuse(&format!("request.operation == 'DELETE' || ({unless})"), message)
}

/// Of which requests an admission policy is asked.
struct Places {
    namespaces: LabelSelector,
    objects: LabelSelector,
    rules: Vec<NamedRuleWithOperations>,
    /// The namespace that a request is about; requests that delete collections don't name objects.
    system: &'static str,
}

fn refusal(hold: &Hold, suffix: &str, places: Places, validations: Vec<Validation>) -> Refusal {
    let condition = |name: &str, expression: String| MatchCondition { name: name.into(), expression };
    let conditions = vec![
        condition("not-system", format!("!({} in {})", places.system, strings(SYSTEM_NAMESPACES))),
        // The API server selects by the new labels, too: what only comes under the hold is free to.
        condition("held", selected(&places.objects, OLD_LABELS)),
    ];
    let spec = ValidatingAdmissionPolicySpec {
        failure_policy: Some("Fail".into()),
        match_constraints: Some(MatchResources {
            match_policy: Some("Equivalent".into()),
            namespace_selector: Some(places.namespaces),
            object_selector: Some(places.objects),
            resource_rules: Some(places.rules),
            exclude_resource_rules: None,
        }),
        match_conditions: Some(conditions),
        validations: Some(validations),
        ..ValidatingAdmissionPolicySpec::default()
    };
    let name = format!("rampart-hold-{}{suffix}", identity(hold));
    let metadata = ObjectMeta { name: Some(name.clone()), labels: Some(labels(hold)), ..ObjectMeta::default() };
    let binding = ValidatingAdmissionPolicyBindingSpec {
        policy_name: name,
        validation_actions: vec!["Deny".into()],
        ..ValidatingAdmissionPolicyBindingSpec::default()
    };
    Refusal {
        policy: ValidatingAdmissionPolicy {
            metadata: metadata.clone(),
            spec: Some(spec),
            ..ValidatingAdmissionPolicy::default()
        },
        binding: ValidatingAdmissionPolicyBinding { metadata, spec: binding },
    }
}

/// Another hold of this name has another.
fn identity(hold: &Hold) -> String {
    if !hold.uid.is_empty() {
        return hold.uid.clone();
    }
    let digest = Sha256::digest(format!("{}\0{}\0{}", hold.kind.as_str(), hold.namespace, hold.name));
    hex::encode(digest).chars().take(32).collect()
}

fn labels(hold: &Hold) -> BTreeMap<String, String> {
    let kind = hold.kind.as_str();
    let mut labels = vec![(MANAGED_BY, MANAGER), (PART, HOLD), (OWNER_KIND, kind), (OWNER_NAME, &hold.name)];
    labels.extend([(OWNER_NAMESPACE, &*hold.namespace), (OWNER_UID, &*hold.uid)]);
    let present = labels.into_iter().filter(|(_, value)| !value.is_empty());
    present.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn rule(group: &str, resources: &[&str], operations: &[&str], scope: &str) -> NamedRuleWithOperations {
    let owned = |items: &[&str]| Some(items.iter().map(|item| (*item).to_owned()).collect());
    NamedRuleWithOperations {
        api_groups: owned(&[group]),
        api_versions: owned(&["*"]),
        operations: owned(operations),
        resources: owned(resources),
        resource_names: None,
        scope: Some(scope.into()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::api::{ClusterLegalHold, LegalHold};

    fn object(kind: &str, uid: &str) -> Value {
        json!({"apiVersion": "rampart.dev/v1alpha1", "kind": kind,
               "metadata": {"name": "case-17", "namespace": "shop", "uid": uid},
               "spec": {"resources": [{"group": "batch", "resource": "jobs"}, {"resource": "configmaps"}],
                        "selector": {"matchLabels": {"case": "17"}}, "namespaceSelector": {"matchLabels": {"tier": "web"}},
                        "indefinite": true, "ground": "a secret matter", "caseRef": "C-17"}})
    }

    fn legal(uid: &str) -> [Refusal; 2] {
        refusals(&Hold::try_from(&serde_json::from_value::<LegalHold>(object("LegalHold", uid)).unwrap()).unwrap())
    }

    fn wide() -> [Refusal; 2] {
        let mut object = object("ClusterLegalHold", "u");
        object["metadata"].as_object_mut().unwrap().remove("namespace");
        refusals(&Hold::try_from(&serde_json::from_value::<ClusterLegalHold>(object).unwrap()).unwrap())
    }

    fn wire(refusal: &Refusal) -> Value {
        serde_json::to_value(&refusal.policy).unwrap()
    }

    #[test]
    fn a_hold_of_a_namespace_reaches_nothing_outside_of_it() {
        let [objects, namespaces] = legal("u");
        let constraints = &wire(&objects)["spec"]["matchConstraints"];
        let own = json!({"matchLabels": {"kubernetes.io/metadata.name": "shop"}});
        assert_eq!(constraints["namespaceSelector"], own);
        for rule in constraints["resourceRules"].as_array().unwrap() {
            // Selectors of namespaces don't keep what stands in none.
            assert_eq!(rule["scope"], "Namespaced", "{rule}");
        }
        assert_eq!(wire(&namespaces)["spec"]["matchConstraints"]["objectSelector"], own);
        let [objects, _] = wide();
        let constraints = &wire(&objects)["spec"]["matchConstraints"];
        assert_eq!(constraints["namespaceSelector"], json!({"matchLabels": {"tier": "web"}}));
        assert_eq!(constraints["resourceRules"][0]["scope"], "*");
    }

    #[test]
    fn both_policies_fail_closed_deny_and_keep_the_matter_to_themselves() {
        for refusal in legal("u").iter().chain(&wide()) {
            let policy = wire(refusal);
            assert_eq!(policy["spec"]["failurePolicy"], "Fail");
            assert_eq!(refusal.binding.spec.validation_actions, ["Deny"]);
            assert_eq!(Some(&refusal.binding.spec.policy_name), refusal.policy.metadata.name.as_ref());
            let text = policy.to_string();
            assert!(text.contains("LegalHold ") && !text.contains("secret matter") && !text.contains("C-17"), "{text}");
        }
    }

    #[test]
    fn names_are_of_the_very_hold() {
        let names = |refusals: [Refusal; 2]| refusals.map(|it| it.policy.metadata.name.unwrap());
        assert_eq!(names(legal("u")), ["rampart-hold-u", "rampart-hold-u-namespaces"]);
        assert_ne!(names(legal("u")), names(legal("v")), "one that was made anew");
        assert_eq!(names(legal("")), names(legal("")), "of a file");
        assert_ne!(names(legal(""))[0], "rampart-hold-");
    }
}
