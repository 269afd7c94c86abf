//! Names of images, by the grammar of the distribution project (`github.com/distribution/reference`), and
//! patterns of them. Rust and the API server match by the same regular expressions, in the syntax that
//! both have (RE2).

use std::{borrow::Cow, sync::LazyLock};

use regex::Regex;

use crate::hardening::cel::string;

/// What makes the part before the first slash a registry.
pub(super) const REGISTRY: &str = "[.:A-Z]|^localhost$";
/// `[registry/]path[:tag][@digest]`, with the tag and the digest as groups.
pub(super) const GRAMMAR: &str = concat!(
    r"^(?:(?:(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])(?:\.(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]))*",
    r"|\[(?:[a-fA-F0-9:]+)\])(?::[0-9]+)?/)?",
    r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*",
    r"(:[\w][\w.-]{0,127})?",
    r"(@[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,})?$"
);
/// A digest as `requireDigest` wants it.
pub(super) const SHA256: &str = "@sha256:[0-9a-f]{64}$";

static GRAMMAR_REGEX: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(GRAMMAR).ok());
static REGISTRY_REGEX: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(REGISTRY).ok());
static SHA256_REGEX: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(SHA256).ok());

/// An image's name with the registry that container runtimes assume.
pub(in crate::hardening) fn normal(image: &str) -> Cow<'_, str> {
    match image.split_once('/') {
        None => Cow::Owned(format!("docker.io/library/{image}")),
        Some(("docker.io" | "index.docker.io", path)) if !path.contains('/') => {
            Cow::Owned(format!("docker.io/library/{path}"))
        }
        Some(("index.docker.io", path)) => Cow::Owned(format!("docker.io/{path}")),
        Some((first, _)) if is_match(&REGISTRY_REGEX, first) => Cow::Borrowed(image),
        Some(_) => Cow::Owned(format!("docker.io/{image}")),
    }
}

/// [`normal`] in CEL, of an expression.
pub(in crate::hardening) fn normal_in_cel(image: &str) -> String {
    let first = format!("{image}.split('/')[0]");
    format!(
        "(!{image}.contains('/') ? 'docker.io/library/' + {image} : \
         {first} in ['docker.io', 'index.docker.io'] ? \
         'docker.io/' + (size({image}.split('/')) == 2 ? 'library/' : '') + {image}.substring(size({first}) + 1) : \
         {first}.matches({}) ? {image} : 'docker.io/' + {image})",
        string(REGISTRY)
    )
}

fn is_match(regex: &LazyLock<Option<Regex>>, text: &str) -> bool {
    regex.as_ref().is_some_and(|regex| regex.is_match(text))
}

/// Whether it is the name of an image at all.
pub(super) fn is_reference(image: &str) -> bool {
    is_match(&GRAMMAR_REGEX, image)
}

/// Whether it names a SHA-256 digest.
pub(super) fn has_digest(image: &str) -> bool {
    is_match(&SHA256_REGEX, image)
}

/// The tag: `latest` where there is neither tag nor digest; empty for a digest alone, or for what is not
/// the name of an image.
pub(super) fn tag(image: &str) -> &str {
    let Some(found) = GRAMMAR_REGEX.as_ref().and_then(|regex| regex.captures(image)) else { return "" };
    match (found.get(1), found.get(2)) {
        (Some(tag), _) => tag.as_str().trim_start_matches(':'),
        (None, Some(_)) => "",
        (None, None) => "latest",
    }
}

/// A pattern of images.
#[derive(Debug, Clone)]
pub(in crate::hardening) struct Pattern {
    /// As its author wrote it.
    pub(in crate::hardening) text: String,
    /// What a normal name must match.
    pub(in crate::hardening) expression: String,
    regex: Regex,
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(in crate::hardening) fn parse(text: &str) -> Result<Self, String> {
        let allowed = |character: char| character.is_ascii_alphanumeric() || "._-/:@*+[]".contains(character);
        if text.is_empty() || !text.chars().all(allowed) {
            return Err(format!("{text:?} must be an image name in which * and ** stand for other characters"));
        }
        if text == "*" {
            return Err("\"*\" would mean images of docker.io/library: write \"**\" for every image".into());
        }
        let whole = match text.split_once('/') {
            _ if text.starts_with("**") => Cow::Borrowed(text),
            // A wildcard before the first slash stands for registries.
            Some((first, _)) if first.contains('*') => Cow::Borrowed(text),
            _ => normal(text),
        };
        let (name, end) = whole.rsplit_once('/').map_or((&*whole, &*whole), |(_, last)| (&*whole, last));
        let mut expression = String::from("^");
        let mut rest = name;
        while let Some(character) = rest.chars().next() {
            if let Some(after) = rest.strip_prefix("**") {
                expression.push_str(".*");
                rest = after;
                continue;
            }
            match character {
                '*' => expression.push_str("[^/]*"),
                '.' | '+' | '[' | ']' | '-' => expression.extend(['\\', character]),
                _ => expression.push(character),
            }
            rest = rest.get(character.len_utf8()..).unwrap_or_default();
        }
        if !end.contains('@') {
            expression.push_str(if end.contains(':') { "(@.*)?" } else { "(:[^/@]*)?(@.*)?" });
        }
        expression.push('$');
        let regex = Regex::new(&expression).map_err(|error| format!("{text:?} is no pattern: {error}"))?;
        Ok(Self { text: text.into(), expression, regex })
    }

    /// Whether a normal name matches.
    pub(in crate::hardening) fn matches(&self, normal: &str) -> bool {
        self.regex.is_match(normal)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}
