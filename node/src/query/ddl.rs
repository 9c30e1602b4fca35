//! CREATE TABLE and DROP TABLE: from the syntax to the metadata group's commands.

use datafusion::sql::sqlparser::ast::{
    ColumnDef, ColumnOption, CreateTable, DataType as Ast, ExactNumberInfo, Expr as AstExpr, Ident, IndexColumn,
    NullsDistinctOption, ObjectName, TableConstraint, TimezoneInfo, UnaryOperator, Value as AstValue,
};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Token;
use volt_engine::catalog::{Column, ColumnDefault};
use volt_engine::plan::eval::{assign_value, cast_value};
use volt_engine::value::{DataType, Value};

use super::index::unique_constraint;
use super::sequence::{is_of_sequence, serial_type, take_sequences};
use super::syntax::{TableClauses, position_of};
use super::types::FREE_NUMERIC;
use super::version::VERSION;
use crate::error::SqlError;
use crate::metadata::command::{MAX_COLUMNS, NewTable};
use crate::metadata::map::ClusterMap;

/// Columns of a primary key, at most: PostgreSQL's bound.
const MAX_KEY_COLUMNS: usize = 32;
/// Bytes of a name, at most. PostgreSQL cuts longer ones; we refuse them, for two could become one.
pub(super) const MAX_NAME_BYTES: usize = 63;
/// Bytes of a text or BYTEA that is a column's default, at most: the catalog lies on every node, and each change of it is
/// an entry of the metadata group's log.
const MAX_DEFAULT_BYTES: usize = 1 << 10;

/// The name as it is stored: unquoted ones in lower case.
pub(super) fn name_of(ident: &Ident) -> String {
    if ident.quote_style.is_some() {
        ident.value.clone()
    } else {
        ident.value.to_lowercase()
    }
}

/// The name of a table in `public`.
pub(super) fn table_name(name: &ObjectName) -> Result<String, SqlError> {
    let parts: Vec<String> = name.0.iter().filter_map(|part| part.as_ident()).map(name_of).collect();
    match parts.as_slice() {
        [table] => Ok(table.clone()),
        [schema, table] if schema == "public" => Ok(table.clone()),
        [schema, _] => Err(SqlError::new("3F000", format!("schema \"{schema}\" does not exist"))),
        _ => Err(SqlError::unsupported(format!("the name {name}"))),
    }
}

/// A table to be made.
pub(super) fn new_table(
    create: &CreateTable,
    clauses: &TableClauses,
    sql: &str,
    map: &ClusterMap,
) -> Result<NewTable, SqlError> {
    if create.query.is_some() || create.like.is_some() || create.temporary {
        return Err(SqlError::unsupported("CREATE TABLE AS, LIKE or TEMPORARY"));
    }
    let name = table_name(&create.name)?;
    check_name(&name, sql)?;
    if create.columns.len() > MAX_COLUMNS {
        let message = format!("tables can have at most {MAX_COLUMNS} columns");
        return Err(SqlError::new("54011", message));
    }
    let mut key: Vec<String> = Vec::new();
    let mut columns: Vec<Column> = Vec::new();
    for definition in &create.columns {
        let column = column(definition, &mut key, sql)?;
        if columns.iter().any(|before| before.name == column.name) {
            let error = SqlError::new("42701", format!("column \"{}\" specified more than once", column.name));
            return Err(located(error, sql, &column.name));
        }
        columns.push(column);
    }
    let mut uniques: Vec<(Option<String>, Vec<IndexColumn>)> = Vec::new();
    for definition in &create.columns {
        for option in &definition.options {
            if let ColumnOption::Unique(_) = option.option {
                let name = option.name.as_ref().map(name_of);
                uniques.push((name, vec![IndexColumn::from(definition.name.clone())]));
            }
        }
    }
    for constraint in &create.constraints {
        if let TableConstraint::Unique(unique) = constraint {
            if matches!(unique.nulls_distinct, NullsDistinctOption::NotDistinct) {
                return Err(SqlError::unsupported("NULLS NOT DISTINCT"));
            }
            uniques.push((unique.name.as_ref().map(name_of), unique.columns.clone()));
            continue;
        }
        let primary = match constraint {
            TableConstraint::PrimaryKey(primary) => primary,
            // `checks` compiles them.
            TableConstraint::Check(_) => continue,
            _ => return Err(SqlError::unsupported(format!("the constraint {constraint}"))),
        };
        if !key.is_empty() {
            return Err(SqlError::new(
                "42P16",
                format!("multiple primary keys for table \"{name}\" are not allowed"),
            ));
        }
        for column in &primary.columns {
            let AstExpr::Identifier(ident) = &column.column.expr else {
                return Err(SqlError::unsupported(format!("the key {column}")));
            };
            key.push(name_of(ident));
        }
    }
    if key.is_empty() {
        return Err(SqlError::new("42P16", format!("table \"{name}\" needs a primary key"))
            .hint("Rows are partitioned and found by the primary key: name it with PRIMARY KEY (column, ...)."));
    }
    let place = |wanted: &String| {
        columns.iter().position(|column| column.name == *wanted).ok_or_else(|| {
            located(
                SqlError::new("42703", format!("column \"{wanted}\" named in key does not exist")),
                sql,
                wanted,
            )
        })
    };
    if key.len() > MAX_KEY_COLUMNS {
        let message = format!("a primary key can have at most {MAX_KEY_COLUMNS} columns");
        return Err(SqlError::new("54011", message));
    }
    let primary_key = key.iter().map(place).collect::<Result<Vec<_>, _>>()?;
    if let Some(twice) = (1..key.len()).find(|&at| key[..at].contains(&key[at])) {
        let message = format!("column \"{}\" appears twice in primary key constraint", key[twice]);
        return Err(located(SqlError::new("42701", message), sql, &key[twice]));
    }
    let partition_column = match &clauses.partition_by {
        _ if clauses.replicated => None,
        None => Some(primary_key[0]),
        Some(wanted) => Some(place(wanted)?),
    };
    if !partition_column.is_none_or(|place| primary_key.contains(&place)) {
        return Err(
            SqlError::new("42P16", "the partition column must be part of the primary key")
                .hint("Otherwise a key would be unique in its own partition only."),
        );
    }
    for &place in &primary_key {
        columns[place].nullable = false;
    }
    let mut indexes = Vec::new();
    for (constraint, written) in uniques {
        let index = unique_constraint(&name, &columns, partition_column, (constraint, &written), &indexes, sql)?;
        indexes.push(index);
    }
    let sequences = take_sequences((create, clauses), &name, &mut columns, &indexes, map)?;
    let ttl = match &clauses.ttl {
        Some(_) if clauses.replicated => return Err(super::ttl::of_replicated(&name)),
        Some(clause) => Some(Box::new(clause.of_new_table((&name, &columns), &indexes, sql, map)?)),
        None => None,
    };
    Ok(NewTable {
        name,
        columns,
        primary_key,
        partition_column,
        indexes,
        checks: Vec::new(),
        sequences,
        ttl,
    })
}

pub(super) fn check_name(name: &str, sql: &str) -> Result<(), SqlError> {
    if name.len() <= MAX_NAME_BYTES {
        return Ok(());
    }
    let message = format!("a name can have at most {MAX_NAME_BYTES} bytes");
    Err(located(SqlError::new("42622", message), sql, name))
}

fn located(error: SqlError, sql: &str, name: &str) -> SqlError {
    match position_of(sql, name) {
        Some(position) => error.at(position),
        None => error,
    }
}

pub(super) fn column(definition: &ColumnDef, key: &mut Vec<String>, sql: &str) -> Result<Column, SqlError> {
    let name = name_of(&definition.name);
    check_name(&name, sql)?;
    if name == VERSION {
        let message = format!("column name \"{name}\" conflicts with a system column name");
        return Err(located(SqlError::new("42701", message), sql, &name));
    }
    let data_type = match serial_type(&definition.data_type) {
        Some(data_type) => data_type,
        None => data_type(&definition.data_type, sql)?,
    };
    let mut column = Column {
        name: name.clone(),
        data_type,
        nullable: true,
        default: None,
        is_dropped: false,
        missing: Value::Null,
    };
    for option in &definition.options {
        match &option.option {
            option if is_of_sequence(option) => {} // the table's
            ColumnOption::Null => column.nullable = true,
            ColumnOption::NotNull => column.nullable = false,
            ColumnOption::Default(expr) => column.default = Some(default(expr, data_type)?),
            ColumnOption::PrimaryKey(_) if key.is_empty() => key.push(name.clone()),
            ColumnOption::PrimaryKey(_) => return Err(SqlError::new("42P16", "multiple primary keys are not allowed")),
            ColumnOption::Unique(_) => {} // the table's
            ColumnOption::Check(_) => {}
            other => return Err(SqlError::unsupported(format!("the column option {other}"))),
        }
    }
    Ok(column)
}

/// The type that a text names.
pub(super) fn type_named(written: &str) -> Result<DataType, SqlError> {
    let unknown = || SqlError::new("42704", format!("type \"{written}\" does not exist"));
    let dialect = PostgreSqlDialect {};
    let mut parser = Parser::new(&dialect).try_with_sql(written).map_err(|_| unknown())?;
    let ast = parser.parse_data_type().map_err(|_| unknown())?;
    if parser.peek_token().token != Token::EOF {
        return Err(unknown());
    }
    data_type(&ast, written).map_err(|mut error| {
        error.position = None;
        error
    })
}

fn data_type(ast: &Ast, sql: &str) -> Result<DataType, SqlError> {
    Ok(match ast {
        Ast::Boolean | Ast::Bool => DataType::Boolean,
        Ast::Int(None) | Ast::Integer(None) | Ast::Int4(None) | Ast::SmallInt(None) | Ast::Int2(None) => DataType::Int,
        Ast::BigInt(None) | Ast::Int8(None) => DataType::BigInt,
        Ast::DoublePrecision | Ast::Float8 | Ast::Double(_) | Ast::Real | Ast::Float4 | Ast::Float(_) => {
            DataType::Double
        }
        Ast::Numeric(info) | Ast::Decimal(info) | Ast::Dec(info) => numeric(info)?,
        Ast::Varchar(Some(length)) | Ast::CharacterVarying(Some(length)) | Ast::CharVarying(Some(length)) => {
            DataType::Varchar(
                length
                    .to_string()
                    .parse()
                    .map_err(|_| SqlError::new("22023", "length of VARCHAR"))?,
            )
        }
        Ast::Varchar(None) | Ast::CharacterVarying(None) | Ast::CharVarying(None) | Ast::Text => DataType::Text,
        Ast::Timestamp(_, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => DataType::Timestamp,
        Ast::Bytea => DataType::Bytea,
        Ast::Custom(name, _) => {
            let name = name.to_string();
            return Err(located(
                SqlError::new("42704", format!("type \"{name}\" does not exist")),
                sql,
                &name,
            ));
        }
        other => return Err(SqlError::unsupported(format!("the type {other}"))),
    })
}

fn numeric(info: &ExactNumberInfo) -> Result<DataType, SqlError> {
    let (precision, scale) = match *info {
        ExactNumberInfo::None => return Ok(FREE_NUMERIC),
        ExactNumberInfo::Precision(precision) => (precision, 0),
        ExactNumberInfo::PrecisionAndScale(precision, scale) => (precision, scale),
    };
    let (precision, scale) = (
        u8::try_from(precision).unwrap_or(u8::MAX),
        u8::try_from(scale).unwrap_or(u8::MAX),
    );
    if !(1..=28).contains(&precision) || scale > precision {
        return Err(SqlError::new(
            "22023",
            "NUMERIC has 1 to 28 digits in all, and no more of them after the point",
        ));
    }
    Ok(DataType::Numeric { precision, scale })
}

pub(super) fn default(expr: &AstExpr, to: DataType) -> Result<ColumnDefault, SqlError> {
    if let AstExpr::Function(function) = expr
        && matches!(
            function.name.to_string().to_lowercase().as_str(),
            "now" | "current_timestamp"
        )
    {
        return Ok(ColumnDefault::Now);
    }
    let value = constant(expr).ok_or_else(|| SqlError::unsupported(format!("the default {expr}")))?;
    let value = match to {
        DataType::Varchar(_) => assign_value(value, to)?,
        _ => cast_value(value, to)?,
    };
    let bytes = match &value {
        Value::Text(text) => text.len(),
        Value::Bytea(bytes) => bytes.len(),
        _ => 0,
    };
    if bytes > MAX_DEFAULT_BYTES {
        let message = format!("a column's default can have at most {MAX_DEFAULT_BYTES} bytes, not {bytes}");
        return Err(SqlError::new("54000", message));
    }
    Ok(ColumnDefault::Value(value))
}

fn constant(expr: &AstExpr) -> Option<Value> {
    match expr {
        AstExpr::Nested(inner) => constant(inner),
        AstExpr::UnaryOp {
            op: UnaryOperator::Minus,
            expr,
        } => match constant(expr)? {
            Value::Text(text) => Some(Value::Text(format!("-{text}"))),
            _ => None,
        },
        AstExpr::Value(value) => match &value.value {
            AstValue::Null => Some(Value::Null),
            AstValue::Boolean(value) => Some(Value::Boolean(*value)),
            AstValue::Number(digits, _) => Some(Value::Text(digits.to_string())),
            AstValue::SingleQuotedString(text) | AstValue::EscapedStringLiteral(text) => {
                Some(Value::Text(text.clone()))
            }
            _ => None,
        },
        AstExpr::Cast { expr, .. } => constant(expr),
        _ => None,
    }
}
