//! Row programs: statements of transactional shape, compiled from a planner's output, run inside one partition.

pub(crate) mod aggregate;
pub(crate) mod cast;
pub mod eval;
pub mod expr;
mod like;
pub mod operators;
mod simplify;
mod stage;
pub(crate) mod validate;

use serde::{Deserialize, Serialize};

use crate::TableId;
use crate::catalog::{Column, IndexShape};
use crate::value::Value;
pub use expr::{BinaryOp, Expr, Function, UnaryOp};
pub use simplify::Types;
pub use stage::{Aggregate, AggregateFunction, SortKey, Stage};

/// A statement over one table, for one partition. Shipped between nodes with serde (postcard).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Program {
    /// The table.
    pub table: TableId,
    /// Its name, for errors.
    pub table_name: String,
    /// Its columns: what written rows must satisfy.
    pub columns: Vec<Column>,
    /// By column, what rows have in those that they lack (`Table::missing`).
    pub missing: Vec<Value>,
    /// Places of the primary key in `columns`, in key order.
    pub primary_key: Vec<usize>,
    /// What else written rows must satisfy; a program that only reads needs none.
    pub checks: Vec<Check>,
    /// What it does.
    pub action: Action,
    /// Of an INSERT: what becomes of a row whose primary key another has; None: an error.
    pub on_conflict: Option<OnConflict>,
    /// RETURNING: what it gives of each row that it writes, as the row is then, or that it removes; None: nothing.
    pub returning: Option<Vec<Expr>>,
    /// It does to a replicated table what it does in another partition too, which counts the rows: it counts none.
    pub repeats: bool,
}

/// ON CONFLICT of a row that is to be put and the row that has its primary key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum OnConflict {
    /// DO NOTHING: what is there stays.
    Nothing,
    /// DO UPDATE, of what is there. Expressions look at both rows: at the columns of the one that is there, and behind the
    /// table's columns at those of the one that is to be put (`EXCLUDED`).
    Update {
        /// The columns that change, none of them of the primary key, each with its value.
        set: Vec<(usize, Expr)>,
        /// What is there stays unless this is true.
        filter: Option<Expr>,
    },
}

/// A condition on each row of a table, over the table's columns: it may be true or NULL.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// Its constraint's name.
    pub name: String,
    /// The condition; without parameters.
    pub condition: Expr,
}

/// How the rows that a statement reads are found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Access {
    /// The row whose primary key has these values (no columns inside; a NULL finds nothing).
    Point(Vec<Expr>),
    /// The rows whose primary key begins with these values.
    Prefix(Vec<Expr>),
    /// Every row.
    Scan,
    /// The rows whose primary key begins with these values and goes on with one between two bounds.
    Range(KeyRange),
    /// The rows of a secondary index whose values lie so. Where a partition can't read by it, because it has not built it
    /// yet or the index was dropped meanwhile, it looks at all rows instead.
    Index(Box<IndexRange>),
}

/// A range of a secondary index.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IndexRange {
    /// The index.
    pub shape: IndexShape,
    /// Which of its rows: `from` and `to` are of values, whichever way the index sorts them.
    pub range: KeyRange,
}

/// A range of a key. A bound that no value of its column can be, such as 1.5 of an INT, is as if it weren't there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeyRange {
    /// What the first columns are (no columns inside; a NULL finds nothing).
    pub prefix: Vec<Expr>,
    /// The least value of the next one.
    pub from: Option<KeyBound>,
    /// The greatest.
    pub to: Option<KeyBound>,
    /// From the last row to the first.
    pub backward: bool,
}

/// An end of a range.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeyBound {
    /// The value (no columns inside; a NULL finds nothing).
    pub value: Expr,
    /// It belongs to the range.
    pub inclusive: bool,
}

/// What a program does. Column references in `filter`, `project` and `set` mean the table's columns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Action {
    /// Returns rows, in the order in which they are found, if no stage changes it.
    Select {
        /// Where to look.
        access: Access,
        /// Keeps rows for which it is true.
        filter: Option<Expr>,
        /// What is made of the rows that were found.
        stages: Vec<Stage>,
        /// The columns of the result, from the rows of the last stage, or from the table's.
        project: Vec<Expr>,
        /// At most so many rows, after `offset` of them.
        limit: Option<u64>,
        /// Rows left out first.
        offset: u64,
    },
    /// Puts new rows; a key that exists is an error, and nothing is written.
    Insert {
        /// Each row has one expression a column of the table (no columns inside).
        rows: Vec<Vec<Expr>>,
    },
    /// Changes rows. The primary key may change, but only within the partition (the planner sees to it).
    Update {
        /// Where to look.
        access: Access,
        /// Keeps rows for which it is true.
        filter: Option<Expr>,
        /// (column, its new value), evaluated on the old row.
        set: Vec<(usize, Expr)>,
    },
    /// Removes all rows of the table, and of others in the same partition, without looking at them.
    Truncate {
        /// The others.
        others: Vec<TableId>,
    },
    /// Removes rows.
    Delete {
        /// Where to look.
        access: Access,
        /// Keeps rows for which it is true.
        filter: Option<Expr>,
    },
}

impl Program {
    /// True when it changes nothing.
    pub fn is_read_only(&self) -> bool {
        matches!(self.action, Action::Select { .. })
    }
}

/// What a statement may know of the world, given from outside so that all is repeatable.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatementContext {
    /// `now()`: microseconds since 1970.
    pub now_micros: i64,
}
