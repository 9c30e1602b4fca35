//! A PostgreSQL, or whatever takes its SQL, as a link's other end: rows become what they are here, whatever they were there. Each piece
//! is one transaction, with how far it goes.
//!
//! Rows travel as JSON, whose texts the table's own types read: one statement for all rows of a table.

use std::collections::BTreeMap;

use async_trait::async_trait;
use tokio::sync::Mutex;
use tokio_postgres::{Client, Statement};
use volt_engine::catalog::Table;
use volt_engine::changes::Change;
use volt_engine::key::decode_key;
use volt_engine::row::RowRef;
use volt_engine::value::{Value, ValueRef};
use volt_engine::{PartitionId, TableId};

use super::progress::{Progress, not_told};
use super::target::{Mark, NotTold, Piece, Target};
use crate::metadata::map::ClusterMap;
use crate::peers::remote::Carrier;
use crate::statement::json;

/// One connection to it.
pub(super) struct Postgres {
    client: Client,
    progress: Progress,
    /// Statements of its tables, by their text; bounded by the link's tables and the changes of these.
    prepared: Mutex<BTreeMap<String, Statement>>,
    _carrier: Carrier,
}

/// The newest changes of a table's rows, by key.
type Newest<'a> = BTreeMap<&'a [u8], &'a Change>;

impl Postgres {
    pub(super) fn new(client: Client, carrier: Carrier, progress: Progress) -> Self {
        Self {
            client,
            progress,
            prepared: Mutex::default(),
            _carrier: carrier,
        }
    }

    async fn run(&self, sql: String, rows: &[String]) -> Result<(), NotTold> {
        if rows.is_empty() {
            return Ok(());
        }
        let mut prepared = self.prepared.lock().await;
        let statement = match prepared.get(&sql) {
            Some(statement) => statement.clone(),
            None => {
                let statement = self.client.prepare(&sql).await.map_err(not_told)?;
                prepared.insert(sql, statement.clone());
                statement
            }
        };
        drop(prepared);
        let rows = format!("[{}]", rows.join(","));
        self.client.execute(&statement, &[&rows]).await.map_err(not_told)?;
        Ok(())
    }

    /// Removals come first: what they leave free others may take.
    async fn tell_rows(&self, map: &ClusterMap, changes: &[Change]) -> Result<(), NotTold> {
        let mut tables: BTreeMap<TableId, Newest<'_>> = BTreeMap::new();
        for change in changes {
            tables.entry(change.table).or_default().insert(&change.key, change);
        }
        let tables: Vec<(&Table, Newest<'_>)> = tables
            .into_iter()
            .map(|(table, newest)| Ok((table_of(map, table)?, newest)))
            .collect::<Result<_, NotTold>>()?;
        for (table, newest) in &tables {
            let gone = newest.values().filter(|change| change.row.is_none());
            let gone = gone.map(|change| key_object(table, &change.key));
            self.run(removal(table), &gone.collect::<Result<Vec<_>, _>>()?).await?;
        }
        for (table, newest) in &tables {
            let missing = table.missing();
            let rows = newest.values().filter_map(|change| change.row.as_ref());
            let rows: Vec<String> = rows.map(|row| row_object(table, row, &missing)).collect();
            self.run(upsert(table), &rows).await?;
        }
        Ok(())
    }

    async fn tell_all(&self, map: &ClusterMap, piece: &Piece<'_>) -> Result<(), NotTold> {
        // First, for it waits for whoever told the partition before.
        self.progress.note(&self.client, piece.partition, piece.told).await?;
        self.tell_rows(map, piece.changes).await
    }
}

pub(super) fn table_of(map: &ClusterMap, table: TableId) -> Result<&Table, NotTold> {
    let table = map.tables.get(&table);
    table
        .map(AsRef::as_ref)
        .ok_or_else(|| NotTold::Catalog("a table of the link was dropped".to_owned()))
}

/// The columns that there are, with their places.
pub(super) fn columns(table: &Table) -> impl Iterator<Item = (usize, &str)> {
    let columns = table
        .columns
        .iter()
        .enumerate()
        .filter(|(_, column)| !column.is_dropped);
    columns.map(|(place, column)| (place, column.name.as_str()))
}

/// A row as JSON, for people.
pub(crate) fn row_as_json(table: &Table, row: &[u8]) -> String {
    row_object(table, row, &table.missing())
}

/// A key as JSON, for people; None: it can't be read.
pub(crate) fn key_as_json(table: &Table, key: &[u8]) -> Option<String> {
    key_object(table, key).ok()
}

fn row_object(table: &Table, row: &[u8], missing: &[Value]) -> String {
    let row = RowRef::new(row).with_missing(missing);
    json::object(columns(table).map(|(place, name)| (name, row.get(place))))
}

fn key_object(table: &Table, key: &[u8]) -> Result<String, NotTold> {
    let values = decode_key(key).map_err(|error| NotTold::Catalog(format!("a key can't be read: {error}")))?;
    let names = table
        .primary_key
        .iter()
        .map(|&place| table.columns[place].name.as_str());
    let values: Vec<ValueRef<'_>> = values.iter().map(Value::as_ref).collect();
    Ok(json::object(names.zip(values)))
}

pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

pub(super) fn list(names: impl Iterator<Item = String>, separator: &str) -> String {
    names.collect::<Vec<_>>().join(separator)
}

fn removal(table: &Table) -> String {
    let name = quoted(&table.name);
    let key = table
        .primary_key
        .iter()
        .map(|&place| quoted(&table.columns[place].name));
    let same = list(key.map(|column| format!("there.{column} = gone.{column}")), " AND ");
    format!(
        "DELETE FROM {name} AS there USING json_populate_recordset(NULL::{name}, $1::text::json) AS gone WHERE {same}"
    )
}

fn upsert(table: &Table) -> String {
    let name = quoted(&table.name);
    let key = list(
        table
            .primary_key
            .iter()
            .map(|&place| quoted(&table.columns[place].name)),
        ", ",
    );
    let all = list(columns(table).map(|(_, name)| quoted(name)), ", ");
    let others = columns(table).filter(|(place, _)| !table.primary_key.contains(place));
    let set = list(
        others.map(|(_, name)| format!("{0} = excluded.{0}", quoted(name))),
        ", ",
    );
    let then = match set.is_empty() {
        true => "DO NOTHING".to_owned(),
        false => format!("DO UPDATE SET {set}"),
    };
    format!(
        "INSERT INTO {name} ({all}) OVERRIDING SYSTEM VALUE SELECT {all} FROM json_populate_recordset(NULL::{name}, $1::text::json) \
         ON CONFLICT ({key}) {then}"
    )
}

#[async_trait]
impl Target for Postgres {
    async fn take_over(&self, partition: PartitionId) -> Result<Option<Mark>, NotTold> {
        self.progress.take_over(&self.client, partition).await
    }

    async fn tell(&self, map: &ClusterMap, piece: Piece<'_>) -> Result<u64, NotTold> {
        self.client.batch_execute("BEGIN").await.map_err(not_told)?;
        let end = match self.tell_all(map, &piece).await {
            Ok(()) => self.client.batch_execute("COMMIT").await.map_err(not_told),
            Err(error) => {
                // The connection may be gone, and with it the transaction.
                let _ = self.client.batch_execute("ROLLBACK").await;
                Err(error)
            }
        };
        end.map(|()| 0)
    }

    fn origin(&self) -> Option<u64> {
        None
    }
}

#[cfg(test)]
pub(super) mod tests;
