//! Who must come before whom, and the cycles in it.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

/// Why one comes before another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// The other's value follows the one's in the same list.
    WriteWrite(u64),
    /// The other read what the one wrote.
    WriteRead(u64),
    /// The one read a list, without what the other wrote (anti-dependency).
    ReadWrite(u64),
    /// The one read a predicate, without what the other inserted.
    ReadInsert(u64),
    /// The one had ended when the other began.
    RealTime,
    /// A snapshot and the commit of the same transaction.
    Within,
}

impl Edge {
    fn is_anti_dependency(self) -> bool {
        matches!(self, Self::ReadWrite(_) | Self::ReadInsert(_))
    }
}

/// The phenomena of Adya (1999), the weakest promise that forbids it first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phenomenon {
    /// Writes alone.
    G0,
    /// Writes and reads of them.
    G1c,
    /// With one anti-dependency.
    GSingle,
    /// With several, of single objects.
    G2Item,
    /// With several, one of them of a predicate.
    G2,
}

const PHENOMENA: [Phenomenon; 5] = [
    Phenomenon::G0,
    Phenomenon::G1c,
    Phenomenon::GSingle,
    Phenomenon::G2Item,
    Phenomenon::G2,
];

impl Phenomenon {
    /// The edge that such a cycle is looked for from.
    fn begins_with(self, edge: Edge) -> bool {
        match self {
            Self::G0 => matches!(edge, Edge::WriteWrite(_)),
            Self::G1c => matches!(edge, Edge::WriteRead(_)),
            Self::GSingle => edge.is_anti_dependency(),
            Self::G2Item => matches!(edge, Edge::ReadWrite(_)),
            Self::G2 => matches!(edge, Edge::ReadInsert(_)),
        }
    }

    /// Whether the rest of the cycle may go over it.
    fn goes_over(self, edge: Edge, real_time: bool) -> bool {
        match edge {
            Edge::Within => true,
            Edge::RealTime => real_time,
            Edge::WriteWrite(_) => true,
            Edge::WriteRead(_) => self != Self::G0,
            Edge::ReadWrite(_) => matches!(self, Self::G2Item | Self::G2),
            Edge::ReadInsert(_) => self == Self::G2,
        }
    }
}

/// Transactions that each come before the next, and the last before the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cycle {
    /// What it is.
    pub phenomenon: Phenomenon,
    /// It needs the order of real time: without it the history would be serialisable, as far as this cycle goes.
    pub real_time: bool,
    /// Each transaction (its place in the history) and why it comes before the next.
    pub steps: Vec<(usize, Edge)>,
}

impl Cycle {
    /// What people call it.
    pub fn name(&self) -> &'static str {
        let of = |wanted: fn(Edge) -> Option<u64>| self.steps.iter().find_map(move |(_, edge)| wanted(*edge));
        let unseen = of(|edge| match edge {
            Edge::ReadWrite(object) => Some(object),
            _ => None,
        });
        let is_overwritten = self.steps.iter().any(|(_, edge)| match edge {
            Edge::WriteWrite(object) => unseen == Some(*object),
            _ => false,
        });
        match (self.phenomenon, self.real_time) {
            (Phenomenon::G0, _) => "dirty write",
            (Phenomenon::G1c, _) => "circular information flow",
            (Phenomenon::GSingle, true) => "stale read",
            (Phenomenon::GSingle, false) if is_overwritten => "lost update",
            (Phenomenon::GSingle, false) => "fractured read",
            (Phenomenon::G2Item, _) => "write skew",
            (Phenomenon::G2, _) => "phantom",
        }
    }
}

impl fmt::Display for Cycle {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let suffix = if self.real_time { "-realtime" } else { "" };
        write!(to, "{:?}{suffix} ({}):", self.phenomenon, self.name())?;
        for (transaction, edge) in &self.steps {
            write!(to, " T{transaction} -{edge:?}->")?;
        }
        write!(to, " T{}", self.steps.first().map_or(0, |(first, _)| *first))
    }
}

/// A graph of the moments at which transactions read and write; see [`Graph::new`].
pub struct Graph {
    /// Of each node, where it leads and why.
    edges: Vec<Vec<(usize, Edge)>>,
    transactions: usize,
}

impl Graph {
    /// Nodes `2n` and `2n + 1` are the snapshot and the commit of transaction `n`; the rest are `moments` of the clock.
    pub fn new(transactions: usize, moments: usize) -> Self {
        Self {
            edges: vec![Vec::new(); 2 * transactions + moments],
            transactions,
        }
    }

    /// The node of a moment of the clock.
    pub fn moment(&self, number: usize) -> usize {
        2 * self.transactions + number
    }

    /// One comes before the other.
    pub fn add(&mut self, from: usize, to: usize, edge: Edge) {
        if from != to {
            self.edges[from].push((to, edge));
        }
    }

    /// How many edges there are.
    pub fn size(&self) -> usize {
        self.edges.iter().map(Vec::len).sum()
    }

    /// Of each knot of nodes that lead to each other, the simplest cycle.
    pub fn cycles(&self) -> Vec<Cycle> {
        let component = self.components();
        let mut members: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (node, component) in component.iter().enumerate() {
            members.entry(*component).or_default().push(node);
        }
        let knots = members.values().filter(|nodes| nodes.len() > 1);
        knots
            .map(|nodes| {
                let cycle = self.simplest(nodes, &component);
                cycle.expect("a knot has a cycle, and each cycle is one of the phenomena")
            })
            .collect()
    }

    fn simplest(&self, nodes: &[usize], component: &[usize]) -> Option<Cycle> {
        [false, true].into_iter().find_map(|real_time| {
            PHENOMENA.into_iter().find_map(|phenomenon| {
                let begins = nodes.iter().flat_map(|from| {
                    let edges = self.edges[*from].iter();
                    edges.filter_map(|(to, edge)| phenomenon.begins_with(*edge).then_some((*from, *to, *edge)))
                });
                let cycles = begins.filter_map(|(from, to, edge)| {
                    let allowed =
                        |next: usize, edge| component[next] == component[from] && phenomenon.goes_over(edge, real_time);
                    let mut path = self.shortest(to, from, allowed)?;
                    path.insert(0, (from, edge));
                    Some(path)
                });
                let nodes = cycles.min_by_key(Vec::len)?;
                Some(self.cycle(phenomenon, real_time, &nodes))
            })
        })
    }

    /// Without the clock's own nodes, and without the two halves of one transaction.
    fn cycle(&self, phenomenon: Phenomenon, real_time: bool, nodes: &[(usize, Edge)]) -> Cycle {
        let of_transactions = nodes
            .iter()
            .filter(|(node, edge)| *node < 2 * self.transactions && *edge != Edge::Within);
        let steps = of_transactions.map(|(node, edge)| (node / 2, *edge)).collect();
        Cycle {
            phenomenon,
            real_time,
            steps,
        }
    }

    /// The nodes of a shortest way, each with the edge that leads on, without the last.
    fn shortest(&self, from: usize, to: usize, allowed: impl Fn(usize, Edge) -> bool) -> Option<Vec<(usize, Edge)>> {
        let mut came: BTreeMap<usize, (usize, Edge)> = BTreeMap::new();
        let mut queue = VecDeque::from([from]);
        while let Some(node) = queue.pop_front() {
            if node == to {
                let mut way = Vec::new();
                let mut at = to;
                while at != from {
                    let (before, edge) = came[&at];
                    way.insert(0, (before, edge));
                    at = before;
                }
                return Some(way);
            }
            for (next, edge) in &self.edges[node] {
                if *next != from && allowed(*next, *edge) && !came.contains_key(next) {
                    came.insert(*next, (node, *edge));
                    queue.push_back(*next);
                }
            }
        }
        None
    }

    /// Tarjan's strongly connected components, without recursion: of each node, its component's number.
    fn components(&self) -> Vec<usize> {
        const NONE: usize = usize::MAX;
        let count = self.edges.len();
        let (mut index, mut low) = (vec![NONE; count], vec![NONE; count]);
        let mut component = vec![NONE; count];
        let (mut open, mut next, mut components) = (Vec::new(), 0, 0);
        for root in 0..count {
            if index[root] != NONE {
                continue;
            }
            // (node, how many of its edges are done)
            let mut path = vec![(root, 0)];
            while let Some((node, done)) = path.last_mut() {
                let node = *node;
                if index[node] == NONE {
                    (index[node], low[node]) = (next, next);
                    next += 1;
                    open.push(node);
                }
                if let Some((to, _)) = self.edges[node].get(*done) {
                    *done += 1;
                    if index[*to] == NONE {
                        path.push((*to, 0));
                    } else if component[*to] == NONE {
                        low[node] = low[node].min(index[*to]);
                    }
                    continue;
                }
                path.pop();
                if let Some((before, _)) = path.last() {
                    low[*before] = low[*before].min(low[node]);
                }
                if low[node] == index[node] {
                    while let Some(member) = open.pop() {
                        component[member] = components;
                        if member == node {
                            break;
                        }
                    }
                    components += 1;
                }
            }
        }
        component
    }
}
