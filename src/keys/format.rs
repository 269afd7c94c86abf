//! The format of a key: `<prefix>_<id>_<body><checksum>`.
//!
//! The id (8 characters of `0-9a-z`) is public; the body (43 of base62) carries 256 bits; the checksum
//! (6 of base62) is the CRC-32 of all before it, so that scanners and verifiers reject junk without a
//! look-up. Underscores make a double-click select the whole key.

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
        let checksum = checksum(&text);
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
        format!("sha256:{}", hex::encode(Sha256::digest(self.expose().as_bytes())))
    }
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
    let (body, given) = text.split_at_checked(text.len() - CHECKSUM).ok_or(Malformed::Shape)?;
    if checksum(body) == given.as_bytes() { Ok(id) } else { Err(Malformed::Checksum) }
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

fn checksum(text: &str) -> [u8; CHECKSUM] {
    let mut crc = crc32fast::hash(text.as_bytes());
    let mut digits = [b'0'; CHECKSUM];
    for digit in digits.iter_mut().rev() {
        *digit = BASE62.get((crc % 62) as usize).copied().unwrap_or_default();
        crc /= 62;
    }
    digits
}

/// The text with everything that has the form of a key replaced by `PREFIX_ID_[REDACTED]`.
#[must_use]
pub fn mask_keys(text: &str) -> String {
    if !text.contains('_') {
        return text.into();
    }
    let is_word = |character: char| character.is_ascii_alphanumeric() || character == '_';
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|character| !is_word(character)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        match ApiKeyText::parse(word) {
            Ok(_) => masked.extend([word.get(..word.len() - BODY - CHECKSUM).unwrap_or_default(), "[REDACTED]"]),
            Err(_) => masked.push_str(word),
        }
        let skip = after.chars().next().map_or(0, char::len_utf8);
        let (between, next) = after.split_at(skip);
        masked.push_str(between);
        rest = next;
    }
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
            let _ = ApiKeyText::parse(&text);
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
