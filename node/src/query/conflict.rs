//! ON CONFLICT: planned as an UPDATE of a table that has the columns of the row that is there and, behind them, those of the row
//! that is to be put (`excluded`), and compiled over a row of it.

use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::{
    ConflictTarget, DoUpdate, Expr as AstExpr, Ident, Insert, ObjectName, OnConflict as Clause, OnConflictAction,
    OnInsert, Statement, TableAlias, TableFactor, TableObject, Visit, VisitMut, VisitorMut,
};
use volt_engine::catalog::{Column, Table};
use volt_engine::plan::OnConflict;

use super::SqlEngine;
use super::compile::compile_on_conflict;
use super::ddl::{name_of, table_name};
use super::errors::from_datafusion;
use super::parameters::{self, Said};
use super::returning::NextValues;
use super::syntax::{Parsed, parse, position_of};
use crate::error::SqlError;
use crate::metadata::map::ClusterMap;

/// The name of the row that is to be put.
const EXCLUDED: &str = "excluded";

/// What of a statement says what becomes of conflicts.
pub(super) struct Conflict {
    table: Arc<Table>,
    name: ObjectName,
    alias: Option<Ident>,
    update: Option<DoUpdate>,
}

/// ON CONFLICT, planned.
pub(super) struct Planned {
    /// Not optimised, as it was written; None of DO NOTHING.
    pub(super) plan: Option<LogicalPlan>,
    pub(super) on_conflict: OnConflict,
}

/// An error if ON CONFLICT calls `nextval`, before calls are taken out of the statement.
pub(super) fn check(statement: &Statement) -> Result<(), SqlError> {
    let statement = match statement {
        Statement::Explain { statement, .. } => statement,
        statement => statement,
    };
    match statement {
        Statement::Insert(insert) if insert.on.visit(&mut NextValues).is_break() => {
            Err(SqlError::unsupported("nextval in ON CONFLICT"))
        }
        _ => Ok(()),
    }
}

/// Takes ON CONFLICT out of a statement.
pub(super) fn take(statement: &mut Statement, sql: &str, map: &ClusterMap) -> Result<Option<Conflict>, SqlError> {
    let insert = match statement {
        Statement::Insert(insert) => insert,
        Statement::Explain { statement, .. } => return take(statement, sql, map),
        _ => return Ok(None),
    };
    let clause = match insert.on.take() {
        None => return Ok(None),
        Some(OnInsert::OnConflict(clause)) => clause,
        Some(other) => return Err(SqlError::unsupported(format!("{other}"))),
    };
    let alias = insert.table_alias.as_ref().map(|alias| alias.alias.clone());
    let (name, table) = target_of(insert, map)?;
    check_target(&clause, &table, sql)?;
    let update = match clause.action {
        OnConflictAction::DoNothing => None,
        OnConflictAction::DoUpdate(update) => Some(update),
    };
    Ok(Some(Conflict {
        table,
        name,
        alias,
        update,
    }))
}

fn target_of(insert: &Insert, map: &ClusterMap) -> Result<(ObjectName, Arc<Table>), SqlError> {
    let TableObject::TableName(name) = &insert.table else {
        return Err(SqlError::unsupported("ON CONFLICT here"));
    };
    let plain = table_name(name)?;
    let unknown = || SqlError::new("42P01", format!("relation \"{plain}\" does not exist"));
    Ok((name.clone(), map.table(&plain).ok_or_else(unknown)?.clone()))
}

/// Conflicts are those of the primary key.
fn check_target(clause: &Clause, table: &Table, sql: &str) -> Result<(), SqlError> {
    let has_others = table.indexes.iter().any(|index| index.unique);
    match &clause.conflict_target {
        None if !matches!(clause.action, OnConflictAction::DoNothing) => Err(SqlError::new(
            "42601",
            "ON CONFLICT DO UPDATE requires inference specification or constraint name",
        )
        .hint("For example, ON CONFLICT (column_name).")),
        None if has_others => Err(SqlError::unsupported(format!(
            "ON CONFLICT DO NOTHING of all unique indexes of \"{}\"",
            table.name
        ))
        .hint("Name the columns of the primary key: ON CONFLICT (...) DO NOTHING.")),
        None => Ok(()),
        Some(ConflictTarget::OnConstraint(name)) => check_constraint(&table_name(name)?, table),
        Some(ConflictTarget::Columns(names)) => check_columns(names, table, sql),
    }
}

fn check_constraint(name: &str, table: &Table) -> Result<(), SqlError> {
    if *name == format!("{}_pkey", table.name) {
        return Ok(());
    }
    match table.index(name) {
        Some(index) if index.unique => Err(of_another(name)),
        _ => {
            let message = format!("constraint \"{name}\" for table \"{}\" does not exist", table.name);
            Err(SqlError::new("42704", message))
        }
    }
}

fn check_columns(names: &[Ident], table: &Table, sql: &str) -> Result<(), SqlError> {
    let place = |name: &Ident| {
        let name = name_of(name);
        let unknown = || {
            let error = SqlError::new("42703", format!("column \"{name}\" does not exist"));
            match position_of(sql, &name) {
                Some(position) => error.at(position),
                None => error,
            }
        };
        table.place_of(&name).ok_or_else(unknown)
    };
    let mut places = names.iter().map(place).collect::<Result<Vec<_>, _>>()?;
    places.sort_unstable();
    places.dedup();
    let is = |columns: &mut dyn Iterator<Item = usize>| {
        let mut columns: Vec<usize> = columns.collect();
        columns.sort_unstable();
        columns == places
    };
    if is(&mut table.primary_key.iter().copied()) {
        return Ok(());
    }
    let mut unique = table.indexes.iter().filter(|index| index.unique);
    match unique.find(|index| is(&mut index.shape.columns.iter().map(|column| column.place))) {
        Some(index) => Err(of_another(&index.name)),
        None => Err(SqlError::new(
            "42P10",
            "there is no unique or exclusion constraint matching the ON CONFLICT specification",
        )),
    }
}

fn of_another(index: &str) -> SqlError {
    SqlError::unsupported(format!("ON CONFLICT of \"{index}\", which is not the primary key,"))
}

impl SqlEngine {
    /// Plans what `take` has taken.
    pub(super) async fn plan_on_conflict(
        &self,
        conflict: Conflict,
        sql: &str,
        said: Said<'_>,
        map: &ClusterMap,
    ) -> Result<Planned, SqlError> {
        let Conflict {
            table,
            name,
            alias,
            update,
        } = conflict;
        let Some(update) = update else {
            return Ok(Planned {
                plan: None,
                on_conflict: OnConflict::Nothing,
            });
        };
        let failed = |error| from_datafusion(error, sql);
        let both = Arc::new(both_rows(&table));
        let session = self.session_of(&both, sql, map)?;
        let statement = statement(update, name, alias, &table)?;
        let plan = session.statement_to_plan(DfStatement::Statement(Box::new(statement)));
        let plan = parameters::settle(plan.await.map_err(failed)?, said).map_err(failed)?;
        let optimised = session.optimize(&plan).map_err(failed)?;
        let on_conflict = compile_on_conflict(&optimised, &both)?;
        if let OnConflict::Update { set, .. } = &on_conflict
            && let Some((place, _)) = set.iter().find(|(place, _)| table.primary_key.contains(place))
        {
            let name = &table.columns[*place].name;
            let what = format!("changing the primary-key column \"{name}\" in ON CONFLICT DO UPDATE");
            return Err(SqlError::unsupported(what));
        }
        Ok(Planned {
            plan: Some(plan),
            on_conflict,
        })
    }
}

/// The name in `both_rows` of a column of the row that is to be put: one that no statement can name.
fn of_excluded(name: &str) -> String {
    format!("{EXCLUDED}\0{name}")
}

/// A table with the columns of the row that is there and of the one that is to be put. It has no key by which a condition
/// could find its rows.
fn both_rows(table: &Table) -> Table {
    let of_excluded = |column: &Column| Column {
        name: of_excluded(&column.name),
        ..column.clone()
    };
    let excluded = table.columns.iter().map(of_excluded);
    Table {
        columns: table.columns.iter().cloned().chain(excluded).collect(),
        primary_key: Vec::new(),
        partition_column: None,
        indexes: Vec::new(),
        checks: Vec::new(),
        ttl: None,
        ..table.clone()
    }
}

/// `UPDATE table [AS alias] SET assignments [WHERE selection]`.
fn statement(
    mut update: DoUpdate,
    table: ObjectName,
    alias: Option<Ident>,
    columns: &Table,
) -> Result<Statement, SqlError> {
    let mut excluded = Excluded(columns);
    let renamed = update
        .assignments
        .iter_mut()
        .try_for_each(|one| VisitMut::visit(&mut one.value, &mut excluded));
    if let ControlFlow::Break(error) = renamed {
        return Err(error);
    }
    if let ControlFlow::Break(error) = VisitMut::visit(&mut update.selection, &mut excluded) {
        return Err(error);
    }
    let Parsed::Sql(mut statement) = parse("UPDATE t AS t SET a = 0")? else {
        return Err(SqlError::internal("an UPDATE that is none"));
    };
    if let Statement::Update(whole) = &mut *statement
        && let TableFactor::Table {
            name, alias: known_as, ..
        } = &mut whole.table.relation
    {
        *name = table;
        *known_as = match (alias, known_as.take()) {
            (Some(alias), Some(known_as)) => Some(TableAlias {
                name: alias,
                ..known_as
            }),
            _ => None,
        };
        whole.assignments = update.assignments;
        whole.selection = update.selection;
    }
    Ok(*statement)
}

/// Gives `excluded.column` its name in `both_rows`.
struct Excluded<'t>(&'t Table);

impl VisitorMut for Excluded<'_> {
    type Break = SqlError;

    fn pre_visit_expr(&mut self, expr: &mut AstExpr) -> ControlFlow<SqlError> {
        let AstExpr::CompoundIdentifier(parts) = expr else {
            return ControlFlow::Continue(());
        };
        let [of, column] = parts.as_slice() else {
            return ControlFlow::Continue(());
        };
        if name_of(of) != EXCLUDED {
            return ControlFlow::Continue(());
        }
        let name = name_of(column);
        if self.0.place_of(&name).is_none() {
            let message = format!("column {EXCLUDED}.{name} does not exist");
            return ControlFlow::Break(SqlError::new("42703", message));
        }
        *expr = AstExpr::Identifier(Ident::with_quote('"', of_excluded(&name)));
        ControlFlow::Continue(())
    }
}
