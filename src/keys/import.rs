//! Tokens of other systems: where they come from, and what they must be like.

use std::fmt;

use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};

use super::{format::digest_of, strength, token_format::Format};
use crate::api::{
    self, ApiKeySpec, DeletionPolicy, Invalid, RetireWhen, RotationPolicy,
    labels::{IMPORT, TOKEN_EXPIRES_AT},
    whole_second,
};

/// The longest token, in bytes: as much as a usual server takes as a header.
const LONGEST: usize = 8192;

/// The field that says what each must match.
pub const FORMAT_FIELD: &str = "spec.source.imported.format";

/// Where tokens come from, and what each must be like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// Name of the user's Secret.
    pub secret: String,
    /// Name of its entry.
    pub entry: String,
    /// What every token must match; nothing, of a key that is revoked or only tolerated: none is taken.
    format: Option<Format>,
}

impl Import {
    /// Reads where tokens of a spec come from; the rules are those of the CRD, for those who come here without it. A
    /// format that is none, of which an earlier build took more, can be `tolerated`: then no token is compared with it.
    ///
    /// # Errors
    /// When the spec asks for what goes with keys of another source, or its format is none.
    pub(super) fn parse(spec: &ApiKeySpec, tolerated: bool) -> Result<Option<Self>, Invalid> {
        let Some(imported) = spec.imported() else {
            let named = !spec.prefix.is_empty();
            return if named {
                Ok(None)
            } else {
                Err(Invalid::at("spec.prefix", "is required: every key begins with it"))
            };
        };
        check(spec, imported)?;
        let format = match imported.format.as_deref().map(Format::parse).transpose() {
            Err(_) if tolerated => None,
            read => read.map_err(|problem| Invalid::at(FORMAT_FIELD, problem))?,
        };
        Ok(Some(Self { format, ..Self::of_revoked(imported) }))
    }

    /// All that is left to know where no token is taken any more.
    pub(super) fn of_revoked(imported: &api::Imported) -> Self {
        let from = &imported.secret_ref;
        Self { secret: from.name.clone(), entry: from.key.clone(), format: None }
    }

    /// Reads a token.
    ///
    /// # Errors
    /// When it has not the form that is asked for, or is too weak.
    pub fn read(&self, bytes: &[u8]) -> Result<TokenText, Fault> {
        let text = std::str::from_utf8(bytes).ok().filter(|text| text.bytes().all(|it| matches!(it, b' '..=b'~')));
        let Some(text) = text else {
            let ends = bytes.last().is_some_and(|last| matches!(last, b'\n' | b'\r'));
            return Err(Fault::Malformed(if ends { "ends in a line break" } else { "is not printable ASCII" }));
        };
        if text.is_empty() || text.len() > LONGEST {
            return Err(Fault::Malformed(if text.is_empty() { "is empty" } else { "is longer than 8192 characters" }));
        }
        if text.trim() != text {
            return Err(Fault::Malformed("begins or ends with a space"));
        }
        if self.format.as_ref().is_some_and(|format| !format.matches(text)) {
            return Err(Fault::Malformed("does not match spec.source.imported.format"));
        }
        if strength::bits(text) < strength::LEAST_BITS {
            return Err(Fault::Weak);
        }
        Ok(TokenText(text.into()))
    }

    /// Why no token can be taken from the Secret.
    #[must_use]
    pub fn problem(&self, fault: Fault) -> TokenProblem {
        TokenProblem { secret: self.secret.clone(), entry: self.entry.clone(), fault }
    }
}

fn check(spec: &ApiKeySpec, imported: &api::Imported) -> Result<(), Invalid> {
    let none = "must be left out: no verifier knows an imported token";
    let rotation = &spec.rotation;
    let rules = [
        (spec.prefix.is_empty(), "spec.prefix", none),
        (spec.role.is_none(), "spec.role", none),
        (spec.permissions.is_empty(), "spec.permissions", none),
        (spec.rate_limit.is_none(), "spec.rateLimit", none),
        (spec.suspended.is_none(), "spec.suspended", none),
        (
            spec.ttl.is_some(),
            "spec.ttl",
            "is required for an imported token: say how long after it was supplied it may be used",
        ),
        (
            rotation.policy != RotationPolicy::Disabled,
            "spec.rotation.policy",
            "must be Automatic or Manual for an imported token",
        ),
        (
            rotation.windows.is_empty(),
            "spec.rotation.windows",
            "must be left out: an imported token is replaced when you supply its successor",
        ),
        (
            rotation.retire_when == RetireWhen::Elapsed,
            "spec.rotation.retireWhen",
            "must be Elapsed: nobody sees an imported token used",
        ),
        (
            spec.secret.deletion_policy == DeletionPolicy::Delete,
            "spec.secret.deletionPolicy",
            "must be Delete: the token stays in your own Secret",
        ),
        (
            spec.secret.name != imported.secret_ref.name,
            "spec.secret.name",
            "must be another Secret than source.imported.secretRef names",
        ),
    ];
    let broken = rules.into_iter().find(|(holds, _, _)| !holds);
    broken.map_or(Ok(()), |(_, field, problem)| Err(Invalid::at(field, problem)))
}

/// A token, never printed.
pub struct TokenText(SecretString);

impl fmt::Debug for TokenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenText")
    }
}

impl TokenText {
    /// The token itself, for the Secret that holds it.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// Its digest, as of a key.
    #[must_use]
    pub fn digest(&self) -> String {
        digest_of(self.expose().as_bytes())
    }
}

/// A token that is offered, and could be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Public id: the same whenever the same token is offered in a namespace.
    pub id: String,
    /// Its digest.
    pub digest: String,
    /// When it ends, as the system that issued it says, if the user tells of it.
    pub ends: Option<Timestamp>,
}

/// Reads when a token ends, as [`TOKEN_EXPIRES_AT`] has it.
///
/// # Errors
/// When it is no time.
pub fn read_end(annotation: &str) -> Result<Timestamp, Fault> {
    annotation.trim().parse().ok().map(whole_second).ok_or(Fault::NoTime)
}

/// Why no token can be taken from a Secret. It never says what the token is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenProblem {
    secret: String,
    entry: String,
    /// What is wrong.
    pub fault: Fault,
}

/// What is wrong with a token, or its Secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// There is no such Secret.
    NoSecret,
    /// Its owner did not agree.
    NotOptedIn,
    /// It is one that Rampart made.
    Made,
    /// It has no such entry.
    NoEntry,
    /// The token has not the form of one.
    Malformed(&'static str),
    /// It is too weak.
    Weak,
    /// What is said to be its end is no time.
    NoTime,
    /// It was revoked in this namespace.
    Revoked,
    /// It was replaced in this namespace, or its time was over.
    Ended,
    /// Another ApiKey of this namespace has it.
    Taken,
}

impl TokenProblem {
    /// Stable name.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self.fault {
            Fault::NoSecret => "SecretNotFound",
            Fault::NotOptedIn | Fault::Made => "SecretNotPermitted",
            Fault::NoEntry => "SecretEntryNotFound",
            Fault::Malformed(_) => "TokenMalformed",
            Fault::Weak => "TokenWeak",
            Fault::NoTime => "TokenExpiryMalformed",
            Fault::Revoked => "TokenRevoked",
            Fault::Ended => "TokenEnded",
            Fault::Taken => "TokenTaken",
        }
    }
}

impl fmt::Display for TokenProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { secret, entry, fault } = self;
        match fault {
            Fault::NoSecret => write!(
                f,
                "there is no Secret {secret} in this namespace: create it, with the token in its entry {entry} and the label {IMPORT}: \"true\""
            ),
            Fault::NotOptedIn => {
                write!(
                    f,
                    "no token is imported from Secret {secret} before its owner agrees: give it the label {IMPORT}: \"true\""
                )
            }
            Fault::Made => {
                write!(f, "Secret {secret} was made by Rampart: name one of your own in spec.source.imported.secretRef")
            }
            Fault::NoEntry => write!(f, "Secret {secret} has no entry {entry}: put the token there"),
            Fault::Malformed(how) => write!(f, "the token in entry {entry} of Secret {secret} {how}: put it right"),
            Fault::Weak => write!(
                f,
                "the token in entry {entry} of Secret {secret} is weaker than 128 bits, as estimated by its form: have a longer one issued"
            ),
            Fault::NoTime => write!(
                f,
                "the annotation {TOKEN_EXPIRES_AT} of Secret {secret} is no RFC 3339 time, as 2027-01-31T00:00:00Z is: put it right, or take it out"
            ),
            Fault::Revoked => write!(
                f,
                "the token in entry {entry} of Secret {secret} was revoked in this namespace, for ever: have another one issued"
            ),
            Fault::Ended => write!(
                f,
                "the token in entry {entry} of Secret {secret} was replaced before, or its time was over: have another one issued"
            ),
            Fault::Taken => write!(
                f,
                "the token in entry {entry} of Secret {secret} is another ApiKey's already: share that one, or have another token issued"
            ),
        }
    }
}

#[cfg(test)]
#[path = "import_tests.rs"]
mod tests;
