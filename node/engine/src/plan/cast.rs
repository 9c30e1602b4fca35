//! CAST, and what a column makes of a value that is put into it.

use rust_decimal::{Decimal, RoundingStrategy};

use super::eval::{Datum, Evaluated};
use super::operators::{out_of_range, round_double, round_numeric, to_decimal, to_double};
use crate::error::StatementError;
use crate::value::{DataType, ValueRef, parse_bytea, parse_timestamp};

/// NUMERIC without arguments: a value keeps its own scale, up to this type's.
const PLAIN_NUMERIC: DataType = DataType::Numeric {
    precision: 28,
    scale: 10,
};

/// It is what a column of this type holds, as it is.
#[inline]
pub(crate) fn fits(value: ValueRef<'_>, to: DataType) -> bool {
    match (value, to) {
        (ValueRef::Text(text), DataType::Varchar(limit)) => text.len() <= limit as usize,
        (ValueRef::Numeric(number), to) => fits_numeric(number, to),
        (ValueRef::Null, _)
        | (ValueRef::Boolean(_), DataType::Boolean)
        | (ValueRef::Int(_), DataType::Int)
        | (ValueRef::BigInt(_), DataType::BigInt)
        | (ValueRef::Double(_), DataType::Double)
        | (ValueRef::Text(_), DataType::Text)
        | (ValueRef::Timestamp(_), DataType::Timestamp)
        | (ValueRef::Bytea(_), DataType::Bytea) => true,
        _ => false,
    }
}

/// An explicit CAST: a text too long for VARCHAR(n) is cut.
#[inline]
pub(crate) fn cast(value: Datum<'_>, to: DataType) -> Evaluated<'_> {
    if fits(value.as_ref(), to) {
        return Ok(value);
    }
    cast_other(value, to)
}

fn cast_other(value: Datum<'_>, to: DataType) -> Evaluated<'_> {
    let DataType::Varchar(limit) = to else {
        return convert(value, to);
    };
    match convert(value, DataType::Text)? {
        Datum::Ref(ValueRef::Text(text)) => Ok(Datum::Ref(ValueRef::Text(prefix(text, limit)))),
        Datum::Text(mut text) => {
            text.truncate(prefix(&text, limit).len());
            Ok(Datum::Text(text))
        }
        other => Ok(other),
    }
}

/// What a column of this type stores: a text too long for VARCHAR(n) is an error, but for spaces at its end.
#[inline]
pub(crate) fn assign(value: Datum<'_>, to: DataType) -> Evaluated<'_> {
    if fits(value.as_ref(), to) {
        return Ok(value);
    }
    assign_other(value, to)
}

fn assign_other(value: Datum<'_>, to: DataType) -> Evaluated<'_> {
    if let (ValueRef::Text(_), DataType::Boolean | DataType::Int | DataType::BigInt | DataType::Double)
    | (ValueRef::Text(_), DataType::Numeric { .. } | DataType::Timestamp | DataType::Bytea) = (value.as_ref(), to)
    {
        let to = to.name();
        return Err(StatementError::TypeMismatch(format!(
            "column is of type {to} but expression is of type text"
        )));
    }
    if let (DataType::Varchar(limit), ValueRef::Text(text)) = (to, value.as_ref()) {
        let fits = prefix(text, limit);
        if text[fits.len()..].chars().any(|character| character != ' ') {
            return Err(StatementError::TooLong { limit });
        }
    }
    cast(value, to)
}

/// The first `limit` characters.
fn prefix(text: &str, limit: u32) -> &str {
    let limit = limit as usize;
    if text.len() <= limit {
        return text;
    }
    text.char_indices().nth(limit).map_or(text, |(end, _)| &text[..end])
}

fn convert(value: Datum<'_>, to: DataType) -> Evaluated<'_> {
    let converted = match (value.as_ref(), to) {
        (ValueRef::Null, _)
        | (ValueRef::Boolean(_), DataType::Boolean)
        | (ValueRef::Int(_), DataType::Int)
        | (ValueRef::BigInt(_), DataType::BigInt)
        | (ValueRef::Double(_), DataType::Double)
        | (ValueRef::Text(_), DataType::Text | DataType::Varchar(_))
        | (ValueRef::Timestamp(_), DataType::Timestamp)
        | (ValueRef::Bytea(_), DataType::Bytea) => return Ok(value),
        (ValueRef::Text(text), DataType::Bytea) => {
            return parse_bytea(text).map(Datum::Bytea).ok_or_else(|| invalid(to, text));
        }
        (other, DataType::Text | DataType::Varchar(_)) => return Ok(Datum::Text(other.to_text())),
        (ValueRef::Text(text), _) => from_text(text, to)?,
        (number, DataType::Int | DataType::BigInt) => to_integer_type(number, to)?,
        (number @ (ValueRef::Int(_) | ValueRef::BigInt(_) | ValueRef::Numeric(_)), DataType::Double) => {
            ValueRef::Double(to_double(number)?)
        }
        (
            number @ (ValueRef::Int(_) | ValueRef::BigInt(_) | ValueRef::Numeric(_) | ValueRef::Double(_)),
            DataType::Numeric { .. },
        ) => ValueRef::Numeric(fit_numeric(to_decimal(number)?, to)?),
        (ValueRef::Int(number), DataType::Boolean) => ValueRef::Boolean(number != 0),
        (other, to) => return Err(cannot(other, to)),
    };
    Ok(Datum::Ref(converted))
}

fn cannot(value: ValueRef<'_>, to: DataType) -> StatementError {
    StatementError::TypeMismatch(format!("cannot cast type {} to {}", value.type_name(), to.name()))
}

fn invalid(to: DataType, text: &str) -> StatementError {
    StatementError::InvalidText {
        data_type: to.name().to_owned(),
        text: text.to_owned(),
    }
}

fn to_integer_type(value: ValueRef<'_>, to: DataType) -> Result<ValueRef<'static>, StatementError> {
    let number = match value {
        ValueRef::Boolean(value) if to == DataType::Int => Some(i64::from(value)),
        ValueRef::Int(value) => Some(i64::from(value)),
        ValueRef::BigInt(value) => Some(value),
        ValueRef::Double(value) => round_double(value),
        ValueRef::Numeric(value) => round_numeric(value),
        other => return Err(cannot(other, to)),
    };
    let value = match (number, to) {
        (Some(number), DataType::Int) => i32::try_from(number).ok().map(ValueRef::Int),
        (number, _) => number.map(ValueRef::BigInt),
    };
    value.ok_or_else(|| out_of_range(to.name()))
}

fn from_text(text: &str, to: DataType) -> Result<ValueRef<'static>, StatementError> {
    // What PostgreSQL's input functions take for space.
    let trimmed = text.trim_matches([' ', '\t', '\n', '\r', '\x0b', '\x0c']);
    match to {
        DataType::Boolean => boolean(trimmed).map(ValueRef::Boolean).ok_or_else(|| invalid(to, text)),
        DataType::Int | DataType::BigInt => {
            let digits = trimmed.strip_prefix(['+', '-']).unwrap_or(trimmed);
            if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(invalid(to, text));
            }
            let number: i64 = trimmed.parse().map_err(|_| out_of_range(to.name()))?;
            to_integer_type(ValueRef::BigInt(number), to)
        }
        DataType::Double => double(trimmed).ok_or_else(|| invalid(to, text))?.map(ValueRef::Double),
        DataType::Numeric { .. } => {
            let number = numeric(trimmed).ok_or_else(|| invalid(to, text))??;
            fit_numeric(number, to).map(ValueRef::Numeric)
        }
        DataType::Timestamp => parse_timestamp(trimmed)
            .map(ValueRef::Timestamp)
            .ok_or_else(|| invalid(to, text)),
        DataType::Varchar(_) | DataType::Text | DataType::Bytea => Err(cannot(ValueRef::Text(text), to)),
    }
}

/// Any beginning of true, false, yes, no; on, off; 1, 0.
fn boolean(text: &str) -> Option<bool> {
    let text = text.to_ascii_lowercase();
    let begins = |word: &str| !text.is_empty() && word.starts_with(&text);
    match text.as_str() {
        "1" | "on" => Some(true),
        "0" | "of" | "off" => Some(false),
        _ if begins("true") || begins("yes") => Some(true),
        _ if begins("false") || begins("no") => Some(false),
        _ => None,
    }
}

/// None: no number. Some(Err): a number that a double doesn't hold.
fn double(text: &str) -> Option<Result<f64, StatementError>> {
    let value: f64 = text.parse().ok()?;
    let digits = text.bytes().take_while(|byte| !byte.eq_ignore_ascii_case(&b'e'));
    let has_digit = digits.clone().any(|byte| byte.is_ascii_digit());
    let is_zero = digits.filter(u8::is_ascii_digit).all(|digit| digit == b'0');
    let lost = has_digit && (value.is_infinite() || value == 0.0 && !is_zero);
    Some(if lost {
        Err(out_of_range("double precision"))
    } else {
        Ok(value)
    })
}

/// None: no number. Some(Err): a number that a `Decimal` doesn't hold.
fn numeric(text: &str) -> Option<Result<Decimal, StatementError>> {
    let (mantissa, exponent) = text
        .split_once(['e', 'E'])
        .map_or((text, None), |(left, right)| (left, Some(right)));
    let digits = mantissa.strip_prefix(['+', '-']).unwrap_or(mantissa);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.len() + fraction.len() == 0 || !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    if let Some(exponent) = exponent {
        let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        if digits.is_empty() || !all_digits(digits) {
            return None;
        }
    }
    let plain = format!(
        "{}{}.{}",
        if mantissa.starts_with('-') { "-" } else { "" },
        if whole.is_empty() { "0" } else { whole },
        if fraction.is_empty() { "0" } else { fraction }
    );
    let read = match exponent {
        Some(exponent) => Decimal::from_scientific(&format!("{plain}e{exponent}")).ok(),
        None if fraction.is_empty() => plain.strip_suffix(".0").and_then(|whole| whole.parse().ok()),
        None => plain.parse().ok(),
    };
    Some(read.ok_or_else(|| out_of_range("numeric")))
}

/// So of a number: as many places as the type's, and no more digits.
fn fits_numeric(value: Decimal, to: DataType) -> bool {
    let DataType::Numeric { precision, scale } = to else {
        return false;
    };
    let own = value.scale();
    let scaled = own == u32::from(scale) || (to == PLAIN_NUMERIC && own < u32::from(scale));
    let whole_digits = u32::from(precision.saturating_sub(scale)).min(28);
    scaled && value.mantissa().unsigned_abs() < 10_u128.pow(whole_digits + own)
}

/// Rounds to the type's scale, halves away from zero, and checks the digits before the point.
fn fit_numeric(value: Decimal, to: DataType) -> Result<Decimal, StatementError> {
    let DataType::Numeric { precision, scale } = to else {
        return Ok(value);
    };
    if fits_numeric(value, to) {
        return Ok(value);
    }
    let scale = u32::from(scale);
    let mut fitted = value.round_dp_with_strategy(scale, RoundingStrategy::MidpointAwayFromZero);
    let whole_digits = u32::from(precision).saturating_sub(scale).min(28);
    if fitted.trunc().mantissa().unsigned_abs() >= 10_u128.pow(whole_digits) {
        return Err(StatementError::OutOfRange {
            what: "numeric".to_owned(),
        });
    }
    if to != PLAIN_NUMERIC {
        fitted.rescale(scale);
    }
    Ok(fitted)
}

/// The value as a key of a column of this type has it. None: no row can have it.
pub(crate) fn as_key<'a>(value: Datum<'a>, column: DataType) -> Result<Option<Datum<'a>>, StatementError> {
    Ok(match (value.as_ref(), column) {
        (ValueRef::Null, _) => None,
        // Both integer types have one encoding.
        (ValueRef::Int(_) | ValueRef::BigInt(_), DataType::Int | DataType::BigInt)
        | (ValueRef::Text(_), DataType::Text | DataType::Varchar(_))
        | (ValueRef::Numeric(_), DataType::Numeric { .. })
        | (ValueRef::Double(_), DataType::Double)
        | (ValueRef::Boolean(_), DataType::Boolean)
        | (ValueRef::Timestamp(_), DataType::Timestamp)
        | (ValueRef::Bytea(_), DataType::Bytea) => Some(value),
        (ValueRef::Numeric(number), DataType::Int | DataType::BigInt) => {
            let whole = Some(number)
                .filter(|number| number.fract().is_zero())
                .and_then(round_numeric);
            whole.map(|whole| Datum::Ref(ValueRef::BigInt(whole)))
        }
        (ValueRef::Double(number), DataType::Int | DataType::BigInt) => {
            let whole = Some(number)
                .filter(|number| number.fract() == 0.0)
                .and_then(round_double);
            whole.map(|whole| Datum::Ref(ValueRef::BigInt(whole)))
        }
        (ValueRef::Int(_) | ValueRef::BigInt(_), DataType::Numeric { .. }) => {
            Some(Datum::Ref(ValueRef::Numeric(to_decimal(value.as_ref())?)))
        }
        (ValueRef::Int(_) | ValueRef::BigInt(_) | ValueRef::Numeric(_), DataType::Double) => {
            Some(Datum::Ref(ValueRef::Double(to_double(value.as_ref())?)))
        }
        _ => Some(cast(value, column)?),
    })
}

#[cfg(test)]
mod tests;
