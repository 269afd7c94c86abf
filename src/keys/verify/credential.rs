//! Finding the one credential of a request.

use super::verdict::Refusal;

/// Where a key may stand, as `Bearer KEY` (RFC 6750, section 2.1).
pub(super) const AUTHORIZATION: &str = "authorization";
/// Where a key may stand alone.
pub(super) const X_API_KEY: &str = "x-api-key";

/// Longest value that is looked at, in bytes: a key has at most 81, and before it may stand `Bearer `.
const LONGEST: usize = 256;

/// A credential that was found, not yet looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Credential<'a>(pub(super) &'a [u8]);

impl std::fmt::Debug for Credential<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credential")
    }
}

/// What a request presents: `Authorization: Bearer KEY`, or `X-API-Key: KEY`.
#[derive(Default)]
pub struct Credentials<'a> {
    bearer: Option<&'a [u8]>,
    plain: Option<&'a [u8]>,
    repeated: bool,
}

impl<'a> Credentials<'a> {
    /// Takes note of a header; its name in lower case. Others than the two are passed over.
    pub fn header(&mut self, name: &str, value: &'a [u8]) {
        let place = match name {
            AUTHORIZATION => &mut self.bearer,
            X_API_KEY => &mut self.plain,
            _ => return,
        };
        self.repeated |= place.replace(value).is_some();
    }

    /// The credential, if there is exactly one.
    ///
    /// # Errors
    /// When there is none, more than one, or one that can't be a key.
    pub fn one(&self) -> Result<Credential<'a>, Refusal> {
        if self.repeated {
            return Err(Refusal::Ambiguous);
        }
        let too_long = |value: &&[u8]| value.len() > LONGEST;
        if self.bearer.as_ref().is_some_and(too_long) || self.plain.as_ref().is_some_and(too_long) {
            return Err(Refusal::TooLong);
        }
        let bearer = self.bearer.map(bearer).transpose()?;
        let plain = self.plain.map(<[u8]>::trim_ascii);
        let found = match (bearer, plain) {
            (None, None) => return Err(Refusal::Missing),
            (Some(bearer), Some(plain)) if bearer != plain => return Err(Refusal::Ambiguous),
            (Some(value), _) | (None, Some(value)) => value,
        };
        Ok(Credential(found))
    }
}

/// The token of the scheme `Bearer` (RFC 6750, section 2.1); the scheme's case does not matter (RFC 9110, 11.1).
fn bearer(value: &[u8]) -> Result<&[u8], Refusal> {
    let (scheme, token) = value.split_at_checked(b"bearer ".len()).ok_or(Refusal::Malformed)?;
    if scheme.eq_ignore_ascii_case(b"bearer ") { Ok(token.trim_ascii()) } else { Err(Refusal::Malformed) }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::bearer(&[("authorization", "Bearer abc")], Ok("abc"))]
    #[case::scheme_in_any_case(&[("authorization", "bEARER  abc ")], Ok("abc"))]
    #[case::plain(&[("x-api-key", "abc")], Ok("abc"))]
    #[case::the_same_in_both(&[("x-api-key", "abc"), ("authorization", "Bearer abc")], Ok("abc"))]
    #[case::other_headers(&[("cookie", "abc")], Err(Refusal::Missing))]
    #[case::two_that_differ(&[("x-api-key", "abc"), ("authorization", "Bearer abd")], Err(Refusal::Ambiguous))]
    #[case::twice(&[("x-api-key", "abc"), ("x-api-key", "abc")], Err(Refusal::Ambiguous))]
    #[case::basic(&[("authorization", "Basic YTpi")], Err(Refusal::Malformed))]
    #[case::short(&[("authorization", "B")], Err(Refusal::Malformed))]
    fn one_credential(#[case] headers: &[(&str, &'static str)], #[case] wanted: Result<&'static str, Refusal>) {
        let mut found = Credentials::default();
        for (name, value) in headers {
            found.header(name, value.as_bytes());
        }
        assert_eq!(found.one(), wanted.map(|key| Credential(key.as_bytes())));
    }

    #[test]
    fn a_long_value_is_refused_before_it_is_read() {
        let long = vec![b'a'; 20_000];
        let mut found = Credentials::default();
        found.header("x-api-key", &long);
        assert_eq!(found.one(), Err(Refusal::TooLong));
    }
}
