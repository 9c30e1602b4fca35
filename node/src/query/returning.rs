//! RETURNING: planned as a SELECT of the table's rows, and compiled over a row, which is each one that the statement writes
//! or removes.

use std::ops::ControlFlow;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::{
    Expr as AstExpr, Ident, ObjectName, SelectItem, SetExpr, Statement, TableAlias, TableFactor, TableObject, Visit,
    Visitor,
};
use volt_engine::catalog::Table;
use volt_engine::plan::Expr;

use super::SqlEngine;
use super::compile::compile_returning;
use super::errors::from_datafusion;
use super::names::output_names;
use super::parameters::{self, Said};
use super::sequence::is_call_of;
use super::syntax::{Parsed, parse};
use super::types::from_arrow;
use super::version;
use crate::error::SqlError;
use crate::metadata::map::ClusterMap;
use crate::statement::ResultColumn;

/// What a statement returns, planned.
pub(super) struct Returning {
    plan: LogicalPlan,
    optimised: LogicalPlan,
    pub(super) columns: Vec<ResultColumn>,
}

impl Returning {
    /// Not optimised, as it was written.
    pub(super) fn plan(&self) -> &LogicalPlan {
        &self.plan
    }

    /// What is returned of each row.
    pub(super) fn compile(&self, table: &Table) -> Result<Vec<Expr>, SqlError> {
        compile_returning(&self.optimised, table)
    }
}

/// An error if RETURNING calls `nextval`, before calls are taken out of the statement.
pub(super) fn check_returning(statement: &Statement) -> Result<(), SqlError> {
    let items = match statement {
        Statement::Insert(insert) => &insert.returning,
        Statement::Update(update) => &update.returning,
        Statement::Delete(delete) => &delete.returning,
        _ => return Ok(()),
    };
    let next_value = |item: &SelectItem| item.visit(&mut NextValues).is_break();
    match items.iter().flatten().any(next_value) {
        true => Err(SqlError::unsupported("nextval in RETURNING")),
        false => Ok(()),
    }
}

/// Takes RETURNING out of a statement: a SELECT of the rows of its table.
pub(super) fn take_returning(statement: &mut Statement) -> Result<Option<Statement>, SqlError> {
    let (items, table, alias) = match statement {
        Statement::Insert(insert) => {
            let items = insert.returning.take();
            let TableObject::TableName(table) = &insert.table else {
                return Ok(None);
            };
            let alias = insert.table_alias.as_ref().map(|alias| alias.alias.clone());
            (items, table.clone(), alias)
        }
        Statement::Update(update) => {
            let items = update.returning.take();
            let Some((table, alias)) = table_of(&update.table.relation) else {
                return Ok(None);
            };
            (items, table, alias)
        }
        Statement::Delete(delete) => {
            let items = delete.returning.take();
            let from = match &delete.from {
                datafusion::sql::sqlparser::ast::FromTable::WithFromKeyword(from)
                | datafusion::sql::sqlparser::ast::FromTable::WithoutKeyword(from) => from,
            };
            let Some((table, alias)) = from.first().and_then(|from| table_of(&from.relation)) else {
                return Ok(None);
            };
            (items, table, alias)
        }
        Statement::Explain { statement, .. } => return take_returning(statement),
        _ => return Ok(None),
    };
    items.map(|items| select(items, table, alias)).transpose()
}

fn table_of(relation: &TableFactor) -> Option<(ObjectName, Option<Ident>)> {
    match relation {
        TableFactor::Table { name, alias, .. } => Some((name.clone(), alias.as_ref().map(|alias| alias.name.clone()))),
        _ => None,
    }
}

/// `SELECT items FROM table [AS alias]`.
fn select(items: Vec<SelectItem>, table: ObjectName, alias: Option<Ident>) -> Result<Statement, SqlError> {
    let Parsed::Sql(mut statement) = parse("SELECT 0 FROM t AS t")? else {
        return Err(SqlError::internal("a SELECT that is none"));
    };
    if let Statement::Query(query) = &mut *statement
        && let SetExpr::Select(select) = &mut *query.body
        && let [from] = select.from.as_mut_slice()
        && let TableFactor::Table {
            name, alias: known_as, ..
        } = &mut from.relation
    {
        select.projection = items;
        *name = table;
        *known_as = match (alias, known_as.take()) {
            (Some(alias), Some(known_as)) => Some(TableAlias {
                name: alias,
                ..known_as
            }),
            _ => None,
        };
    }
    Ok(*statement)
}

/// Stops at a call of `nextval`: each row would need its own.
pub(super) struct NextValues;

impl Visitor for NextValues {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &AstExpr) -> ControlFlow<()> {
        match is_call_of(expr, "nextval") {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }
}

impl SqlEngine {
    /// Plans what `take_returning` made.
    pub(super) async fn plan_returning(
        &self,
        mut select: Statement,
        sql: &str,
        said: Said<'_>,
        map: &ClusterMap,
    ) -> Result<Returning, SqlError> {
        let failed = |error| from_datafusion(error, sql);
        let written = select.to_string();
        let has_versions = version::prepare(&mut select, &written, map)?;
        let session = self.session(map, has_versions)?;
        let parsed = DfStatement::Statement(Box::new(select.clone()));
        let plan = session.statement_to_plan(parsed).await;
        let plan = plan.map_err(|error| in_returning(failed(error)))?;
        check_nodes(&plan)?;
        let plan = parameters::settle(plan, said).map_err(failed)?;
        let optimised = session.optimize(&plan).map_err(failed)?;
        let fields = plan.schema().fields();
        let names = output_names(&select, fields.len());
        let column = |(field, name): (&datafusion::arrow::datatypes::FieldRef, Option<String>)| ResultColumn {
            name: name.unwrap_or_else(|| field.name().clone()),
            data_type: from_arrow(field.data_type()),
        };
        let columns = fields.iter().zip(names).map(column).collect();
        Ok(Returning {
            plan,
            optimised,
            columns,
        })
    }
}

/// An error of planning a SELECT, in the words for RETURNING.
fn in_returning(error: SqlError) -> SqlError {
    match error.sqlstate.as_str() {
        "42803" => aggregate(),
        _ => error,
    }
}

fn aggregate() -> SqlError {
    SqlError::new("42803", "aggregate functions are not allowed in RETURNING")
}

/// Refuses what looks at more than a row.
fn check_nodes(plan: &LogicalPlan) -> Result<(), SqlError> {
    let mut refused = None;
    // Queries inside are refused when it is compiled.
    let _ = plan.apply(|node| {
        refused = refused.take().or(match node {
            LogicalPlan::Aggregate(_) => Some(aggregate()),
            LogicalPlan::Window(_) => Some(SqlError::new("42P20", "window functions are not allowed in RETURNING")),
            _ => None,
        });
        Ok(TreeNodeRecursion::Continue)
    });
    refused.map_or(Ok(()), Err)
}
