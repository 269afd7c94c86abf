//! Fields that a kind does not have, and kinds and versions that Rampart does not have. An API server tells whoever writes
//! them; here they would be passed over.

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use serde_json::Value;

use super::source::Found;
use crate::{GROUP, api::crd_of};

/// The version of our kinds.
pub(super) const VERSION: &str = "v1alpha1";

/// What is no business of a kind's own, or written by the operator alone.
const FREE: [&str; 4] = ["apiVersion", "kind", "metadata", "status"];

/// Schemas of our kinds, of which [`FREE`] takes anything: each made when an object of its kind is first looked at.
#[derive(Default)]
struct Schemas(BTreeMap<String, Option<JSONSchemaProps>>);

impl Schemas {
    fn of(&mut self, kind: &str) -> Option<&JSONSchemaProps> {
        self.0.entry(kind.to_owned()).or_insert_with(|| schema(kind)).as_ref()
    }
}

fn schema(kind: &str) -> Option<JSONSchemaProps> {
    let anything = JSONSchemaProps { x_kubernetes_preserve_unknown_fields: Some(true), ..JSONSchemaProps::default() };
    let version = crd_of(kind)?.spec.versions.into_iter().next()?;
    let mut schema = version.schema?.open_api_v3_schema?;
    schema.properties.get_or_insert_default().extend(FREE.map(|field| (field.to_owned(), anything.clone())));
    Some(schema)
}

/// Takes out objects of our group with a kind, a version or fields that there are not: each is bad input.
pub(super) fn refuse_unknown(found: &mut Found) {
    let Found { objects, unreadable } = found;
    let mut schemas = Schemas::default();
    objects.retain(|object| {
        let problems = unknown(&object.value, &mut schemas);
        unreadable.extend(problems.iter().map(|why| object.unreadable(why)));
        problems.is_empty()
    });
}

/// What to say of each field of an object that its kind does not have; nothing of a kind that is not ours.
fn unknown(object: &Value, schemas: &mut Schemas) -> Vec<String> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (kind, name) = (text("/kind"), text("/metadata/name"));
    let Some((GROUP, version)) = text("/apiVersion").split_once('/') else { return vec![] };
    if version != VERSION {
        return vec![format!("{kind} {name} is of {GROUP}/{version}: write apiVersion: {GROUP}/{VERSION}")];
    }
    let Some(schema) = schemas.of(kind) else {
        return vec![format!("{kind} {name} is of a kind that {GROUP}/{VERSION} does not have: correct its kind")];
    };
    let mut found = vec![];
    walk("", object, schema, &mut |field: &str, known: &str| {
        found.push(format!(
            "{kind} {name} has a field {field} that its kind does not know: correct or remove it (known there: {known})"
        ));
    });
    found
}

/// Tells of each field that its schema does not have: where it is, and what would be known there.
fn walk(place: &str, value: &Value, schema: &JSONSchemaProps, tell: &mut impl FnMut(&str, &str)) {
    if schema.x_kubernetes_preserve_unknown_fields == Some(true) {
        return;
    }
    let below = |name: &str| if place.is_empty() { name.to_owned() } else { format!("{place}.{name}") };
    match (value, &schema.properties, &schema.additional_properties, &schema.items) {
        // The keys of a map are its own.
        (Value::Object(map), _, Some(JSONSchemaPropsOrBool::Schema(each)), _) => {
            for (key, value) in map {
                walk(&below(key), value, each, tell);
            }
        }
        (Value::Object(fields), Some(known), ..) => {
            for (name, value) in fields {
                if let Some(schema) = known.get(name) {
                    walk(&below(name), value, schema, tell);
                } else {
                    tell(&below(name), &known.keys().map(String::as_str).collect::<Vec<_>>().join(", "));
                }
            }
        }
        (Value::Array(items), .., Some(JSONSchemaPropsOrArray::Schema(each))) => {
            for (index, item) in items.iter().enumerate() {
                walk(&format!("{place}[{index}]"), item, each, tell);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use crate::cli::source;

    /// The fields that are told of.
    fn fields(object: &Value) -> Vec<String> {
        let said = unknown(object, &mut Schemas::default()).into_iter();
        said.map(|said| said.split("has a field ").nth(1).unwrap().split(' ').next().unwrap().to_owned()).collect()
    }

    #[rstest]
    #[case::misspelt(json!({"hardening": {"modee": "Enforce"}}), &["spec.hardening.modee"])]
    #[case::each(json!({"network": {"isolates": []}, "suspended": true}), &["spec.network.isolates", "spec.suspended"])]
    #[case::in_a_list(
        json!({"network": {"egress": [{"name": "a"}, {"name": "b", "peers": [{"entitty": "DNS"}]}]}}),
        &["spec.network.egress[1].peers[0].entitty"]
    )]
    #[case::keys_of_a_map_are_free(json!({"network": {"podSelector": {"matchLabels": {"modee": "a"}}}}), &[])]
    #[case::another_form_is_for_who_reads_it(json!({"hardening": ["modee"], "network": null}), &[])]
    fn a_field_that_the_kind_does_not_have_is_named(#[case] spec: Value, #[case] wanted: &[&str]) {
        let policy = json!({"apiVersion": "rampart.dev/v1alpha1", "kind": "SecurityPolicy", "spec": spec});
        assert_eq!(fields(&policy), wanted);
    }

    #[test]
    fn beside_the_spec_only_what_every_object_has_is_free() {
        let mut policy = json!({
            "apiVersion": "rampart.dev/v1alpha1", "kind": "SecurityPolicy",
            "metadata": {"name": "p", "anything": 1}, "spec": {}, "status": {"anything": 1},
        });
        let mut schemas = Schemas::default();
        let mut unknown = |policy: &Value| unknown(policy, &mut schemas);
        assert!(unknown(&policy).is_empty());
        policy["hardening"] = json!({"mode": "Enforce"});
        let said = "SecurityPolicy p has a field hardening that its kind does not know: correct or remove it \
                    (known there: apiVersion, kind, metadata, spec, status)";
        assert_eq!(unknown(&policy), [said]);
        policy["apiVersion"] = json!("security.example.com/v1");
        assert!(unknown(&policy).is_empty(), "it is somebody else's kind");
    }

    #[rstest]
    #[case::version(
        "rampart.dev/v1",
        "SecurityPolicy",
        "SecurityPolicy p is of rampart.dev/v1: write apiVersion: rampart.dev/v1alpha1"
    )]
    #[case::kind(
        "rampart.dev/v1alpha1",
        "SecurtyPolicy",
        "SecurtyPolicy p is of a kind that rampart.dev/v1alpha1 does not have: correct its kind"
    )]
    fn a_kind_or_version_that_there_is_not_is_named(#[case] version: &str, #[case] kind: &str, #[case] said: &str) {
        let object = json!({"apiVersion": version, "kind": kind, "metadata": {"name": "p"}, "spec": {}});
        assert_eq!(unknown(&object, &mut Schemas::default()), [said]);
    }

    #[test]
    fn what_is_shipped_has_no_such_field() {
        let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests");
        let mut found = source::read_all(&["samples", "packs"].map(|it| manifests.join(it)));
        let before = found.objects.len();
        refuse_unknown(&mut found);
        assert!(before > 10 && found.objects.len() == before, "{:?}", found.unreadable);
    }
}
