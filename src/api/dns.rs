//! Names that stand in paths of the API server, by RFC 1123 as Kubernetes uses it.

/// Whether a text is a label: up to 63 of `a-z`, `0-9` and `-`, with none of the last at its ends.
#[must_use]
pub fn is_label(text: &str) -> bool {
    text.len() <= 63 && is_part(text)
}

/// Whether a text is a subdomain: parts like labels with dots between them, 253 characters as a whole.
#[must_use]
pub fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_part)
}

fn is_part(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.bytes().all(allowed) && !text.starts_with('-') && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::label("v1", true, true)]
    #[case::subdomain("batch.example.com", false, true)]
    #[case::digits("1-2", true, true)]
    #[case::empty("", false, false)]
    #[case::upper("V1", false, false)]
    #[case::dash_first("-v1", false, false)]
    #[case::dash_last("v1-", false, false)]
    #[case::dots("a..b", false, false)]
    #[case::parent("..", false, false)]
    #[case::slash("v1/secrets", false, false)]
    #[case::encoded_slash("v1%2fsecrets", false, false)]
    #[case::query("v1?watch=1", false, false)]
    #[case::other_letters("vé", false, false)]
    fn what_stands_in_a_path_is_one_segment(#[case] text: &str, #[case] label: bool, #[case] subdomain: bool) {
        assert_eq!((is_label(text), is_subdomain(text)), (label, subdomain));
    }

    #[test]
    fn lengths_are_bounded() {
        assert!(is_label(&"a".repeat(63)) && !is_label(&"a".repeat(64)));
        assert!(is_subdomain(&"a".repeat(253)) && !is_subdomain(&"a".repeat(254)));
    }
}
