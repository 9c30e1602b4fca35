//! Moving a table to another replication group's partitions, while it is read and written.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use volt_engine::catalog::IndexState;
use volt_engine::{Epoch, GroupId, PartitionId, TableId};

use super::tables;
use crate::metadata::command::{Applied, Command, CommandResult, Refusal};
use crate::metadata::map::{ClusterMap, ReplicationMode, View};
use crate::metadata::moves::{MovePhase, TableMove};

/// A table leaves the partitions that it shares, for those of this many backups and this mode.
pub(super) fn begin(map: &mut ClusterMap, id: TableId, replication: u32, mode: ReplicationMode) -> CommandResult {
    check_movable(map, id)?;
    let views = map.tables.values().filter(|other| {
        let view = other.view.as_ref();
        view.is_some_and(|view| view.source == id)
    });
    let tables = views.map(|view| view.id).chain([id]).collect();
    let to = match map.group_of(replication, mode) {
        Some(group) => group,
        None => tables::create_group(map, replication, mode)?,
    };
    map.catalog_version += 1;
    let begun = TableMove {
        number: map.catalog_version,
        tables,
        to,
        phase: MovePhase::Copying,
        done: BTreeSet::new(),
    };
    map.moves.insert(id, begun);
    Ok(Applied::Done)
}

fn check_movable(map: &ClusterMap, id: TableId) -> Result<(), Refusal> {
    let table = map.tables.get(&id).ok_or(Refusal::NoSuchTable(id))?;
    let not_now = |why: String| {
        Err(Refusal::NotAllowed(format!(
            "table \"{}\" can't move: {why}",
            table.name
        )))
    };
    if let Some(index) = table.indexes.iter().find(|index| index.state != IndexState::Ready) {
        return not_now(format!("index \"{}\" is being built", index.name));
    }
    let mut views = map.views.values().filter(|view| view.tables.contains(&id));
    let is_unready = |view: &&Arc<View>| {
        let materialized = view.materialized.as_ref();
        materialized.is_some_and(|materialized| !materialized.is_ready)
    };
    if let Some(view) = views.find(is_unready) {
        return not_now(format!("materialized view \"{}\" is being made", view.name));
    }
    if table.tracking.is_some() {
        return not_now(
            "replication links have its changes tracked; drop them, then ALTER TABLE ... SET (change_tracking = off)"
                .to_owned(),
        );
    }
    let uses = |statements: &[volt_engine::procedure::Statement]| statements.iter().any(|one| one.tables.contains(&id));
    let mut procedures = map.procedures.values();
    if let Some(procedure) = procedures.find(|procedure| uses(&procedure.statements)) {
        let (what, by) = (
            format!("move table \"{}\"", table.name),
            format!("procedure {}", procedure.name),
        );
        return Err(Refusal::MoveNeeded { what, by });
    }
    Ok(())
}

/// The table stays where it is.
pub(super) fn cancel(map: &mut ClusterMap, id: TableId) -> CommandResult {
    let phase = map.moves.get(&id).map(|one| one.phase);
    match phase {
        None => return Ok(Applied::Unchanged),
        Some(MovePhase::Closing) => return Err(Refusal::TableMoves(name_of(map, id))),
        Some(MovePhase::Copying) => {}
    }
    map.moves.remove(&id);
    drop_unused_groups(map);
    map.catalog_version += 1;
    Ok(Applied::Done)
}

/// A primary has come as far as the phase goes: with the last partition the next phase begins, or the table lies elsewhere.
pub(super) fn advance(
    map: &mut ClusterMap,
    (id, number): (TableId, u64),
    partition: PartitionId,
    epoch: Epoch,
    phase: MovePhase,
) -> CommandResult {
    let table = map.tables.get(&id).ok_or(Refusal::NoSuchTable(id))?;
    let from = map.groups.get(&table.group).map(|group| group.partitions.clone());
    let from = from.unwrap_or_default();
    let info = map
        .partitions
        .get(&partition)
        .filter(|_| from.contains(&partition))
        .ok_or(Refusal::NoSuchPartition(partition))?;
    if info.epoch != epoch {
        return Err(Refusal::StaleEpoch {
            partition,
            named: epoch,
            current: info.epoch,
        });
    }
    let is_meant = |one: &&mut TableMove| one.number == number && one.phase == phase;
    let Some(one) = map.moves.get_mut(&id).filter(is_meant) else {
        return Ok(Applied::Unchanged);
    };
    one.done.insert(partition);
    if !from.iter().all(|partition| one.done.contains(partition)) {
        return Ok(Applied::Done);
    }
    match phase {
        MovePhase::Copying => {
            one.phase = MovePhase::Closing;
            one.done.clear();
        }
        MovePhase::Closing => arrive(map, id),
    }
    map.catalog_version += 1;
    Ok(Applied::Done)
}

/// Rows have no more versions than that in one place: what is beyond it is another place's. 2^44 records of a partition are five years at
/// 100,000 a second.
const VERSIONS_OF_A_PLACE: i64 = 1 << 44;
/// And a table no more than that in one cluster, for whatever follows from its archive: 1,024 moves.
pub(super) const VERSIONS_OF_A_CLUSTER: i64 = 1 << 54;

/// Where versions begin that are others than those of before; what comes after the greatest begins anew.
pub(super) fn beyond(base: i64, versions: i64) -> i64 {
    base.wrapping_add(versions) & i64::MAX
}

fn arrive(map: &mut ClusterMap, id: TableId) {
    let Some(one) = map.moves.remove(&id) else { return };
    for table in &one.tables {
        if let Some(table) = map.tables.get_mut(table) {
            let table = Arc::make_mut(table);
            table.group = one.to;
            table.version_base = beyond(table.version_base, VERSIONS_OF_A_PLACE);
        }
    }
    drop_unused_groups(map);
}

/// Nothing may ask for copies of what is nothing.
pub(super) fn drop_unused_groups(map: &mut ClusterMap) {
    let lie = map.tables.values().map(|table| table.group);
    let used: BTreeSet<GroupId> = lie.chain(map.moves.values().map(|one| one.to)).collect();
    map.groups.retain(|group, _| used.contains(group));
    map.partitions.retain(|_, partition| used.contains(&partition.group));
}

/// Who is restored begins its moves anew: what had come to the new partitions by the moment may be less than was on record.
pub(super) fn begin_again(map: &mut ClusterMap) {
    for one in map.moves.values_mut() {
        one.number = map.catalog_version;
        one.phase = MovePhase::Copying;
        one.done.clear();
    }
}

/// What changes a table, or makes something that needs to know where it lies, waits until it has moved.
pub(super) fn check_resting(map: &ClusterMap, command: &Command) -> Result<(), Refusal> {
    if map.moves.is_empty() {
        return Ok(());
    }
    let changed: Vec<TableId> = match command {
        Command::AlterColumns { table, .. }
        | Command::SetTtl { table, .. }
        | Command::CreateIndex { table, .. }
        | Command::TrackTable { table, rule: Some(_) } => vec![*table],
        Command::CreateLink { tables, .. } => tables.keys().copied().collect(),
        Command::CreateView { view, .. } if view.materialized.is_some() => view.tables.iter().copied().collect(),
        Command::CreateProcedure { procedure, .. } => {
            let statements = procedure.statements.iter();
            statements.flat_map(|statement| &statement.tables).copied().collect()
        }
        Command::DropIndexes { indexes } => indexes
            .iter()
            .filter_map(|&index| {
                map.tables
                    .values()
                    .find(|table| table.indexes.iter().any(|one| one.shape.id == index))
            })
            .map(|table| table.id)
            .collect(),
        Command::DropViews { views } => {
            let materialized = views
                .iter()
                .filter_map(|view| map.views.get(view)?.materialized.as_ref());
            materialized.map(|view| view.table).collect()
        }
        _ => return Ok(()),
    };
    match changed.into_iter().find(|table| map.move_of(*table).is_some()) {
        Some(table) => Err(Refusal::TableMoves(name_of(map, table))),
        None => Ok(()),
    }
}

fn name_of(map: &ClusterMap, table: TableId) -> String {
    map.tables
        .get(&table)
        .map_or_else(String::new, |table| table.name.clone())
}
