//! Sequences: made, dropped, restarted, and their values handed out.

use std::collections::BTreeSet;
use std::sync::Arc;

use volt_engine::catalog::{Column, ColumnDefault, SequenceDefault, Table};
use volt_engine::{SequenceId, TableId};

use crate::metadata::command::{Applied, CommandResult, NewTable, OwnedSequence, Refusal};
use crate::metadata::map::ClusterMap;
use crate::metadata::sequence::{MAX_SEQUENCES, Sequence};

pub(super) fn create(map: &mut ClusterMap, new: Sequence) -> CommandResult {
    check(map, &new)?;
    let id = add(map, new, None);
    map.catalog_version += 1;
    Ok(Applied::SequenceCreated(id))
}

fn check(map: &ClusterMap, new: &Sequence) -> Result<(), Refusal> {
    if map.has_relation(&new.name) {
        return Err(Refusal::TableExists(new.name.clone()));
    }
    if !new.is_sound() {
        return Err(Refusal::Invalid("a sequence's bounds contradict each other".to_owned()));
    }
    if map.sequences.len() >= MAX_SEQUENCES {
        let message = format!("a cluster has at most {MAX_SEQUENCES} sequences");
        return Err(Refusal::NotAllowed(message));
    }
    Ok(())
}

fn add(map: &mut ClusterMap, new: Sequence, owner: Option<(TableId, usize)>) -> SequenceId {
    let id = map.next_sequence.max(1);
    map.next_sequence = id + 1;
    let next = Some(new.start);
    map.sequences.insert(
        id,
        Arc::new(Sequence {
            id,
            owner,
            next,
            generation: 0,
            ..new
        }),
    );
    id
}

/// An error if a table can't have its sequences: its own, or those that its columns take values of, which may have been
/// dropped meanwhile.
pub(super) fn check_table(map: &ClusterMap, table: &NewTable) -> Result<(), Refusal> {
    let mut names = BTreeSet::from([table.name.as_str()]);
    names.extend(table.indexes.iter().map(|index| index.name.as_str()));
    for one in &table.sequences {
        check(map, &one.sequence)?;
        if !names.insert(&one.sequence.name) {
            return Err(Refusal::TableExists(one.sequence.name.clone()));
        }
        if one.column >= table.columns.len() {
            return Err(Refusal::Invalid("a sequence's column is its table's".to_owned()));
        }
    }
    let mut taken = table.columns.iter().filter_map(sequence_of);
    match taken.find(|(id, _)| !map.sequences.contains_key(id)) {
        Some((missing, _)) => Err(Refusal::NoSuchSequence(missing)),
        None => Ok(()),
    }
}

fn sequence_of(column: &Column) -> Option<(SequenceId, SequenceDefault)> {
    match column.default {
        Some(ColumnDefault::Sequence { sequence, kind }) => Some((sequence, kind)),
        _ => None,
    }
}

/// Makes them, each its column's default.
pub(super) fn add_owned(map: &mut ClusterMap, table: &mut Table, owned: Vec<OwnedSequence>) {
    for one in owned {
        let sequence = add(map, one.sequence, Some((table.id, one.column)));
        let kind = one.kind;
        table.columns[one.column].default = Some(ColumnDefault::Sequence { sequence, kind });
    }
}

/// A table goes, and what it owns.
pub(super) fn drop_owned(map: &mut ClusterMap, table: TableId) {
    map.sequences
        .retain(|_, sequence| sequence.owner.is_none_or(|(owner, _)| owner != table));
}

/// Columns have gone, and what they own goes with them. An error while something else takes its values.
pub(super) fn drop_owned_by_columns(
    map: &mut ClusterMap,
    table: TableId,
    places: &BTreeSet<usize>,
) -> Result<(), Refusal> {
    let is_theirs = |owner: (TableId, usize)| owner.0 == table && places.contains(&owner.1);
    let is_owned = |sequence: &Sequence| sequence.owner.is_some_and(is_theirs);
    let mut owned = map.sequences.values().filter(|sequence| is_owned(sequence));
    owned.try_for_each(|sequence| check_unneeded(map, sequence, &BTreeSet::new()))?;
    map.sequences.retain(|_, sequence| !is_owned(sequence));
    Ok(())
}

/// An error while others take values of what these tables own.
pub(super) fn check_owned_unneeded(map: &ClusterMap, tables: &BTreeSet<TableId>) -> Result<(), Refusal> {
    let is_owned = |sequence: &&Arc<Sequence>| sequence.owner.is_some_and(|(table, _)| tables.contains(&table));
    let mut owned = map.sequences.values().filter(is_owned);
    owned.try_for_each(|sequence| check_unneeded(map, sequence, tables))
}

/// All of them or none.
pub(super) fn drop(map: &mut ClusterMap, sequences: &BTreeSet<SequenceId>) -> CommandResult {
    for id in sequences {
        let sequence = map.sequences.get(id).ok_or(Refusal::NoSuchSequence(*id))?;
        check_unneeded(map, sequence, &BTreeSet::new())?;
    }
    map.sequences.retain(|id, _| !sequences.contains(id));
    map.catalog_version += 1;
    Ok(Applied::Done)
}

/// An error while a column of another table than these, or a procedure, takes its values.
fn check_unneeded(map: &ClusterMap, sequence: &Sequence, but: &BTreeSet<TableId>) -> Result<(), Refusal> {
    let needed = |by: String| {
        let sequence = sequence.name.clone();
        Err(Refusal::SequenceNeeded { sequence, by })
    };
    for table in map.tables.values().filter(|table| !but.contains(&table.id)) {
        for column in &table.columns {
            let Some((_, kind)) = sequence_of(column).filter(|(id, _)| *id == sequence.id) else {
                continue;
            };
            let what = match kind {
                SequenceDefault::Plain => "default value for column",
                SequenceDefault::Identity | SequenceDefault::IdentityAlways => "column",
            };
            return needed(format!("{what} {} of table {}", column.name, table.name));
        }
    }
    let mut procedures = map.procedures.values();
    match procedures.find(|procedure| procedure.sequences().any(|id| id == sequence.id)) {
        None => Ok(()),
        Some(procedure) => needed(format!("procedure {}", procedure.name)),
    }
}

/// Nobody else gets these values. Plans have nothing to do with it.
pub(super) fn take(map: &mut ClusterMap, id: SequenceId, count: u32) -> CommandResult {
    let sequence = map.sequences.get_mut(&id).ok_or(Refusal::NoSuchSequence(id))?;
    match Arc::make_mut(sequence).hand_out(count) {
        Some(block) => Ok(Applied::SequenceValues(block)),
        None => Err(Refusal::SequenceUsedUp(id)),
    }
}

pub(super) fn restart(map: &mut ClusterMap, id: SequenceId, value: i64, is_taken: bool) -> CommandResult {
    let sequence = map.sequences.get_mut(&id).ok_or(Refusal::NoSuchSequence(id))?;
    if !(sequence.min..=sequence.max).contains(&value) {
        return Err(Refusal::Invalid(format!("{value} is out of the sequence's bounds")));
    }
    Arc::make_mut(sequence).restart(value, is_taken);
    Ok(Applied::Done)
}
