//! How much keys were used.

use jiff::Timestamp;

/// What is counted of a key since the process started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Used {
    /// Calls that were admitted.
    pub count: u64,
    /// When the last one was, to the second.
    pub last: Timestamp,
}
