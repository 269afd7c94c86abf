//! Pauses between tries, for each object by itself.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;

const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_mins(5);

/// Failed tries in a row, by namespace and name.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: Mutex<HashMap<(String, String), u32>>,
}

impl Backoff {
    /// Notes a failure, and says how long to wait.
    pub(super) fn failed(&self, key: &(String, String)) -> Duration {
        let mut failures = self.failures.lock();
        let count = failures.entry(key.clone()).or_default();
        *count = count.saturating_add(1);
        pause(*count)
    }

    /// How often it failed in a row.
    pub(super) fn failures(&self, key: &(String, String)) -> u32 {
        self.failures.lock().get(key).copied().unwrap_or_default()
    }

    /// Forgets the failures.
    pub(super) fn succeeded(&self, key: &(String, String)) {
        self.failures.lock().remove(key);
    }
}

fn pause(failures: u32) -> Duration {
    FIRST.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1))).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_a_limit_and_start_anew_after_success() {
        let backoff = Backoff::default();
        let (one, two) = (("a".to_owned(), "x".to_owned()), ("a".to_owned(), "y".to_owned()));
        let pauses: Vec<u128> = (0..4).map(|_| backoff.failed(&one).as_millis()).collect();
        assert_eq!(pauses, [250, 500, 1000, 2000]);
        assert_eq!(backoff.failed(&two).as_millis(), 250, "another object waits for itself");
        assert_eq!((backoff.failures(&one), backoff.failures(&two)), (4, 1));
        backoff.succeeded(&one);
        assert_eq!(backoff.failures(&one), 0);
        assert_eq!(backoff.failed(&one).as_millis(), 250);
        assert_eq!(pause(u32::MAX), LONGEST);
    }
}
