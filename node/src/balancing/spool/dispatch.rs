//! Which node gets which file. Pure: what is in the directory, turns and random numbers are arguments.
//!
//! What nodes had that are gone comes first, then what was claimed longest ago, then names in their order. A node has `MAX_IN_HAND` files at
//! most, so that what waits goes to whoever is done first.

use std::collections::BTreeMap;

use volt_engine::NodeId;

use super::MAX_IN_HAND;
use super::item::{ItemId, ItemName};
use crate::balancing::{Candidate, Strategy, choose};

/// What is in the directory.
#[derive(Clone, Debug, Default)]
pub(in crate::balancing) struct Sight {
    /// Files that nobody has.
    pub(in crate::balancing) waiting: Vec<ItemName>,
    /// Files of each node that has ever taken part.
    pub(in crate::balancing) in_hand: BTreeMap<NodeId, Vec<ItemName>>,
    /// Who takes part now.
    pub(in crate::balancing) present: Vec<Candidate>,
}

/// A file that gets another owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::balancing) struct Given {
    /// Whose it was; None: nobody's.
    pub(in crate::balancing) from: Option<NodeId>,
    /// What it was called.
    pub(in crate::balancing) was: ItemName,
    /// What it is called from now on.
    pub(in crate::balancing) item: ItemName,
    /// Whose it is.
    pub(in crate::balancing) to: NodeId,
}

/// Gives what can be given.
pub(in crate::balancing) fn give(
    sight: &Sight,
    strategy: Strategy,
    turn: &mut u64,
    now_seconds: i64,
    draw: &mut dyn FnMut() -> u64,
) -> Vec<Given> {
    let is_present = |node: &NodeId| sight.present.iter().any(|candidate| candidate.node == *node);
    let hands = sight.in_hand.iter();
    let (held, orphaned): (Vec<_>, Vec<_>) = hands.partition(|(node, _)| is_present(node));
    let mut loads: BTreeMap<NodeId, usize> = held.iter().map(|(node, files)| (**node, files.len())).collect();
    let orphans = orphaned
        .into_iter()
        .flat_map(|(node, files)| files.iter().map(move |item| (Some(*node), item)));
    let mut waiting: Vec<_> = sight.waiting.iter().map(|item| (None, item)).collect();
    // Those that were claimed and given back have an identity, and have waited longest.
    waiting.sort_by_key(|(_, item)| (item.id.is_none(), *item));
    let mut given = Vec::new();
    for (from, was) in orphans.chain(waiting) {
        let has_room = |candidate: &&Candidate| loads.get(&candidate.node).is_none_or(|&load| load < MAX_IN_HAND);
        let candidates: Vec<Candidate> = sight.present.iter().filter(has_room).copied().collect();
        let Some(place) = choose(strategy, &candidates, *turn, draw()) else {
            break;
        };
        *turn += 1;
        let to = candidates[place].node;
        *loads.entry(to).or_default() += 1;
        let id = ItemId {
            claimed_at: now_seconds,
            draw: draw(),
        };
        let item = was.identified(id);
        let was = was.clone();
        given.push(Given { from, was, item, to });
    }
    given
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sight(waiting: usize, in_hand: &[(NodeId, usize)], present: &[NodeId]) -> Sight {
        let name = |prefix: &str, number: usize| ItemName::parse(&format!("{prefix}{number}.t.csv")).unwrap();
        let claimed = |node: NodeId, number| {
            name(&format!("held-by-{node}-"), number).identified(ItemId {
                claimed_at: 1,
                draw: number as u64,
            })
        };
        Sight {
            waiting: (0..waiting).map(|number| name("new", number)).collect(),
            in_hand: in_hand
                .iter()
                .map(|&(node, files)| (node, (0..files).map(|number| claimed(node, number)).collect()))
                .collect(),
            present: present
                .iter()
                .map(|&node| Candidate {
                    node,
                    capacity: 100,
                    latency_micros: None,
                })
                .collect(),
        }
    }

    fn given(sight: &Sight) -> Vec<Given> {
        let mut draws = 0;
        let mut draw = || {
            draws += 1;
            draws
        };
        give(sight, Strategy::RoundRobin, &mut 0, 50, &mut draw)
    }

    #[test]
    fn files_go_round_and_nobody_has_too_many() {
        let given = given(&sight(20, &[(1, 0), (2, MAX_IN_HAND), (3, 1)], &[1, 2, 3]));
        let count = |node| given.iter().filter(|given| given.to == node).count();
        assert_eq!((count(1), count(2), count(3)), (MAX_IN_HAND, 0, MAX_IN_HAND - 1));
        let ids: std::collections::BTreeSet<_> = given.iter().map(|given| given.item.id).collect();
        assert_eq!(ids.len(), given.len(), "each has an identity of its own");
        assert!(given.iter().all(|given| given.item.id.unwrap().claimed_at == 50));
    }

    #[test]
    fn files_of_the_gone_come_first_and_stay_the_same() {
        let given = given(&sight(9, &[(1, 3), (2, 2), (9, 1)], &[1]));
        assert_eq!(given.len(), 1, "one fits");
        assert_eq!((given[0].from, given[0].to), (Some(2), 1));
        assert_eq!(given[0].item, given[0].was);
        assert_eq!(self::given(&sight(3, &[(2, 1)], &[])), []);
    }
}
