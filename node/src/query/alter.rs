//! ALTER TABLE ... ADD COLUMN: the catalog changes, rows don't. What a row lacks is NULL.

use datafusion::sql::sqlparser::ast::{AlterTable, AlterTableOperation, ColumnDef, ColumnOption, ColumnOptionDef};
use volt_engine::catalog::Column;

use super::SqlEngine;
use super::ddl::{column, table_name};
use super::execute::Notices;
use super::sequence::serial_type;
use super::syntax::position_of;
use crate::error::SqlError;
use crate::metadata::ProposeError;
use crate::metadata::command::{Command, Refusal};

/// Columns to be added.
pub(super) struct AlterPlan {
    table: String,
    if_exists: bool,
    /// Each with whether it may be there already.
    columns: Vec<(Column, bool)>,
}

/// What the statement says.
pub(super) fn plan(alter: &AlterTable, sql: &str) -> Result<AlterPlan, SqlError> {
    let mut columns = Vec::with_capacity(alter.operations.len());
    for operation in &alter.operations {
        let AlterTableOperation::AddColumn {
            if_not_exists,
            column_def,
            column_position: None,
            ..
        } = operation
        else {
            return Err(SqlError::unsupported(format!("ALTER TABLE ... {operation}")));
        };
        columns.push((added(column_def, sql)?, *if_not_exists));
    }
    Ok(AlterPlan {
        table: table_name(&alter.name)?,
        if_exists: alter.if_exists,
        columns,
    })
}

/// A column that rows may lack.
fn added(definition: &ColumnDef, sql: &str) -> Result<Column, SqlError> {
    let refused = |option: &&ColumnOptionDef| !matches!(option.option, ColumnOption::Null);
    if let Some(option) = definition.options.iter().find(refused) {
        let what = format!("{} of a column that is added", option.option);
        return Err(SqlError::unsupported(what)
            .hint("Rows that are there have NULL in a new column: add it without, then UPDATE."));
    }
    if serial_type(&definition.data_type).is_some() {
        let what = format!("{} of a column that is added", definition.data_type);
        return Err(SqlError::unsupported(what));
    }
    column(definition, &mut Vec::new(), sql)
}

impl SqlEngine {
    pub(super) async fn alter_table(&self, plan: &AlterPlan, sql: &str) -> Result<Notices, SqlError> {
        let mut map = self.metadata.map();
        if map.table(&plan.table).is_none() {
            // Another node may have made it a moment ago.
            self.metadata.refresh().await?;
            map = self.metadata.map();
        }
        let Some(table) = map.table(&plan.table) else {
            if map.views.contains_key(&plan.table) {
                return Err(super::views::not_a_table(&map, &plan.table));
            }
            let message = format!("relation \"{}\" does not exist", plan.table);
            if plan.if_exists {
                return Ok(vec![("NOTICE", "00000", message + ", skipping")]);
            }
            let error = SqlError::new("42P01", message);
            return Err(match position_of(sql, &plan.table) {
                Some(position) => error.at(position),
                None => error,
            });
        };
        let mut notices = Vec::new();
        for (column, if_not_exists) in &plan.columns {
            let command = Command::AddColumn {
                table: table.id,
                column: column.clone(),
            };
            match self.metadata.propose(command).await {
                Ok(_) => {}
                Err(ProposeError::Refused(refusal @ Refusal::ColumnExists { .. })) if *if_not_exists => {
                    notices.push(("NOTICE", "42701", format!("{refusal}, skipping")));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(notices)
    }
}
