//! CREATE TABLE and DROP TABLE, carried out; and the tables that a statement names.

use std::collections::BTreeSet;

use volt_engine::TableId;

use super::SqlEngine;
use super::copies::degraded;
use super::execute::Notices;
use super::planned::Planned;
use crate::error::SqlError;
use crate::metadata::ProposeError;
use crate::metadata::command::{Applied, Command, NewTable, Refusal};
use crate::metadata::map::ReplicationMode;
use crate::statement::Completion;

/// A DROP TABLE whose table somebody else drops meanwhile looks its names up again so often.
const DROP_TRIES: u32 = 5;

impl SqlEngine {
    /// What was done, and returns when nobody that is told so finds a node that plans with what was there before.
    pub(super) async fn known_to_all(
        &self,
        planned: &Planned,
        done: Result<Completion, SqlError>,
    ) -> Result<Completion, SqlError> {
        if done.is_ok() && planned.redefines() {
            let version = self.metadata.map().version;
            self.coordinator.wait_until_all_know(version).await?;
        }
        done
    }

    pub(super) async fn create_table(
        &self,
        table: NewTable,
        (replication, mode): (u32, ReplicationMode),
        if_not_exists: bool,
    ) -> Result<Notices, SqlError> {
        let name = table.name.clone();
        let command = Command::CreateTable {
            table,
            replication,
            mode,
        };
        match self.metadata.propose(command).await {
            Ok(Applied::TableCreated(_)) => {}
            Ok(other) => return Err(SqlError::internal(format!("unexpected answer {other:?}"))),
            Err(ProposeError::Refused(Refusal::TableExists(_))) if if_not_exists => {
                return Ok(vec![(
                    "NOTICE",
                    "42P07",
                    format!("relation \"{name}\" already exists, skipping"),
                )]);
            }
            Err(error) => return Err(error.into()),
        }
        Ok(degraded(&self.metadata.map(), &name, replication))
    }

    pub(super) async fn drop_tables(&self, names: &[String], if_exists: bool, sql: &str) -> Result<Notices, SqlError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let (tables, notices) = self.tables_named(names, if_exists, sql).await?;
            if tables.is_empty() {
                return Ok(notices);
            }
            match self.metadata.propose(Command::DropTables { tables }).await {
                // Another node has dropped one a moment ago, which this one knows by now.
                Err(ProposeError::Refused(Refusal::NoSuchTable(_))) if tries < DROP_TRIES => {}
                Err(error) => return Err(error.into()),
                Ok(_) => return Ok(notices),
            }
        }
    }

    /// The tables of these names, and a notice for each that there is not, if that is allowed.
    pub(super) async fn tables_named(
        &self,
        names: &[String],
        if_exists: bool,
        sql: &str,
    ) -> Result<(BTreeSet<TableId>, Notices), SqlError> {
        let mut map = self.metadata.map();
        if names.iter().any(|name| map.table(name).is_none()) {
            // Another node may have made it a moment ago.
            self.metadata.refresh().await?;
            map = self.metadata.map();
        }
        let mut notices = Vec::new();
        let mut tables = BTreeSet::new();
        for name in names {
            match map.table(name) {
                Some(table) => {
                    tables.insert(table.id);
                }
                None if map.views.contains_key(name) => return Err(super::views::not_a_table(&map, name)),
                None if if_exists => {
                    notices.push(("NOTICE", "00000", format!("table \"{name}\" does not exist, skipping")));
                }
                None => {
                    let error = SqlError::new("42P01", format!("table \"{name}\" does not exist"));
                    return Err(match super::syntax::position_of(sql, name) {
                        Some(position) => error.at(position),
                        None => error,
                    });
                }
            }
        }
        Ok((tables, notices))
    }
}
