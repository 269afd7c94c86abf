//! A key as a verifier knows it.

use std::sync::Arc;

use jiff::Timestamp;
use smol_str::SmolStr;

use super::{
    answer,
    limits::{Cells, Rates},
};
use crate::{
    api::{Limits, RateShare, Verb},
    keys::names::covers,
};

/// Public id of a key: eight characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(u64);

impl KeyId {
    /// Reads an id.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::of(text.as_bytes().try_into().ok()?)
    }

    /// Reads an id of this length.
    pub(super) fn of(bytes: [u8; 8]) -> Option<Self> {
        // All at once, without an end at the first that is wrong.
        let in_alphabet =
            bytes.iter().fold(true, |all, byte| all & (byte.is_ascii_lowercase() | byte.is_ascii_digit()));
        in_alphabet.then(|| Self(u64::from_be_bytes(bytes)))
    }
}

impl std::fmt::Display for KeyId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(std::str::from_utf8(&self.0.to_be_bytes()).unwrap_or_default())
    }
}

/// What keys of one kind may do; shared by all that may do the same.
#[derive(Debug, PartialEq, Eq)]
pub struct Access {
    /// Name of the role, or nothing.
    pub role: Box<str>,
    /// Verbs, a bit each.
    pub(super) verbs: u8,
    /// Permissions.
    pub permissions: Box<[Box<str>]>,
    /// Services.
    pub audiences: Box<[Box<str>]>,
    /// Rates.
    pub rates: Rates,
    /// What keys may do, as the service is told: verbs and permissions.
    pub(super) scopes: Box<str>,
    /// `RateLimit-Policy`.
    pub(super) policy: Box<str>,
    /// Whether all keys of the owner share the rates.
    pub shared_by_owner: bool,
}

impl Access {
    /// The rights of a record.
    #[must_use]
    pub fn new(role: &str, verbs: &[Verb], permissions: &[String], audiences: &[String], limits: &Limits) -> Self {
        let boxed = |texts: &[String]| texts.iter().map(|text| text.as_str().into()).collect();
        let rates = Rates::new(limits);
        Self {
            role: role.into(),
            verbs: verbs.iter().fold(0, |bits, verb| bits | bit(*verb)),
            permissions: boxed(permissions),
            audiences: boxed(audiences),
            rates,
            scopes: answer::scopes(verbs, permissions).into(),
            policy: answer::policy(&Cells::default().windows(&rates, Timestamp::UNIX_EPOCH)).into(),
            shared_by_owner: limits.shared == RateShare::Owner,
        }
    }

    /// Whether keys may do this on a route that states no permission.
    #[must_use]
    pub fn may(&self, verb: Verb) -> bool {
        self.verbs & bit(verb) != 0
    }

    /// Whether keys have a permission: by its name, or by a wildcard above it.
    #[must_use]
    pub fn has(&self, permission: &str) -> bool {
        self.permissions.iter().any(|granted| covers(granted, permission))
    }

    /// Whether keys are for a service.
    #[must_use]
    pub fn is_for(&self, audience: &str) -> bool {
        self.audiences.iter().any(|service| **service == *audience)
    }
}

const fn bit(verb: Verb) -> u8 {
    match verb {
        Verb::Read => 1,
        Verb::Write => 2,
        Verb::Delete => 4,
        Verb::Admin => 8,
    }
}

/// A digest in words.
pub(super) fn words(digest: [u8; 32]) -> [u64; 4] {
    let (words, _) = digest.as_chunks::<8>();
    std::array::from_fn(|nth| words.get(nth).copied().map_or(0, u64::from_ne_bytes))
}

/// What is known of a key.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// In words, which compare faster than bytes.
    pub(super) digest: [u64; 4],
    /// Whose it is.
    pub(super) owner: SmolStr,
    /// What it may do.
    pub(super) access: Arc<Access>,
    /// When it ends, because it expires or because it was replaced; in seconds since 1970.
    pub(super) ends_at: i64,
    pub(super) suspended: bool,
    pub(super) deprecated: bool,
}

impl Known {
    /// When a replaced key ends; none of one that was not replaced.
    pub(super) fn sunset(&self) -> Option<Timestamp> {
        self.deprecated.then(|| Timestamp::from_second(self.ends_at).ok()).flatten()
    }
}

/// What is kept of the calls of a key, for as long as it lives, whatever becomes of its record.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Calls {
    pub(super) cells: Cells,
    /// Calls that were admitted since the process started.
    pub(super) count: u64,
    /// When the last one was, in seconds since 1970.
    pub(super) last: i64,
}

/// A key.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) known: Known,
    pub(super) calls: Calls,
}

impl Entry {
    /// Reads a little of each of its parts, for the cache alone.
    pub(super) fn fetch(&self) {
        let Self { known, calls } = self;
        std::hint::black_box((known.digest[0], known.ends_at, calls.cells, calls.last));
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::keys::DEFAULT_RATE;

    #[rstest]
    #[case("models.*", "models.read", true)]
    #[case("models.*", "models.read.all", true)]
    #[case("models.*", "models", false)]
    #[case("models.*", "models.", false)]
    #[case("models.*", "modelsmith.read", false)]
    #[case("models.read", "models.read", true)]
    #[case("models.read", "models.read.all", false)]
    #[case("models*", "models.read", false)]
    #[case("*", "models.read", true)]
    fn permissions(#[case] granted: &str, #[case] asked: &str, #[case] wanted: bool) {
        let access = Access::new("", &[], &[granted.to_owned()], &[], &DEFAULT_RATE);
        assert_eq!(access.has(asked), wanted);
    }

    #[test]
    fn ids() {
        assert_eq!(KeyId::parse("0123abcd").unwrap().to_string(), "0123abcd");
        for bad in ["", "0123abc", "0123abcde", "0123ABCD", "0123abé"] {
            assert_eq!(KeyId::parse(bad), None, "{bad}");
        }
    }
}
