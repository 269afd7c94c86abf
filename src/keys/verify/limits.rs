//! Rates: five windows, each a cell of the generic cell rate algorithm (ITU-T I.371), all charged or none.
//!
//! A cell allows its quota at once, and then one call whenever a quota's share of the window has passed.

use jiff::Timestamp;

use crate::api::Limits;

/// Windows, shortest first: name and seconds.
pub const WINDOWS: [(&str, i64); 5] = [("second", 1), ("burst", 10), ("minute", 60), ("hour", 3600), ("day", 86_400)];

const NANOS: i64 = 1_000_000_000;

/// How many calls a window allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    /// Calls in the window.
    pub quota: i64,
    /// Nanoseconds in which one of them comes back.
    interval: i64,
    /// Nanoseconds of the window.
    window: i64,
}

/// The rates of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rates(pub(super) [Rate; WINDOWS.len()]);

impl Rates {
    /// Rates of a record.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        let quotas = [limits.per_second, limits.burst, limits.per_minute, limits.per_hour, limits.per_day];
        let mut windows = WINDOWS.iter();
        Self(quotas.map(|quota| {
            let seconds = windows.next().map_or(1, |(_, seconds)| *seconds);
            let (window, quota) = (seconds * NANOS, quota.clamp(1, NANOS));
            Rate { quota, interval: (window / quota).max(1), window }
        }))
    }
}

/// Where a window stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Place in [`WINDOWS`].
    pub index: usize,
    /// Calls that it allows.
    pub quota: i64,
    /// Calls that are left.
    pub remaining: i64,
    /// Seconds until one more call is allowed; 0 while some are left.
    pub retry_after: i64,
    /// Seconds until all calls are back; while none is left, until one more is allowed.
    pub reset: i64,
}

/// Where all windows stand, shortest first.
pub type Windows = [Window; WINDOWS.len()];

/// The state of the rates of a key: for each window the time at which all of its calls are back, in nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cells([i64; WINDOWS.len()]);

impl Cells {
    /// Charges one call to every window.
    ///
    /// # Errors
    /// Where the windows stand, when one or more of them have no call left: then none is charged.
    pub fn take(&mut self, rates: &Rates, now: Timestamp) -> Result<(), Box<Windows>> {
        let nanos = nanos(now);
        let mut charged = [0; WINDOWS.len()];
        let mut allowed = true;
        for ((cell, rate), new) in self.0.iter().zip(&rates.0).zip(&mut charged) {
            // A cell is never charged beyond its window: more than that is a clock that was set back, and forgiven.
            let set_back = *cell > nanos.saturating_add(rate.window);
            let full = if set_back { nanos } else { (*cell).max(nanos) };
            *new = full.saturating_add(rate.interval);
            allowed &= *new - nanos <= rate.window;
        }
        if allowed {
            self.0 = charged;
            return Ok(());
        }
        Err(Box::new(Self(charged).told(rates, false, nanos)))
    }

    /// Where the windows stand after a call was charged at `now`.
    #[must_use]
    pub fn windows(&self, rates: &Rates, now: Timestamp) -> Windows {
        self.told(rates, true, nanos(now))
    }

    /// Whether every call is back: then the state may be forgotten.
    #[must_use]
    pub fn is_full(&self, now: Timestamp) -> bool {
        self.0.iter().all(|cell| *cell <= nanos(now))
    }

    fn told(&self, rates: &Rates, taken: bool, now: i64) -> Windows {
        let up = |nanos: i64| nanos.max(0).div_euclid(NANOS) + i64::from(nanos.max(0) % NANOS > 0);
        std::array::from_fn(|index| {
            let (Some(rate), Some(charged)) = (rates.0.get(index), self.0.get(index)) else {
                return Window { index, quota: 0, remaining: 0, retry_after: 1, reset: 1 };
            };
            // What was not taken is given back.
            let cell = if taken { *charged } else { charged - rate.interval };
            let next = up(cell + rate.interval - now - rate.window);
            Window {
                index,
                quota: rate.quota,
                remaining: ((rate.window - (cell - now)).max(0) / rate.interval).min(rate.quota),
                retry_after: if taken { 0 } else { next },
                reset: if next > 0 { next } else { up(cell - now) },
            }
        })
    }
}

/// Nanoseconds since 1970, for the 272 years after that for which sums and differences have room.
fn nanos(now: Timestamp) -> i64 {
    now.as_second().clamp(0, 1 << 33) * NANOS + i64::from(now.subsec_nanosecond())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::keys::DEFAULT_RATE;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(1_800_000_000_000 + millis).unwrap()
    }

    fn named(windows: Windows, name: &str) -> Window {
        windows.into_iter().find(|window| WINDOWS[window.index].0 == name).unwrap()
    }

    #[test]
    fn ten_at_once_and_then_one_in_a_tenth_of_a_second() {
        let (rates, mut cells) = (Rates::new(&DEFAULT_RATE), Cells::default());
        for call in 0..10 {
            cells.take(&rates, at(0)).unwrap();
            let second = named(cells.windows(&rates, at(0)), "second");
            assert_eq!((second.quota, second.remaining), (10, 9 - call));
        }
        let refused = named(*cells.take(&rates, at(0)).unwrap_err(), "second");
        assert_eq!((refused.remaining, refused.retry_after, refused.reset), (0, 1, 1));
        assert!(cells.take(&rates, at(99)).is_err());
        assert!(cells.take(&rates, at(100)).is_ok());
    }

    #[test]
    fn a_window_with_none_left_is_reset_when_one_more_is_allowed() {
        let limits = Limits { per_second: 60, burst: 60, per_minute: 60, ..DEFAULT_RATE };
        let (rates, mut cells) = (Rates::new(&limits), Cells::default());
        for _ in 0..60 {
            cells.take(&rates, at(0)).unwrap();
        }
        let minute = named(cells.windows(&rates, at(0)), "minute");
        assert_eq!((minute.remaining, minute.reset), (0, 1), "and not 60");
        let refused = named(*cells.take(&rates, at(0)).unwrap_err(), "minute");
        assert_eq!((refused.remaining, refused.retry_after, refused.reset), (0, 1, 1));
        cells.take(&rates, at(1000)).unwrap();
        assert_eq!(
            named(cells.windows(&rates, at(1500)), "hour").reset,
            219,
            "of 1000 some are left: until all are back"
        );
    }

    #[test]
    fn a_refusal_charges_no_window() {
        let (rates, mut cells) = (Rates::new(&DEFAULT_RATE), Cells::default());
        for _ in 0..10 {
            cells.take(&rates, at(0)).unwrap();
        }
        let before = cells;
        for _ in 0..1000 {
            let refused = cells.take(&rates, at(0)).unwrap_err();
            assert_eq!(named(*refused, "day").remaining, 9990, "the day is as it was");
        }
        assert_eq!(cells, before);
    }

    #[test]
    fn a_clock_that_is_set_back_locks_nobody_out() {
        let (rates, mut cells) = (Rates::new(&DEFAULT_RATE), Cells::default());
        for _ in 0..10 {
            cells.take(&rates, at(0)).unwrap();
        }
        assert!(cells.take(&rates, at(-60_000)).is_ok(), "a minute back: of the hour and the day there is enough left");
        assert!(cells.take(&rates, at(-3_600_000)).is_ok());
    }

    proptest! {
        /// Never more than the quota at once, nor more than quota and its share of the time in any span.
        #[test]
        fn no_span_has_more_than_its_share(gaps in prop::collection::vec(0_i64..3_000, 1..400), second in 1_i64..50) {
            let limits = Limits { per_second: second, burst: second * 2, per_minute: second * 5, ..DEFAULT_RATE };
            let (rates, mut cells) = (Rates::new(&limits), Cells::default());
            let (mut now, mut admitted) = (0, vec![]);
            for gap in gaps {
                now += gap;
                if cells.take(&rates, at(now)).is_ok() {
                    admitted.push(now);
                }
            }
            for (quota, window) in [(second, 1_000), (second * 2, 10_000), (second * 5, 60_000)] {
                for (index, from) in admitted.iter().enumerate() {
                    for (count, to) in admitted[index..].iter().enumerate() {
                        let share = quota + (to - from) * quota / window;
                        prop_assert!(i64::try_from(count).unwrap() < share + 1, "{count} in {} ms", to - from);
                    }
                }
            }
        }

        #[test]
        fn what_it_says_is_what_it_does(calls in 1_usize..30) {
            let (rates, mut cells) = (Rates::new(&DEFAULT_RATE), Cells::default());
            let mut left = None;
            for _ in 0..calls {
                match cells.take(&rates, at(0)) {
                    Ok(()) => left = cells.windows(&rates, at(0)).iter().map(|window| window.remaining).min(),
                    Err(windows) => {
                        prop_assert_eq!(left, Some(0), "refused although it said that calls were left");
                        let wait = windows.iter().map(|window| window.retry_after).max().unwrap();
                        prop_assert!(cells.take(&rates, at(wait * 1000)).is_ok(), "and admitted when it said so");
                        break;
                    }
                }
            }
        }
    }
}
