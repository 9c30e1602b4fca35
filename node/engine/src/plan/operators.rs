//! Comparison and arithmetic. Overflow and division by zero are errors; NULL makes NULL.

use std::cmp::Ordering;

use rust_decimal::prelude::{FromPrimitive, ToPrimitive};
use rust_decimal::{Decimal, RoundingStrategy};

use super::BinaryOp;
use super::eval::{Datum, Evaluated, NULL, mismatch};
use crate::error::StatementError;
use crate::value::ValueRef;

/// PostgreSQL gives a quotient at least so many significant digits.
const MIN_SIGNIFICANT_DIGITS: i32 = 16;
/// PostgreSQL reckons the places of a quotient in digits of this many decimal digits.
const DECIMAL_DIGITS: i32 = 4;
/// What a `Decimal` holds.
const MAX_SCALE: i32 = 28;

pub(crate) fn out_of_range(what: &str) -> StatementError {
    StatementError::OutOfRange { what: what.to_owned() }
}

/// Orders two values; numbers of different types by their values; None when either is NULL.
pub fn compare(left: ValueRef<'_>, right: ValueRef<'_>) -> Result<Option<Ordering>, StatementError> {
    use ValueRef::{BigInt, Boolean, Bytea, Double, Int, Null, Numeric, Text, Timestamp};
    Ok(Some(match (left, right) {
        (Null, _) | (_, Null) => return Ok(None),
        (Int(left), Int(right)) => left.cmp(&right),
        (BigInt(left), BigInt(right)) | (Timestamp(left), Timestamp(right)) => left.cmp(&right),
        (Text(left), Text(right)) => left.cmp(right),
        (Boolean(left), Boolean(right)) => left.cmp(&right),
        (Int(left), BigInt(right)) => i64::from(left).cmp(&right),
        (BigInt(left), Int(right)) => left.cmp(&i64::from(right)),
        (Bytea(left), Bytea(right)) => left.cmp(right),
        (Double(_), _) | (_, Double(_)) => compare_doubles(to_double(left)?, to_double(right)?),
        (Numeric(_), _) | (_, Numeric(_)) => to_decimal(left)?.cmp(&to_decimal(right)?),
        (left, right) => {
            let (left, right) = (left.type_name(), right.type_name());
            return Err(StatementError::TypeMismatch(format!("operator does not exist: {left} = {right}")));
        }
    }))
}

/// NaN is equal to itself and greater than all else.
fn compare_doubles(left: f64, right: f64) -> Ordering {
    left.partial_cmp(&right).unwrap_or_else(|| left.is_nan().cmp(&right.is_nan()))
}

pub(crate) fn to_double(value: ValueRef<'_>) -> Result<f64, StatementError> {
    match value {
        ValueRef::Int(value) => Ok(f64::from(value)),
        ValueRef::BigInt(value) => Ok(value as f64),
        ValueRef::Double(value) => Ok(value),
        // By its digits: the nearest double, which arithmetic on the mantissa would miss.
        ValueRef::Numeric(value) => value.to_string().parse().map_err(|_| out_of_range("double precision")),
        other => Err(mismatch("double precision", other)),
    }
}

pub(crate) fn to_decimal(value: ValueRef<'_>) -> Result<Decimal, StatementError> {
    match value {
        ValueRef::Int(value) => Ok(Decimal::from(value)),
        ValueRef::BigInt(value) => Ok(Decimal::from(value)),
        ValueRef::Numeric(value) => Ok(value),
        ValueRef::Double(value) => Decimal::from_f64(value).ok_or_else(|| out_of_range("numeric")),
        other => Err(mismatch("numeric", other)),
    }
}

fn to_integer(value: ValueRef<'_>) -> Option<i64> {
    match value {
        ValueRef::Int(value) => Some(i64::from(value)),
        ValueRef::BigInt(value) => Some(value),
        _ => None,
    }
}

/// `+`, `-`, `*`, `/`, `%`.
pub(crate) fn arithmetic<'a>(op: BinaryOp, left: ValueRef<'_>, right: ValueRef<'_>) -> Evaluated<'a> {
    let value = match (left, right) {
        (ValueRef::Null, _) | (_, ValueRef::Null) => return Ok(NULL),
        (ValueRef::Int(left), ValueRef::Int(right)) => {
            let result = integers(op, i64::from(left), i64::from(right), "integer")?;
            ValueRef::Int(i32::try_from(result).map_err(|_| out_of_range("integer"))?)
        }
        (ValueRef::Double(_), _) | (_, ValueRef::Double(_)) => {
            ValueRef::Double(doubles(op, to_double(left)?, to_double(right)?)?)
        }
        _ => match (to_integer(left), to_integer(right)) {
            (Some(left), Some(right)) => ValueRef::BigInt(integers(op, left, right, "bigint")?),
            _ => ValueRef::Numeric(decimals(op, to_decimal(left)?, to_decimal(right)?)?),
        },
    };
    Ok(Datum::Ref(value))
}

fn integers(op: BinaryOp, left: i64, right: i64, what: &str) -> Result<i64, StatementError> {
    let result = match op {
        BinaryOp::Add => left.checked_add(right),
        BinaryOp::Subtract => left.checked_sub(right),
        BinaryOp::Multiply => left.checked_mul(right),
        _ if right == 0 => return Err(StatementError::DivisionByZero),
        BinaryOp::Divide => left.checked_div(right),
        // The remainder by -1 is 0, also of the least number, whose quotient overflows.
        _ => Some(left.wrapping_rem(right)),
    };
    result.ok_or_else(|| out_of_range(what))
}

fn doubles(op: BinaryOp, left: f64, right: f64) -> Result<f64, StatementError> {
    let result = match op {
        BinaryOp::Add => left + right,
        BinaryOp::Subtract => left - right,
        BinaryOp::Multiply => left * right,
        _ if right == 0.0 => return Err(StatementError::DivisionByZero),
        BinaryOp::Divide => left / right,
        _ => return Err(StatementError::TypeMismatch("operator does not exist: double precision % double precision".to_owned())),
    };
    if result.is_infinite() && left.is_finite() && right.is_finite() {
        return Err(out_of_range("double precision"));
    }
    Ok(result)
}

fn decimals(op: BinaryOp, left: Decimal, right: Decimal) -> Result<Decimal, StatementError> {
    let result = match op {
        BinaryOp::Add => left.checked_add(right),
        BinaryOp::Subtract => left.checked_sub(right),
        BinaryOp::Multiply => left.checked_mul(right),
        _ if right.is_zero() => return Err(StatementError::DivisionByZero),
        BinaryOp::Divide => left.checked_div(right).map(|quotient| {
            let scale = quotient_scale(left, right);
            let mut rounded = quotient.round_dp_with_strategy(scale, RoundingStrategy::MidpointAwayFromZero);
            rounded.rescale(scale);
            rounded
        }),
        _ => left.checked_rem(right),
    };
    result.ok_or_else(|| out_of_range("numeric"))
}

/// How many places PostgreSQL gives a quotient (`select_div_scale`), at most what a `Decimal` holds.
fn quotient_scale(left: Decimal, right: Decimal) -> u32 {
    let (left_weight, left_first) = leading_digit(left);
    let (right_weight, right_first) = leading_digit(right);
    let weight = left_weight - right_weight - i32::from(left_first <= right_first);
    let scale = MIN_SIGNIFICANT_DIGITS - weight * DECIMAL_DIGITS;
    scale.max(left.scale() as i32).max(right.scale() as i32).clamp(0, MAX_SCALE) as u32
}

/// The first non-zero digit in base 10,000 and its place: 0 is the one before the point.
fn leading_digit(value: Decimal) -> (i32, u128) {
    let mantissa = value.mantissa().unsigned_abs();
    if mantissa == 0 {
        return (0, 0);
    }
    // The value is mantissa / 10^scale; align the point to a boundary of four digits.
    let padding = (DECIMAL_DIGITS - value.scale() as i32 % DECIMAL_DIGITS) % DECIMAL_DIGITS;
    let mut aligned = mantissa * 10_u128.pow(padding as u32);
    let mut weight = -((value.scale() as i32 + padding) / DECIMAL_DIGITS);
    while aligned >= 10_000 {
        aligned /= 10_000;
        weight += 1;
    }
    (weight, aligned)
}

/// Unary minus.
pub(crate) fn negate<'a>(value: ValueRef<'_>) -> Evaluated<'a> {
    Ok(Datum::Ref(match value {
        ValueRef::Null => ValueRef::Null,
        ValueRef::Int(value) => ValueRef::Int(value.checked_neg().ok_or_else(|| out_of_range("integer"))?),
        ValueRef::BigInt(value) => ValueRef::BigInt(value.checked_neg().ok_or_else(|| out_of_range("bigint"))?),
        ValueRef::Double(value) => ValueRef::Double(-value),
        ValueRef::Numeric(value) => ValueRef::Numeric(if value.is_zero() { value } else { -value }),
        other => return Err(mismatch("-", other)),
    }))
}

/// The nearest integer; halves away from zero, as NUMERIC is rounded.
pub(crate) fn round_numeric(value: Decimal) -> Option<i64> {
    value.round_dp_with_strategy(0, RoundingStrategy::MidpointAwayFromZero).to_i64()
}

/// The nearest integer; halves to even, as DOUBLE PRECISION is rounded.
pub(crate) fn round_double(value: f64) -> Option<i64> {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    let rounded = value.round_ties_even();
    (-LIMIT..LIMIT).contains(&rounded).then_some(rounded as i64)
}
