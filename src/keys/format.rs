//! The format of a key: `<prefix>_<id>_<body><checksum>`.
//!
//! The id (8 characters of `0-9a-z`) is public; the body (43 of base62) carries 256 bits; the checksum
//! (6 of base62) is the CRC-32 of all before it, so that scanners and verifiers reject junk without a
//! look-up. Underscores make a double-click select the whole key.

use std::ops::Range;

use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use zeroize::Zeroizing;

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const BASE36: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
const ID: usize = 8;
const BODY: usize = 43;
const CHECKSUM: usize = 6;
/// The longest key: a prefix of 21 characters.
const LONGEST: usize = 21 + 1 + ID + 1 + BODY + CHECKSUM;

/// What a key looks like, for scanners of repositories and logs, as a regular expression. The last six characters are
/// the CRC-32 of all before, in base62 with leading zeros: what matches and has another checksum is no key.
pub const PATTERN: &str = r"\b[a-z][a-z0-9]{1,15}(?:_(?:live|test))?_[0-9a-z]{8}_[0-9A-Za-z]{49}\b";

/// A key, never printed.
pub struct ApiKeyText {
    text: SecretString,
    id: String,
}

/// Why a text is not a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Malformed {
    /// Not three parts of the right lengths and alphabets.
    #[error("it is not of the form PREFIX_ID_BODY")]
    Shape,
    /// A character was changed or left out.
    #[error("its checksum is wrong: it was cut or mistyped")]
    Checksum,
}

impl std::fmt::Debug for ApiKeyText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiKeyText").field("id", &self.id).finish_non_exhaustive()
    }
}

impl ApiKeyText {
    /// Makes a key from an id and 32 random bytes.
    #[must_use]
    pub fn new(prefix: &str, id: &str, entropy: &[u8; 32]) -> Self {
        // Sized for the longest key at once: growing would leave copies behind.
        let mut text = Zeroizing::new(String::with_capacity(LONGEST.max(prefix.len() + LONGEST)));
        text.push_str(prefix);
        text.push('_');
        text.push_str(id);
        text.push('_');
        push_base62(&mut text, entropy);
        let checksum = checksum(text.as_bytes());
        text.extend(checksum.map(char::from));
        Self { text: SecretString::from(text.as_str()), id: id.into() }
    }

    /// Reads a key.
    ///
    /// # Errors
    /// When the text has not the form of a key, or its checksum is wrong.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let id = id_of(text)?;
        Ok(Self { text: text.into(), id: id.into() })
    }

    /// The public id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The key itself, for the Secret that holds it.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.text.expose_secret()
    }

    /// What verifiers know of the key: `sha256:` and the digest in hex.
    #[must_use]
    pub fn digest(&self) -> String {
        digest_of(self.expose().as_bytes())
    }
}

/// What is known of a key where it is not: `sha256:` and its digest in hex.
#[must_use]
pub fn digest_of(key: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(key)))
}

/// The public id of what may be a key, by its lengths alone. Who looks it up needs no more: the digest of a key that is
/// known proves the rest, and of one that is not, [`is_whole`] tells whether it was mistyped.
#[must_use]
pub fn id_in(text: &[u8]) -> Option<[u8; ID]> {
    let (head, _) = text.split_last_chunk::<{ BODY + CHECKSUM }>()?;
    let (prefix, id) = head.strip_suffix(b"_")?.split_last_chunk()?;
    (prefix.len() > 1 && prefix.ends_with(b"_") && text.len() <= LONGEST).then_some(*id)
}

/// Whether the checksum of what may be a key is right.
#[must_use]
pub fn is_whole(text: &[u8]) -> bool {
    text.split_last_chunk().is_some_and(|(body, given)| checksum(body) == *given)
}

/// The public id of a key, if the text has the form of one and its checksum is right.
///
/// # Errors
/// When the text has not the form of a key, or its checksum is wrong.
pub fn id_of(text: &str) -> Result<&str, Malformed> {
    let shape = || {
        let (head, tail) = text.rsplit_once('_')?;
        let (prefix, id) = head.rsplit_once('_')?;
        let lengths = tail.len() == BODY + CHECKSUM && id.len() == ID && text.len() <= LONGEST;
        let in_id = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let alphabets = tail.bytes().all(|byte| byte.is_ascii_alphanumeric()) && id.bytes().all(in_id);
        (lengths && alphabets && is_prefix(prefix)).then_some(id)
    };
    let id = shape().ok_or(Malformed::Shape)?;
    if is_whole(text.as_bytes()) { Ok(id) } else { Err(Malformed::Checksum) }
}

/// A public id from random bytes.
#[must_use]
pub fn id_from(entropy: &[u8; 8]) -> String {
    entropy
        .iter()
        .filter_map(|byte| BASE36.get(usize::from(*byte) % BASE36.len()))
        .map(|byte| char::from(*byte))
        .collect()
}

fn is_prefix(prefix: &str) -> bool {
    let name = prefix.strip_suffix("_live").or_else(|| prefix.strip_suffix("_test")).unwrap_or(prefix);
    let tail = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (2..=16).contains(&name.len())
        && name.as_bytes().first().is_some_and(u8::is_ascii_lowercase)
        && name.bytes().all(tail)
}

/// 43 digits hold 256 bits: the number in base62, most significant digit first.
fn push_base62(text: &mut String, entropy: &[u8; 32]) {
    let mut number = Zeroizing::new(*entropy);
    let mut digits = Zeroizing::new([0_u8; BODY]);
    for digit in digits.iter_mut().rev() {
        let mut rest = 0_u32;
        for byte in number.iter_mut() {
            let value = rest * 256 + u32::from(*byte);
            *byte = u8::try_from(value / 62).unwrap_or_default();
            rest = value % 62;
        }
        *digit = BASE62.get(rest as usize).copied().unwrap_or_default();
    }
    text.extend(digits.iter().map(|digit| char::from(*digit)));
}

fn checksum(text: &[u8]) -> [u8; CHECKSUM] {
    let mut crc = crc32fast::hash(text);
    let mut digits = [b'0'; CHECKSUM];
    for digit in digits.iter_mut().rev() {
        *digit = BASE62.get((crc % 62) as usize).copied().unwrap_or_default();
        crc /= 62;
    }
    digits
}

/// A key that stands in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spotted {
    /// First part of the key.
    pub prefix: String,
    /// Public id of the key.
    pub id: String,
    /// Where in the text its secret part stands.
    secret: Range<usize>,
}

/// The keys that stand in a text, wherever words are joined to them by underscores.
#[must_use]
pub fn spot_keys(text: &str) -> Vec<Spotted> {
    let mut found = vec![];
    if !text.contains('_') {
        return found;
    }
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let mut start = 0;
    for word in text.as_bytes().split(|byte| !is_word(*byte)) {
        // The shortest key has a prefix of two characters.
        if word.len() > 2 + 1 + ID + 1 + BODY {
            spot_in_word(text, start..start + word.len(), &mut found);
        }
        start += word.len() + 1;
    }
    found
}

/// Looks at each part of a word that is as long as the secret one.
fn spot_in_word(text: &str, word: Range<usize>, found: &mut Vec<Spotted>) {
    let mut starts = vec![word.start];
    let underscores = text.as_bytes().iter().enumerate().take(word.end).skip(word.start).filter(|(_, it)| **it == b'_');
    starts.extend(underscores.map(|(at, _)| at + 1));
    let end_of = |part: usize| starts.get(part + 1).map_or(word.end, |next| next - 1);
    for part in 2..starts.len() {
        let Some(secret) = starts.get(part).copied().filter(|start| end_of(part) - start == BODY + CHECKSUM) else {
            continue;
        };
        // The prefix has one part, or two.
        for first in [part.checked_sub(2), part.checked_sub(3)].into_iter().flatten() {
            let Some(key) = starts.get(first).and_then(|start| text.get(*start..end_of(part))) else { continue };
            let Ok(read) = ApiKeyText::parse(key) else { continue };
            let prefix = key.len() - BODY - CHECKSUM - 1 - ID - 1;
            found.push(Spotted {
                prefix: key.get(..prefix).unwrap_or_default().into(),
                id: read.id,
                secret: secret..end_of(part),
            });
            break;
        }
    }
}

/// The text with everything that has the form of a key replaced by `PREFIX_ID_[REDACTED]`.
#[must_use]
pub fn mask_keys(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut from = 0;
    for key in spot_keys(text) {
        masked.extend([text.get(from..key.secret.start).unwrap_or_default(), "[REDACTED]"]);
        from = key.secret.end;
    }
    masked.push_str(text.get(from..).unwrap_or_default());
    masked
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_made_is_read_back(entropy: [u8; 32], id: [u8; 8]) {
            let id = id_from(&id);
            let key = ApiKeyText::new("acme_live", &id, &entropy);
            let text = key.expose().as_bytes();
            prop_assert_eq!((id_in(text).map(Vec::from), is_whole(text)), (Some(id.clone().into_bytes()), true));
            let read = ApiKeyText::parse(key.expose()).unwrap();
            prop_assert_eq!(read.id(), &id);
            prop_assert_eq!(read.digest(), key.digest());
        }

        #[test]
        fn one_wrong_character_is_noticed(entropy: [u8; 32], at in 0_usize..BODY + CHECKSUM, with in 0_usize..62) {
            let key = ApiKeyText::new("acme", "0123abcd", &entropy);
            let mut text = key.expose().as_bytes().to_vec();
            let place = text.len() - 1 - at;
            prop_assume!(text[place] != BASE62[with]);
            text[place] = BASE62[with];
            let changed = String::from_utf8(text).unwrap();
            prop_assert_eq!(ApiKeyText::parse(&changed).unwrap_err(), Malformed::Checksum);
        }

        #[test]
        fn no_text_panics(text in ".{0,120}") {
            let _ = (ApiKeyText::parse(&text), id_in(text.as_bytes()), is_whole(text.as_bytes()));
            prop_assert_eq!(mask_keys(&text), text);
        }
    }

    #[test]
    fn bodies_of_different_numbers_differ_and_cover_the_range() {
        let body = |entropy| ApiKeyText::new("ab", "00000000", &entropy).expose()[12..12 + BODY].to_owned();
        assert_eq!(body([0; 32]), "0".repeat(BODY));
        let mut one = [0; 32];
        one[31] = 1;
        assert_eq!(body(one), format!("{}1", "0".repeat(BODY - 1)));
        // 2^256 - 1 in base62, from an independent calculation.
        assert_eq!(body([255; 32]), "yhjskwdA6OZ1AL1YmHWZWm8LLG7HjnuCA2j5rOw8Xp1");
    }

    #[test]
    fn keys_are_masked_wherever_they_stand() {
        let key = ApiKeyText::new("acme_live", "0123abcd", &[7; 32]);
        let masked = mask_keys(&format!("token={}, \"{}\"!", key.expose(), key.expose()));
        assert_eq!(masked, "token=acme_live_0123abcd_[REDACTED], \"acme_live_0123abcd_[REDACTED]\"!");
    }

    #[test]
    fn keys_are_spotted_between_other_words() {
        let key = ApiKeyText::new("acme_live", "0123abcd", &[7; 32]);
        let short = ApiKeyText::new("ab", "live0000", &[8; 32]);
        let text = format!("TOKEN_{}_é_x {}{} {}_", key.expose(), key.expose(), 'a', short.expose());
        let found: Vec<(String, String)> = spot_keys(&text).into_iter().map(|it| (it.prefix, it.id)).collect();
        let wanted = [("acme_live", "0123abcd"), ("ab", "live0000")];
        assert_eq!(found, wanted.map(|(prefix, id)| (prefix.to_owned(), id.to_owned())));
        assert!(!mask_keys(&text).contains(short.expose()));
    }

    proptest! {
        #[test]
        fn the_published_pattern_finds_every_key(entropy: [u8; 32], id: [u8; 8], prefix in "[a-z][a-z0-9]{1,15}(_live|_test)?") {
            let key = ApiKeyText::new(&prefix, &id_from(&id), &entropy);
            let text = format!("a: \"{}\", b", key.expose());
            let found = regex::Regex::new(PATTERN).unwrap().find(&text).map(|found| found.as_str().to_owned());
            prop_assert_eq!(found.as_deref(), Some(key.expose()));
            prop_assert_eq!(spot_keys(&text).len(), 1);
        }
    }

    #[test]
    fn debug_shows_the_id_alone() {
        let key = ApiKeyText::new("acme_live", "0123abcd", &[7; 32]);
        assert_eq!(format!("{key:?}"), "ApiKeyText { id: \"0123abcd\", .. }");
    }

    #[test]
    fn shapes_that_are_no_keys() {
        let key = ApiKeyText::new("acme_live", "0123abcd", &[7; 32]).expose().to_owned();
        for bad in [
            &key[1..],
            &key[..key.len() - 1],
            &key.replace("acme", "Acme"),
            &key.replace("_live", "_prod"),
            "",
            "a_b_c",
        ] {
            assert!(ApiKeyText::parse(bad).is_err(), "{bad}");
        }
    }
}
