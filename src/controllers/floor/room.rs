//! Which requirements have an admission policy where there are more than there is room for.

use std::{borrow::Cow, collections::BTreeSet};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::live::Live;
use crate::{
    hardening::{ALL_FLOORS, Demand, Roomless, Standard, first_name},
    runtime::metrics::{Metrics, ResultLabel},
};

/// Namespaces of which the webhook alone refuses something, since there is no room for it; `None` until that is known.
pub type Crowded = watch::Receiver<Option<BTreeSet<String>>>;

/// The room for admission policies of SecurityPolicies.
#[derive(Default)]
pub(super) struct Room {
    /// Requirements that have got one; `None` until somebody has looked.
    having: Mutex<Option<BTreeSet<Standard>>>,
    crowded: watch::Sender<Option<BTreeSet<String>>>,
}

impl Room {
    pub(super) fn crowded(&self) -> Crowded {
        self.crowded.subscribe()
    }

    /// What there is room for, and what is left out. Told at once: the webhook is to be asked about the rest before its
    /// admission policies go.
    pub(super) fn choose<'d>(&self, demand: &'d Demand, live: &Live, metrics: &Metrics) -> (Cow<'d, Demand>, Roomless) {
        let mut having = self.having.lock();
        // Another leader may have chosen before.
        let before = having.take().unwrap_or_else(|| written(demand, live));
        let (within, roomless) = demand.within(ALL_FLOORS, &before);
        let now: BTreeSet<Standard> = within.standards().into_iter().cloned().collect();
        let left_out: BTreeSet<&Standard> = roomless.values().flatten().collect();
        for (result, count) in [("admission_policy", now.len()), ("no_room", left_out.len())] {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            metrics.requirements.get_or_create(&ResultLabel { result }).set(count);
        }
        *having = Some(now);
        let mut crowded: BTreeSet<String> = roomless.keys().cloned().collect();
        crowded.extend(self.crowded.borrow().iter().flatten().cloned());
        self.tell(crowded);
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

/// Requirements of which there are admission policies; not asked where there is room for all.
fn written(demand: &Demand, live: &Live) -> BTreeSet<Standard> {
    if !demand.is_crowded() {
        return BTreeSet::new();
    }
    let is_there = |standard: &&Standard| first_name(standard).is_some_and(|name| live.policies.contains_key(&name));
    demand.standards().into_iter().filter(is_there).cloned().collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use kube::ResourceExt as _;
    use rampart_pss::{Level, Version};
    use serde_json::json;

    use super::*;
    use crate::{
        api,
        hardening::{Rules, compile},
    };

    /// A namespace each, with a requirement of its own.
    fn asked(numbers: impl Iterator<Item = usize>) -> Demand {
        let standard = |number: usize| {
            let allow = json!([format!("registry-{number}.example/**")]);
            let rules: api::Rules = serde_json::from_value(json!({"images": {"allow": allow}})).unwrap();
            let rules = Rules::try_from(&rules).unwrap();
            Standard { level: Level::Baseline, version: Version::LATEST, rules }
        };
        let namespaces = numbers.map(|number| (format!("team-{number:03}"), [(standard(number), vec![])].into()));
        Demand { namespaces: namespaces.collect(), clusters: BTreeMap::new() }
    }

    fn live(demand: &Demand) -> Live {
        let policies = compile(demand).into_iter().map(|it| (it.policy.name_any(), it.policy)).collect();
        Live { policies, bindings: BTreeMap::new() }
    }

    #[test]
    fn a_new_leader_keeps_those_that_it_finds() {
        let (room, metrics, crowded) = (Room::default(), Metrics::default(), asked(0..ALL_FLOORS + 3));
        let told = room.crowded();
        assert_eq!(*told.borrow(), None, "nobody has looked");
        let (within, roomless) = room.choose(&crowded, &live(&asked(5..ALL_FLOORS + 3)), &metrics);
        assert_eq!((within.namespaces.len(), roomless.len()), (ALL_FLOORS, 3));
        assert!(within.namespaces.keys().skip(2).eq(asked(5..ALL_FLOORS + 3).namespaces.keys()), "{roomless:?}");
        assert_eq!(*told.borrow(), Some(roomless.into_keys().collect()));
        let count = |result| metrics.requirements.get_or_create(&ResultLabel { result }).get();
        assert_eq!((count("admission_policy"), count("no_room")), (200, 3));
    }

    #[test]
    fn who_comes_later_waits_and_takes_the_place_of_who_goes() {
        let (room, metrics, none) = (Room::default(), Metrics::default(), live(&Demand::default()));
        let choose = |demand: &Demand| {
            let (_, roomless) = room.choose(demand, &none, &metrics);
            roomless.into_keys().collect::<Vec<_>>()
        };
        assert!(choose(&asked(1..=ALL_FLOORS)).is_empty());
        assert_eq!(choose(&asked(0..=ALL_FLOORS)), ["team-000"]);
        assert_eq!(choose(&asked(0..=ALL_FLOORS + 1)), ["team-000", "team-201"]);
        let without_one = asked((0..=ALL_FLOORS + 1).filter(|number| *number != 7));
        let left_out = choose(&without_one);
        assert!(left_out == ["team-000"] || left_out == ["team-201"], "{left_out:?}");
        assert_eq!(choose(&without_one), left_out, "the same at each look");
        // Who has got room is told as having none until its admission policy is in force.
        let told = room.crowded();
        let names = |all: &[&str]| all.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<String>>();
        assert_eq!(*told.borrow(), Some(names(&["team-000", "team-201"])));
        let left_out: BTreeSet<String> = left_out.into_iter().collect();
        assert!(room.release(left_out.clone(), false) && told.borrow().as_ref() != Some(&left_out));
        assert!(!room.release(left_out.clone(), true) && *told.borrow() == Some(left_out));
    }
}
