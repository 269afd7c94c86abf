//! How much keys were used.

use jiff::Timestamp;

/// What is counted of a key since the process started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Used {
    /// Calls that were admitted.
    pub count: u64,
    /// When the last one was.
    pub last: Timestamp,
}

impl Used {
    pub(super) fn once(used: &mut Option<Self>, now: Timestamp) {
        let used = used.get_or_insert(Self { count: 0, last: now });
        used.count = used.count.saturating_add(1);
        used.last = used.last.max(now);
    }
}
