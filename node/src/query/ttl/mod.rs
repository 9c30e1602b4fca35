//! TTL in SQL: the clause of CREATE TABLE, ALTER TABLE ... USING TTL and DROP TTL, and `system.ttl`.
//!
//! Who changes a TTL is answered when every living node knows it: from then on no row goes that would have gone before.

mod clause;

use std::sync::Arc;

use volt_engine::NodeId;
use volt_engine::catalog::{Column, IndexColumn, Table, Ttl};
use volt_engine::value::{DataType, Value};

use super::SqlEngine;
use super::ddl::MAX_NAME_BYTES;
use super::execute::Notices;
use super::index::{free_name, written_name};
use super::syntax::position_of;
use super::tables::{SystemTable, at_once, system_schema};
use crate::error::SqlError;
use crate::metadata::Metadata;
use crate::metadata::command::{Applied, Command, NewIndex, NewTtl};
use crate::metadata::map::ClusterMap;
use crate::txn::Expiry;
pub(super) use clause::TtlClause;

/// What is added to a table's name for its index's.
const SUFFIX: &str = "_ttl_idx";
/// Bytes that are left for a number behind it.
const NUMBER_BYTES: usize = 6;

/// ALTER TABLE ... USING TTL, or DROP TTL.
pub(super) struct TtlPlan {
    table: String,
    if_exists: bool,
    /// None: it is dropped.
    ttl: Option<TtlClause>,
}

impl TtlClause {
    /// Of a table that is being made, with these indexes.
    pub(super) fn of_new_table(
        &self,
        (table, columns): (&str, &[Column]),
        indexes: &[NewIndex],
        sql: &str,
        map: &ClusterMap,
    ) -> Result<NewTtl, SqlError> {
        let is_taken =
            |name: &str| name == table || indexes.iter().any(|index| index.name == name) || map.has_relation(name);
        self.of(table, columns, sql, is_taken)
    }

    fn of(
        &self,
        table: &str,
        columns: &[Column],
        sql: &str,
        is_taken: impl Fn(&str) -> bool,
    ) -> Result<NewTtl, SqlError> {
        let place = self.place(columns, sql)?;
        let name = index_name(table, is_taken);
        let [index, on, column] = [&name, table, &self.column].map(written_name);
        Ok(NewTtl {
            lifetime_micros: self.lifetime_micros,
            batch_size: self.batch_size,
            max_frequency: self.max_frequency,
            index: NewIndex {
                source: format!("CREATE INDEX {index} ON {on} ({column})"),
                name,
                columns: vec![IndexColumn {
                    place,
                    descending: false,
                }],
                predicate: None,
                unique: false,
                constraint: false,
            },
        })
    }

    /// The place of the column.
    fn place(&self, columns: &[Column], sql: &str) -> Result<usize, SqlError> {
        let name = &self.column;
        let place = columns.iter().position(|column| column.name == *name);
        let Some(place) = place else {
            let message = format!("column \"{name}\" named in USING TTL does not exist");
            return Err(located(SqlError::new("42703", message), sql, name));
        };
        let data_type = columns[place].data_type;
        if Ttl::takes(data_type) {
            return Ok(place);
        }
        let message = format!("column \"{name}\" of USING TTL is of type {}", data_type.name());
        let error =
            SqlError::new("42804", message).hint("It must be a TIMESTAMP, or an INT or BIGINT of seconds since 1970.");
        Err(located(error, sql, name))
    }
}

/// `table_ttl_idx`, with a number if that is taken; of a long name, its beginning.
fn index_name(table: &str, is_taken: impl Fn(&str) -> bool) -> String {
    let room = MAX_NAME_BYTES - SUFFIX.len() - NUMBER_BYTES;
    let begin = &table[..table.floor_char_boundary(room)];
    free_name(&format!("{begin}{SUFFIX}"), is_taken)
}

fn located(error: SqlError, sql: &str, name: &str) -> SqlError {
    match position_of(sql, name) {
        Some(position) => error.at(position),
        None => error,
    }
}

impl SqlEngine {
    pub(super) async fn alter_ttl(&self, plan: &TtlPlan, sql: &str) -> Result<Notices, SqlError> {
        // Another node may have made it, or changed it, a moment ago.
        self.metadata.refresh().await?;
        let map = self.metadata.map();
        let Some(table) = map.table(&plan.table) else {
            return absent(plan, sql, &map);
        };
        if plan.ttl.is_some() && table.is_replicated() {
            return Err(of_replicated(&table.name));
        }
        let of_table = |clause: &TtlClause| {
            let is_taken = |name: &str| map.has_relation(name);
            clause.of(&table.name, &table.columns, sql, is_taken).map(Box::new)
        };
        let command = Command::SetTtl {
            table: table.id,
            ttl: plan.ttl.as_ref().map(of_table).transpose()?,
        };
        let applied = self.metadata.propose(command).await?;
        self.coordinator
            .wait_until_all_know(self.metadata.map().version)
            .await?;
        if let Applied::IndexCreated(index) = applied {
            self.await_new_index((table.id, index)).await?;
        }
        Ok(Notices::new())
    }
}

/// Each partition would decide for itself what has expired, and copies would differ.
pub(super) fn of_replicated(table: &str) -> SqlError {
    SqlError::unsupported(format!("USING TTL of the replicated table \"{table}\""))
        .hint("Its rows lie in every partition: DELETE them, or partition the table.")
}

fn absent(plan: &TtlPlan, sql: &str, map: &ClusterMap) -> Result<Notices, SqlError> {
    let name = &plan.table;
    if map.views.contains_key(name) {
        return Err(super::views::not_a_table(map, name));
    }
    let message = format!("relation \"{name}\" does not exist");
    match plan.if_exists {
        true => Ok(vec![("NOTICE", "00000", message + ", skipping")]),
        false => Err(located(SqlError::new("42P01", message), sql, name)),
    }
}

const TTL: &[(&str, DataType)] = &[
    ("table_name", DataType::Text),
    ("column_name", DataType::Text),
    ("ttl_seconds", DataType::BigInt),
    ("batch_size", DataType::Int),
    ("max_frequency", DataType::Int),
    ("index_name", DataType::Text),
    ("node_id", DataType::Int),
    ("expired_rows", DataType::BigInt),
    ("last_run", DataType::Timestamp),
];

/// `system.ttl`: the tables with a TTL. What has expired is what this node's primaries removed, since its start.
pub(super) fn system_table(metadata: &Arc<Metadata>, expiry: &Arc<Expiry>) -> (&'static str, Arc<SystemTable>) {
    let (metadata, expiry) = (Arc::clone(metadata), Arc::clone(expiry));
    let rows = move || {
        let (map, node) = (metadata.map(), metadata.node_id());
        let of = |table: &Arc<Table>| row(table, node, &expiry);
        map.tables.values().filter_map(of).collect()
    };
    let table = SystemTable {
        schema: system_schema(TTL),
        rows: at_once(rows),
    };
    ("ttl", Arc::new(table))
}

fn row(table: &Table, node: NodeId, expiry: &Expiry) -> Option<Vec<Value>> {
    let ttl = table.ttl.as_ref()?;
    let number = |number| i32::try_from(number).map_or(Value::Null, Value::Int);
    let index = table.indexes.iter().find(|index| index.shape.id == ttl.index);
    let figures = expiry.of(table.id);
    Some(vec![
        Value::Text(table.name.clone()),
        table
            .columns
            .get(ttl.column)
            .map_or(Value::Null, |column| Value::Text(column.name.clone())),
        Value::BigInt(ttl.lifetime_micros / 1_000_000),
        number(ttl.batch_size),
        number(ttl.max_frequency),
        index.map_or(Value::Null, |index| Value::Text(index.name.clone())),
        number(node),
        i64::try_from(figures.rows).map_or(Value::Null, Value::BigInt),
        figures.last_run_micros.map_or(Value::Null, Value::Timestamp),
    ])
}
