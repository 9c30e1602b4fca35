//! The sequences of a CREATE TABLE: those that its IDENTITY and SERIAL columns own, and those that `DEFAULT nextval('...')`
//! names.

use datafusion::sql::sqlparser::ast::{
    ColumnDef, ColumnOption, CreateTable, DataType as Ast, Expr as AstExpr, GeneratedAs,
};
use volt_engine::catalog::{Column, ColumnDefault, SequenceDefault};
use volt_engine::value::DataType;

use super::calls::{arguments, constant_name, function_name};
use super::options::Options;
use crate::error::SqlError;
use crate::metadata::command::{NewIndex, OwnedSequence};
use crate::metadata::map::ClusterMap;
use crate::metadata::sequence::SequenceType;
use crate::query::checks::joined;
use crate::query::syntax::TableClauses;

/// The type that SERIAL and its like stand for.
pub(in crate::query) fn serial_type(ast: &Ast) -> Option<DataType> {
    serial(ast).map(|data_type| match data_type {
        SequenceType::SmallInt | SequenceType::Integer => DataType::Int,
        SequenceType::BigInt => DataType::BigInt,
    })
}

fn serial(ast: &Ast) -> Option<SequenceType> {
    let Ast::Custom(name, modifiers) = ast else {
        return None;
    };
    match name.to_string().to_ascii_lowercase().as_str() {
        _ if !modifiers.is_empty() => None,
        "smallserial" | "serial2" => Some(SequenceType::SmallInt),
        "serial" | "serial4" => Some(SequenceType::Integer),
        "bigserial" | "serial8" => Some(SequenceType::BigInt),
        _ => None,
    }
}

/// Whether a column's option, or its type, means a sequence: then this module has the word.
pub(in crate::query) fn is_of_sequence(option: &ColumnOption) -> bool {
    match option {
        ColumnOption::Generated { generation_expr, .. } => generation_expr.is_none(),
        ColumnOption::Default(expr) => named_sequence(expr).is_some(),
        _ => false,
    }
}

/// The argument of `nextval(...)`.
fn named_sequence(expr: &AstExpr) -> Option<&AstExpr> {
    match expr {
        AstExpr::Nested(inner) | AstExpr::Cast { expr: inner, .. } => named_sequence(inner),
        AstExpr::Function(function) if function_name(function).as_deref() == Some("nextval") => {
            match arguments(function)?.as_slice() {
                [only] => Some(only),
                _ => None,
            }
        }
        _ => None,
    }
}

/// Gives columns their sequences: those that there are become defaults, those that are to be made are returned.
pub(in crate::query) fn take_sequences(
    (create, clauses): (&CreateTable, &TableClauses),
    table: &str,
    columns: &mut [Column],
    indexes: &[NewIndex],
    map: &ClusterMap,
) -> Result<Vec<OwnedSequence>, SqlError> {
    let mut owned: Vec<OwnedSequence> = Vec::new();
    let mut options = clauses.identities.iter().map(String::as_str);
    for (place, (definition, column)) in create.columns.iter().zip(columns).enumerate() {
        let Some((kind, data_type, options)) = of_column(definition, &mut options, table, column, map)? else {
            continue;
        };
        column.nullable = false;
        let is_taken = |name: &str| {
            map.has_relation(name)
                || name == table
                || indexes.iter().any(|index| index.name == name)
                || owned.iter().any(|one| one.sequence.name == name)
        };
        let name = generated(table, &column.name, is_taken);
        let sequence = options.sequence(name, data_type)?;
        owned.push(OwnedSequence {
            column: place,
            kind,
            sequence,
        });
    }
    Ok(owned)
}

type Made = (SequenceDefault, SequenceType, Options);

/// The sequence that is to be made for a column.
fn of_column<'c>(
    definition: &ColumnDef,
    options: &mut impl Iterator<Item = &'c str>,
    table: &str,
    column: &mut Column,
    map: &ClusterMap,
) -> Result<Option<Made>, SqlError> {
    let twice = |what: &str| {
        let message = format!("{what} specified for column \"{}\" of table \"{table}\"", column.name);
        Err(SqlError::new("42601", message))
    };
    let mut made =
        serial(&definition.data_type).map(|data_type| (SequenceDefault::Plain, data_type, Options::default()));
    let mut has_default = false;
    let mut named = None;
    for option in &definition.options {
        match &option.option {
            ColumnOption::Generated {
                generated_as,
                generation_expr: None,
                ..
            } => {
                if made.as_ref().is_some_and(|(kind, ..)| *kind != SequenceDefault::Plain) {
                    return twice("multiple identity specifications");
                }
                if made.is_some() {
                    return twice("both default and identity");
                }
                made = Some(identity(definition, generated_as, options.next().unwrap_or_default())?);
            }
            ColumnOption::Default(expr) => {
                has_default = true;
                named = named_sequence(expr);
            }
            ColumnOption::Null if made.is_some() => return twice("conflicting NULL/NOT NULL declarations"),
            _ => {}
        }
    }
    if let (true, Some((kind, ..))) = (has_default, &made) {
        return twice(match kind {
            SequenceDefault::Plain => "multiple default values",
            SequenceDefault::Identity | SequenceDefault::IdentityAlways => "both default and identity",
        });
    }
    if let Some(name) = named {
        let name = constant_name(name)?;
        let name = name.ok_or_else(|| SqlError::unsupported("nextval of what is not a constant name"))?;
        let (sequence, kind) = (map.sequence_named(&name)?.id, SequenceDefault::Plain);
        column.default = Some(ColumnDefault::Sequence { sequence, kind });
    }
    Ok(made)
}

fn identity(definition: &ColumnDef, generated_as: &GeneratedAs, options: &str) -> Result<Made, SqlError> {
    let data_type = match &definition.data_type {
        Ast::SmallInt(_) | Ast::Int2(_) => SequenceType::SmallInt,
        Ast::Int(_) | Ast::Integer(_) | Ast::Int4(_) => SequenceType::Integer,
        Ast::BigInt(_) | Ast::Int8(_) => SequenceType::BigInt,
        _ => {
            let message = "identity column type must be smallint, integer, or bigint";
            return Err(SqlError::new("22023", message));
        }
    };
    let kind = match generated_as {
        GeneratedAs::Always => SequenceDefault::IdentityAlways,
        GeneratedAs::ByDefault => SequenceDefault::Identity,
        GeneratedAs::ExpStored => return Err(SqlError::unsupported("a generated column that is STORED")),
    };
    let options = Options::of(options).map_err(|error| SqlError {
        // Its place is one in the options alone.
        position: None,
        ..error
    });
    Ok((kind, data_type, options?))
}

/// A name as PostgreSQL makes it: `table_column_seq`, with a number if there is one already.
fn generated(table: &str, column: &str, is_taken: impl Fn(&str) -> bool) -> String {
    let name = |number: u64| match number {
        0 => joined(table, Some(column), "seq"),
        number => joined(table, Some(column), &format!("seq{number}")),
    };
    let free = (0..).map(name).find(|name| !is_taken(name));
    free.unwrap_or_default()
}
