//! Binary parameters of kindred types: an int2 for a BIGINT column, a date for a TIMESTAMP, text for anything.

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;
use volt_engine::value::{DataType, Value};

use super::{oid, out_of_range, parse, type_name};
use crate::error::SqlError;

/// The value as one of the type that the statement wants.
pub(super) fn value(value: Value, target: DataType) -> Result<Value, SqlError> {
    match (value, target) {
        (Value::Text(text), DataType::Text | DataType::Varchar(_)) => Ok(Value::Text(text)),
        (Value::Text(text), target) => parse::value(&text, target),
        (value @ Value::Boolean(_), DataType::Boolean)
        | (value @ Value::Int(_), DataType::Int)
        | (value @ Value::BigInt(_), DataType::BigInt)
        | (value @ Value::Double(_), DataType::Double)
        | (value @ Value::Numeric(_), DataType::Numeric { .. })
        | (value @ Value::Timestamp(_), DataType::Timestamp)
        | (value @ Value::Bytea(_), DataType::Bytea)
        | (value @ Value::Null, _) => Ok(value),
        (Value::Int(number), target) => integer(i64::from(number), target),
        (Value::BigInt(number), target) => integer(number, target),
        (Value::Double(number), DataType::Numeric { .. }) => Decimal::try_from(number)
            .map(Value::Numeric)
            .map_err(|_| out_of_range("numeric")),
        (Value::Numeric(number), DataType::Double) => number
            .to_f64()
            .map(Value::Double)
            .ok_or_else(|| out_of_range("double precision")),
        (other, target) => Err(mismatch(&other, target)),
    }
}

fn integer(number: i64, target: DataType) -> Result<Value, SqlError> {
    match target {
        DataType::Int => i32::try_from(number)
            .map(Value::Int)
            .map_err(|_| out_of_range("integer")),
        DataType::BigInt => Ok(Value::BigInt(number)),
        DataType::Double => Ok(Value::Double(number as f64)),
        DataType::Numeric { .. } => Ok(Value::Numeric(Decimal::from(number))),
        _ => Err(mismatch(&Value::BigInt(number), target)),
    }
}

fn mismatch(value: &Value, target: DataType) -> SqlError {
    let given = match value {
        Value::Null => "null",
        Value::Boolean(_) => "boolean",
        Value::Int(_) => "integer",
        Value::BigInt(_) => "bigint",
        Value::Double(_) => "double precision",
        Value::Numeric(_) => "numeric",
        Value::Text(_) => "text",
        Value::Timestamp(_) => "timestamp",
        Value::Bytea(_) => "bytea",
    };
    let (wanted, number) = (type_name(target), oid(target));
    SqlError::new(
        "42804",
        format!("parameter is of type {given} but the statement wants {wanted} (OID {number})"),
    )
}
