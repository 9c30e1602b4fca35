//! Row to partition, and partition to nodes: pure placement decisions.
//!
//! Clusters depend on these functions for good: a row is looked for where `partition_index` says, and replicas move
//! when `place` changes its mind. Both use integers only, so that every machine decides the same.

use std::collections::{BTreeMap, VecDeque};

use crate::hash::{Hasher, mix};
use crate::key::KeyBuffer;
use crate::value::ValueRef;
use crate::{NodeId, PartitionId};

/// The place, in its replication group of `count` partitions, of the rows with this partition key: by the hash of its
/// memcomparable bytes, so INT 5 and BIGINT 5 agree.
#[inline]
pub fn partition_index(partition_key: ValueRef<'_>, count: u32) -> u32 {
    assert!(count > 0, "a replication group has partitions");
    let mut key = KeyBuffer::new();
    key.push_value(partition_key);
    let hash = Hasher::new().bytes(key.as_bytes()).finish();
    ((u128::from(hash) * u128::from(count)) >> 64) as u32
}

/// The nodes for `copies` replicas of a partition, the preferred primary first: weighted rendezvous hashing
/// (Schindelhauer and Schomaker 2005), where no zone takes another replica while one that could has fewer.
/// Fewer than `copies` when there are not so many nodes; a node of weight 0 holds nothing.
pub fn place(partition: PartitionId, nodes: &[(NodeId, &str, u32)], copies: usize) -> Vec<NodeId> {
    let mut ranked: Vec<Candidate<'_>> = nodes
        .iter()
        .filter(|(_, _, weight)| *weight > 0)
        .map(|&(node, zone, weight)| Candidate {
            distance: distance(partition, node),
            weight,
            node,
            zone,
        })
        .collect();
    ranked.sort_by(Candidate::compare);
    let mut held: BTreeMap<&str, usize> = BTreeMap::new();
    let mut chosen = Vec::with_capacity(copies.min(ranked.len()));
    while chosen.len() < copies && !ranked.is_empty() {
        let in_zone = |candidate: &Candidate<'_>| held.get(candidate.zone).copied().unwrap_or(0);
        let fewest = ranked.iter().map(in_zone).min().unwrap_or(0);
        let Some(next) = ranked.iter().position(|candidate| in_zone(candidate) == fewest) else {
            break;
        };
        let next = ranked.remove(next);
        *held.entry(next.zone).or_default() += 1;
        chosen.push(next.node);
    }
    chosen
}

struct Candidate<'a> {
    distance: u64,
    weight: u32,
    node: NodeId,
    zone: &'a str,
}

impl Candidate<'_> {
    /// The least distance / weight first.
    fn compare(&self, other: &Self) -> std::cmp::Ordering {
        let mine = u128::from(self.distance) * u128::from(other.weight);
        let theirs = u128::from(other.distance) * u128::from(self.weight);
        mine.cmp(&theirs).then(self.node.cmp(&other.node))
    }
}

/// -log2 of a uniform hash of both: exponentially distributed, so that dividing by weights gives fair shares.
fn distance(partition: PartitionId, node: NodeId) -> u64 {
    minus_log2(mix(mix(u64::from(partition)) ^ u64::from(node)) | 1)
}

const FRACTION_BITS: u32 = 32;

/// -log2(value / 2^64), with `FRACTION_BITS` bits behind the point; `value` is not 0.
fn minus_log2(value: u64) -> u64 {
    let zeros = value.leading_zeros();
    // In [1, 2), 63 bits behind the point; each squaring yields one more bit of the logarithm.
    let mut mantissa = value << zeros;
    let mut fraction = 0;
    for _ in 0..FRACTION_BITS {
        let square = u128::from(mantissa) * u128::from(mantissa);
        let doubled = square >> 127 == 1;
        mantissa = if doubled { square >> 64 } else { square >> 63 } as u64;
        fraction = fraction << 1 | u64::from(doubled);
    }
    (u64::from(zeros + 1) << FRACTION_BITS) - fraction
}

/// A primary for each partition out of those who may be: as even as possible, in proportion to the weights, and
/// otherwise the first of each list. `candidates` are each partition's replicas, the preferred first; a node that
/// `weights` lacks counts as 0 and is taken only where nobody else can be.
///
/// Starts from the preferred ones and shifts along the shortest chain of partitions from the node with the most to one
/// with less, until no chain makes it more even; each shift moves as few primaries as it can.
pub fn assign_primaries(
    candidates: &BTreeMap<PartitionId, Vec<NodeId>>,
    weights: &BTreeMap<NodeId, u32>,
) -> BTreeMap<PartitionId, NodeId> {
    let mut primaries: BTreeMap<PartitionId, NodeId> = candidates
        .iter()
        .filter_map(|(&partition, nodes)| Some((partition, *nodes.first()?)))
        .collect();
    // Each shift lowers the greatest load or the number of nodes that have it; this bounds it twice over.
    for _ in 0..candidates.len() * candidates.len().max(1) {
        let Some(chain) = shift(candidates, weights, &primaries) else {
            break;
        };
        primaries.extend(chain);
    }
    primaries
}

/// What to change so that one node has one primary less and one that is better off has one more; None: it is even.
fn shift(
    candidates: &BTreeMap<PartitionId, Vec<NodeId>>,
    weights: &BTreeMap<NodeId, u32>,
    primaries: &BTreeMap<PartitionId, NodeId>,
) -> Option<Vec<(PartitionId, NodeId)>> {
    let mut count: BTreeMap<NodeId, u64> = candidates.values().flatten().map(|&node| (node, 0)).collect();
    for node in primaries.values() {
        *count.entry(*node).or_default() += 1;
    }
    let weight = |node: &NodeId| u128::from(weights.get(node).copied().unwrap_or(0));
    // a / weight(left) > b / weight(right), where a weight of 0 is infinitely loaded by anything.
    let heavier =
        |a: u64, left: &NodeId, b: u64, right: &NodeId| u128::from(a) * weight(right) > u128::from(b) * weight(left);
    let mut sources: Vec<NodeId> = count
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(&node, _)| node)
        .collect();
    sources.sort_by(|left, right| {
        let (mine, theirs) = (
            u128::from(count[left]) * weight(right),
            u128::from(count[right]) * weight(left),
        );
        theirs.cmp(&mine).then(left.cmp(right))
    });
    for source in sources {
        let worth = |node: &NodeId| *node != source && heavier(count[&source], &source, count[node] + 1, node);
        if let Some(chain) = chain(candidates, primaries, source, worth) {
            return Some(chain);
        }
    }
    None
}

/// The shortest chain of moves from `source` to a node that is `worth` it, breadth first.
fn chain(
    candidates: &BTreeMap<PartitionId, Vec<NodeId>>,
    primaries: &BTreeMap<PartitionId, NodeId>,
    source: NodeId,
    worth: impl Fn(&NodeId) -> bool,
) -> Option<Vec<(PartitionId, NodeId)>> {
    let mut came_by: BTreeMap<NodeId, (NodeId, PartitionId)> = BTreeMap::new();
    let mut open = VecDeque::from([source]);
    while let Some(node) = open.pop_front() {
        if worth(&node) {
            let (mut moves, mut at) = (Vec::new(), node);
            while at != source {
                let (from, partition) = came_by[&at];
                moves.push((partition, at));
                at = from;
            }
            return Some(moves);
        }
        for (&partition, _) in primaries.iter().filter(|(_, primary)| **primary == node) {
            for &next in &candidates[&partition] {
                if next != source && !came_by.contains_key(&next) {
                    came_by.insert(next, (node, partition));
                    open.push_back(next);
                }
            }
        }
    }
    None
}

#[cfg(test)]
mod tests;
