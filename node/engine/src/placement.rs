//! Row to partition, and partition to nodes: pure placement decisions.

use std::collections::BTreeSet;

use crate::key::encode_key;
use crate::value::ValueRef;
use crate::{NodeId, PartitionId};

/// The place, in its replication group of `count` partitions, of the rows with this partition key.
pub fn partition_index(partition_key: ValueRef<'_>, count: u32) -> u32 {
    assert!(count > 0, "a replication group has partitions");
    let hash = match partition_key {
        ValueRef::Int(value) => mix(i64::from(value) as u64),
        ValueRef::BigInt(value) | ValueRef::Timestamp(value) => mix(value as u64),
        other => hash_bytes(&encode_key([other])),
    };
    ((u128::from(hash) * u128::from(count)) >> 64) as u32
}

/// FNV-1a, 64 bits, mixed.
fn hash_bytes(bytes: &[u8]) -> u64 {
    let fnv = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    mix(fnv)
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood 2014).
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The nodes for `copies` replicas of a partition, best first: weighted rendezvous hashing (Schindelhauer and
/// Schomaker 2005), where a zone takes a second replica only when every zone has one.
pub fn place(partition: PartitionId, nodes: &[(NodeId, &str, u32)], copies: usize) -> Vec<NodeId> {
    let mut ranked: Vec<(f64, NodeId, &str)> =
        nodes.iter().filter(|(_, _, weight)| *weight > 0).map(|&(node, zone, weight)| (score(partition, node, weight), node, zone)).collect();
    ranked.sort_by(|left, right| right.0.total_cmp(&left.0).then(left.1.cmp(&right.1)));
    let mut chosen = Vec::new();
    let mut zones = BTreeSet::new();
    while chosen.len() < copies && !ranked.is_empty() {
        let fresh = ranked.iter().position(|(_, _, zone)| !zones.contains(zone));
        let Some(next) = fresh else {
            zones.clear();
            continue;
        };
        let (_, node, zone) = ranked.remove(next);
        zones.insert(zone);
        chosen.push(node);
    }
    chosen
}

fn score(partition: PartitionId, node: NodeId, weight: u32) -> f64 {
    let hash = mix(mix(u64::from(partition)) ^ u64::from(node));
    let uniform = ((hash >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    -f64::from(weight) / uniform.ln()
}
