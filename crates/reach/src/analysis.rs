//! Policies on the pods of a cluster.

use std::sync::Arc;

use fixedbitset::FixedBitSet;

use crate::{Cuts, End, Index, Policy, Protocol, compile::Compiler, lists::Lists};

/// Which way a connection goes, seen from the pods that a policy is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// To them.
    Ingress,
    /// From them.
    Egress,
}

/// What policies allow.
///
/// Its ends are the classes of pods of an [`Index`], and after them the ranges of addresses of [`Cuts`].
#[derive(Debug)]
pub struct Analysis<'i> {
    index: &'i Index,
    cuts: Cuts,
    ingress: Side,
    egress: Side,
}

/// One direction.
#[derive(Debug)]
pub(crate) struct Side {
    pub(crate) direction: Direction,
    /// Ends that nothing isolates, before a change and after it.
    pub(crate) open: [FixedBitSet; 2],
    /// By class, the policies that isolate it.
    pub(crate) isolating: Lists,
    pub(crate) rules: Vec<Compiled>,
    /// By class, the rules that are about it.
    pub(crate) about: Lists,
    /// Rules that allow the same ports with the same peers, in one.
    pub(crate) lanes: Vec<Lane>,
    /// By end, the lanes of which it is a peer; those of very many peers are in `wide`.
    pub(crate) narrow: Lists,
    pub(crate) wide: Vec<usize>,
}

/// Before a change of policies, or after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Time {
    Before,
    After,
}

/// When a policy is there; `None`: before and after.
pub(crate) type Only = Option<Time>;

impl Time {
    pub(crate) fn has(self, only: Only) -> bool {
        only.is_none_or(|only| only == self)
    }
}

/// A rule; a named port makes one for each number that it stands for.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) only: Only,
    pub(crate) decided_by: Decided,
    pub(crate) peers: Bits,
    pub(crate) ports: Bits,
}

#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) only: Only,
    pub(crate) selected: FixedBitSet,
    pub(crate) peers: Bits,
    pub(crate) ports: Bits,
}

/// A set of ends or of ranges of ports; `None`: all.
pub(crate) type Bits = Option<Arc<FixedBitSet>>;

/// What decides about a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Decided {
    /// The policy, by its place among those that were given.
    pub policy: usize,
    /// The direction that it decides about.
    pub direction: Direction,
    /// The rule that allows, by its place in the policy; `None` where the policy isolates.
    pub rule: Option<usize>,
}

/// Whether a connection is allowed, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it is.
    pub allowed: bool,
    /// The rules that allow it, or the policies that isolate the end where it is denied; none where nothing
    /// isolates either end.
    pub by: Vec<Decided>,
}

/// For some ports, the other ends that a connection may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// Places in [`Cuts::ports`].
    pub ports: FixedBitSet,
    /// Classes, and after them places in [`Cuts::addresses`].
    pub ends: FixedBitSet,
}

impl<'i> Analysis<'i> {
    /// Policies on the pods of an index.
    #[must_use]
    pub fn new(index: &'i Index, policies: &[Policy]) -> Self {
        let policies: Vec<(&Policy, Only)> = policies.iter().map(|policy| (policy, None)).collect();
        Self::of(index, &policies)
    }

    /// Both sides of a change at once: most policies are on both.
    pub(crate) fn of(index: &'i Index, policies: &[(&Policy, Only)]) -> Self {
        let cuts = Cuts::of(index, policies.iter().map(|(policy, _)| *policy));
        let mut compiler = Compiler::new(index, &cuts);
        for (place, (policy, only)) in policies.iter().enumerate() {
            compiler.add(place, policy, *only);
        }
        let [ingress, egress] = compiler.finish();
        Self { index, cuts, ingress, egress }
    }

    /// The pods.
    #[must_use]
    pub const fn index(&self) -> &'i Index {
        self.index
    }

    /// Where ports and addresses are cut.
    #[must_use]
    pub const fn cuts(&self) -> &Cuts {
        &self.cuts
    }

    fn place(&self, end: End) -> Option<usize> {
        match end {
            End::Pod(pod) => self.index.class_of(pod),
            End::Address(address) => Some(self.index.classes().len().saturating_add(self.cuts.address(address)?)),
        }
    }

    /// Whether a connection is allowed. One of a pod with itself always is, and port 0 is none.
    #[must_use]
    pub fn verdict(&self, from: End, to: End, port: (Protocol, u16)) -> Verdict {
        self.verdict_at(from, to, port, Time::After)
    }

    /// Before a change, policies that isolate are not named.
    pub(crate) fn verdict_at(&self, from: End, to: End, (protocol, port): (Protocol, u16), time: Time) -> Verdict {
        if from == to {
            return Verdict { allowed: true, by: vec![] };
        }
        let places = (self.place(from), self.place(to), self.cuts.port(protocol, port));
        let (Some(from), Some(to), Some(port)) = places else { return Verdict { allowed: false, by: vec![] } };
        let (out, into) = (self.egress.decide(from, to, port, time), self.ingress.decide(to, from, port, time));
        let allowed = out.allowed && into.allowed;
        // Who denies is named, not who would allow.
        let by = [out, into].into_iter().filter(|side| allowed || !side.allowed).flat_map(|side| side.by);
        Verdict { allowed, by: by.collect() }
    }

    /// The policies that isolate the pods of a class in a direction, by their places.
    #[must_use]
    pub fn isolated_by(&self, class: usize, direction: Direction) -> &[usize] {
        let side = match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        };
        side.isolating.get(class)
    }

    /// For an end (a class, or after the classes a range of addresses), the other ends of its connections that
    /// are allowed: who reaches it for [`Direction::Ingress`], whom it reaches for [`Direction::Egress`]; the
    /// parts differ in ports. That a pod reaches itself is not in it.
    #[must_use]
    pub fn reach(&self, end: usize, direction: Direction) -> Vec<Reach> {
        self.reach_at(end, direction, Time::After)
    }

    pub(crate) fn reach_at(&self, end: usize, direction: Direction, time: Time) -> Vec<Reach> {
        let (own, other) = match direction {
            Direction::Ingress => (&self.ingress, &self.egress),
            Direction::Egress => (&self.egress, &self.ingress),
        };
        let rules = own.about.get(end).iter().filter_map(|rule| own.rules.get(*rule));
        let rules: Vec<&Compiled> = rules.filter(|it| time.has(it.only)).collect();
        let lanes: Vec<&Lane> = other.with_peer(end).filter(|it| time.has(it.only)).collect();
        let sets = rules.iter().map(|it| &it.ports).chain(lanes.iter().map(|it| &it.ports));
        let parts = parts(self.cuts.ports().len(), sets.flatten().map(|it| &**it));
        let reach = |ports: FixedBitSet| {
            let sample = ports.minimum().unwrap_or_default();
            let has = |of: &Bits| of.as_ref().is_none_or(|it| it.contains(sample));
            let mut ends = other.open(time).clone();
            lanes.iter().filter(|it| has(&it.ports)).for_each(|it| ends.union_with(&it.selected));
            let mut allowed = rules.iter().filter(|it| has(&it.ports));
            if !own.open(time).contains(end) && !allowed.clone().any(|it| it.peers.is_none()) {
                let first = allowed.next().and_then(|it| it.peers.as_deref().cloned());
                let mut peers = first.unwrap_or_else(|| FixedBitSet::with_capacity(ends.len()));
                allowed.filter_map(|it| it.peers.as_deref()).for_each(|more| peers.union_with(more));
                ends.intersect_with(&peers);
            }
            Reach { ports, ends }
        };
        parts.into_iter().map(reach).collect()
    }
}

/// Cuts all ranges of ports into parts which each of some sets holds whole, or not at all.
fn parts<'b>(length: usize, sets: impl Iterator<Item = &'b FixedBitSet>) -> Vec<FixedBitSet> {
    let mut whole = FixedBitSet::with_capacity(length);
    whole.insert_range(..);
    let mut parts = vec![whole];
    for set in sets {
        let mut cut = Vec::with_capacity(parts.len());
        for part in parts {
            let inside = part.intersection(set).count();
            if inside == 0 || inside == part.count_ones(..) {
                cut.push(part);
                continue;
            }
            let mut within = part.clone();
            within.intersect_with(set);
            let mut without = part;
            without.difference_with(set);
            cut.extend([within, without]);
        }
        parts = cut;
    }
    parts
}

impl Side {
    fn open(&self, time: Time) -> &FixedBitSet {
        let [before, after] = &self.open;
        match time {
            Time::Before => before,
            Time::After => after,
        }
    }

    /// What this side says of a connection of an end with another.
    fn decide(&self, end: usize, peer: usize, port: usize, time: Time) -> Verdict {
        if self.open(time).contains(end) {
            return Verdict { allowed: true, by: vec![] };
        }
        let has = |bits: &Bits, place: usize| bits.as_ref().is_none_or(|it| it.contains(place));
        let rules = self.about.get(end).iter().filter_map(|rule| self.rules.get(*rule));
        let mut by: Vec<Decided> = rules
            .filter(|it| time.has(it.only) && has(&it.ports, port) && has(&it.peers, peer))
            .map(|it| it.decided_by)
            .collect();
        let allowed = !by.is_empty();
        if !allowed {
            let direction = self.direction;
            let isolating = self.isolating.get(end).iter();
            by = isolating.map(|policy| Decided { policy: *policy, direction, rule: None }).collect();
        }
        by.sort_unstable();
        by.dedup();
        Verdict { allowed, by }
    }

    /// Lanes that an end is a peer of.
    fn with_peer(&self, end: usize) -> impl Iterator<Item = &Lane> {
        let narrow = self.narrow.get(end).iter().filter_map(|lane| self.lanes.get(*lane));
        let wide = self.wide.iter().filter_map(|lane| self.lanes.get(*lane));
        narrow.chain(wide.filter(move |lane| lane.peers.as_ref().is_none_or(|peers| peers.contains(end))))
    }
}
