//! What may not stand in a log.

use serde_json::Value;

use crate::keys::format::mask_keys;

/// Stands for a value that is not logged.
pub const REDACTED: &str = "[REDACTED]";

/// A field whose name contains one of these is not logged, at any depth.
const SENSITIVE: [&str; 6] = ["password", "api_key", "token", "secret", "ssn", "credit_card"];

/// Whether a field of this name may not be logged.
#[must_use]
pub fn is_sensitive(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SENSITIVE.iter().any(|word| name.contains(word))
}

/// The value of a field as it may be logged: sensitive fields are replaced at any depth, also in text
/// that is JSON, and so is whatever looks like one of our keys.
#[must_use]
pub fn redacted(name: &str, value: Value) -> Value {
    if is_sensitive(name) {
        return REDACTED.into();
    }
    match value {
        Value::Object(fields) => {
            fields.into_iter().map(|(name, value)| (name.clone(), redacted(&name, value))).collect()
        }
        Value::Array(list) => list.into_iter().map(|value| redacted(name, value)).collect(),
        Value::String(text) => redacted_text(&text),
        other => other,
    }
}

fn redacted_text(text: &str) -> Value {
    if text.starts_with(['{', '['])
        && let Ok(inner) = serde_json::from_str::<Value>(text)
    {
        return redacted("", inner).to_string().into();
    }
    mask_keys(text).into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sensitive_fields_are_replaced_at_any_depth() {
        let value = json!({"user": "u", "list": [{"db_password": "x", "Token": {"deep": 1}}]});
        let wanted = json!({"user": "u", "list": [{"db_password": REDACTED, "Token": REDACTED}]});
        assert_eq!(redacted("request", value.clone()), wanted);
        let text: Value = serde_json::from_str(redacted("body", value.to_string().into()).as_str().unwrap()).unwrap();
        assert_eq!(text, wanted, "also in text that is JSON");
    }

    #[test]
    fn names_are_matched_whatever_their_case() {
        for name in ["password", "X_API_KEY", "userToken", "clientSecret", "ssn", "credit_card_no"] {
            assert_eq!(redacted(name, json!("v")), REDACTED, "{name}");
        }
        assert_eq!(redacted("namespace", json!("v")), "v");
    }
}
