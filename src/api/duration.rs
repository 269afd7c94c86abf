//! Durations on the wire.

use std::{borrow::Cow, fmt, str::FromStr, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A duration in Go's form, `720h` or `1h30m`, never negative; days are written as hours.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct GoDuration(Duration);

const MAX_LENGTH: usize = 32;
const MAX_DIGITS: usize = 9;

impl GoDuration {
    /// The duration of so many hours.
    #[must_use]
    pub const fn hours(hours: u64) -> Self {
        Self(Duration::from_secs(hours * 3600))
    }

    /// As the standard library's type.
    #[must_use]
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl From<Duration> for GoDuration {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let parts = [(seconds / 3600, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
        if seconds == 0 {
            return f.write_str("0s");
        }
        parts.iter().filter(|(count, _)| *count > 0).try_for_each(|(count, unit)| write!(f, "{count}{unit}"))
    }
}

impl fmt::Debug for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for GoDuration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| Err(format!("{text:?} is not a duration such as \"720h\" or \"1h30m\": {why}"));
        // The parser multiplies without looking: numbers that large mean nothing here anyway.
        let longest = text.split(|character: char| !character.is_ascii_digit()).map(str::len).max();
        if text.len() > MAX_LENGTH || longest > Some(MAX_DIGITS) {
            return wrong("it is too long");
        }
        match text.parse::<kube::core::Duration>() {
            Ok(duration) if duration.is_negative() => wrong("it is negative"),
            Ok(_) if !text.ends_with(['h', 'm', 's']) || !text.starts_with(|first: char| first.is_ascii_digit()) => {
                wrong("it needs a number and a unit: h, m or s")
            }
            Ok(duration) => Ok(Self(duration.into())),
            Err(error) => wrong(&error.to_string()),
        }
    }
}

impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for GoDuration {
    fn schema_name() -> Cow<'static, str> {
        "GoDuration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "maxLength": 32, "pattern": r"^([0-9]{1,9}(\.[0-9]{1,9})?(s|m|h))+$"})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_form_in_and_out() {
        for (text, out) in [("720h", "720h"), ("1h30m", "1h30m"), ("90s", "1m30s"), ("0s", "0s"), ("1.5h", "1h30m")] {
            assert_eq!(text.parse::<GoDuration>().unwrap().to_string(), out);
        }
    }

    #[test]
    fn days_and_negative_durations_are_refused_with_the_reason() {
        for bad in ["30d", "-1h", "", "1", "h", "9999999999999999999999999999999h"] {
            let error = bad.parse::<GoDuration>().unwrap_err();
            assert!(error.contains("is not a duration"), "{bad}: {error}");
        }
    }
}
