//! Windows in which scheduled rotations may begin.

use jiff::{SignedDuration, Timestamp};

use crate::api::{Invalid, RotationWindow, cron::Cron};

/// Windows; without any, it is always time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Windows(Vec<Window>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Window {
    cron: Cron,
    open: SignedDuration,
}

impl Windows {
    /// Reads windows.
    ///
    /// # Errors
    /// When an expression or a time zone can't be read, or a window would never open.
    pub fn parse(windows: &[RotationWindow]) -> Result<Self, Invalid> {
        windows.iter().enumerate().map(|(at, window)| Window::parse(at, window)).collect::<Result<_, _>>().map(Self)
    }

    /// The first moment from `from` on at which a window is open; none where no window opens any more.
    #[must_use]
    pub fn open_from(&self, from: Timestamp) -> Option<Timestamp> {
        if self.0.is_empty() {
            return Some(from);
        }
        self.0.iter().filter_map(|window| window.open_from(from)).min()
    }
}

impl Window {
    fn parse(at: usize, window: &RotationWindow) -> Result<Self, Invalid> {
        let field = |name: &str| format!("spec.rotation.windows[{at}].{name}");
        let cron = Cron::parse((&window.cron, &field("cron")), (&window.time_zone, &field("timeZone")))?;
        let open = SignedDuration::try_from(window.duration.get()).unwrap_or(SignedDuration::MAX);
        if open < SignedDuration::from_mins(5) || open > SignedDuration::from_hours(168) {
            return Err(Invalid::at(field("duration"), "must be from 5m to 168h"));
        }
        Ok(Self { cron, open })
    }

    fn open_from(&self, from: Timestamp) -> Option<Timestamp> {
        let opened = self.cron.last_until(from);
        if opened.and_then(|opened| opened.checked_add(self.open).ok()).is_some_and(|closes| from < closes) {
            return Some(from);
        }
        self.cron.next_after(from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn windows(cron: &str, duration: &str, zone: &str) -> Result<Windows, Invalid> {
        let window = serde_json::json!({"cron": cron, "duration": duration, "timeZone": zone});
        let window = serde_json::from_value(window).map_err(|error| Invalid::at("the test", error.to_string()))?;
        Windows::parse(&[window])
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_window_is_open_from_its_time_to_its_end_in_its_zone() {
        let nights = windows("0 2 * * 1-5", "2h", "Europe/Berlin").unwrap();
        // Winter time, one hour before UTC.
        assert_eq!(nights.open_from(at("2026-01-05T00:59:59Z")), Some(at("2026-01-05T01:00:00Z")));
        assert_eq!(nights.open_from(at("2026-01-05T02:59:59Z")), Some(at("2026-01-05T02:59:59Z")));
        assert_eq!(nights.open_from(at("2026-01-05T03:00:00Z")), Some(at("2026-01-06T01:00:00Z")));
        // From Friday to Monday, and summer time.
        assert_eq!(nights.open_from(at("2026-07-03T12:00:00Z")), Some(at("2026-07-06T00:00:00Z")));
        // A night in which that hour does not exist.
        let sunday = windows("30 2 * * 0", "1h", "Europe/Berlin").unwrap();
        assert_eq!(sunday.open_from(at("2026-03-28T12:00:00Z")), Some(at("2026-03-29T01:00:00Z")));
    }

    #[test]
    fn what_is_no_window_is_refused_by_name() {
        let refused = |cron: &str, duration: &str, zone: &str| windows(cron, duration, zone).unwrap_err().to_string();
        assert!(refused("@daily", "1h", "UTC").starts_with("spec.rotation.windows[0].cron: is no cron expression"));
        assert!(refused("0 0 2 * * 1", "1h", "UTC").contains("five fields"));
        assert!(refused("61 2 * * *", "1h", "UTC").contains("five fields"));
        assert!(refused("0 0 30 2 *", "1h", "UTC").contains("never comes"));
        assert!(refused("0 2 * * *", "1h", "Europe/Bonn").contains("spec.rotation.windows[0].timeZone"));
        assert!(refused("0 2 * * *", "1m", "UTC").contains("duration"));
    }

    #[test]
    fn without_windows_it_is_always_time() {
        let some_day = at("2024-01-01T00:00:00Z");
        assert_eq!(Windows::default().open_from(some_day), Some(some_day));
    }
}
