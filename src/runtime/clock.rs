//! The one place that reads the wall clock; deciding code takes the time as an argument.

use jiff::Timestamp;

/// The time now.
#[must_use]
#[allow(clippy::disallowed_methods, reason = "the one place")]
pub fn now() -> Timestamp {
    Timestamp::now()
}
