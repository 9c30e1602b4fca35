//! Invariant 4: replicas with the same LSN have the same bytes.

use std::collections::BTreeMap;

/// What one node says of one replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaSum {
    /// The node.
    pub node: u32,
    /// The partition.
    pub partition: u32,
    /// What the replica has applied.
    pub lsn: u64,
    /// The checksum of its rows there.
    pub checksum: u64,
}

/// Two replicas that are said to be the same and are not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Divergence(pub ReplicaSum, pub ReplicaSum);

/// Compares all replicas; returns how many pairs could be compared.
pub fn check(sums: &[ReplicaSum]) -> Result<usize, Divergence> {
    let mut first: BTreeMap<(u32, u64), ReplicaSum> = BTreeMap::new();
    let mut compared = 0;
    for sum in sums {
        let known = *first.entry((sum.partition, sum.lsn)).or_insert(*sum);
        if known.checksum != sum.checksum {
            return Err(Divergence(known, *sum));
        }
        compared += usize::from(known.node != sum.node);
    }
    Ok(compared)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_equal_lsns_are_compared() {
        let sum = |node, lsn, checksum| ReplicaSum {
            node,
            partition: 1,
            lsn,
            checksum,
        };
        assert_eq!(check(&[sum(1, 5, 77), sum(2, 5, 77), sum(3, 4, 11)]), Ok(1));
        assert_eq!(
            check(&[sum(1, 5, 77), sum(2, 5, 78)]),
            Err(Divergence(sum(1, 5, 77), sum(2, 5, 78)))
        );
    }
}
