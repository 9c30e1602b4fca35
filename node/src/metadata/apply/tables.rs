//! Tables, and the replication groups that hold their rows.

use std::collections::BTreeSet;
use std::sync::Arc;

use volt_engine::catalog::{IndexState, Table};
use volt_engine::idempotency::FIRST_RESERVED_TABLE;
use volt_engine::{GroupId, NodeId, PartitionId, TableId};

use super::{indexes, links, moves, procedures, sequences, ttl, views};
use crate::metadata::command::{Applied, CommandResult, NewTable, Refusal};
use crate::metadata::map::{ClusterMap, PartitionInfo, ReplicationGroup, ReplicationMode};
use crate::metadata::moves::TableMove;
use crate::metadata::placement::first_holders;

pub(super) fn create_table(
    map: &mut ClusterMap,
    new: NewTable,
    replication: u32,
    mode: ReplicationMode,
) -> CommandResult {
    if map.has_relation(&new.name) {
        return Err(Refusal::TableExists(new.name));
    }
    check_table(&new)?;
    sequences::check_table(map, &new)?;
    if let Some(ttl) = &new.ttl {
        ttl::check(&new.columns, ttl)?;
    }
    if map.next_table >= FIRST_RESERVED_TABLE {
        return Err(Refusal::Invalid("all numbers of tables are used up".to_owned()));
    }
    let group = match map.group_of(replication, mode) {
        Some(group) => group,
        None => create_group(map, replication, mode)?,
    };
    let mut table = Table {
        id: map.next_table,
        name: new.name,
        columns: new.columns,
        primary_key: new.primary_key,
        partition_column: new.partition_column,
        group,
        indexes: Vec::new(),
        checks: new.checks,
        ttl: None,
        view: None,
        tracking: None,
        version_base: 0,
    };
    for index in new.indexes {
        // There are no rows to look through.
        let index = indexes::defined(map, &table, index, IndexState::Ready)?;
        table.indexes.push(index);
    }
    if let Some(new) = new.ttl {
        // The index is as good as built, for the same reason.
        ttl::change(map, &mut table, *new, IndexState::Ready)?;
    }
    sequences::add_owned(map, &mut table, new.sequences);
    map.next_table += 1;
    map.catalog_version += 1;
    map.tables.insert(table.id, Arc::new(table.clone()));
    Ok(Applied::TableCreated(table))
}

fn check_table(table: &NewTable) -> Result<(), Refusal> {
    let places_exist = table.primary_key.iter().all(|place| *place < table.columns.len());
    let is_placed = |place: usize| table.primary_key.contains(&place);
    if table.primary_key.is_empty() || !places_exist || !table.partition_column.is_none_or(is_placed) {
        let reason = "a table needs a primary key among its columns, and its partition key in the primary key";
        return Err(Refusal::Invalid(reason.to_owned()));
    }
    Ok(())
}

pub(super) fn create_group(map: &mut ClusterMap, replication: u32, mode: ReplicationMode) -> Result<GroupId, Refusal> {
    if !map.placeable().any(|node| node.state.is_alive()) {
        return Err(Refusal::NotAllowed("no living node can take replicas".to_owned()));
    }
    let (group, first) = (map.next_group, map.next_partition);
    let ids: Vec<PartitionId> = (first..first.saturating_add(map.partitions_per_group)).collect();
    map.next_group += 1;
    map.next_partition = first.saturating_add(map.partitions_per_group);
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
pub(super) fn first_partition(map: &ClusterMap, group: GroupId, index: u32, id: PartitionId) -> PartitionInfo {
    let (copies, mode) = map.groups.get(&group).map_or((1, ReplicationMode::Sync), |group| {
        (group.replication as usize + 1, group.mode)
    });
    let holders = first_holders(map, id, copies);
    let (in_sync, learners): (BTreeSet<NodeId>, BTreeSet<NodeId>) =
        holders.iter().partition(|node| map.is_alive(**node));
    let primary = in_sync.iter().copied().min_by_key(|node| {
        let yields = map.nodes.get(node).is_some_and(|info| info.yields || info.endangered);
        (yields, map.roles(*node).primaries, *node)
    });
    let boot_of = |node: NodeId| map.nodes.get(&node).map_or(0, |info| info.boot_id);
    PartitionInfo {
        partition_id: id,
        group,
        index,
        epoch: 1,
        mode,
        was_async: mode == ReplicationMode::Async,
        primary,
        primary_boot: primary.map_or(0, boot_of),
        in_sync,
        learners,
        in_doubt: BTreeSet::new(),
        restarted: BTreeSet::new(),
        emptied: BTreeSet::new(),
        wanted: None,
    }
}

/// A table that has its partitions to itself, with the materialized views of it, stays in them; one that shares them moves to others.
pub(super) fn set_replication(
    map: &mut ClusterMap,
    id: TableId,
    replication: Option<u32>,
    mode: Option<ReplicationMode>,
) -> CommandResult {
    let table = map.tables.get(&id).ok_or(Refusal::NoSuchTable(id))?;
    let is_part = |other: &Table| other.id == id || other.view.as_ref().is_some_and(|view| view.source == id);
    let mut others = map.tables.values().filter(|other| other.group == table.group);
    let comes = |one: &TableMove| one.to == table.group && !one.tables.contains(&id);
    let is_alone = others.all(|other| is_part(other)) && !map.moves.values().any(comes);
    let (name, table_id, id) = (table.name.clone(), id, table.group);
    let no_group = || Refusal::Invalid(format!("table \"{name}\" has no partitions"));
    let group = map.groups.get(&id).ok_or_else(no_group)?;
    let new = (replication.unwrap_or(group.replication), mode.unwrap_or(group.mode));
    if new == (group.replication, group.mode) {
        return moves::cancel(map, table_id);
    }
    if map.move_of(table_id).is_some() {
        return Err(Refusal::TableMoves(name));
    }
    if !is_alone {
        return moves::begin(map, table_id, new.0, new.1);
    }
    let has_other_mode = new.1 != group.mode;
    if let Some(group) = map.groups.get_mut(&id) {
        (group.replication, group.mode) = new;
    }
    if has_other_mode {
        // A primary that found an earlier wish safe may have committed since as if it had been taken back.
        let partitions = map.partitions.values_mut().filter(|partition| partition.group == id);
        partitions.for_each(|partition| partition.epoch += 1);
    }
    Ok(Applied::Done)
}

/// All of them or none.
pub(super) fn drop_tables(map: &mut ClusterMap, tables: &BTreeSet<TableId>) -> CommandResult {
    if let Some(missing) = tables.iter().find(|table| !map.tables.contains_key(table)) {
        return Err(Refusal::NoSuchTable(*missing));
    }
    for table in tables {
        procedures::check_unneeded(map, *table)?;
        if let Some(table) = map.tables.get(table) {
            links::check_unneeded(map, table, "drop")?;
        }
        views::check_unneeded(map, *table)?;
    }
    sequences::check_owned_unneeded(map, tables)?;
    for table in tables {
        drop_table(map, *table)?;
    }
    Ok(Applied::Done)
}

/// With its last table a replication group goes, and its partitions: nothing may ask for copies of what is nothing.
pub(super) fn drop_table(map: &mut ClusterMap, table: TableId) -> Result<(), Refusal> {
    map.tables.remove(&table).ok_or(Refusal::NoSuchTable(table))?;
    map.moves.remove(&table);
    sequences::drop_owned(map, table);
    map.catalog_version += 1;
    moves::drop_unused_groups(map);
    Ok(())
}
