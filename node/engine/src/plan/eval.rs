//! Evaluates scalar expressions with PostgreSQL's semantics.

use std::borrow::Cow;
use std::cmp::Ordering;

use rust_decimal::Decimal;
use rust_decimal::prelude::{FromPrimitive, ToPrimitive};

use super::{BinaryOp, Expr, Function, StatementContext, UnaryOp};
use crate::error::StatementError;
use crate::row::RowRef;
use crate::value::{DataType, Value, ValueRef};

/// What an expression may look at.
#[derive(Clone, Copy)]
pub struct Scope<'a> {
    /// The row at hand.
    pub row: Option<RowRef<'a>>,
    /// The parameters.
    pub parameters: &'a [Value],
    /// The statement.
    pub context: &'a StatementContext,
}

/// A value that lies somewhere, or was computed.
pub type Datum<'a> = Cow<'a, Value>;

type Evaluated = Result<Value, StatementError>;

impl Expr {
    /// The value of this expression.
    pub fn eval(&self, scope: &Scope<'_>) -> Evaluated {
        match self {
            Self::Column(column) => Ok(scope.row.map_or(Value::Null, |row| row.get(*column).to_value())),
            Self::Parameter(place) => scope
                .parameters
                .get(*place)
                .cloned()
                .ok_or_else(|| StatementError::TypeMismatch(format!("there is no parameter ${}", place + 1))),
            Self::Literal(value) => Ok(value.clone()),
            Self::Binary { op: BinaryOp::And, left, right } => logical(left, right, scope, false),
            Self::Binary { op: BinaryOp::Or, left, right } => logical(left, right, scope, true),
            Self::Binary { op, left, right } => binary(*op, left.eval(scope)?, right.eval(scope)?),
            Self::Unary { op, operand } => unary(*op, operand.eval(scope)?),
            Self::Cast { operand, to } => cast(operand.eval(scope)?, *to),
            Self::InList { operand, list, negated } => in_list(operand, list, *negated, scope),
            Self::Like { operand, pattern, negated, case_insensitive } => {
                like(operand.eval(scope)?, pattern.eval(scope)?, *negated, *case_insensitive)
            }
            Self::Case { arms, otherwise } => {
                for (condition, value) in arms {
                    if condition.is_true(scope)? {
                        return value.eval(scope);
                    }
                }
                otherwise.as_ref().map_or(Ok(Value::Null), |value| value.eval(scope))
            }
            Self::Call { function, arguments } => call(*function, arguments, scope),
        }
    }

    /// True when it is true, not NULL and not false.
    pub fn is_true(&self, scope: &Scope<'_>) -> Result<bool, StatementError> {
        Ok(self.eval(scope)? == Value::Boolean(true))
    }
}

fn mismatch(what: &str, value: &Value) -> StatementError {
    StatementError::TypeMismatch(format!("{what} can't take {value:?}"))
}

fn truth(value: &Value) -> Result<Option<bool>, StatementError> {
    match value {
        Value::Null => Ok(None),
        Value::Boolean(value) => Ok(Some(*value)),
        other => Err(mismatch("a condition", other)),
    }
}

/// AND and OR: `decides` is the value of one side that decides the whole.
fn logical(left: &Expr, right: &Expr, scope: &Scope<'_>, decides: bool) -> Evaluated {
    let left = truth(&left.eval(scope)?)?;
    if left == Some(decides) {
        return Ok(Value::Boolean(decides));
    }
    let right = truth(&right.eval(scope)?)?;
    Ok(match (left, right) {
        (_, Some(right)) if right == decides => Value::Boolean(decides),
        (Some(_), Some(_)) => Value::Boolean(!decides),
        _ => Value::Null,
    })
}

/// Orders two values of comparable types; None when either is NULL.
pub fn compare(left: &Value, right: &Value) -> Result<Option<Ordering>, StatementError> {
    use Value::{BigInt, Boolean, Bytea, Double, Int, Null, Numeric, Text, Timestamp};
    Ok(Some(match (left, right) {
        (Null, _) | (_, Null) => return Ok(None),
        (Boolean(left), Boolean(right)) => left.cmp(right),
        (Int(left), Int(right)) => left.cmp(right),
        (BigInt(left), BigInt(right)) | (Timestamp(left), Timestamp(right)) => left.cmp(right),
        (Int(left), BigInt(right)) => i64::from(*left).cmp(right),
        (BigInt(left), Int(right)) => left.cmp(&i64::from(*right)),
        (Text(left), Text(right)) => left.cmp(right),
        (Bytea(left), Bytea(right)) => left.cmp(right),
        (Numeric(left), Numeric(right)) => left.cmp(right),
        (Double(left), Double(right)) => compare_doubles(*left, *right),
        (Double(left), right) => compare_doubles(*left, to_double(right)?),
        (left, Double(right)) => compare_doubles(to_double(left)?, *right),
        (Numeric(left), right) => left.cmp(&to_decimal(right)?),
        (left, Numeric(right)) => to_decimal(left)?.cmp(right),
        (left, right) => return Err(StatementError::TypeMismatch(format!("{left:?} and {right:?} can't be compared"))),
    }))
}

/// NaN is equal to itself and greater than all else.
fn compare_doubles(left: f64, right: f64) -> Ordering {
    left.partial_cmp(&right).unwrap_or_else(|| left.is_nan().cmp(&right.is_nan()))
}

fn to_double(value: &Value) -> Result<f64, StatementError> {
    match value {
        Value::Int(value) => Ok(f64::from(*value)),
        Value::BigInt(value) => Ok(*value as f64),
        Value::Double(value) => Ok(*value),
        Value::Numeric(value) => value.to_f64().ok_or_else(|| out_of_range("double precision")),
        other => Err(mismatch("double precision", other)),
    }
}

fn to_decimal(value: &Value) -> Result<Decimal, StatementError> {
    match value {
        Value::Int(value) => Ok(Decimal::from(*value)),
        Value::BigInt(value) => Ok(Decimal::from(*value)),
        Value::Numeric(value) => Ok(*value),
        Value::Double(value) => Decimal::from_f64(*value).ok_or_else(|| out_of_range("numeric")),
        other => Err(mismatch("numeric", other)),
    }
}

fn out_of_range(what: &str) -> StatementError {
    StatementError::OutOfRange { what: what.to_owned() }
}

fn binary(op: BinaryOp, left: Value, right: Value) -> Evaluated {
    use BinaryOp::{
        Add, And, Concatenate, Divide, Equal, Greater, GreaterOrEqual, IsDistinctFrom, IsNotDistinctFrom, Less,
        LessOrEqual, Modulo, Multiply, NotEqual, Or, Subtract,
    };
    match op {
        IsDistinctFrom | IsNotDistinctFrom => {
            let same = match compare(&left, &right)? {
                Some(order) => order == Ordering::Equal,
                None => left == Value::Null && right == Value::Null,
            };
            Ok(Value::Boolean(same == (op == IsNotDistinctFrom)))
        }
        Equal | NotEqual | Less | LessOrEqual | Greater | GreaterOrEqual => {
            let Some(order) = compare(&left, &right)? else { return Ok(Value::Null) };
            Ok(Value::Boolean(match op {
                Equal => order.is_eq(),
                NotEqual => order.is_ne(),
                Less => order.is_lt(),
                LessOrEqual => order.is_le(),
                Greater => order.is_gt(),
                _ => order.is_ge(),
            }))
        }
        Add | Subtract | Multiply | Divide | Modulo => arithmetic(op, &left, &right),
        Concatenate => match (left, right) {
            (Value::Null, _) | (_, Value::Null) => Ok(Value::Null),
            (Value::Text(left), Value::Text(right)) => Ok(Value::Text(left + &right)),
            (left, right) => {
                let (left, right) = (cast(left, DataType::Text)?, cast(right, DataType::Text)?);
                binary(op, left, right)
            }
        },
        And | Or => Err(StatementError::TypeMismatch("AND and OR are evaluated lazily".to_owned())),
    }
}

fn arithmetic(op: BinaryOp, left: &Value, right: &Value) -> Evaluated {
    match (left, right) {
        (Value::Null, _) | (_, Value::Null) => Ok(Value::Null),
        (Value::Int(left), Value::Int(right)) => {
            let result = integers(op, i64::from(*left), i64::from(*right), "integer")?;
            i32::try_from(result).map(Value::Int).map_err(|_| out_of_range("integer"))
        }
        (Value::Int(_) | Value::BigInt(_), Value::Int(_) | Value::BigInt(_)) => {
            let number = |value: &Value| if let Value::Int(value) = value { i64::from(*value) } else if let Value::BigInt(value) = value { *value } else { 0 };
            integers(op, number(left), number(right), "bigint").map(Value::BigInt)
        }
        (Value::Double(_), _) | (_, Value::Double(_)) => doubles(op, to_double(left)?, to_double(right)?),
        _ => decimals(op, to_decimal(left)?, to_decimal(right)?),
    }
}

fn integers(op: BinaryOp, left: i64, right: i64, what: &str) -> Result<i64, StatementError> {
    if right == 0 && matches!(op, BinaryOp::Divide | BinaryOp::Modulo) {
        return Err(StatementError::DivisionByZero);
    }
    let result = match op {
        BinaryOp::Add => left.checked_add(right),
        BinaryOp::Subtract => left.checked_sub(right),
        BinaryOp::Multiply => left.checked_mul(right),
        BinaryOp::Divide => left.checked_div(right),
        _ => Some(left.checked_rem(right).unwrap_or(0)),
    };
    result.ok_or_else(|| out_of_range(what))
}

fn doubles(op: BinaryOp, left: f64, right: f64) -> Evaluated {
    if right == 0.0 && matches!(op, BinaryOp::Divide | BinaryOp::Modulo) {
        return Err(StatementError::DivisionByZero);
    }
    let result = match op {
        BinaryOp::Add => left + right,
        BinaryOp::Subtract => left - right,
        BinaryOp::Multiply => left * right,
        BinaryOp::Divide => left / right,
        _ => left % right,
    };
    if result.is_infinite() && left.is_finite() && right.is_finite() {
        return Err(out_of_range("double precision"));
    }
    Ok(Value::Double(result))
}

fn decimals(op: BinaryOp, left: Decimal, right: Decimal) -> Evaluated {
    if right.is_zero() && matches!(op, BinaryOp::Divide | BinaryOp::Modulo) {
        return Err(StatementError::DivisionByZero);
    }
    let result = match op {
        BinaryOp::Add => left.checked_add(right),
        BinaryOp::Subtract => left.checked_sub(right),
        BinaryOp::Multiply => left.checked_mul(right),
        BinaryOp::Divide => left.checked_div(right),
        _ => left.checked_rem(right),
    };
    result.map(Value::Numeric).ok_or_else(|| out_of_range("numeric"))
}

fn unary(op: UnaryOp, value: Value) -> Evaluated {
    Ok(match op {
        UnaryOp::IsNull => Value::Boolean(value == Value::Null),
        UnaryOp::IsNotNull => Value::Boolean(value != Value::Null),
        UnaryOp::IsTrue => Value::Boolean(truth(&value)? == Some(true)),
        UnaryOp::IsFalse => Value::Boolean(truth(&value)? == Some(false)),
        UnaryOp::IsNotTrue => Value::Boolean(truth(&value)? != Some(true)),
        UnaryOp::IsNotFalse => Value::Boolean(truth(&value)? != Some(false)),
        UnaryOp::Not => truth(&value)?.map_or(Value::Null, |value| Value::Boolean(!value)),
        UnaryOp::Negate => match value {
            Value::Null => Value::Null,
            Value::Int(value) => Value::Int(value.checked_neg().ok_or_else(|| out_of_range("integer"))?),
            Value::BigInt(value) => Value::BigInt(value.checked_neg().ok_or_else(|| out_of_range("bigint"))?),
            Value::Double(value) => Value::Double(-value),
            Value::Numeric(value) => Value::Numeric(-value),
            other => return Err(mismatch("-", &other)),
        },
    })
}

fn in_list(operand: &Expr, list: &[Expr], negated: bool, scope: &Scope<'_>) -> Evaluated {
    let operand = operand.eval(scope)?;
    let mut unknown = operand == Value::Null;
    for item in list {
        match compare(&operand, &item.eval(scope)?)? {
            Some(Ordering::Equal) => return Ok(Value::Boolean(!negated)),
            Some(_) => {}
            None => unknown = true,
        }
    }
    Ok(if unknown { Value::Null } else { Value::Boolean(negated) })
}

fn like(value: Value, pattern: Value, negated: bool, case_insensitive: bool) -> Evaluated {
    let (Value::Text(mut value), Value::Text(mut pattern)) = (value, pattern) else { return Ok(Value::Null) };
    if case_insensitive {
        (value, pattern) = (value.to_lowercase(), pattern.to_lowercase());
    }
    let (value, pattern): (Vec<char>, Vec<char>) = (value.chars().collect(), pattern.chars().collect());
    Ok(Value::Boolean(matches_like(&value, &pattern) != negated))
}

/// `%` any run, `_` any one, `\` takes the next as it is. Linear but for the last `%`, to which it goes back.
fn matches_like(value: &[char], pattern: &[char]) -> bool {
    let (mut at, mut in_pattern) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    while at < value.len() {
        match pattern.get(in_pattern) {
            Some('%') => {
                in_pattern += 1;
                back = Some((at, in_pattern));
                continue;
            }
            Some('_') => {
                (at, in_pattern) = (at + 1, in_pattern + 1);
                continue;
            }
            Some('\\') if pattern.get(in_pattern + 1) == Some(&value[at]) => {
                (at, in_pattern) = (at + 1, in_pattern + 2);
                continue;
            }
            Some(literal) if *literal != '\\' && *literal == value[at] => {
                (at, in_pattern) = (at + 1, in_pattern + 1);
                continue;
            }
            _ => {}
        }
        let Some((from, after)) = back else { return false };
        (at, in_pattern) = (from + 1, after);
        back = Some((from + 1, after));
    }
    pattern[in_pattern..].iter().all(|&left| left == '%')
}

fn call(function: Function, arguments: &[Expr], scope: &Scope<'_>) -> Evaluated {
    let argument = |place: usize| arguments.get(place).map_or(Ok(Value::Null), |argument| argument.eval(scope));
    match function {
        Function::Coalesce => {
            for argument in arguments {
                let value = argument.eval(scope)?;
                if value != Value::Null {
                    return Ok(value);
                }
            }
            Ok(Value::Null)
        }
        Function::NullIf => {
            let (left, right) = (argument(0)?, argument(1)?);
            Ok(if compare(&left, &right)? == Some(Ordering::Equal) { Value::Null } else { left })
        }
        Function::Now => Ok(Value::Timestamp(scope.context.now_micros)),
        Function::Lower | Function::Upper | Function::Length => match (function, argument(0)?) {
            (_, Value::Null) => Ok(Value::Null),
            (Function::Lower, Value::Text(text)) => Ok(Value::Text(text.to_lowercase())),
            (Function::Upper, Value::Text(text)) => Ok(Value::Text(text.to_uppercase())),
            (_, Value::Text(text)) => Ok(Value::Int(text.chars().count() as i32)),
            (_, other) => Err(mismatch("a text function", &other)),
        },
        Function::Abs => match argument(0)? {
            Value::Int(value) => value.checked_abs().map(Value::Int).ok_or_else(|| out_of_range("integer")),
            Value::BigInt(value) => value.checked_abs().map(Value::BigInt).ok_or_else(|| out_of_range("bigint")),
            Value::Double(value) => Ok(Value::Double(value.abs())),
            Value::Numeric(value) => Ok(Value::Numeric(value.abs())),
            Value::Null => Ok(Value::Null),
            other => Err(mismatch("abs", &other)),
        },
    }
}

/// CAST, as PostgreSQL does it.
pub fn cast(value: Value, to: DataType) -> Evaluated {
    use DataType as T;
    let invalid = |data_type: &str, text: &str| StatementError::InvalidText { data_type: data_type.to_owned(), text: text.to_owned() };
    Ok(match (value, to) {
        (Value::Null, _) => Value::Null,
        (value @ Value::Boolean(_), T::Boolean)
        | (value @ Value::Int(_), T::Int)
        | (value @ Value::BigInt(_), T::BigInt)
        | (value @ Value::Double(_), T::Double)
        | (value @ Value::Text(_), T::Text)
        | (value @ Value::Timestamp(_), T::Timestamp)
        | (value @ Value::Bytea(_), T::Bytea) => value,
        (Value::Text(text), T::Varchar(limit)) => {
            if text.chars().count() > limit as usize {
                return Err(StatementError::TooLong { limit });
            }
            Value::Text(text)
        }
        (Value::Text(text), T::Boolean) => match text.trim().to_ascii_lowercase().as_str() {
            "t" | "true" | "yes" | "on" | "1" | "y" => Value::Boolean(true),
            "f" | "false" | "no" | "off" | "0" | "n" => Value::Boolean(false),
            _ => return Err(invalid("boolean", &text)),
        },
        (Value::Text(text), T::Int) => Value::Int(text.trim().parse().map_err(|_| invalid("integer", &text))?),
        (Value::Text(text), T::BigInt) => Value::BigInt(text.trim().parse().map_err(|_| invalid("bigint", &text))?),
        (Value::Text(text), T::Double) => Value::Double(text.trim().parse().map_err(|_| invalid("double precision", &text))?),
        (Value::Text(text), T::Numeric { .. }) => {
            let number: Decimal = text.trim().parse().map_err(|_| invalid("numeric", &text))?;
            return cast(Value::Numeric(number), to);
        }
        (Value::Text(text), T::Timestamp) => Value::Timestamp(crate::value::parse_timestamp(&text).ok_or_else(|| invalid("timestamp", &text))?),
        (Value::Text(text), T::Bytea) => Value::Bytea(crate::value::parse_bytea(&text).ok_or_else(|| invalid("bytea", &text))?),
        (Value::Boolean(value), T::Int) => Value::Int(i32::from(value)),
        (Value::Int(value), T::BigInt) => Value::BigInt(i64::from(value)),
        (Value::BigInt(value), T::Int) => Value::Int(i32::try_from(value).map_err(|_| out_of_range("integer"))?),
        (Value::Int(value), T::Boolean) => Value::Boolean(value != 0),
        (value @ (Value::Int(_) | Value::BigInt(_) | Value::Numeric(_)), T::Double) => Value::Double(to_double(&value)?),
        (Value::Double(value), T::Int) => {
            let rounded = value.round_ties_even();
            let fits = (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&rounded);
            Value::Int(if fits { rounded as i32 } else { return Err(out_of_range("integer")) })
        }
        (Value::Double(value), T::BigInt) => {
            let rounded = value.round_ties_even();
            let fits = (-9.223_372_036_854_775_8e18..9.223_372_036_854_775_8e18).contains(&rounded);
            Value::BigInt(if fits { rounded as i64 } else { return Err(out_of_range("bigint")) })
        }
        (Value::Numeric(value), T::Int) => Value::Int(round_half_up(value, 0).to_i32().ok_or_else(|| out_of_range("integer"))?),
        (Value::Numeric(value), T::BigInt) => Value::BigInt(round_half_up(value, 0).to_i64().ok_or_else(|| out_of_range("bigint"))?),
        (value @ (Value::Int(_) | Value::BigInt(_) | Value::Double(_) | Value::Numeric(_)), T::Numeric { precision, scale }) => {
            Value::Numeric(fit_numeric(to_decimal(&value)?, precision, scale)?)
        }
        (value, T::Text) => Value::Text(value.as_ref().to_text()),
        (value, T::Varchar(_)) => return cast(Value::Text(value.as_ref().to_text()), to),
        (value, to) => return Err(StatementError::TypeMismatch(format!("cannot cast {value:?} to {to:?}"))),
    })
}

fn round_half_up(value: Decimal, scale: u32) -> Decimal {
    value.round_dp_with_strategy(scale, rust_decimal::RoundingStrategy::MidpointAwayFromZero)
}

fn fit_numeric(value: Decimal, precision: u8, scale: u8) -> Result<Decimal, StatementError> {
    let mut rounded = round_half_up(value, u32::from(scale));
    rounded.rescale(u32::from(scale));
    let limit = Decimal::from_i128_with_scale(10_i128.pow(u32::from(precision.saturating_sub(scale))), 0);
    if rounded.abs() >= limit || rounded.scale() != u32::from(scale) {
        return Err(out_of_range("numeric"));
    }
    Ok(rounded)
}

/// Borrowed view for the one thing that must not allocate: a column or parameter as it lies.
pub fn peek<'a>(expr: &'a Expr, scope: &Scope<'a>) -> Option<ValueRef<'a>> {
    match expr {
        Expr::Column(column) => scope.row.map(|row| row.get(*column)),
        Expr::Parameter(place) => scope.parameters.get(*place).map(Value::as_ref),
        Expr::Literal(value) => Some(value.as_ref()),
        _ => None,
    }
}
