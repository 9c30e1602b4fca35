//! What the rows of a materialized view are: each partition keeps those of its own rows of the source.

use serde::{Deserialize, Serialize};

use crate::plan::Expr;
use crate::value::{DataType, Value};
use crate::{IndexId, TableId};

/// A row for each group of the source's rows: its group's values, which are its key; how many rows the group has
/// (BIGINT); then what each aggregate takes (`ViewAggregate::column_types`). A group without rows has no row.
///
/// Expressions look at nothing but a row of the source, and never fail.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ViewShape {
    /// The table whose rows are aggregated.
    pub source: TableId,
    /// Only rows for which it is true count.
    pub filter: Option<Expr>,
    /// What rows of one group have in common; never empty.
    pub groups: Vec<Expr>,
    /// What is told of each group.
    pub aggregates: Vec<ViewAggregate>,
    /// The source's `Table::missing` when it was made.
    pub missing: Vec<Value>,
}

/// What is kept of a group's rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ViewAggregate {
    /// How many have a value here.
    Count(Expr),
    /// The exact sum of integers, or of NUMERICs at a scale, and how many there are; NULLs don't count.
    Sum {
        /// What is added.
        argument: Expr,
        /// Digits behind the point.
        scale: u8,
    },
    /// The least or the greatest value of a column that is not NULL.
    Extreme {
        /// Its place in the source's columns.
        column: usize,
        /// Its type.
        data_type: DataType,
        /// MAX.
        greatest: bool,
        /// The source's index by the columns among the groups, in their order, and then this one, with the view's filter.
        index: IndexId,
    },
}

impl ViewAggregate {
    /// The types of the columns that it has in the view's rows.
    pub fn column_types(&self) -> Vec<DataType> {
        match self {
            Self::Count(_) => vec![DataType::BigInt],
            Self::Sum { scale, .. } => {
                let sum = DataType::Numeric {
                    precision: SUM_PRECISION,
                    scale: *scale,
                };
                vec![sum, DataType::BigInt]
            }
            Self::Extreme { data_type, .. } => vec![*data_type],
        }
    }
}

/// Digits of a sum.
const SUM_PRECISION: u8 = 28;

/// Digits, at most, of NUMERICs that are added up: ten thousand million of them have room in a sum.
pub const MAX_SUMMED_PRECISION: u8 = 18;
