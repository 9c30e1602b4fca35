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
    #[inline]
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

impl DataType {
    /// As PostgreSQL's messages call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Boolean => "boolean",
            Self::Int => "integer",
            Self::BigInt => "bigint",
            Self::Double => "double precision",
            Self::Numeric { .. } => "numeric",
            Self::Varchar(_) => "character varying",
            Self::Text => "text",
            Self::Timestamp => "timestamp",
            Self::Bytea => "bytea",
        }
    }
}

impl ValueRef<'_> {
    /// Its type, as PostgreSQL's messages call it.
    pub fn type_name(self) -> &'static str {
        match self {
            Self::Null => "unknown",
            Self::Boolean(_) => "boolean",
            Self::Int(_) => "integer",
            Self::BigInt(_) => "bigint",
            Self::Double(_) => "double precision",
            Self::Numeric(_) => "numeric",
            Self::Text(_) => "text",
            Self::Timestamp(_) => "timestamp",
            Self::Bytea(_) => "bytea",
        }
    }
}

const MICROS_PER_SECOND: i64 = 1_000_000;
const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;

impl ValueRef<'_> {
    /// As PostgreSQL prints it.
    pub fn to_text(self) -> String {
        match self {
            Self::Null => String::new(),
            Self::Boolean(value) => (if value { "true" } else { "false" }).to_owned(),
            Self::Int(value) => value.to_string(),
            Self::BigInt(value) => value.to_string(),
            Self::Double(value) => double_to_text(value),
            Self::Numeric(value) => value.to_string(),
            Self::Text(value) => value.to_owned(),
            Self::Timestamp(value) => timestamp_to_text(value),
            Self::Bytea(value) => value
                .iter()
                .fold("\\x".to_owned(), |text, byte| text + &format!("{byte:02x}")),
        }
    }
}

fn double_to_text(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return (if value > 0.0 { "Infinity" } else { "-Infinity" }).to_owned();
    }
    // The shortest digits that read back as the same value; an exponent only outside of 1e-4 to 1e15.
    let text = format!("{value:e}");
    let Some((digits, exponent)) = text.split_once('e') else {
        return text;
    };
    if exponent.parse().is_ok_and(|exponent: i32| (-4..15).contains(&exponent)) {
        return value.to_string();
    }
    let (sign, exponent) = exponent
        .strip_prefix('-')
        .map_or(("+", exponent), |positive| ("-", positive));
    format!("{digits}e{sign}{exponent:0>2}")
}

/// `2026-01-31 23:59:59.5`
pub fn timestamp_to_text(micros: i64) -> String {
    let (days, of_day) = (micros.div_euclid(MICROS_PER_DAY), micros.rem_euclid(MICROS_PER_DAY));
    let (year, month, day) = civil_from_days(days);
    let seconds = of_day / MICROS_PER_SECOND;
    let fraction = of_day % MICROS_PER_SECOND;
    let mut text = format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    );
    if fraction != 0 {
        text.push_str(format!(".{fraction:06}").trim_end_matches('0'));
    }
    text
}

/// Reads `2026-01-31[ T]23:59[:59[.5]][Z]` or a date alone.
pub fn parse_timestamp(text: &str) -> Option<i64> {
    let text = text.trim().trim_end_matches('Z').trim_end_matches("+00").trim_end();
    let (date, time) = text.split_once([' ', 'T']).unwrap_or((text, "00:00:00"));
    let mut parts = date.splitn(3, '-');
    let (year, month, day): (i64, i64, i64) = (
        parts.next()?.parse().ok()?,
        parts.next()?.parse().ok()?,
        parts.next()?.parse().ok()?,
    );
    if !(1..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=days_in(year, month)).contains(&day) {
        return None;
    }
    let mut parts = time.splitn(3, ':');
    let (hour, minute): (i64, i64) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let (second, fraction) = match parts.next() {
        Some(second) => second.split_once('.').unwrap_or((second, "0")),
        None => ("0", "0"),
    };
    let second: i64 = second.parse().ok()?;
    if !(0..24).contains(&hour) || !(0..60).contains(&minute) || !(0..60).contains(&second) || fraction.len() > 9 {
        return None;
    }
    let digits = format!("{fraction:0<6}");
    let fraction: i64 = digits.get(..6)?.parse().ok()?;
    let seconds = hour * 3600 + minute * 60 + second;
    Some(days_from_civil(year, month, day) * MICROS_PER_DAY + seconds * MICROS_PER_SECOND + fraction)
}

/// Reads `\\x0aff`.
pub fn parse_bytea(text: &str) -> Option<Vec<u8>> {
    let Some(digits) = text.strip_prefix("\\x") else {
        return Some(text.as_bytes().to_vec());
    };
    if digits.len() % 2 != 0 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).ok())
        .collect()
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 of a date of the Gregorian calendar (Hinnant 2013, "chrono-compatible date algorithms").
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}
