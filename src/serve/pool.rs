//! What there is little of, for all who ask together: turns of those who are slow, room for large bodies. No address
//! has more of it than its share. Who needs none takes none, and meets no lock.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    net::IpAddr,
};

use parking_lot::Mutex;

/// So much of it, and how much of that one address may have.
#[derive(Debug)]
pub(super) struct Pool {
    all: usize,
    share: usize,
    taken: Mutex<Taken>,
}

/// What is taken, and by whom.
#[derive(Debug)]
struct Taken {
    all: usize,
    of: BTreeMap<IpAddr, usize>,
}

impl Pool {
    pub(super) const fn new(all: usize, share: usize) -> Self {
        Self { all, share, taken: Mutex::new(Taken { all: 0, of: BTreeMap::new() }) }
    }

    /// So much of it; nothing where that is not left, or were more than the share of the address.
    pub(super) fn take(&self, peer: IpAddr, amount: usize) -> Option<Part<'_>> {
        let peer = peer.to_canonical();
        let mut taken = self.taken.lock();
        let all = taken.all.checked_add(amount).filter(|all| *all <= self.all)?;
        let own = taken.of.get(&peer).copied().unwrap_or_default();
        let own = own.checked_add(amount).filter(|own| *own <= self.share)?;
        taken.all = all;
        taken.of.insert(peer, own);
        Some(Part { pool: self, peer, amount })
    }

    /// What nobody has.
    #[cfg(test)]
    pub(super) fn left(&self) -> usize {
        self.all - self.taken.lock().all
    }
}

/// A part of it, which is another one's once it is dropped.
#[derive(Debug)]
pub(super) struct Part<'a> {
    pool: &'a Pool,
    peer: IpAddr,
    amount: usize,
}

impl Drop for Part<'_> {
    fn drop(&mut self) {
        let mut taken = self.pool.taken.lock();
        taken.all -= self.amount;
        if let Entry::Occupied(mut own) = taken.of.entry(self.peer) {
            *own.get_mut() -= self.amount;
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
    fn no_address_takes_more_than_its_share() {
        let pool = Pool::new(4, 2);
        let [one, other, third] = [1, 2, 3].map(|last| Ipv4Addr::new(192, 0, 2, last));
        let take = |address: Ipv4Addr| pool.take(address.into(), 1);
        let mapped = || pool.take(one.to_ipv6_mapped().into(), 1);
        let ones = [take(one), mapped()];
        assert!(ones.iter().all(Option::is_some));
        assert!(take(one).is_none() && mapped().is_none(), "it has its share, however it is written");
        let others = [take(other), take(third)];
        assert!(others.iter().all(Option::is_some), "there is some for others");
        assert!(take(other).is_none(), "until all is taken");
        drop(ones);
        assert!(take(other).is_some());
        drop(others);
        assert_eq!(pool.left(), 4);
        assert!(pool.taken.lock().of.is_empty(), "who has none is forgotten");
    }

    #[test]
    fn what_is_too_much_takes_nothing() {
        let pool = Pool::new(4, 3);
        let [one, other] = [1, 2].map(|last| Ipv4Addr::new(192, 0, 2, last).into());
        let [too_much, overflows] = [4, usize::MAX].map(|amount| pool.take(one, amount));
        assert!(too_much.is_none() && overflows.is_none() && pool.left() == 4);
        let own = pool.take(one, 3);
        assert!(own.is_some() && pool.take(other, 2).is_none() && pool.take(one, usize::MAX).is_none());
        assert_eq!(pool.left(), 1);
        assert!(pool.take(other, 1).is_some());
    }
}
