//! Evaluates scalar expressions with PostgreSQL's semantics. What lies in a row, a parameter or the program is borrowed.

use std::cmp::Ordering;

use smallvec::SmallVec;

use super::cast::{assign, cast};
use super::like::matches_like;
use super::operators::{arithmetic, compare, negate, out_of_range};
use super::{BinaryOp, Expr, Function, StatementContext, UnaryOp};
use crate::Lsn;
use crate::error::StatementError;
use crate::row::RowRef;
use crate::value::{DataType, Value, ValueRef};

/// What an expression may look at.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// The row at hand.
    pub row: Option<RowRef<'a>>,
    /// The LSN that wrote it; 0: none did yet.
    pub lsn: Lsn,
    /// The parameters.
    pub parameters: &'a [Value],
    /// The statement.
    pub context: &'a StatementContext,
}

/// A value that lies somewhere, or was computed.
#[derive(Clone, Debug, PartialEq)]
pub enum Datum<'a> {
    /// It lies in a row, a parameter or the program, or needs no place.
    Ref(ValueRef<'a>),
    /// A computed text.
    Text(String),
    /// A computed BYTEA.
    Bytea(Vec<u8>),
}

/// NULL.
pub(crate) const NULL: Datum<'static> = Datum::Ref(ValueRef::Null);

impl Datum<'_> {
    /// The value.
    #[inline]
    pub fn as_ref(&self) -> ValueRef<'_> {
        match self {
            Self::Ref(value) => *value,
            Self::Text(text) => ValueRef::Text(text),
            Self::Bytea(bytes) => ValueRef::Bytea(bytes),
        }
    }

    /// The value, owned.
    pub fn into_value(self) -> Value {
        match self {
            Self::Ref(value) => value.to_value(),
            Self::Text(text) => Value::Text(text),
            Self::Bytea(bytes) => Value::Bytea(bytes),
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self, Self::Ref(ValueRef::Null))
    }
}

/// Values of one row; most rows of a statement are no longer than what lies on the stack.
pub(crate) type Datums<'a> = SmallVec<[Datum<'a>; SHORT_ROW]>;

/// The same, borrowed.
pub(crate) type ValueRefs<'a> = SmallVec<[ValueRef<'a>; SHORT_ROW]>;

/// Columns of a row whose values need no allocation.
const SHORT_ROW: usize = 12;

pub(crate) type Evaluated<'a> = Result<Datum<'a>, StatementError>;

/// A row's version as a value.
pub(crate) fn version(lsn: Lsn, base: i64) -> ValueRef<'static> {
    match lsn {
        0 => ValueRef::Null,
        lsn => ValueRef::BigInt(base.wrapping_add(lsn as i64)),
    }
}

fn boolean<'a>(value: bool) -> Datum<'a> {
    Datum::Ref(ValueRef::Boolean(value))
}

impl Expr {
    /// The value of this expression.
    pub fn evaluate<'a>(&'a self, scope: &Scope<'a>) -> Evaluated<'a> {
        match self {
            Self::Column(column) => match scope.row {
                Some(row) => Ok(Datum::Ref(row.get(*column))),
                None => Err(StatementError::TypeMismatch(
                    "there is no row to take a column from".to_owned(),
                )),
            },
            Self::Version(base) => Ok(Datum::Ref(version(scope.lsn, *base))),
            Self::Parameter(place) => parameter(scope, *place).map(Datum::Ref),
            Self::Literal(value) => Ok(Datum::Ref(value.as_ref())),
            Self::Binary {
                op: BinaryOp::And,
                left,
                right,
            } => logical(left, right, scope, false),
            Self::Binary {
                op: BinaryOp::Or,
                left,
                right,
            } => logical(left, right, scope, true),
            Self::Binary { op, left, right } => binary(*op, &left.evaluate(scope)?, &right.evaluate(scope)?),
            Self::Unary { op, operand } => unary(*op, &operand.evaluate(scope)?),
            Self::Cast { operand, to } => cast(operand.evaluate(scope)?, *to),
            Self::InList { operand, list, negated } => in_list(operand, list, *negated, scope),
            Self::Like {
                operand,
                pattern,
                negated,
                case_insensitive,
            } => {
                let (value, pattern) = (operand.evaluate(scope)?, pattern.evaluate(scope)?);
                like(value.as_ref(), pattern.as_ref(), *negated, *case_insensitive)
            }
            Self::Case { arms, otherwise } => {
                for (condition, value) in arms {
                    if condition.is_true(scope)? {
                        return value.evaluate(scope);
                    }
                }
                otherwise.as_ref().map_or(Ok(NULL), |value| value.evaluate(scope))
            }
            Self::Call { function, arguments } => call(*function, arguments, scope),
        }
    }

    /// The value of this expression, owned.
    pub fn eval(&self, scope: &Scope<'_>) -> Result<Value, StatementError> {
        self.evaluate(scope).map(Datum::into_value)
    }

    /// True when it is true, not NULL and not false.
    pub fn is_true(&self, scope: &Scope<'_>) -> Result<bool, StatementError> {
        Ok(truth(self.evaluate(scope)?.as_ref())? == Some(true))
    }

    /// True when it is false, not NULL and not true.
    pub fn is_false(&self, scope: &Scope<'_>) -> Result<bool, StatementError> {
        Ok(truth(self.evaluate(scope)?.as_ref())? == Some(false))
    }
}

pub(crate) fn parameter<'a>(scope: &Scope<'a>, place: usize) -> Result<ValueRef<'a>, StatementError> {
    let missing = || StatementError::TypeMismatch(format!("there is no parameter ${}", place + 1));
    scope.parameters.get(place).map(Value::as_ref).ok_or_else(missing)
}

fn truth(value: ValueRef<'_>) -> Result<Option<bool>, StatementError> {
    match value {
        ValueRef::Null => Ok(None),
        ValueRef::Boolean(value) => Ok(Some(value)),
        other => Err(mismatch("a condition", other)),
    }
}

pub(crate) fn mismatch(what: &str, value: ValueRef<'_>) -> StatementError {
    StatementError::TypeMismatch(format!("{what} can't take a value of type {}", value.type_name()))
}

/// AND and OR: `decides` is the value of one side that decides the whole.
fn logical<'a>(left: &'a Expr, right: &'a Expr, scope: &Scope<'a>, decides: bool) -> Evaluated<'a> {
    let left = truth(left.evaluate(scope)?.as_ref())?;
    if left == Some(decides) {
        return Ok(boolean(decides));
    }
    let right = truth(right.evaluate(scope)?.as_ref())?;
    Ok(match (left, right) {
        (_, Some(right)) if right == decides => boolean(decides),
        (Some(_), Some(_)) => boolean(!decides),
        _ => NULL,
    })
}

fn binary<'a>(op: BinaryOp, left: &Datum<'_>, right: &Datum<'_>) -> Evaluated<'a> {
    let (left, right) = (left.as_ref(), right.as_ref());
    let test = match op {
        BinaryOp::Add | BinaryOp::Subtract | BinaryOp::Multiply | BinaryOp::Divide | BinaryOp::Modulo => {
            return arithmetic(op, left, right);
        }
        BinaryOp::Concatenate => return concatenate(left, right),
        BinaryOp::IsDistinctFrom | BinaryOp::IsNotDistinctFrom => {
            let same = match compare(left, right)? {
                Some(order) => order.is_eq(),
                None => left == ValueRef::Null && right == ValueRef::Null,
            };
            return Ok(boolean(same == (op == BinaryOp::IsNotDistinctFrom)));
        }
        BinaryOp::And | BinaryOp::Or => {
            return Err(StatementError::TypeMismatch("AND and OR take conditions".to_owned()));
        }
        BinaryOp::Equal => Ordering::is_eq,
        BinaryOp::NotEqual => Ordering::is_ne,
        BinaryOp::Less => Ordering::is_lt,
        BinaryOp::LessOrEqual => Ordering::is_le,
        BinaryOp::Greater => Ordering::is_gt,
        BinaryOp::GreaterOrEqual => Ordering::is_ge,
    };
    Ok(compare(left, right)?.map_or(NULL, |order| boolean(test(order))))
}

fn concatenate<'a>(left: ValueRef<'_>, right: ValueRef<'_>) -> Evaluated<'a> {
    match (left, right) {
        (ValueRef::Null, _) | (_, ValueRef::Null) => Ok(NULL),
        (ValueRef::Bytea(left), ValueRef::Bytea(right)) => Ok(Datum::Bytea([left, right].concat())),
        (left, right) => Ok(Datum::Text(left.to_text() + &right.to_text())),
    }
}

fn unary<'a>(op: UnaryOp, value: &Datum<'_>) -> Evaluated<'a> {
    let value = value.as_ref();
    Ok(match op {
        UnaryOp::IsNull => boolean(value == ValueRef::Null),
        UnaryOp::IsNotNull => boolean(value != ValueRef::Null),
        UnaryOp::IsTrue => boolean(truth(value)? == Some(true)),
        UnaryOp::IsFalse => boolean(truth(value)? == Some(false)),
        UnaryOp::IsNotTrue => boolean(truth(value)? != Some(true)),
        UnaryOp::IsNotFalse => boolean(truth(value)? != Some(false)),
        UnaryOp::Not => truth(value)?.map_or(NULL, |value| boolean(!value)),
        UnaryOp::Negate => return negate(value),
    })
}

fn in_list<'a>(operand: &'a Expr, list: &'a [Expr], negated: bool, scope: &Scope<'a>) -> Evaluated<'a> {
    let operand = operand.evaluate(scope)?;
    let mut unknown = false;
    for item in list {
        match compare(operand.as_ref(), item.evaluate(scope)?.as_ref())? {
            Some(Ordering::Equal) => return Ok(boolean(!negated)),
            Some(_) => {}
            None => unknown = true,
        }
    }
    Ok(if unknown { NULL } else { boolean(negated) })
}

fn like<'a>(value: ValueRef<'_>, pattern: ValueRef<'_>, negated: bool, case_insensitive: bool) -> Evaluated<'a> {
    let (value, pattern) = match (value, pattern) {
        (ValueRef::Null, _) | (_, ValueRef::Null) => return Ok(NULL),
        (ValueRef::Text(value), ValueRef::Text(pattern)) => (value, pattern),
        (ValueRef::Text(_), other) | (other, _) => return Err(mismatch("LIKE", other)),
    };
    let matches = if case_insensitive {
        matches_like(&value.to_lowercase(), &pattern.to_lowercase())
    } else {
        matches_like(value, pattern)
    };
    Ok(boolean(matches? != negated))
}

fn call<'a>(function: Function, arguments: &'a [Expr], scope: &Scope<'a>) -> Evaluated<'a> {
    let argument = |place: usize| match arguments.get(place) {
        Some(argument) => argument.evaluate(scope),
        None => Err(StatementError::TypeMismatch(format!(
            "{function:?} lacks its argument {}",
            place + 1
        ))),
    };
    match function {
        Function::Coalesce => {
            for argument in arguments {
                let value = argument.evaluate(scope)?;
                if !value.is_null() {
                    return Ok(value);
                }
            }
            Ok(NULL)
        }
        Function::NullIf => {
            let (left, right) = (argument(0)?, argument(1)?);
            let same = compare(left.as_ref(), right.as_ref())? == Some(Ordering::Equal);
            Ok(if same { NULL } else { left })
        }
        Function::Now => Ok(Datum::Ref(ValueRef::Timestamp(scope.context.now_micros))),
        Function::Lower | Function::Upper => match argument(0)?.as_ref() {
            ValueRef::Null => Ok(NULL),
            ValueRef::Text(text) if function == Function::Lower => Ok(Datum::Text(text.to_lowercase())),
            ValueRef::Text(text) => Ok(Datum::Text(text.to_uppercase())),
            other => Err(mismatch("lower and upper", other)),
        },
        Function::Length => match argument(0)?.as_ref() {
            ValueRef::Null => Ok(NULL),
            ValueRef::Text(text) => length(text.chars().count()),
            ValueRef::Bytea(bytes) => length(bytes.len()),
            other => Err(mismatch("length", other)),
        },
        Function::SplitPart => {
            let (text, delimiter, field) = (argument(0)?, argument(1)?, argument(2)?);
            let (ValueRef::Text(delimiter), field) = (delimiter.as_ref(), field.as_ref()) else {
                return null_or("split_part", delimiter.as_ref());
            };
            let field = match field {
                ValueRef::Int(field) => i64::from(field),
                ValueRef::BigInt(field) => field,
                other => return null_or("split_part", other),
            };
            match text {
                Datum::Ref(ValueRef::Text(text)) => Ok(Datum::Ref(ValueRef::Text(split_part(text, delimiter, field)?))),
                Datum::Text(text) => Ok(Datum::Text(split_part(&text, delimiter, field)?.to_owned())),
                other => null_or("split_part", other.as_ref()),
            }
        }
        Function::Left => {
            let (text, count) = (argument(0)?, argument(1)?);
            let count = match count.as_ref() {
                ValueRef::Int(count) => i64::from(count),
                ValueRef::BigInt(count) => count,
                other => return null_or("left", other),
            };
            match text {
                Datum::Ref(ValueRef::Text(text)) => Ok(Datum::Ref(ValueRef::Text(left(text, count)))),
                Datum::Text(mut text) => {
                    text.truncate(left(&text, count).len());
                    Ok(Datum::Text(text))
                }
                other => null_or("left", other.as_ref()),
            }
        }
        Function::Abs => {
            let value = argument(0)?;
            match compare(value.as_ref(), ValueRef::Int(0)) {
                Ok(Some(Ordering::Less)) => negate(value.as_ref()),
                Ok(_) => Ok(value),
                Err(_) => Err(mismatch("abs", value.as_ref())),
            }
        }
    }
}

/// Of NULL, NULL.
fn null_or<'a>(function: &str, value: ValueRef<'_>) -> Evaluated<'a> {
    match value {
        ValueRef::Null => Ok(NULL),
        other => Err(mismatch(function, other)),
    }
}

/// A field of a text between delimiters, counted from 1, or from the end by -1; empty: there is no such field. Without a delimiter the
/// text is one field.
fn split_part<'t>(text: &'t str, delimiter: &str, field: i64) -> Result<&'t str, StatementError> {
    if field == 0 {
        return Err(StatementError::ZeroField);
    }
    let place = usize::try_from(field.unsigned_abs() - 1).unwrap_or(usize::MAX);
    let part = match (delimiter, field > 0) {
        ("", _) => (place == 0).then_some(text),
        (_, true) => text.split(delimiter).nth(place),
        (_, false) => text.rsplit(delimiter).nth(place),
    };
    Ok(part.unwrap_or_default())
}

/// A text's first characters: so many, or, if that is negative, all but so many.
fn left(text: &str, count: i64) -> &str {
    let distance = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
    let end = match count {
        0 => Some(0),
        1.. => text.char_indices().nth(distance).map(|(end, _)| end),
        _ => Some(text.char_indices().nth_back(distance - 1).map_or(0, |(end, _)| end)),
    };
    end.map_or(text, |end| &text[..end])
}

fn length<'a>(count: usize) -> Evaluated<'a> {
    let count = i32::try_from(count).map_err(|_| out_of_range("integer"))?;
    Ok(Datum::Ref(ValueRef::Int(count)))
}

/// A value of a constant expression as a column type, for planners. See `cast`.
pub fn cast_value(value: Value, to: DataType) -> Result<Value, StatementError> {
    cast(Datum::Ref(value.as_ref()), to).map(Datum::into_value)
}

/// A value as a column takes it: as `cast_value`, but a text that is too long for it, or of another type, is an error.
pub fn assign_value(value: Value, to: DataType) -> Result<Value, StatementError> {
    assign(Datum::Ref(value.as_ref()), to).map(Datum::into_value)
}

#[cfg(test)]
mod tests {
    use super::left;

    #[test]
    fn left_counts_characters_from_either_end() {
        assert_eq!([left("añb", 2), left("añb", 9), left("añb", 0)], ["añ", "añb", ""]);
        assert_eq!(
            [left("añb", -1), left("añb", -3), left("añb", i64::MIN)],
            ["añ", "", ""]
        );
    }
}
