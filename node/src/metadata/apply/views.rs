//! Views, and the tables that have the rows of materialized ones.

use std::collections::BTreeSet;
use std::sync::Arc;

use volt_engine::TableId;
use volt_engine::catalog::{IndexState, Table, ViewAggregate};
use volt_engine::idempotency::FIRST_RESERVED_TABLE;

use super::{columns, indexes, procedures, tables};
use crate::metadata::command::{
    Applied, CommandResult, MAX_MATERIALIZED_VIEWS, MAX_VIEWS, NewMaterialized, NewView, Refusal,
};
use crate::metadata::map::{ClusterMap, MaterializedView, View};

pub(super) fn create(map: &mut ClusterMap, new: NewView, replace: bool) -> CommandResult {
    let earlier = map.views.get(&new.name).cloned();
    if earlier.is_none() && map.has_relation(&new.name) || earlier.is_some() && !replace {
        return Err(Refusal::TableExists(new.name));
    }
    if earlier.is_none() && map.views.len() >= MAX_VIEWS {
        let message = format!("a cluster has at most {MAX_VIEWS} views");
        return Err(Refusal::NotAllowed(message));
    }
    // It was planned with what may be gone by now.
    if let Some(missing) = new.tables.iter().find(|table| !map.tables.contains_key(table)) {
        return Err(Refusal::NoSuchTable(*missing));
    }
    if let Some(missing) = new.views.iter().find(|view| !map.views.contains_key(*view)) {
        return Err(Refusal::NoSuchView(missing.clone()));
    }
    if let Some(earlier) = earlier {
        check_replaced(map, &earlier, &new)?;
    }
    let materialized = match new.materialized {
        None => None,
        Some(materialized) => Some(materialize(map, &new.name, materialized)?),
    };
    let table = materialized.as_ref().map(|materialized| materialized.table);
    let view = View {
        name: new.name.clone(),
        query: new.query,
        columns: new.columns,
        tables: new.tables,
        views: new.views,
        fields: new.fields,
        weight: new.weight,
        materialized,
    };
    map.views.insert(new.name, Arc::new(view));
    map.catalog_version += 1;
    Ok(Applied::ViewCreated(table))
}

/// As in PostgreSQL: columns may come, behind those that there are. Nor may a view read itself.
fn check_replaced(map: &ClusterMap, earlier: &View, new: &NewView) -> Result<(), Refusal> {
    if earlier.materialized.is_some() || new.materialized.is_some() {
        return Err(Refusal::CannotReplace(format!("\"{}\" is not a view", new.name)));
    }
    if !new.columns.starts_with(&earlier.columns) {
        let message = "cannot change the names, types or order of a view's columns, nor drop one";
        return Err(Refusal::CannotReplace(message.to_owned()));
    }
    let (old, now) = (earlier.weight, new.weight);
    let grows = now.depth > old.depth || now.queries > old.queries || now.relations > old.relations;
    if let Some(other) = map
        .views
        .values()
        .find(|other| other.views.contains(&new.name))
        .filter(|_| grows)
    {
        let message = format!("view \"{}\" reads it, and would become more complex", other.name);
        return Err(Refusal::CannotReplace(message));
    }
    let (mut seen, mut open) = (BTreeSet::new(), new.views.iter().collect::<Vec<_>>());
    while let Some(name) = open.pop() {
        if *name == new.name {
            return Err(Refusal::CannotReplace(format!("view \"{name}\" would read itself")));
        }
        if seen.insert(name) {
            open.extend(map.views.get(name).into_iter().flat_map(|view| &view.views));
        }
    }
    Ok(())
}

/// An error changes nothing.
fn materialize(map: &mut ClusterMap, name: &str, new: NewMaterialized) -> Result<MaterializedView, Refusal> {
    let id = map.next_table;
    if id >= FIRST_RESERVED_TABLE {
        return Err(Refusal::Invalid("all numbers of tables are used up".to_owned()));
    }
    let source = new.shape.source;
    let source = map.tables.get(&source).cloned().ok_or(Refusal::NoSuchTable(source))?;
    let of_source = map.tables.values().filter_map(|table| table.view.as_ref());
    if of_source.filter(|view| view.source == source.id).count() >= MAX_MATERIALIZED_VIEWS {
        let message = format!("a table has at most {MAX_MATERIALIZED_VIEWS} materialized views");
        return Err(Refusal::NotAllowed(message));
    }
    let groups = new.shape.groups.len();
    let widths = new
        .shape
        .aggregates
        .iter()
        .map(|aggregate| aggregate.column_types().len());
    let width = groups + 1 + widths.sum::<usize>();
    let is_placed = new.partition_column.is_none_or(|place| place < groups);
    if source.view.is_some() || groups == 0 || new.columns.len() != width || !is_placed {
        let reason = "a materialized view's columns are its groups', the number of rows, and its aggregates'";
        return Err(Refusal::Invalid(reason.to_owned()));
    }
    let mut shape = new.shape;
    columns::check_shape(&source, &shape)?;
    shape.missing = source.missing();
    let next_index = map.next_index;
    let mut numbers = Vec::new();
    let mut with_indexes = Table::clone(&source);
    for index in new.indexes {
        let defined = indexes::defined(map, &with_indexes, index, IndexState::Ready);
        let mut index = defined.inspect_err(|_| map.next_index = next_index)?;
        index.view = Some(id);
        numbers.push(index.shape.id);
        with_indexes.indexes.push(index);
    }
    for aggregate in &mut shape.aggregates {
        if let ViewAggregate::Extreme { index, .. } = aggregate {
            let number = numbers.get(*index as usize).copied();
            let none = || Refusal::Invalid("MIN and MAX of a materialized view need an index".to_owned());
            *index = number.ok_or_else(none).inspect_err(|_| map.next_index = next_index)?;
        }
    }
    map.next_table += 1;
    map.tables.insert(source.id, Arc::new(with_indexes));
    let table = Table {
        id,
        name: name.to_owned(),
        columns: new.columns,
        primary_key: (0..groups).collect(),
        // Of a replicated table each partition has all groups. No condition of a statement reaches the number of rows.
        partition_column: (!source.is_replicated()).then_some(new.partition_column.unwrap_or(groups)),
        group: source.group,
        indexes: Vec::new(),
        checks: Vec::new(),
        ttl: None,
        view: Some(Box::new(shape)),
        tracking: None,
        version_base: 0,
    };
    map.tables.insert(id, Arc::new(table));
    Ok(MaterializedView {
        table: id,
        is_ready: false,
    })
}

pub(super) fn built(map: &mut ClusterMap, table: TableId) -> CommandResult {
    let name = map.tables.get(&table).map(|table| table.name.clone());
    let view = name.and_then(|name| map.views.get_mut(&name));
    let view = view.ok_or(Refusal::NoSuchTable(table))?;
    if let Some(materialized) = &mut Arc::make_mut(view).materialized {
        materialized.is_ready = true;
        map.catalog_version += 1;
    }
    Ok(Applied::Done)
}

/// All of them or none.
pub(super) fn drop(map: &mut ClusterMap, names: &BTreeSet<String>) -> CommandResult {
    for name in names {
        let view = map.views.get(name).ok_or_else(|| Refusal::NoSuchView(name.clone()))?;
        let needs = |other: &&Arc<View>| other.views.contains(name) && !names.contains(&other.name);
        if let Some(other) = map.views.values().find(needs) {
            return Err(Refusal::NeededByView {
                what: format!("view {name}"),
                view: other.name.clone(),
            });
        }
        if let Some(materialized) = &view.materialized {
            procedures::check_unneeded(map, materialized.table)?;
        }
    }
    for name in names {
        let materialized = map.views.remove(name).and_then(|view| view.materialized.clone());
        let table = materialized.and_then(|materialized| map.tables.get(&materialized.table).cloned());
        if let Some((table, shape)) = table.and_then(|table| Some((table.id, table.view.clone()?))) {
            indexes::change(map, shape.source, |source| {
                source.indexes.retain(|index| index.view != Some(table));
            });
            tables::drop_table(map, table)?;
        }
    }
    map.catalog_version += 1;
    Ok(Applied::Done)
}

/// An error while a view reads the table.
pub(super) fn check_unneeded(map: &ClusterMap, table: TableId) -> Result<(), Refusal> {
    match map.views.values().find(|view| view.tables.contains(&table)) {
        None => Ok(()),
        Some(view) => Err(Refusal::NeededByView {
            what: format!("table {}", map.tables.get(&table).map_or("", |table| &table.name)),
            view: view.name.clone(),
        }),
    }
}

#[cfg(test)]
mod tests;
