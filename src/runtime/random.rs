//! The one place that asks the operating system for randomness; deciding code takes bytes.

use zeroize::Zeroizing;

/// `N` random bytes, wiped when dropped.
///
/// # Errors
/// When the operating system has none: nothing weaker is ever used instead.
#[allow(clippy::disallowed_methods, reason = "the one place")]
pub fn bytes<const N: usize>() -> Result<Zeroizing<[u8; N]>, getrandom::Error> {
    let mut bytes = Zeroizing::new([0; N]);
    getrandom::fill(bytes.as_mut_slice())?;
    Ok(bytes)
}
