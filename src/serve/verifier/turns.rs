//! Turns of those who are slow: there are few, and no address has more than half of them. Who is not slow takes none.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    net::IpAddr,
};

use parking_lot::Mutex;

use super::super::connections::share;

/// So many turns, and how many of them each address has.
pub(super) struct Turns {
    bound: u16,
    taken: Mutex<BTreeMap<IpAddr, u16>>,
}

impl Turns {
    pub(super) const fn new(bound: u16) -> Self {
        Self { bound, taken: Mutex::new(BTreeMap::new()) }
    }

    /// A turn; none where all are taken, or the address has its share.
    pub(super) fn take(&self, peer: IpAddr) -> Option<Turn<'_>> {
        let peer = peer.to_canonical();
        let mut taken = self.taken.lock();
        let all: u16 = taken.values().sum();
        let own = taken.get(&peer).copied().unwrap_or_default();
        if all >= self.bound || own >= share(self.bound) {
            return None;
        }
        taken.insert(peer, own + 1);
        Some(Turn { turns: self, peer })
    }
}

/// A turn, which is another one's once it is dropped.
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    peer: IpAddr,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut taken = self.turns.taken.lock();
        if let Entry::Occupied(mut own) = taken.entry(self.peer) {
            *own.get_mut() -= 1;
            if *own.get() == 0 {
                own.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn no_address_takes_more_than_half_of_them() {
        let turns = Turns::new(4);
        let [one, other, third] = [1, 2, 3].map(|last| Ipv4Addr::new(192, 0, 2, last));
        let take = |address: Ipv4Addr| turns.take(address.into());
        let mapped = || turns.take(one.to_ipv6_mapped().into());
        let ones = [take(one), mapped()];
        assert!(ones.iter().all(Option::is_some));
        assert!(take(one).is_none() && mapped().is_none(), "it has its share, however it is written");
        let others = [take(other), take(third)];
        assert!(others.iter().all(Option::is_some), "others have turns");
        assert!(take(other).is_none(), "until all are taken");
        drop(ones);
        assert!(take(other).is_some());
        drop(others);
        assert!(turns.taken.lock().is_empty(), "who has none is forgotten");
    }
}
