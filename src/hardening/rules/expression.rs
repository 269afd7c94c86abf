//! A regular expression by which Rust and the API server match alike: in the syntax that both have (RE2).

use std::sync::OnceLock;

use regex::Regex;

/// A regular expression, made when it is first needed.
pub(super) struct Expression {
    /// As the API server is told it.
    pub(super) text: &'static str,
    regex: OnceLock<Option<Regex>>,
}

impl Expression {
    pub(super) const fn new(text: &'static str) -> Self {
        Self { text, regex: OnceLock::new() }
    }

    /// The expression; `None` would be one that is wrong, and nothing matches it.
    pub(super) fn regex(&self) -> Option<&Regex> {
        self.regex.get_or_init(|| Regex::new(self.text).ok()).as_ref()
    }

    pub(super) fn is_match(&self, text: &str) -> bool {
        self.regex().is_some_and(|regex| regex.is_match(text))
    }
}
