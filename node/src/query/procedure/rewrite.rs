//! Variables inside SQL: each becomes the parameter of its slot, cast to its type so that the planner knows it.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    CastKind, Expr, Ident, Query, Statement, Value, visit_expressions_mut, visit_relations,
};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;
use volt_engine::value::DataType;

use super::scope::{Scopes, sql_type};
use crate::error::SqlError;
use crate::metadata::map::ClusterMap;
use crate::query::ddl::{name_of, table_name};

/// Puts parameters in the places of variables. A name that is a column of a table of the statement too is an error.
pub(super) fn put_parameters(
    statement: &mut Statement,
    scopes: &Scopes,
    slots: &[DataType],
    map: &ClusterMap,
) -> Result<(), SqlError> {
    let mut columns: Vec<String> = Vec::new();
    let _ = visit_relations(statement, |relation| {
        if let Ok(name) = table_name(relation)
            && let Some(table) = map.table(&name)
        {
            columns.extend(table.columns.iter().map(|column| column.name.clone()));
        }
        ControlFlow::<()>::Continue(())
    });
    let done = visit_expressions_mut(statement, |expr| {
        let names: Vec<String> = match expr {
            Expr::Identifier(name) => vec![name_of(name)],
            Expr::CompoundIdentifier(names) => names.iter().map(name_of).collect(),
            _ => return ControlFlow::Continue(()),
        };
        let Some(slot) = scopes.value(&names) else {
            return ControlFlow::Continue(());
        };
        if let [name] = names.as_slice()
            && columns.contains(name)
        {
            let error = SqlError::new("42702", format!("column reference \"{name}\" is ambiguous"))
                .detail("It could refer to either a PL/pgSQL variable or a table column.");
            return ControlFlow::Break(error);
        }
        match parameter(slot, slots) {
            Ok(parameter) => *expr = parameter,
            Err(error) => return ControlFlow::Break(error),
        }
        ControlFlow::Continue(())
    });
    match done {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

/// A slot as an expression.
pub(super) fn parameter(slot: usize, slots: &[DataType]) -> Result<Expr, SqlError> {
    let data_type = slots.get(slot).copied().unwrap_or(DataType::Text);
    let dialect = PostgreSqlDialect {};
    let parsed = Parser::new(&dialect)
        .try_with_sql(&sql_type(data_type))
        .and_then(|mut parser| parser.parse_data_type());
    Ok(Expr::Cast {
        kind: CastKind::Cast,
        expr: Box::new(Expr::value(Value::Placeholder(format!("${}", slot + 1)))),
        data_type: parsed.map_err(SqlError::internal)?,
        array: false,
        format: None,
    })
}

/// A query inside an expression.
pub(super) struct Subquery {
    /// The name that stands for it meanwhile.
    pub(super) name: String,
    pub(super) query: Box<Query>,
    /// EXISTS.
    pub(super) exists: bool,
}

/// Takes the queries out of an expression's statement, so that each can run before it; a name stands in its place.
pub(super) fn take_subqueries(statement: &mut Statement) -> Vec<Subquery> {
    let mut taken = Vec::new();
    let _ = visit_expressions_mut(statement, |expr| {
        let (query, exists, negated) = match expr {
            Expr::Subquery(query) => (query.clone(), false, false),
            Expr::Exists { subquery, negated } => (subquery.clone(), true, *negated),
            _ => return ControlFlow::<()>::Continue(()),
        };
        let name = format!("subquery {}", taken.len());
        let stands_for = Expr::Identifier(Ident::with_quote('"', name.as_str()));
        *expr = if negated {
            Expr::UnaryOp {
                op: datafusion::sql::sqlparser::ast::UnaryOperator::Not,
                expr: Box::new(stands_for),
            }
        } else {
            stands_for
        };
        taken.push(Subquery { name, query, exists });
        ControlFlow::Continue(())
    });
    taken
}
