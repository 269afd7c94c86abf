//! The other ends of connections, told shortly: pods by namespace and workload, addresses by range.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use rampart_reach::AddressRange;
use serde::Serialize;

use super::terrain::{Terrain, Workload};
use crate::network::addresses;

/// Names that stand in one line.
const NAMES: usize = 8;
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
    pub(super) addresses: Vec<String>,
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

/// Pods by workload: how many, by whether they are in the network of their node.
type Counts<'t> = BTreeMap<(bool, &'t Workload), usize>;

impl Crowd {
    /// Pods by their places, and ranges of addresses, as `me` sees them: a pod is no end of its own connections.
    pub(super) fn of(
        terrain: &Terrain<'_>,
        me: Option<usize>,
        pods: &BTreeSet<usize>,
        ranges: &[AddressRange],
    ) -> Self {
        let count = |is_one: &dyn Fn(usize) -> bool| {
            let mut counts = Counts::new();
            for (place, pod, workload) in terrain.inhabitants().filter(|(place, ..)| Some(*place) != me) {
                if is_one(place) {
                    let pods = counts.entry((pod.host_network, workload)).or_default();
                    *pods = pods.saturating_add(1);
                }
            }
            counts
        };
        let (all, some) = (count(&|_| true), count(&|place| pods.contains(&place)));
        let listed = some.iter().map(|((host, workload), pods)| Pods {
            workload: (*workload).clone(),
            count: *pods,
            of: all.get(&(*host, workload)).copied().unwrap_or(*pods),
        });
        let told_addresses = address_words(ranges);
        let words = pod_words(&all, &some).into_iter().chain(outside(&told_addresses));
        Self { who: words.collect::<Vec<_>>().join(", "), pods: listed.collect(), addresses: told_addresses }
    }

    /// Pods by their places.
    pub(super) fn of_pods(terrain: &Terrain<'_>, pods: &[usize]) -> Self {
        Self::of(terrain, None, &pods.iter().copied().collect(), &[])
    }
}

fn outside(addresses: &[String]) -> Option<String> {
    match addresses {
        [] => None,
        [all] if all == ANY => Some("every address outside".into()),
        some => Some(format!("outside: {}", cut(some.to_vec(), "more ranges").join(", "))),
    }
}

/// Words for some pods of all: `every pod`, `every pod but shop/db`, or namespaces and workloads.
fn pod_words(all: &Counts<'_>, some: &Counts<'_>) -> Vec<String> {
    if some.is_empty() {
        return vec![];
    }
    if all == some {
        return vec!["every pod".into()];
    }
    let mut rest = all.clone();
    rest.retain(|key, pods| some.get(key).is_none_or(|some| some < pods));
    let left_out = names(all, &rest, true);
    let namespaces: BTreeSet<&str> = some.keys().map(|(_, workload)| workload.namespace.as_str()).collect();
    let are_whole = rest.keys().all(|key| !some.contains_key(key));
    if are_whole && left_out.len() <= LEFT_OUT && namespaces.len() > 1 && some.len() > rest.len().saturating_mul(2) {
        return vec![format!("every pod but {}", left_out.join(" and "))];
    }
    cut(names(all, some, false), "more")
}

/// Namespaces that are whole, then workloads.
fn names(all: &Counts<'_>, some: &Counts<'_>, left_out: bool) -> Vec<String> {
    let of_namespace = |counts: &Counts<'_>| {
        let mut by_namespace: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for ((host, workload), pods) in counts {
            if !host {
                by_namespace.entry(workload.namespace.clone()).or_default().push(*pods);
            }
        }
        by_namespace
    };
    let (every, these) = (of_namespace(all), of_namespace(some));
    // A single workload says more than its namespace.
    let whole: BTreeSet<&String> = these
        .iter()
        .filter(|(name, pods)| pods.len() > 1 && every.get(*name) == Some(*pods))
        .map(|(name, _)| name)
        .collect();
    let of = if left_out { "those of" } else { "all pods of" };
    let whole_names: Vec<String> = whole.iter().map(|name| (*name).clone()).collect();
    let mut words = vec![];
    if !whole.is_empty() {
        words.push(format!("{of} {}", cut(whole_names, "more namespaces").join(", ")));
    }
    let single = some.iter().filter(|((host, workload), _)| *host || !whole.contains(&workload.namespace));
    words.extend(single.map(|(key, pods)| workload_words(*key, *pods, all.get(key).copied().unwrap_or(*pods))));
    words
}

fn workload_words((host, Workload { namespace, name, .. }): (bool, &Workload), pods: usize, of: usize) -> String {
    let told = match (pods, of) {
        (1, 1) => format!("{namespace}/{name}"),
        (pods, of) if pods == of => format!("{namespace}/{name} ({pods} pods)"),
        (pods, of) => format!("{namespace}/{name} ({pods} of {of} pods)"),
    };
    if host { format!("{told} in the network of its node") } else { told }
}

fn cut(mut words: Vec<String>, what: &str) -> Vec<String> {
    if let Some(more) = words.len().checked_sub(NAMES).filter(|more| *more > 1) {
        words.truncate(NAMES);
        words.push(format!("and {more} {what}"));
    }
    words
}

/// Every address.
const ANY: &str = "any";

/// Words for ranges of addresses: `any`, `0.0.0.0/0 but 10.0.0.0/8`, or the ranges.
fn address_words(ranges: &[AddressRange]) -> Vec<String> {
    let mut words = vec![];
    for (all, is_family) in [("0.0.0.0/0", IpAddr::is_ipv4 as fn(&IpAddr) -> bool), ("::/0", IpAddr::is_ipv6)] {
        let own = joined(ranges.iter().filter(|range| is_family(&range.first)).copied());
        let gaps = gaps(&own);
        let is_wide = own.iter().any(|range| is_edge(range.first)) && own.iter().any(|range| is_edge(range.last));
        match (own.is_empty(), gaps.as_slice()) {
            (true, _) => {}
            (false, []) if is_wide => words.push(all.to_owned()),
            (false, gaps) if is_wide && gaps.len() <= NAMES => {
                let but: Vec<String> = gaps.iter().copied().map(addresses).collect();
                words.push(format!("{all} but {}", but.join(", ")));
            }
            _ => words.extend(own.into_iter().map(addresses)),
        }
    }
    if words == ["0.0.0.0/0", "::/0"] { vec![ANY.into()] } else { words }
}

/// Neighbours as one.
fn joined(ranges: impl Iterator<Item = AddressRange>) -> Vec<AddressRange> {
    let mut ranges: Vec<AddressRange> = ranges.collect();
    ranges.sort_unstable();
    let mut joined: Vec<AddressRange> = vec![];
    for range in ranges {
        match joined.last_mut() {
            Some(before) if next(before.last) == Some(range.first) => before.last = range.last,
            _ => joined.push(range),
        }
    }
    joined
}

/// What lies between ranges of one family, which are in order.
fn gaps(ranges: &[AddressRange]) -> Vec<AddressRange> {
    let between = |(one, other): (&AddressRange, &AddressRange)| {
        Some(AddressRange { first: next(one.last)?, last: previous(other.first)? })
    };
    ranges.iter().zip(ranges.iter().skip(1)).filter_map(between).collect()
}

/// Whether it is the first or the last address of its family.
fn is_edge(address: IpAddr) -> bool {
    next(address).is_none() || previous(address).is_none()
}

fn next(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => address.to_bits().checked_add(1).map(|bits| IpAddr::V4(bits.into())),
        IpAddr::V6(address) => address.to_bits().checked_add(1).map(|bits| IpAddr::V6(bits.into())),
    }
}

fn previous(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => address.to_bits().checked_sub(1).map(|bits| IpAddr::V4(bits.into())),
        IpAddr::V6(address) => address.to_bits().checked_sub(1).map(|bits| IpAddr::V6(bits.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: &str, last: &str) -> AddressRange {
        AddressRange { first: first.parse().unwrap(), last: last.parse().unwrap() }
    }

    #[test]
    fn addresses_are_told_by_what_is_left_out_where_that_is_short() {
        let (v4, v6) = (range("0.0.0.0", "255.255.255.255"), range("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"));
        assert_eq!(address_words(&[v4, v6]), ["any"]);
        let around = [range("0.0.0.0", "9.255.255.255"), range("11.0.0.0", "255.255.255.255")];
        assert_eq!(address_words(&around), ["0.0.0.0/0 but 10.0.0.0/8"]);
        let neighbours = [range("10.0.0.0", "10.127.255.255"), range("10.128.0.0", "10.255.255.255")];
        assert_eq!(address_words(&neighbours), ["10.0.0.0/8"]);
        assert_eq!(address_words(&[]), Vec::<String>::new());
    }

    fn workload(namespace: &str, name: &str) -> Workload {
        Workload { namespace: namespace.into(), name: name.into(), kind: "Deployment".into() }
    }

    fn words(all: &[(&Workload, usize)], some: &[(&Workload, usize)]) -> String {
        fn counts<'w>(list: &[(&'w Workload, usize)]) -> Counts<'w> {
            list.iter().map(|(workload, pods)| ((false, *workload), *pods)).collect()
        }
        pod_words(&counts(all), &counts(some)).join(", ")
    }

    #[test]
    fn pods_are_told_by_the_largest_whole_that_they_are() {
        let [web, db, tool, dns] =
            [workload("shop", "web"), workload("shop", "db"), workload("tools", "t"), workload("kube-system", "dns")];
        let all = [(&web, 3), (&db, 1), (&tool, 1), (&dns, 2)];
        assert_eq!(words(&all, &all), "every pod");
        assert_eq!(words(&all, &[(&web, 3), (&tool, 1), (&dns, 2)]), "every pod but shop/db");
        assert_eq!(words(&all, &[(&web, 3), (&db, 1)]), "all pods of shop");
        assert_eq!(words(&all, &[(&web, 2), (&tool, 1)]), "shop/web (2 of 3 pods), tools/t");
        assert_eq!(words(&all, &[(&dns, 2)]), "kube-system/dns (2 pods)");
        assert_eq!(words(&all, &[]), "");
    }
}
