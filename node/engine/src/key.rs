//! Memcomparable keys: comparing the bytes compares the values, column by column.
//!
//! Each value: a tag that sorts its kind (NULL last, as in PostgreSQL's ascending order), then its bytes. INT and
//! BIGINT of the same number have the same key, and so have NUMERICs that differ in trailing zeros only.

use rust_decimal::Decimal;

use crate::value::ValueRef;

const NUMBER: u8 = 0x10;
const TEXT: u8 = 0x20;
const NULL: u8 = 0xff;

/// The key of these values.
pub fn encode_key<'a>(values: impl IntoIterator<Item = ValueRef<'a>>) -> Vec<u8> {
    let mut key = Vec::with_capacity(16);
    for value in values {
        push_key(&mut key, value);
    }
    key
}

/// Appends one value to a key.
pub fn push_key(key: &mut Vec<u8>, value: ValueRef<'_>) {
    match value {
        ValueRef::Null => key.push(NULL),
        ValueRef::Boolean(value) => key.extend_from_slice(&[NUMBER, u8::from(value)]),
        ValueRef::Int(value) => push_i64(key, i64::from(value)),
        ValueRef::BigInt(value) | ValueRef::Timestamp(value) => push_i64(key, value),
        ValueRef::Double(value) => {
            let bits = if value == 0.0 { 0 } else { value.to_bits() };
            let ordered = if bits >> 63 == 1 { !bits } else { bits | 1 << 63 };
            key.push(NUMBER);
            key.extend_from_slice(&ordered.to_be_bytes());
        }
        ValueRef::Numeric(value) => push_numeric(key, value),
        ValueRef::Text(value) => push_bytes(key, value.as_bytes()),
        ValueRef::Bytea(value) => push_bytes(key, value),
    }
}

fn push_i64(key: &mut Vec<u8>, value: i64) {
    key.push(NUMBER);
    key.extend_from_slice(&((value as u64) ^ (1 << 63)).to_be_bytes());
}

/// The digits before the point, 16 bytes, and 28 after it, 16 bytes, of the absolute value; inverted when negative.
fn push_numeric(key: &mut Vec<u8>, value: Decimal) {
    let magnitude = value.abs();
    let whole = magnitude.trunc();
    let fraction = magnitude - whole;
    let digits = |part: Decimal, scale: u32| {
        let mut mantissa = part.mantissa().unsigned_abs();
        for _ in part.scale()..scale {
            mantissa *= 10;
        }
        mantissa
    };
    let (whole, fraction) = (digits(whole, 0), digits(fraction.normalize(), 28));
    key.push(NUMBER);
    let negative = value.is_sign_negative() && !value.is_zero();
    key.push(u8::from(!negative));
    let flip = if negative { u128::MAX } else { 0 };
    key.extend_from_slice(&(whole ^ flip).to_be_bytes());
    key.extend_from_slice(&(fraction ^ flip).to_be_bytes());
}

/// 0x00 becomes 0x00 0xff; the end is 0x00 0x01, so that a prefix sorts first.
fn push_bytes(key: &mut Vec<u8>, bytes: &[u8]) {
    key.push(TEXT);
    for &byte in bytes {
        key.push(byte);
        if byte == 0 {
            key.push(0xff);
        }
    }
    key.extend_from_slice(&[0, 1]);
}
