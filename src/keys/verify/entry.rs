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

/// What a record says of a key.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// In words, which compare faster than bytes.
    pub(super) digest: [u64; 4],
    /// Whose it is.
    pub(super) owner: SmolStr,
    /// What it may do.
    pub(super) access: Arc<Access>,
    /// When it ends, because it expires or because it was replaced; in [`seconds`].
    pub(super) ends_at: u64,
    pub(super) suspended: bool,
    pub(super) deprecated: bool,
}

/// A key: what its record says, and what is kept of its calls for as long as it lives, whatever becomes of its record.
///
/// It fills two lines of a cache, and no third: memory is what a decision waits for.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Entry {
    /// The id, and flags in bits that no id has.
    marked: u64,
    pub(super) digest: [u64; 4],
    pub(super) access: Arc<Access>,
    /// When it ends; see [`Known::ends_at`].
    ends_at: [u8; 5],
    /// Calls that were admitted since the process started.
    count: [u8; 7],
    /// When the last call was, in seconds since 1970; from 2106 on the last that there is room for.
    last: u32,
    pub(super) cells: Cells,
    pub(super) owner: SmolStr,
}

const _: () = assert!(size_of::<Entry>() == 128);

/// Characters of an id are ASCII, so that the first bit of each is free.
const SUSPENDED: u64 = 1 << 63;
const DEPRECATED: u64 = 1 << 55;

impl Entry {
    /// A key that was never used.
    pub(super) fn new(id: KeyId, known: Known) -> Self {
        let Known { digest, owner, access, ends_at, suspended, deprecated } = known;
        let flag = |set, bit| if set { bit } else { 0 };
        let marked = id.0 | flag(suspended, SUSPENDED) | flag(deprecated, DEPRECATED);
        let ends_at = packed(ends_at);
        Self { marked, digest, access, ends_at, count: [0; 7], last: 0, cells: Cells::default(), owner }
    }

    /// Its record says something else now; its calls go on as long as it is the same owner's.
    pub(super) fn renew(&mut self, known: Known) {
        let mut new = Self::new(self.id(), known);
        if new.owner == self.owner {
            (new.last, new.count, new.cells) = (self.last, self.count, self.cells);
        }
        *self = new;
    }

    /// Whether its record says this.
    pub(super) fn says(&self, known: &Known) -> bool {
        let Known { digest, owner, access, ends_at, suspended, deprecated } = known;
        (self.digest, &self.owner, &self.access) == (*digest, owner, access)
            && (self.ends_at(), self.is_suspended(), self.is_deprecated()) == (*ends_at, *suspended, *deprecated)
    }

    pub(super) fn id(&self) -> KeyId {
        KeyId(self.marked & !(SUSPENDED | DEPRECATED))
    }

    pub(super) fn is_suspended(&self) -> bool {
        self.marked & SUSPENDED != 0
    }

    fn is_deprecated(&self) -> bool {
        self.marked & DEPRECATED != 0
    }

    /// When it ends, in [`seconds`].
    pub(super) fn ends_at(&self) -> u64 {
        unpacked(self.ends_at)
    }

    /// When a replaced key ends; none of one that was not replaced.
    pub(super) fn sunset(&self) -> Option<Timestamp> {
        self.is_deprecated().then(|| Timestamp::from_second(self.ends_at().try_into().ok()?).ok()).flatten()
    }

    /// Takes note of a call that was admitted.
    pub(super) fn called(&mut self, now: Timestamp) {
        self.count = packed(unpacked(self.count) + 1);
        self.last = self.last.max(u32::try_from(seconds(now)).unwrap_or(u32::MAX));
    }

    /// How many calls were admitted, and when the last one was, in seconds since 1970.
    pub(super) fn calls(&self) -> (u64, u32) {
        (unpacked(self.count), self.last)
    }

    /// Reads a little of each of its halves, for the cache alone.
    pub(super) fn fetch(&self) {
        std::hint::black_box((self.digest[0], self.ends_at, self.cells, self.last));
    }
}

/// Seconds since 1970.
pub(super) fn seconds(at: Timestamp) -> u64 {
    u64::try_from(at.as_second()).unwrap_or_default()
}

/// A number in so many bytes; the greatest that they hold, where it is greater.
fn packed<const BYTES: usize>(number: u64) -> [u8; BYTES] {
    let bytes = number.to_le_bytes();
    match bytes.split_first_chunk() {
        Some((low, high)) if high.iter().all(|byte| *byte == 0) => *low,
        _ => [u8::MAX; BYTES],
    }
}

fn unpacked<const BYTES: usize>(bytes: [u8; BYTES]) -> u64 {
    let mut all = [0; 8];
    if let Some((low, _)) = all.split_first_chunk_mut() {
        *low = bytes;
    }
    u64::from_le_bytes(all)
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

    fn known(owner: &str, suspended: bool, deprecated: bool) -> Known {
        let access = Arc::new(Access::new("", &[], &[], &[], &DEFAULT_RATE));
        Known { digest: [1, 2, 3, 4], owner: owner.into(), access, ends_at: 9, suspended, deprecated }
    }

    #[rstest]
    #[case(false, false)]
    #[case(true, false)]
    #[case(false, true)]
    #[case(true, true)]
    fn flags_lie_beside_the_id(#[case] suspended: bool, #[case] deprecated: bool) {
        for id in ["00000000", "zzzzzzzz", "0123abcd"] {
            let id = KeyId::parse(id).unwrap();
            let entry = Entry::new(id, known("o", suspended, deprecated));
            assert_eq!((entry.id(), entry.is_suspended(), entry.is_deprecated()), (id, suspended, deprecated));
            assert_eq!(entry.sunset(), deprecated.then(|| Timestamp::from_second(9).unwrap()));
            for other in [(false, false), (true, false), (false, true), (true, true)] {
                assert_eq!(entry.says(&known("o", other.0, other.1)), other == (suspended, deprecated));
            }
        }
    }

    #[test]
    fn calls_go_on_as_long_as_the_owner_is_the_same() {
        let mut entry = Entry::new(KeyId::parse("0123abcd").unwrap(), known("a", false, false));
        entry.called(Timestamp::from_second(5).unwrap());
        entry.called(Timestamp::from_second(4).unwrap());
        entry.renew(known("a", true, false));
        assert_eq!((entry.calls(), entry.is_suspended()), ((2, 5), true));
        entry.renew(known("b", true, false));
        assert_eq!(entry.calls(), (0, 0));
    }

    #[rstest]
    #[case("1969-12-31T23:59:59Z", 0)]
    #[case("2106-02-07T06:28:16Z", 1 << 32)]
    #[case("9999-01-01T00:00:00Z", 253_370_764_800)]
    fn every_end_is_kept_to_the_second(#[case] at: Timestamp, #[case] wanted: u64) {
        assert_eq!(seconds(at), wanted);
        let known = Known { ends_at: wanted, ..known("o", false, true) };
        let entry = Entry::new(KeyId::parse("0123abcd").unwrap(), known);
        assert_eq!((entry.ends_at(), entry.sunset().map(seconds)), (wanted, Some(wanted)));
    }

    #[test]
    fn what_is_too_great_is_the_greatest() {
        assert_eq!(unpacked(packed::<5>(1 << 40)), (1 << 40) - 1);
        assert_eq!(unpacked(packed::<7>((1 << 56) - 1)), (1 << 56) - 1);
    }
}
