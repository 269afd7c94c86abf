//! How strong a token is at the most, judged by its form alone.
//!
//! Each letter and digit counts as much as a random one of the smallest alphabet that all of them fit: ten digits, hex,
//! one case and digits, both cases and digits. What is not random counts less: a name in front (`sk_live_`), a repeated
//! block, few different characters, characters in a row (`abc`, `321`). Dashes, underscores, dots and colons separate,
//! and count nothing; other signs make the alphabet larger. A UUID has 122 random bits (RFC 9562). A token that passes
//! may still be weak: nobody can tell from a word that looks random that it was chosen. One that fails is weak.

/// Bits that a token must have: what a digest of it can't be searched for.
pub(super) const LEAST_BITS: f64 = 128.0;

/// Random bits of a token of printable ASCII, at the most.
pub(super) fn bits(token: &str) -> f64 {
    if is_uuid(token) {
        return 122.0;
    }
    let body: Vec<u8> = without_name(token).bytes().filter(|byte| !is_separator(*byte)).collect();
    let once = body.get(..period(&body)).unwrap_or_default();
    let counted = once.len() - in_a_row(once);
    let alphabet = alphabet(once).min(twice_as_few(once));
    to_f64(counted) * to_f64(alphabet.max(1)).log2()
}

const fn is_separator(byte: u8) -> bool {
    matches!(byte, b'-' | b'_' | b'.' | b':')
}

/// The token without names in front: up to ten letters, and an underscore or a dash.
fn without_name(token: &str) -> &str {
    let mut rest = token;
    while let Some((name, after)) = rest.split_once(['_', '-']) {
        if name.is_empty() || name.len() > 10 || !name.bytes().all(|byte| byte.is_ascii_alphabetic()) {
            break;
        }
        rest = after;
    }
    rest
}

/// The length of the shortest block that the text repeats, the last time cut perhaps; its own, if there is none.
fn period(text: &[u8]) -> usize {
    let repeats = |block: &usize| text.get(*block..) == text.get(..text.len() - block);
    (1..=text.len() / 2).find(repeats).unwrap_or(text.len())
}

/// The smallest usual alphabet that has every character.
fn alphabet(text: &[u8]) -> usize {
    let all = |is: fn(&u8) -> bool| text.iter().filter(|byte| byte.is_ascii_alphanumeric()).all(is);
    let signs = if text.iter().all(u8::is_ascii_alphanumeric) { 0 } else { 28 };
    let letters_and_digits = if all(u8::is_ascii_digit) {
        10
    } else if all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f')) || all(|it| matches!(it, b'0'..=b'9' | b'A'..=b'F')) {
        16
    } else if all(u8::is_ascii_lowercase) || all(u8::is_ascii_uppercase) {
        26
    } else if all(|it| !it.is_ascii_uppercase()) || all(|it| !it.is_ascii_lowercase()) {
        36
    } else if all(u8::is_ascii_alphabetic) {
        52
    } else {
        62
    };
    letters_and_digits + signs
}

/// The number of different characters, where it is less than half of what random ones would show; no bound otherwise.
fn twice_as_few(text: &[u8]) -> usize {
    let mut different = text.to_vec();
    different.sort_unstable();
    different.dedup();
    let of = to_f64(alphabet(text));
    let expected = of * (1.0 - (1.0 - 1.0 / of).powf(to_f64(text.len())));
    if to_f64(different.len()) * 2.0 < expected { different.len() } else { usize::MAX }
}

/// How many characters follow the one before them in the alphabet, or repeat it, where these are most of all.
fn in_a_row(text: &[u8]) -> usize {
    let steps = text.iter().zip(text.iter().skip(1));
    let near = steps.filter(|(one, next)| one.abs_diff(**next) <= 1).count();
    if near * 2 > text.len() { near } else { 0 }
}

fn is_uuid(token: &str) -> bool {
    let parts: Vec<&str> = token.split('-').collect();
    parts.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12])
        && parts.iter().all(|part| part.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Lengths here are of tokens, and small.
fn to_f64(number: usize) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::github("ghp_R4nd0mQ7xV2bK9sLw3TzYc8HfJ5uN1mPgEaD", true)]
    #[case::stripe("sk_live_51HqLyjWDarjtT1zdp7dcXq9", true)]
    #[case::slack("xoxb-2401938475-8837261940-Zk3vQ9tXr7LmW2sBnC5yJd8H", true)]
    #[case::hex_of_128_bits("d41d8cd98f00b204e9800998ecf8427e", true)]
    #[case::base64("wJalrXUtnFEMIK7MDENGbPxRfiCYzK+/3q9Q==", true)]
    #[case::uuid("6f9619ff-8b86-4011-b42d-00c04fc964ff", false)]
    #[case::short("hunter2", false)]
    #[case::digits_of_126_bits("73190284650918273645019283746501928374", false)]
    #[case::hex_of_64_bits("9f86d081884c7d65", false)]
    #[case::the_same_twice("9f86d081884c7d659f86d081884c7d65", false)]
    #[case::one_character(&"A".repeat(64), false)]
    #[case::two_characters("abbabaabbaababbabaababbaabbabaabbaababba", false)]
    #[case::a_word_again_and_again("passwordpasswordpasswordpasswordpassword", false)]
    #[case::in_a_row("abcdefghijklmnopqrstuvwxyz0123456789", false)]
    #[case::a_long_name("production_database_password_hunter2", false)]
    #[case::separators("a-b-c-d-e-f-g-h-i-j-k-l-m-n-o-p-q-r-s-t", false)]
    #[case::empty("", false)]
    fn tokens_by_their_form(#[case] token: &str, #[case] is_strong: bool) {
        let bits = bits(token);
        assert_eq!(bits >= LEAST_BITS, is_strong, "{token}: {bits}");
    }

    fn random(alphabet: &'static str, length: usize) -> impl Strategy<Value = String> {
        let characters = prop::sample::select(alphabet.chars().collect::<Vec<_>>());
        prop::collection::vec(characters, length).prop_map(|all| all.into_iter().collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        /// What generators make must pass: 128 bits of hex, 28 characters of base62.
        #[test]
        fn random_tokens_are_strong(hex in random("0123456789abcdef", 31),
                                    base62 in random("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", 28)) {
            // Digits alone, once in three million, are no hex.
            let hex = format!("{hex}c");
            prop_assert!(bits(&hex) >= LEAST_BITS, "{}: {}", hex, bits(&hex));
            let named = format!("sk_live_{base62}");
            prop_assert!(bits(&named) >= LEAST_BITS, "{}: {}", named, bits(&named));
        }

        /// No text is taken for more than its length allows, and none panics.
        #[test]
        fn nothing_counts_more_than_its_length(token in "[ -~]{0,60}") {
            let most = 7.0 * to_f64(token.len());
            prop_assert!(bits(&token) <= most.max(122.0));
        }
    }
}
