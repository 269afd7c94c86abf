//! What changes between two sets of policies, and how much is reachable.

use fixedbitset::FixedBitSet;

use crate::{
    AddressRange, Analysis, Cuts, Direction, End, Index, Policy, PortRange, Protocol, Reach, Verdict,
    analysis::{Only, Time},
};

/// Most samples of a [`Difference`], each way.
const SAMPLES: usize = 20;

/// How many pairs of pods can talk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Ordered pairs of distinct pods.
    pub pairs: u64,
    /// Those of which the first reaches the second on some port.
    pub reachable: u64,
    /// Those of which the first reaches the second on every port.
    pub open: u64,
}

/// What a change of policies changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    /// What was allowed before and is not any more.
    pub newly_denied: Flows,
    /// What is allowed and was not before.
    pub newly_allowed: Flows,
    /// Pairs, with an end that a policy which goes or comes isolates, that talk as before: on some port, and on the
    /// same ones.
    pub unchanged: u64,
}

/// Pairs of ends that talk on some ports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flows {
    /// Pairs of pods, and of a pod and a range of addresses outside.
    pub pairs: u64,
    /// Some of them, one for each pair of classes.
    pub samples: Vec<Flow>,
}

/// One pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// From whom.
    pub from: Place,
    /// To whom.
    pub to: Place,
    /// On which ports.
    pub ports: Vec<PortRange>,
}

/// One end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A pod, by its place in the list: one of its class.
    Pod(usize),
    /// A range of addresses outside.
    Addresses(AddressRange),
}

/// Some policies are removed and others added, while the rest is kept.
#[derive(Debug)]
pub struct Change<'i> {
    /// What is there before, after, or both.
    both: Analysis<'i>,
    /// Classes that a policy which goes or comes isolates, by direction.
    affected: [FixedBitSet; 2],
}

impl<'i> Change<'i> {
    /// A change of policies on the pods of an index.
    #[must_use]
    pub fn new(index: &'i Index, kept: &[&Policy], removed: &[&Policy], added: &[&Policy]) -> Self {
        let kept = kept.iter().map(|policy| (*policy, None));
        let before = removed.iter().map(|policy| (*policy, Some(Time::Before)));
        let after = added.iter().map(|policy| (*policy, Some(Time::After)));
        let policies: Vec<(&Policy, Only)> = kept.chain(before).chain(after).collect();
        let both = Analysis::of(index, &policies);
        let mut affected = [Direction::Ingress, Direction::Egress].map(|_| FixedBitSet::with_capacity(both.ends()));
        for policy in removed.iter().chain(added) {
            let selected = index.in_namespace(&policy.namespace, &policy.pods);
            let [ingress, egress] = &mut affected;
            for (bits, rules) in [(ingress, &policy.ingress), (egress, &policy.egress)] {
                if rules.is_some() {
                    bits.extend(selected.iter().copied());
                }
            }
        }
        Self { both, affected }
    }

    /// Where ports and addresses are cut.
    #[must_use]
    pub const fn cuts(&self) -> &Cuts {
        self.both.cuts()
    }

    /// Whether a connection was allowed before the change.
    #[must_use]
    pub fn was_allowed(&self, from: End, to: End, port: (Protocol, u16)) -> bool {
        self.verdict_before(from, to, port).allowed
    }

    /// What was decided about a connection before the change. Policies that isolated are not told.
    #[must_use]
    pub fn verdict_before(&self, from: End, to: End, port: (Protocol, u16)) -> Verdict {
        self.both.verdict_at(from, to, port, Time::Before)
    }

    /// What is decided about a connection after the change. Policies are told by their places: first those that are
    /// kept, then those that go, then those that come.
    #[must_use]
    pub fn verdict(&self, from: End, to: End, port: (Protocol, u16)) -> Verdict {
        self.both.verdict(from, to, port)
    }

    /// Of the connections of an end, as [`Analysis::reach`] tells them: those that are newly denied, and those that are
    /// newly allowed.
    #[must_use]
    pub fn of_end(&self, end: usize, direction: Direction) -> [Vec<Reach>; 2] {
        let [before, now] = self.both_times(end, direction);
        let none = FixedBitSet::new();
        [without(&before, &now, &none), without(&now, &before, &none)]
    }

    fn both_times(&self, end: usize, direction: Direction) -> [Vec<Reach>; 2] {
        [Time::Before, Time::After].map(|time| self.both.reach_at(end, direction, time))
    }

    /// What it changes.
    #[must_use]
    pub fn difference(&self) -> Difference {
        let Self { both, affected: [ingress, egress] } = self;
        let mut difference = Difference::default();
        // Pairs with an end whose ingress changes are counted from there.
        let none = FixedBitSet::new();
        for (ends, direction, counted) in [(ingress, Direction::Ingress, &none), (egress, Direction::Egress, ingress)] {
            for end in ends.ones() {
                let [before, now] = self.both_times(end, direction);
                let (lost, gained) = (without(&before, &now, counted), without(&now, &before, counted));
                both.add(&mut difference.newly_denied, (end, direction), &lost);
                both.add(&mut difference.newly_allowed, (end, direction), &gained);
                let (mut same, changed) = (both.others(&before), both.others(lost.iter().chain(&gained)));
                same.difference_with(&changed);
                same.difference_with(counted);
                difference.unchanged = difference.unchanged.saturating_add(both.pairs_with_ranges(end, &same));
            }
        }
        difference
    }
}

impl Analysis<'_> {
    /// How many pairs of pods can talk.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let classes = self.index().classes().len();
        let pods = count(self.index().pods().len());
        let mut totals = Totals { pairs: pods.saturating_mul(pods.saturating_sub(1)), ..Totals::default() };
        for class in 0..classes {
            let mut parts = self.reach(class, Direction::Ingress).into_iter().map(|part| part.ends);
            let Some(first) = parts.next() else { continue };
            let (mut some, mut every) = (first.clone(), first);
            for ends in parts {
                some.union_with(&ends);
                every.intersect_with(&ends);
            }
            let reachable = self.pairs(class, &some);
            totals.reachable = totals.reachable.saturating_add(reachable);
            totals.open = totals.open.saturating_add(if every == some { reachable } else { self.pairs(class, &every) });
        }
        totals
    }

    /// Pairs of pods of a class with other pods of some classes; without the address ranges among the ends.
    fn pairs(&self, class: usize, ends: &FixedBitSet) -> u64 {
        let of = |class: usize| self.index().classes().get(class).map_or(0, |pods| count(pods.len()));
        let own = of(class);
        let others: u64 = ends.ones().take_while(|end| *end < self.index().classes().len()).map(of).sum();
        let itself = if ends.contains(class) { own } else { 0 };
        own.saturating_mul(others).saturating_sub(itself)
    }

    /// As [`Self::pairs`], with those of a pod and a range of addresses.
    fn pairs_with_ranges(&self, class: usize, ends: &FixedBitSet) -> u64 {
        let own = self.index().classes().get(class).map_or(0, |pods| count(pods.len()));
        let ranges = count(ends.ones().filter(|other| *other >= self.index().classes().len()).count());
        self.pairs(class, ends).saturating_add(own.saturating_mul(ranges))
    }

    fn ends(&self) -> usize {
        self.cuts().ends(self.index())
    }

    /// The other ends of some parts.
    fn others<'r>(&self, parts: impl IntoIterator<Item = &'r Reach>) -> FixedBitSet {
        let mut ends = FixedBitSet::with_capacity(self.ends());
        for part in parts {
            ends.union_with(&part.ends);
        }
        ends
    }

    /// Adds pairs of an end.
    fn add(&self, flows: &mut Flows, (end, direction): (usize, Direction), changed: &[Reach]) {
        let some = self.others(changed);
        if some.is_clear() {
            return;
        }
        let own = self.index().classes().get(end).map_or(0, |pods| count(pods.len()));
        flows.pairs = flows.pairs.saturating_add(self.pairs_with_ranges(end, &some));
        for other in some.ones() {
            // A pod always reaches itself.
            let alone = other == end && own == 1;
            if flows.samples.len() >= SAMPLES {
                break;
            }
            if alone {
                continue;
            }
            let ports = changed.iter().filter(|part| part.ends.contains(other)).flat_map(|part| part.ports.ones());
            let mut ports: Vec<PortRange> = ports.filter_map(|port| self.cuts().ports().get(port).copied()).collect();
            ports.sort_unstable();
            let (from, to) = match direction {
                Direction::Ingress => (other, end),
                Direction::Egress => (end, other),
            };
            // The second of a class, where it talks with itself.
            let ends = self.sample(from, 0).zip(self.sample(to, usize::from(from == to)));
            flows.samples.extend(ends.map(|(from, to)| Flow { from, to, ports }));
        }
    }

    fn sample(&self, end: usize, nth: usize) -> Option<Place> {
        let classes = self.index().classes();
        if let Some(pods) = classes.get(end) {
            return pods.get(nth).copied().map(Place::Pod);
        }
        let range = self.cuts().addresses().get(end.saturating_sub(classes.len()));
        range.copied().map(Place::Addresses)
    }
}

/// What is in some and not in others, of ends that were not counted.
fn without(some: &[Reach], others: &[Reach], counted: &FixedBitSet) -> Vec<Reach> {
    let pairs = some.iter().flat_map(|one| others.iter().map(move |other| (one, other)));
    let rest = pairs.map(|(one, other)| {
        let mut ends = one.ends.clone();
        ends.difference_with(&other.ends);
        ends.difference_with(counted);
        Reach { ports: one.ports.intersection(&other.ports).collect(), ends }
    });
    rest.filter(|part| !part.ports.is_clear()).collect()
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
