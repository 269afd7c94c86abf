//! Times on the wire.

use jiff::Timestamp;

/// The second in which a time lies: `metav1.Time` has no parts of one, and what is written with them is never read back
/// as it was.
#[must_use]
pub fn whole_second(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("2026-11-28T12:00:00.999Z", "2026-11-28T12:00:00Z")]
    #[case("2026-11-28T12:00:00Z", "2026-11-28T12:00:00Z")]
    fn has_no_parts(#[case] time: Timestamp, #[case] wanted: Timestamp) {
        assert_eq!(whole_second(time), wanted);
    }
}
