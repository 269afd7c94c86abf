//! What may be asked of the form of a token.
//!
//! Whether a token has the form is told to whoever writes ApiKeys, and need not be allowed to read the token: by asking
//! of one character after another they would come to know it. So a format is what forms of tokens are: a name in front
//! that ends in a separator, and then runs of characters of a usual kind, with separators between them. It tells who
//! issued a token; of its secret part it tells the length, where separators are, and of which kind the characters are.

use regex::bytes::{Regex, RegexBuilder};

/// The largest compiled pattern, in bytes.
const LARGEST: usize = 1 << 20;
/// A name of so many characters needs no separator after it, as `AKIA` has none.
const SHORT: usize = 4;
/// Kinds of characters that a run may be of, between brackets.
const KINDS: [&str; 17] =
    ["0-9", "a-z", "A-Z", "a-f", "A-F", r"\d", r"\w", "_", ".", "+", "/", "=", r"\_", r"\.", r"\+", r"\/", r"\-"];

/// A pattern of the whole of a text.
#[derive(Debug, Clone)]
pub(super) struct Format(Regex);

impl PartialEq for Format {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for Format {}

impl Format {
    /// Reads a pattern.
    ///
    /// # Errors
    /// When it is none, or asks for more than a form.
    pub(super) fn parse(pattern: &str) -> Result<Self, String> {
        let compile = |pattern: &str| RegexBuilder::new(pattern).unicode(false).size_limit(LARGEST).build();
        // As RE2 has them, `\w` and `\d` are of ASCII, as tokens are; those of Unicode are too large to be counted.
        // By itself first: else a parenthesis could close the one around it.
        let whole = compile(pattern).and_then(|_| compile(&format!(r"\A(?:{pattern})\z")));
        let whole = whole.map_err(|error| format!("is no regular expression: {error}"))?;
        if is_form(pattern) { Ok(Self(whole)) } else { Err(TOO_CURIOUS.into()) }
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        self.0.is_match(text.as_bytes())
    }
}

const TOO_CURIOUS: &str = "must be a name in front, which ends in a separator (one of _-.:/=) or has at most 4 \
    characters, and runs such as [A-Za-z0-9]{36} or .+ with separators between them, as in (ghp|gho)_[A-Za-z0-9]{36}: \
    more would ask for characters of the token, which not everybody who writes ApiKeys may read";

/// Whether a pattern asks for a form: for no character of the secret part by itself.
fn is_form(pattern: &str) -> bool {
    // It is one of the whole text, with these or without.
    let pattern = pattern.strip_prefix('^').unwrap_or(pattern);
    let pattern = pattern.strip_suffix('$').unwrap_or(pattern);
    let Some(mut rest) = after_name(pattern) else { return false };
    loop {
        let Some(after) = after_kind(rest).map(after_count) else { return false };
        rest = after_separators(after);
        if rest.is_empty() {
            return true;
        }
        // Two runs side by side would ask where one ends.
        if rest.len() == after.len() {
            return false;
        }
    }
}

/// What follows the name in front; nothing where that asks for characters of what is behind it, or has a choice twice
/// before a separator: `(0|1)(0|1)-` would ask for one character after another of a secret part that ends in a separator.
fn after_name(pattern: &str) -> Option<&str> {
    let (mut rest, mut since_separator, mut is_bare, mut has_choice) = (pattern, 0, true, false);
    loop {
        if let Some(after) = after_separator(rest) {
            (rest, since_separator, is_bare, has_choice) = (after, 0, false, false);
        } else if let Some(after) = after_letter(rest) {
            (rest, since_separator) = (after, since_separator + 1);
        } else if let Some(after) = after_names(rest).filter(|_| !has_choice) {
            (rest, since_separator, is_bare, has_choice) = (after, 1, false, true);
        } else {
            break;
        }
    }
    (since_separator == 0 || (is_bare && since_separator <= SHORT)).then_some(rest)
}

/// What follows names of which the token has one: `(live|test)`, `[pousr]`.
fn after_names(pattern: &str) -> Option<&str> {
    if let Some((letters, rest)) = pattern.strip_prefix('[').and_then(|inside| inside.split_once(']')) {
        let is_choice = !letters.is_empty() && letters.bytes().all(|it| it.is_ascii_alphanumeric());
        return is_choice.then_some(rest);
    }
    let mut rest = pattern.strip_prefix("(?:").or_else(|| pattern.strip_prefix('('))?;
    while !rest.starts_with(')') {
        rest = after_separator(rest).or_else(|| after_letter(rest)).or_else(|| rest.strip_prefix('|'))?;
    }
    rest.strip_prefix(')')
}

fn after_letter(pattern: &str) -> Option<&str> {
    pattern.strip_prefix(|it: char| it.is_ascii_alphanumeric())
}

/// What follows a separator: characters that few secrets have, and where, they may be asked for.
fn after_separator(pattern: &str) -> Option<&str> {
    const PLAIN: [char; 5] = ['_', '-', ':', '/', '='];
    let escaped = pattern.strip_prefix('\\');
    let escaped = escaped.and_then(|rest| rest.strip_prefix('.').or_else(|| rest.strip_prefix(PLAIN)));
    escaped.or_else(|| pattern.strip_prefix(PLAIN))
}

fn after_separators(pattern: &str) -> &str {
    let mut rest = pattern;
    while let Some(after) = after_separator(rest) {
        rest = after;
    }
    rest
}

/// What follows the characters of a run: all, or those of some kinds.
fn after_kind(pattern: &str) -> Option<&str> {
    let plain = [".", r"\d", r"\w"].into_iter().find_map(|all| pattern.strip_prefix(all));
    if plain.is_some() {
        return plain;
    }
    // A hyphen is one where it comes first or last, and else makes a range, or takes characters out.
    let inside = pattern.strip_prefix("[-").or_else(|| pattern.strip_prefix('['))?;
    let mut rest = after_one_of(inside)?;
    loop {
        if let Some(after) = rest.strip_prefix(']').or_else(|| rest.strip_prefix("-]")) {
            return Some(after);
        }
        rest = after_one_of(rest)?;
    }
}

fn after_one_of(pattern: &str) -> Option<&str> {
    KINDS.into_iter().find_map(|kind| pattern.strip_prefix(kind))
}

/// What follows how often a character comes, if that is said.
fn after_count(pattern: &str) -> &str {
    let count = pattern.strip_prefix('{').and_then(|rest| rest.split_once('}'));
    let count = count.filter(|(count, _)| count.bytes().all(|it| it.is_ascii_digit() || it == b','));
    let counted = count.map(|(_, rest)| rest);
    counted.or_else(|| pattern.strip_prefix(['+', '*'])).unwrap_or(pattern)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("ghp_[A-Za-z0-9]{36}")]
    #[case("^ghp_[A-Za-z0-9]{36}$")]
    #[case("gh[A-Za-z0-9_]+")]
    #[case("gh[pousr]_[A-Za-z0-9]{36,}")]
    #[case("xox[baprs]-[0-9A-Za-z-]+")]
    #[case("github_pat_[0-9a-zA-Z]{22}_[0-9a-zA-Z]{59}")]
    #[case("sk_(live|test)_[0-9a-zA-Z]{24,}")]
    #[case(r"(?:ghp|gho)_\w{36}")]
    #[case("gh(p|o|u|s|r)_[A-Za-z0-9]{36}")]
    #[case("(acme|corp)-(live|test)-[a-f0-9]{32}")]
    #[case("xoxb-[0-9]{11,13}-[0-9]+-[a-zA-Z0-9]{24}")]
    #[case("glpat-[0-9a-zA-Z_-]{20}")]
    #[case(r"SG\.[-\w]{22}\.[-\w]{43}")]
    #[case("AKIA[0-9A-Z]{16}")]
    #[case("AIza[0-9A-Za-z_-]{35}")]
    #[case(r"[\w-]+\.[\w-]+\.[\w\-]*")]
    #[case("[a-f0-9]{8}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{12}")]
    #[case("[A-Za-z0-9+/]{86}==")]
    #[case(".{40,}")]
    #[case("dop_v1_[a-f0-9]{64}")]
    fn forms_of_tokens_are_taken(#[case] pattern: &str) {
        assert!(Format::parse(pattern).is_ok(), "{pattern}");
    }

    /// Each is a question after a character, or some, of the secret part.
    #[rstest]
    #[case("ghp_R[A-Za-z0-9]{35}")]
    #[case("ghp_R.*")]
    #[case(".*R.*")]
    #[case("ghp_[A-M][A-Za-z0-9]{35}")]
    #[case("ghp_[A-M]{36}")]
    #[case("ghp_[^A]{36}")]
    #[case("ghp_[A-Z&&[^A]]{36}")]
    #[case("ghp_[A-Z--A]{36}")]
    #[case("ghp_[A-Z--a-f]{36}")]
    #[case("ghp_[A-Z~~A-F]{36}")]
    #[case("ghp_[--A-Z]{36}")]
    #[case("ghp_[+-9]{36}")]
    #[case("ghp_[[:upper:]]{36}")]
    #[case(r"ghp_[\x41]{36}")]
    #[case(r"ghp_\x52.*")]
    #[case(r"ghp_\pL{36}")]
    #[case("ghp_[A-Za-z0-9]{3}R[A-Za-z0-9]{32}")]
    #[case("ghp_[A-Za-z0-9]{3}[a-z][A-Za-z0-9]{32}")]
    #[case("ghp_[A-Za-z0-9]{36}|gho_[A-Z]{36}")]
    #[case("ghp_([A-Z]|[a-z]){36}")]
    #[case("ghp_(R|S)[A-Za-z0-9]{35}")]
    #[case("ghp_[RS][A-Za-z0-9]{35}")]
    #[case("[0123][4567]-[a-z]+")]
    #[case("(0|1|2|3)(a|b)-[a-f0-9]{4}")]
    #[case("ghp_(R|S)4(n|m)_.*")]
    #[case("ghp_(R|S)(4|5)_.*")]
    #[case("ghp_(?i)r.*")]
    #[case("ghp_(?:R4nd0m)?.*")]
    #[case("ghp_R?.*")]
    #[case("ghp_a{0}R.*")]
    #[case("hunter[0-9]")]
    #[case("ghp_")]
    #[case("ghp_R4nd0mQ7xV2bK9sLw3TzYc8HfJ5uN1mPgEaD")]
    #[case(r"ghp_.{36}\z")]
    #[case(r"ghp_.*\bR.*")]
    #[case("ghp_.*?")]
    #[case("ghp_.{3}{4}")]
    #[case("")]
    fn nothing_is_asked_of_the_secret_part_of_a_token(#[case] pattern: &str) {
        assert!(Format::parse(pattern).is_err(), "{pattern}");
    }

    #[test]
    fn who_asks_too_much_is_told_what_may_be_asked() {
        let told = Format::parse("ghp_R.*").unwrap_err();
        assert!(told.contains("(ghp|gho)_[A-Za-z0-9]{36}") && !told.contains("  "), "{told}");
    }
}
