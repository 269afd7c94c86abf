//! Failed authentication by address: who guesses is slowed down, and then shut out.
//!
//! Within five minutes: three failures and more are only watched, six and more hold the address to one request a second,
//! more than ten shut it out for an hour.

use std::{collections::HashMap, net::IpAddr};

use jiff::{SignedDuration, Timestamp};

const SPAN: SignedDuration = SignedDuration::from_mins(5);
const BLOCK: SignedDuration = SignedDuration::from_hours(1);
const HELD_FROM: usize = 6;
/// More than ten.
const BLOCKED_FROM: usize = 11;
/// Refused requests of one address within [`SPAN`], whatever they were refused for.
const REFUSALS: u32 = 2000;
/// Addresses that are remembered at the most: about 20 MB.
const ADDRESSES: usize = 100_000;

/// How an address stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Its requests are looked at.
    Free,
    /// It may try again at this time.
    Held(Timestamp),
    /// It is shut out until then.
    Blocked(Timestamp),
}

#[derive(Debug, Clone, Default)]
struct Record {
    /// When the last failures happened, oldest first.
    failures: Vec<Timestamp>,
    blocked_until: Option<Timestamp>,
    last_try: Option<Timestamp>,
    /// Refused requests since `refusals_from`.
    refusals: u32,
    refusals_from: Option<Timestamp>,
}

impl Record {
    fn forget(&mut self, now: Timestamp) {
        self.failures.retain(|at| now.duration_since(*at) < SPAN);
        if self.refusals_from.is_some_and(|from| now.duration_since(from) >= SPAN) {
            (self.refusals, self.refusals_from) = (0, None);
        }
        self.blocked_until = self.blocked_until.filter(|until| now < *until);
    }

    fn is_forgotten(&self) -> bool {
        self.failures.is_empty() && self.blocked_until.is_none() && self.refusals_from.is_none()
    }
}

/// Addresses that failed lately. IPv6 hosts own networks of 64 bits, and are told apart by these.
#[derive(Debug, Default)]
pub struct Failures(HashMap<IpAddr, Record>);

/// The address that stands for a host.
#[must_use]
pub fn host(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) & !u128::from(u64::MAX)).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

impl Failures {
    /// How an address stands; a held one has used its request.
    pub fn stand(&mut self, address: IpAddr, now: Timestamp) -> Standing {
        let Some(record) = self.0.get_mut(&host(address)) else { return Standing::Free };
        record.forget(now);
        if let Some(until) = record.blocked_until {
            return Standing::Blocked(until);
        }
        if record.refusals >= REFUSALS
            && let Some(until) = record.refusals_from.and_then(|from| from.checked_add(SPAN).ok())
        {
            return Standing::Held(until);
        }
        let next = record.last_try.and_then(|last| last.checked_add(SignedDuration::from_secs(1)).ok());
        match next {
            // A clock that was set back holds nobody for longer.
            Some(next) if record.failures.len() >= HELD_FROM && now < next && record.last_try <= Some(now) => {
                Standing::Held(next)
            }
            _ => {
                record.last_try = Some(now);
                Standing::Free
            }
        }
    }

    /// Takes note of a request that was refused. `guessed`: it presented what is no key. Returns how many guesses led
    /// to a block that begins with this one.
    pub fn refused(&mut self, address: IpAddr, guessed: bool, now: Timestamp) -> Option<usize> {
        let host = host(address);
        if !self.0.contains_key(&host) && self.0.len() >= ADDRESSES {
            self.make_room(now);
        }
        let record = self.0.entry(host).or_default();
        record.forget(now);
        record.refusals = record.refusals.saturating_add(1);
        record.refusals_from.get_or_insert(now);
        if !guessed {
            return None;
        }
        record.last_try = Some(now);
        record.failures.push(now);
        let failures = record.failures.len();
        if failures < BLOCKED_FROM || record.blocked_until.is_some() {
            return None;
        }
        record.blocked_until = now.checked_add(BLOCK).ok();
        record.failures.clear();
        Some(failures)
    }

    /// Addresses that are shut out, and until when.
    #[must_use]
    pub fn blocked(&self, now: Timestamp) -> Vec<(IpAddr, Timestamp)> {
        let until = |record: &Record| record.blocked_until.filter(|until| now < *until);
        self.0.iter().filter_map(|(address, record)| Some((*address, until(record)?))).collect()
    }

    /// Forgets what is over. If that is not enough, a quarter at once, so that whoever comes next does not pay for the
    /// same look at all of them: first those who are not shut out, then those who would be let in first.
    fn make_room(&mut self, now: Timestamp) {
        self.0.retain(|_, record| {
            record.forget(now);
            !record.is_forgotten()
        });
        let excess = self.0.len().saturating_sub(ADDRESSES - ADDRESSES / 4);
        let mut ends: Vec<_> = self.0.iter().map(|(host, it)| ((it.blocked_until, it.refusals_from), *host)).collect();
        if excess > 0 && excess < ends.len() {
            ends.select_nth_unstable(excess);
        }
        for (_, host) in ends.iter().take(excess) {
            self.0.remove(host);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    const GUESSER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    #[test]
    fn five_are_watched_six_hold_and_eleven_shut_out_for_an_hour() {
        let mut failures = Failures::default();
        for _ in 0..5 {
            assert_eq!(failures.stand(GUESSER, at(0)), Standing::Free);
            assert_eq!(failures.refused(GUESSER, true, at(0)), None);
        }
        assert_eq!(failures.refused(GUESSER, true, at(0)), None);
        assert_eq!(failures.stand(GUESSER, at(0)), Standing::Held(at(1)));
        assert_eq!(failures.stand(GUESSER, at(1)), Standing::Free, "one request a second");
        assert_eq!(failures.stand(GUESSER, at(1)), Standing::Held(at(2)));
        for _ in 0..4 {
            assert_eq!(failures.refused(GUESSER, true, at(2)), None);
        }
        assert_eq!(failures.refused(GUESSER, true, at(2)), Some(11), "a block begins once");
        assert_eq!(failures.stand(GUESSER, at(3601)), Standing::Blocked(at(3602)));
        assert_eq!(failures.blocked(at(3)).len(), 1);
        assert_eq!(failures.stand(GUESSER, at(3602)), Standing::Free);
    }

    #[test]
    fn what_is_older_than_five_minutes_does_not_count() {
        let mut failures = Failures::default();
        for second in 0..100 {
            assert_eq!(failures.refused(GUESSER, true, at(second * 31)), None, "ten within five minutes");
        }
    }

    #[test]
    fn refusals_without_a_guess_shut_nobody_out_but_hold_a_flood() {
        let mut failures = Failures::default();
        for _ in 0..1999 {
            failures.refused(GUESSER, false, at(0));
        }
        assert_eq!(failures.stand(GUESSER, at(1)), Standing::Free);
        failures.refused(GUESSER, false, at(0));
        assert_eq!(failures.stand(GUESSER, at(1)), Standing::Held(at(300)));
        assert_eq!(failures.stand(GUESSER, at(300)), Standing::Free);
    }

    #[test]
    fn an_ipv6_network_is_one_host() {
        let host_of = |text: &str| host(text.parse().unwrap());
        assert_eq!(host_of("2001:db8::1"), host_of("2001:db8::ffff:1"));
        assert_ne!(host_of("2001:db8::1"), host_of("2001:db8:0:1::1"));
        assert_eq!(host_of("::ffff:192.0.2.1"), GUESSER);
    }

    #[test]
    fn a_flood_of_addresses_does_not_fill_the_memory() {
        let mut failures = Failures::default();
        for address in 0..150_000_u32 {
            failures.refused(IpAddr::V4(address.into()), true, at(0));
        }
        assert!(failures.0.len() <= ADDRESSES);
    }

    #[test]
    fn a_full_table_is_looked_through_once_for_many_addresses() {
        let mut failures = Failures::default();
        for address in 0..u32::try_from(ADDRESSES).unwrap() {
            let blocked_until = Some(at(1 + i64::from(address % 3600)));
            failures.0.insert(IpAddr::V4(address.into()), Record { blocked_until, ..Record::default() });
        }
        for address in 1_000_000..1_010_000_u32 {
            failures.refused(IpAddr::V4(address.into()), true, at(0));
        }
        // Made again for each, room would be for one.
        assert_eq!(failures.0.len(), ADDRESSES - ADDRESSES / 4 + 10_000);
        let soonest = failures.blocked(at(0)).into_iter().map(|(_, until)| until).min();
        assert!(soonest >= Some(at(890)), "those who are let in first were forgotten: {soonest:?}");
    }
}
