//! The kinds, from their CRDs.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::Value;

use super::{cell, code};
use crate::api::crds;

const HEAD: &str = "# The kinds of `rampart.dev/v1alpha1`\n\n\
     Every field, as the API server has it (`kubectl explain` says the same). `*` marks a field that is required where \
     what it is in is given; `[]` are the items of a list, `{}` the values of a map. What a kind is for, and an example: \
     [kinds](../kinds/README.md).\n";

/// The page.
pub(super) fn page() -> Result<String> {
    let mut text = HEAD.to_owned();
    for crd in crds() {
        kind(&mut text, &crd)?;
    }
    Ok(text)
}

fn kind(text: &mut String, crd: &CustomResourceDefinition) -> Result<()> {
    let (spec, names) = (&crd.spec, &crd.spec.names);
    let version = spec.versions.first().context("a CRD without a version")?;
    let schema = version.schema.as_ref().and_then(|it| it.open_api_v3_schema.as_ref()).context("no schema")?;
    let schema = serde_json::to_value(schema)?;
    let short: Vec<String> = names.short_names.iter().flatten().map(|name| code(name)).collect();
    let also = if short.is_empty() { String::new() } else { format!(", or {}", short.join(", ")) };
    let _ = write!(text, "\n## {}\n\n{}\n\n", names.kind, cell(string(&schema, "description")));
    let _ = writeln!(text, "{}; `kubectl get {}`{also}.\n", spec.scope, names.plural);
    let mut fields = Fields::default();
    fields.rules_of("the object", &schema);
    for part in ["spec", "status"] {
        if let Some(schema) = schema.get("properties").and_then(|it| it.get(part)) {
            fields.walk(part, schema, false);
        }
    }
    text.push_str("| field | type | default | limits | |\n|---|---|---|---|---|\n");
    text.push_str(&fields.rows);
    if !fields.rules.is_empty() {
        let _ = write!(text, "\nRefused when it is written, unless:\n\n{}", fields.rules);
    }
    Ok(())
}

#[derive(Default)]
struct Fields {
    rows: String,
    rules: String,
}

impl Fields {
    /// A field, and those below it.
    fn walk(&mut self, path: &str, schema: &Value, is_required: bool) {
        let star = if is_required { " *" } else { "" };
        let default = schema.get("default").map(|it| code(&it.to_string())).unwrap_or_default();
        let _ = writeln!(
            self.rows,
            "| `{path}`{star} | {} | {default} | {} | {} |",
            form(schema),
            limits(schema).join(", "),
            cell(string(schema, "description")),
        );
        self.rules_of(&code(path), schema);
        self.below(path, schema);
    }

    fn below(&mut self, path: &str, schema: &Value) {
        let required: Vec<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            self.walk(&format!("{path}.{name}"), field, required.contains(&name.as_str()));
        }
        for (of, end) in [("items", "[]"), ("additionalProperties", "{}")] {
            let Some(item) = schema.get(of).filter(|it| it.is_object()) else { continue };
            self.rules_of(&code(&format!("{path}{end}")), item);
            self.below(&format!("{path}{end}"), item);
        }
    }

    fn rules_of(&mut self, place: &str, schema: &Value) {
        for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
            let message = if rule["message"].is_string() { "message" } else { "rule" };
            let _ = writeln!(self.rules, "- {place}: {}", cell(string(rule, message)));
        }
    }
}

fn string<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

/// `string`, `date-time`, `[]string`, `{}object` and the like.
fn form(schema: &Value) -> String {
    if schema["x-kubernetes-int-or-string"] == true {
        return "integer or string".into();
    }
    match string(schema, "type") {
        "array" => format!("[]{}", form(&schema["items"])),
        "object" if schema["additionalProperties"].is_object() => {
            format!("{{}}{}", form(&schema["additionalProperties"]))
        }
        "string" if !string(schema, "format").is_empty() => string(schema, "format").into(),
        "" => "any".into(),
        other => other.into(),
    }
}

/// What a value must keep to; of a list or map, of its items too.
fn limits(schema: &Value) -> Vec<String> {
    let mut limits = vec![];
    if let Some(values) = schema["enum"].as_array() {
        let values: Vec<String> = values.iter().filter_map(Value::as_str).map(code).collect();
        limits.push(values.join(" "));
    }
    let between = |least: &str, most: &str, unit: &str| {
        let number = |field: &str| schema.get(field).and_then(Value::as_f64);
        match (number(least), number(most)) {
            (Some(least), Some(most)) => Some(format!("{least} to {most}{unit}")),
            (Some(least), None) => Some(format!("at least {least}{unit}")),
            (None, Some(most)) => Some(format!("at most {most}{unit}")),
            (None, None) => None,
        }
    };
    limits.extend(between("minLength", "maxLength", " characters"));
    limits.extend(between("minimum", "maximum", ""));
    limits.extend(between("minItems", "maxItems", " items"));
    limits.extend(between("minProperties", "maxProperties", " entries"));
    if schema["pattern"].is_string() {
        limits.push(code(string(schema, "pattern")));
    }
    for of in ["items", "additionalProperties"] {
        if let Some(item) = schema.get(of).filter(|it| it.is_object()) {
            limits.extend(self::limits(item).into_iter().map(|limit| format!("each {limit}")));
        }
    }
    limits
}
