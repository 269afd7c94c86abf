//! From policies to sets of ends.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use fixedbitset::FixedBitSet;

use crate::{
    Cuts, Decided, Direction, Index, Peer, Policy, Ports, Rule, Which,
    analysis::{Bits, Compiled, Lane, Side},
    cuts::holds,
};

/// Lanes with more peers than this are asked one by one.
const NARROW: usize = 64;

/// Both sides while policies are added.
pub(crate) struct Compiler<'i> {
    index: &'i Index,
    cuts: &'i Cuts,
    /// Sets of ends that were made before, and their numbers.
    made: HashMap<Who, (usize, Arc<FixedBitSet>)>,
    /// How many sets of ends there are.
    sets: usize,
    ports: HashMap<FixedBitSet, (usize, Arc<FixedBitSet>)>,
    sides: [Draft; 2],
}

/// Whom a rule names: the same for many policies, and made once. Peers of the policy's own namespace come with it.
type Who = (Option<String>, Vec<Peer>);

/// One side while policies are added.
struct Draft {
    side: Side,
    /// Lanes by the numbers of their peers and of their ports.
    lanes: HashMap<(Option<usize>, Option<usize>), usize>,
}

/// A set, with a number that is equal where it is.
type Numbered = Option<(usize, Arc<FixedBitSet>)>;

/// What one direction of a policy is.
struct Half<'p> {
    policy: &'p Policy,
    place: usize,
    direction: Direction,
    selected: &'p [usize],
}

impl<'i> Compiler<'i> {
    pub(crate) fn new(index: &'i Index, cuts: &'i Cuts) -> Self {
        let sides = [Direction::Ingress, Direction::Egress].map(|direction| Draft::new(index, cuts, direction));
        Self { index, cuts, made: HashMap::new(), sets: 0, ports: HashMap::new(), sides }
    }

    pub(crate) fn add(&mut self, place: usize, policy: &Policy) {
        let selected = self.index.in_namespace(&policy.namespace, &policy.pods);
        for (direction, rules) in [(Direction::Ingress, &policy.ingress), (Direction::Egress, &policy.egress)] {
            let Some(rules) = rules else { continue };
            let half = Half { policy, place, direction, selected: &selected };
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

    fn add_rule(&mut self, half: &Half<'_>, number: usize, rule: &Rule) {
        let decided_by = Decided { policy: half.place, direction: half.direction, rule: Some(number) };
        let peers = rule.peers.as_ref().map(|peers| self.ends(&half.policy.namespace, peers));
        let Some(listed) = &rule.ports else {
            return self.draft(half.direction).allow(decided_by, half.selected, &peers, &None);
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
            self.draft(half.direction).allow(decided_by, half.selected, &peers, &numbers);
        }
    }

    /// A name stands for what the pods of the destination call so: one rule for each number.
    fn add_named(&mut self, half: &Half<'_>, decided_by: Decided, peers: &Numbered, (name, ports): (&str, &Ports)) {
        let mut by_number: BTreeMap<u16, Vec<usize>> = BTreeMap::new();
        for (class, number) in self.index.named(name, ports.protocol) {
            by_number.entry(*number).or_default().push(*class);
        }
        for (number, classes) in by_number {
            let numbers = Some(self.number_ports(self.cuts.within(ports.protocol, (number, number))));
            match half.direction {
                Direction::Ingress => {
                    let selected: Vec<usize> =
                        half.selected.iter().copied().filter(|class| classes.contains(class)).collect();
                    self.draft(Direction::Ingress).allow(decided_by, &selected, peers, &numbers);
                }
                Direction::Egress => {
                    let mut named = FixedBitSet::with_capacity(self.ends_in_all());
                    named.extend(classes);
                    if let Some((_, peers)) = peers {
                        named.intersect_with(peers);
                    }
                    let named = Some((self.next(), Arc::new(named)));
                    self.draft(Direction::Egress).allow(decided_by, half.selected, &named, &numbers);
                }
            }
        }
    }

    /// A number for a set of ends.
    const fn next(&mut self) -> usize {
        self.sets = self.sets.saturating_add(1);
        self.sets
    }

    fn ends_in_all(&self) -> usize {
        self.index.classes().len().saturating_add(self.cuts.addresses().len())
    }

    fn number_ports(&mut self, ports: FixedBitSet) -> (usize, Arc<FixedBitSet>) {
        let number = self.ports.len();
        self.ports.entry(ports).or_insert_with_key(|ports| (number, Arc::new(ports.clone()))).clone()
    }

    /// The ends that peers are, made once.
    fn ends(&mut self, namespace: &str, peers: &[Peer]) -> (usize, Arc<FixedBitSet>) {
        let own = peers.iter().any(|peer| matches!(peer, Peer::Pods { namespaces: None, .. }));
        let who = (own.then(|| namespace.to_owned()), peers.to_vec());
        if let Some(made) = self.made.get(&who) {
            return made.clone();
        }
        let mut ends = FixedBitSet::with_capacity(self.ends_in_all());
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
        let (classes, ranges) = (index.classes().len(), cuts.addresses().len());
        let mut open = FixedBitSet::with_capacity(classes.saturating_add(ranges));
        open.insert_range(..);
        let side = Side {
            direction,
            narrow: vec![vec![]; open.len()],
            open,
            isolating: vec![vec![]; classes],
            rules: vec![],
            about: vec![vec![]; classes],
            lanes: vec![],
            wide: vec![],
        };
        Self { side, lanes: HashMap::new() }
    }

    fn isolate(&mut self, half: &Half<'_>) {
        for class in half.selected {
            self.side.open.set(*class, false);
            push(&mut self.side.isolating, *class, half.place);
        }
    }

    fn allow(&mut self, decided_by: Decided, selected: &[usize], peers: &Numbered, ports: &Numbered) {
        let number = |set: &Numbered| set.as_ref().map(|(number, _)| *number);
        let bits = |set: &Numbered| -> Bits { set.as_ref().map(|(_, bits)| Arc::clone(bits)) };
        let place = self.side.rules.len();
        self.side.rules.push(Compiled { decided_by, peers: bits(peers), ports: bits(ports) });
        let key = (number(peers), number(ports));
        let lane = *self.lanes.entry(key).or_insert_with(|| {
            let selected = FixedBitSet::with_capacity(self.side.open.len());
            self.side.lanes.push(Lane { selected, peers: bits(peers), ports: bits(ports) });
            self.side.lanes.len().saturating_sub(1)
        });
        for class in selected {
            push(&mut self.side.about, *class, place);
        }
        if let Some(lane) = self.side.lanes.get_mut(lane) {
            lane.selected.extend(selected.iter().copied());
        }
    }

    fn finish(mut self) -> Side {
        for (number, lane) in self.side.lanes.iter().enumerate() {
            match &lane.peers {
                Some(peers) if peers.count_ones(..) <= NARROW => {
                    for end in peers.ones() {
                        push(&mut self.side.narrow, end, number);
                    }
                }
                _ => self.side.wide.push(number),
            }
        }
        self.side
    }
}

fn push(lists: &mut [Vec<usize>], place: usize, item: usize) {
    if let Some(list) = lists.get_mut(place) {
        list.push(item);
    }
}
