//! Applying a command to the cluster map. Deterministic: every member of the group comes to the same map, so nothing
//! here asks a clock, a generator or a hash map's order. Never panics, whatever the command says: what makes no sense
//! is refused, and a refused command changes nothing but the map's version.

use std::collections::BTreeSet;
use std::sync::Arc;

use volt_engine::catalog::Table;
use volt_engine::{Epoch, GroupId, NodeId, PartitionId, TableId};

use super::command::{
    Applied, Command, CommandResult, DEFAULT_PARTITIONS, FailoverNote, Joining, MAX_PARTITIONS, NewTable,
    PartitionChange, Refusal,
};
use super::map::{
    ClusterMap, Failover, MAX_FAILOVERS_KEPT, NodeInfo, NodeState, PartitionInfo, ReplicationGroup, ReplicationMode,
};
use super::placement::{desired_holders, first_holders};

/// A node's weight in placement, unless somebody says otherwise.
const NORMAL_WEIGHT: u32 = 100;

/// Applies one command.
pub fn apply(map: &mut ClusterMap, command: Command) -> CommandResult {
    map.version += 1;
    if let Command::Initialise {
        cluster_uuid,
        partitions,
        node,
    } = command
    {
        return initialise(map, cluster_uuid, partitions, node);
    }
    if map.cluster_uuid.is_empty() {
        return Err(Refusal::NotInitialised);
    }
    match command {
        Command::Initialise { .. } => Ok(Applied::Unchanged),
        Command::Join(joining) => join(map, joining),
        Command::NodeDead {
            node_id,
            boot_id,
            process_ended,
            detector,
            evidence,
            at_micros,
            changes,
            ..
        } => {
            let note = FailoverNote {
                node_id,
                detector,
                evidence,
                at_micros,
            };
            node_dead(map, boot_id, process_ended, note, changes)
        }
        Command::NodeAlive { node_id, boot_id } => node_alive(map, node_id, boot_id),
        Command::CreateTable {
            table,
            replication,
            mode,
        } => create_table(map, table, replication, mode),
        Command::DropTable { table } => drop_table(map, table),
        Command::ChangePartition { by, boot_id, change } => change_by_primary(map, by, boot_id, &change),
        Command::ChangePartitions { changes, failover, .. } => change_by_leader(map, &changes, failover),
        Command::Drain { node_id } => drain(map, node_id),
        Command::Rejoin { node_id, boot_id } => rejoin(map, node_id, boot_id),
        Command::Drained { node_id } => drained(map, node_id),
        Command::SetYields { node_id, yields } => {
            node(map, node_id)?.yields = yields;
            Ok(Applied::Done)
        }
        Command::WantPrimary {
            partition,
            epoch,
            node_id,
        } => want_primary(map, partition, epoch, node_id),
        Command::RemoveNode { node_id } => remove_node(map, node_id),
        Command::RequestRecovery { node_id } => {
            node(map, node_id)?;
            map.recovering.insert(node_id);
            Ok(Applied::Done)
        }
        Command::RecoveryDone { node_id } => {
            map.recovering.remove(&node_id);
            Ok(Applied::Done)
        }
    }
}

fn node(map: &mut ClusterMap, id: NodeId) -> Result<&mut NodeInfo, Refusal> {
    map.nodes.get_mut(&id).ok_or(Refusal::NoSuchNode(id))
}

fn initialise(map: &mut ClusterMap, uuid: String, partitions: u32, first: Joining) -> CommandResult {
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
    map.next_table = 1;
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
    }
}

fn join(map: &mut ClusterMap, joining: Joining) -> CommandResult {
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
            ..new_node(joining, incarnation)
        },
    );
    if !new_process {
        return;
    }
    map.recovering.remove(&id);
    for partition in map.partitions.values_mut() {
        restart_member(partition, id, lost_volume);
    }
}

/// A member's process is a new one. With its volume it stays, marked, until a primary that lives goes on without it,
/// or until it turns out to be among the last. Without its volume it holds nothing.
fn restart_member(partition: &mut PartitionInfo, id: NodeId, lost_volume: bool) {
    if !partition.in_sync.contains(&id) {
        return;
    }
    let was_primary = partition.primary == Some(id);
    if was_primary {
        partition.primary = None;
        partition.primary_boot = 0;
    }
    if lost_volume {
        partition.in_sync.remove(&id);
        partition.restarted.remove(&id);
        partition.learners.insert(id);
    } else {
        partition.restarted.insert(id);
    }
    if was_primary || lost_volume {
        partition.epoch += 1;
    }
}

fn node_dead(
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
    let changed = change_all(map, &changes, Some(note));
    if !was_alive && known_ended >= process_ended && changed.is_empty() {
        return Ok(Applied::Unchanged);
    }
    Ok(Applied::ManyChanged { partitions: changed })
}

fn node_alive(map: &mut ClusterMap, id: NodeId, boot_id: u64) -> CommandResult {
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
    Ok(Applied::Done)
}

fn create_table(map: &mut ClusterMap, new: NewTable, replication: u32, mode: ReplicationMode) -> CommandResult {
    if map.table(&new.name).is_some() {
        return Err(Refusal::TableExists(new.name));
    }
    check_table(&new)?;
    let group = match map.group_of(replication, mode) {
        Some(group) => group,
        None => create_group(map, replication, mode)?,
    };
    let table = Table {
        id: map.next_table,
        name: new.name,
        columns: new.columns,
        primary_key: new.primary_key,
        partition_column: new.partition_column,
        group,
    };
    map.next_table += 1;
    map.catalog_version += 1;
    map.tables.insert(table.id, Arc::new(table.clone()));
    Ok(Applied::TableCreated(table))
}

fn check_table(table: &NewTable) -> Result<(), Refusal> {
    let places_exist = table.primary_key.iter().all(|place| *place < table.columns.len());
    if table.primary_key.is_empty() || !places_exist || !table.primary_key.contains(&table.partition_column) {
        let reason = "a table needs a primary key among its columns, and its partition key in the primary key";
        return Err(Refusal::Invalid(reason.to_owned()));
    }
    Ok(())
}

fn create_group(map: &mut ClusterMap, replication: u32, mode: ReplicationMode) -> Result<GroupId, Refusal> {
    if !map.placeable().any(|node| node.state.is_alive()) {
        return Err(Refusal::NotAllowed("no living node can take replicas".to_owned()));
    }
    let group = map.groups.keys().next_back().copied().unwrap_or(0) + 1;
    let first = map.partitions.keys().next_back().copied().unwrap_or(0) + 1;
    let ids: Vec<PartitionId> = (first..first.saturating_add(map.partitions_per_group)).collect();
    map.groups.insert(
        group,
        ReplicationGroup {
            replication,
            mode,
            partitions: ids.clone(),
        },
    );
    for (index, id) in (0..).zip(ids) {
        let partition = first_partition(map, group, index, id);
        map.partitions.insert(id, partition);
    }
    Ok(group)
}

/// A partition as it begins: empty, so that every living holder is in sync.
fn first_partition(map: &ClusterMap, group: GroupId, index: u32, id: PartitionId) -> PartitionInfo {
    let copies = map.groups.get(&group).map_or(1, |group| group.replication as usize + 1);
    let holders = first_holders(map, id, copies);
    let (in_sync, learners): (BTreeSet<NodeId>, BTreeSet<NodeId>) =
        holders.iter().partition(|node| map.is_alive(**node));
    let primary = in_sync.iter().copied().min_by_key(|node| {
        let yields = map.nodes.get(node).is_some_and(|info| info.yields);
        (yields, map.roles(*node).primaries, *node)
    });
    let boot_of = |node: NodeId| map.nodes.get(&node).map_or(0, |info| info.boot_id);
    PartitionInfo {
        partition_id: id,
        group,
        index,
        epoch: 1,
        primary,
        primary_boot: primary.map_or(0, boot_of),
        in_sync,
        learners,
        restarted: BTreeSet::new(),
        wanted: None,
    }
}

fn drop_table(map: &mut ClusterMap, table: TableId) -> CommandResult {
    map.tables.remove(&table).ok_or(Refusal::NoSuchTable(table))?;
    map.catalog_version += 1;
    Ok(Applied::Done)
}

/// A primary may add a learner that it has caught up, remove a member, and hand over: then it has stopped serving.
fn change_by_primary(map: &mut ClusterMap, by: NodeId, boot_id: u64, change: &PartitionChange) -> CommandResult {
    let partition = map
        .partitions
        .get(&change.partition)
        .ok_or(Refusal::NoSuchPartition(change.partition))?;
    check_epoch(partition, change)?;
    if partition.primary != Some(by) {
        return Err(Refusal::NotAllowed(format!(
            "node {by} is not the primary of partition {}",
            change.partition
        )));
    }
    if partition.primary_boot != boot_id || !map.is_current(by, boot_id) {
        return Err(Refusal::StaleBoot(by));
    }
    check_change(map, partition, change)?;
    Ok(Applied::Changed {
        epoch: begin_reign(map, change),
    })
}

fn change_by_leader(
    map: &mut ClusterMap,
    changes: &[PartitionChange],
    failover: Option<FailoverNote>,
) -> CommandResult {
    let partitions = change_all(map, changes, failover);
    Ok(Applied::ManyChanged { partitions })
}

/// Applies those that are not stale and make sense; says which.
fn change_all(map: &mut ClusterMap, changes: &[PartitionChange], note: Option<FailoverNote>) -> Vec<PartitionId> {
    let mut changed = Vec::new();
    let mut promoted = 0;
    for change in changes {
        let Some(partition) = map.partitions.get(&change.partition) else {
            continue;
        };
        if check_epoch(partition, change).is_err() || check_leaders_change(map, partition, change).is_err() {
            continue;
        }
        promoted += u32::from(change.primary.is_some() && change.primary != partition.primary);
        begin_reign(map, change);
        changed.push(change.partition);
    }
    if let Some(note) = note
        && promoted > 0
    {
        note_failover(map, note, promoted);
    }
    changed
}

/// The leader removes, and promotes where no living primary is; it never adds to the in-sync set, and never takes a
/// partition from a primary that the map calls alive.
fn check_leaders_change(map: &ClusterMap, partition: &PartitionInfo, change: &PartitionChange) -> Result<(), Refusal> {
    check_change(map, partition, change)?;
    if !change.in_sync.is_subset(&partition.in_sync) {
        return Err(Refusal::NotAllowed("only a primary adds to the in-sync set".to_owned()));
    }
    let living = map.living_primary(partition);
    if living.is_some() && living != change.primary {
        return Err(Refusal::NotAllowed("the primary is alive".to_owned()));
    }
    Ok(())
}

fn check_epoch(partition: &PartitionInfo, change: &PartitionChange) -> Result<(), Refusal> {
    if partition.epoch == change.epoch {
        return Ok(());
    }
    let (partition, current) = (partition.partition_id, partition.epoch);
    Err(Refusal::StaleEpoch {
        partition,
        named: change.epoch,
        current,
    })
}

/// What must hold of every change: members come from the old set or from its learners, the primary is a living member,
/// the set never becomes empty, every node exists.
fn check_change(map: &ClusterMap, partition: &PartitionInfo, change: &PartitionChange) -> Result<(), Refusal> {
    let refuse = |reason: &str| {
        Err(Refusal::NotAllowed(format!(
            "partition {}: {reason}",
            partition.partition_id
        )))
    };
    if change.in_sync.is_empty() {
        return refuse("the in-sync set would be empty");
    }
    if !change.in_sync.is_disjoint(&change.learners) {
        return refuse("a node can't be a member and a learner at once");
    }
    let holders = partition.holders();
    if !change.in_sync.is_subset(&holders) {
        return refuse("a member must have been a learner before");
    }
    let known = |node: &NodeId| map.nodes.contains_key(node);
    if !change.learners.iter().all(known) {
        return refuse("a learner is not a node of the cluster");
    }
    let Some(primary) = change.primary else {
        return refuse("it would have no primary");
    };
    if !change.in_sync.contains(&primary) {
        return refuse("the primary must be a member of the in-sync set");
    }
    if change.primary != partition.primary && !map.is_alive(primary) {
        return refuse("the new primary is dead");
    }
    Ok(())
}

/// Makes the change, which has been checked, the partition's next reign.
fn begin_reign(map: &mut ClusterMap, change: &PartitionChange) -> Epoch {
    let boot_of = |node: NodeId| map.nodes.get(&node).map_or(0, |info| info.boot_id);
    let boot = change.primary.map_or(0, boot_of);
    let Some(partition) = map.partitions.get_mut(&change.partition) else {
        return 0;
    };

    if partition.primary != change.primary || partition.primary_boot != boot {
        partition.primary = change.primary;
        partition.primary_boot = boot;
        partition.wanted = None;
    }
    partition.in_sync = change.in_sync.clone();
    partition.learners = change.learners.clone();
    partition
        .restarted
        .retain(|node| change.in_sync.contains(node) && Some(*node) != change.primary);
    // A change of the learners alone also takes a number, so that a decision made before it is stale.
    partition.epoch += 1;
    partition.epoch
}

fn note_failover(map: &mut ClusterMap, note: FailoverNote, partitions: u32) {
    while map.failovers.len() >= MAX_FAILOVERS_KEPT {
        map.failovers.pop_front();
    }
    let FailoverNote {
        node_id,
        detector,
        evidence,
        at_micros,
    } = note;
    map.failovers.push_back(Failover {
        node_id,
        at_micros,
        partitions,
        detector,
        evidence,
    });
}

fn rejoin(map: &mut ClusterMap, id: NodeId, boot_id: Option<u64>) -> CommandResult {
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

fn drain(map: &mut ClusterMap, id: NodeId) -> CommandResult {
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

fn drained(map: &mut ClusterMap, id: NodeId) -> CommandResult {
    let holds = map.partitions.values().any(|partition| partition.role(id).is_some());
    let info = node(map, id)?;
    if holds || info.state != NodeState::Draining {
        return Ok(Applied::Unchanged);
    }
    info.state = NodeState::Drained;
    Ok(Applied::Done)
}

fn want_primary(map: &mut ClusterMap, id: PartitionId, epoch: Epoch, wanted: NodeId) -> CommandResult {
    if !map.is_alive(wanted) {
        return Err(Refusal::NotAllowed(format!("node {wanted} is not alive")));
    }
    let partition = map.partitions.get_mut(&id).ok_or(Refusal::NoSuchPartition(id))?;
    if partition.epoch != epoch {
        return Err(Refusal::StaleEpoch {
            partition: id,
            named: epoch,
            current: partition.epoch,
        });
    }
    if !partition.in_sync.contains(&wanted) {
        return Err(Refusal::NotAllowed(format!(
            "node {wanted} is not in sync with partition {id}"
        )));
    }
    partition.wanted = (partition.primary != Some(wanted)).then_some(wanted);
    Ok(Applied::Changed { epoch: partition.epoch })
}

fn remove_node(map: &mut ClusterMap, id: NodeId) -> CommandResult {
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
    map.recovering.remove(&id);
    let forgetting: Vec<PartitionId> = map
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

/// Partitions that have fewer members in sync than their tables ask for, or not where they belong.
pub fn misplaced(map: &ClusterMap) -> usize {
    let belongs = |partition: &&PartitionInfo| {
        let desired: BTreeSet<NodeId> = desired_holders(map, partition).into_iter().collect();
        partition.in_sync != desired
    };
    map.partitions.values().filter(belongs).count()
}
