//! When an item becomes too old.

use jiff::Timestamp;

use super::{Expiry, Item, Spec};

/// From when on an item is too old: by its own word, but never later than the policy says, nor earlier than that.
pub(super) fn too_old(spec: &Spec, item: &Item, now: Timestamp) -> Option<Timestamp> {
    let born = item.born?;
    // What counts from the future would be too young for ever, and nobody would know.
    if born > now.checked_add(spec.max_skew).ok()? {
        return None;
    }
    let most = born.checked_add(spec.max_age).ok()?;
    let own = match &item.expires {
        None | Some(Expiry::Never) => most,
        Some(Expiry::Unreadable(_)) => return None,
        Some(Expiry::At(own)) => most.min(*own),
    };
    if spec.min_age.is_zero() {
        return Some(next_second(own));
    }
    // Whatever an annotation says of when it began.
    let least = item.created?.checked_add(spec.min_age).ok()?;
    Some(next_second(own.max(least)))
}

/// Why the age of an item can't be told, where that is known and it can't.
pub(super) fn why_unknown(item: &Item) -> Option<&str> {
    match &item.expires {
        Some(Expiry::Unreadable(why)) => Some(why),
        _ => item.born.map(|_| "it counts from a time in the future"),
    }
}

/// The second that has begun then, or the next: times on the wire have no parts of one, and nothing goes early.
pub(super) fn next_second(time: Timestamp) -> Timestamp {
    let second = time.as_second() + i64::from(time.subsec_nanosecond() > 0);
    Timestamp::from_second(second).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;
    use crate::retention::{
        Decision, Protection, Target, plan,
        plan::tests::{HOUR, NOW, at, decision, item, spec},
    };

    #[test]
    fn an_item_goes_by_its_own_word_between_least_and_most() {
        let spec = Spec { min_age: SignedDuration::from_hours(3), ..spec(100, 100) };
        let decided = |age: i64, expires: Expiry| {
            let item = Item { expires: Some(expires), ..item("a", age) };
            plan(&spec, &[Target { items: vec![item] }], at(NOW)).items[0].decision.clone()
        };
        let then = |hours: i64| Expiry::At(at(NOW + hours * HOUR));
        assert_eq!(decided(5, then(-1)), Decision::Mark);
        assert_eq!(decided(2, then(-1)), Decision::TooYoung(at(NOW + HOUR)), "below the least");
        assert_eq!(decided(10, then(100)), Decision::Mark, "beyond the most");
        assert_eq!(decided(20, Expiry::Never), Decision::Protected(Protection::Forever));
        assert_eq!(decided(20, Expiry::Unreadable("no".into())), Decision::UnknownAge);
    }

    #[test]
    fn an_item_stays_below_the_least_age_since_whenever_its_age_counts() {
        let spec = Spec { min_age: SignedDuration::from_hours(3), ..spec(100, 100) };
        let decided = |hours: i64| {
            let item = Item { created: Some(at(NOW - hours * HOUR)), ..item("a", 20) };
            plan(&spec, &[Target { items: vec![item] }], at(NOW)).items[0].decision.clone()
        };
        assert_eq!(decided(2), Decision::TooYoung(at(NOW + HOUR)));
        assert_eq!(decided(3), Decision::Mark);
        let copied = Item { created: Some(at(NOW)), ..item("a", 20) };
        let none = Spec { min_age: SignedDuration::ZERO, ..spec };
        assert_eq!(too_old(&none, &copied, at(NOW)), Some(at(NOW - 10 * HOUR)), "without one, it is old when it comes");
    }

    #[test]
    fn what_counts_from_the_future_has_no_age() {
        let from = |seconds: i64| Item { born: Some(at(NOW + seconds)), ..item("a", 20) };
        let told = |item: Item| plan(&spec(100, 100), &[Target { items: vec![item] }], at(NOW)).items.remove(0);
        assert_eq!(decision(from(120)), Decision::TooYoung(at(NOW + 120 + 10 * HOUR)), "clocks differ a little");
        assert_eq!(decision(from(121)), Decision::UnknownAge);
        assert_eq!(told(from(121)).reason(), "kept: its age can't be read: it counts from a time in the future");
        assert_eq!(told(Item { born: None, ..item("a", 20) }).reason(), "kept: its age can't be read");
    }

    #[test]
    fn times_have_whole_seconds_and_nothing_goes_early() {
        let born = at(NOW - 10 * HOUR) + SignedDuration::from_millis(1);
        assert_eq!(decision(Item { born: Some(born), ..item("a", 1) }), Decision::TooYoung(at(NOW + 1)));
    }
}
