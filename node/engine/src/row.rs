//! The one encoding of a row: the same bytes in memory, in effects, in the log, in a checkpoint and between nodes.
//!
//! Self-describing, so that a row can be read without its table: a column count (varint), then each value behind its
//! tag. Columns that a row lacks at its end (added later) read as NULL.
//!
//! | tag | value |
//! | --- | --- |
//! | 0 | NULL |
//! | 1, 2 | false, true |
//! | 3, 4 | INT, BIGINT: zigzag varint |
//! | 5 | DOUBLE: 8 bytes, little-endian |
//! | 6 | NUMERIC: 16 bytes, as `Decimal::serialize` |
//! | 7, 9 | TEXT, BYTEA: length (varint), bytes |
//! | 8 | TIMESTAMP: zigzag varint |

use rust_decimal::Decimal;

use crate::value::ValueRef;

/// Bytes that are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("corrupt {what}")]
pub struct CorruptError {
    /// What was being read.
    pub what: &'static str,
}

impl CorruptError {
    pub(crate) const fn new(what: &'static str) -> Self {
        Self { what }
    }
}

/// Encodes a row.
pub fn encode_row(values: &[ValueRef<'_>]) -> Vec<u8> {
    let mut out = Vec::with_capacity(values.len() * 9 + 2);
    put_varint(&mut out, values.len() as u64);
    for value in values {
        put_value(&mut out, *value);
    }
    out
}

fn put_value(out: &mut Vec<u8>, value: ValueRef<'_>) {
    match value {
        ValueRef::Null => out.push(0),
        ValueRef::Boolean(value) => out.push(1 + u8::from(value)),
        ValueRef::Int(value) => put_tagged(out, 3, zigzag(i64::from(value))),
        ValueRef::BigInt(value) => put_tagged(out, 4, zigzag(value)),
        ValueRef::Double(value) => {
            out.push(5);
            out.extend_from_slice(&value.to_bits().to_le_bytes());
        }
        ValueRef::Numeric(value) => {
            out.push(6);
            out.extend_from_slice(&value.serialize());
        }
        ValueRef::Text(value) => put_bytes(out, 7, value.as_bytes()),
        ValueRef::Timestamp(value) => put_tagged(out, 8, zigzag(value)),
        ValueRef::Bytea(value) => put_bytes(out, 9, value),
    }
}

fn put_tagged(out: &mut Vec<u8>, tag: u8, number: u64) {
    out.push(tag);
    put_varint(out, number);
}

fn put_bytes(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    put_tagged(out, tag, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn unzigzag(value: u64) -> i64 {
    ((value >> 1) as i64) ^ -((value & 1) as i64)
}

/// Appends a varint: seven bits a byte, the lowest first.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Reads from the front of a slice, never beyond its end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn byte(&mut self) -> Result<u8, CorruptError> {
        let (&first, rest) = self.0.split_first().ok_or(CorruptError::new("bytes: too few"))?;
        self.0 = rest;
        Ok(first)
    }

    pub(crate) fn varint(&mut self) -> Result<u64, CorruptError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(CorruptError::new("varint"))
    }

    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], CorruptError> {
        if length > self.0.len() {
            return Err(CorruptError::new("bytes: too few"));
        }
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], CorruptError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, CorruptError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, CorruptError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], CorruptError> {
        let length = self.varint()?;
        self.take(usize::try_from(length).map_err(|_| CorruptError::new("length"))?)
    }

    fn value(&mut self) -> Result<ValueRef<'a>, CorruptError> {
        Ok(match self.byte()? {
            0 => ValueRef::Null,
            1 => ValueRef::Boolean(false),
            2 => ValueRef::Boolean(true),
            3 => ValueRef::Int(i32::try_from(unzigzag(self.varint()?)).map_err(|_| CorruptError::new("INT"))?),
            4 => ValueRef::BigInt(unzigzag(self.varint()?)),
            5 => ValueRef::Double(f64::from_bits(self.u64()?)),
            6 => ValueRef::Numeric(Decimal::deserialize(self.array()?)),
            7 => ValueRef::Text(std::str::from_utf8(self.bytes()?).map_err(|_| CorruptError::new("TEXT"))?),
            8 => ValueRef::Timestamp(unzigzag(self.varint()?)),
            9 => ValueRef::Bytea(self.bytes()?),
            _ => return Err(CorruptError::new("tag of a value")),
        })
    }
}

/// An encoded row, read where it lies. Made by `parse`, which checks all of it, so that reading can't fail.
#[derive(Clone, Copy, Debug)]
pub struct RowRef<'a> {
    count: usize,
    values: &'a [u8],
}

impl<'a> RowRef<'a> {
    /// Checks the bytes.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, CorruptError> {
        let row = Self::trusted(bytes)?;
        let mut reader = Reader(row.values);
        for _ in 0..row.count {
            reader.value()?;
        }
        if !reader.0.is_empty() {
            return Err(CorruptError::new("row: bytes left over"));
        }
        Ok(row)
    }

    /// Without checking the values: for rows that were checked or made here.
    pub(crate) fn trusted(bytes: &'a [u8]) -> Result<Self, CorruptError> {
        let mut reader = Reader(bytes);
        let count = usize::try_from(reader.varint()?).map_err(|_| CorruptError::new("row"))?;
        if count > reader.0.len() {
            return Err(CorruptError::new("row: too few bytes for its columns"));
        }
        Ok(Self { count, values: reader.0 })
    }

    /// The value of a column; NULL beyond the last.
    pub fn get(&self, column: usize) -> ValueRef<'a> {
        self.values().nth(column).unwrap_or(ValueRef::Null)
    }

    /// All values, in order.
    pub fn values(&self) -> impl Iterator<Item = ValueRef<'a>> + use<'a> {
        let mut reader = Reader(self.values);
        (0..self.count).map_while(move |_| reader.value().ok())
    }
}
