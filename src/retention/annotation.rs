//! What annotations say of when an object goes: kube-janitor's forms, and RFC 3339. What can't be read is never quoted.

use jiff::{
    SignedDuration, Timestamp,
    civil::{Date, DateTime},
    tz::TimeZone,
};

use super::Expiry;

/// The most that kube-janitor's numbers are read for: a hundred years.
const LONGEST: i64 = 36_525 * 86_400;

/// Reads how long an object may live from its creation: digits and one unit of `s`, `m`, `h`, `d` or `w`, or `forever`
/// (kube-janitor, `janitor/ttl`). Anything else keeps the object.
#[must_use]
pub fn ttl(text: &str, created: Option<Timestamp>) -> Expiry {
    let unreadable = |why: &str| Expiry::Unreadable(format!("no time to live: {why}"));
    if text == "forever" {
        return Expiry::Never;
    }
    let Some(unit) = text.chars().last() else { return unreadable("it is empty") };
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        'w' => 7 * 86_400,
        _ => return unreadable("it needs a unit: s, m, h, d or w"),
    };
    let digits = text.strip_suffix(unit).unwrap_or_default();
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return unreadable("before the unit stand digits, and nothing else");
    }
    match digits.parse::<i64>().ok().and_then(|count| count.checked_mul(seconds)) {
        Some(0) => unreadable("0 never means \"now\" here"),
        Some(ttl) if ttl <= LONGEST => {
            let end = created.and_then(|created| created.checked_add(SignedDuration::from_secs(ttl)).ok());
            end.map_or_else(|| unreadable("the object has no creation time"), Expiry::At)
        }
        _ => unreadable("it is longer than a hundred years: write forever"),
    }
}

/// Reads when an object may go: RFC 3339, or `2020-01-17T15:14`, or `2020-01-17`, which are in UTC (kube-janitor,
/// `janitor/expires`). Anything else keeps the object.
#[must_use]
pub fn expires(text: &str) -> Expiry {
    // jiff reads more than is asked for: weeks, zones in brackets, signs.
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || b"-:TZ.+".contains(&byte));
    let read = match text.len() {
        10 => text.parse::<Date>().ok().map(|date| date.at(0, 0, 0, 0)).and_then(utc),
        16 => text.parse::<DateTime>().ok().and_then(utc),
        20.. => text.parse::<Timestamp>().ok(),
        _ => None,
    };
    read.filter(|_| plain && text.starts_with(|first: char| first.is_ascii_digit())).map_or_else(
        || Expiry::Unreadable("no time to go: write 2020-01-17T15:14:38Z, 2020-01-17T15:14 or 2020-01-17 (UTC)".into()),
        Expiry::At,
    )
}

fn utc(time: DateTime) -> Option<Timestamp> {
    time.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::retention::{
        Decision, Item, Planned, Protection, Target, plan,
        plan::tests::{HOUR, NOW, at as second, item, spec},
    };

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// kube-janitor's README: "digits and a unit suffix"; `forever` is its TTL_UNLIMITED.
    #[rstest]
    #[case("60s", Ok("2020-01-01T00:01:00Z"))]
    #[case("120s", Ok("2020-01-01T00:02:00Z"))]
    #[case("5m", Ok("2020-01-01T00:05:00Z"))]
    #[case("8h", Ok("2020-01-01T08:00:00Z"))]
    #[case("24h", Ok("2020-01-02T00:00:00Z"))]
    #[case("7d", Ok("2020-01-08T00:00:00Z"))]
    #[case("2w", Ok("2020-01-15T00:00:00Z"))]
    #[case("", Err("it is empty"))]
    #[case("24", Err("needs a unit"))]
    #[case("h", Err("stand digits"))]
    #[case("1.5h", Err("stand digits"))]
    #[case("-1h", Err("stand digits"))]
    #[case("1h30m", Err("stand digits"))]
    #[case(" 1h", Err("stand digits"))]
    #[case("1y", Err("needs a unit"))]
    #[case("1H", Err("needs a unit"))]
    #[case("0h", Err("never means"))]
    #[case("99999w", Err("hundred years"))]
    #[case("99999999999999999999h", Err("hundred years"))]
    #[case("٣h", Err("stand digits"))]
    #[case("24ℎ", Err("needs a unit"))]
    fn times_to_live(#[case] text: &str, #[case] wanted: Result<&str, &str>) {
        expect(ttl(text, Some(at("2020-01-01T00:00:00Z"))), wanted);
    }

    #[test]
    fn forever_is_never() {
        assert_eq!(ttl("forever", None), Expiry::Never);
    }

    /// The first three are those of its README.
    #[rstest]
    #[case("2019-02-28T20:40:00Z", Ok("2019-02-28T20:40:00Z"))]
    #[case("2019-02-28T20:40", Ok("2019-02-28T20:40:00Z"))]
    #[case("2019-02-28", Ok("2019-02-28T00:00:00Z"))]
    #[case("2020-01-17T15:14:38Z", Ok("2020-01-17T15:14:38Z"))]
    #[case("2020-01-17T15:14:38+02:00", Ok("2020-01-17T13:14:38Z"))]
    #[case("2020-01-17T15:14", Ok("2020-01-17T15:14:00Z"))]
    #[case("2020-01-17", Ok("2020-01-17T00:00:00Z"))]
    #[case("", Err("no time to go"))]
    #[case("2020-02-30", Err("no time to go"))]
    #[case("2020-01-17T25:00", Err("no time to go"))]
    // Without a zone, and with seconds: kube-janitor does not read it either.
    #[case("2020-01-17T15:14:38", Err("no time to go"))]
    #[case("17.01.2020", Err("no time to go"))]
    #[case("2020-W03-5", Err("no time to go"))]
    #[case("1579274078", Err("no time to go"))]
    #[case("2020-01-17T15:14:38Z[UTC]", Err("no time to go"))]
    #[case("tomorrow", Err("no time to go"))]
    fn times_to_go(#[case] text: &str, #[case] wanted: Result<&str, &str>) {
        expect(expires(text), wanted);
    }

    #[test]
    fn what_can_not_be_read_keeps_the_object_however_old_it_is() {
        let planned = |hours: i64, expires: Expiry| -> Planned {
            let item = Item { expires: Some(expires), ..item("a", hours) };
            plan(&spec(100, 100), &[Target { items: vec![item] }], second(NOW)).items.remove(0)
        };
        let created = Some(second(NOW - 900 * HOUR));
        let ttls = ["", "24", "1.5h", "1h30m", "0h", "99999w"].map(|text| (text, ttl(text, created)));
        let ends = ["", "2020-02-30", "2020-01-17T15:14:38", "tomorrow"].map(|text| (text, expires(text)));
        for (text, read) in ttls.into_iter().chain(ends) {
            let Expiry::Unreadable(why) = read.clone() else { panic!("{text:?} is read: {read:?}") };
            let kept = planned(900, read);
            assert_eq!(kept.decision, Decision::UnknownAge, "{text:?}");
            assert_eq!(kept.reason(), format!("kept: its age can't be read: {why}"));
        }
        // Younger than the policy's own age: they go by their own word.
        let created = Some(second(NOW - 9 * HOUR));
        assert_eq!(planned(9, ttl("8h", created)).decision, Decision::Mark);
        assert_eq!(planned(9, expires("1970-01-02")).decision, Decision::Mark);
        assert_eq!(planned(900, ttl("forever", created)).decision, Decision::Protected(Protection::Forever));
    }

    fn expect(read: Expiry, wanted: Result<&str, &str>) {
        match (read, wanted) {
            (Expiry::At(read), Ok(wanted)) => assert_eq!(read, at(wanted)),
            (Expiry::Unreadable(why), Err(wanted)) => assert!(why.contains(wanted), "{why}"),
            (read, wanted) => panic!("{read:?} is not {wanted:?}"),
        }
    }
}
