//! Names of images, by the grammar of the distribution project (`github.com/distribution/reference`), and
//! patterns of them.

use regex::Regex;

use super::expression::Expression;
use crate::hardening::cel::string;

/// What makes the part before the first slash a registry. A bracket, as of an IPv6 address, can't stand in a path.
static REGISTRY: Expression = Expression::new(r"[.:A-Z\[]|^localhost$");
/// `[registry/]path[:tag][@digest]`, with the tag and the digest as groups.
pub(super) static GRAMMAR: Expression = Expression::new(concat!(
    r"^(?:(?:(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])(?:\.(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]))*",
    r"|\[(?:[a-fA-F0-9:]+)\])(?::[0-9]+)?/)?",
    r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*",
    r"(:[0-9A-Za-z_][0-9A-Za-z_.-]{0,127})?",
    r"(@[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,})?$"
));
/// A digest as `requireDigest` wants it.
pub(super) static SHA256: Expression = Expression::new("@sha256:[0-9a-f]{64}$");

/// What a registry's port is when none is named.
static HTTPS: Expression = Expression::new(":0*443$");

/// An image's name with the registry that container runtimes assume, in lower case and without the port
/// that they assume.
#[must_use]
pub fn normal(image: &str) -> String {
    let Some((first, path)) = image.split_once('/') else { return format!("docker.io/library/{image}") };
    if !REGISTRY.is_match(first) {
        return format!("docker.io/{image}");
    }
    let registry = first.to_ascii_lowercase();
    let port = registry.rfind(':').filter(|_| HTTPS.is_match(&registry));
    let registry = port.and_then(|port| registry.get(..port)).unwrap_or(&registry);
    let library = if path.contains('/') { "" } else { "library/" };
    match registry {
        "docker.io" | "index.docker.io" => format!("docker.io/{library}{path}"),
        registry => format!("{registry}/{path}"),
    }
}

/// [`normal`] in CEL, of an expression.
pub(in crate::hardening) fn normal_in_cel(image: &str) -> String {
    let (first, lower) = (format!("{image}.split('/')[0]"), format!("{image}.split('/')[0].lowerAscii()"));
    let registry =
        format!("({lower}.matches({}) ? {lower}.substring(0, {lower}.lastIndexOf(':')) : {lower})", string(HTTPS.text));
    let path = format!("{image}.substring(size({first}) + 1)");
    format!(
        "(!{image}.contains('/') ? 'docker.io/library/' + {image} : \
         !{first}.matches({}) ? 'docker.io/' + {image} : \
         {registry} in ['docker.io', 'index.docker.io'] ? \
         'docker.io/' + ({path}.contains('/') ? '' : 'library/') + {path} : {registry} + '/' + {path})",
        string(REGISTRY.text)
    )
}

/// Whether it is the name of an image at all.
#[must_use]
pub fn is_reference(image: &str) -> bool {
    GRAMMAR.is_match(image)
}

/// Whether it names a SHA-256 digest.
#[must_use]
pub fn has_digest(image: &str) -> bool {
    SHA256.is_match(image)
}

/// The tag: `latest` where there is neither tag nor digest; empty for a digest alone, or for what is not
/// the name of an image.
#[must_use]
pub fn tag(image: &str) -> &str {
    let Some(found) = GRAMMAR.regex().and_then(|regex| regex.captures(image)) else { return "" };
    match (found.get(1), found.get(2)) {
        (Some(tag), _) => tag.as_str().trim_start_matches(':'),
        (None, Some(_)) => "",
        (None, None) => "latest",
    }
}

/// A pattern of images.
#[derive(Debug, Clone)]
pub struct Pattern {
    /// As its author wrote it.
    pub text: String,
    /// What a normal name must match.
    pub expression: String,
    regex: Regex,
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let allowed = |character: char| character.is_ascii_alphanumeric() || "._-/:@*+[]".contains(character);
        if text.is_empty() || !text.chars().all(allowed) {
            return Err(format!("{text:?} must be an image name in which * and ** stand for other characters"));
        }
        if text == "*" {
            return Err("\"*\" would mean images of docker.io/library: write \"**\" for every image".into());
        }
        let whole = match text.split_once('/') {
            _ if text.starts_with("**") => text.to_owned(),
            // A wildcard before the first slash stands for registries.
            Some((first, _)) if first == "*" || (first.contains('*') && first.contains(['.', ':'])) => text.to_owned(),
            Some((first, _)) if first.contains('*') => {
                return Err(format!(
                    "{text:?} may mean a registry: write \"docker.io/{text}\" or \"{first}.example.com/...\""
                ));
            }
            _ => normal(text),
        };
        let expression = expression(&whole);
        let regex = Regex::new(&expression).map_err(|error| format!("{text:?} is no pattern: {error}"))?;
        Ok(Self { text: text.into(), expression, regex })
    }

    /// Whether a normal name matches.
    #[must_use]
    pub fn matches(&self, normal: &str) -> bool {
        self.regex.is_match(normal)
    }
}

/// A pattern as a regular expression, with what `*` and `**` stand for.
fn written(text: &str, one: &str, any: &str) -> String {
    let in_a_step = |part: &str| part.split('*').map(regex::escape).collect::<Vec<_>>().join(one);
    text.split("**").map(in_a_step).collect::<Vec<_>>().join(any)
}

/// What a normal name must match. No wildcard before a tag stands for one: `agents/*-approved` is not about
/// `agents/evil:x-approved`, nor `**:latest` about every image without a tag.
fn expression(whole: &str) -> String {
    let (path, end) = whole.rfind('/').map_or(("", whole), |slash| whole.split_at(slash.saturating_add(1)));
    let (name, rest) = end.find([':', '@']).map_or((end, ""), |at| end.split_at(at));
    let in_name = |text: &str| written(text, "[^/:@]*", "(.*/)?[^/:@]*");
    let name = match name.strip_suffix("**") {
        Some(begin) if rest.is_empty() => format!("{}.*", in_name(begin)),
        _ => in_name(name),
    };
    let (path, tag_and_digest) = (written(path, "[^/]*", ".*"), written(rest, "[^/]*", ".*"));
    let (any_tag, any_digest) = ("(:[^/@]*)?", "(@.*)?");
    let Some(tag) = rest.strip_prefix(':') else {
        let any_digest = if rest.is_empty() { any_digest } else { "" };
        return format!("^{path}{name}{any_tag}{tag_and_digest}{any_digest}$");
    };
    if tag.contains('@') {
        return format!("^{path}{name}{tag_and_digest}$");
    }
    // What has neither tag nor digest has the tag `latest`.
    let latest = Regex::new(&format!("^{tag_and_digest}$")).is_ok_and(|regex| regex.is_match(":latest"));
    let untagged = if latest { format!("|^{path}{name}$") } else { String::new() };
    format!("^{path}{name}{tag_and_digest}{any_digest}${untagged}")
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}
