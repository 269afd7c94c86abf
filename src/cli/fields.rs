//! What the schemas of our kinds do not take: kinds, versions and fields that there are not, and values of another type. An
//! API server tells whoever writes them; here they would be passed over, or told without their place.

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use serde_json::Value;

use super::source::{Found, group_kind};
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

/// Takes out objects of our group that their schema does not take, or that have none: each problem is bad input. The others
/// have no nulls then, as once an API server has stored them.
pub(super) fn refuse_malformed(found: &mut Found) {
    let Found { objects, unreadable } = found;
    let mut schemas = Schemas::default();
    objects.retain_mut(|object| {
        let problems = problems(&object.value, &mut schemas);
        unreadable.extend(problems.iter().map(|why| object.unreadable(why)));
        if group_kind(&object.value).0 == GROUP
            && let Some(spec) = object.value.get_mut("spec")
        {
            prune(spec);
        }
        problems.is_empty()
    });
}

/// Leaves out nulls, as an API server does: defaults fill what is missing.
fn prune(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(prune);
        }
        Value::Array(items) => items.iter_mut().for_each(prune),
        _ => {}
    }
}

/// What to say of an object that its kind's schema does not take; nothing of a kind that is not ours.
fn problems(object: &Value, schemas: &mut Schemas) -> Vec<String> {
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
    walk("", object, schema, &mut found);
    found.into_iter().map(|problem| format!("{kind} {name} {problem}")).collect()
}

/// Finds what a schema does not take: where it is, and what it takes there. An API server prunes nulls where there may be
/// none, and then fills in defaults.
fn walk(place: &str, value: &Value, schema: &JSONSchemaProps, found: &mut Vec<String>) {
    if schema.x_kubernetes_preserve_unknown_fields == Some(true) || value.is_null() {
        return;
    }
    if let Some(fix) = another_type(value, schema) {
        return found.push(format!("has {} in {place}: {fix}", form(value)));
    }
    if let Some(allowed) = &schema.enum_
        && !allowed.iter().any(|it| it.0 == *value)
    {
        let allowed: Vec<&str> = allowed.iter().filter_map(|it| it.0.as_str()).collect();
        found.push(format!("has {value} in {place}: write one of {}", allowed.join(", ")));
    }
    let below = |name: &str| if place.is_empty() { name.to_owned() } else { format!("{place}.{name}") };
    match (value, &schema.properties, &schema.additional_properties, &schema.items) {
        // The keys of a map are its own.
        (Value::Object(map), _, Some(JSONSchemaPropsOrBool::Schema(each)), _) => {
            for (key, value) in map {
                walk(&below(key), value, each, found);
            }
        }
        (Value::Object(fields), Some(known), ..) => {
            for (name, value) in fields {
                if let Some(schema) = known.get(name) {
                    walk(&below(name), value, schema, found);
                } else {
                    let (place, known) = (below(name), known.keys().map(String::as_str).collect::<Vec<_>>().join(", "));
                    found.push(format!(
                        "has a field {place} that its kind does not know: correct or remove it (known there: {known})"
                    ));
                }
            }
            let is_filled = |schema: &JSONSchemaProps| schema.nullable == Some(true) || schema.default.is_some();
            for name in schema.required.iter().flatten() {
                if fields.get(name).is_none_or(Value::is_null) && !known.get(name).is_some_and(is_filled) {
                    found.push(format!("lacks {}: add it", below(name)));
                }
            }
        }
        (Value::Array(items), .., Some(JSONSchemaPropsOrArray::Schema(each))) => {
            for (index, item) in items.iter().enumerate() {
                walk(&format!("{place}[{index}]"), item, each, found);
            }
        }
        _ => {}
    }
}

/// What to do about a value that is not of the schema's type.
fn another_type(value: &Value, schema: &JSONSchemaProps) -> Option<String> {
    let is_integer = value.is_i64() || value.is_u64();
    if schema.x_kubernetes_int_or_string == Some(true) {
        return (!is_integer && !value.is_string()).then(|| "write an integer or a string".into());
    }
    let wanted = schema.type_.as_deref()?;
    let is_one = match wanted {
        "string" => value.is_string(),
        "integer" => is_integer,
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => true,
    };
    let is_scalar = value.is_number() || value.is_boolean();
    let fix =
        || if wanted == "string" && is_scalar { "put it in quotes".into() } else { format!("its type is {wanted}") };
    (!is_one).then(fix)
}

fn form(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
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
        let said = problems(object, &mut Schemas::default()).into_iter();
        said.filter_map(|said| Some(said.split("has a field ").nth(1)?.split(' ').next()?.to_owned())).collect()
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
        let mut problems = |policy: &Value| problems(policy, &mut schemas);
        assert!(problems(&policy).is_empty());
        policy["hardening"] = json!({"mode": "Enforce"});
        let said = "SecurityPolicy p has a field hardening that its kind does not know: correct or remove it \
                    (known there: apiVersion, kind, metadata, spec, status)";
        assert_eq!(problems(&policy), [said]);
        policy["apiVersion"] = json!("security.example.com/v1");
        assert!(problems(&policy).is_empty(), "it is somebody else's kind");
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
        assert_eq!(problems(&object, &mut Schemas::default()), [said]);
    }

    #[rstest]
    #[case::variant(
        json!({"hardening": {"mode": "Enfroce", "podSecurity": {"level": "baseline"}}}),
        "has \"Enfroce\" in spec.hardening.mode: write one of "
    )]
    #[case::number_for_a_string(
        json!({"hardening": {"podSecurity": {"level": "baseline", "version": 1.3}}}),
        "has a number in spec.hardening.podSecurity.version: put it in quotes"
    )]
    #[case::boolean_for_a_string(
        json!({"network": {"isolate": [], "podSelector": {"matchLabels": {"a": true}}}}),
        "has a boolean in spec.network.podSelector.matchLabels.a: put it in quotes"
    )]
    #[case::list_for_a_mapping(json!({"hardening": []}), "has a list in spec.hardening: its type is object")]
    #[case::nothing_where_something_must_be(json!({"hardening": {"podSecurity": null}}), "lacks spec.hardening.podSecurity: add it")]
    #[case::missing(json!({"network": {"isolate": []}}), "lacks spec.network.podSelector: add it")]
    #[case::in_a_list(
        json!({"network": {"isolate": [], "podSelector": {}, "egress": [
            {"name": "a", "peers": [], "ports": [{"port": "http"}, {"port": 80}, {"port": 0.5}]}]}}),
        "has a number in spec.network.egress[0].ports[2].port: write an integer or a string"
    )]
    fn what_a_schema_does_not_take_is_told_with_its_place(#[case] spec: Value, #[case] said: &str) {
        let text = json!({"apiVersion": "rampart.dev/v1alpha1", "kind": "SecurityPolicy",
            "metadata": {"name": "p"}, "spec": spec})
        .to_string();
        let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let mut found = source::read_all(&[file.path().into()]);
        refuse_malformed(&mut found);
        let told: Vec<String> = found.unreadable.iter().map(ToString::to_string).collect();
        let wanted = format!("{}:1: SecurityPolicy p {said}", file.path().display());
        assert!(found.objects.is_empty() && told.len() == 1 && told[0].starts_with(&wanted), "{told:?}");
    }

    #[test]
    fn what_may_be_null_or_has_a_default_may_be_left_out() {
        let spec = json!({"suspend": null, "network": null, "hardening": {
            "mode": null, "podSecurity": {"level": "baseline", "version": null}}});
        let policy =
            json!({"apiVersion": "rampart.dev/v1alpha1", "kind": "SecurityPolicy", "metadata": {}, "spec": spec});
        let mut found = source::Found::default();
        let (file, pointer) = ("p.yaml".into(), String::new());
        found.objects.push(source::Object { file, document: 0, line: 1, pointer, value: policy });
        refuse_malformed(&mut found);
        let Some(object) = found.objects.pop() else { panic!("{:?}", found.unreadable) };
        let policy: crate::api::SecurityPolicy = serde_json::from_value(object.value).unwrap();
        assert!(policy.spec.hardening.is_some() && policy.spec.network.is_none());
    }

    #[test]
    fn what_is_shipped_has_no_such_field() {
        let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests");
        let mut found = source::read_all(&["samples", "packs"].map(|it| manifests.join(it)));
        let before = found.objects.len();
        refuse_malformed(&mut found);
        assert!(before > 10 && found.objects.len() == before, "{:?}", found.unreadable);
    }
}
