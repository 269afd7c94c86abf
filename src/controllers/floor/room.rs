//! Which requirements have an admission policy where there are more than there is room for, and where the webhook is asked
//! until what has one is in force.

use std::{borrow::Cow, collections::BTreeSet};

use tokio::sync::watch;

use crate::{
    hardening::{ClusterWide, Demand, Policies, Roomless, Standard},
    runtime::metrics::{Metrics, ResultLabel},
};

/// Namespaces where the webhook alone refuses something, or did until a moment ago: not every API server may know yet the
/// admission policy that takes its place. `None` until that is known.
pub type Leaning = watch::Receiver<Option<BTreeSet<String>>>;

/// The room for admission policies of SecurityPolicies.
pub(super) struct Room {
    /// So many requirements have one.
    pub(super) places: usize,
    leaning: watch::Sender<Option<BTreeSet<String>>>,
}

impl Room {
    pub(super) fn of(places: usize) -> Self {
        Self { places, leaning: watch::Sender::new(None) }
    }

    pub(super) fn leaning(&self) -> Leaning {
        self.leaning.subscribe()
    }

    /// What there is room for, and what is left out.
    pub(super) fn choose<'d>(&self, demand: &'d Demand, metrics: &Metrics) -> (Cow<'d, Demand>, Roomless) {
        let (within, roomless) = demand.within(self.places);
        let left_out: BTreeSet<&Standard> = roomless.values().flatten().collect();
        for (result, count) in [("admission_policy", within.standards().len()), ("no_room", left_out.len())] {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            metrics.requirements.get_or_create(&ResultLabel { result }).set(count);
        }
        (within, roomless)
    }

    /// Tells of the namespaces where the webhook `alone` refuses something, at once: it is to be asked there before admission
    /// policies go. Who was told of is told of until it is released, or nothing is refused there any more (it is not
    /// `refusing`). `named` are those where no pod is made without the webhook's word now.
    pub(super) fn lean(&self, alone: &BTreeSet<String>, refusing: &BTreeSet<String>, named: &BTreeSet<String>) {
        let told = self.leaning.borrow().clone();
        // Another leader may have had some to release.
        let told = told.unwrap_or_else(|| named.clone());
        self.tell(&(&told & refusing) | alone);
    }

    /// Tells no more of those that have admission policies in force, which all have in time that are written: `settled` says
    /// that it has passed. Whether some wait for it.
    pub(super) fn release(&self, alone: &BTreeSet<String>, is_unwritten: impl Fn(&str) -> bool, settled: bool) -> bool {
        let told = self.leaning.borrow().clone().unwrap_or_default();
        let (staying, leaving): (BTreeSet<String>, BTreeSet<String>) =
            told.into_iter().partition(|name| alone.contains(name) || is_unwritten(name));
        if settled {
            self.tell(staying);
        }
        !settled && !leaving.is_empty()
    }

    fn tell(&self, leaning: BTreeSet<String>) {
        let leaning = Some(leaning);
        self.leaning.send_if_modified(|before| {
            let differs = *before != leaning;
            *before = leaning;
            differs
        });
    }
}

/// Whether one of the admission policies for these places, as [`crate::hardening::extent`] has them, is about a namespace.
pub(super) fn are_about(places: &BTreeSet<String>, (known, demand): (&Policies, &Demand)) -> impl Fn(&str) -> bool {
    let wide = demand.clusters.values().map(|(policy, _)| policy);
    let wide: Vec<&ClusterWide> = wide.filter(|policy| places.contains(&policy.place())).collect();
    move |namespace: &str| {
        places.contains(namespace) || wide.iter().any(|policy| policy.covers(namespace, known.labels_of(namespace)))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::{BTreeMap, HashMap},
        sync::Arc,
    };

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

    /// What is left out of what these ask for, as a pass tells it.
    fn choose(room: &Room, metrics: &Metrics, demand: &Demand, named: &BTreeSet<String>) -> Vec<String> {
        let (_, roomless) = room.choose(demand, metrics);
        let alone: BTreeSet<String> = roomless.into_keys().collect();
        room.lean(&alone, &demand.namespaces.keys().cloned().collect(), named);
        alone.into_iter().collect()
    }

    /// Nothing has failed.
    fn written(_: &str) -> bool {
        false
    }

    #[test]
    fn who_comes_later_waits_and_takes_the_place_of_who_goes() {
        let (room, metrics, none) = (Room::of(2), Metrics::default(), BTreeSet::new());
        let choose = |numbers: &[i64]| choose(&room, &metrics, &asked(numbers.iter().copied()), &none);
        let told = room.leaning();
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
        assert!(room.release(&names(&["team-4"]), written, false), "one is left");
        assert_eq!(*told.borrow(), Some(names(&["team-3", "team-4"])));
        assert!(!room.release(&names(&["team-4"]), written, true));
        assert_eq!(*told.borrow(), Some(names(&["team-4"])));
        // An older one that begins to ask takes the place of the youngest.
        assert_eq!(choose(&[1, 2, 3, 4]), ["team-3", "team-4"]);
    }

    #[test]
    fn a_new_leader_goes_on_with_a_hand_over() {
        let (room, metrics, demand) = (Room::of(2), Metrics::default(), asked(2..=4));
        // The one before had got room for a third, whose admission policy may not be in force yet.
        let named = names(&["team-3", "team-4", "asks-for-none"]);
        assert_eq!(choose(&room, &metrics, &demand, &named), ["team-4"]);
        assert_eq!(*room.leaning().borrow(), Some(names(&["team-3", "team-4"])));
        // Only the first look goes by what is named.
        assert!(!room.release(&names(&["team-4"]), written, true));
        choose(&room, &metrics, &demand, &named);
        assert_eq!(*room.leaning().borrow(), Some(names(&["team-4"])));
    }

    #[test]
    fn who_leaves_the_webhook_leans_on_it_until_its_admission_policy_is_in_force_or_nothing_is_refused() {
        let (room, none) = (Room::of(2), BTreeSet::new());
        let told = || room.leaning().borrow().clone().unwrap_or_default();
        let (all, some) = (names(&["ends", "stays", "waits"]), names(&["stays", "waits"]));
        room.lean(&all, &all, &none);
        assert!(!room.release(&all, written, true) && told() == all, "the webhook alone refuses there");
        // One leaves it, one asks for nothing more.
        let alone = names(&["stays"]);
        room.lean(&alone, &some, &none);
        assert_eq!(told(), some, "nobody waits for what ends");
        assert!(room.release(&alone, written, false) && told() == some);
        // What can't be written keeps its own, and asks for no look before it is tried again.
        for settled in [false, true] {
            assert!(!room.release(&alone, |name| name == "waits", settled) && told() == some);
        }
        assert!(room.release(&alone, written, false), "now it is written");
        assert!(!room.release(&alone, written, true) && told() == alone);
        // Nobody comes back by itself.
        room.lean(&alone, &some, &some);
        assert_eq!(told(), alone);
    }

    #[test]
    fn what_is_written_for_a_selector_is_about_namespaces_with_such_labels() {
        let policy = json!({"metadata": {"name": "wide"}, "spec": {
            "namespaceSelector": {"matchLabels": {"tier": "web"}},
            "hardening": {"mode": "Enforce", "podSecurity": {"level": "baseline"}}}});
        let policy = ClusterWide::try_from(&serde_json::from_value(policy).unwrap()).unwrap();
        let places = |names: &[&str]| -> BTreeSet<String> {
            names.iter().map(|name| if *name == "wide" { policy.place() } else { (*name).to_owned() }).collect()
        };
        let labels = |tier: &str| Arc::new(BTreeMap::from([("tier".to_owned(), tier.to_owned())]));
        let labels = HashMap::from([("shop".to_owned(), labels("web")), ("books".to_owned(), labels("db"))]);
        let known = Policies { labels: Arc::new(labels), ..Policies::default() };
        let clusters = [("wide".to_owned(), (policy.clone(), BTreeMap::new()))].into();
        let demand = Demand { clusters, ..Demand::default() };
        let about = |of: &[&str]| ["shop", "books"].map(are_about(&places(of), (&known, &demand)));
        assert_eq!([about(&[]), about(&["wide"])], [[false, false], [true, false]]);
        assert_eq!([about(&["books"]), about(&["books", "wide"])], [[false, true], [true, true]]);
    }
}
