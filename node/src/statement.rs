//! The seam between the gateway and everything below it: prepared statements, rows, completions.

use std::sync::Arc;

use async_trait::async_trait;
use volt_engine::value::{DataType, Value, ValueRef};
use volt_engine::{Lsn, PartitionId};

use crate::error::SqlError;

/// Takes the rows of a result, one at a time, in order.
#[async_trait]
pub trait RowSink: Send {
    /// One row; its values have the types that `Prepared::columns` says, or are NULL.
    fn row(&mut self, values: &[ValueRef<'_>]);

    /// Lets the rows so far go to the client, and waits while it is slow. To be awaited between batches of a large
    /// result, and only when none of the rows so far needs a `CommitWait`. An error means that nobody takes the rest:
    /// give it back as it is.
    async fn flow(&mut self) -> Result<(), SqlError> {
        Ok(())
    }
}

/// A column of a result.
#[derive(Clone, Debug, PartialEq)]
pub struct ResultColumn {
    /// Its name.
    pub name: String,
    /// Its type.
    pub data_type: DataType,
}

/// A statement that has been parsed and planned; its plan is the query layer's own.
pub trait Prepared: Send + Sync + std::any::Any {
    /// The parameters' types.
    fn parameters(&self) -> &[DataType];
    /// The result's columns; empty for a statement without one.
    fn columns(&self) -> &[ResultColumn];
    /// True when it returns rows (SELECT, SHOW, RECOVER ...), also when they have no columns.
    fn returns_rows(&self) -> bool;
    /// For the query layer to find its own type again.
    fn as_any(&self) -> &dyn std::any::Any;
}

/// Not to be acknowledged to a client, nor its rows shown, until this LSN of this partition is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitWait {
    /// The partition, whose primary is this node.
    pub partition: PartitionId,
    /// The epoch in which it happened.
    pub epoch: volt_engine::Epoch,
    /// The LSN.
    pub lsn: Lsn,
    /// True: a write, whose outcome is unknown if the wait fails; false: a read, which may simply be refused.
    pub wrote: bool,
}

/// A statement's end.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Completion {
    /// The command tag's words without a count: `SELECT`, `INSERT 0`, `UPDATE`, `CREATE TABLE`.
    pub tag: &'static str,
    /// The count behind it; None: the tag has none.
    pub rows: Option<u64>,
    /// (severity, SQLSTATE, message) of each NOTICE or WARNING.
    pub notices: Vec<(&'static str, &'static str, String)>,
    /// What to wait for before anyone hears of it; the gateway waits once for a whole batch.
    pub wait: Option<CommitWait>,
}

/// What the gateway needs of the database. One implementation: the query layer (`query::SqlEngine`).
#[async_trait]
pub trait Database: Send + Sync {
    /// Splits a simple-protocol text into statements (text, offset in characters of its start), at top-level semicolons.
    fn split(&self, sql: &str) -> Result<Vec<(String, u32)>, SqlError>;

    /// Parses and plans, or finds the plan in the cache. `types` may be shorter than the parameters, and hold None for "infer it".
    async fn prepare(&self, sql: &str, types: &[Option<DataType>]) -> Result<Arc<dyn Prepared>, SqlError>;

    /// Runs a statement here and now, without waiting for anything, if it can: one partition, whose primary is this
    /// node, not held. None: use `execute`; then nothing was done and nothing was given to `sink`.
    fn try_execute(
        &self,
        prepared: &dyn Prepared,
        parameters: &[Value],
        sink: &mut dyn RowSink,
    ) -> Option<Result<Completion, SqlError>>;

    /// Runs any statement. Rows given to `sink` before an error don't count.
    async fn execute(
        &self,
        prepared: Arc<dyn Prepared>,
        parameters: Vec<Value>,
        sink: &mut dyn RowSink,
    ) -> Result<Completion, SqlError>;

    /// Returns when all of these are committed, or with the first that can't be, by its place, and why.
    async fn wait_committed(&self, waits: &[CommitWait]) -> Result<(), (usize, SqlError)>;
}
