//! Admission policies that nobody asks for any more, and that can't be deleted.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use super::super::{Backoff, work::UNTOLD};
use crate::cluster::Error;

/// Those that could not be taken back: each is tried again ever later, by itself.
#[derive(Default)]
pub(super) struct Stuck {
    backoff: Backoff,
    policies: BTreeMap<String, One>,
}

struct One {
    /// When to try again.
    next: Instant,
    /// Where it goes on refusing.
    extent: BTreeSet<String>,
    why: String,
}

fn key(name: &str) -> (String, String) {
    (String::new(), name.to_owned())
}

impl Stuck {
    /// Notes that one could not be deleted.
    pub(super) fn failed(&mut self, name: &str, extent: BTreeSet<String>, error: &Error, now: Instant) {
        let next = now + self.backoff.failed(&key(name));
        self.policies.insert(name.to_owned(), One { next, extent, why: error.to_string() });
    }

    /// Forgets one: it is gone.
    pub(super) fn succeeded(&mut self, name: &str) {
        self.policies.remove(name);
        self.backoff.succeeded(&key(name));
    }

    /// Forgets all that are not stale any more.
    pub(super) fn keep(&mut self, stale: &BTreeSet<&String>) {
        let gone: Vec<String> = self.policies.keys().filter(|name| !stale.contains(*name)).cloned().collect();
        for name in &gone {
            self.succeeded(name);
        }
    }

    /// Those that are not to be tried again yet.
    pub(super) fn waiting(&self, now: Instant) -> BTreeSet<String> {
        self.policies.iter().filter(|(_, one)| one.next > now).map(|(name, _)| name.clone()).collect()
    }

    /// All of them.
    #[cfg(test)]
    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.policies.keys()
    }

    /// When to try the next one again.
    pub(super) fn next(&self) -> Option<Instant> {
        self.policies.values().map(|one| one.next).min()
    }

    /// Where they go on refusing, and why; of those that failed again and again.
    pub(super) fn told(&self) -> BTreeMap<String, String> {
        let told = self.policies.iter().filter(|(name, _)| self.backoff.failures(&key(name)) > UNTOLD);
        let places = told.flat_map(|(name, one)| {
            let why = format!("the ValidatingAdmissionPolicy {name} could not be deleted: {}", one.why);
            one.extent.iter().map(move |place| (place.clone(), why.clone()))
        });
        places.collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn fails(stuck: &mut Stuck, name: &str, now: Instant) -> Duration {
        let extent = BTreeSet::from([format!("of-{name}")]);
        stuck.failed(name, extent, &Error::Unexpected("it is held".into()), now);
        let one = stuck.policies.get(name).unwrap();
        one.next - now
    }

    #[test]
    fn each_is_tried_again_ever_later_and_told_in_the_end() {
        let (mut stuck, now) = (Stuck::default(), Instant::now());
        let pauses: Vec<u128> = (0..3).map(|_| fails(&mut stuck, "a", now).as_millis()).collect();
        assert_eq!(pauses, [250, 500, 1000]);
        assert_eq!(fails(&mut stuck, "b", now).as_millis(), 250, "another waits for itself");
        assert_eq!(stuck.next(), Some(now + Duration::from_millis(250)));
        let names = |at: u64| stuck.waiting(now + Duration::from_millis(at)).into_iter().collect::<Vec<_>>();
        assert_eq!(names(0), ["a", "b"]);
        assert_eq!(names(250), ["a"]);
        assert!(names(1000).is_empty());
        let told = stuck.told();
        assert_eq!(told.keys().collect::<Vec<_>>(), ["of-a"], "the other may be over in a moment");
        assert_eq!(told["of-a"], "the ValidatingAdmissionPolicy a could not be deleted: it is held");
        let longest = (0..20).map(|_| fails(&mut stuck, "a", now)).max();
        assert_eq!(longest, Some(Duration::from_mins(5)));
    }

    #[test]
    fn what_is_wanted_again_or_gone_is_forgotten() {
        let (mut stuck, now) = (Stuck::default(), Instant::now());
        for name in ["a", "b", "a", "b", "a", "b"] {
            fails(&mut stuck, name, now);
        }
        let b = "b".to_owned();
        stuck.keep(&BTreeSet::from([&b]));
        assert_eq!(stuck.names().collect::<Vec<_>>(), ["b"]);
        stuck.succeeded("b");
        assert!(stuck.told().is_empty() && stuck.next().is_none());
        assert_eq!(fails(&mut stuck, "a", now).as_millis(), 250, "it begins anew");
    }
}
