//! What every way to share work out promises, whatever its medium: each piece is done once, every living node has its share, and a dead
//! node's share goes to the others.

use std::collections::BTreeMap;

use volt_engine::NodeId;

use super::spool::dispatch::{Sight, give};
use super::spool::item::ItemName;
use super::{Candidate, Strategy, choose, queue};
use crate::world::Random;
use crate::world::simulated::SimulatedRandom;

/// Pieces of work of each try.
const PIECES: u64 = 6_000;
const NODES: [NodeId; 3] = [1, 2, 3];

/// A way to share work out.
trait Medium {
    fn name(&self) -> &'static str;
    /// Shares pieces out among these nodes: who did each, as often as it was done.
    fn share(&mut self, pieces: u64, nodes: &[NodeId]) -> Vec<(u64, NodeId)>;
}

/// Over the network: who has the piece asks the node that the strategy chooses.
struct Routed {
    strategy: Strategy,
    random: SimulatedRandom,
    turn: u64,
}

impl Medium for Routed {
    fn name(&self) -> &'static str {
        self.strategy.name()
    }

    fn share(&mut self, pieces: u64, nodes: &[NodeId]) -> Vec<(u64, NodeId)> {
        let candidates: Vec<Candidate> = nodes.iter().map(candidate).collect();
        let one = |piece| {
            self.turn += 1;
            let place = choose(self.strategy, &candidates, self.turn, self.random.next_u64());
            place.map(|place| (piece, candidates[place].node))
        };
        (0..pieces).filter_map(one).collect()
    }
}

/// Through a table: every node looks at every row, and takes those for which it finds itself named.
struct Queued {
    strategy: Strategy,
    next: i64,
}

impl Medium for Queued {
    fn name(&self) -> &'static str {
        self.strategy.name()
    }

    fn share(&mut self, pieces: u64, nodes: &[NodeId]) -> Vec<(u64, NodeId)> {
        let candidates: Vec<Candidate> = nodes.iter().map(candidate).collect();
        let mut done = Vec::new();
        for piece in 0..pieces {
            self.next += 1;
            let takes = |node: &&NodeId| queue::named(self.strategy, &candidates, self.next) == Some(**node);
            done.extend(nodes.iter().filter(takes).map(|node| (piece, *node)));
        }
        done
    }
}

/// Through a directory: one node gives files to all, as they have room.
struct Spooled {
    strategy: Strategy,
    random: SimulatedRandom,
    turn: u64,
}

impl Medium for Spooled {
    fn name(&self) -> &'static str {
        self.strategy.name()
    }

    fn share(&mut self, pieces: u64, nodes: &[NodeId]) -> Vec<(u64, NodeId)> {
        let mut sight = Sight {
            present: nodes.iter().map(candidate).collect(),
            // Node 9 is gone, and has some.
            in_hand: BTreeMap::from([(9, (0..3).filter_map(file).collect())]),
            ..Sight::default()
        };
        let mut done = Vec::new();
        for piece in 3..pieces {
            sight.waiting.extend(file(piece));
            if sight.waiting.len() < 10 && piece + 1 < pieces {
                continue;
            }
            // Whoever has files is done with them before the next round.
            while !sight.waiting.is_empty() {
                let mut draw = || self.random.next_u64();
                let given = give(&sight, self.strategy, &mut self.turn, 1, &mut draw);
                for given in given {
                    sight.waiting.retain(|item| *item != given.was);
                    sight.in_hand.entry(9).or_default().retain(|item| *item != given.was);
                    done.extend(
                        given
                            .item
                            .dropped
                            .split('.')
                            .next()
                            .and_then(|piece| Some((piece.parse().ok()?, given.to))),
                    );
                }
            }
        }
        done
    }
}

fn file(piece: u64) -> Option<ItemName> {
    ItemName::parse(&format!("{piece}.t.csv"))
}

fn candidate(&node: &NodeId) -> Candidate {
    Candidate {
        node,
        capacity: 100,
        latency_micros: Some(100 * u64::from(node)),
    }
}

fn check(medium: &mut dyn Medium, nodes: &[NodeId]) {
    let done = medium.share(PIECES, nodes);
    let mut times = BTreeMap::new();
    let mut shares = BTreeMap::new();
    for (piece, node) in done {
        *times.entry(piece).or_insert(0) += 1;
        *shares.entry(node).or_insert(0_u64) += 1;
    }
    let name = medium.name();
    assert_eq!(times.len() as u64, PIECES, "{name}: every piece");
    assert!(times.values().all(|&times| times == 1), "{name}: once");
    assert!(
        shares.keys().all(|node| nodes.contains(node)),
        "{name}: nobody else: {shares:?}"
    );
    // The least that a node may have is a tenth of what is even.
    let least = PIECES / nodes.len() as u64 / 10;
    for node in nodes {
        assert!(
            shares.get(node).is_some_and(|&share| share >= least),
            "{name}: {shares:?}"
        );
    }
}

#[test]
fn pieces_happen_once_are_shared_and_pass_from_the_dead_to_the_living() {
    for strategy in Strategy::ALL {
        let mut routed = Routed {
            strategy,
            random: SimulatedRandom::new(7),
            turn: 0,
        };
        let mut spooled = Spooled {
            strategy,
            random: SimulatedRandom::new(7),
            turn: 0,
        };
        let mut queued = Queued { strategy, next: 0 };
        let media: [&mut dyn Medium; 3] = [&mut routed, &mut spooled, &mut queued];
        for medium in media {
            check(medium, &NODES);
            check(medium, &NODES[..2]);
            check(medium, &NODES[2..]);
            check(medium, &NODES);
        }
    }
}
