//! DataFusion's errors in PostgreSQL's words.

use std::sync::Arc;

use datafusion::arrow::error::ArrowError;
use datafusion::common::{DataFusionError, SchemaError};

use super::memory::QUERY_MEMORY_BYTES;
use super::syntax::{position_of, position_of_literal};
use crate::error::SqlError;

/// An error of planning or of running `sql`.
pub(super) fn from_datafusion(error: DataFusionError, sql: &str) -> SqlError {
    match error {
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => from_datafusion(*inner, sql),
        DataFusionError::Shared(inner) => match Arc::try_unwrap(inner) {
            Ok(inner) => from_datafusion(inner, sql),
            Err(shared) => match shared.find_root() {
                DataFusionError::ResourcesExhausted(what) => out_of_memory(what),
                // What both sides of a join wait for, and one of them has not heard of yet.
                DataFusionError::External(error) => match error.downcast_ref::<SqlError>() {
                    Some(error) => at_literal(error.clone(), sql),
                    None => SqlError::internal(error),
                },
                root => from_text(&root.to_string(), sql, "XX000"),
            },
        },
        DataFusionError::Collection(errors) => match errors.into_iter().next() {
            Some(first) => from_datafusion(first, sql),
            None => SqlError::internal("an error without a cause"),
        },
        DataFusionError::ArrowError(error, _) => from_arrow(*error),
        DataFusionError::SchemaError(error, _) => from_schema(&error, sql),
        DataFusionError::External(error) => match error.downcast::<SqlError>() {
            Ok(error) => at_literal(*error, sql),
            Err(other) => SqlError::internal(other),
        },
        DataFusionError::NotImplemented(what) => SqlError::new("0A000", what),
        DataFusionError::ResourcesExhausted(what) => out_of_memory(&what),
        DataFusionError::Plan(what) => from_text(&what, sql, "42601"),
        // What a function makes of its arguments.
        DataFusionError::Execution(what) => from_text(&what, sql, "22000"),
        DataFusionError::SQL(error, _) => SqlError::new("42601", error.to_string()),
        other => from_text(&other.to_string(), sql, "XX000"),
    }
}

fn out_of_memory(what: &str) -> SqlError {
    let limit = QUERY_MEMORY_BYTES >> 20;
    SqlError::new(
        "53200",
        format!("out of memory: the queries of a node may take {limit} MiB at a time"),
    )
    .detail(what)
}

fn from_schema(error: &SchemaError, sql: &str) -> SqlError {
    let (sqlstate, message, name) = match error {
        SchemaError::FieldNotFound { field, .. } => (
            "42703",
            format!("column \"{}\" does not exist", field.flat_name().replace("public.", "")),
            field.name.clone(),
        ),
        SchemaError::AmbiguousReference { field } => (
            "42702",
            format!("column reference \"{}\" is ambiguous", field.name),
            field.name.clone(),
        ),
        SchemaError::DuplicateUnqualifiedField { name } => (
            "42701",
            format!("column \"{name}\" specified more than once"),
            name.clone(),
        ),
        other => return SqlError::new("42P10", other.to_string()),
    };
    place(SqlError::new(sqlstate, message), sql, &name)
}

fn place(error: SqlError, sql: &str, name: &str) -> SqlError {
    match position_of(sql, name) {
        Some(position) => error.at(position),
        None => error,
    }
}

/// A constant that can't be read is quoted at the message's end: `...: "4x"`.
fn at_literal(error: SqlError, sql: &str) -> SqlError {
    let quoted = error
        .message
        .split_once(": \"")
        .and_then(|(_, rest)| rest.strip_suffix('"'));
    match quoted.and_then(|text| position_of_literal(sql, text)) {
        Some(position) => error.at(position),
        None => error,
    }
}

/// Errors that are told apart by their words only; `otherwise` is the SQLSTATE of all others.
fn from_text(text: &str, sql: &str, otherwise: &str) -> SqlError {
    let quoted = text.split('\'').nth(1).unwrap_or_default();
    if text.contains("table '") && text.contains("not found") {
        let name = quoted.rsplit('.').next().unwrap_or(quoted);
        return place(
            SqlError::new("42P01", format!("relation \"{name}\" does not exist")),
            sql,
            name,
        );
    }
    if text.contains("Invalid function") {
        return place(
            SqlError::new("42883", format!("function {quoted} does not exist")),
            sql,
            quoted,
        );
    }
    if text.contains("must be in GROUP BY or an aggregate function")
        || text.contains("must appear in the GROUP BY clause")
    {
        return from_grouping(text, sql);
    }
    if text.contains("Aggregate functions are not allowed in the WHERE clause") {
        return SqlError::new("42803", "aggregate functions are not allowed in WHERE");
    }
    if text.contains("Divide by zero") {
        return SqlError::new("22012", "division by zero");
    }
    if text.contains("Cannot cast") || text.contains("Cast error") {
        return from_cast(text);
    }
    if text.contains("verflow") {
        return SqlError::new("22003", text.to_owned());
    }
    if text.contains("not supported") || text.contains("not yet supported") {
        return SqlError::new("0A000", text.to_owned());
    }
    SqlError::new(otherwise, text.to_owned())
}

/// `...: While expanding wildcard, column "t.amount" must appear in the GROUP BY clause ...`
fn from_grouping(text: &str, sql: &str) -> SqlError {
    let named = text
        .split_once("column \"")
        .and_then(|(_, rest)| rest.split_once('"'))
        .map(|(name, _)| name);
    let Some(name) = named else {
        return SqlError::new("42803", text.to_owned());
    };
    let message = format!("column \"{name}\" must appear in the GROUP BY clause or be used in an aggregate function");
    place(SqlError::new("42803", message), sql, name)
}

/// Arrow says "Can't cast value 2147483648 to type Int32" of a number that the type has no room for, and other things of
/// what is no number at all.
fn from_cast(text: &str) -> SqlError {
    let number = text
        .split_once("Can't cast value ")
        .and_then(|(_, rest)| rest.split_once(" to type "));
    let Some((value, type_name)) = number else {
        let sqlstate = if text.contains("verflow") { "22003" } else { "22P02" };
        return SqlError::new(sqlstate, text.to_owned());
    };
    let type_name = match type_name.split_whitespace().next().unwrap_or_default() {
        "Int16" => "smallint",
        "Int32" => "integer",
        "Int64" => "bigint",
        other => other,
    };
    SqlError::new("22003", format!("{value} is out of range for type {type_name}"))
}

/// An error of Arrow's kernels.
pub(super) fn from_arrow(error: ArrowError) -> SqlError {
    match error {
        ArrowError::DivideByZero => SqlError::new("22012", "division by zero"),
        ArrowError::ArithmeticOverflow(what) => SqlError::new("22003", what),
        ArrowError::CastError(what) => from_cast(&what),
        ArrowError::ParseError(what) => SqlError::new("22P02", what),
        ArrowError::InvalidArgumentError(what) if what.contains("to store in a Decimal") => {
            SqlError::new("22003", "numeric field overflow").detail(what)
        }
        ArrowError::ExternalError(error) => match error.downcast::<DataFusionError>() {
            Ok(error) => from_datafusion(*error, ""),
            Err(other) => SqlError::internal(other),
        },
        other => SqlError::internal(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_that_several_wait_for_keeps_its_sqlstate() {
        let lost = SqlError::unavailable("its primary was lost");
        let shared = Arc::new(DataFusionError::External(Box::new(lost.clone())));
        let other = Arc::clone(&shared);
        assert_eq!(from_datafusion(DataFusionError::Shared(shared), "SELECT 1"), lost);
        assert_eq!(from_datafusion(DataFusionError::Shared(other), "SELECT 1"), lost);
    }
}
