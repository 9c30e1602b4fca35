//! Types and values on the wire: OIDs, text and binary formats, and parameters of kindred types.

pub(crate) mod binary;
mod coerce;
mod numeric;
mod parse;
pub(crate) mod text;
pub(crate) mod timestamp;

use volt_engine::value::{DataType, Value, ValueRef};

use crate::error::SqlError;
use crate::gateway::messages::{begin, end, format_of};

pub(crate) const BOOL: u32 = 16;
pub(crate) const BYTEA: u32 = 17;
pub(crate) const NAME: u32 = 19;
pub(crate) const INT8: u32 = 20;
pub(crate) const INT2: u32 = 21;
pub(crate) const INT4: u32 = 23;
pub(crate) const TEXT: u32 = 25;
pub(crate) const FLOAT4: u32 = 700;
pub(crate) const FLOAT8: u32 = 701;
pub(crate) const UNKNOWN: u32 = 705;
pub(crate) const BPCHAR: u32 = 1042;
pub(crate) const VARCHAR: u32 = 1043;
pub(crate) const DATE: u32 = 1082;
pub(crate) const TIMESTAMP: u32 = 1114;
pub(crate) const TIMESTAMPTZ: u32 = 1184;
pub(crate) const NUMERIC: u32 = 1700;

/// The scale of a NUMERIC parameter without one of its own.
const PARAMETER_SCALE: u8 = 10;
/// The digits of a NUMERIC without a precision.
const FULL_PRECISION: u8 = 28;

/// PostgreSQL's number for the type.
pub(crate) fn oid(data_type: DataType) -> u32 {
    match data_type {
        DataType::Boolean => BOOL,
        DataType::Int => INT4,
        DataType::BigInt => INT8,
        DataType::Double => FLOAT8,
        DataType::Numeric { .. } => NUMERIC,
        DataType::Varchar(_) => VARCHAR,
        DataType::Text => TEXT,
        DataType::Timestamp => TIMESTAMP,
        DataType::Bytea => BYTEA,
    }
}

/// The type that a parameter declared with this OID has for the planner; None: to be inferred.
pub(crate) fn declared_type(oid: u32) -> Result<Option<DataType>, SqlError> {
    Ok(Some(match oid {
        0 | UNKNOWN => return Ok(None),
        BOOL => DataType::Boolean,
        INT2 | INT4 => DataType::Int,
        INT8 => DataType::BigInt,
        FLOAT4 | FLOAT8 => DataType::Double,
        NUMERIC => DataType::Numeric {
            precision: FULL_PRECISION,
            scale: PARAMETER_SCALE,
        },
        TEXT | VARCHAR | BPCHAR | NAME => DataType::Text,
        TIMESTAMP | TIMESTAMPTZ | DATE => DataType::Timestamp,
        BYTEA => DataType::Bytea,
        other => {
            return Err(SqlError::unsupported(format_args!(
                "a parameter of the type with OID {other}"
            )));
        }
    }))
}

/// The type's size on the wire; -1: variable.
pub(crate) fn size(data_type: DataType) -> i16 {
    match data_type {
        DataType::Boolean => 1,
        DataType::Int => 4,
        DataType::BigInt | DataType::Double | DataType::Timestamp => 8,
        _ => -1,
    }
}

/// The type's arguments, as PostgreSQL packs them; -1: none.
pub(crate) fn modifier(data_type: DataType) -> i32 {
    match data_type {
        DataType::Varchar(limit) => i32::try_from(limit).map_or(-1, |limit| limit.saturating_add(4)),
        DataType::Numeric { precision, scale } if precision < FULL_PRECISION => {
            ((i32::from(precision) << 16) | i32::from(scale)) + 4
        }
        _ => -1,
    }
}

/// Appends a DataRow.
pub(crate) fn data_row(out: &mut Vec<u8>, values: &[ValueRef<'_>], formats: &[i16]) {
    let row = begin(out, b'D');
    out.extend_from_slice(&(values.len() as u16).to_be_bytes());
    for (place, value) in values.iter().enumerate() {
        let at = out.len();
        out.extend_from_slice(&[0xff; 4]);
        match (value, format_of(formats, place)) {
            (ValueRef::Null, _) => continue,
            (_, 0) => text::put(out, *value),
            _ => binary::put(out, *value),
        }
        let length = (out.len() - at - 4) as u32;
        out[at..at + 4].copy_from_slice(&length.to_be_bytes());
    }
    end(out, row);
}

/// A parameter's value: bytes in one of the two formats, declared with an OID, for a place that wants `target`.
pub(crate) fn parameter(bytes: &[u8], format: i16, oid: u32, target: DataType) -> Result<Value, SqlError> {
    if format == 0 {
        return parse::value(text_of(bytes)?, target);
    }
    coerce::value(binary::parameter(bytes, oid)?, target)
}

fn text_of(bytes: &[u8]) -> Result<&str, SqlError> {
    let text = std::str::from_utf8(bytes).map_err(|_| invalid_utf8())?;
    if text.bytes().any(|byte| byte == 0) {
        return Err(invalid_utf8());
    }
    Ok(text)
}

pub(crate) fn invalid_utf8() -> SqlError {
    SqlError::new("22021", "invalid byte sequence for encoding \"UTF8\"")
}

fn out_of_range(what: &str) -> SqlError {
    SqlError::new("22003", format!("{what} out of range"))
}

fn invalid_text(data_type: &str, text: &str) -> SqlError {
    SqlError::new(
        "22P02",
        format!("invalid input syntax for type {data_type}: \"{text}\""),
    )
}

fn type_name(data_type: DataType) -> &'static str {
    match data_type {
        DataType::Boolean => "boolean",
        DataType::Int => "integer",
        DataType::BigInt => "bigint",
        DataType::Double => "double precision",
        DataType::Numeric { .. } => "numeric",
        DataType::Varchar(_) => "character varying",
        DataType::Text => "text",
        DataType::Timestamp => "timestamp",
        DataType::Bytea => "bytea",
    }
}

#[cfg(test)]
mod tests;
