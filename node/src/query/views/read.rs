//! What a view is in a statement that reads it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use datafusion::common::{DataFusionError, TableReference};
use datafusion::datasource::ViewTable;
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::{Expr as DfExpr, LogicalPlan, LogicalPlanBuilder};
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::Statement;
use futures::FutureExt;

use super::{field_names, materialize};
use crate::error::SqlError;
use crate::metadata::map::{ClusterMap, View};
use crate::query::errors::from_datafusion;
use crate::query::literals::write_out_exponents;
use crate::query::now::timeless;
use crate::query::syntax::{Parsed, parse};

/// Makes the views known to a session that knows the tables. One that can't be planned any more is left out.
pub(in crate::query) fn register(context: &SessionContext, map: &ClusterMap) -> Result<(), SqlError> {
    let mut known = BTreeSet::new();
    for view in map.views.values() {
        register_with_its_own(context, map, view, &mut known)?;
    }
    Ok(())
}

/// Those that it reads come first; no view reads itself.
fn register_with_its_own<'a>(
    context: &SessionContext,
    map: &'a ClusterMap,
    view: &'a View,
    known: &mut BTreeSet<&'a str>,
) -> Result<(), SqlError> {
    if !known.insert(&view.name) || view.materialized.as_ref().is_some_and(|view| !view.is_ready) {
        return Ok(());
    }
    for read in view.views.iter().filter_map(|name| map.views.get(name)) {
        register_with_its_own(context, map, read, known)?;
    }
    match plan(context, map, view) {
        Ok(plan) => {
            let provider = Arc::new(ViewTable::new(plan, Some(view.query.clone())));
            let name = TableReference::bare(view.name.as_str());
            let registered = context.register_table(name, provider);
            registered.map(drop).map_err(|error| from_datafusion(error, ""))
        }
        Err(error) => {
            tracing::warn!(view = view.name, %error, "a view can't be planned");
            Ok(())
        }
    }
}

fn plan(context: &SessionContext, map: &ClusterMap, view: &View) -> Result<LogicalPlan, SqlError> {
    let failed = |error| from_datafusion(error, &view.query);
    let Parsed::Sql(mut statement) = parse(&view.query)? else {
        return Err(SqlError::internal("a view's query that is none"));
    };
    write_out_exponents(&mut statement);
    let state = timeless(context);
    let parsed = DfStatement::Statement(statement.clone());
    // Tables are looked up in memory, so nothing waits.
    let planned = state.statement_to_plan(parsed).now_or_never();
    let planned = planned.ok_or_else(|| SqlError::internal("planning a view waits"))?;
    let mut plan = planned.map_err(failed)?;
    let named = columns(&statement, &plan, view)?;
    if let Some(materialized) = &view.materialized {
        plan = materialize::over_rows(&state, plan, materialized.table, map)?;
    }
    project(plan, named).map_err(failed)
}

/// For each of the view's columns, its place in the query's, and its name.
fn columns<'v>(statement: &Statement, plan: &LogicalPlan, view: &'v View) -> Result<Vec<(usize, &'v str)>, SqlError> {
    // A `*` may have become more columns: each name is the next column of that name.
    let mut places: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (place, name) in field_names(statement, plan).into_iter().enumerate().rev() {
        places.entry(name).or_default().push(place);
    }
    let mut column = |(field, (name, _)): (&String, &'v (String, _))| {
        let place = places.get_mut(field).and_then(Vec::pop);
        let gone = || SqlError::internal(format!("view \"{}\" has lost its column \"{field}\"", view.name));
        Ok((place.ok_or_else(gone)?, name.as_str()))
    };
    view.fields.iter().zip(&view.columns).map(&mut column).collect()
}

fn project(plan: LogicalPlan, columns: Vec<(usize, &str)>) -> Result<LogicalPlan, DataFusionError> {
    let expr = |(place, name): (usize, &str)| {
        let column = DfExpr::Column(plan.schema().qualified_field(place).into());
        column.alias(name)
    };
    let exprs: Vec<DfExpr> = columns.into_iter().map(expr).collect();
    LogicalPlanBuilder::from(plan).project(exprs)?.build()
}
