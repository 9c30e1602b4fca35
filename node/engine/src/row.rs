//! The one encoding of a row: the same bytes in memory, in effects, in the log, in a checkpoint and between nodes.
//!
//! Self-describing, so that a row can be read without its table: a column count, then each value behind its tag.
//! Columns that a row lacks at its end (added later) read as what they were added with (`RowRef::with_missing`), else NULL.
//!
//! Bytes that come from outside go through `RowRef::parse`, which checks all of them; after that `RowRef::new`
//! is enough. What was not checked and is malformed reads as NULL and never panics.

use rust_decimal::Decimal;

use crate::codec::{Reader, put_counted, put_varint, put_varint128, unzigzag, unzigzag128, zigzag, zigzag128};
pub use crate::error::CorruptError;
use crate::value::{Value, ValueRef};

const NULL: u8 = 0;
const FALSE: u8 = 1;
const TRUE: u8 = 2;
/// Then a zigzag varint.
const INT: u8 = 3;
/// Then a zigzag varint.
const BIGINT: u8 = 4;
/// Then 8 bytes.
const DOUBLE: u8 = 5;
/// Then the scale, one byte, and the mantissa, a zigzag varint.
const NUMERIC: u8 = 6;
/// Then counted bytes.
const TEXT: u8 = 7;
/// Then 8 bytes.
const TIMESTAMP: u8 = 8;
/// Then counted bytes.
const BYTEA: u8 = 9;

/// Bytes of a number with its tag, at most.
const MAX_NUMBER: usize = 17;

/// Encodes a row.
pub fn encode_row(values: &[ValueRef<'_>]) -> Vec<u8> {
    let mut out = Vec::with_capacity(2 + values.len() * 10);
    encode_row_into(&mut out, values.iter().copied());
    out
}

/// Appends a row's encoding to `out`.
pub fn encode_row_into<'a>(out: &mut Vec<u8>, values: impl ExactSizeIterator<Item = ValueRef<'a>>) {
    put_varint(out, values.len() as u64);
    for value in values {
        put_value(out, value);
    }
}

/// Appends the encoding of a row of so many columns, or of as many as `old` has, which is `old` but for the columns that
/// `changed` names, in ascending order. What does not change is copied as it lies.
pub(crate) fn encode_changed_into(
    out: &mut Vec<u8>,
    old: RowRef<'_>,
    columns: usize,
    changed: &[(usize, ValueRef<'_>)],
) {
    // Once, not at each of its parts.
    out.reserve(old.values.rest().len() + changed.len() * MAX_NUMBER);
    put_varint(out, columns.max(old.count) as u64);
    let mut reader = old.values;
    let mut next = 0;
    for &(column, value) in changed {
        next = copy_columns(out, &mut reader, &old, next, column);
        put_value(out, value);
        if column < old.count {
            // A row that was checked has it.
            let _ = skip_value(&mut reader);
        }
        next += 1;
    }
    copy_columns(out, &mut reader, &old, next, columns.max(old.count));
}

/// Copies the columns from `from` on, up to `to`, which is then the next one, also those that the row lacks.
fn copy_columns(out: &mut Vec<u8>, reader: &mut Reader<'_>, old: &RowRef<'_>, from: usize, to: usize) -> usize {
    let before = reader.rest();
    for _ in from..to.min(old.count) {
        let _ = skip_value(reader);
    }
    out.extend_from_slice(&before[..before.len() - reader.rest().len()]);
    (from.max(old.count)..to).for_each(|column| put_value(out, old.get(column)));
    to
}

fn put_value(out: &mut Vec<u8>, value: ValueRef<'_>) {
    match value {
        ValueRef::Null => out.push(NULL),
        ValueRef::Boolean(false) => out.push(FALSE),
        ValueRef::Boolean(true) => out.push(TRUE),
        ValueRef::Int(v) => {
            out.push(INT);
            put_varint(out, zigzag(i64::from(v)));
        }
        ValueRef::BigInt(v) => {
            out.push(BIGINT);
            put_varint(out, zigzag(v));
        }
        ValueRef::Double(v) => {
            out.push(DOUBLE);
            out.extend_from_slice(&v.to_bits().to_le_bytes());
        }
        ValueRef::Numeric(v) => {
            out.push(NUMERIC);
            out.push(v.scale() as u8);
            put_varint128(out, zigzag128(v.mantissa()));
        }
        ValueRef::Text(v) => {
            out.push(TEXT);
            put_counted(out, v.as_bytes());
        }
        ValueRef::Timestamp(v) => {
            out.push(TIMESTAMP);
            out.extend_from_slice(&v.to_le_bytes());
        }
        ValueRef::Bytea(v) => {
            out.push(BYTEA);
            put_counted(out, v);
        }
    }
}

#[inline]
fn read_value<'a>(reader: &mut Reader<'a>) -> Result<ValueRef<'a>, CorruptError> {
    Ok(match reader.u8()? {
        NULL => ValueRef::Null,
        FALSE => ValueRef::Boolean(false),
        TRUE => ValueRef::Boolean(true),
        INT => {
            let value = i32::try_from(unzigzag(reader.varint()?)).map_err(|_| CorruptError::TooLarge)?;
            ValueRef::Int(value)
        }
        BIGINT => ValueRef::BigInt(unzigzag(reader.varint()?)),
        DOUBLE => ValueRef::Double(f64::from_bits(reader.u64()?)),
        NUMERIC => ValueRef::Numeric(read_decimal(reader)?),
        TEXT => ValueRef::Text(std::str::from_utf8(reader.counted()?).map_err(|_| CorruptError::NotUtf8)?),
        TIMESTAMP => ValueRef::Timestamp(reader.u64()? as i64),
        BYTEA => ValueRef::Bytea(reader.counted()?),
        tag => return Err(CorruptError::UnknownTag(tag)),
    })
}

fn read_decimal(reader: &mut Reader<'_>) -> Result<Decimal, CorruptError> {
    let scale = reader.u8()?;
    let mantissa = unzigzag128(reader.varint128()?);
    Decimal::try_from_i128_with_scale(mantissa, u32::from(scale)).map_err(|_| CorruptError::TooLarge)
}

#[inline]
fn skip_value(reader: &mut Reader<'_>) -> Result<(), CorruptError> {
    match reader.u8()? {
        NULL | FALSE | TRUE => {}
        INT | BIGINT => {
            reader.varint()?;
        }
        DOUBLE | TIMESTAMP => {
            reader.take(8)?;
        }
        NUMERIC => {
            reader.u8()?;
            reader.varint128()?;
        }
        TEXT | BYTEA => {
            reader.counted()?;
        }
        tag => return Err(CorruptError::UnknownTag(tag)),
    }
    Ok(())
}

/// A row that lies in memory.
#[derive(Clone, Copy, Debug)]
pub struct RowRef<'a> {
    count: usize,
    values: Reader<'a>,
    /// By column, what the row has in those that it lacks; behind these, NULL.
    missing: &'a [Value],
}

impl<'a> RowRef<'a> {
    /// A row whose bytes were checked when they came in.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Self {
        let mut values = Reader::new(bytes);
        let count = values.varint().unwrap_or(0) as usize;
        Self {
            count: count.min(values.rest().len()),
            values,
            missing: &[],
        }
    }

    /// The same row, of a table whose rows have these values in columns that they lack: one a column, or fewer.
    #[inline]
    pub fn with_missing(self, missing: &'a [Value]) -> Self {
        Self { missing, ..self }
    }

    /// A row whose bytes come from outside: checks all of them.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, CorruptError> {
        let mut values = Reader::new(bytes);
        let count = values.varint()?;
        let row = Self {
            count: usize::try_from(count).map_err(|_| CorruptError::TooLarge)?,
            values,
            missing: &[],
        };
        // Every value takes a byte at least: a count beyond that ends in `Truncated` soon.
        for _ in 0..row.count {
            read_value(&mut values)?;
        }
        values.finish()?;
        Ok(row)
    }

    /// How many columns it has; it lacks those behind.
    pub fn len(&self) -> usize {
        self.count
    }

    /// True when it has no columns.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    #[cold]
    fn lacking(&self, column: usize) -> ValueRef<'a> {
        self.missing.get(column).map_or(ValueRef::Null, Value::as_ref)
    }

    /// The value of a column, also of one that the row lacks.
    #[inline]
    pub fn get(&self, column: usize) -> ValueRef<'a> {
        if column >= self.count {
            return self.lacking(column);
        }
        let mut reader = self.values;
        for _ in 0..column {
            if skip_value(&mut reader).is_err() {
                return ValueRef::Null;
            }
        }
        read_value(&mut reader).unwrap_or(ValueRef::Null)
    }

    /// Reads columns in any order; ascending, it walks the row once.
    #[inline]
    pub(crate) fn walk(&self) -> Walk<'a> {
        Walk {
            row: *self,
            reader: self.values,
            next: 0,
        }
    }

    /// Its values, in order, without those that it lacks.
    pub fn values(&self) -> impl Iterator<Item = ValueRef<'a>> + use<'a> {
        let mut reader = self.values;
        (0..self.count).map(move |_| read_value(&mut reader).unwrap_or(ValueRef::Null))
    }

    /// Its values, in order, with those that it lacks, as far as any is not NULL.
    pub(crate) fn whole(&self) -> impl Iterator<Item = ValueRef<'a>> + use<'a> {
        let lacking = self.missing.get(self.count..).unwrap_or_default();
        self.values().chain(lacking.iter().map(Value::as_ref))
    }

    /// Its values, owned.
    pub fn to_values(&self) -> Vec<Value> {
        self.values().map(ValueRef::to_value).collect()
    }
}

/// Reads columns of a row one after another.
pub(crate) struct Walk<'a> {
    row: RowRef<'a>,
    reader: Reader<'a>,
    /// The column that `reader` stands before.
    next: usize,
}

impl<'a> Walk<'a> {
    /// As `RowRef::get`.
    #[inline]
    pub(crate) fn get(&mut self, column: usize) -> ValueRef<'a> {
        if column >= self.row.count {
            return self.row.lacking(column);
        }
        if column < self.next {
            (self.reader, self.next) = (self.row.values, 0);
        }
        while self.next < column {
            if skip_value(&mut self.reader).is_err() {
                return ValueRef::Null;
            }
            self.next += 1;
        }
        self.next += 1;
        read_value(&mut self.reader).unwrap_or(ValueRef::Null)
    }
}

#[cfg(test)]
mod tests;
