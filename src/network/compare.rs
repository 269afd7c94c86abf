//! Whether the API server holds what was rendered.

use k8s_openapi::api::networking::v1::NetworkPolicySpec;
use serde_json::Value;

/// Whether two specs mean the same, the API server's normalisations aside: an empty list is an absent
/// one, and a port without a protocol is TCP. Every other difference counts, whoever made it.
#[must_use]
pub fn same_spec(one: Option<&NetworkPolicySpec>, other: Option<&NetworkPolicySpec>) -> bool {
    // Mostly they are the very same, and trees cost.
    one == other || normal(one) == normal(other)
}

fn normal(spec: Option<&NetworkPolicySpec>) -> Value {
    let mut value = serde_json::to_value(spec).unwrap_or_default();
    for direction in ["ingress", "egress"] {
        let rules = value.get_mut(direction).and_then(Value::as_array_mut);
        let ports = rules.into_iter().flatten().filter_map(|rule| rule.get_mut("ports")?.as_array_mut());
        for port in ports.flatten().filter_map(Value::as_object_mut) {
            port.entry("protocol").or_insert_with(|| "TCP".into());
        }
    }
    without_empty_lists(&mut value);
    value
}

fn without_empty_lists(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(without_empty_lists);
            // An empty selector selects everything, but its empty `matchLabels` says nothing.
            fields.retain(|name, field| {
                name != "matchLabels" || field.as_object().is_none_or(|labels| !labels.is_empty())
            });
            fields.retain(|_, field| !field.is_null() && field.as_array().is_none_or(|list| !list.is_empty()));
        }
        Value::Array(list) => list.iter_mut().for_each(without_empty_lists),
        _ => {}
    }
}
