//! The other ends of connections, told shortly: pods by namespace and workload, addresses by range.

use std::collections::{BTreeMap, BTreeSet};

use rampart_reach::AddressRange;
use serde::Serialize;

use super::{
    ranges::{Range, merged, outside},
    terrain::{Counts, Terrain, Workload},
};

/// Names that stand in one line.
pub(super) const NAMES: usize = 8;
/// Names that are told as left out.
const LEFT_OUT: usize = 3;

/// Ends of connections.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct Crowd {
    /// For people: `all pods of shop, tools/nginx (2 pods)`.
    pub(super) who: String,
    /// Every workload with pods among them.
    pub(super) pods: Vec<Pods>,
    /// Ranges of addresses outside of the cluster.
    pub(super) addresses: Vec<Range>,
}

/// Pods of a workload.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct Pods {
    #[serde(flatten)]
    pub(super) workload: Workload,
    /// How many.
    pub(super) count: usize,
    /// Of how many.
    pub(super) of: usize,
}

impl Crowd {
    /// Pods by their places, and ranges of addresses, as `me` sees them: a pod is no end of its own connections.
    pub(super) fn of(
        terrain: &Terrain<'_>,
        me: Option<usize>,
        pods: &BTreeSet<usize>,
        ranges: &[AddressRange],
    ) -> Self {
        let (mut own, mut host) = (Few::new(), Few::new());
        for (pod, workload) in pods.iter().filter(|place| Some(**place) != me).filter_map(|it| terrain.inhabitant(*it))
        {
            let counts = if pod.host_network { &mut host } else { &mut own };
            let pods = counts.entry(workload).or_default();
            *pods = pods.saturating_add(1);
        }
        let me = me.and_then(|me| terrain.inhabitant(me));
        let me = |in_host: bool| me.filter(|(pod, _)| pod.host_network == in_host).map(|(_, workload)| workload);
        let all = All { counts: &terrain.counts, me: me(false) };
        let all_host = All { counts: &terrain.counts_in_host_network, me: me(true) };
        let listed = |all: &All<'_>, some: &Few<'_>| -> Vec<Pods> {
            let told = some.iter().map(|(workload, count)| Pods {
                workload: (*workload).clone(),
                count: *count,
                of: all.of(workload),
            });
            told.collect()
        };
        let mut told = listed(&all, &own);
        told.extend(listed(&all_host, &host));
        let addresses = merged(ranges);
        let words = pod_words((&all, &own), (&all_host, &host)).into_iter().chain(outside(&addresses));
        Self { who: words.collect::<Vec<_>>().join(", "), pods: told, addresses }
    }

    /// Pods by their places.
    pub(super) fn of_pods(terrain: &Terrain<'_>, pods: &[usize]) -> Self {
        Self::of(terrain, None, &pods.iter().copied().collect(), &[])
    }
}

/// Some pods, by workload.
type Few<'t> = BTreeMap<&'t Workload, usize>;

/// Every pod but oneself, by workload.
struct All<'t> {
    counts: &'t Counts,
    me: Option<&'t Workload>,
}

impl<'t> All<'t> {
    fn of(&self, workload: &Workload) -> usize {
        let all = self.counts.get(workload).copied().unwrap_or_default();
        all.saturating_sub(usize::from(self.me == Some(workload)))
    }

    fn are(&self, some: &Few<'_>) -> bool {
        let gone = usize::from(self.me.is_some_and(|me| self.of(me) == 0));
        some.len() == self.counts.len().saturating_sub(gone) && some.iter().all(|(it, pods)| self.of(it) == *pods)
    }

    /// Workloads of a namespace.
    fn of_namespace(&self, namespace: &str) -> usize {
        let first = Workload { namespace: namespace.into(), name: String::new(), kind: String::new() };
        let own = self.counts.range(first..).take_while(|(it, _)| it.namespace == namespace);
        own.filter(|(it, _)| self.of(it) > 0).count()
    }

    /// Those that are not among some, where they are whole workloads.
    fn without(&self, some: &Few<'_>) -> Option<Few<'t>> {
        let mut rest = Few::new();
        for workload in self.counts.keys() {
            match (self.of(workload), some.get(workload).copied().unwrap_or_default()) {
                (all, some) if all == some => {}
                (all, 0) => drop(rest.insert(workload, all)),
                _ => return None,
            }
        }
        Some(rest)
    }
}

/// Words for some pods of all: `every pod`, `every pod but shop/db`, or namespaces and workloads; first for those in the
/// network of pods, then for those in that of their node.
fn pod_words((all, some): (&All<'_>, &Few<'_>), (all_host, host): (&All<'_>, &Few<'_>)) -> Vec<String> {
    let (is_all, is_all_host) = (all.are(some), all_host.are(host));
    match (some.is_empty(), host.is_empty()) {
        (true, true) => return vec![],
        (false, _) if is_all && is_all_host => return vec!["every pod".into()],
        (false, true) if is_all => return vec!["every pod but those in the network of their node".into()],
        _ => {}
    }
    let mut words = match but(all, some) {
        _ if is_all && !some.is_empty() => vec!["every pod in the network of pods".into()],
        Some(words) => vec![words],
        None => names(all, some, "all pods of"),
    };
    if is_all_host && !host.is_empty() {
        words.push("every pod in the network of its node".into());
    } else {
        let host = names(all_host, host, "all pods of");
        words.extend(host.into_iter().map(|name| format!("{name} in the network of its node")));
    }
    cut(words, "more")
}

/// `every pod but shop/db`, where that is shorter.
fn but(all: &All<'_>, some: &Few<'_>) -> Option<String> {
    let namespaces: BTreeSet<&str> = some.keys().map(|it| it.namespace.as_str()).collect();
    if namespaces.len() < 2 || some.len().saturating_mul(3) <= all.counts.len().saturating_mul(2) {
        return None;
    }
    let left_out = names(all, &all.without(some)?, "those of");
    (left_out.len() <= LEFT_OUT).then(|| format!("every pod but {}", left_out.join(" and ")))
}

/// Namespaces that are whole, then workloads.
fn names(all: &All<'_>, some: &Few<'_>, of: &str) -> Vec<String> {
    let mut by_namespace: BTreeMap<&str, Vec<(&Workload, usize)>> = BTreeMap::new();
    for (workload, pods) in some {
        by_namespace.entry(&workload.namespace).or_default().push((workload, *pods));
    }
    // A single workload says more than its namespace.
    let is_whole = |(namespace, pods): &(&str, Vec<(&Workload, usize)>)| {
        pods.len() > 1 && pods.len() == all.of_namespace(namespace) && pods.iter().all(|(it, pods)| all.of(it) == *pods)
    };
    let (whole, parts): (Vec<_>, Vec<_>) = by_namespace.into_iter().partition(is_whole);
    let whole: Vec<String> = whole.into_iter().map(|(namespace, _)| namespace.to_owned()).collect();
    let mut words = vec![];
    if !whole.is_empty() {
        words.push(format!("{of} {}", cut(whole, "more namespaces").join(", ")));
    }
    let single = parts.into_iter().flat_map(|(_, pods)| pods);
    words.extend(single.map(|(workload, pods)| workload_words(workload, pods, all.of(workload))));
    words
}

fn workload_words(Workload { namespace, name, .. }: &Workload, pods: usize, of: usize) -> String {
    match (pods, of) {
        (1, 1) => format!("{namespace}/{name}"),
        (pods, of) if pods == of => format!("{namespace}/{name} ({pods} pods)"),
        (pods, of) => format!("{namespace}/{name} ({pods} of {of} pods)"),
    }
}

/// The first of some words, and how many more there are.
pub(super) fn cut(mut words: Vec<String>, what: &str) -> Vec<String> {
    if let Some(more) = words.len().checked_sub(NAMES).filter(|more| *more > 1) {
        words.truncate(NAMES);
        words.push(format!("and {more} {what}"));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(namespace: &str, name: &str) -> Workload {
        Workload { namespace: namespace.into(), name: name.into(), kind: "Deployment".into() }
    }

    fn words(all: &[(&Workload, usize)], some: &[(&Workload, usize)], host: [&[(&Workload, usize)]; 2]) -> String {
        let counts = |list: &[(&Workload, usize)]| -> Counts {
            list.iter().map(|(workload, pods)| ((*workload).clone(), *pods)).collect()
        };
        let [all_host, host] = host.map(counts);
        let (all, some) = (counts(all), counts(some));
        let view = |some: &Counts| -> Vec<(Workload, usize)> { some.clone().into_iter().collect() };
        let (some, host) = (view(&some), view(&host));
        let some: Few<'_> = some.iter().map(|(it, pods)| (it, *pods)).collect();
        let host: Few<'_> = host.iter().map(|(it, pods)| (it, *pods)).collect();
        let (all, all_host) = (All { counts: &all, me: None }, All { counts: &all_host, me: None });
        pod_words((&all, &some), (&all_host, &host)).join(", ")
    }

    #[test]
    fn pods_are_told_by_the_largest_whole_that_they_are() {
        let [web, db, tool, dns] =
            [workload("shop", "web"), workload("shop", "db"), workload("tools", "t"), workload("kube-system", "dns")];
        let all = [(&web, 3), (&db, 1), (&tool, 1), (&dns, 2)];
        let told = |some: &[(&Workload, usize)]| words(&all, some, [&[], &[]]);
        assert_eq!(told(&all), "every pod");
        assert_eq!(told(&[(&web, 3), (&tool, 1), (&dns, 2)]), "every pod but shop/db");
        assert_eq!(told(&[(&web, 3), (&db, 1)]), "all pods of shop");
        assert_eq!(told(&[(&web, 2), (&tool, 1)]), "shop/web (2 of 3 pods), tools/t");
        assert_eq!(told(&[(&dns, 2)]), "kube-system/dns (2 pods)");
        assert_eq!(told(&[]), "");
    }

    #[test]
    fn pods_in_the_network_of_their_node_are_told_apart() {
        let (web, proxy) = (workload("shop", "web"), workload("kube-system", "proxy"));
        let (all, node): (&[_], &[_]) = (&[(&web, 3)], &[(&proxy, 2)]);
        assert_eq!(words(all, all, [node, node]), "every pod");
        assert_eq!(words(all, all, [node, &[]]), "every pod but those in the network of their node");
        assert_eq!(words(all, &[], [node, node]), "every pod in the network of its node");
        let some = words(all, &[(&web, 1)], [node, &[(&proxy, 1)]]);
        assert_eq!(some, "shop/web (1 of 3 pods), kube-system/proxy (1 of 2 pods) in the network of its node");
    }
}
