//! Values in PostgreSQL's binary formats.

use volt_engine::value::{Value, ValueRef};

use super::timestamp::POSTGRES_EPOCH;
use super::{
    BOOL, BPCHAR, BYTEA, DATE, FLOAT4, FLOAT8, INT2, INT4, INT8, NAME, NUMERIC, TEXT, TIMESTAMP, TIMESTAMPTZ, UNKNOWN,
    VARCHAR, numeric, out_of_range, text_of,
};
use crate::error::SqlError;

const MICROS_PER_DAY: i64 = 86_400_000_000;

/// Appends the value's bytes; nothing for NULL.
pub(crate) fn put(out: &mut Vec<u8>, value: ValueRef<'_>) {
    match value {
        ValueRef::Null => {}
        ValueRef::Boolean(value) => out.push(u8::from(value)),
        ValueRef::Int(value) => out.extend_from_slice(&value.to_be_bytes()),
        ValueRef::BigInt(value) => out.extend_from_slice(&value.to_be_bytes()),
        ValueRef::Double(value) => out.extend_from_slice(&value.to_be_bytes()),
        ValueRef::Numeric(value) => numeric::put(out, value),
        ValueRef::Text(value) => out.extend_from_slice(value.as_bytes()),
        ValueRef::Timestamp(value) => out.extend_from_slice(&value.saturating_sub(POSTGRES_EPOCH).to_be_bytes()),
        ValueRef::Bytea(value) => out.extend_from_slice(value),
    }
}

/// A parameter as its client sent it, declared with this OID; `coerce` makes it what the statement wants.
pub(super) fn parameter(bytes: &[u8], oid: u32) -> Result<Value, SqlError> {
    Ok(match oid {
        BOOL => match bytes {
            [0] => Value::Boolean(false),
            [_] => Value::Boolean(true),
            _ => return Err(wrong_size()),
        },
        INT2 => Value::Int(i32::from(i16::from_be_bytes(exactly(bytes)?))),
        INT4 => Value::Int(i32::from_be_bytes(exactly(bytes)?)),
        INT8 => Value::BigInt(i64::from_be_bytes(exactly(bytes)?)),
        FLOAT4 => Value::Double(f64::from(f32::from_be_bytes(exactly(bytes)?))),
        FLOAT8 => Value::Double(f64::from_be_bytes(exactly(bytes)?)),
        NUMERIC => Value::Numeric(numeric::read(bytes)?),
        TEXT | VARCHAR | BPCHAR | NAME | UNKNOWN => Value::Text(text_of(bytes)?.to_owned()),
        TIMESTAMP | TIMESTAMPTZ => since_1970(i64::from_be_bytes(exactly(bytes)?))?,
        // A day that is too far away is as far as can be, and out of range.
        DATE => since_1970(i64::from(i32::from_be_bytes(exactly(bytes)?)).saturating_mul(MICROS_PER_DAY))?,
        BYTEA => Value::Bytea(bytes.to_vec()),
        other => {
            return Err(SqlError::unsupported(format_args!(
                "a parameter of the type with OID {other}"
            )));
        }
    })
}

fn since_1970(since_2000: i64) -> Result<Value, SqlError> {
    let infinite = since_2000 == i64::MAX || since_2000 == i64::MIN;
    let micros = since_2000.checked_add(POSTGRES_EPOCH).filter(|_| !infinite);
    micros.map(Value::Timestamp).ok_or_else(|| out_of_range("timestamp"))
}

fn exactly<const N: usize>(bytes: &[u8]) -> Result<[u8; N], SqlError> {
    bytes.try_into().map_err(|_| wrong_size())
}

pub(super) fn wrong_size() -> SqlError {
    SqlError::new("22P03", "incorrect binary data format in bind parameter")
}
