//! Ports and addresses, cut where policies tell them apart: what lies between two cuts is treated alike.

use std::{collections::BTreeSet, net::IpAddr};

use fixedbitset::FixedBitSet;
use ipnet::IpNet;

use crate::{Index, Peer, Policy, Ports, Protocol, Which};

/// A range of ports that are treated alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortRange {
    /// The protocol.
    pub protocol: Protocol,
    /// The first port.
    pub first: u16,
    /// The last port.
    pub last: u16,
}

/// A range of addresses that are treated alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AddressRange {
    /// The first address.
    pub first: IpAddr,
    /// The last address.
    pub last: IpAddr,
}

impl AddressRange {
    /// The address before it, in its family; `None` where it begins with the first.
    #[must_use]
    pub fn before(&self) -> Option<IpAddr> {
        before(self.first)
    }

    /// The address after it, in its family; `None` where it ends with the last.
    #[must_use]
    pub fn after(&self) -> Option<IpAddr> {
        after(self.last)
    }
}

/// Where ports and addresses are cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cuts {
    ports: Vec<PortRange>,
    addresses: Vec<AddressRange>,
}

impl Cuts {
    /// Where some policies tell ports and addresses apart.
    pub(crate) fn of<'p>(index: &Index, policies: impl Iterator<Item = &'p Policy>) -> Self {
        let (mut ports, mut addresses) = (BTreeSet::new(), BTreeSet::new());
        for protocol in Protocol::ALL {
            ports.insert((protocol, 1));
        }
        for rule in policies.flat_map(Policy::rules) {
            for listed in rule.ports.iter().flatten() {
                for (first, last) in index.numbers(listed) {
                    ports.insert((listed.protocol, first));
                    ports.extend(last.checked_add(1).map(|next| (listed.protocol, next)));
                }
            }
            for peer in rule.peers.iter().flatten() {
                let Peer::Addresses { cidr, except } = peer else { continue };
                for range in std::iter::once(cidr).chain(except) {
                    addresses.insert(range.network());
                    addresses.extend(after(range.broadcast()));
                }
            }
        }
        Self { ports: port_ranges(&ports), addresses: address_ranges(addresses) }
    }

    /// The ranges of ports, in order.
    #[must_use]
    pub fn ports(&self) -> &[PortRange] {
        &self.ports
    }

    /// The ranges of addresses, in order.
    #[must_use]
    pub fn addresses(&self) -> &[AddressRange] {
        &self.addresses
    }

    /// How many ends there are: classes of pods, and ranges of addresses.
    pub(crate) fn ends(&self, index: &Index) -> usize {
        index.classes().len().saturating_add(self.addresses.len())
    }

    /// The place of the range that holds a port.
    pub(crate) fn port(&self, protocol: Protocol, port: u16) -> Option<usize> {
        self.ports.iter().position(|it| it.protocol == protocol && (it.first..=it.last).contains(&port))
    }

    /// The place of the range that holds an address.
    pub(crate) fn address(&self, address: IpAddr) -> Option<usize> {
        self.addresses
            .iter()
            .position(|it| is_same_family(it.first, address) && (it.first..=it.last).contains(&address))
    }

    /// The ranges that lie in given ports.
    pub(crate) fn within(&self, protocol: Protocol, (first, last): (u16, u16)) -> FixedBitSet {
        let mut bits = FixedBitSet::with_capacity(self.ports.len());
        let inside = |it: &PortRange| it.protocol == protocol && first <= it.first && it.last <= last;
        bits.extend(self.ports.iter().enumerate().filter(|(_, it)| inside(it)).map(|(place, _)| place));
        bits
    }
}

impl Policy {
    /// Its rules, of both directions.
    pub(crate) fn rules(&self) -> impl Iterator<Item = &crate::Rule> {
        self.ingress.iter().chain(&self.egress).flatten()
    }
}

impl Index {
    /// First and last of ports; for a name, what any pod calls so.
    fn numbers(&self, ports: &Ports) -> impl Iterator<Item = (u16, u16)> {
        let (range, name) = match &ports.which {
            Which::Numbers(first, last) => (Some((*first, *last)), None),
            Which::Named(name) => (None, Some(name)),
        };
        let named = name.into_iter().flat_map(|name| self.named(name, ports.protocol));
        range.into_iter().chain(named.map(|(number, _)| (number, number)))
    }
}

/// Whether a range of addresses, but for what is left out, holds one.
pub(crate) fn holds(cidr: &IpNet, except: &[IpNet], address: &IpAddr) -> bool {
    cidr.contains(address) && !except.iter().any(|inner| inner.contains(address))
}

const fn is_same_family(one: IpAddr, other: IpAddr) -> bool {
    one.is_ipv4() == other.is_ipv4()
}

fn port_ranges(starts: &BTreeSet<(Protocol, u16)>) -> Vec<PortRange> {
    let ends = starts.iter().skip(1).map(Some).chain([None]);
    let range = |(&(protocol, first), next): (&(Protocol, u16), Option<&(Protocol, u16)>)| {
        let next = next.filter(|(other, _)| *other == protocol);
        PortRange { protocol, first, last: next.map_or(u16::MAX, |(_, next)| next.saturating_sub(1)) }
    };
    starts.iter().zip(ends).map(range).collect()
}

fn after(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => address.to_bits().checked_add(1).map(|bits| IpAddr::V4(bits.into())),
        IpAddr::V6(address) => address.to_bits().checked_add(1).map(|bits| IpAddr::V6(bits.into())),
    }
}

fn before(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => address.to_bits().checked_sub(1).map(|bits| IpAddr::V4(bits.into())),
        IpAddr::V6(address) => address.to_bits().checked_sub(1).map(|bits| IpAddr::V6(bits.into())),
    }
}

fn address_ranges(mut starts: BTreeSet<IpAddr>) -> Vec<AddressRange> {
    let (v4, v6) = (IpAddr::V4(0.into()), IpAddr::V6(0.into()));
    starts.extend([v4, v6]);
    let ends = starts.iter().skip(1).map(Some).chain([None]);
    let range = |(first, next): (&IpAddr, Option<&IpAddr>)| {
        let last_of_all = if first.is_ipv4() { IpAddr::V4(u32::MAX.into()) } else { IpAddr::V6(u128::MAX.into()) };
        let next = next.filter(|next| is_same_family(**next, *first));
        AddressRange { first: *first, last: next.and_then(|next| before(*next)).unwrap_or(last_of_all) }
    };
    starts.iter().zip(ends).map(range).collect()
}
