//! Secondary indexes.

use std::collections::BTreeSet;
use std::sync::Arc;

use volt_engine::catalog::{Index, IndexShape, IndexState, Table};
use volt_engine::{IndexId, TableId};

use super::columns;
use crate::metadata::command::{Applied, CommandResult, MAX_INDEXES, NewIndex, Refusal};
use crate::metadata::map::ClusterMap;

/// The index that is to be made, with its number; an error leaves that unused.
pub(super) fn defined(map: &mut ClusterMap, table: &Table, new: NewIndex, state: IndexState) -> Result<Index, Refusal> {
    if map.has_relation(&new.name) || table.name == new.name || table.index(&new.name).is_some() {
        return Err(Refusal::TableExists(new.name));
    }
    if table.indexes.len() >= MAX_INDEXES {
        let message = format!("a table has at most {MAX_INDEXES} indexes");
        return Err(Refusal::NotAllowed(message));
    }
    let mut places = new.columns.iter().map(|column| column.place);
    if new.columns.is_empty() || places.any(|place| place >= table.columns.len()) {
        return Err(Refusal::Invalid("an index's columns are its table's".to_owned()));
    }
    columns::check_present(table, &new.columns, new.predicate.iter())?;
    let has = |place: usize| new.columns.iter().any(|column| column.place == place);
    if new.unique && !table.partition_column.is_none_or(has) {
        let message = "a unique index has the partition column among its columns";
        return Err(Refusal::Invalid(message.to_owned()));
    }
    let id = map.next_index.max(1);
    map.next_index = id + 1;
    Ok(Index {
        name: new.name,
        shape: IndexShape {
            id,
            columns: new.columns,
            predicate: new.predicate,
            missing: table.missing(),
        },
        unique: new.unique,
        constraint: new.constraint,
        view: None,
        state,
        source: new.source,
    })
}

pub(super) fn create(map: &mut ClusterMap, id: TableId, new: NewIndex) -> CommandResult {
    let table = map.tables.get(&id).cloned().ok_or(Refusal::NoSuchTable(id))?;
    let index = defined(map, &table, new, IndexState::Building)?;
    let number = index.shape.id;
    change(map, id, |table| table.indexes.push(index));
    Ok(Applied::IndexCreated(number))
}

pub(super) fn set_state(map: &mut ClusterMap, id: TableId, index: IndexId, state: IndexState) -> CommandResult {
    let table = map.tables.get(&id).ok_or(Refusal::NoSuchTable(id))?;
    let place = table.indexes.iter().position(|known| known.shape.id == index);
    let place = place.ok_or(Refusal::NoSuchIndex(index))?;
    change(map, id, |table| table.indexes[place].state = state);
    Ok(Applied::Done)
}

/// All of them or none.
pub(super) fn drop(map: &mut ClusterMap, indexes: &BTreeSet<IndexId>) -> CommandResult {
    let mut found = BTreeSet::new();
    for table in map.tables.values() {
        for index in &table.indexes {
            if !indexes.contains(&index.shape.id) {
                continue;
            }
            if let Some(view) = index.view.and_then(|view| map.tables.get(&view)) {
                let (what, view) = (format!("index {}", index.name), view.name.clone());
                return Err(Refusal::NeededByView { what, view });
            }
            if table.expires_by(index.shape.id) {
                let (index, table) = (index.name.clone(), table.name.clone());
                return Err(Refusal::NeededByTtl { index, table });
            }
            if index.constraint {
                let (index, table) = (index.name.clone(), table.name.clone());
                return Err(Refusal::IndexNeeded { index, table });
            }
            found.insert((table.id, index.shape.id));
        }
    }
    let is_found = |id: &&IndexId| found.iter().any(|(_, known)| known == *id);
    if let Some(missing) = indexes.iter().find(|id| !is_found(id)) {
        return Err(Refusal::NoSuchIndex(*missing));
    }
    for (table, index) in found {
        change(map, table, |table| {
            table.indexes.retain(|known| known.shape.id != index)
        });
    }
    Ok(Applied::Done)
}

/// Whoever holds the table as it was goes on with it.
pub(super) fn change(map: &mut ClusterMap, id: TableId, change: impl FnOnce(&mut Table)) {
    if let Some(table) = map.tables.get_mut(&id) {
        change(Arc::make_mut(table));
        map.catalog_version += 1;
    }
}
