//! Label selectors from the wire, checked once, so that the API server has no reason to refuse what is
//! rendered from them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use rampart_reach::Selector;

use super::Invalid;

/// Reads a label selector; an empty one selects everything.
///
/// # Errors
/// When a key, an operator or a value is not one (`k8s.io/apimachinery`, `ValidateLabelSelector`).
pub fn parse(selector: &LabelSelector, field: &str) -> Result<Selector, Invalid> {
    for (name, value) in selector.match_labels.iter().flatten() {
        let at = format!("{field}.matchLabels[{name}]");
        key(name, &at)?;
        label_value(value, &at)?;
    }
    for (index, expression) in selector.match_expressions.iter().flatten().enumerate() {
        let at = format!("{field}.matchExpressions[{index}]");
        key(&expression.key, &format!("{at}.key"))?;
        for value in expression.values.iter().flatten() {
            label_value(value, &format!("{at}.values"))?;
        }
    }
    let expression = |it: &LabelSelectorRequirement| rampart_reach::Expression {
        key: it.key.clone(),
        operator: it.operator.clone(),
        values: it.values.clone(),
    };
    let written = rampart_reach::LabelSelector {
        match_labels: selector.match_labels.clone(),
        match_expressions: selector.match_expressions.as_ref().map(|list| list.iter().map(expression).collect()),
    };
    Selector::try_from(&written).map_err(|error| Invalid::at(format!("{field}.{}", error.field), error.problem))
}

/// A selector as `kubectl --selector` reads it; empty for one that selects everything.
#[must_use]
pub fn text(selector: &LabelSelector) -> String {
    let equal = selector.match_labels.iter().flatten().map(|(key, value)| format!("{key}={value}"));
    let expression = |it: &LabelSelectorRequirement| {
        let (key, values) = (&it.key, it.values.as_deref().unwrap_or_default().join(","));
        match it.operator.as_str() {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key.clone(),
        }
    };
    let expressions = selector.match_expressions.iter().flatten().map(expression);
    equal.chain(expressions).collect::<Vec<_>>().join(",")
}

/// `[prefix/]name`: a DNS subdomain and a name of up to 63 characters.
fn key(text: &str, field: &str) -> Result<(), Invalid> {
    let (prefix, name) = text.rsplit_once('/').map_or((None, text), |(prefix, name)| (Some(prefix), name));
    let prefix_is_good = prefix.is_none_or(|prefix| {
        let lower =
            prefix.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte));
        lower && !prefix.is_empty() && prefix.len() <= 253 && prefix.split('.').all(bounded_by_alphanumerics)
    });
    if prefix_is_good && !name.is_empty() && is_name(name) {
        return Ok(());
    }
    Err(Invalid::at(field, format!("{text:?} is not a label key such as \"app\" or \"example.com/tier\"")))
}

fn label_value(text: &str, field: &str) -> Result<(), Invalid> {
    if text.is_empty() || is_name(text) {
        return Ok(());
    }
    let problem = format!(
        "{text:?} is not a label value: up to 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or digit"
    );
    Err(Invalid::at(field, problem))
}

fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    text.len() <= 63 && text.bytes().all(allowed) && bounded_by_alphanumerics(text)
}

fn bounded_by_alphanumerics(text: &str) -> bool {
    let ends = [text.as_bytes().first(), text.as_bytes().last()];
    ends.iter().all(|end| end.is_some_and(u8::is_ascii_alphanumeric))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(json: serde_json::Value) -> String {
        parse(&serde_json::from_value(json).unwrap(), "spec.podSelector").unwrap_err().to_string()
    }

    #[test]
    fn what_is_no_selector_is_refused_at_its_field() {
        let expression = |operator: &str, values: &[&str]| serde_json::json!({"matchExpressions": [{"key": "app", "operator": operator, "values": values}]});
        assert!(
            refused(expression("Equals", &["a"]))
                .starts_with("spec.podSelector.matchExpressions[0].operator: must be In")
        );
        assert!(refused(expression("In", &[])).contains("needs at least one value"));
        assert!(refused(expression("Exists", &["a"])).contains("takes no values"));
        assert!(refused(expression("In", &["a b"])).contains("is not a label value"));
        assert!(refused(serde_json::json!({"matchLabels": {"a b": "c"}})).contains("is not a label key"));
        assert!(refused(serde_json::json!({"matchLabels": {"Example.com/x": "c"}})).contains("is not a label key"));
        assert!(refused(serde_json::json!({"matchLabels": {"x": "-"}})).contains("is not a label value"));
    }

    #[test]
    fn what_kubernetes_accepts_is_accepted() {
        for json in [
            serde_json::json!({}),
            serde_json::json!({"matchLabels": {"app.kubernetes.io/name": "", "a_b.C": "x-1"}}),
            serde_json::json!({"matchExpressions": [{"key": "x", "operator": "DoesNotExist"}]}),
        ] {
            parse(&serde_json::from_value(json).unwrap(), "f").unwrap();
        }
    }
}
