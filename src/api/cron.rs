//! Cron expressions with a time zone, as `spec` fields have them.

use croner::{
    Cron as Expression,
    parser::{CronParser, Seconds, Year},
};
use jiff::{
    Timestamp,
    tz::{TimeZone, TimeZoneDatabase},
};

use super::Invalid;

/// A cron expression of five fields, in a time zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cron {
    expression: Expression,
    zone: TimeZone,
}

/// Some Monday: an expression that has no time after it never has one.
const SOME_DAY: Timestamp = Timestamp::constant(1_704_067_200, 0);

impl Cron {
    /// Reads an expression and the IANA name of a zone, each with the path of its field.
    ///
    /// # Errors
    /// When one of them can't be read, or the expression names a time that never comes.
    pub fn parse((cron, at): (&str, &str), (zone, zone_at): (&str, &str)) -> Result<Self, Invalid> {
        let five = "is no cron expression of five fields (minute, hour, day of month, month, day of week): write \
                    `0 2 * * 1-5` for 02:00 from Monday to Friday";
        if cron.split_whitespace().count() != 5 {
            return Err(Invalid::at(at, five));
        }
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let expression = parser.parse(cron).map_err(|error| Invalid::at(at, format!("{five} ({error})")))?;
        // Zones that came with this program, so that every replica reads the same ones.
        let zone = TimeZoneDatabase::bundled().get(zone).map_err(|_| {
            Invalid::at(zone_at, format!("{zone:?} is no IANA time zone: write one such as Europe/Berlin or UTC"))
        })?;
        if expression.find_next_occurrence(&SOME_DAY.to_zoned(zone.clone()), true).is_err() {
            return Err(Invalid::at(at, "names a time that never comes: choose a day that the month has"));
        }
        Ok(Self { expression, zone })
    }

    /// The first time after `moment`; none where there is none any more.
    #[must_use]
    pub fn next_after(&self, moment: Timestamp) -> Option<Timestamp> {
        let local = moment.to_zoned(self.zone.clone());
        self.expression.find_next_occurrence(&local, false).ok().map(|next| next.timestamp())
    }

    /// The last time before `moment`, or that moment.
    #[must_use]
    pub fn last_until(&self, moment: Timestamp) -> Option<Timestamp> {
        let local = moment.to_zoned(self.zone.clone());
        self.expression.find_previous_occurrence(&local, true).ok().map(|last| last.timestamp())
    }
}
