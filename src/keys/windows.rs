//! Windows in which scheduled rotations may begin.

use croner::{
    Cron,
    parser::{CronParser, Seconds, Year},
};
use jiff::{
    SignedDuration, Timestamp,
    tz::{TimeZone, TimeZoneDatabase},
};

use crate::api::{Invalid, RotationWindow};

/// Windows; without any, it is always time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Windows(Vec<Window>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Window {
    cron: Cron,
    open: SignedDuration,
    zone: TimeZone,
}

/// Some Monday: an expression that has no time after it never has one.
const SOME_DAY: Timestamp = Timestamp::constant(1_704_067_200, 0);

impl Windows {
    /// Reads windows.
    ///
    /// # Errors
    /// When an expression or a time zone can't be read, or a window would never open.
    pub fn parse(windows: &[RotationWindow]) -> Result<Self, Invalid> {
        // Zones that came with this program, so that every replica reads the same ones.
        let zones = if windows.is_empty() { TimeZoneDatabase::none() } else { TimeZoneDatabase::bundled() };
        let read = windows.iter().enumerate().map(|(at, window)| Window::parse(at, window, &zones));
        read.collect::<Result<_, _>>().map(Self)
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
    fn parse(at: usize, window: &RotationWindow, zones: &TimeZoneDatabase) -> Result<Self, Invalid> {
        let field = |name: &str| format!("spec.rotation.windows[{at}].{name}");
        let cron = &window.cron;
        let five = "is no cron expression of five fields (minute, hour, day of month, month, day of week): write \
                    `0 2 * * 1-5` for 02:00 from Monday to Friday";
        if cron.split_whitespace().count() != 5 {
            return Err(Invalid::at(field("cron"), five));
        }
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let parsed = parser.parse(cron).map_err(|error| Invalid::at(field("cron"), format!("{five} ({error})")))?;
        let zone = zones.get(&window.time_zone).map_err(|_| {
            let name = &window.time_zone;
            Invalid::at(
                field("timeZone"),
                format!("{name:?} is no IANA time zone: write one such as Europe/Berlin or UTC"),
            )
        })?;
        let open = SignedDuration::try_from(window.duration.get()).unwrap_or(SignedDuration::MAX);
        if open < SignedDuration::from_mins(5) || open > SignedDuration::from_hours(168) {
            return Err(Invalid::at(field("duration"), "must be from 5m to 168h"));
        }
        if parsed.find_next_occurrence(&SOME_DAY.to_zoned(zone.clone()), true).is_err() {
            return Err(Invalid::at(field("cron"), "names a time that never comes: choose a day that the month has"));
        }
        Ok(Self { cron: parsed, open, zone })
    }

    fn open_from(&self, from: Timestamp) -> Option<Timestamp> {
        let local = from.to_zoned(self.zone.clone());
        let opened = self.cron.find_previous_occurrence(&local, true).ok().map(|opened| opened.timestamp());
        if opened.and_then(|opened| opened.checked_add(self.open).ok()).is_some_and(|closes| from < closes) {
            return Some(from);
        }
        self.cron.find_next_occurrence(&local, false).ok().map(|opens| opens.timestamp())
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
        assert_eq!(Windows::default().open_from(SOME_DAY), Some(SOME_DAY));
    }
}
