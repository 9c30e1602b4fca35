//! Expressions that a materialized view may have: those that give a value for every row, so that a write never fails for the
//! sake of a view. Products and sums of bounded numbers are computed as NUMERICs, which have room for them.

use volt_engine::catalog::Column;
use volt_engine::plan::{BinaryOp, Expr, Function, UnaryOp};
use volt_engine::value::{DataType, Value};

/// Every NUMERIC below it, taken as a whole number of its last places, has room.
const NUMERIC_ROOM: f64 = 7e28;

/// A number is at most so great, and has so many digits behind the point.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    pub(super) greatest: f64,
    pub(super) scale: u8,
}

impl Bounds {
    fn of(data_type: DataType) -> Option<Self> {
        let (greatest, scale) = match data_type {
            DataType::Int => (f64::from(i32::MAX) + 1.0, 0),
            DataType::BigInt => (i64::MAX as f64, 0),
            DataType::Numeric { precision, scale } => (10_f64.powi(i32::from(precision) - i32::from(scale)), scale),
            _ => return None,
        };
        Some(Self { greatest, scale })
    }

    /// How great it is, counted in its last places.
    pub(super) fn in_last_places(self) -> f64 {
        self.greatest * 10_f64.powi(i32::from(self.scale))
    }
}

/// The expression as one that never fails; None: it may.
pub(super) fn total(expr: &Expr, columns: &[Column]) -> Option<Expr> {
    let inner = |expr: &Expr| total(expr, columns);
    let boxed = |expr: &Expr| inner(expr).map(Box::new);
    let all = |exprs: &[Expr]| exprs.iter().map(inner).collect::<Option<Vec<_>>>();
    Some(match expr {
        Expr::Column(_) | Expr::Literal(_) => expr.clone(),
        Expr::Parameter(_) | Expr::Version(_) => return None,
        Expr::Binary {
            op: op @ (BinaryOp::Add | BinaryOp::Subtract | BinaryOp::Multiply),
            left,
            right,
        } => {
            bounds(expr, columns).filter(|bounds| bounds.in_last_places() < NUMERIC_ROOM)?;
            Expr::Binary {
                op: *op,
                left: Box::new(numeric(left, columns)?),
                right: Box::new(numeric(right, columns)?),
            }
        }
        Expr::Binary {
            op: BinaryOp::Divide | BinaryOp::Modulo,
            ..
        } => return None,
        Expr::Binary { op, left, right } => Expr::Binary {
            op: *op,
            left: boxed(left)?,
            right: boxed(right)?,
        },
        Expr::Unary {
            op: UnaryOp::Negate,
            operand,
        } => {
            bounds(operand, columns)?;
            Expr::Unary {
                op: UnaryOp::Negate,
                operand: Box::new(numeric(operand, columns)?),
            }
        }
        Expr::Unary { op, operand } => Expr::Unary {
            op: *op,
            operand: boxed(operand)?,
        },
        Expr::Cast { operand, to } => Expr::Cast {
            operand: boxed(operand).filter(|_| has_room(operand, *to, columns))?,
            to: *to,
        },
        Expr::InList { operand, list, negated } => Expr::InList {
            operand: boxed(operand)?,
            list: all(list)?,
            negated: *negated,
        },
        Expr::Like {
            operand,
            pattern,
            negated,
            case_insensitive,
        } => match &**pattern {
            // One that ends with the escape character is an error.
            Expr::Literal(Value::Text(text)) if !text.contains('\\') => Expr::Like {
                operand: boxed(operand)?,
                pattern: pattern.clone(),
                negated: *negated,
                case_insensitive: *case_insensitive,
            },
            _ => return None,
        },
        Expr::Case { arms, otherwise } => {
            let arm = |(condition, value): &(Expr, Expr)| Some((inner(condition)?, inner(value)?));
            Expr::Case {
                arms: arms.iter().map(arm).collect::<Option<_>>()?,
                otherwise: match otherwise {
                    Some(otherwise) => Some(boxed(otherwise)?),
                    None => None,
                },
            }
        }
        Expr::Call {
            function:
                function @ (Function::Coalesce | Function::NullIf | Function::Lower | Function::Upper | Function::Length),
            arguments,
        } => Expr::Call {
            function: *function,
            arguments: all(arguments)?,
        },
        Expr::Call { .. } => return None,
    })
}

/// A total number, as a NUMERIC.
fn numeric(expr: &Expr, columns: &[Column]) -> Option<Expr> {
    let scale = bounds(expr, columns)?.scale;
    Some(Expr::Cast {
        operand: Box::new(total(expr, columns)?),
        to: DataType::Numeric { precision: 28, scale },
    })
}

/// A cast that changes no value, or only how it is written.
fn has_room(operand: &Expr, to: DataType, columns: &[Column]) -> bool {
    if to == DataType::Text {
        return true;
    }
    let Some(from) = bounds(operand, columns) else {
        return false;
    };
    match to {
        DataType::Double => true,
        to => Bounds::of(to).is_some_and(|to| from.scale <= to.scale && from.greatest <= to.greatest),
    }
}

/// How great an exact number may be; None: it is none, or may be anything.
pub(super) fn bounds(expr: &Expr, columns: &[Column]) -> Option<Bounds> {
    let inner = |expr: &Expr| bounds(expr, columns);
    let greater = |one: Bounds, other: Bounds| Bounds {
        greatest: one.greatest.max(other.greatest),
        scale: one.scale.max(other.scale),
    };
    match expr {
        Expr::Column(place) => Bounds::of(columns.get(*place)?.data_type),
        Expr::Literal(value) => match value {
            Value::Null => Some(Bounds {
                greatest: 0.0,
                scale: 0,
            }),
            Value::Int(value) => Some(Bounds {
                greatest: f64::from(*value).abs(),
                scale: 0,
            }),
            Value::BigInt(value) => Some(Bounds {
                greatest: (*value as f64).abs(),
                scale: 0,
            }),
            Value::Numeric(value) => Some(Bounds {
                greatest: value.mantissa().unsigned_abs() as f64 / 10_f64.powi(value.scale() as i32),
                scale: value.scale() as u8,
            }),
            _ => None,
        },
        Expr::Binary { op, left, right } => {
            let (left, right) = (inner(left)?, inner(right)?);
            match op {
                BinaryOp::Add | BinaryOp::Subtract => Some(Bounds {
                    greatest: left.greatest + right.greatest,
                    scale: left.scale.max(right.scale),
                }),
                BinaryOp::Multiply => Some(Bounds {
                    greatest: left.greatest * right.greatest,
                    scale: left.scale + right.scale,
                }),
                _ => None,
            }
        }
        Expr::Unary {
            op: UnaryOp::Negate,
            operand,
        } => inner(operand),
        Expr::Cast { operand, to } => {
            let to = Bounds::of(*to)?;
            let from = inner(operand)?;
            Some(Bounds {
                greatest: from.greatest.min(to.greatest),
                scale: to.scale,
            })
        }
        Expr::Case { arms, otherwise } => {
            let values = arms.iter().map(|(_, value)| value).chain(otherwise.as_deref());
            let values: Option<Vec<Bounds>> = values.map(inner).collect();
            values?.into_iter().reduce(greater)
        }
        Expr::Call {
            function: Function::Coalesce,
            arguments,
        } => {
            let values: Option<Vec<Bounds>> = arguments.iter().map(inner).collect();
            values?.into_iter().reduce(greater)
        }
        Expr::Call {
            function: Function::NullIf,
            arguments,
        } => inner(arguments.first()?),
        Expr::Call {
            function: Function::Length,
            ..
        } => Bounds::of(DataType::Int),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(data_type: DataType) -> Column {
        Column {
            name: String::new(),
            data_type,
            nullable: true,
            default: None,
            is_dropped: false,
            missing: Value::Null,
        }
    }

    fn binary(op: BinaryOp, left: Expr, right: Expr) -> Expr {
        Expr::Binary {
            op,
            left: Box::new(left),
            right: Box::new(right),
        }
    }

    #[test]
    fn what_has_room_as_a_numeric_is_total() {
        let columns = [
            column(DataType::Int),
            column(DataType::BigInt),
            column(DataType::Numeric {
                precision: 12,
                scale: 2,
            }),
            column(DataType::Double),
        ];
        let is_total = |expr: &Expr| total(expr, &columns).is_some();
        let product = |left, right| binary(BinaryOp::Multiply, Expr::Column(left), Expr::Column(right));
        assert!(is_total(&product(0, 0)));
        assert!(is_total(&product(2, 0)));
        assert!(!is_total(&product(1, 1)));
        assert!(!is_total(&product(3, 3)));
        assert!(is_total(&binary(BinaryOp::Add, product(0, 0), Expr::Column(1))));
        assert!(!is_total(&binary(
            BinaryOp::Divide,
            Expr::Column(0),
            Expr::Literal(Value::Int(2))
        )));
        let small = Expr::Cast {
            operand: Box::new(Expr::Column(1)),
            to: DataType::Int,
        };
        assert!(!is_total(&small));
        let wide = Expr::Cast {
            operand: Box::new(Expr::Column(0)),
            to: DataType::BigInt,
        };
        assert!(is_total(&wide));
    }
}
