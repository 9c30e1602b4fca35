//! CHECK constraints of CREATE TABLE: each is planned as a SELECT of the table's rows and compiled like the expressions of
//! any statement, so that the partitions check rows without a planner.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::arrow::datatypes::DataType as ArrowType;
use datafusion::common::TableReference;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::{
    CheckConstraint as AstCheck, ColumnOption, CreateTable, Expr as AstExpr, Query, TableConstraint, Visit, Visitor,
};
use volt_engine::catalog::{CheckConstraint, Table};
use volt_engine::plan::{Check, Expr};

use super::compile::compile_over_row;
use super::ddl::{MAX_NAME_BYTES, check_name, name_of};
use super::errors::from_datafusion;
use super::literals::write_out_exponents;
use super::now::timeless;
use super::syntax::{Parsed, parse};
use super::tables::VoltTable;
use super::types::from_arrow;
use super::{SqlEngine, new_context};
use crate::error::SqlError;
use crate::metadata::command::NewTable;
use crate::metadata::map::ClusterMap;

/// Checks of a table, at most: every row that is put pays for each.
const MAX_CHECKS: usize = 100;
/// Bytes of a check's text, at most: the catalog lies on every node.
const MAX_CHECK_BYTES: usize = 8 << 10;

impl SqlEngine {
    /// The CHECK constraints that a CREATE TABLE names, compiled, in the order of their names, in which PostgreSQL looks at
    /// them too.
    pub(super) async fn checks(
        &self,
        create: &CreateTable,
        table: &NewTable,
        sql: &str,
        map: &ClusterMap,
    ) -> Result<Vec<CheckConstraint>, SqlError> {
        let written = written(create);
        if written.is_empty() {
            return Ok(Vec::new());
        }
        if written.len() > MAX_CHECKS {
            return Err(SqlError::new(
                "54000",
                format!("tables can have at most {MAX_CHECKS} checks"),
            ));
        }
        let table = Arc::new(table_of(table));
        let session = self.session_of(&table, sql, map)?;
        let (mut checks, mut names) = (Vec::new(), BTreeSet::new());
        for (name, check) in written {
            let text = check.expr.to_string();
            if text.len() > MAX_CHECK_BYTES {
                let message = format!("a check can have at most {MAX_CHECK_BYTES} bytes, not {}", text.len());
                return Err(SqlError::new("54000", message));
            }
            let (condition, column) = compile(&session, &table, check, sql).await?;
            let name = match name {
                Some(name) => name,
                None => generated(&table.name, column.as_deref(), &names),
            };
            check_name(&name, sql)?;
            if !names.insert(name.clone()) {
                let message = format!("constraint \"{name}\" for relation \"{}\" already exists", table.name);
                return Err(SqlError::new("42710", message));
            }
            let check = Check { name, condition };
            checks.push(CheckConstraint { check, text });
        }
        checks.sort_by(|one, other| one.check.name.cmp(&other.check.name));
        Ok(checks)
    }

    /// A session that knows this table and no other.
    pub(super) fn session_of(&self, table: &Arc<Table>, sql: &str, map: &ClusterMap) -> Result<SessionState, SqlError> {
        let context = new_context(Arc::clone(self.session(map, false)?.runtime_env()));
        let provider = Arc::new(VoltTable::new(Arc::clone(table), Vec::new(), false));
        context
            .register_table(TableReference::bare(table.name.as_str()), provider)
            .map_err(|error| from_datafusion(error, sql))?;
        Ok(timeless(&context))
    }
}

/// The table as it will be, without a number.
fn table_of(new: &NewTable) -> Table {
    Table {
        id: 0,
        name: new.name.clone(),
        columns: new.columns.clone(),
        primary_key: new.primary_key.clone(),
        partition_column: new.partition_column,
        group: 0,
        indexes: Vec::new(),
        checks: Vec::new(),
        ttl: None,
        view: None,
        tracking: None,
        version_base: 0,
    }
}

/// (name, check) of each, the columns' first.
fn written(create: &CreateTable) -> Vec<(Option<String>, &AstCheck)> {
    let of_columns = create.columns.iter().flat_map(|column| &column.options);
    let of_columns = of_columns.filter_map(|option| match &option.option {
        ColumnOption::Check(check) => Some((option.name.as_ref().or(check.name.as_ref()).map(name_of), check)),
        _ => None,
    });
    let of_table = create.constraints.iter().filter_map(|constraint| match constraint {
        TableConstraint::Check(check) => Some((check.name.as_ref().map(name_of), check)),
        _ => None,
    });
    of_columns.chain(of_table).collect()
}

/// The condition over a row, and the column that it is about, if it is about one.
async fn compile(
    session: &SessionState,
    table: &Table,
    check: &AstCheck,
    sql: &str,
) -> Result<(Expr, Option<String>), SqlError> {
    if check.enforced == Some(false) {
        return Err(SqlError::unsupported("a check that is NOT ENFORCED"));
    }
    if check.expr.visit(&mut Queries).is_break() {
        return Err(SqlError::new("0A000", "cannot use subquery in check constraint"));
    }
    let failed = |error| in_check(from_datafusion(error, sql));
    let plan = plan(session, &table.name, &check.expr, sql).await?;
    check_nodes(&plan)?;
    if let Some(name) = plan.get_parameter_types().map_err(failed)?.into_keys().next() {
        return Err(SqlError::new("42P02", format!("there is no parameter {name}")));
    }
    let mut columns: BTreeSet<String> = BTreeSet::new();
    for expr in plan.expressions() {
        columns.extend(expr.column_refs().into_iter().map(|column| column.name.clone()));
    }
    let optimised = session.optimize(&plan).map_err(failed)?;
    let data_type = optimised.schema().field(0).data_type();
    if !matches!(data_type, ArrowType::Boolean | ArrowType::Null) {
        let name = from_arrow(data_type).name();
        return Err(SqlError::new(
            "42804",
            format!("argument of CHECK must be type boolean, not type {name}"),
        ));
    }
    let condition = compile_over_row(&optimised, table);
    let condition = condition.map_err(|why| why.within("a check constraint"))?;
    let only = columns.pop_first().filter(|_| columns.is_empty());
    Ok((condition, only))
}

/// `SELECT condition FROM table`, not optimised.
async fn plan(session: &SessionState, table: &str, condition: &AstExpr, sql: &str) -> Result<LogicalPlan, SqlError> {
    let text = format!("SELECT {condition} FROM \"{}\"", table.replace('"', "\"\""));
    let Parsed::Sql(mut statement) = parse(&text)? else {
        return Err(SqlError::internal("a SELECT that is none"));
    };
    write_out_exponents(&mut statement);
    let planned = session.statement_to_plan(DfStatement::Statement(statement)).await;
    planned.map_err(|error| in_check(from_datafusion(error, sql)))
}

/// An error of planning a SELECT, in the words for a check.
fn in_check(error: SqlError) -> SqlError {
    match error.sqlstate.as_str() {
        "42803" => aggregate(),
        _ => error,
    }
}

fn aggregate() -> SqlError {
    SqlError::new("42803", "aggregate functions are not allowed in check constraints")
}

/// Refuses what looks at more than a row.
fn check_nodes(plan: &LogicalPlan) -> Result<(), SqlError> {
    let mut refused = None;
    let _ = plan.apply_with_subqueries(|node| {
        refused = refused.take().or(match node {
            LogicalPlan::Aggregate(_) => Some(aggregate()),
            LogicalPlan::Window(_) => Some(SqlError::new(
                "42P20",
                "window functions are not allowed in check constraints",
            )),
            _ => None,
        });
        Ok(TreeNodeRecursion::Continue)
    });
    refused.map_or(Ok(()), Err)
}

/// Stops at a query.
struct Queries;

impl Visitor for Queries {
    type Break = ();

    fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        ControlFlow::Break(())
    }
}

/// A name as PostgreSQL makes it: `table_column_check`, or `table_check` when it is about several columns or none, with a
/// number if there is one already.
fn generated(table: &str, column: Option<&str>, taken: &BTreeSet<String>) -> String {
    let mut label = "check".to_owned();
    let mut number = 0;
    loop {
        let name = joined(table, column, &label);
        if !taken.contains(&name) {
            return name;
        }
        number += 1;
        label = format!("check{number}");
    }
}

/// The parts with `_` between them, the longer ones cut until the whole fits.
pub(super) fn joined(table: &str, column: Option<&str>, label: &str) -> String {
    let (mut table, mut column) = (table, column);
    loop {
        let parts = [Some(table), column, Some(label)];
        let name = parts.into_iter().flatten().collect::<Vec<_>>().join("_");
        if name.len() <= MAX_NAME_BYTES {
            return name;
        }
        match &mut column {
            Some(column) if column.len() >= table.len() => *column = without_last(column),
            _ => table = without_last(table),
        }
    }
}

fn without_last(text: &str) -> &str {
    text.char_indices().next_back().map_or("", |(at, _)| &text[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_as_postgresql_makes_them() {
        let mut taken = BTreeSet::new();
        let mut next = |table: &str, column| {
            let name = generated(table, column, &taken);
            taken.insert(name.clone());
            name
        };
        assert_eq!(next("t", Some("a")), "t_a_check");
        assert_eq!(next("t", Some("a")), "t_a_check1");
        assert_eq!(next("t", None), "t_check");
        assert_eq!(next("t", None), "t_check1");
        assert_eq!(next("t", None), "t_check2");
        let (table, column) = ("t".repeat(40), "ä".repeat(30));
        let long = next(&table, Some(&column));
        assert!(
            long.len() <= MAX_NAME_BYTES && long.len() > MAX_NAME_BYTES - 2,
            "{long}"
        );
        assert!(long.ends_with("ä_check") && long.starts_with("tttt"), "{long}");
        assert!(next(&table, Some(&column)).ends_with("_check1"));
    }
}
