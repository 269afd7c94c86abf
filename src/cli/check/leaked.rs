//! Keys that stand in a manifest, in whatever kind of object: `data/apiKey`. What is told of one is its prefix and its
//! public id.

use k8s_openapi::ByteString;
use serde::Deserialize as _;
use serde_json::{Map, Value};

use super::verdict::{Outcome, Row, Severity};
use crate::{
    cli::source::Object,
    keys::format::{Spotted, mask_keys, spot_keys},
};

/// Id of the rule.
pub(super) const RULE: &str = "data/apiKey";
/// What it finds.
pub(super) const TITLE: &str = "an API key stands in a manifest";
/// Where kubectl keeps the manifest once more, as JSON.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The keys that stand in values of an object.
pub(super) fn rows(object: &Object) -> Vec<Row> {
    let mut found = vec![];
    look(&object.value, &mut object.pointer.clone(), &mut found);
    let row = |(path, key): (String, Spotted)| Row {
        rule: RULE.into(),
        check: "apiKey",
        level: None,
        reason: TITLE,
        detail: format!(
            "a key with prefix {} and id {}: revoke it, and keep keys out of manifests",
            key.prefix, key.id
        ),
        path,
        severity: Severity::Error,
        policy: None,
    };
    found.into_iter().map(row).collect()
}

/// Adds keys to what is said of an object.
pub(super) fn add(outcome: &mut Outcome, rows: Vec<Row>) {
    if rows.is_empty() {
        return;
    }
    // Whoever put a key into one field may have put it into one that is quoted.
    for text in [&mut outcome.name, &mut outcome.namespace, &mut outcome.message] {
        *text = mask_keys(text);
    }
    for row in &mut outcome.violations {
        row.detail = mask_keys(&row.detail);
        row.path = mask_keys(&row.path);
    }
    let separator = if outcome.message.is_empty() { "" } else { "; " };
    outcome.message = format!("{}{separator}{TITLE}", outcome.message);
    outcome.allowed = false;
    outcome.violations.extend(rows);
}

/// An object that holds no pod, of which keys are all there is to say.
pub(super) fn outcome(object: &Object, namespace: &str, rows: Vec<Row>) -> Option<Outcome> {
    if rows.is_empty() {
        return None;
    }
    let text = |pointer: &str| object.value.pointer(pointer).and_then(Value::as_str).map(ToOwned::to_owned);
    let mut outcome = Outcome {
        file: object.file.clone(),
        document: object.document,
        line: object.line,
        kind: text("/kind").unwrap_or_default(),
        namespace: object.namespace(namespace).to_owned(),
        name: text("/metadata/name").or_else(|| text("/metadata/generateName")).unwrap_or_default(),
        allowed: true,
        message: String::new(),
        violations: vec![],
        open: vec![],
    };
    add(&mut outcome, rows);
    Some(outcome)
}

/// `path` is the pointer to the value, and is left as it was.
fn look(value: &Value, path: &mut String, found: &mut Vec<(String, Spotted)>) {
    match value {
        Value::String(text) => note(text, path, found),
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                below(path, &index.to_string(), |path| look(item, path, found));
            }
        }
        Value::Object(fields) => {
            let encoded = encoded(fields);
            for (name, value) in fields {
                // A name may be a key as well as a value.
                note(name, path, found);
                below(path, name, |path| {
                    look(value, path, found);
                    match value {
                        Value::Object(entries) if encoded == Some(name.as_str()) => decode(entries, path, found),
                        Value::String(text) if name == LAST_APPLIED => applied(text, path, found),
                        _ => {}
                    }
                });
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn note(text: &str, path: &str, found: &mut Vec<(String, Spotted)>) {
    // Most texts have nothing that joins the parts of a key.
    if text.contains('_') {
        found.extend(spot_keys(text).into_iter().map(|key| (mask_keys(path), key)));
    }
}

/// The field of an object whose values are base64.
fn encoded(fields: &Map<String, Value>) -> Option<&'static str> {
    match fields.get("kind").and_then(Value::as_str) {
        Some("Secret") => Some("data"),
        Some("ConfigMap") => Some("binaryData"),
        _ => None,
    }
}

fn decode(entries: &Map<String, Value>, path: &mut String, found: &mut Vec<(String, Spotted)>) {
    for (name, value) in entries {
        // YAML breaks long lines, and base64 does not mind.
        let Some(text) = value.as_str().map(|text| text.split_ascii_whitespace().collect::<String>()) else { continue };
        let Ok(ByteString(bytes)) = ByteString::deserialize(&Value::String(text)) else { continue };
        below(path, name, |path| note(&String::from_utf8_lossy(&bytes), path, found));
    }
}

/// A manifest within a manifest: what is plain in it was seen already.
fn applied(text: &str, path: &mut String, found: &mut Vec<(String, Spotted)>) {
    let Ok(Value::Object(fields)) = serde_json::from_str(text) else { return };
    if let Some((name, Value::Object(entries))) = encoded(&fields).and_then(|name| Some((name, fields.get(name)?))) {
        below(path, name, |path| decode(entries, path, found));
    }
}

/// With a reference token (RFC 6901) at the end of the pointer.
fn below(path: &mut String, token: &str, then: impl FnOnce(&mut String)) {
    let length = path.len();
    path.push('/');
    path.push_str(&token.replace('~', "~0").replace('/', "~1"));
    then(path);
    path.truncate(length);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::keys::format::ApiKeyText;

    fn found(value: Value) -> Vec<String> {
        let object = Object { file: "f".into(), document: 0, line: 1, pointer: "/items/0".into(), value };
        rows(&object).into_iter().map(|row| row.path).collect()
    }

    #[test]
    fn keys_are_found_wherever_they_stand() {
        let key = ApiKeyText::new("acme_live", "0123abcd", &[7; 32]);
        let (key, data) = (key.expose(), serde_json::to_value(ByteString(key.expose().into())).unwrap());
        let applied = json!({"kind": "Secret", "data": {"t": data}}).to_string();
        let env =
            json!({"kind": "Pod", "spec": {"containers": [{"env": [{"name": "A", "value": format!("k={key};")}]}]}});
        assert_eq!(found(env), ["/items/0/spec/containers/0/env/0/value"]);
        assert_eq!(found(json!({"kind": "Secret", "data": {"a/b": data}})), ["/items/0/data/a~1b"]);
        assert_eq!(found(json!({"kind": "Secret", "stringData": {"a": key}})), ["/items/0/stringData/a"]);
        assert_eq!(
            found(json!({"kind": "ConfigMap", "data": {"f": format!("x: '{key}'\n"), "g": data}})),
            ["/items/0/data/f"]
        );
        let annotated = json!({"kind": "Secret", "metadata": {"annotations": {LAST_APPLIED: applied}}});
        let at = "/items/0/metadata/annotations/kubectl.kubernetes.io~1last-applied-configuration/data/t";
        assert_eq!(found(annotated), [at]);
        let named = found(json!({"kind": "Thing", "spec": {key: key}}));
        assert_eq!(named, ["/items/0/spec", "/items/0/spec/acme_live_0123abcd_[REDACTED]"]);
        let wrong = key.replace("0123abcd", "0123abce");
        assert!(found(json!({"kind": "Pod", "a": [wrong, "a_b", 1, null]})).is_empty());
    }
}
