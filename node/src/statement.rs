//! The seam between the gateway and everything below it: prepared statements, rows, completions.

pub(crate) mod json;
mod reading;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use volt_engine::idempotency::IdempotencyKey;
use volt_engine::value::{DataType, Value, ValueRef};
use volt_engine::{Lsn, PartitionId, SequenceId};

use crate::error::SqlError;

pub use reading::{
    DEFAULT_MAX_STALENESS_MS, LONGEST_STALENESS_MS, ReadChange, ReadFrom, ReadSetting, ReadSettings, Reads,
};

/// What is said, as PostgreSQL does, when a prepared statement's result has other columns than its client was told.
pub(crate) const CHANGED_RESULT: &str = "cached plan must not change result type";

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

    /// Tells the client something while the statement goes on, if it can be told now. An error as with `flow`.
    async fn notice(&mut self, message: String) -> Result<(), SqlError> {
        drop(message);
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
    /// What it does to the session's transaction; None: it is for the database.
    fn control(&self) -> Option<&Control> {
        None
    }
    /// True when it changes rows.
    fn writes(&self) -> bool {
        false
    }
    /// The key in its hint.
    fn idempotency_key(&self) -> Option<&IdempotencyKey> {
        None
    }
    /// For the query layer to find its own type again.
    fn as_any(&self) -> &dyn std::any::Any;
}

/// What a transaction's reads promise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// SERIALIZABLE, strictly; also what READ COMMITTED and READ UNCOMMITTED get.
    #[default]
    Serializable,
    /// REPEATABLE READ: snapshot isolation.
    Snapshot,
}

impl Isolation {
    /// As `SHOW transaction_isolation` says it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Serializable => "serializable",
            Self::Snapshot => "repeatable read",
        }
    }
}

/// How a transaction runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransactionModes {
    /// Its isolation.
    pub isolation: Isolation,
    /// It writes nothing, and never fails with 40001 for what it reads.
    pub read_only: bool,
}

/// The modes that a statement names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ModeChange {
    /// ISOLATION LEVEL.
    pub isolation: Option<Isolation>,
    /// READ ONLY, or READ WRITE.
    pub read_only: Option<bool>,
}

impl ModeChange {
    /// These modes, with what is named changed.
    pub fn of(self, modes: TransactionModes) -> TransactionModes {
        TransactionModes {
            isolation: self.isolation.unwrap_or(modes.isolation),
            read_only: self.read_only.unwrap_or(modes.read_only),
        }
    }
}

/// A statement about the session's transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// BEGIN, START TRANSACTION.
    Begin {
        /// The modes that it names.
        change: ModeChange,
        /// Its command tag.
        tag: &'static str,
    },
    /// COMMIT, END; `true`: AND CHAIN.
    Commit(bool),
    /// ROLLBACK, ABORT; `true`: AND CHAIN.
    Rollback(bool),
    /// SAVEPOINT.
    Savepoint(String),
    /// RELEASE SAVEPOINT.
    Release(String),
    /// ROLLBACK TO SAVEPOINT.
    RollbackTo(String),
    /// SET TRANSACTION, `SET transaction_isolation`, `SET transaction_read_only`.
    SetTransaction(ModeChange),
    /// SET SESSION CHARACTERISTICS AS TRANSACTION, `SET default_transaction_isolation` and so on.
    SetDefault(ModeChange),
    /// `SET volt.idempotency_key`; None: RESET.
    SetKey(Option<IdempotencyKey>),
    /// `SET volt.read_from` and its kindred; `true`: RESET.
    SetReading(ReadChange, bool),
    /// SHOW of one of them.
    ShowReading(ReadSetting),
    /// RESET ALL.
    ResetAll,
    /// SHOW of a mode, or of the key: the setting's name.
    Show(&'static str),
}

/// What the database knows of a session: the values that it has taken of sequences, which `currval` and `lastval` say (a procedure's
/// own don't count), and where it reads.
#[derive(Debug, Default)]
pub struct SessionValues {
    last: Mutex<LastValues>,
    /// Where it reads.
    pub reads: Reads,
}

#[derive(Debug, Default)]
struct LastValues {
    of: BTreeMap<SequenceId, i64>,
    last: Option<SequenceId>,
}

/// Sequences whose last values a session remembers; beyond, those with the lowest numbers are forgotten.
const MAX_SEQUENCES_REMEMBERED: usize = 10_000;

impl SessionValues {
    /// Of a session that begins with these settings.
    pub fn reading(defaults: ReadSettings) -> Self {
        Self {
            last: Mutex::default(),
            reads: Reads::new(defaults),
        }
    }

    /// This value was taken.
    pub fn note(&self, sequence: SequenceId, value: i64) {
        let mut values = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        values.of.insert(sequence, value);
        values.last = Some(sequence);
        if values.of.len() > MAX_SEQUENCES_REMEMBERED {
            values.of.pop_first();
        }
    }

    /// The last value of this sequence.
    pub fn current(&self, sequence: SequenceId) -> Option<i64> {
        let values = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        values.of.get(&sequence).copied()
    }

    /// The last value of any.
    pub fn last(&self) -> Option<i64> {
        let values = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        values.of.get(&values.last?).copied()
    }
}

/// How a statement, or the end of a transaction, is to be carried out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// What it does happens once, however often it is repeated with this key. Only what writes heeds it.
    pub idempotency_key: Option<IdempotencyKey>,
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

    /// Runs a statement without options here and now, without waiting for anything, if it can: one partition, whose primary
    /// is this node, not held. None: use `execute`; then nothing was done, and rows given to `sink` don't count.
    fn try_execute(
        &self,
        prepared: &dyn Prepared,
        parameters: &[Value],
        session: &SessionValues,
        sink: &mut dyn RowSink,
    ) -> Option<Result<Completion, SqlError>>;

    /// Runs any statement. Rows given to `sink` before an error don't count.
    async fn execute(
        &self,
        prepared: Arc<dyn Prepared>,
        parameters: Vec<Value>,
        options: Options,
        session: Arc<SessionValues>,
        sink: &mut dyn RowSink,
    ) -> Result<Completion, SqlError>;

    /// Opens a transaction of several statements.
    fn begin(self: Arc<Self>, modes: TransactionModes, session: Arc<SessionValues>) -> Box<dyn Transaction>;

    /// Returns when all of these are committed, or with the first that can't be, by its place, and why.
    async fn wait_committed(&self, waits: &[CommitWait]) -> Result<(), (usize, SqlError)>;

    /// Why no session may begin now: a client that knows other nodes had better go there. None: one may.
    fn refuses_sessions(&self) -> Option<SqlError> {
        None
    }
}

/// A transaction of several statements: `BEGIN ... COMMIT`. Dropping it rolls it back. After an error of `execute` only
/// `rewind` to a savepoint of before makes it what it was.
#[async_trait]
pub trait Transaction: Send + Sync {
    /// Runs a statement. Rows given to `sink` before an error don't count.
    async fn execute(
        &mut self,
        prepared: Arc<dyn Prepared>,
        parameters: Vec<Value>,
        sink: &mut dyn RowSink,
    ) -> Result<Completion, SqlError>;

    /// A place to come back to.
    fn savepoint(&self) -> usize;

    /// Takes back what was written after a savepoint.
    fn rewind(&mut self, savepoint: usize) -> Result<(), SqlError>;

    /// Commits, or fails and has done nothing (40001: worth another try; 40003: nobody could say). What to wait for
    /// before anyone hears of it is returned.
    async fn commit(self: Box<Self>, options: Options) -> Result<Option<CommitWait>, SqlError>;
}
