//! Nodes: the first one, those that come, come back, die, drain and go.

use volt_engine::NodeId;

use super::failures;
use super::node;
use super::reigns::change_for;
use crate::metadata::command::{
    Applied, CommandResult, DEFAULT_PARTITIONS, FailoverNote, Joining, MAX_PARTITIONS, PartitionChange, Refusal,
};
use crate::metadata::failure::FailureEnd;
use crate::metadata::map::{ClusterMap, NodeInfo, NodeState, PartitionInfo, ReplicationMode};

/// A node's weight in placement, unless somebody says otherwise.
const NORMAL_WEIGHT: u32 = 100;

pub(super) fn initialise(
    map: &mut ClusterMap,
    (uuid, partitions): (String, u32),
    first: Joining,
    awaits_restoration: bool,
) -> CommandResult {
    if !map.cluster_uuid.is_empty() {
        return match map.cluster_uuid == uuid {
            true => Ok(Applied::Unchanged),
            false => Err(Refusal::AlreadyInitialised(map.cluster_uuid.clone())),
        };
    }
    if uuid.is_empty() || first.node_id == 0 {
        return Err(Refusal::Invalid("a cluster needs a UUID and a first node".to_owned()));
    }
    let partitions = if partitions == 0 {
        DEFAULT_PARTITIONS
    } else {
        partitions
    };
    if partitions > MAX_PARTITIONS {
        return Err(Refusal::Invalid(format!(
            "at most {MAX_PARTITIONS} partitions, not {partitions}"
        )));
    }
    map.cluster_uuid = uuid.clone();
    map.partitions_per_group = partitions;
    map.awaits_restoration = awaits_restoration;
    map.next_table = 1;
    map.next_procedure = 1;
    map.next_group = 1;
    map.next_partition = 1;
    map.nodes.insert(first.node_id, new_node(first, 1));
    Ok(Applied::Joined {
        cluster_uuid: uuid,
        incarnation: 1,
    })
}

fn new_node(joining: Joining, incarnation: u64) -> NodeInfo {
    NodeInfo {
        node_id: joining.node_id,
        name: joining.name,
        address: joining.address,
        sql_address: joining.sql_address,
        zone: joining.zone,
        incarnation,
        boot_id: joining.boot_id,
        state: NodeState::Active,
        weight: NORMAL_WEIGHT,
        yields: false,
        endangered: false,
    }
}

pub(super) fn join(map: &mut ClusterMap, joining: Joining) -> CommandResult {
    if joining.node_id == 0 {
        return Err(Refusal::Invalid("a node's number is at least 1".to_owned()));
    }
    if !joining.cluster_uuid.is_empty() && joining.cluster_uuid != map.cluster_uuid {
        let (ours, theirs) = (map.cluster_uuid.clone(), joining.cluster_uuid);
        return Err(Refusal::OtherCluster { ours, theirs });
    }
    let cluster_uuid = map.cluster_uuid.clone();
    let Some(known) = map.nodes.get(&joining.node_id) else {
        if joining.incarnation != 0 {
            // It was removed while it was away: its data counts for nothing.
            return Err(Refusal::NoSuchNode(joining.node_id));
        }
        map.nodes.insert(joining.node_id, new_node(joining, 1));
        return Ok(Applied::Joined {
            cluster_uuid,
            incarnation: 1,
        });
    };
    let same_process = known.boot_id == joining.boot_id;
    if !same_process && joining.incarnation == 0 && known.state.is_alive() {
        return Err(Refusal::NodeIsAlive(joining.node_id));
    }
    if joining.incarnation != 0 && joining.incarnation != known.incarnation {
        let (node, ours, theirs) = (known.node_id, known.incarnation, joining.incarnation);
        return Err(Refusal::OtherIncarnation { node, ours, theirs });
    }
    let lost_volume = !same_process && joining.incarnation == 0;
    let incarnation = known.incarnation + u64::from(lost_volume);
    come_back(map, joining, incarnation, lost_volume, !same_process);
    Ok(Applied::Joined {
        cluster_uuid,
        incarnation,
    })
}

/// A known node is here (again).
fn come_back(map: &mut ClusterMap, joining: Joining, incarnation: u64, lost_volume: bool, new_process: bool) {
    let id = joining.node_id;
    let Some(known) = map.nodes.get(&id) else { return };
    let (weight, yields) = (known.weight, known.yields && !new_process);
    // A node that fails again and again is not well because it has just started.
    let endangered = known.endangered;
    let state = match known.state {
        NodeState::Dead { draining: true, .. } | NodeState::Draining => NodeState::Draining,
        NodeState::Drained => NodeState::Drained,
        NodeState::Dead { .. } | NodeState::Active => NodeState::Active,
    };
    map.nodes.insert(
        id,
        NodeInfo {
            state,
            weight,
            yields,
            endangered,
            ..new_node(joining, incarnation)
        },
    );
    if !new_process {
        return;
    }
    map.recovering.remove(&id);
    failures::end(map, id, FailureEnd::Restarted);
    for partition in map
        .partitions
        .values_mut()
        .filter(|partition| partition.role(id).is_some())
    {
        restart_member(partition, id, lost_volume);
        // Whatever was proposed for the process that ended is stale.
        partition.epoch += 1;
    }
}

/// A member's process is a new one. With its volume it stays, marked, until a primary that lives goes on without it,
/// or until it turns out to be among the last. Without its volume it holds nothing. One that was emptied stays so.
fn restart_member(partition: &mut PartitionInfo, id: NodeId, lost_volume: bool) {
    if !partition.in_sync.contains(&id) {
        return;
    }
    if partition.primary == Some(id) {
        partition.primary = None;
        partition.primary_boot = 0;
    }
    if lost_volume && partition.mode == ReplicationMode::SemiSync {
        // A smaller set would have smaller majorities, and what is committed need not be on one of them.
        partition.restarted.remove(&id);
        partition.emptied.insert(id);
    } else if lost_volume {
        partition.in_sync.remove(&id);
        partition.restarted.remove(&id);
        partition.learners.insert(id);
    } else {
        partition.restarted.insert(id);
    }
}

pub(super) fn node_dead(
    map: &mut ClusterMap,
    boot_id: u64,
    process_ended: bool,
    note: FailoverNote,
    changes: Vec<PartitionChange>,
) -> CommandResult {
    let info = node(map, note.node_id)?;
    if info.boot_id != boot_id {
        return Ok(Applied::Unchanged);
    }
    let (known_ended, draining, was_alive) = match info.state {
        NodeState::Dead {
            process_ended,
            draining,
        } => (process_ended, draining, false),
        NodeState::Draining | NodeState::Drained => (false, true, true),
        NodeState::Active => (false, false, true),
    };
    info.state = NodeState::Dead {
        process_ended: process_ended || known_ended,
        draining,
    };
    if was_alive || (process_ended && !known_ended) {
        failures::note_node(map, note.node_id, note.finding.clone(), note.at_micros);
    }
    let changed = change_for(map, &changes, note);
    if !was_alive && known_ended >= process_ended && changed.is_empty() {
        return Ok(Applied::Unchanged);
    }
    Ok(Applied::ManyChanged { partitions: changed })
}

pub(super) fn node_alive(map: &mut ClusterMap, id: NodeId, boot_id: u64) -> CommandResult {
    let info = node(map, id)?;
    if info.boot_id != boot_id {
        return Err(Refusal::StaleBoot(id));
    }
    let NodeState::Dead { draining, .. } = info.state else {
        return Ok(Applied::Unchanged);
    };
    info.state = if draining {
        NodeState::Draining
    } else {
        NodeState::Active
    };
    failures::end(map, id, FailureEnd::Revived);
    Ok(Applied::Done)
}

/// One at a time: the others have to bear what moves.
pub(super) fn set_endangered(map: &mut ClusterMap, id: NodeId, endangered: bool) -> CommandResult {
    let another = |info: &NodeInfo| info.endangered && info.node_id != id;
    if endangered && let Some(other) = map.nodes.values().find(|info| another(info)) {
        let reason = format!("primaries move away from node {} already", other.node_id);
        return Err(Refusal::NotAllowed(reason));
    }
    node(map, id)?.endangered = endangered;
    Ok(Applied::Done)
}

pub(super) fn rejoin(map: &mut ClusterMap, id: NodeId, boot_id: Option<u64>) -> CommandResult {
    let info = node(map, id)?;
    if boot_id.is_some_and(|boot_id| boot_id != info.boot_id) {
        return Err(Refusal::StaleBoot(id));
    }
    info.yields = false;
    info.state = match info.state {
        NodeState::Dead { process_ended, .. } => NodeState::Dead {
            process_ended,
            draining: false,
        },
        _ => NodeState::Active,
    };
    Ok(Applied::Done)
}

pub(super) fn drain(map: &mut ClusterMap, id: NodeId) -> CommandResult {
    node(map, id)?;
    let left = map.placeable().filter(|info| info.node_id != id).count();
    let needed = map.max_replication() as usize + 1;
    if left < needed {
        let reason = format!(
            "{left} nodes would be left, and REPLICATION = {} needs {needed}",
            needed - 1
        );
        return Err(Refusal::NotAllowed(reason));
    }
    let info = node(map, id)?;
    info.state = match info.state {
        NodeState::Active => NodeState::Draining,
        NodeState::Dead { process_ended, .. } => NodeState::Dead {
            process_ended,
            draining: true,
        },
        other => other,
    };
    Ok(Applied::Done)
}

pub(super) fn drained(map: &mut ClusterMap, id: NodeId) -> CommandResult {
    let holds = map.partitions.values().any(|partition| partition.role(id).is_some());
    let info = node(map, id)?;
    if holds || info.state != NodeState::Draining {
        return Ok(Applied::Unchanged);
    }
    info.state = NodeState::Drained;
    Ok(Applied::Done)
}

pub(super) fn remove_node(map: &mut ClusterMap, id: NodeId) -> CommandResult {
    let Some(info) = map.nodes.get(&id) else {
        return Ok(Applied::Unchanged);
    };
    let member = map.partitions.values().any(|partition| partition.in_sync.contains(&id));
    let removable = match info.state {
        NodeState::Drained => true,
        NodeState::Dead { .. } => !member,
        NodeState::Active | NodeState::Draining => false,
    };
    if !removable {
        let reason = format!("node {id} is neither drained, nor dead and without replicas in sync");
        return Err(Refusal::NotAllowed(reason));
    }
    map.nodes.remove(&id);
    failures::end(map, id, FailureEnd::Removed);
    map.recovering.remove(&id);
    map.recovery_orders.remove(&id);
    let forgetting: Vec<_> = map
        .partitions
        .values()
        .filter(|partition| partition.learners.contains(&id))
        .map(|partition| partition.partition_id)
        .collect();
    for partition in forgetting {
        if let Some(partition) = map.partitions.get_mut(&partition) {
            partition.learners.remove(&id);
            partition.epoch += 1;
        }
    }
    Ok(Applied::Done)
}
