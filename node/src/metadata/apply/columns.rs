//! Columns that tables gain and lose, and their defaults. No row changes: in a column that one lacks it has what the column was
//! added with, and what it has in a dropped column nobody reads.

use std::collections::BTreeSet;
use std::sync::Arc;

use volt_engine::TableId;
use volt_engine::catalog::{Column, ColumnDefault, IndexColumn, Table, ViewShape};
use volt_engine::changes::ConflictRule;
use volt_engine::plan::{Expr, Program};
use volt_engine::value::Value;

use super::{procedures, sequences};
use crate::metadata::command::{Applied, ColumnChange, CommandResult, MAX_COLUMNS, Refusal};
use crate::metadata::map::ClusterMap;

/// All of them or none. Whoever holds the table as it was goes on with it.
pub(super) fn alter(map: &mut ClusterMap, id: TableId, changes: Vec<ColumnChange>, version: u64) -> CommandResult {
    let before = map.tables.get(&id).cloned().ok_or(Refusal::NoSuchTable(id))?;
    if map.catalog_version != version {
        return Err(Refusal::StaleCatalog);
    }
    if before.view.is_some() {
        return Err(Refusal::Invalid(
            "a materialized view has no columns of its own".to_owned(),
        ));
    }
    let mut table = Table::clone(&before);
    let mut dropped = BTreeSet::new();
    for change in changes {
        match change {
            ColumnChange::Add(column) => add(&mut table, column)?,
            ColumnChange::Drop(name) => {
                dropped.insert(drop(map, &mut table, name)?);
            }
            ColumnChange::Default(name, default) => set_default(&mut table, name, default)?,
        }
    }
    map.tables.insert(id, Arc::new(table));
    let owned = sequences::drop_owned_by_columns(map, id, &dropped);
    owned.inspect_err(|_| {
        map.tables.insert(id, before);
    })?;
    for place in dropped {
        procedures::forget_column(map, id, place);
    }
    map.catalog_version += 1;
    Ok(Applied::Done)
}

fn add(table: &mut Table, column: Column) -> Result<(), Refusal> {
    if table.place_of(&column.name).is_some() {
        let (column, table) = (column.name, table.name.clone());
        return Err(Refusal::ColumnExists { column, table });
    }
    let takes_values = matches!(column.default, Some(ColumnDefault::Sequence { .. }));
    if takes_values || column.is_dropped || (!column.nullable && column.missing == Value::Null) {
        let reason = "rows that are there have one constant in a column that is added";
        return Err(Refusal::Invalid(reason.to_owned()));
    }
    if table.columns.len() >= MAX_COLUMNS {
        let message = format!("tables can have at most {MAX_COLUMNS} columns, those that were dropped among them");
        return Err(Refusal::NotAllowed(message));
    }
    table.columns.push(column);
    Ok(())
}

fn set_default(table: &mut Table, name: String, default: Option<ColumnDefault>) -> Result<(), Refusal> {
    let Some(place) = table.place_of(&name) else {
        let (column, table) = (name, table.name.clone());
        return Err(Refusal::NoSuchColumn { column, table });
    };
    let column = &mut table.columns[place];
    let is_of_sequence = |default: &Option<ColumnDefault>| matches!(default, Some(ColumnDefault::Sequence { .. }));
    if is_of_sequence(&column.default) || is_of_sequence(&default) {
        return Err(Refusal::Invalid("a sequence stays with its column".to_owned()));
    }
    column.default = default;
    Ok(())
}

/// The place that it leaves.
fn drop(map: &ClusterMap, table: &mut Table, name: String) -> Result<usize, Refusal> {
    let Some(place) = table.place_of(&name) else {
        let (column, table) = (name, table.name.clone());
        return Err(Refusal::NoSuchColumn { column, table });
    };
    if table.primary_key.contains(&place) {
        return Err(Refusal::Invalid("a column of the primary key stays".to_owned()));
    }
    if table.tracking == Some(ConflictRule::Greatest(place)) {
        let message = format!(
            "conflicts of table \"{}\" are resolved by column \"{name}\"",
            table.name
        );
        return Err(Refusal::NotAllowed(message));
    }
    let of_table = map.tables.values().filter_map(|view| Some((view, view.view.as_ref()?)));
    let mut of_table = of_table.filter(|(_, shape)| shape.source == table.id);
    if let Some((view, _)) = of_table.find(|(_, shape)| shape.reads(place)) {
        return Err(Refusal::NeededByView {
            what: format!("column {name} of table {}", table.name),
            view: view.name.clone(),
        });
    }
    table.drop_column(place);
    Ok(place)
}

/// An error if what was planned looks at a column that was dropped since.
pub(super) fn check_present<'e>(
    table: &Table,
    columns: &[IndexColumn],
    exprs: impl Iterator<Item = &'e Expr> + Clone,
) -> Result<(), Refusal> {
    let is_read = |place: usize| {
        columns.iter().any(|column| column.place == place) || exprs.clone().any(|expr| expr.reads(place))
    };
    let mut dropped = (0..table.columns.len()).filter(|place| table.columns[*place].is_dropped);
    match dropped.any(is_read) {
        true => Err(Refusal::StaleCatalog),
        false => Ok(()),
    }
}

/// As `check_present`.
pub(super) fn check_shape(table: &Table, shape: &ViewShape) -> Result<(), Refusal> {
    let mut dropped = (0..table.columns.len()).filter(|place| table.columns[*place].is_dropped);
    match dropped.any(|place| shape.reads(place)) {
        true => Err(Refusal::StaleCatalog),
        false => Ok(()),
    }
}

/// An error if a program was made before a column of its table was dropped.
pub(super) fn check_program(map: &ClusterMap, program: &Program) -> Result<(), Refusal> {
    let Some(table) = map.tables.get(&program.table) else {
        return Err(Refusal::NoSuchTable(program.table));
    };
    let mut pairs = program.columns.iter().zip(&table.columns);
    match pairs.all(|(planned, column)| planned.is_dropped == column.is_dropped) {
        true => Ok(()),
        false => Err(Refusal::StaleCatalog),
    }
}

#[cfg(test)]
mod tests;
