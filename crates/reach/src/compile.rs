//! From policies to sets of ends.

use std::{collections::HashMap, sync::Arc};

use fixedbitset::FixedBitSet;

use crate::{
    Cuts, Decided, Direction, Index, Peer, Policy, Ports, Rule, Which,
    analysis::{Bits, Compiled, Lane, Only, Side, Time},
    cuts::holds,
    lists::Lists,
};

/// Lanes with more peers than this are asked one by one.
const NARROW: usize = 64;

/// Both sides while policies are added.
pub(crate) struct Compiler<'i, 'p> {
    index: &'i Index,
    cuts: &'i Cuts,
    /// Sets of ends that were made before, and their numbers.
    made: HashMap<Who<'p>, (usize, Arc<FixedBitSet>)>,
    /// How many sets of ends there are.
    sets: usize,
    ports: HashMap<FixedBitSet, (usize, Arc<FixedBitSet>)>,
    sides: [Draft; 2],
}

/// Whom a rule names: the same for many policies, and made once. Peers of the policy's own namespace come with it.
type Who<'p> = (Option<&'p str>, &'p [Peer]);

/// One side while policies are added.
struct Draft {
    side: Side,
    classes: usize,
    ends: usize,
    /// Classes, and the policies that isolate them.
    isolating: Vec<(usize, usize)>,
    /// Classes, and the rules that are about them.
    about: Vec<(usize, usize)>,
    /// Lanes by the numbers of their peers and of their ports, and when they are there.
    lanes: HashMap<(Option<usize>, Option<usize>, Only), usize>,
}

/// A set, with a number that is equal where it is.
type Numbered = Option<(usize, Arc<FixedBitSet>)>;

/// What one direction of a policy is.
struct Half<'p, 's> {
    policy: &'p Policy,
    place: usize,
    only: Only,
    direction: Direction,
    selected: &'s [usize],
}

impl<'i, 'p> Compiler<'i, 'p> {
    pub(crate) fn new(index: &'i Index, cuts: &'i Cuts) -> Self {
        let sides = [Direction::Ingress, Direction::Egress].map(|direction| Draft::new(index, cuts, direction));
        Self { index, cuts, made: HashMap::new(), sets: 0, ports: HashMap::new(), sides }
    }

    pub(crate) fn add(&mut self, place: usize, policy: &'p Policy, only: Only) {
        let selected = self.index.in_namespace(&policy.namespace, &policy.pods);
        for (direction, rules) in [(Direction::Ingress, &policy.ingress), (Direction::Egress, &policy.egress)] {
            let Some(rules) = rules else { continue };
            let half = Half { policy, place, only, direction, selected: &selected };
            self.draft(direction).isolate(&half);
            for (number, rule) in rules.iter().enumerate() {
                self.add_rule(&half, number, rule);
            }
        }
    }

    pub(crate) fn finish(self) -> [Side; 2] {
        self.sides.map(Draft::finish)
    }

    const fn draft(&mut self, direction: Direction) -> &mut Draft {
        let [ingress, egress] = &mut self.sides;
        match direction {
            Direction::Ingress => ingress,
            Direction::Egress => egress,
        }
    }

    fn add_rule(&mut self, half: &Half<'p, '_>, number: usize, rule: &'p Rule) {
        let decided_by = Decided { policy: half.place, direction: half.direction, rule: Some(number) };
        let peers = rule.peers.as_ref().map(|peers| self.ends(&half.policy.namespace, peers));
        let Some(listed) = &rule.ports else {
            return self.draft(half.direction).allow((decided_by, half.only), half.selected, &peers, &None);
        };
        let mut numbers = FixedBitSet::with_capacity(self.cuts.ports().len());
        for ports in listed {
            match &ports.which {
                Which::Numbers(first, last) => numbers.union_with(&self.cuts.within(ports.protocol, (*first, *last))),
                Which::Named(name) => self.add_named(half, decided_by, &peers, (name, ports)),
            }
        }
        if !numbers.is_clear() {
            let numbers = Some(self.number_ports(numbers));
            self.draft(half.direction).allow((decided_by, half.only), half.selected, &peers, &numbers);
        }
    }

    /// A name stands for what the pods of the destination call so: one rule for each number.
    fn add_named(&mut self, half: &Half<'_, '_>, decided_by: Decided, peers: &Numbered, (name, ports): (&str, &Ports)) {
        let index = self.index;
        for (number, classes) in index.named(name, ports.protocol) {
            let numbers = Some(self.number_ports(self.cuts.within(ports.protocol, (number, number))));
            match half.direction {
                Direction::Ingress => {
                    let selected: Vec<usize> =
                        half.selected.iter().copied().filter(|class| classes.contains(*class)).collect();
                    if !selected.is_empty() {
                        self.draft(Direction::Ingress).allow((decided_by, half.only), &selected, peers, &numbers);
                    }
                }
                Direction::Egress => {
                    let mut named = classes.clone();
                    named.grow(self.cuts.ends(self.index));
                    if let Some((_, peers)) = peers {
                        named.intersect_with(peers);
                    }
                    if named.is_clear() {
                        continue;
                    }
                    let named = Some((self.next(), Arc::new(named)));
                    self.draft(Direction::Egress).allow((decided_by, half.only), half.selected, &named, &numbers);
                }
            }
        }
    }

    /// A number for a set of ends.
    const fn next(&mut self) -> usize {
        self.sets = self.sets.saturating_add(1);
        self.sets
    }

    fn number_ports(&mut self, ports: FixedBitSet) -> (usize, Arc<FixedBitSet>) {
        let number = self.ports.len();
        self.ports.entry(ports).or_insert_with_key(|ports| (number, Arc::new(ports.clone()))).clone()
    }

    /// The ends that peers are, made once.
    fn ends(&mut self, namespace: &'p str, peers: &'p [Peer]) -> (usize, Arc<FixedBitSet>) {
        let own = peers.iter().any(|peer| matches!(peer, Peer::Pods { namespaces: None, .. }));
        let who = (own.then_some(namespace), peers);
        if let Some(made) = self.made.get(&who) {
            return made.clone();
        }
        let mut ends = FixedBitSet::with_capacity(self.cuts.ends(self.index));
        for peer in peers {
            match peer {
                Peer::Pods { namespaces: None, pods } => ends.extend(self.index.in_namespace(namespace, pods)),
                Peer::Pods { namespaces: Some(namespaces), pods } => {
                    ends.union_with(&self.index.anywhere(namespaces, pods));
                }
                Peer::Addresses { cidr, except } => {
                    let held = self.index.addresses().iter().filter(|(address, _)| holds(cidr, except, address));
                    ends.extend(held.map(|(_, class)| *class));
                    let classes = self.index.classes().len();
                    let ranges = self.cuts.addresses().iter().enumerate();
                    let held = ranges.filter(|(_, range)| holds(cidr, except, &range.first));
                    ends.extend(held.map(|(place, _)| classes.saturating_add(place)));
                }
            }
        }
        let made = (self.next(), Arc::new(ends));
        self.made.insert(who, made.clone());
        made
    }
}

impl Draft {
    fn new(index: &Index, cuts: &Cuts, direction: Direction) -> Self {
        let (classes, ends) = (index.classes().len(), cuts.ends(index));
        let mut open = FixedBitSet::with_capacity(ends);
        open.insert_range(..);
        let side = Side {
            direction,
            open: [open.clone(), open],
            isolating: Lists::default(),
            rules: vec![],
            about: Lists::default(),
            lanes: vec![],
            narrow: Lists::default(),
            wide: vec![],
        };
        Self { side, classes, ends, isolating: vec![], about: vec![], lanes: HashMap::new() }
    }

    fn isolate(&mut self, half: &Half<'_, '_>) {
        for (open, time) in self.side.open.iter_mut().zip([Time::Before, Time::After]) {
            half.selected.iter().filter(|_| time.has(half.only)).for_each(|class| open.set(*class, false));
        }
        if Time::After.has(half.only) {
            self.isolating.extend(half.selected.iter().map(|class| (*class, half.place)));
        }
    }

    fn allow(&mut self, (decided_by, only): (Decided, Only), selected: &[usize], peers: &Numbered, ports: &Numbered) {
        let number = |set: &Numbered| set.as_ref().map(|(number, _)| *number);
        let bits = |set: &Numbered| -> Bits { set.as_ref().map(|(_, bits)| Arc::clone(bits)) };
        let place = self.side.rules.len();
        self.side.rules.push(Compiled { only, decided_by, peers: bits(peers), ports: bits(ports) });
        let key = (number(peers), number(ports), only);
        let lane = *self.lanes.entry(key).or_insert_with(|| {
            let selected = FixedBitSet::with_capacity(self.ends);
            self.side.lanes.push(Lane { only, selected, peers: bits(peers), ports: bits(ports) });
            self.side.lanes.len().saturating_sub(1)
        });
        self.about.extend(selected.iter().map(|class| (*class, place)));
        if let Some(lane) = self.side.lanes.get_mut(lane) {
            lane.selected.extend(selected.iter().copied());
        }
    }

    fn finish(mut self) -> Side {
        let mut narrow = vec![];
        for (number, lane) in self.side.lanes.iter().enumerate() {
            match &lane.peers {
                Some(peers) if peers.count_ones(..) <= NARROW => narrow.extend(peers.ones().map(|end| (end, number))),
                _ => self.side.wide.push(number),
            }
        }
        self.side.narrow = Lists::new(self.ends, &narrow);
        self.side.isolating = Lists::new(self.classes, &self.isolating);
        self.side.about = Lists::new(self.classes, &self.about);
        self.side
    }
}
