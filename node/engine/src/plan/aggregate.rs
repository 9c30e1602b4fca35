//! Aggregate functions: what they have seen so far, and what it comes to.
//!
//! A sum of BIGINT that has no room in one is an error. NUMERICs are added exactly, at the scale of the result; their
//! average is cut to that scale, as DataFusion cuts it.

use std::collections::BTreeSet;

use rust_decimal::{Decimal, RoundingStrategy};

use super::eval::mismatch;
use super::operators::{compare, out_of_range, to_decimal, to_double};
use super::{Aggregate, AggregateFunction};
use crate::error::StatementError;
use crate::key::encode_key;
use crate::value::{DataType, Value, ValueRef};

/// A NUMERIC has fewer digits than this number.
const NUMERIC_LIMIT: u128 = 10_u128.pow(28);

/// What a value in a set or a place for a result takes besides its bytes, about.
pub(crate) const ENTRY_BYTES: usize = 64;

/// See the module.
pub(crate) struct Accumulator {
    seen: Seen,
    /// Rows that counted.
    count: i64,
    /// DISTINCT: the values so far, as keys.
    distinct: Option<BTreeSet<Vec<u8>>>,
}

enum Seen {
    Count,
    Integers(i64),
    Doubles { sum: f64, average: bool },
    Decimals { sum: i128, scale: u32, average: bool },
    Extreme { value: Value, greatest: bool },
}

impl Accumulator {
    pub(crate) fn new(aggregate: &Aggregate) -> Result<Self, StatementError> {
        let extreme = |greatest| Seen::Extreme {
            value: Value::Null,
            greatest,
        };
        let average = aggregate.function == AggregateFunction::Avg;
        let seen = match (aggregate.function, aggregate.data_type) {
            (AggregateFunction::Count, _) => Seen::Count,
            (AggregateFunction::Min, _) => extreme(false),
            (AggregateFunction::Max, _) => extreme(true),
            (AggregateFunction::Sum, DataType::BigInt) => Seen::Integers(0),
            (_, DataType::Double) => Seen::Doubles { sum: 0.0, average },
            (_, DataType::Numeric { scale, .. }) => Seen::Decimals {
                sum: 0,
                scale: u32::from(scale),
                average,
            },
            (function, other) => {
                let other = other.name();
                return Err(StatementError::TypeMismatch(format!("{function:?} gives no {other}")));
            }
        };
        let may_repeat = matches!(seen, Seen::Extreme { .. });
        Ok(Self {
            seen,
            count: 0,
            distinct: (aggregate.distinct && !may_repeat).then(BTreeSet::new),
        })
    }

    /// One more row's value; returns how many bytes more are kept, about.
    pub(crate) fn add(&mut self, value: ValueRef<'_>) -> Result<usize, StatementError> {
        if value == ValueRef::Null {
            return Ok(0);
        }
        let mut more = 0;
        if let Some(distinct) = &mut self.distinct {
            let key = encode_key([value]);
            let bytes = key.len() + ENTRY_BYTES;
            if !distinct.insert(key) {
                return Ok(0);
            }
            more += bytes;
        }
        self.count += 1;
        match &mut self.seen {
            Seen::Count => {}
            Seen::Integers(sum) => {
                let value = match value {
                    ValueRef::Int(value) => i64::from(value),
                    ValueRef::BigInt(value) => value,
                    other => return Err(mismatch("sum", other)),
                };
                *sum = sum.checked_add(value).ok_or_else(|| out_of_range("bigint"))?;
            }
            Seen::Doubles { sum, .. } => *sum += to_double(value)?,
            Seen::Decimals { sum, scale, .. } => {
                let value = mantissa(to_decimal(value)?, *scale);
                let total = value.and_then(|value| sum.checked_add(value));
                *sum = total.ok_or_else(|| out_of_range("numeric"))?;
            }
            Seen::Extreme { value: best, greatest } => {
                let order = compare(value, best.as_ref())?;
                if order.is_none_or(|order| if *greatest { order.is_gt() } else { order.is_lt() }) {
                    more += length(value).saturating_sub(length(best.as_ref()));
                    *best = value.to_value();
                }
            }
        }
        Ok(more)
    }

    /// A row of COUNT(*).
    pub(crate) fn add_row(&mut self) {
        self.count += 1;
    }

    pub(crate) fn finish(self) -> Result<Value, StatementError> {
        Ok(match self.seen {
            Seen::Count => Value::BigInt(self.count),
            Seen::Extreme { value, .. } => value,
            _ if self.count == 0 => Value::Null,
            Seen::Integers(sum) => Value::BigInt(sum),
            Seen::Doubles { sum, average: false } => Value::Double(sum),
            Seen::Doubles { sum, average: true } => Value::Double(sum / self.count as f64),
            Seen::Decimals { sum, scale, average } => {
                let result = if average { sum / i128::from(self.count) } else { sum };
                let fits = result.unsigned_abs() < NUMERIC_LIMIT;
                let result = Decimal::try_from_i128_with_scale(result, scale).ok().filter(|_| fits);
                Value::Numeric(result.ok_or_else(|| out_of_range("numeric"))?)
            }
        })
    }
}

/// A value's digits at a scale; None: there is no room for them.
pub(crate) fn mantissa(value: Decimal, scale: u32) -> Option<i128> {
    let value = value.round_dp_with_strategy(scale, RoundingStrategy::MidpointAwayFromZero);
    let zeros = 10_i128.checked_pow(scale - value.scale())?;
    value.mantissa().checked_mul(zeros)
}

fn length(value: ValueRef<'_>) -> usize {
    match value {
        ValueRef::Text(text) => text.len(),
        ValueRef::Bytea(bytes) => bytes.len(),
        _ => 0,
    }
}
