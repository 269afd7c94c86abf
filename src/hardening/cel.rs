//! Small pieces of CEL text. The expressions use what Kubernetes 1.35 has: optional fields, and the list
//! functions `sort`, `distinct` and `flatten` (1.34).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// A string literal (CEL specification, "String and Bytes Values").
pub(crate) fn string(text: &str) -> String {
    let mut literal = String::with_capacity(text.len().saturating_add(2));
    literal.push('\'');
    for character in text.chars() {
        match character {
            '\'' | '\\' => literal.extend(['\\', character]),
            // No line ends and the like as they are.
            _ if character.is_control() => literal.extend(format!("\\u{:04x}", u32::from(character)).chars()),
            _ => literal.push(character),
        }
    }
    literal.push('\'');
    literal
}

/// A list of string literals.
pub(crate) fn strings<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| string(item.as_ref())).collect();
    format!("[{}]", items.join(", "))
}

/// Text and expressions, joined: `'a' + b + 'c'`.
pub(super) fn concat(parts: &[&str]) -> String {
    parts.join(" + ")
}

/// `one` where the list has one item, else `many`.
pub(super) fn plural(list: &str, one: &str, many: &str) -> String {
    format!("(size({list}) == 1 ? {} : {})", string(one), string(many))
}

/// `"a", "b"`.
pub(super) fn quoted(list: &str) -> String {
    format!(r#"'"' + {list}.join('", "') + '"'"#)
}

/// Sorted and distinct, as the reference keeps its sets.
pub(super) fn set(list: &str) -> String {
    format!("{list}.distinct().sort()")
}

/// `container "a"` or `containers "a", "b"`.
pub(super) fn containers(list: &str) -> String {
    format!("{} + {}", plural(list, "container ", "containers "), quoted(list))
}

/// `pod`, `container "a"`, or `pod and container "a"`.
pub(super) fn pod_and(pod: &str, list: &str) -> String {
    let named = containers(list);
    format!("({pod} ? (size({list}) == 0 ? 'pod' : 'pod and ' + {named}) : {named})")
}

/// What is not empty of the given strings, joined.
pub(super) fn join_present(parts: &[String], separator: &str) -> String {
    format!("[{}].filter(part, part != '').join({})", parts.join(", "), string(separator))
}

/// Whether a selector selects what has the labels of an expression; `None` where it selects everything.
pub(crate) fn selects(selector: &LabelSelector, labels: &str) -> Option<String> {
    let value = |key: &str| format!("{labels}[?{}]", string(key));
    let mut all: Vec<String> = vec![];
    for (key, wanted) in selector.match_labels.iter().flatten() {
        all.push(format!("{} == optional.of({})", value(key), string(wanted)));
    }
    for expression in selector.match_expressions.iter().flatten() {
        let (has, values) =
            (format!("{}.hasValue()", value(&expression.key)), strings(expression.values.iter().flatten()));
        let is_in = format!("({has} && {}.value() in {values})", value(&expression.key));
        all.push(match expression.operator.as_str() {
            "In" => is_in,
            "NotIn" => format!("!{is_in}"),
            "Exists" => has,
            "DoesNotExist" => format!("!{has}"),
            _ => "false".into(),
        });
    }
    (!all.is_empty()).then(|| format!("({})", all.join(" && ")))
}
