//! JSON schemas of Kubernetes kinds, a file a kind, as kubeconform looks for them: made of the OpenAPI of an API server and
//! of custom resource definitions. Strict: a field that a kind has not is wrong.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};

use crate::{binaries, fixtures};

/// The path of a kind's schema below the directory, as a template of kubeconform's.
pub const TEMPLATE: &str = "{{ .Group }}/{{ .ResourceKind }}_{{ .ResourceAPIVersion }}.json";

/// Where references of an OpenAPI document lead.
const COMPONENTS: &str = "#/components/schemas/";
const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// Writes the schemas of every kind that a Kubernetes version serves.
///
/// # Errors
/// When its source can't be had, is not as expected, or a schema can't be written.
pub fn of_kubernetes(version: &str, target: &Path) -> Result<()> {
    for entry in fs::read_dir(openapi(version)?)? {
        let components = components(&entry?.path())?;
        for (name, schema) in &components {
            for kind in schema["x-kubernetes-group-version-kind"].as_array().into_iter().flatten() {
                let text = |field: &str| kind[field].as_str().unwrap_or_default();
                let whole = with_components(json!({"$ref": format!("{COMPONENTS}{name}")}), &components);
                write(target, (text("group"), text("version"), text("kind")), &whole)?;
            }
        }
    }
    Ok(())
}

/// Writes the schemas of the kinds that are defined in a text; its other documents are passed over. Metadata is as a
/// Kubernetes version has it.
///
/// # Errors
/// When the text is not YAML, the version can't be had, or a schema can't be written.
pub fn of_crds(text: &str, version: &str, target: &Path) -> Result<()> {
    let components = components(&openapi(version)?.join("api__v1_openapi.json"))?;
    for crd in fixtures::parse(text)?.iter().filter(|it| it["kind"] == "CustomResourceDefinition") {
        let spec = &crd["spec"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        for served in spec["versions"].as_array().into_iter().flatten() {
            let mut schema = served["schema"]["openAPIV3Schema"].clone();
            strict(&mut schema);
            let properties = schema["properties"].as_object_mut().context("a kind without fields")?;
            properties.insert("metadata".into(), json!({"$ref": format!("{COMPONENTS}{OBJECT_META}")}));
            // Whatever the definition leaves out, every object has them.
            for name in ["apiVersion", "kind"] {
                properties.entry(name).or_insert(json!({"type": "string"}));
            }
            let named = (text(&spec["group"]), text(&served["name"]), text(&spec["names"]["kind"]));
            write(target, (&named.0, &named.1, &named.2), &with_components(schema, &components))?;
        }
    }
    Ok(())
}

/// Where an API server's own source has its OpenAPI, a file a version of a group.
fn openapi(version: &str) -> Result<std::path::PathBuf> {
    Ok(binaries::kubernetes_source(version)?.join("api/openapi-spec/v3"))
}

/// The schemas of an OpenAPI document, strict.
fn components(path: &Path) -> Result<Map<String, Value>> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let mut document: Value = serde_json::from_str(&text).with_context(|| format!("parsing {}", path.display()))?;
    let mut components = match document["components"]["schemas"].take() {
        Value::Object(components) => components,
        _ => Map::new(),
    };
    components.values_mut().for_each(strict);
    Ok(components)
}

/// Closes a schema wherever it names fields, and says in JSON Schema what OpenAPI and Kubernetes say in words of their own.
fn strict(schema: &mut Value) {
    let Some(it) = schema.as_object_mut() else { return };
    for fields in it.get_mut("properties").and_then(Value::as_object_mut).into_iter().flat_map(Map::values_mut) {
        strict(fields);
    }
    // Not what stands in allOf and its like: that restricts the same object, and does not name all of its fields.
    for below in ["items", "additionalProperties"] {
        it.get_mut(below).into_iter().for_each(strict);
    }
    let is_open = it.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
    if it.contains_key("properties") && !it.contains_key("additionalProperties") && !is_open {
        it.insert("additionalProperties".into(), false.into());
    }
    if it.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
        it.insert("type".into(), json!(["integer", "string"]));
    }
    if it.get("nullable") == Some(&Value::Bool(true)) {
        let kind = it.get("type").cloned().into_iter().chain(["null".into()]).collect();
        it.insert("type".into(), kind);
        it.get_mut("enum").and_then(Value::as_array_mut).into_iter().for_each(|values| values.push(Value::Null));
    }
}

/// A schema with everything that it refers to, by itself or by way of that.
fn with_components(mut schema: Value, all: &Map<String, Value>) -> Value {
    let mut needed = BTreeMap::new();
    let mut open = references(&schema);
    while let Some(name) = open.pop() {
        if let Some(component) = all.get(&name).filter(|_| !needed.contains_key(&name)) {
            open.extend(references(component));
            needed.insert(name, component.clone());
        }
    }
    if let Some(schema) = schema.as_object_mut() {
        // JSON Schema up to draft 5 passes over what stands beside a reference.
        if let Some(reference) = schema.remove("$ref") {
            schema.insert("allOf".into(), json!([{"$ref": reference}]));
        }
        schema.insert("components".into(), json!({"schemas": needed}));
    }
    schema
}

fn references(schema: &Value) -> Vec<String> {
    match schema {
        Value::Object(fields) => {
            // A field may be called so: it is no text then.
            let own = fields.get("$ref").and_then(Value::as_str).and_then(|it| it.strip_prefix(COMPONENTS));
            own.map(ToOwned::to_owned).into_iter().chain(fields.values().flat_map(references)).collect()
        }
        Value::Array(values) => values.iter().flat_map(references).collect(),
        _ => vec![],
    }
}

/// The core group is called by its version.
fn write(target: &Path, (group, version, kind): (&str, &str, &str), schema: &Value) -> Result<()> {
    let dir = target.join(if group.is_empty() { version } else { group });
    fs::create_dir_all(&dir)?;
    let path = dir.join(format!("{}_{version}.json", kind.to_lowercase()));
    fs::write(&path, schema.to_string()).with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_its_fields_is_closed_and_nothing_else() {
        let mut schema = json!({
            "properties": {
                "spec": {"type": "object", "properties": {"port": {"x-kubernetes-int-or-string": true}}},
                "labels": {"type": "object", "additionalProperties": {"properties": {}}},
                "any": {"properties": {}, "x-kubernetes-preserve-unknown-fields": true},
                "rules": {"items": {"properties": {"mode": {"type": "string", "nullable": true, "enum": ["A"]}}}},
            },
            "anyOf": [{"properties": {"spec": {}}}],
        });
        strict(&mut schema);
        let at = |pointer: &str| schema.pointer(pointer).cloned();
        for closed in ["", "/properties/spec", "/properties/labels/additionalProperties", "/properties/rules/items"] {
            assert_eq!(at(&format!("{closed}/additionalProperties")), Some(json!(false)), "{closed}");
        }
        for open in ["/properties/any", "/anyOf/0"] {
            assert_eq!(at(&format!("{open}/additionalProperties")), None, "{open}");
        }
        assert_eq!(at("/properties/spec/properties/port/type"), Some(json!(["integer", "string"])));
        let mode = at("/properties/rules/items/properties/mode").unwrap();
        assert_eq!((&mode["type"], &mode["enum"]), (&json!(["string", "null"]), &json!(["A", null])));
    }

    #[test]
    fn a_schema_comes_with_all_that_it_refers_to() {
        let to = |name: &str| json!({"$ref": format!("{COMPONENTS}{name}")});
        let all =
            json!({"a": {"items": to("b")}, "b": {"properties": {"$ref": {"type": "string"}, "a": to("a")}}, "c": {}});
        let whole = with_components(to("a"), all.as_object().unwrap());
        let names: Vec<&String> = whole["components"]["schemas"].as_object().unwrap().keys().collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(whole["allOf"], json!([to("a")]));
    }
}
