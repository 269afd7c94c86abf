//! Label selectors from the wire, checked once, so that the API server has no reason to refuse what is
//! rendered from them.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use rampart_reach::{Operator, Requirement, Selector};

use super::Invalid;

/// Reads a label selector; an empty one selects everything.
///
/// # Errors
/// When a key, an operator or a value is not one (`k8s.io/apimachinery`, `ValidateLabelSelector`).
pub fn parse(selector: &LabelSelector, field: &str) -> Result<Selector, Invalid> {
    let mut requirements = vec![];
    for (name, value) in selector.match_labels.iter().flatten() {
        let at = format!("{field}.matchLabels[{name}]");
        key(name, &at)?;
        label_value(value, &at)?;
        requirements.push(Requirement { key: name.clone(), operator: Operator::In([value.clone()].into()) });
    }
    for (index, expression) in selector.match_expressions.iter().flatten().enumerate() {
        requirements.push(requirement(expression, &format!("{field}.matchExpressions[{index}]"))?);
    }
    Ok(Selector::new(requirements))
}

fn requirement(expression: &LabelSelectorRequirement, field: &str) -> Result<Requirement, Invalid> {
    key(&expression.key, &format!("{field}.key"))?;
    let values: BTreeSet<String> = expression.values.iter().flatten().cloned().collect();
    for value in &values {
        label_value(value, &format!("{field}.values"))?;
    }
    let operator = match (expression.operator.as_str(), values.is_empty()) {
        ("In", false) => Operator::In(values),
        ("NotIn", false) => Operator::NotIn(values),
        ("Exists", true) => Operator::Exists,
        ("DoesNotExist", true) => Operator::DoesNotExist,
        ("In" | "NotIn", true) => {
            return Err(Invalid::at(
                format!("{field}.values"),
                format!("{} needs at least one value", expression.operator),
            ));
        }
        ("Exists" | "DoesNotExist", false) => {
            return Err(Invalid::at(format!("{field}.values"), format!("{} takes no values", expression.operator)));
        }
        (other, _) => {
            let problem = format!("must be In, NotIn, Exists or DoesNotExist, not {other:?}");
            return Err(Invalid::at(format!("{field}.operator"), problem));
        }
    };
    Ok(Requirement { key: expression.key.clone(), operator })
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
