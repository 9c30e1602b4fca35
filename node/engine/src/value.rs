//! SQL values and their types, owned (`Value`) and borrowed from a row (`ValueRef`).

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

/// A column's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DataType {
    /// BOOLEAN.
    Boolean,
    /// INT: 32 bits.
    Int,
    /// BIGINT: 64 bits.
    BigInt,
    /// DOUBLE PRECISION: IEEE 754, 64 bits.
    Double,
    /// NUMERIC(precision, scale): at most 28 digits in all; without arguments precision 28 and the value's own scale up to 10.
    Numeric {
        /// Digits in all, 1 to 28.
        precision: u8,
        /// Digits after the point, 0 to precision.
        scale: u8,
    },
    /// VARCHAR(n), counted in characters.
    Varchar(u32),
    /// TEXT, and VARCHAR without a length.
    Text,
    /// TIMESTAMP without time zone: microseconds since 1970-01-01 00:00:00.
    Timestamp,
    /// BYTEA.
    Bytea,
}

/// An owned value. `Text` serves VARCHAR and TEXT.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// SQL NULL, of any type.
    Null,
    /// BOOLEAN.
    Boolean(bool),
    /// INT.
    Int(i32),
    /// BIGINT.
    BigInt(i64),
    /// DOUBLE PRECISION.
    Double(f64),
    /// NUMERIC.
    Numeric(Decimal),
    /// VARCHAR or TEXT.
    Text(String),
    /// Microseconds since 1970-01-01 00:00:00.
    Timestamp(i64),
    /// BYTEA.
    Bytea(Vec<u8>),
}

/// A value that lies in a row or in a `Value`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ValueRef<'a> {
    /// SQL NULL, of any type.
    Null,
    /// BOOLEAN.
    Boolean(bool),
    /// INT.
    Int(i32),
    /// BIGINT.
    BigInt(i64),
    /// DOUBLE PRECISION.
    Double(f64),
    /// NUMERIC.
    Numeric(Decimal),
    /// VARCHAR or TEXT.
    Text(&'a str),
    /// Microseconds since 1970-01-01 00:00:00.
    Timestamp(i64),
    /// BYTEA.
    Bytea(&'a [u8]),
}

impl Value {
    /// The same value, borrowed.
    pub fn as_ref(&self) -> ValueRef<'_> {
        match self {
            Self::Null => ValueRef::Null,
            Self::Boolean(v) => ValueRef::Boolean(*v),
            Self::Int(v) => ValueRef::Int(*v),
            Self::BigInt(v) => ValueRef::BigInt(*v),
            Self::Double(v) => ValueRef::Double(*v),
            Self::Numeric(v) => ValueRef::Numeric(*v),
            Self::Text(v) => ValueRef::Text(v),
            Self::Timestamp(v) => ValueRef::Timestamp(*v),
            Self::Bytea(v) => ValueRef::Bytea(v),
        }
    }
}

impl ValueRef<'_> {
    /// The same value, owned.
    pub fn to_value(self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Boolean(v) => Value::Boolean(v),
            Self::Int(v) => Value::Int(v),
            Self::BigInt(v) => Value::BigInt(v),
            Self::Double(v) => Value::Double(v),
            Self::Numeric(v) => Value::Numeric(v),
            Self::Text(v) => Value::Text(v.to_owned()),
            Self::Timestamp(v) => Value::Timestamp(v),
            Self::Bytea(v) => Value::Bytea(v.to_owned()),
        }
    }
}
