//! Takes out of expressions the casts that change nothing, so that running them costs less. Planners put a cast wherever two
//! types meet; comparison and arithmetic take INT, BIGINT, NUMERIC and DOUBLE PRECISION as they come.
//!
//! What an expression gives, errors included, stays as it is for every row and all parameters of the types that it is told.

use super::{Access, Action, BinaryOp, Expr, Function, KeyRange, OnConflict, Program, Stage};
use crate::procedure::{Code, Op, Piece, as_type};
use crate::value::{DataType, Value};

/// Digits of the greatest INT and BIGINT.
const INT_DIGITS: u8 = 10;
const BIGINT_DIGITS: u8 = 19;

/// What columns and parameters hold: values of these types, as a column or a variable holds them, or NULL. Of those behind the
/// last one nothing is known.
#[derive(Clone, Copy, Debug, Default)]
pub struct Types<'a> {
    /// By column.
    pub columns: &'a [DataType],
    /// By parameter.
    pub parameters: &'a [DataType],
}

/// What the values of an expression are, if they are not NULL.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Int,
    BigInt,
    Double,
    Numeric,
    Other,
}

fn kind_of_type(data_type: DataType) -> Kind {
    match data_type {
        DataType::Int => Kind::Int,
        DataType::BigInt => Kind::BigInt,
        DataType::Double => Kind::Double,
        DataType::Numeric { .. } => Kind::Numeric,
        _ => Kind::Other,
    }
}

impl Types<'_> {
    /// The type whose values it gives, as a column of it holds them; None: nobody knows.
    fn type_of(&self, expr: &Expr) -> Option<DataType> {
        match expr {
            Expr::Column(column) => self.columns.get(*column).copied(),
            Expr::Parameter(parameter) => self.parameters.get(*parameter).copied(),
            Expr::Literal(Value::Boolean(_)) => Some(DataType::Boolean),
            Expr::Literal(Value::Int(_)) => Some(DataType::Int),
            Expr::Literal(Value::BigInt(_)) => Some(DataType::BigInt),
            Expr::Literal(Value::Double(_)) => Some(DataType::Double),
            Expr::Literal(Value::Text(_)) => Some(DataType::Text),
            Expr::Literal(Value::Timestamp(_)) => Some(DataType::Timestamp),
            Expr::Cast { to, .. } => Some(*to),
            Expr::Call {
                function: Function::SplitPart | Function::Left | Function::Lower | Function::Upper,
                ..
            } => Some(DataType::Text),
            Expr::Case { arms, otherwise } => {
                let values = arms.iter().map(|(_, value)| value).chain(otherwise.as_deref());
                let mut types = values.map(|value| self.type_of(value));
                let first = types.next()??;
                types.all(|other| other == Some(first)).then_some(first)
            }
            _ => None,
        }
    }

    fn kind_of(&self, expr: &Expr) -> Option<Kind> {
        match expr {
            Expr::Literal(Value::Numeric(_)) => Some(Kind::Numeric),
            Expr::Binary { op, left, right } if is_arithmetic(*op) => {
                match (self.kind_of(left)?, self.kind_of(right)?) {
                    (Kind::Other, _) | (_, Kind::Other) => None,
                    (Kind::Double, _) | (_, Kind::Double) => Some(Kind::Double),
                    (Kind::Numeric, _) | (_, Kind::Numeric) => Some(Kind::Numeric),
                    (Kind::Int, Kind::Int) => Some(Kind::Int),
                    (Kind::Int | Kind::BigInt, Kind::Int | Kind::BigInt) => Some(Kind::BigInt),
                }
            }
            expr => self.type_of(expr).map(kind_of_type),
        }
    }

    /// The operand of a cast that makes a number wider and loses nothing of it.
    fn widened<'e>(&self, expr: &'e Expr) -> Option<(&'e Expr, DataType)> {
        let Expr::Cast { operand, to } = expr else { return None };
        let holds = match (self.kind_of(operand)?, *to) {
            (Kind::Int, DataType::BigInt | DataType::Double) => true,
            (Kind::Int, DataType::Numeric { precision, scale }) => precision.saturating_sub(scale) >= INT_DIGITS,
            (Kind::BigInt, DataType::Numeric { precision, scale }) => precision.saturating_sub(scale) >= BIGINT_DIGITS,
            _ => false,
        };
        holds.then_some((operand, *to))
    }

    /// This side of an operator without its cast, if the operator does the same with the other side as that is.
    fn side(&self, op: BinaryOp, side: &Expr, other: &Expr) -> Option<Expr> {
        let (operand, to) = self.widened(side)?;
        let same = match to {
            // Whole numbers and NUMERIC compare by their values.
            DataType::BigInt | DataType::Numeric { .. } if is_comparison(op) => self
                .kind_of(other)
                .is_some_and(|kind| matches!(kind, Kind::Int | Kind::BigInt | Kind::Numeric)),
            // A scale would show in a product.
            DataType::Numeric { scale: 1.., .. } => false,
            to if is_comparison(op) || is_arithmetic(op) => self.kind_of(other) == Some(kind_of_type(to)),
            _ => false,
        };
        same.then(|| operand.clone())
    }
}

fn is_arithmetic(op: BinaryOp) -> bool {
    matches!(
        op,
        BinaryOp::Add | BinaryOp::Subtract | BinaryOp::Multiply | BinaryOp::Divide | BinaryOp::Modulo
    )
}

fn is_comparison(op: BinaryOp) -> bool {
    matches!(
        op,
        BinaryOp::Equal
            | BinaryOp::NotEqual
            | BinaryOp::Less
            | BinaryOp::LessOrEqual
            | BinaryOp::Greater
            | BinaryOp::GreaterOrEqual
            | BinaryOp::IsDistinctFrom
            | BinaryOp::IsNotDistinctFrom
    )
}

impl Expr {
    /// See the module.
    pub fn simplify(&mut self, types: Types<'_>) {
        self.for_each_operand(&mut |operand| operand.simplify(types));
        match self {
            Self::Cast { operand, to } => {
                if let Some((inner, _)) = types.widened(operand)
                    && types.type_of(inner) == Some(*to)
                {
                    **operand = inner.clone();
                }
                if holds(types.type_of(operand), *to) {
                    *self = (**operand).clone();
                }
            }
            Self::Binary { op, left, right } => {
                if let Some(plain) = types.side(*op, left, right) {
                    **left = plain;
                }
                if let Some(plain) = types.side(*op, right, left) {
                    **right = plain;
                }
            }
            Self::Call {
                function: Function::SplitPart | Function::Left,
                arguments,
            } => {
                // Both take any whole number.
                if let Some(last) = arguments.last_mut()
                    && let Some((operand, DataType::BigInt)) = types.widened(last)
                {
                    *last = operand.clone();
                }
            }
            _ => {}
        }
    }

    fn for_each_operand(&mut self, change: &mut dyn FnMut(&mut Self)) {
        match self {
            Self::Column(_) | Self::Parameter(_) | Self::Literal(_) | Self::Version(_) => {}
            Self::Binary { left, right, .. } => {
                change(left);
                change(right);
            }
            Self::Unary { operand, .. } | Self::Cast { operand, .. } => change(operand),
            Self::InList { operand, list, .. } => {
                change(operand);
                list.iter_mut().for_each(change);
            }
            Self::Like { operand, pattern, .. } => {
                change(operand);
                change(pattern);
            }
            Self::Case { arms, otherwise } => {
                for (condition, value) in arms {
                    change(condition);
                    change(value);
                }
                otherwise.iter_mut().for_each(|value| change(value));
            }
            Self::Call { arguments, .. } => arguments.iter_mut().for_each(change),
        }
    }
}

/// A cast of such values to that type changes none of them.
fn holds(from: Option<DataType>, to: DataType) -> bool {
    match (from, to) {
        (Some(DataType::Varchar(_)), DataType::Text) => true,
        (Some(DataType::Varchar(length)), DataType::Varchar(limit)) => length <= limit,
        (Some(from), to) => from == to,
        (None, _) => false,
    }
}

impl Program {
    /// Its expressions, of parameters of these types; see the module.
    pub fn simplify(&mut self, parameters: &[DataType]) {
        let columns: Vec<DataType> = self.columns.iter().map(|column| column.data_type).collect();
        let types = Types {
            columns: &columns,
            parameters,
        };
        let simplify = |expr: &mut Expr| expr.simplify(types);
        self.checks.iter_mut().for_each(|check| check.condition.simplify(types));
        self.returning.iter_mut().flatten().for_each(simplify);
        if let Some(OnConflict::Update { set, filter }) = &mut self.on_conflict {
            let both = [columns.as_slice(), columns.as_slice()].concat();
            let types = Types {
                columns: &both,
                ..types
            };
            set.iter_mut().for_each(|(_, value)| value.simplify(types));
            filter.iter_mut().for_each(|filter| filter.simplify(types));
        }
        match &mut self.action {
            Action::Select {
                access,
                filter,
                stages,
                project,
                ..
            } => {
                access.simplify(types);
                filter.iter_mut().for_each(simplify);
                let computed = simplify_stages(stages, types);
                let types = if computed { types.without_columns() } else { types };
                project.iter_mut().for_each(|expr| expr.simplify(types));
            }
            Action::Insert { rows } => rows.iter_mut().flatten().for_each(simplify),
            Action::Update { access, filter, set } => {
                access.simplify(types);
                filter.iter_mut().for_each(simplify);
                set.iter_mut().for_each(|(_, value)| value.simplify(types));
            }
            Action::Truncate { .. } => {}
            Action::Delete { access, filter } => {
                access.simplify(types);
                filter.iter_mut().for_each(simplify);
            }
        }
    }
}

/// True when what comes out has other columns than the table's.
fn simplify_stages(stages: &mut [Stage], mut types: Types<'_>) -> bool {
    let mut computed = false;
    for stage in stages {
        match stage {
            Stage::Filter(condition) => condition.simplify(types),
            Stage::Sort(keys) => keys.iter_mut().for_each(|key| key.expr.simplify(types)),
            Stage::Limit { .. } => {}
            Stage::Project(exprs) => {
                exprs.iter_mut().for_each(|expr| expr.simplify(types));
                computed = true;
            }
            // An aggregate's result depends on the type of its argument.
            Stage::Aggregate { group, .. } => {
                group.iter_mut().for_each(|expr| expr.simplify(types));
                computed = true;
            }
        }
        if computed {
            types = types.without_columns();
        }
    }
    computed
}

impl Types<'_> {
    fn without_columns(self) -> Self {
        Self { columns: &[], ..self }
    }
}

impl Access {
    fn simplify(&mut self, types: Types<'_>) {
        let simplify = |expr: &mut Expr| expr.simplify(types);
        match self {
            Self::Point(values) | Self::Prefix(values) => values.iter_mut().for_each(simplify),
            Self::Range(range) => range.simplify(types),
            Self::Scan => {}
            Self::Index(index) => index.range.simplify(types),
        }
    }
}

impl KeyRange {
    fn simplify(&mut self, types: Types<'_>) {
        self.prefix.iter_mut().for_each(|value| value.simplify(types));
        for bound in self.from.iter_mut().chain(&mut self.to) {
            bound.value.simplify(types);
        }
    }
}

impl Code {
    /// Its expressions; see the module.
    pub fn simplify(&mut self) {
        let types = Types {
            columns: &[],
            parameters: &self.slots,
        };
        let simplify = |expr: &mut Expr| expr.simplify(types);
        for op in &mut self.ops {
            match op {
                Op::Assign { slot, value } | Op::AssignNotNull { slot, value, .. } => {
                    value.simplify(types);
                    if let Some(data_type) = types.parameters.get(*slot) {
                        fold(value, *data_type);
                    }
                }
                Op::JumpUnless { condition, .. } => condition.simplify(types),
                Op::ReturnRow(values) => values.iter_mut().for_each(simplify),
                Op::Raise(raise) => {
                    let pieces = raise.message.iter_mut().filter_map(|piece| match piece {
                        Piece::Value(value) => Some(value),
                        Piece::Text(_) => None,
                    });
                    pieces
                        .chain(&mut raise.detail)
                        .chain(&mut raise.hint)
                        .for_each(simplify);
                }
                Op::NextValue { .. } | Op::Jump(_) | Op::Execute { .. } | Op::NextRow { .. } | Op::Return => {}
            }
        }
    }
}

/// A constant as a variable of this type takes it; one that it doesn't take fails when it is executed.
fn fold(value: &mut Expr, data_type: DataType) {
    if let Expr::Literal(constant) = value
        && let Ok(converted) = as_type(constant, data_type)
    {
        *constant = converted;
    }
}

#[cfg(test)]
mod tests;
