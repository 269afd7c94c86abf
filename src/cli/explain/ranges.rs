//! Addresses outside of the cluster, told shortly.

use std::net::IpAddr;

use rampart_reach::AddressRange;
use serde::Serialize;

use super::crowd::{NAMES, cut};
use crate::network::addresses;

/// A range of addresses.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct Range {
    /// `10.0.0.0/8`, or `10.0.0.1-10.0.0.6` where it has no such form.
    range: String,
    /// What is left out of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    except: Vec<String>,
}

/// Words for ranges of addresses: `every address outside`, or the ranges.
pub(super) fn outside(ranges: &[Range]) -> Option<String> {
    let told = |Range { range, except }: &Range| match except.as_slice() {
        [] => range.clone(),
        except => format!("{range} (but {})", except.join(", ")),
    };
    let words: Vec<String> = ranges.iter().map(told).collect();
    match words.as_slice() {
        [] => None,
        [v4, v6] if v4 == V4 && v6 == V6 => Some("every address outside".into()),
        _ => Some(format!("outside: {}", cut(words, "more ranges").join(", "))),
    }
}

const V4: &str = "0.0.0.0/0";
const V6: &str = "::/0";

/// Ranges of addresses, as few as can be: by what is left out of a family, where it is most of it.
pub(super) fn merged(ranges: &[AddressRange]) -> Vec<Range> {
    let mut merged = vec![];
    for (all, is_family) in [(V4, IpAddr::is_ipv4 as fn(&IpAddr) -> bool), (V6, IpAddr::is_ipv6)] {
        let own = joined(ranges.iter().filter(|range| is_family(&range.first)).copied());
        let gaps = gaps(&own);
        let is_wide =
            own.iter().any(|range| range.before().is_none()) && own.iter().any(|range| range.after().is_none());
        if is_wide && gaps.len() <= NAMES {
            merged.push(Range { range: all.to_owned(), except: gaps.into_iter().map(addresses).collect() });
        } else {
            merged.extend(own.into_iter().map(|range| Range { range: addresses(range), except: vec![] }));
        }
    }
    merged
}

/// Neighbours as one.
fn joined(ranges: impl Iterator<Item = AddressRange>) -> Vec<AddressRange> {
    let mut ranges: Vec<AddressRange> = ranges.collect();
    ranges.sort_unstable();
    let mut joined: Vec<AddressRange> = vec![];
    for range in ranges {
        match joined.last_mut() {
            Some(before) if before.after() == Some(range.first) => before.last = range.last,
            _ => joined.push(range),
        }
    }
    joined
}

/// What lies between ranges of one family, which are in order.
fn gaps(ranges: &[AddressRange]) -> Vec<AddressRange> {
    let between = |(one, other): (&AddressRange, &AddressRange)| {
        Some(AddressRange { first: one.after()?, last: other.before()? })
    };
    ranges.iter().zip(ranges.iter().skip(1)).filter_map(between).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: &str, last: &str) -> AddressRange {
        AddressRange { first: first.parse().unwrap(), last: last.parse().unwrap() }
    }

    #[test]
    fn addresses_are_told_by_what_is_left_out_where_that_is_short() {
        let told = |ranges: &[AddressRange]| outside(&merged(ranges)).unwrap_or_default();
        let (v4, v6) = (range("0.0.0.0", "255.255.255.255"), range("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"));
        assert_eq!(told(&[v4, v6]), "every address outside");
        let around = [range("0.0.0.0", "9.255.255.255"), range("11.0.0.0", "255.255.255.255"), v6];
        assert_eq!(told(&around), "outside: 0.0.0.0/0 (but 10.0.0.0/8), ::/0");
        let neighbours = [range("10.0.0.0", "10.127.255.255"), range("10.128.0.0", "10.255.255.255")];
        assert_eq!(told(&neighbours), "outside: 10.0.0.0/8");
        assert_eq!(told(&[range("0.0.0.0", "9.255.255.255")]), "outside: 0.0.0.0-9.255.255.255");
        assert_eq!(
            told(&[range("0.0.0.0", "0.0.0.0"), range("10.0.0.0", "10.0.0.1")]),
            "outside: 0.0.0.0/32, 10.0.0.0/31"
        );
        assert_eq!(told(&[]), "");
    }
}
