//! ALTER TABLE ... ADD COLUMN, DROP COLUMN and the defaults of columns: the catalog changes, rows don't. In a column that a
//! row lacks it has what the column was added with; what it has in a dropped column nobody sees.
//!
//! All that a statement says is one change of the catalog. What it leads to depends on what there is, so it is worked out
//! again when the catalog has changed before the change came to it.

use datafusion::sql::sqlparser::ast::{
    AlterColumnOperation, AlterTable, AlterTableOperation, ColumnDef, ColumnOption, ColumnOptionDef, DropBehavior,
    Expr as AstExpr,
};
use volt_engine::catalog::{Column, ColumnDefault, Table};
use volt_engine::plan::eval::cast_value;
use volt_engine::value::Value;

use super::SqlEngine;
use super::ddl::{column, name_of, table_name};
use super::execute::Notices;
use super::mentions::mentions;
use super::sequence::{is_of_sequence, serial_type};
use super::syntax::position_of;
use crate::error::SqlError;
use crate::metadata::ProposeError;
use crate::metadata::command::{ColumnChange, Command, Refusal};
use crate::metadata::map::ClusterMap;

/// How often a change is worked out anew because another statement has changed the catalog.
const ALTER_TRIES: u32 = 10;

/// What is to become of a table.
pub(super) struct AlterPlan {
    table: String,
    if_exists: bool,
    /// Each with whether it may be gone already.
    dropped: Vec<(String, bool)>,
    /// Each with whether it may be there already.
    added: Vec<(Column, bool)>,
    /// What columns that are there have in rows that don't name them.
    defaults: Vec<(String, NewDefault)>,
}

/// SET DEFAULT, with the expression, or DROP DEFAULT.
type NewDefault = Option<AstExpr>;

/// What the statement says.
pub(super) fn plan(alter: &AlterTable, sql: &str) -> Result<AlterPlan, SqlError> {
    let (mut dropped, mut added, mut defaults) = (Vec::new(), Vec::new(), Vec::new());
    for operation in &alter.operations {
        match operation {
            AlterTableOperation::AddColumn {
                if_not_exists,
                column_def,
                column_position: None,
                ..
            } => added.push((new_column(column_def, sql)?, *if_not_exists)),
            AlterTableOperation::DropColumn {
                drop_behavior: Some(DropBehavior::Cascade),
                ..
            } => {
                return Err(SqlError::unsupported("ALTER TABLE ... DROP COLUMN ... CASCADE")
                    .hint("Drop the views and the procedures that use the column first."));
            }
            AlterTableOperation::DropColumn {
                column_names,
                if_exists,
                ..
            } => dropped.extend(column_names.iter().map(|name| (name_of(name), *if_exists))),
            AlterTableOperation::AlterColumn {
                column_name,
                op: AlterColumnOperation::SetDefault { value },
            } => defaults.push((name_of(column_name), Some(value.clone()))),
            AlterTableOperation::AlterColumn {
                column_name,
                op: AlterColumnOperation::DropDefault,
            } => defaults.push((name_of(column_name), None)),
            AlterTableOperation::SetOptionsParens { .. } => {
                return Err(SqlError::unsupported(
                    "SET (...) beside something else in one ALTER TABLE",
                ));
            }
            operation => return Err(SqlError::unsupported(format!("ALTER TABLE ... {operation}"))),
        }
    }
    Ok(AlterPlan {
        table: table_name(&alter.name)?,
        if_exists: alter.if_exists,
        dropped,
        added,
        defaults,
    })
}

/// A column that rows may lack.
fn new_column(definition: &ColumnDef, sql: &str) -> Result<Column, SqlError> {
    let is_offered = |option: &ColumnOption| {
        matches!(
            option,
            ColumnOption::Null | ColumnOption::NotNull | ColumnOption::Default(_)
        ) && !is_of_sequence(option)
    };
    let refused = |option: &&ColumnOptionDef| !is_offered(&option.option);
    if let Some(option) = definition.options.iter().find(refused) {
        let what = format!("{} of a column that is added", option.option);
        return Err(SqlError::unsupported(what)
            .hint("Rows that are there have NULL in a new column, or a constant: add it without, then UPDATE."));
    }
    if serial_type(&definition.data_type).is_some() {
        let what = format!("{} of a column that is added", definition.data_type);
        return Err(SqlError::unsupported(what));
    }
    let column = column(definition, &mut Vec::new(), sql)?;
    match (column.nullable, &column.default) {
        (false, None) => Err(
            SqlError::unsupported("NOT NULL of a column that is added without a DEFAULT")
                .hint("Rows that are there have the DEFAULT in a new column."),
        ),
        (false, Some(ColumnDefault::Value(Value::Null))) => {
            let message = format!("column \"{}\" contains null values", column.name);
            Err(SqlError::new("23502", message))
        }
        _ => Ok(column),
    }
}

/// What rows have that were there before the column: its default at this time.
fn missing_in(column: &Column, now_micros: i64) -> Result<Value, SqlError> {
    match &column.default {
        Some(ColumnDefault::Value(value)) => Ok(value.clone()),
        Some(ColumnDefault::Now) => Ok(cast_value(Value::Timestamp(now_micros), column.data_type)?),
        Some(ColumnDefault::Sequence { .. }) => Err(SqlError::internal("a sequence of a column that is added")),
        None => Ok(Value::Null),
    }
}

impl SqlEngine {
    pub(super) async fn alter_table(&self, plan: &AlterPlan, sql: &str) -> Result<Notices, SqlError> {
        let now_micros = self.coordinator.context().now_micros;
        let mut stale = SqlError::new("40001", Refusal::StaleCatalog.to_string());
        for _ in 0..ALTER_TRIES {
            // Another node may have changed it a moment ago.
            self.metadata.refresh().await?;
            let map = self.metadata.map();
            let Some(table) = map.table(&plan.table) else {
                return missing(plan, &map, sql);
            };
            let (changes, notices) = changes(plan, table, &map, now_micros)?;
            if changes.is_empty() {
                return Ok(notices);
            }
            let command = Command::AlterColumns {
                table: table.id,
                changes,
                catalog_version: map.catalog_version,
            };
            match self.metadata.propose(command).await {
                Ok(_) => return Ok(notices),
                Err(error @ ProposeError::Refused(Refusal::StaleCatalog)) => stale = error.into(),
                Err(error) => return Err(error.into()),
            }
        }
        Err(stale)
    }
}

/// There is no such table.
fn missing(plan: &AlterPlan, map: &ClusterMap, sql: &str) -> Result<Notices, SqlError> {
    if map.views.contains_key(&plan.table) {
        return Err(super::views::not_a_table(map, &plan.table));
    }
    let message = format!("relation \"{}\" does not exist", plan.table);
    if plan.if_exists {
        return Ok(vec![("NOTICE", "00000", message + ", skipping")]);
    }
    Err(at(SqlError::new("42P01", message), sql, &plan.table))
}

/// What changes in this catalog. As in PostgreSQL columns are dropped before others are added, whatever the order in which
/// they are named, so that a name can be given again at once.
fn changes(
    plan: &AlterPlan,
    table: &Table,
    map: &ClusterMap,
    now_micros: i64,
) -> Result<(Vec<ColumnChange>, Notices), SqlError> {
    let (mut changes, mut notices) = (Vec::new(), Notices::new());
    let mut names: Vec<&str> = table
        .present_columns()
        .map(|(_, column)| column.name.as_str())
        .collect();
    for (name, if_exists) in &plan.dropped {
        if names.contains(&name.as_str()) {
            check_unneeded(table, name, map)?;
            names.retain(|known| known != name);
            changes.push(ColumnChange::Drop(name.clone()));
            continue;
        }
        let (column, table) = (name.clone(), table.name.clone());
        let refusal = Refusal::NoSuchColumn { column, table };
        if !if_exists {
            return Err(ProposeError::Refused(refusal).into());
        }
        notices.push(("NOTICE", "00000", format!("{refusal}, skipping")));
    }
    for (column, if_not_exists) in &plan.added {
        if !names.contains(&column.name.as_str()) {
            names.push(&column.name);
            let missing = missing_in(column, now_micros)?;
            changes.push(ColumnChange::Add(Column {
                missing,
                ..column.clone()
            }));
            continue;
        }
        let (column, table) = (column.name.clone(), table.name.clone());
        let refusal = Refusal::ColumnExists { column, table };
        if !if_not_exists {
            return Err(ProposeError::Refused(refusal).into());
        }
        notices.push(("NOTICE", "42701", format!("{refusal}, skipping")));
    }
    for (name, default) in &plan.defaults {
        changes.push(new_default(table, name, default.as_ref())?);
    }
    Ok((changes, notices))
}

/// SET DEFAULT or DROP DEFAULT of a column that was there before the statement.
fn new_default(table: &Table, name: &str, default: Option<&AstExpr>) -> Result<ColumnChange, SqlError> {
    let Some(place) = table.place_of(name) else {
        let (column, table) = (name.to_owned(), table.name.clone());
        return Err(ProposeError::Refused(Refusal::NoSuchColumn { column, table }).into());
    };
    let column = &table.columns[place];
    if let Some(ColumnDefault::Sequence { .. }) = column.default {
        let what = format!("another default of column \"{name}\", which takes the values of a sequence,");
        return Err(SqlError::unsupported(what));
    }
    let default = default.map(|expr| super::ddl::default(expr, column.data_type));
    Ok(ColumnChange::Default(name.to_owned(), default.transpose()?))
}

/// An error while something would be left without the column.
fn check_unneeded(table: &Table, name: &str, map: &ClusterMap) -> Result<(), SqlError> {
    let place = table.place_of(name);
    if place.is_some_and(|place| table.primary_key.contains(&place)) {
        let what = format!(
            "dropping column \"{name}\", which is part of the primary key of \"{}\",",
            table.name
        );
        return Err(
            SqlError::unsupported(what).hint("Rows lie where their keys say: make another table and move them.")
        );
    }
    let needed = |by: String, hint: &str| {
        let message = format!(
            "cannot drop column {name} of table {} because {by} depends on it",
            table.name
        );
        Err(SqlError::new("2BP01", message).hint(hint))
    };
    for view in map.views.values().filter(|view| view.tables.contains(&table.id)) {
        if mentions(&view.query, &table.name, name)? {
            return needed(format!("view {}", view.name), "Drop the view first.");
        }
    }
    for procedure in map.procedures.values() {
        for statement in procedure.statements.iter().filter(|one| one.tables.contains(&table.id)) {
            if mentions(&statement.sql, &table.name, name)? {
                return needed(format!("procedure {}", procedure.name), "Drop the procedure first.");
            }
        }
    }
    Ok(())
}

fn at(error: SqlError, sql: &str, name: &str) -> SqlError {
    match position_of(sql, name) {
        Some(position) => error.at(position),
        None => error,
    }
}
