//! How many requirements of SecurityPolicies become admission policies in a cluster: the webhook alone refuses for the rest.

use std::{
    borrow::Cow,
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use super::content::Content;
use crate::hardening::{Demand, Standard};

/// Different requirements of all SecurityPolicies that become admission policies. Each costs every pod of the cluster
/// 10 us and every API server 1 MB, and tenants write them: these are 2 ms and 200 MB. ClusterSecurityPolicies are not
/// counted, for administrators write them, and no webhook is asked about the system namespaces that they may cover.
pub const ALL_FLOORS: usize = 200;

/// Requirements that there is no room for, by namespace.
pub type Roomless = BTreeMap<String, BTreeSet<Standard>>;

/// What the first admission policy of a requirement of SecurityPolicies is called; `None` where none is made of it.
#[must_use]
pub fn first_name(standard: &Standard) -> Option<String> {
    Content::of(standard).map(|content| content.shard_name(0))
}

impl Demand {
    /// The different requirements of SecurityPolicies.
    #[must_use]
    pub fn standards(&self) -> BTreeSet<&Standard> {
        self.namespaces.values().flat_map(BTreeMap::keys).collect()
    }

    /// Whether there is no room for some of them.
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        self.standards().len() > ALL_FLOORS
    }

    /// As many of these requirements as there is room for, and the rest: those that have an admission policy keep it, then
    /// come those that most namespaces share, and of equal ones always the same.
    #[must_use]
    pub fn within(&self, room: usize, having: &BTreeSet<Standard>) -> (Cow<'_, Self>, Roomless) {
        let mut sharing: BTreeMap<&Standard, usize> = BTreeMap::new();
        for standard in self.namespaces.values().flat_map(BTreeMap::keys) {
            let count = sharing.entry(standard).or_default();
            *count = count.saturating_add(1);
        }
        if sharing.len() <= room {
            return (Cow::Borrowed(self), Roomless::new());
        }
        let mut ranked: Vec<(&Standard, usize)> = sharing.into_iter().collect();
        ranked.sort_by_cached_key(|(standard, count)| (!having.contains(*standard), Reverse(*count)));
        let chosen: BTreeSet<&Standard> = ranked.into_iter().take(room).map(|(standard, _)| standard).collect();
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
    use rampart_pss::{Level, Version};

    use super::*;
    use crate::hardening::Rules;

    fn standard(minor: u32) -> Standard {
        Standard { level: Level::Restricted, version: Version::minor(minor), rules: Rules::default() }
    }

    fn asked(namespaces: &[(&str, &[u32])]) -> Demand {
        let of = |minors: &[u32]| minors.iter().map(|minor| (standard(*minor), vec![])).collect();
        let namespaces = namespaces.iter().map(|(name, minors)| ((*name).to_owned(), of(minors))).collect();
        Demand { namespaces, clusters: BTreeMap::new() }
    }

    fn out(roomless: &Roomless) -> Vec<(&str, Vec<String>)> {
        let versions = |all: &BTreeSet<Standard>| all.iter().map(|it| it.version.to_string()).collect();
        roomless.iter().map(|(namespace, all)| (namespace.as_str(), versions(all))).collect()
    }

    #[test]
    fn where_there_is_room_for_all_nothing_is_left_out() {
        let demand = asked(&[("a", &[20, 21]), ("b", &[20])]);
        let (within, roomless) = demand.within(2, &BTreeSet::new());
        assert_eq!((&*within, roomless.len()), (&demand, 0));
        assert!(!demand.is_crowded());
    }

    #[test]
    fn who_has_an_admission_policy_keeps_it_and_then_the_most_shared_get_one() {
        let demand = asked(&[("a", &[20, 21]), ("b", &[22]), ("c", &[22]), ("d", &[23])]);
        let none = BTreeSet::new();
        let (within, roomless) = demand.within(2, &none);
        assert_eq!(out(&roomless), [("a", vec!["v1.21".to_owned()]), ("d", vec!["v1.23".to_owned()])]);
        assert_eq!(within.standards(), [&standard(20), &standard(22)].into(), "of equal ones always the same");
        assert!(!within.namespaces.contains_key("d"));
        let (within, roomless) = demand.within(2, &[standard(23), standard(21), standard(9)].into());
        assert_eq!(within.standards(), [&standard(21), &standard(23)].into());
        let left = ["a", "b", "c"];
        assert_eq!(roomless.keys().map(String::as_str).collect::<Vec<_>>(), left, "those that share have none either");
        // What has gone makes room.
        let fewer = asked(&[("a", &[20, 21]), ("b", &[22]), ("c", &[22])]);
        let (within, _) = fewer.within(2, &[standard(23), standard(21)].into());
        assert_eq!(within.standards(), [&standard(21), &standard(22)].into());
    }
}
