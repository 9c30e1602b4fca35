//! Who should vote: three members, five from five nodes on, fewer when there are fewer nodes; and in as many zones as there are, so that
//! a zone that is lost takes no majority with it. A function of the map and of what the group's leader knows.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use volt_engine::NodeId;

use super::{MemberId, member, node_of};
use crate::metadata::map::{ClusterMap, NodeState};

/// A dead voter is replaced by a living node after this long; sooner, it would often be back meanwhile.
pub(crate) const REPLACE_AFTER: Duration = Duration::from_secs(30);

/// The members that should vote. `ready`: members that have the whole log, so that they can vote at once.
/// `dead_for`: how long each dead node has been dead. Never shrinks the group because of deaths.
pub(crate) fn desired_voters(
    map: &ClusterMap,
    voters: &BTreeSet<MemberId>,
    ready: &BTreeSet<MemberId>,
    dead_for: &BTreeMap<NodeId, Duration>,
) -> BTreeSet<MemberId> {
    let wanted = match map.placeable().count() {
        0 => return voters.clone(),
        few @ 1..=2 => few,
        3..=4 => 3,
        _ => 5,
    };
    let mut desired: BTreeSet<MemberId> = voters
        .iter()
        .copied()
        .filter(|voter| keeps(map, *voter, dead_for))
        .collect();
    let mut spare: BTreeSet<MemberId> = map
        .nodes
        .values()
        .filter(|node| node.state == NodeState::Active)
        .map(|node| member(node.node_id, node.incarnation))
        .filter(|candidate| ready.contains(candidate) && !voters.contains(candidate))
        .collect();
    while desired.len() < wanted {
        let Some(next) = loneliest(map, &desired, &spare) else {
            break;
        };
        spare.remove(&next);
        desired.insert(next);
    }
    // Nobody took their place: the dead stay, so that the group's majority doesn't shrink to those who happen to live.
    let leaving: Vec<MemberId> = voters.difference(&desired).copied().collect();
    for voter in leaving {
        if desired.len() < wanted && is_current(map, voter) {
            desired.insert(voter);
        }
    }
    while desired.len() > wanted {
        let Some(last) = most_crowded(map, &desired) else {
            break;
        };
        desired.remove(&last);
    }
    // Each exchange leaves zones that are more equal.
    while let (Some(next), Some(last)) = (loneliest(map, &desired, &spare), most_crowded(map, &desired)) {
        if in_zone_of(map, &desired, next) + 1 >= in_zone_of(map, &desired, last) {
            break;
        }
        spare.remove(&next);
        desired.remove(&last);
        desired.insert(next);
    }
    if desired.is_empty() { voters.clone() } else { desired }
}

/// Of these members, so many are in the zone of that one.
fn in_zone_of(map: &ClusterMap, members: &BTreeSet<MemberId>, member: MemberId) -> usize {
    let zone = |member: MemberId| map.nodes.get(&node_of(member)).map(|node| node.zone.as_str());
    members.iter().filter(|other| zone(**other) == zone(member)).count()
}

/// The spare one in whose zone the fewest are, then the lowest.
fn loneliest(map: &ClusterMap, members: &BTreeSet<MemberId>, spare: &BTreeSet<MemberId>) -> Option<MemberId> {
    let rank = |candidate: &MemberId| (in_zone_of(map, members, *candidate), *candidate);
    spare.iter().copied().min_by_key(rank)
}

/// The member in whose zone the most are, then the highest.
fn most_crowded(map: &ClusterMap, members: &BTreeSet<MemberId>) -> Option<MemberId> {
    let rank = |member: &MemberId| (in_zone_of(map, members, *member), *member);
    members.iter().copied().max_by_key(rank)
}

fn is_current(map: &ClusterMap, voter: MemberId) -> bool {
    map.nodes
        .get(&node_of(voter))
        .is_some_and(|node| member(node.node_id, node.incarnation) == voter)
}

fn keeps(map: &ClusterMap, voter: MemberId, dead_for: &BTreeMap<NodeId, Duration>) -> bool {
    let Some(node) = map.nodes.get(&node_of(voter)) else {
        return false;
    };
    if !is_current(map, voter) {
        return false;
    }
    match node.state {
        NodeState::Active => true,
        NodeState::Draining | NodeState::Drained => false,
        NodeState::Dead { .. } => dead_for.get(&node.node_id).is_none_or(|time| *time < REPLACE_AFTER),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::map::NodeInfo;

    fn map(states: &[NodeState]) -> ClusterMap {
        let mut map = ClusterMap::default();
        for (node_id, state) in (1..).zip(states) {
            let info = NodeInfo {
                node_id,
                name: String::new(),
                address: String::new(),
                sql_address: String::new(),
                zone: String::new(),
                incarnation: 1,
                boot_id: 1,
                state: *state,
                weight: 100,
                yields: false,
                endangered: false,
            };
            map.nodes.insert(node_id, info);
        }
        map
    }

    fn nodes(map: &ClusterMap, voters: &[NodeId], dead_for: u64) -> Vec<NodeId> {
        let voters = voters.iter().map(|node| member(*node, 1)).collect();
        let ready = map.nodes.keys().map(|node| member(*node, 1)).collect();
        let dead = map.nodes.values().filter(|node| !node.state.is_alive());
        let dead_for = dead.map(|node| (node.node_id, Duration::from_secs(dead_for))).collect();
        desired_voters(map, &voters, &ready, &dead_for)
            .into_iter()
            .map(node_of)
            .collect()
    }

    #[test]
    fn grows_shrinks_and_replaces() {
        let (active, dead) = (
            NodeState::Active,
            NodeState::Dead {
                process_ended: true,
                draining: false,
            },
        );
        assert_eq!(nodes(&map(&[active; 1]), &[1], 0), [1]);
        assert_eq!(nodes(&map(&[active; 2]), &[1], 0), [1, 2]);
        assert_eq!(nodes(&map(&[active; 4]), &[1, 2], 0), [1, 2, 3]);
        assert_eq!(nodes(&map(&[active; 5]), &[1, 2, 3], 0), [1, 2, 3, 4, 5]);
        // A death alone changes nothing; after a while a spare takes the place; without a spare nothing shrinks.
        assert_eq!(nodes(&map(&[active, dead, active, active]), &[1, 2, 3], 1), [1, 2, 3]);
        assert_eq!(nodes(&map(&[active, dead, active, active]), &[1, 2, 3], 31), [1, 3, 4]);
        assert_eq!(nodes(&map(&[active, dead, active]), &[1, 2, 3], 31), [1, 2, 3]);
        // A node that drains gives its vote away.
        assert_eq!(
            nodes(&map(&[active, NodeState::Draining, active, active]), &[1, 2, 3], 0),
            [1, 3, 4]
        );
        assert_eq!(
            nodes(&map(&[active, active, NodeState::Drained]), &[1, 2, 3], 0),
            [1, 2]
        );
    }

    #[test]
    fn a_zone_has_no_more_votes_than_another_if_that_can_be() {
        let mut map = map(&[NodeState::Active; 9]);
        for node in map.nodes.values_mut() {
            // Three zones of three: 1 to 3, 4 to 6, 7 to 9.
            node.zone = format!("z{}", (node.node_id - 1) / 3);
        }
        assert_eq!(nodes(&map, &[1], 0), [1, 2, 4, 5, 7]);
        assert_eq!(
            nodes(&map, &[1, 2, 3, 4, 5], 0),
            [1, 2, 4, 5, 7],
            "the others came later"
        );
        assert_eq!(
            nodes(&map, &[1, 4, 5, 7, 8], 0),
            [1, 4, 5, 7, 8],
            "nothing is gained by another"
        );
    }

    #[test]
    fn a_new_incarnation_is_another_member() {
        let mut map = map(&[NodeState::Active; 3]);
        map.nodes.get_mut(&2).unwrap().incarnation = 2;
        let voters = BTreeSet::from([member(1, 1), member(2, 1), member(3, 1)]);
        let ready = BTreeSet::from([member(1, 1), member(2, 2), member(3, 1)]);
        let desired = desired_voters(&map, &voters, &ready, &BTreeMap::new());
        assert_eq!(desired, BTreeSet::from([member(1, 1), member(2, 2), member(3, 1)]));
        // Not before it has the log.
        let desired = desired_voters(&map, &voters, &voters, &BTreeMap::new());
        assert_eq!(desired, BTreeSet::from([member(1, 1), member(3, 1)]));
    }
}
