//! What a table is. The catalog itself, the set of tables, is the metadata group's state.

use serde::{Deserialize, Serialize};

use crate::value::{DataType, Value};
use crate::{GroupId, TableId};

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
}
