//! Scalar expressions of row programs, with PostgreSQL's semantics (three-valued logic, overflow is an error).

use serde::{Deserialize, Serialize};

use crate::value::{DataType, Value};

/// A scalar expression. The planner has already inserted the casts: both sides of an operator have one type.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Expr {
    /// A column of the row at hand.
    Column(usize),
    /// A parameter, counted from 0.
    Parameter(usize),
    /// A constant.
    Literal(Value),
    /// `left op right`.
    Binary {
        /// The operator.
        op: BinaryOp,
        /// Its left side.
        left: Box<Expr>,
        /// Its right side.
        right: Box<Expr>,
    },
    /// `op operand`.
    Unary {
        /// The operator.
        op: UnaryOp,
        /// Its operand.
        operand: Box<Expr>,
    },
    /// CAST.
    Cast {
        /// What is cast.
        operand: Box<Expr>,
        /// To what.
        to: DataType,
    },
    /// `operand [NOT] IN (list)`.
    InList {
        /// What is looked for.
        operand: Box<Expr>,
        /// Where.
        list: Vec<Expr>,
        /// NOT IN.
        negated: bool,
    },
    /// `operand [NOT] LIKE pattern`.
    Like {
        /// What is matched.
        operand: Box<Expr>,
        /// With `%` and `_`.
        pattern: Box<Expr>,
        /// NOT LIKE.
        negated: bool,
        /// ILIKE.
        case_insensitive: bool,
    },
    /// CASE: each arm is (condition, value); the first true one wins.
    Case {
        /// (condition, value).
        arms: Vec<(Expr, Expr)>,
        /// ELSE; None is NULL.
        otherwise: Option<Box<Expr>>,
    },
    /// A function call.
    Call {
        /// The function.
        function: Function,
        /// Its arguments.
        arguments: Vec<Expr>,
    },
    /// The version of the row at hand: the LSN that wrote it and this (`Table::version_base`); NULL of a row that its own transaction wrote.
    Version(i64),
}

/// Operators with two sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // their names are their documentation
pub enum BinaryOp {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    IsDistinctFrom,
    IsNotDistinctFrom,
    And,
    Or,
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    Concatenate,
}

/// Operators with one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // their names are their documentation
pub enum UnaryOp {
    Not,
    Negate,
    IsNull,
    IsNotNull,
    IsTrue,
    IsFalse,
    IsNotTrue,
    IsNotFalse,
}

/// Functions that run inside a partition; all others make a statement run in DataFusion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // their names are their documentation
pub enum Function {
    Coalesce,
    NullIf,
    Lower,
    Upper,
    Length,
    Abs,
    Now,
    SplitPart,
    Left,
}
