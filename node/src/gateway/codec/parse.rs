//! Values from text: what PostgreSQL's input functions accept, for our types.

use rust_decimal::Decimal;
use volt_engine::value::{DataType, Value};

use super::{invalid_text, out_of_range, timestamp, type_name};
use crate::error::SqlError;

/// The text as a value of this type.
pub(super) fn value(text: &str, target: DataType) -> Result<Value, SqlError> {
    let invalid = || invalid_text(type_name(target), text);
    match target {
        DataType::Boolean => boolean(text).map(Value::Boolean).ok_or_else(invalid),
        DataType::Int => {
            let wide = integer(text, target)?;
            i32::try_from(wide)
                .map(Value::Int)
                .map_err(|_| value_out_of_range(text, target))
        }
        DataType::BigInt => integer(text, target).map(Value::BigInt),
        DataType::Double => double(text).map(Value::Double).ok_or_else(invalid),
        DataType::Numeric { .. } => numeric(text).map(Value::Numeric),
        DataType::Varchar(_) | DataType::Text => Ok(Value::Text(text.to_owned())),
        DataType::Timestamp => timestamp::parse(text).map(Value::Timestamp).ok_or_else(|| {
            let mut error = invalid();
            error.sqlstate = "22007".to_owned();
            error
        }),
        DataType::Bytea => bytea(text).map(Value::Bytea).ok_or_else(invalid),
    }
}

fn boolean(text: &str) -> Option<bool> {
    let word = text.trim().to_ascii_lowercase();
    let starts = |whole: &str| !word.is_empty() && whole.starts_with(&word);
    match word.as_str() {
        "on" | "1" => Some(true),
        "of" | "off" | "0" => Some(false),
        _ if starts("true") || starts("yes") => Some(true),
        _ if starts("false") || starts("no") => Some(false),
        _ => None,
    }
}

fn integer(text: &str, target: DataType) -> Result<i64, SqlError> {
    use std::num::IntErrorKind::{NegOverflow, PosOverflow};
    text.trim().parse::<i64>().map_err(|error| match error.kind() {
        PosOverflow | NegOverflow => value_out_of_range(text, target),
        _ => invalid_text(type_name(target), text),
    })
}

fn value_out_of_range(text: &str, target: DataType) -> SqlError {
    let name = type_name(target);
    SqlError::new("22003", format!("value \"{text}\" is out of range for type {name}"))
}

fn double(text: &str) -> Option<f64> {
    let text = text.trim();
    // Rust reads `NaN`, `inf` and `Infinity` in any case, as PostgreSQL does.
    text.parse().ok()
}

fn numeric(text: &str) -> Result<Decimal, SqlError> {
    let trimmed = text.trim();
    let plain = trimmed.strip_prefix('+').unwrap_or(trimmed);
    let shaped = plain.bytes().any(|byte| byte.is_ascii_digit())
        && plain
            .bytes()
            .all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    if !shaped {
        return Err(invalid_text("numeric", text));
    }
    let parsed = if plain.contains(['e', 'E']) {
        Decimal::from_scientific(plain)
    } else {
        plain.parse()
    };
    parsed.map_err(|error| match error {
        rust_decimal::Error::ExceedsMaximumPossibleValue
        | rust_decimal::Error::LessThanMinimumPossibleValue
        | rust_decimal::Error::ScaleExceedsMaximumPrecision(_)
        | rust_decimal::Error::Underflow => out_of_range("numeric"),
        _ => invalid_text("numeric", text),
    })
}

/// `\x` and hex digits, or PostgreSQL's older escape format.
fn bytea(text: &str) -> Option<Vec<u8>> {
    match text.strip_prefix("\\x") {
        Some(hex) => from_hex(hex),
        None => from_escapes(text.as_bytes()),
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|character| !character.is_ascii_whitespace())
        .map(|character| character.to_digit(16).map(|digit| digit as u8))
        .collect::<Option<_>>()?;
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    Some(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

fn from_escapes(mut text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    loop {
        text = match text {
            [] => return Some(bytes),
            [b'\\', b'\\', rest @ ..] => {
                bytes.push(b'\\');
                rest
            }
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', rest @ ..] => {
                bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest
            }
            [b'\\', ..] => return None,
            [byte, rest @ ..] => {
                bytes.push(*byte);
                rest
            }
        }
    }
}
