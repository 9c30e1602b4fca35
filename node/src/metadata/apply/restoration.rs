//! A cluster that becomes what another one was.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use volt_engine::catalog::{IndexState, Table};
use volt_engine::{Epoch, GroupId, PartitionId};

use super::moves;
use super::tables::first_partition;
use crate::metadata::command::{Applied, Command, CommandResult, Refusal};
use crate::metadata::map::{ClusterMap, ReplicationGroup, Restoration, View};
use crate::metadata::standby::Standby;

/// The catalog of the archived cluster in one that has none; its partitions begin empty, and are restored by their primaries.
pub(super) fn begin(
    map: &mut ClusterMap,
    archived: ClusterMap,
    restoration: Restoration,
    is_standby: bool,
) -> CommandResult {
    if map.restored_micros.is_some() {
        return Ok(Applied::Unchanged); // asked for again by who did not hear the answer
    }
    let is_empty = map.tables.is_empty() && map.views.is_empty() && map.procedures.is_empty();
    if !is_empty || !map.sequences.is_empty() {
        let message = "only a cluster without tables, views, procedures and sequences can be restored";
        return Err(Refusal::NotAllowed(message.to_owned()));
    }
    if !map.placeable().any(|node| node.state.is_alive()) {
        return Err(Refusal::NotAllowed("no living node can take replicas".to_owned()));
    }
    map.standby = is_standby.then(|| Standby {
        url: restoration.url.clone(),
        at_micros: restoration.at_micros,
        archived_version: archived.version,
        promotion: None,
    });
    take_catalog(map, archived);
    map.awaits_restoration = false;
    map.restored_micros = Some(restoration.at_micros);
    map.restoration = (!restoration.left.is_empty()).then_some(restoration);
    Ok(Applied::Done)
}

/// The archived cluster's catalog takes the place of what there is. Partitions that are new begin empty; those of groups that are gone go.
pub(super) fn take_catalog(map: &mut ClusterMap, archived: ClusterMap) {
    map.partitions_per_group = archived.partitions_per_group;
    map.tables = archived
        .tables
        .into_iter()
        .map(|(id, table)| (id, finished(table)))
        .collect();
    map.views = archived
        .views
        .into_iter()
        .map(|(name, view)| (name, built(view)))
        .collect();
    map.procedures = archived.procedures;
    map.sequences = archived.sequences;
    let before = std::mem::replace(&mut map.groups, archived.groups);
    map.moves = archived.moves;
    map.next_table = map.next_table.max(archived.next_table);
    map.next_group = map.next_group.max(archived.next_group);
    map.next_partition = map.next_partition.max(archived.next_partition);
    map.next_index = map.next_index.max(archived.next_index);
    map.next_procedure = map.next_procedure.max(archived.next_procedure);
    map.next_sequence = map.next_sequence.max(archived.next_sequence);
    map.catalog_version += 1;
    moves::begin_again(map);
    let groups = &map.groups;
    map.partitions.retain(|_, info| groups.contains_key(&info.group));
    for info in map.partitions.values_mut() {
        let mode = |groups: &BTreeMap<GroupId, ReplicationGroup>| groups.get(&info.group).map(|group| group.mode);
        if mode(&before) != mode(&map.groups) {
            info.epoch += 1; // as when a statement changes it
        }
    }
    let places: Vec<(u32, u32, PartitionId)> = map
        .groups
        .iter()
        .flat_map(|(&group, of)| (0..).zip(&of.partitions).map(move |(index, &id)| (group, index, id)))
        .collect();
    for (group, index, id) in places {
        if !map.partitions.contains_key(&id) {
            let partition = first_partition(map, group, index, id);
            map.partitions.insert(id, partition);
        }
    }
}

/// Indexes are built as the rows come; a unique one that was not ready may meet rows that it forbids, and nobody was told that it is there.
/// Links are not restored, and without them nothing is tracked. LSNs begin anew, so that versions must not.
fn finished(table: Arc<Table>) -> Arc<Table> {
    let mut table = table;
    let changed = Arc::make_mut(&mut table);
    changed.tracking = None;
    changed.version_base = moves::beyond(changed.version_base, moves::VERSIONS_OF_A_CLUSTER);
    if table.indexes.iter().all(|index| index.state == IndexState::Ready) {
        return table;
    }
    let mut table = Table::clone(&table);
    table
        .indexes
        .retain(|index| !index.unique || index.state == IndexState::Ready);
    for index in &mut table.indexes {
        index.state = IndexState::Ready;
    }
    Arc::new(table)
}

/// Of nothing it has all rows from the start.
fn built(view: Arc<View>) -> Arc<View> {
    let mut view = view;
    if view
        .materialized
        .as_ref()
        .is_some_and(|materialized| !materialized.is_ready)
    {
        let view = Arc::make_mut(&mut view);
        if let Some(materialized) = &mut view.materialized {
            materialized.is_ready = true;
        }
    }
    view
}

/// One partition is what it was. Only its primary of this moment says so: whoever comes after it begins again, and must not be taken
/// for one that is done.
pub(super) fn restored(map: &mut ClusterMap, partition: PartitionId, epoch: Epoch) -> CommandResult {
    let current = map.partitions.get(&partition).map(|info| info.epoch);
    let current = current.ok_or(Refusal::NoSuchPartition(partition))?;
    if current != epoch {
        return Err(Refusal::StaleEpoch {
            current,
            named: epoch,
            partition,
        });
    }
    let Some(restoration) = &mut map.restoration else {
        return Ok(Applied::Unchanged);
    };
    restoration.left.remove(&partition);
    if restoration.left.is_empty() {
        map.restoration = None;
        map.catalog_version += 1;
    }
    Ok(Applied::Done)
}

/// Whether a command would change a catalog.
pub(super) fn changes_catalog(command: &Command) -> bool {
    matches!(
        command,
        Command::CreateTable { .. }
            | Command::SetReplication { .. }
            | Command::AdvanceMove { .. }
            | Command::CreateLink { .. }
            | Command::TrackTable { .. }
            | Command::DropTables { .. }
            | Command::AlterColumns { .. }
            | Command::SetTtl { .. }
            | Command::CreateIndex { .. }
            | Command::DropIndexes { .. }
            | Command::CreateView { .. }
            | Command::DropViews { .. }
            | Command::CreateProcedure { .. }
            | Command::DropProcedures { .. }
            | Command::RenameProcedure { .. }
            | Command::CreateSequence { .. }
            | Command::DropSequences { .. }
            | Command::TakeSequenceValues { .. }
            | Command::RestartSequence { .. }
    )
}
