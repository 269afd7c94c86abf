//! Which requirements have an admission policy where there are more than there is room for.

use std::{borrow::Cow, collections::BTreeSet};

use tokio::sync::watch;

use crate::{
    hardening::{Demand, Roomless, Standard},
    runtime::metrics::{Metrics, ResultLabel},
};

/// Namespaces of which the webhook alone refuses something, since there is no room for it; `None` until that is known.
pub type Crowded = watch::Receiver<Option<BTreeSet<String>>>;

/// The room for admission policies of SecurityPolicies.
pub(super) struct Room {
    /// So many requirements have one.
    pub(super) places: usize,
    crowded: watch::Sender<Option<BTreeSet<String>>>,
}

impl Room {
    pub(super) fn of(places: usize) -> Self {
        Self { places, crowded: watch::Sender::new(None) }
    }

    pub(super) fn crowded(&self) -> Crowded {
        self.crowded.subscribe()
    }

    /// What there is room for, and what is left out. Told at once: the webhook is to be asked about the rest before its
    /// admission policies go. `named` are the namespaces where no pod is made without its word now.
    pub(super) fn choose<'d>(
        &self,
        demand: &'d Demand,
        named: &BTreeSet<String>,
        metrics: &Metrics,
    ) -> (Cow<'d, Demand>, Roomless) {
        let (within, roomless) = demand.within(self.places);
        let left_out: BTreeSet<&Standard> = roomless.values().flatten().collect();
        for (result, count) in [("admission_policy", within.standards().len()), ("no_room", left_out.len())] {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            metrics.requirements.get_or_create(&ResultLabel { result }).set(count);
        }
        // Those who were told stay so until they are released; another leader may have had some to release.
        let told = self.crowded.borrow().clone();
        let told = told.unwrap_or_else(|| {
            named.iter().filter(|name| demand.namespaces.contains_key(*name)).cloned().collect::<BTreeSet<String>>()
        });
        self.tell(roomless.keys().cloned().chain(told).collect());
        (within, roomless)
    }

    /// Tells of these and of no others, once the rest has admission policies in force: `settled` says so. Whether others
    /// are still told.
    pub(super) fn release(&self, crowded: BTreeSet<String>, settled: bool) -> bool {
        if settled {
            self.tell(crowded);
            return false;
        }
        self.crowded.borrow().as_ref().is_some_and(|told| *told != crowded)
    }

    fn tell(&self, crowded: BTreeSet<String>) {
        let crowded = Some(crowded);
        self.crowded.send_if_modified(|before| {
            let differs = *before != crowded;
            *before = crowded;
            differs
        });
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use rampart_pss::{Level, Version};
    use serde_json::json;

    use super::*;
    use crate::{api, hardening::Rules};

    /// A namespace each, with a requirement of its own; those with lower numbers are older.
    fn asked(numbers: impl IntoIterator<Item = i64>) -> Demand {
        let mut demand = Demand::default();
        for number in numbers {
            let allow = json!([format!("registry-{number}.example/**")]);
            let rules: api::Rules = serde_json::from_value(json!({"images": {"allow": allow}})).unwrap();
            let rules = Rules::try_from(&rules).unwrap();
            let standard = Standard { level: Level::Baseline, version: Version::LATEST, rules };
            let namespace = format!("team-{number}");
            let eldest = (Timestamp::from_second(number).ok(), namespace.clone(), "own".to_owned());
            demand.eldest.insert(standard.clone(), eldest);
            demand.namespaces.insert(namespace, [(standard, vec![])].into());
        }
        demand
    }

    fn names(all: &[&str]) -> BTreeSet<String> {
        all.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn who_comes_later_waits_and_takes_the_place_of_who_goes() {
        let (room, metrics, none) = (Room::of(2), Metrics::default(), BTreeSet::new());
        let choose = |numbers: &[i64]| {
            let demand = asked(numbers.iter().copied());
            let (_, roomless) = room.choose(&demand, &none, &metrics);
            roomless.into_keys().collect::<Vec<_>>()
        };
        let told = room.crowded();
        assert_eq!(*told.borrow(), None, "nobody has looked");
        assert!(choose(&[1, 2]).is_empty());
        assert_eq!(choose(&[1, 2, 4]), ["team-4"]);
        assert_eq!(choose(&[1, 2, 3, 4]), ["team-3", "team-4"]);
        let count = |result| metrics.requirements.get_or_create(&ResultLabel { result }).get();
        assert_eq!((count("admission_policy"), count("no_room")), (2, 2));
        assert_eq!(choose(&[2, 3, 4]), ["team-4"]);
        assert_eq!(choose(&[2, 3, 4]), ["team-4"], "the same at each look");
        // Who has got room is told as having none until its admission policy is in force.
        assert_eq!(*told.borrow(), Some(names(&["team-3", "team-4"])));
        assert!(room.release(names(&["team-4"]), false), "one is left");
        assert_eq!(*told.borrow(), Some(names(&["team-3", "team-4"])));
        assert!(!room.release(names(&["team-4"]), true));
        assert_eq!(*told.borrow(), Some(names(&["team-4"])));
        // An older one that begins to ask takes the place of the youngest.
        assert_eq!(choose(&[1, 2, 3, 4]), ["team-3", "team-4"]);
    }

    #[test]
    fn a_new_leader_goes_on_with_a_hand_over() {
        let (room, metrics, demand) = (Room::of(2), Metrics::default(), asked(2..=4));
        // The one before had got room for a third, whose admission policy may not be in force yet.
        let named = names(&["team-3", "team-4", "asks-for-none"]);
        let (_, roomless) = room.choose(&demand, &named, &metrics);
        assert_eq!(roomless.into_keys().collect::<Vec<_>>(), ["team-4"]);
        assert_eq!(*room.crowded().borrow(), Some(names(&["team-3", "team-4"])));
        // Only the first look goes by what is named.
        assert!(!room.release(names(&["team-4"]), true));
        room.choose(&demand, &named, &metrics);
        assert_eq!(*room.crowded().borrow(), Some(names(&["team-4"])));
    }
}
