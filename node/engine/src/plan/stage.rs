//! What a select makes of the rows that it found before it gives them: a chain of stages, each fed by the one before.

use serde::{Deserialize, Serialize};

use super::Expr;
use crate::value::DataType;

/// One step. Its expressions look at the rows of the stage before; those of the first, at the table's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Stage {
    /// Keeps rows for which it is true.
    Filter(Expr),
    /// Rows of these values.
    Project(Vec<Expr>),
    /// Leaves rows out, then ends the rows. No columns inside; NULL is as if it weren't there, a negative number an error.
    Limit {
        /// OFFSET.
        skip: Option<Expr>,
        /// LIMIT.
        fetch: Option<Expr>,
    },
    /// The same rows in this order; rows of equal rank stay in theirs.
    Sort(Vec<SortKey>),
    /// A row for each group: its values, then what the aggregates come to. Groups come in their values' order. Without
    /// group values there is one group, also of no rows.
    Aggregate {
        /// What rows of one group have in common.
        group: Vec<Expr>,
        /// What is told of each group.
        aggregates: Vec<Aggregate>,
    },
}

/// One of ORDER BY's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SortKey {
    /// What is compared.
    pub expr: Expr,
    /// DESC.
    pub descending: bool,
    /// NULLS FIRST.
    pub nulls_first: bool,
}

/// A call of an aggregate function.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Aggregate {
    /// The function.
    pub function: AggregateFunction,
    /// Its argument; rows where it is NULL don't count. None: COUNT(*).
    pub argument: Option<Expr>,
    /// DISTINCT: equal values count once.
    pub distinct: bool,
    /// FILTER: only rows for which it is true count.
    pub filter: Option<Expr>,
    /// The result's type, as the planner says.
    pub data_type: DataType,
}

/// Functions of many rows that run inside a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // their names are their documentation
pub enum AggregateFunction {
    Count,
    Sum,
    Min,
    Max,
    Avg,
}
