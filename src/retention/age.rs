//! When an item becomes too old.

use jiff::Timestamp;

use super::{Expiry, Item, Spec};

/// From when on an item is too old: by its own word, but never later than the policy says, nor earlier than that.
pub(super) fn too_old(spec: &Spec, item: &Item) -> Option<Timestamp> {
    let born = item.born?;
    let most = born.checked_add(spec.max_age).ok()?;
    let too_old = match &item.expires {
        None | Some(Expiry::Never) => most,
        Some(Expiry::Unreadable(_)) => return None,
        Some(Expiry::At(own)) => most.min(*own).max(born.checked_add(spec.min_age).ok()?),
    };
    Some(next_second(too_old))
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
    fn times_have_next_seconds_and_nothing_goes_early() {
        let born = at(NOW - 10 * HOUR) + SignedDuration::from_millis(1);
        assert_eq!(decision(Item { born: Some(born), ..item("a", 1) }), Decision::TooYoung(at(NOW + 1)));
    }
}
