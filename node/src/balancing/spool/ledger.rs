//! The table `volt_spool`: a row for each batch of a file that is loaded, put by the transaction that put the batch's rows. So a batch happens
//! once, whoever tries it, and what was rejected of it is known to whoever finishes the file.
//!
//! An ordinary table, so that its rows are replicated, logged and filled as those that they speak of; made when the first file is loaded. Its
//! rows expire: `KEPT` bounds how late a file may be finished.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use volt_engine::NodeId;
use volt_engine::value::{Value, ValueRef};

use super::Spool;
use super::item::ItemId;
use crate::error::SqlError;
use crate::statement::{Completion, Options, RowSink, SessionValues, Transaction};

/// Its name.
pub(super) const TABLE: &str = "volt_spool";
/// Seconds after its first claim in which a file's batches may be loaded; what comes later fails. Two days less than what CREATE says,
/// for the clocks that differ.
pub(super) const KEPT: i64 = 5 * 24 * 60 * 60;
const CREATE: &str = "CREATE TABLE IF NOT EXISTS volt_spool (item TEXT, batch BIGINT, node_id INT, loaded BIGINT, rejects TEXT, \
     loaded_at BIGINT, PRIMARY KEY (item, batch)) USING TTL 7 DAYS ON COLUMN loaded_at WITH REPLICATION = 2";
const FIND: &str = "SELECT batch, node_id, loaded, rejects, loaded_at FROM volt_spool WHERE item = $1";
const PUT: &str =
    "INSERT INTO volt_spool (item, batch, node_id, loaded, rejects, loaded_at) VALUES ($1, $2, $3, $4, $5, $6)";
/// Bytes of a reject's message that are kept: it may have a whole value in it.
const MAX_MESSAGE_BYTES: usize = 500;

/// A row of the file that is not in the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Reject {
    pub(super) line: u64,
    pub(super) offset: u64,
    pub(super) length: u64,
    pub(super) sqlstate: String,
    pub(super) message: String,
}

impl Reject {
    pub(super) fn of(row: &super::rows::Row, error: &SqlError) -> Self {
        let whole = match &error.detail {
            Some(detail) => format!("{} ({detail})", error.message),
            None => error.message.clone(),
        };
        Self {
            line: row.line,
            offset: row.offset,
            length: row.length,
            sqlstate: error.sqlstate.clone(),
            message: whole[..whole.floor_char_boundary(MAX_MESSAGE_BYTES)].to_owned(),
        }
    }
}

/// What a batch came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    /// Who loaded it.
    pub(super) node: NodeId,
    /// Rows of it in the table.
    pub(super) loaded: u64,
    /// The others.
    pub(super) rejects: Vec<Reject>,
    /// When, in seconds since 1970.
    pub(super) at: i64,
}

/// The batches of a file that are loaded, by number.
pub(super) type Entries = BTreeMap<u64, Entry>;

/// Loaded, and rejected.
pub(super) fn sums(entries: &Entries) -> (u64, u64) {
    let loaded = entries.values().map(|entry| entry.loaded).sum();
    let rejected = entries.values().map(|entry| entry.rejects.len() as u64).sum();
    (loaded, rejected)
}

impl Spool {
    /// What was loaded of a file; makes the table if it is not there.
    pub(super) async fn entries(&self, id: ItemId) -> Result<Entries, SqlError> {
        let map = self.metadata.map();
        if !map.tables.values().any(|table| table.name == TABLE) {
            self.run(CREATE, Vec::new(), &mut Ignored).await?;
        }
        let mut found = Found::default();
        self.run(FIND, vec![Value::Text(id.to_string())], &mut found).await?;
        found.0
    }

    /// Notes a batch in the transaction that loads it: 23505 if it was loaded before.
    pub(super) async fn note(
        &self,
        transaction: &mut dyn Transaction,
        (id, batch): (ItemId, u64),
        entry: &Entry,
    ) -> Result<(), SqlError> {
        let bigint = |number: u64| i64::try_from(number).map_or(Value::Null, Value::BigInt);
        let rejects = serde_json::to_string(&entry.rejects).map_err(SqlError::internal)?;
        let values = vec![
            Value::Text(id.to_string()),
            bigint(batch),
            i32::try_from(entry.node).map_or(Value::Null, Value::Int),
            bigint(entry.loaded),
            Value::Text(rejects),
            Value::BigInt(entry.at),
        ];
        let put = self.database.prepare(PUT, &[]).await?;
        transaction.execute(put, values, &mut Ignored).await.map(drop)
    }

    /// Runs a statement by itself.
    async fn run(&self, sql: &str, values: Vec<Value>, sink: &mut dyn RowSink) -> Result<Completion, SqlError> {
        let prepared = self.database.prepare(sql, &[]).await?;
        let session = Arc::<SessionValues>::default();
        let done = self
            .database
            .execute(prepared, values, Options::default(), session, sink)
            .await?;
        self.wait(done.wait).await?;
        Ok(done)
    }

    /// Until what was done, or read, is committed.
    pub(super) async fn wait(&self, wait: Option<crate::statement::CommitWait>) -> Result<(), SqlError> {
        match wait {
            None => Ok(()),
            Some(wait) => self.database.wait_committed(&[wait]).await.map_err(|(_, error)| error),
        }
    }
}

/// Takes rows that nobody wants.
pub(super) struct Ignored;

#[async_trait]
impl RowSink for Ignored {
    fn row(&mut self, _: &[ValueRef<'_>]) {}
}

struct Found(Result<Entries, SqlError>);

impl Default for Found {
    fn default() -> Self {
        Self(Ok(Entries::new()))
    }
}

#[async_trait]
impl RowSink for Found {
    fn row(&mut self, values: &[ValueRef<'_>]) {
        let Ok(entries) = &mut self.0 else { return };
        match entry(values) {
            Some((batch, entry)) => drop(entries.insert(batch, entry)),
            None => {
                self.0 = Err(SqlError::new(
                    "XX001",
                    format!("a row of {TABLE} is none that a node wrote"),
                ))
            }
        }
    }
}

fn entry(values: &[ValueRef<'_>]) -> Option<(u64, Entry)> {
    let [
        ValueRef::BigInt(batch),
        ValueRef::Int(node),
        ValueRef::BigInt(loaded),
        ValueRef::Text(rejects),
        ValueRef::BigInt(at),
    ] = *values
    else {
        return None;
    };
    let entry = Entry {
        node: NodeId::try_from(node).ok()?,
        loaded: u64::try_from(loaded).ok()?,
        rejects: serde_json::from_str(rejects).ok()?,
        at,
    };
    Some((u64::try_from(batch).ok()?, entry))
}
