//! Values as text, in PostgreSQL's own spelling.

use std::io::Write;

use volt_engine::value::ValueRef;

use super::timestamp;

/// Appends the value's text; nothing for NULL.
pub(crate) fn put(out: &mut Vec<u8>, value: ValueRef<'_>) {
    match value {
        ValueRef::Null => {}
        ValueRef::Boolean(value) => out.push(if value { b't' } else { b'f' }),
        ValueRef::Int(value) => put_integer(out, i64::from(value)),
        ValueRef::BigInt(value) => put_integer(out, value),
        ValueRef::Double(value) => put_double(out, value),
        ValueRef::Numeric(value) => put_display(out, &value),
        ValueRef::Text(value) => out.extend_from_slice(value.as_bytes()),
        ValueRef::Timestamp(value) => timestamp::put(out, value),
        ValueRef::Bytea(value) => put_hex(out, value),
    }
}

fn put_integer(out: &mut Vec<u8>, value: i64) {
    if value < 0 {
        out.push(b'-');
    }
    put_unsigned(out, value.unsigned_abs());
}

/// Appends a number's decimal digits.
pub(crate) fn put_unsigned(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends anything that can be displayed; writing to a `Vec` can't fail.
pub(super) fn put_display(out: &mut Vec<u8>, value: &impl std::fmt::Display) {
    let _ = write!(out, "{value}");
}

/// The shortest digits that give the same number back; an exponent below 1e-4 and from 1e15, as PostgreSQL has it.
fn put_double(out: &mut Vec<u8>, value: f64) {
    if value.is_nan() {
        return out.extend_from_slice(b"NaN");
    }
    if value.is_infinite() {
        return out.extend_from_slice(if value > 0.0 { b"Infinity" } else { b"-Infinity" });
    }
    let magnitude = value.abs();
    if magnitude == 0.0 || (1e-4..1e15).contains(&magnitude) {
        return put_display(out, &value);
    }
    let shortest = format!("{value:e}");
    let (digits, exponent) = shortest.split_once('e').unwrap_or((&shortest, "0"));
    out.extend_from_slice(digits.as_bytes());
    out.push(b'e');
    let (sign, exponent) = exponent.strip_prefix('-').map_or((b'+', exponent), |rest| (b'-', rest));
    out.push(sign);
    if exponent.len() < 2 {
        out.push(b'0');
    }
    out.extend_from_slice(exponent.as_bytes());
}

fn put_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.extend_from_slice(b"\\x");
    out.reserve(bytes.len() * 2);
    for byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
}
