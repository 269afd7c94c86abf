//! YAML of many documents, or JSON, which is YAML too.

use serde_json::Value;
use serde_saphyr::{Error, MessageFormatter as _, Options, UserMessageFormatter, budget::BudgetBreach};

use crate::cli::terminal::fit;

/// Levels of a document: each costs the parser some of its stack.
const DEPTH: usize = 64;
/// What the aliases of a document may bring beyond what its length allows, in events of the parser: one for a text, two
/// for a mapping or list.
const REPLAYED: usize = 1_000_000;
/// The same, in bytes of texts.
const REPLAYED_BYTES: usize = 64 << 20;

/// Cuts a text where YAML begins or ends a document (YAML 1.2, section 9.1.2); each with its first line.
/// Parsing them one by one keeps a broken one from hiding the rest.
pub(super) fn documents(text: &str) -> Vec<(usize, &str)> {
    let (mut documents, mut start, mut first) = (vec![], 0, 1);
    let mut offset = 0_usize;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let is = |marker: &str| line.strip_prefix(marker).is_some_and(|rest| rest.is_empty() || is_spaced(rest));
        let end = offset.saturating_add(line.len());
        if is("...") {
            documents.push((first, text.get(start..offset).unwrap_or_default()));
            (start, first) = (end, number.saturating_add(2));
        } else if offset > start && is("---") {
            documents.push((first, text.get(start..offset).unwrap_or_default()));
            (start, first) = (offset, number.saturating_add(1));
        }
        offset = end;
    }
    documents.push((first, text.get(start..).unwrap_or_default()));
    documents.retain(|(_, text)| text.lines().any(|line| !line.trim().is_empty() && line.trim() != "---"));
    documents
}

fn is_spaced(text: &str) -> bool {
    text.starts_with([' ', '\t', '\r', '\n'])
}

/// Reads a document; the error comes with the line in it, if known.
pub(super) fn value(text: &str) -> Result<Value, (Option<usize>, String)> {
    if text.trim_start().starts_with('{') {
        // A JSON file: the faster parser, which says the same.
        if let Ok(mut value) = serde_json::from_str(text) {
            make_whole(&mut value);
            return Ok(value);
        }
    }
    let mut value = serde_saphyr::from_str_with_options(text, options(text.len())).map_err(|error| {
        let line = error.location().and_then(|location| usize::try_from(location.line()).ok());
        (line, fit(&words(&error)))
    })?;
    make_whole(&mut value);
    Ok(value)
}

/// Makes whole numbers integers however they are written: of 1000000 Helm makes `1e+06`, which kubectl sends as 1000000.
fn make_whole(value: &mut Value) {
    match value {
        Value::Number(number) if number.is_f64() => {
            // Written in full, without a point where there is no fraction.
            let whole = number.as_f64().and_then(|it| it.to_string().parse::<i64>().ok());
            if let Some(whole) = whole {
                *value = whole.into();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(make_whole),
        Value::Object(fields) => fields.values_mut().for_each(make_whole),
        _ => {}
    }
}

/// Bounds for a text of so many bytes. What stands there may be as long as it is: each byte makes four events at the most
/// (`[:,:]`). What is bounded is what aliases make of it, not how many there are.
fn options(length: usize) -> Options {
    let most = length.saturating_mul(4).saturating_add(REPLAYED);
    let bytes = length.saturating_mul(4).saturating_add(REPLAYED_BYTES);
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: DEPTH,
            max_events: most,
            max_nodes: most,
            max_aliases: length,
            max_anchors: length,
            max_merge_keys: most,
            max_recorded_anchor_events: most,
            max_recorded_anchor_bytes: bytes,
            max_total_scalar_bytes: bytes,
            enforce_alias_anchor_ratio: false,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: length.saturating_add(REPLAYED),
        },
        emit_comments: false,
        with_snippet: false,
    }
}

/// What to say of an error: the parser's own words are for who calls it.
fn words(error: &Error) -> String {
    match error.without_snippet() {
        Error::AliasError { error, .. } => words(error),
        Error::DuplicateMappingKey { key: Some(key), .. } => {
            format!("the key {key} stands twice in one mapping: remove one of them")
        }
        Error::DuplicateMappingKey { .. } => "a key stands twice in one mapping: remove one of them".into(),
        Error::MultipleDocuments { .. } => "something follows the end of the document: begin another with ---".into(),
        Error::Budget { breach: BudgetBreach::Depth { .. }, .. } => {
            format!("it is nested deeper than {DEPTH} levels: flatten it")
        }
        Error::Budget { .. }
        | Error::AliasReplayCounterOverflow { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => {
            "its aliases stand for too much: write out what they stand for".into()
        }
        other => UserMessageFormatter.format_message(other).lines().next().unwrap_or_default().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case::of_helm("runAsUser: 1e+06", json!({"runAsUser": 1_000_000}))]
    #[case::in_a_list("- 1.00065e+09\n- -2.0", json!([1_000_650_000, -2]))]
    #[case::in_json(r#"{"a": 1e+06}"#, json!({"a": 1_000_000}))]
    #[case::a_fraction("a: 1.5", json!({"a": 1.5}))]
    #[case::too_large("a: 1e+30", json!({"a": 1e30}))]
    #[case::a_text("a: '1e+06'", json!({"a": "1e+06"}))]
    fn a_whole_number_is_an_integer_however_it_is_written(#[case] text: &str, #[case] wanted: Value) {
        assert_eq!(value(text).unwrap(), wanted);
    }

    #[test]
    fn a_long_document_reads_as_its_json_does() {
        let policy = value(include_str!("../../../manifests/samples/securitypolicy.yaml")).unwrap();
        let list = json!({"apiVersion": "v1", "kind": "List", "items": vec![policy; 2_000]});
        let text = serde_saphyr::to_string(&list).unwrap();
        assert!(value(&text).unwrap() == list, "more than 250,000 nodes");
    }

    #[test]
    fn an_anchor_may_be_used_often() {
        let text = format!("labels: &l {{a: x, b: [v, w]}}\nuses:\n{}", "- *l\n".repeat(6_000));
        let read = value(&text).unwrap();
        assert_eq!(read["uses"].as_array().map(Vec::len), Some(6_000));
        assert_eq!(read["uses"][5_999], json!({"a": "x", "b": ["v", "w"]}));
    }

    /// Each level ten of those below.
    fn laughs() -> String {
        let level = |number: usize| format!("a{number}: &a{number} [{}]\n", format!("*a{},", number - 1).repeat(10));
        format!("a0: &a0 [x]\n{}", (1..12).map(level).collect::<String>())
    }

    #[rstest]
    #[case::laughs(&laughs())]
    #[case::long_text(&format!("a: &a {}\nb: [{}]\n", "x".repeat(100_000), "*a,".repeat(1_000)))]
    fn aliases_that_stand_for_too_much_are_refused(#[case] text: &str) {
        let (_, why) = value(text).unwrap_err();
        assert!(why.starts_with("its aliases stand for too much"), "{why}");
    }

    #[rstest]
    #[case::a_key_twice("a: 1\nb: 2\na: 3\n", 3, "the key a stands twice")]
    #[case::no_end("a: [\n", 1, "")]
    #[case::no_anchor("a: *b\n", 1, "")]
    #[case::two_documents("a: 1\n--- \nb: 1\n", 2, "something follows the end")]
    fn errors_are_in_our_words(#[case] text: &str, #[case] line: usize, #[case] said: &str) {
        let (at, why) = value(text).unwrap_err();
        assert!(why.starts_with(said) && at.is_some_and(|at| at >= line), "{at:?} {why}");
        assert!(!["Options", "from_str", "error:", "Error"].iter().any(|theirs| why.contains(theirs)), "{why}");
    }

    #[test]
    fn what_is_nested_too_deep_is_refused() {
        let (_, why) = value(&format!("a: {}{}", "[".repeat(100), "]".repeat(100))).unwrap_err();
        assert!(why.starts_with("it is nested deeper than 64 levels"), "{why}");
    }
}
