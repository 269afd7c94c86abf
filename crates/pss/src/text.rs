//! The phrases that the reference's details are made of.

use std::fmt::{self, Write as _};

use crate::view::Placed;

/// Joins sorted, distinct values: the reference keeps them in sets.
pub(crate) fn set<T: Ord>(values: impl Iterator<Item = T>) -> Vec<T> {
    let mut values: Vec<T> = values.collect();
    values.sort_unstable();
    values.dedup();
    values
}

/// `one` for a single thing, else `many`.
pub(crate) const fn plural(count: usize, one: &'static str, many: &'static str) -> &'static str {
    if count == 1 { one } else { many }
}

/// `"a", "b"`: plain quotes, nothing escaped.
pub(crate) fn push_quoted<T: AsRef<str>>(text: &mut String, names: impl IntoIterator<Item = T>) {
    for (index, name) in names.into_iter().enumerate() {
        text.push_str(if index == 0 { "\"" } else { ", \"" });
        text.push_str(name.as_ref());
        text.push('"');
    }
}

/// `one "a"` or `many "a", "b"`, behind what is there; nothing for no name.
pub(crate) fn push_named<'n>(text: &mut String, (one, many): (&str, &str), mut names: impl Iterator<Item = &'n str>) {
    let Some(first) = names.next() else { return };
    let second = names.next();
    text.push_str(if second.is_none() { one } else { many });
    text.push(' ');
    push_quoted(text, std::iter::once(first).chain(second).chain(names));
}

/// [`push_named`] with room for the rest of a sentence; `None` for no name.
pub(crate) fn named<'n>(nouns: (&str, &str), names: impl Iterator<Item = &'n str>) -> Option<String> {
    let mut names = names.peekable();
    names.peek()?;
    let mut text = String::with_capacity(ROOM);
    push_named(&mut text, nouns, names);
    Some(text)
}

const CONTAINERS: (&str, &str) = ("container", "containers");

/// `container "a"` or `containers "a", "b"`, behind what is there; nothing for no container.
pub(crate) fn push_containers<'p, 'a: 'p>(text: &mut String, containers: impl Iterator<Item = Placed<'p, 'a>>) {
    push_named(text, CONTAINERS, containers.map(Placed::name));
}

/// [`push_containers`] with room for the rest of a sentence; `None` for no container.
pub(crate) fn containers<'p, 'a: 'p>(containers: impl Iterator<Item = Placed<'p, 'a>>) -> Option<String> {
    named(CONTAINERS, containers.map(Placed::name))
}

/// `pod`, `container "a"`, or `pod and container "a"`, with room for the rest of a sentence; `None` when it
/// is neither.
pub(crate) fn pod_and<'p, 'a: 'p>(pod: bool, containers: impl Iterator<Item = Placed<'p, 'a>>) -> Option<String> {
    if !pod {
        return self::containers(containers);
    }
    let mut text = String::with_capacity(ROOM);
    text.push_str("pod and ");
    push_containers(&mut text, containers);
    if text.ends_with(" and ") {
        text.truncate("pod".len());
    }
    Some(text)
}

/// Details are seldom longer, in bytes.
pub(crate) const ROOM: usize = 128;

/// A string as Go's `%q` prints it (`strconv.Quote`): escapes for quotes, backslashes, control
/// characters and whatever is not printable.
pub(crate) fn go_quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len().saturating_add(2));
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\x07' => quoted.push_str("\\a"),
            '\x08' => quoted.push_str("\\b"),
            '\x0c' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\x0b' => quoted.push_str("\\v"),
            ' '..='~' => quoted.push(character),
            _ if is_printable(character) => quoted.push(character),
            '\0'..='\x7f' => push(format_args!("\\x{:02x}", u32::from(character)), &mut quoted),
            '\u{80}'..='\u{ffff}' => push(format_args!("\\u{:04x}", u32::from(character)), &mut quoted),
            _ => push(format_args!("\\U{:08x}", u32::from(character)), &mut quoted),
        }
    }
    quoted.push('"');
    quoted
}

fn push(arguments: fmt::Arguments<'_>, to: &mut String) {
    // Writing to a string can't fail.
    let _ = to.write_fmt(arguments);
}

/// Letters, marks, numbers, punctuation, symbols and the space: Go's `unicode.IsPrint`.
///
/// The standard library knows, but tells only through `escape_debug`; after a first character it
/// escapes nothing else but quotes and backslashes.
fn is_printable(character: char) -> bool {
    let mut pair = String::from("x");
    pair.push(character);
    pair.escape_debug().nth(1) == Some(character)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_as_go_does() {
        // Printed by Go: fmt.Printf("%q", ...).
        for (text, wanted) in [
            ("plain", r#""plain""#),
            ("a\"b\\c'd", r#""a\"b\\c'd""#),
            ("\x07\x08\x0c\n\r\t\x0b", r#""\a\b\f\n\r\t\v""#),
            ("\0\x01\x1f\x7f", r#""\x00\x01\x1f\x7f""#),
            ("\u{80}\u{a0}\u{ad}\u{200b}\u{2028}\u{feff}\u{e000}", r#""\u0080\u00a0\u00ad\u200b\u2028\ufeff\ue000""#),
            ("e\u{301}é日本🦀 ", "\"e\u{301}é日本🦀 \""),
            ("\u{301}", "\"\u{301}\""),
            ("\u{e0001}\u{10ffff}", r#""\U000e0001\U0010ffff""#),
        ] {
            assert_eq!(go_quoted(text), wanted);
        }
    }
}
