//! Which nodes should hold which partition, and which of its members should be its primary: functions of the map.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use volt_engine::placement::place;
use volt_engine::{NodeId, PartitionId};

use super::map::{ClusterMap, NodeInfo, PartitionInfo};
pub use super::placements::Placements;

/// The nodes that should hold a partition, best first; the dead count, for they come back.
pub fn desired_holders(map: &ClusterMap, partition: &PartitionInfo) -> Vec<NodeId> {
    choose(partition.partition_id, map.placeable(), map.copies_wanted(partition))
}

/// The nodes for a new partition: the living first.
pub(crate) fn first_holders(map: &ClusterMap, partition: PartitionId, copies: usize) -> Vec<NodeId> {
    let mut holders = choose(partition, map.placeable().filter(|node| node.state.is_alive()), copies);
    let missing = copies.saturating_sub(holders.len());
    let dead = map.placeable().filter(|node| !node.state.is_alive());
    holders.extend(choose(partition, dead, missing));
    holders
}

fn choose<'a>(partition: PartitionId, nodes: impl Iterator<Item = &'a NodeInfo>, copies: usize) -> Vec<NodeId> {
    let candidates: Vec<(NodeId, &str, u32)> = nodes
        .map(|node| (node.node_id, node.zone.as_str(), node.weight))
        .collect();
    place(partition, &candidates, copies)
}

/// Which member should be each partition's primary, as far as that differs from who is: what a primary looks at to
/// know that it should hand over. Moves as few as will do; never to a node that is dead, restarted, or leaving. `placements` follow this map.
pub fn target_primaries(map: &ClusterMap, placements: &Placements) -> BTreeMap<PartitionId, NodeId> {
    let mut targets = Targets::new(map, placements);
    targets.wanted();
    targets.leave();
    targets.balance();
    targets.moves
}

struct Targets<'a> {
    map: &'a ClusterMap,
    placements: &'a Placements,
    counts: BTreeMap<NodeId, u32>,
    moves: BTreeMap<PartitionId, NodeId>,
}

impl<'a> Targets<'a> {
    fn new(map: &'a ClusterMap, placements: &'a Placements) -> Self {
        let mut counts: BTreeMap<NodeId, u32> = map.nodes.keys().map(|node| (*node, 0)).collect();
        for partition in map.partitions.values() {
            if let Some(primary) = map.living_primary(partition) {
                *counts.entry(primary).or_default() += 1;
            }
        }
        Self {
            map,
            placements,
            counts,
            moves: BTreeMap::new(),
        }
    }

    /// What somebody asked for goes first.
    fn wanted(&mut self) {
        for partition in self.map.partitions.values() {
            let Some(wanted) = partition.wanted else { continue };
            if self.eligible(partition).any(|node| node == wanted) {
                self.move_to(partition, wanted);
            }
        }
    }

    /// Nodes that drain, yield, are endangered, or hold what is not theirs any more lose it to the member with the fewest.
    fn leave(&mut self) {
        for partition in self.map.partitions.values() {
            let stays = |node| self.keeps_primaries(node) && self.belongs(partition, node);
            let leaving = self.primary(partition).is_some_and(|primary| !stays(primary));
            if !leaving {
                continue;
            }
            let rank = |node: &NodeId| (!self.belongs(partition, *node), self.count(*node), *node);
            let best = self.eligible(partition).min_by_key(rank);
            let better = |node: &NodeId| {
                !self
                    .primary(partition)
                    .is_some_and(|primary| self.keeps_primaries(primary))
                    || self.belongs(partition, *node)
            };
            if let Some(best) = best.filter(better) {
                self.move_to(partition, best);
            }
        }
    }

    /// Then from the fullest to the emptiest, while that makes them more equal. A move changes what is gained only by those partitions of which
    /// one of the two nodes is a member, so that only these are looked at again.
    fn balance(&mut self) {
        let mut of_nodes: BTreeMap<NodeId, Vec<&'a PartitionInfo>> = BTreeMap::new();
        for partition in self.map.partitions.values() {
            for node in &partition.in_sync {
                of_nodes.entry(*node).or_default().push(partition);
            }
        }
        let gains = |targets: &Self, partition: &'a PartitionInfo| {
            let (gain, _) = targets.best_move(partition)?;
            Some((gain, Reverse(partition.partition_id)))
        };
        let partitions = self.map.partitions.values();
        let mut best: BinaryHeap<_> = partitions.filter_map(|partition| gains(self, partition)).collect();
        while let Some((gain, Reverse(number))) = best.pop() {
            let partition = &self.map.partitions[&number];
            // What was looked at again stands in there with what it gains now.
            let Some((_, to)) = self.best_move(partition).filter(|(now, _)| *now == gain) else {
                continue;
            };
            let from = self.primary(partition);
            self.move_to(partition, to);
            let changed = [from, Some(to)].into_iter().flatten();
            for partition in changed.filter_map(|node| of_nodes.get(&node)).flatten() {
                best.extend(gains(self, partition));
            }
        }
    }

    /// What is gained by a move of this primary at most, and where to.
    fn best_move(&self, partition: &PartitionInfo) -> Option<(u32, NodeId)> {
        if partition.wanted.is_some() || self.moves.contains_key(&partition.partition_id) {
            return None;
        }
        let from = self.count(self.primary(partition)?);
        let mut best: Option<(u32, NodeId)> = None;
        for to in self.eligible(partition).filter(|node| self.belongs(partition, *node)) {
            let gain = from.saturating_sub(self.count(to));
            if gain >= 2 && best.is_none_or(|(most, _)| gain > most) {
                best = Some((gain, to));
            }
        }
        best
    }

    fn primary(&self, partition: &PartitionInfo) -> Option<NodeId> {
        let moved = self.moves.get(&partition.partition_id).copied();
        moved.or_else(|| self.map.living_primary(partition))
    }

    fn count(&self, node: NodeId) -> u32 {
        self.counts.get(&node).copied().unwrap_or(0)
    }

    fn keeps_primaries(&self, node: NodeId) -> bool {
        self.map.nodes.get(&node).is_some_and(NodeInfo::keeps_primaries)
    }

    fn belongs(&self, partition: &PartitionInfo, node: NodeId) -> bool {
        self.placements.of(partition.partition_id).contains(&node)
    }

    /// Members that could be the primary and aren't.
    fn eligible<'b>(&'b self, partition: &'b PartitionInfo) -> impl Iterator<Item = NodeId> + 'b {
        let primary = self.primary(partition);
        partition
            .sound_members()
            .filter(move |node| primary.is_some() && Some(*node) != primary && self.keeps_primaries(*node))
    }

    fn move_to(&mut self, partition: &PartitionInfo, to: NodeId) {
        if let Some(from) = self.primary(partition) {
            let count = self.counts.entry(from).or_default();
            *count = count.saturating_sub(1);
        }
        *self.counts.entry(to).or_default() += 1;
        self.moves.insert(partition.partition_id, to);
    }
}

/// Partitions that have fewer members in sync than their tables ask for, or not where they belong.
pub fn misplaced(map: &ClusterMap) -> usize {
    let belongs = |partition: &&PartitionInfo| {
        let desired: BTreeSet<NodeId> = desired_holders(map, partition).into_iter().collect();
        partition.in_sync != desired
    };
    map.partitions.values().filter(belongs).count()
}
