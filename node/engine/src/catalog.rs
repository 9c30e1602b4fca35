//! What a table is. The catalog itself, the set of tables, is the metadata group's state.

use serde::{Deserialize, Serialize};

use crate::plan::{Check, Expr};
use crate::value::{DataType, Value};
use crate::{GroupId, IndexId, TableId};

mod view;

pub use view::{MAX_SUMMED_PRECISION, ViewAggregate, ViewShape};

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Column {
    /// Its name, as stored (unquoted names are lower case).
    pub name: String,
    /// Its type.
    pub data_type: DataType,
    /// False: NOT NULL (primary-key columns always).
    pub nullable: bool,
    /// The DEFAULT, if any.
    pub default: Option<ColumnDefault>,
}

/// A column's DEFAULT.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ColumnDefault {
    /// A constant.
    Value(Value),
    /// `now()` or CURRENT_TIMESTAMP: the statement's time.
    Now,
}

/// A table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// Its number.
    pub id: TableId,
    /// Its name, in the one schema `public`.
    pub name: String,
    /// Its columns, in order.
    pub columns: Vec<Column>,
    /// Places in `columns` of the primary key, in key order. Never empty.
    pub primary_key: Vec<usize>,
    /// Place in `columns` of the partition key; one of `primary_key`.
    pub partition_column: usize,
    /// The replication group that holds its rows.
    pub group: GroupId,
    /// Its secondary indexes, by number.
    pub indexes: Vec<Index>,
    /// Its CHECK constraints, by name.
    pub checks: Vec<CheckConstraint>,
    /// Its rows are a materialized view's: partitions make them of another table's rows, nobody writes them.
    pub view: Option<Box<ViewShape>>,
}

impl Table {
    /// The index with this name.
    pub fn index(&self, name: &str) -> Option<&Index> {
        self.indexes.iter().find(|index| index.name == name)
    }
}

/// A CHECK constraint of a table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckConstraint {
    /// What is checked.
    pub check: Check,
    /// The condition as it was written.
    pub text: String,
}

/// A secondary index of a table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Index {
    /// Its name; tables and indexes have no name in common.
    pub name: String,
    /// What its entries are.
    pub shape: IndexShape,
    /// No two rows have the same values in it, but for NULLs. Its columns have the partition column among them.
    pub unique: bool,
    /// It belongs to a UNIQUE constraint of CREATE TABLE.
    pub constraint: bool,
    /// The materialized view that it serves, and goes with.
    pub view: Option<TableId>,
    /// How far it has come.
    pub state: IndexState,
    /// The statement that makes it.
    pub source: String,
}

/// How far an index has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IndexState {
    /// Partitions build it; nobody relies on it.
    Building,
    /// Of a unique one: new rows are held to it, the old ones are being looked through.
    Checking,
    /// It is what it says.
    Ready,
}

impl Index {
    /// No row may be written whose values another has.
    pub fn is_enforced(&self) -> bool {
        self.unique && self.state != IndexState::Building
    }
}

/// What an index's entries are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IndexShape {
    /// The index's number, never reused.
    pub id: IndexId,
    /// What its rows are ordered by.
    pub columns: Vec<IndexColumn>,
    /// It has only the rows for which this is true. It looks at nothing but the row.
    pub predicate: Option<Expr>,
}

/// A column of an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexColumn {
    /// Its place in the table's columns.
    pub place: usize,
    /// DESC.
    pub descending: bool,
}
