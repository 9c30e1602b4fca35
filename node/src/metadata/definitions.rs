//! What statements define: tables, indexes, views, as they come to the metadata group, which numbers them.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use volt_engine::TableId;
use volt_engine::catalog::{CheckConstraint, Column, IndexColumn, SequenceDefault, ViewShape};
use volt_engine::plan::Expr;
use volt_engine::value::DataType;

use super::map::ViewWeight;
use super::sequence::Sequence;

/// A table to be made, before it has a number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NewTable {
    /// Its name.
    pub name: String,
    /// Its columns.
    pub columns: Vec<Column>,
    /// Places in `columns` of the primary key.
    pub primary_key: Vec<usize>,
    /// Place in `columns` of the partition key; None: a replicated table.
    pub partition_column: Option<usize>,
    /// Its UNIQUE constraints.
    pub indexes: Vec<NewIndex>,
    /// Its CHECK constraints, by name.
    pub checks: Vec<CheckConstraint>,
    /// The sequences of its IDENTITY and SERIAL columns.
    pub sequences: Vec<OwnedSequence>,
    /// Which rows expire; None: none does.
    pub ttl: Option<Box<NewTtl>>,
}

/// A sequence that is made with a table, and goes with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OwnedSequence {
    /// The place of its column.
    pub column: usize,
    /// How the column comes to it.
    pub kind: SequenceDefault,
    /// Itself.
    pub sequence: Sequence,
}

/// An index to be made, before it has a number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NewIndex {
    /// Its name.
    pub name: String,
    /// What its rows are ordered by.
    pub columns: Vec<IndexColumn>,
    /// It has only the rows for which this is true.
    pub predicate: Option<Expr>,
    /// No two rows have the same values.
    pub unique: bool,
    /// It belongs to a UNIQUE constraint.
    pub constraint: bool,
    /// The statement that makes it.
    pub source: String,
}

/// What is to expire of a table's rows, before its index has a number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NewTtl {
    /// How long a row lives, in microseconds: a second or more, `MAX_TTL_MICROS` at most.
    pub lifetime_micros: i64,
    /// Rows that one transaction removes, 1 to `MAX_TTL_BATCH_SIZE`.
    pub batch_size: u32,
    /// Such transactions of each partition a second, 1 to `MAX_TTL_FREQUENCY`.
    pub max_frequency: u32,
    /// An index of the column that says how old a row is; not used if the table's TTL has one already.
    pub index: NewIndex,
}

/// A view to be made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NewView {
    /// Its name.
    pub name: String,
    /// Its query, as it was written.
    pub query: String,
    /// Its columns' names and types.
    pub columns: Vec<(String, DataType)>,
    /// The tables that its query reads.
    pub tables: BTreeSet<TableId>,
    /// The views that it reads.
    pub views: BTreeSet<String>,
    /// What its query calls its columns.
    pub fields: Vec<String>,
    /// How much a statement takes on that reads it.
    pub weight: ViewWeight,
    /// Of a materialized one.
    pub materialized: Option<NewMaterialized>,
}

/// What a materialized view has besides, before its table has a number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NewMaterialized {
    /// What its rows are made of. The indexes that it names are places in `indexes`.
    pub shape: ViewShape,
    /// The columns of its rows.
    pub columns: Vec<Column>,
    /// The place in `columns` of the source's partition key; None: rows of one group are in many partitions.
    pub partition_column: Option<usize>,
    /// The indexes of the source that it needs.
    pub indexes: Vec<NewIndex>,
}
