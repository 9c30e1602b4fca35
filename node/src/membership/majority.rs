//! Who becomes the primary of a partition whose writes are acknowledged by a majority (semi-synchronous).
//!
//! Any member may lack what is committed, so that members enough to meet every majority are asked for their ends, and the
//! longest log is taken. That must be the end for good: first the partition loses its primary by an entry of its own, and only
//! members that have seen this epoch, and so refuse the old primary's records, are asked (Vertical Paxos, Lamport et al. 2009).

use std::collections::{BTreeMap, BTreeSet};

use volt_engine::NodeId;

use super::promotion::{Situation, Wait, best, change};
use crate::metadata::command::PartitionChange;
use crate::metadata::map::PartitionInfo;
use crate::world::PlantedBug;

/// Members that must be asked so that every majority of so many is met.
pub(crate) fn meets_every_majority(members: usize) -> usize {
    members - members / 2
}

/// The next step; the old primary can't answer anybody any more.
pub(super) fn promote(
    situation: &Situation<'_>,
    partition: &PartitionInfo,
    primaries: &BTreeMap<NodeId, u32>,
) -> Result<PartitionChange, Wait> {
    if partition.primary.is_some() {
        return Ok(PartitionChange {
            primary: None,
            ..unchanged(partition)
        });
    }
    let answers = |node: &NodeId| {
        let replica = (*node, partition.partition_id);
        let has_seen = situation
            .seen
            .get(&replica)
            .is_some_and(|seen| *seen >= partition.epoch);
        !situation.is_dead(*node) && situation.heard.contains(node) && situation.ends.contains_key(&replica) && has_seen
    };
    let members = &partition.in_sync;
    let here: BTreeSet<NodeId> = members.iter().copied().filter(answers).collect();
    let keeps = |node: &NodeId| {
        let has_kept = situation.restarts_keep || !partition.restarted.contains(node);
        has_kept && !partition.emptied.contains(node)
    };
    let sound: Vec<NodeId> = here.iter().copied().filter(keeps).collect();
    let needed = match situation.planted.has(PlantedBug::TooFewAsked) {
        true => 1,
        false => meets_every_majority(members.len()),
    };
    let found = sound.len();
    let candidates = if found >= needed {
        sound
    } else if here.len() == members.len() || is_power_cut(situation, partition, &here, needed) {
        // Nothing better will come.
        here.into_iter().collect()
    } else {
        return Err(Wait::Majority { found, needed });
    };
    if situation.manual && partition.wanted.is_none() && partition.restarted.len() < members.len() {
        return Err(Wait::Hand);
    }
    let chosen = best(situation, partition, candidates, primaries).ok_or(Wait::Majority { found, needed })?;
    Ok(PartitionChange {
        primary: Some(chosen),
        ..unchanged(partition)
    })
}

/// All living members restarted and may have lost the end of what they held, which the others have been waited for to bring. Fewer than meet every
/// majority are not enough even so: those who are away may have together what these never had.
fn is_power_cut(situation: &Situation<'_>, partition: &PartitionInfo, here: &BTreeSet<NodeId>, needed: usize) -> bool {
    if here.difference(&partition.emptied).count() < needed {
        return false;
    }
    let is_new = |node: &NodeId| partition.restarted.contains(node) || partition.emptied.contains(node);
    let mut living = partition
        .in_sync
        .iter()
        .filter(|node| !situation.is_dead(**node))
        .peekable();
    let waited = situation.waited.get(&partition.partition_id).copied();
    living.peek().is_some() && living.all(is_new) && waited.unwrap_or_default() >= situation.patience
}

fn unchanged(partition: &PartitionInfo) -> PartitionChange {
    PartitionChange {
        learners: partition.learners.clone(),
        ..change(partition, 0, partition.in_sync.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_meet_every_majority() {
        for members in 1..10 {
            let majority = members / 2 + 1;
            let asked = meets_every_majority(members);
            assert_eq!(
                asked + majority,
                members + 1,
                "one in common, and not more than it takes"
            );
        }
    }
}
