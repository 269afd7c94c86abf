//! How many requirements of SecurityPolicies become admission policies in a cluster: the webhook alone refuses for the rest.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use crate::hardening::{Demand, Standard};

/// Different requirements of all SecurityPolicies that become admission policies, unless others are asked for. Each costs
/// every pod of the cluster 10 us and every API server 1 MB, and tenants write them: these are 2 ms and 200 MB.
/// ClusterSecurityPolicies are not counted, for administrators write them, and no webhook is asked about the system
/// namespaces that they may cover.
pub const ALL_FLOORS: u16 = 200;

/// Requirements that there is no room for, by namespace.
pub type Roomless = BTreeMap<String, BTreeSet<Standard>>;

impl Demand {
    /// The different requirements of SecurityPolicies.
    #[must_use]
    pub fn standards(&self) -> BTreeSet<&Standard> {
        self.namespaces.values().flat_map(BTreeMap::keys).collect()
    }

    /// Whether there are more of them than there is room for.
    #[must_use]
    pub fn is_crowded(&self, room: usize) -> bool {
        self.standards().len() > room
    }

    /// As many of these requirements as there is room for, and the rest: first come those that the oldest policies ask
    /// for. So an edit loses no place to a younger policy, and whoever chooses again chooses the same.
    #[must_use]
    pub fn within(&self, room: usize) -> (Cow<'_, Self>, Roomless) {
        let mut ranked: Vec<&Standard> = self.standards().into_iter().collect();
        if ranked.len() <= room {
            return (Cow::Borrowed(self), Roomless::new());
        }
        ranked.sort_by_key(|standard| self.eldest.get(*standard));
        let chosen: BTreeSet<&Standard> = ranked.into_iter().take(room).collect();
        let (mut within, mut roomless) = (self.clone(), Roomless::new());
        within.namespaces.retain(|namespace, standards| {
            let out: BTreeSet<Standard> =
                standards.keys().filter(|standard| !chosen.contains(standard)).cloned().collect();
            standards.retain(|standard, _| !out.contains(standard));
            if !out.is_empty() {
                roomless.insert(namespace.clone(), out);
            }
            !standards.is_empty()
        });
        (Cow::Owned(within), roomless)
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use rampart_pss::{Level, Version};

    use super::*;
    use crate::hardening::Rules;

    fn standard(minor: u32) -> Standard {
        Standard { level: Level::Restricted, version: Version::minor(minor), rules: Rules::default() }
    }

    /// What policies ask that were made one after another.
    fn asked(policies: &[(&str, u32)]) -> Demand {
        let mut demand = Demand::default();
        for (second, (namespace, minor)) in (0..).zip(policies) {
            demand.namespaces.entry((*namespace).to_owned()).or_default().insert(standard(*minor), vec![]);
            let asking = (Timestamp::from_second(second).ok(), (*namespace).to_owned(), format!("asks-{minor}"));
            demand.eldest.entry(standard(*minor)).or_insert(asking);
        }
        demand
    }

    fn out(roomless: &Roomless) -> Vec<(&str, Vec<String>)> {
        let versions = |all: &BTreeSet<Standard>| all.iter().map(|it| it.version.to_string()).collect();
        roomless.iter().map(|(namespace, all)| (namespace.as_str(), versions(all))).collect()
    }

    /// Versions that there is room for.
    fn chosen(demand: &Demand, room: usize) -> Vec<String> {
        demand.within(room).0.standards().into_iter().map(|it| it.version.to_string()).collect()
    }

    #[test]
    fn where_there_is_room_for_all_nothing_is_left_out() {
        let demand = asked(&[("a", 20), ("a", 21), ("b", 20)]);
        let (within, roomless) = demand.within(2);
        assert_eq!((&*within, roomless.len()), (&demand, 0));
        assert!(!demand.is_crowded(2) && demand.is_crowded(1));
    }

    #[test]
    fn an_edit_loses_no_place_to_a_younger_policy() {
        let demand = asked(&[("a", 23), ("b", 22), ("c", 20), ("d", 20), ("a", 21)]);
        let (within, roomless) = demand.within(2);
        let v20 = || vec!["v1.20".to_owned()];
        assert_eq!(out(&roomless), [("a", vec!["v1.21".to_owned()]), ("c", v20()), ("d", v20())]);
        assert_eq!(within.standards(), [&standard(22), &standard(23)].into(), "the oldest");
        assert!(!within.namespaces.contains_key("d") && within.namespaces.contains_key("a"));
        for edited in [19, 24] {
            let edit = asked(&[("a", 23), ("b", edited), ("c", 20), ("d", 20), ("a", 21)]);
            assert!(chosen(&edit, 2).contains(&format!("v1.{edited}")), "{:?}", chosen(&edit, 2));
        }
        // What shares with an older one has its place.
        let shared = asked(&[("a", 23), ("b", 22), ("c", 20), ("d", 22), ("a", 23)]);
        assert_eq!(out(&shared.within(2).1), [("c", v20())]);
        // What has gone makes room for the oldest that waits.
        let fewer = asked(&[("a", 23), ("c", 20), ("d", 20), ("a", 21)]);
        assert_eq!(chosen(&fewer, 2), ["v1.20", "v1.23"]);
    }

    #[test]
    fn of_policies_that_were_made_together_the_names_decide() {
        let mut demand = asked(&[("b", 20), ("a", 22), ("a", 21)]);
        for (made, ..) in demand.eldest.values_mut() {
            *made = None;
        }
        assert_eq!(chosen(&demand, 1), ["v1.21"]);
        assert_eq!(chosen(&demand, 2), ["v1.21", "v1.22"]);
    }
}
