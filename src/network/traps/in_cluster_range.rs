//! An `ipBlock` that may hold addresses of pods.

use ipnet::IpNet;

use super::{Caught, Looked, Trap, certain};

pub(super) static TRAP: Trap = Trap {
    id: "inClusterRange",
    title: "an ipBlock that may hold addresses of pods means pods or not, depending on the network plug-in",
    find,
};

/// Ranges that clusters number their pods from: RFC 1918, RFC 6598, RFC 4193.
const PRIVATE: [&str; 5] = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"];

fn find(looked: &Looked<'_>) -> Vec<Caught> {
    let private: Vec<IpNet> = PRIVATE.iter().filter_map(|range| range.parse().ok()).collect();
    let overlaps = |text: &str| {
        let range = text.parse::<IpNet>();
        range.is_ok_and(|range| private.iter().any(|it| it.contains(&range) || range.contains(it)))
    };
    let caught = looked.peers().filter_map(|(path, peer)| {
        let block = peer.ip_block.as_ref()?;
        // Who left some of them out has thought of it.
        let is_thought_of = block.except.iter().flatten().any(|except| overlaps(except));
        let detail = format!(
            "{} holds private addresses: name pods by their labels, and leave the ranges of the cluster's pods and \
             Services out with `except`",
            block.cidr
        );
        (overlaps(&block.cidr) && !is_thought_of).then(|| certain(format!("{path}/ipBlock/cidr"), detail))
    });
    caught.collect()
}
