//! Rows, and their bytes between the module and its host: docs/procedures.md has them in a table.

use std::convert::TryInto;
use std::ops::Deref;

use crate::{Error, FromValue, Value};

/// Values of a row, of the arguments, of a statement's parameters.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row(pub Vec<Value>);

impl Deref for Row {
    type Target = [Value];

    fn deref(&self) -> &[Value] {
        &self.0
    }
}

impl Row {
    /// A value by its place, from 0; NULL is an error unless it is asked for as an `Option`.
    pub fn get<T: FromValue>(&self, place: usize) -> Result<T, Error> {
        let value = self.0.get(place).unwrap_or(&Value::Null);
        T::from_value(value).ok_or_else(|| {
            let message = format!("value {} of a row is {:?}, which is not expected there", place, value);
            Error::new("42804", message)
        })
    }

    pub(crate) fn encode(values: &[Value]) -> Vec<u8> {
        let mut out = (values.len() as u32).to_le_bytes().to_vec();
        for value in values {
            match value {
                Value::Null => out.push(0),
                Value::Boolean(value) => out.extend_from_slice(&[1, u8::from(*value)]),
                Value::Int(value) => tagged(&mut out, 2, &value.to_le_bytes()),
                Value::BigInt(value) => tagged(&mut out, 3, &value.to_le_bytes()),
                Value::Double(value) => tagged(&mut out, 4, &value.to_le_bytes()),
                Value::Numeric { digits, scale } => {
                    out.extend_from_slice(&[5, *scale]);
                    out.extend_from_slice(&digits.to_le_bytes());
                }
                Value::Text(value) => counted(&mut out, 6, value.as_bytes()),
                Value::Timestamp(value) => tagged(&mut out, 7, &value.to_le_bytes()),
                Value::Bytea(value) => counted(&mut out, 8, value),
            }
        }
        out
    }

    /// Panics if the bytes are no row, which the host never sends.
    pub(crate) fn decode(bytes: &[u8]) -> Self {
        let mut bytes = bytes;
        let count = u32::from_le_bytes(take(&mut bytes));
        Self((0..count).map(|_| value(&mut bytes)).collect())
    }
}

fn tagged(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    out.extend_from_slice(bytes);
}

fn counted(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    tagged(out, tag, &(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn take<const N: usize>(bytes: &mut &[u8]) -> [u8; N] {
    let (taken, rest) = bytes.split_at(N);
    *bytes = rest;
    taken.try_into().expect("so many bytes")
}

fn take_counted(bytes: &mut &[u8]) -> Vec<u8> {
    let length = u32::from_le_bytes(take(bytes)) as usize;
    let (taken, rest) = bytes.split_at(length);
    *bytes = rest;
    taken.to_vec()
}

fn value(bytes: &mut &[u8]) -> Value {
    let [tag] = take(bytes);
    match tag {
        0 => Value::Null,
        1 => Value::Boolean(take(bytes) == [1]),
        2 => Value::Int(i32::from_le_bytes(take(bytes))),
        3 => Value::BigInt(i64::from_le_bytes(take(bytes))),
        4 => Value::Double(f64::from_le_bytes(take(bytes))),
        5 => {
            let [scale] = take(bytes);
            let digits = i128::from_le_bytes(take(bytes));
            Value::Numeric { digits, scale }
        }
        6 => Value::Text(String::from_utf8(take_counted(bytes)).expect("texts are UTF-8")),
        7 => Value::Timestamp(i64::from_le_bytes(take(bytes))),
        8 => Value::Bytea(take_counted(bytes)),
        _ => panic!("a value with the unknown tag {}", tag),
    }
}
