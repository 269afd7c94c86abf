//! What NetworkPolicies would change, for people.

use ipnet::{IpSubnets, Ipv4Subnets, Ipv6Subnets};
use rampart_reach::{AddressRange, Change, Decided, Direction, End, Flow, Flows, Index, Place, PortRange, Protocol};

use crate::api::{NetworkFlow, NetworkPreview};

/// Most samples.
const SAMPLES: usize = 20;
/// Most ranges of ports that a sample tells.
const RANGES: usize = 4;

/// Tells what a change of policies changes; `names` are those of the policies, as [`Change::verdict`] counts them.
#[must_use]
pub fn preview(change: &Change<'_>, index: &Index, names: &[String]) -> NetworkPreview {
    let difference = change.difference();
    let told = |flows: &Flows, allowed: bool| -> Vec<NetworkFlow> {
        flows.samples.iter().map(|flow| sample(flow, allowed, change, (index, names))).collect()
    };
    let mut samples = told(&difference.newly_denied, false);
    samples.extend(told(&difference.newly_allowed, true));
    samples.truncate(SAMPLES);
    let count = |pairs: u64| i64::try_from(pairs).unwrap_or(i64::MAX);
    NetworkPreview {
        newly_denied: count(difference.newly_denied.pairs),
        newly_allowed: count(difference.newly_allowed.pairs),
        unchanged: count(difference.unchanged),
        samples,
    }
}

fn sample(flow: &Flow, allowed: bool, change: &Change<'_>, (index, names): (&Index, &[String])) -> NetworkFlow {
    let [from, to] = [flow.from, flow.to].map(|place| match place {
        Place::Pod(pod) => End::Pod(pod),
        Place::Addresses(range) => End::Address(range.first),
    });
    let port = flow.ports.first().map_or((Protocol::TCP, 0), |range| (range.protocol, range.first));
    let verdict = change.verdict(from, to, port);
    NetworkFlow {
        src: place(flow.from, index),
        dst: place(flow.to, index),
        port: ports(&flow.ports),
        allowed,
        why: why(&verdict.by, allowed, names),
    }
}

fn why(by: &[Decided], allowed: bool, names: &[String]) -> String {
    let way = |direction: Direction| match direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    };
    let mut told: Vec<String> =
        by.iter().filter_map(|by| Some(format!("{} of {}", way(by.direction), names.get(by.policy)?))).collect();
    told.sort();
    told.dedup();
    match (told.is_empty(), allowed) {
        (true, _) => "nothing isolates either end".into(),
        (false, true) => format!("allowed by {}", told.join(", ")),
        (false, false) => format!("not allowed by {}", told.join(", ")),
    }
}

fn place(place: Place, index: &Index) -> String {
    match place {
        Place::Pod(pod) => {
            index.pods().get(pod).map(|pod| format!("{}/{}", pod.namespace, pod.name)).unwrap_or_default()
        }
        Place::Addresses(range) => addresses(range),
    }
}

/// Tells a range of addresses: in CIDR notation, where it is one.
#[must_use]
pub fn addresses(AddressRange { first, last }: AddressRange) -> String {
    let mut subnets = match (first, last) {
        (std::net::IpAddr::V4(first), std::net::IpAddr::V4(last)) => IpSubnets::V4(Ipv4Subnets::new(first, last, 0)),
        (std::net::IpAddr::V6(first), std::net::IpAddr::V6(last)) => IpSubnets::V6(Ipv6Subnets::new(first, last, 0)),
        _ => return format!("{first}-{last}"),
    };
    match (subnets.next(), subnets.next()) {
        (Some(one), None) => one.to_string(),
        _ => format!("{first}-{last}"),
    }
}

/// Tells ports: `any`, `all but 8000/TCP`, or the ranges, whichever is short.
#[must_use]
pub fn ports(ranges: &[PortRange]) -> String {
    let all: Vec<PortRange> =
        Protocol::ALL.map(|protocol| PortRange { protocol, first: 1, last: u16::MAX }).into_iter().collect();
    let (joined, rest) = (joined(ranges), rest(&all, ranges));
    let is_mostly_all = Protocol::ALL.iter().all(|protocol| joined.iter().any(|range| range.protocol == *protocol));
    match (rest.is_empty(), is_mostly_all && rest.len() <= RANGES) {
        (true, _) => "any".into(),
        (false, true) => format!("all but {}", listed(&rest)),
        (false, false) => listed(&joined),
    }
}

fn joined(ranges: &[PortRange]) -> Vec<PortRange> {
    let mut joined: Vec<PortRange> = vec![];
    for range in ranges {
        match joined.last_mut() {
            Some(before) if before.protocol == range.protocol && before.last.checked_add(1) == Some(range.first) => {
                before.last = range.last;
            }
            _ => joined.push(*range),
        }
    }
    joined
}

/// What of some ranges others leave out; those are in order.
fn rest(all: &[PortRange], taken: &[PortRange]) -> Vec<PortRange> {
    let mut left = vec![];
    for PortRange { protocol, first, last } in all.iter().copied() {
        let mut next = Some(first);
        for range in taken.iter().filter(|range| range.protocol == protocol) {
            left.extend(next.filter(|next| *next < range.first).map(|next| PortRange {
                protocol,
                first: next,
                last: range.first.saturating_sub(1),
            }));
            next = range.last.checked_add(1);
        }
        left.extend(next.filter(|next| *next <= last).map(|first| PortRange { protocol, first, last }));
    }
    left
}

fn listed(ranges: &[PortRange]) -> String {
    let told = ranges.iter().take(RANGES).map(|PortRange { protocol, first, last }| {
        if first == last { format!("{first}/{protocol}") } else { format!("{first}-{last}/{protocol}") }
    });
    let told = told.collect::<Vec<_>>().join(", ");
    match ranges.len().checked_sub(RANGES).filter(|more| *more > 0) {
        Some(more) => format!("{told} and {more} more"),
        None => told,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u16, last: u16) -> PortRange {
        PortRange { protocol: Protocol::TCP, first, last }
    }

    #[test]
    fn ports_are_told_shortly() {
        assert_eq!(ports(&[range(1, 79), range(80, 80), range(443, 443)]), "1-80/TCP, 443/TCP");
        let all = Protocol::ALL.map(|protocol| PortRange { protocol, first: 1, last: u16::MAX });
        assert_eq!(ports(&all), "any");
        let [_, udp, sctp] = all;
        assert_eq!(ports(&[range(1, 79), range(81, u16::MAX), udp, sctp]), "all but 80/TCP");
        assert_eq!(
            ports(&[range(1, 79), range(80, 442), range(444, u16::MAX - 1), udp, sctp]),
            "all but 443/TCP, 65535/TCP"
        );
        let many: Vec<PortRange> = (1..7).map(|port| range(port * 10, port * 10)).collect();
        assert_eq!(ports(&many), "10/TCP, 20/TCP, 30/TCP, 40/TCP and 2 more");
    }

    #[test]
    fn addresses_are_told_as_one_range_where_they_are_one() {
        let told = |first: &str, last: &str| {
            addresses(AddressRange { first: first.parse().unwrap(), last: last.parse().unwrap() })
        };
        assert_eq!(told("0.0.0.0", "255.255.255.255"), "0.0.0.0/0");
        assert_eq!(told("10.0.0.0", "10.255.255.255"), "10.0.0.0/8");
        assert_eq!(told("10.0.0.1", "10.0.0.6"), "10.0.0.1-10.0.0.6");
        assert_eq!(told("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), "::/0");
    }
}
