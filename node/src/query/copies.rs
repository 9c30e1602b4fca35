//! ALTER TABLE ... SET (replication = n, mode = ...): how many backups a table has, and when its writes are acknowledged. Writes go on meanwhile.
//! And SET (change_tracking = off): the versions of a table's rows, which replication links need, are kept no more.

use std::time::Duration;

use datafusion::sql::sqlparser::ast::{AlterTable, AlterTableOperation, Expr, SqlOption, Value};
use tokio::time::{Instant, timeout_at};
use volt_engine::TableId;

use super::SqlEngine;
use super::ddl::{name_of, table_name};
use super::execute::Notices;
use super::syntax::{MAX_REPLICATION, mode_of, position_of};
use crate::error::SqlError;
use crate::metadata::command::Command;
use crate::metadata::map::{ClusterMap, ReplicationMode};

/// Longest wait for a table's move; the move goes on.
const MOVE_WAIT: Duration = Duration::from_secs(3_600);
/// Longest wait until all partitions have the mode that was asked for.
const MODE_WAIT: Duration = Duration::from_secs(10);

/// What is to become of a table's copies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CopiesPlan {
    table: String,
    if_exists: bool,
    /// Backups; None: as many as before.
    replication: Option<u32>,
    mode: Option<ReplicationMode>,
    stops_tracking: bool,
}

impl CopiesPlan {
    /// None: the statement is about something else.
    pub(super) fn of(alter: &AlterTable) -> Result<Option<Self>, SqlError> {
        let [AlterTableOperation::SetOptionsParens { options }] = alter.operations.as_slice() else {
            return Ok(None);
        };
        let mut plan = Self {
            table: table_name(&alter.name)?,
            if_exists: alter.if_exists,
            replication: None,
            mode: None,
            stops_tracking: false,
        };
        for option in options {
            let SqlOption::KeyValue { key, value } = option else {
                return Err(SqlError::new("42601", format!("option \"{option}\" has no value")));
            };
            plan.take(&name_of(key), &text_of(value))?;
        }
        Ok(Some(plan))
    }

    fn take(&mut self, name: &str, value: &str) -> Result<(), SqlError> {
        let invalid = |hint: String| {
            let message = format!("invalid value for option \"{name}\": \"{value}\"");
            SqlError::new("22023", message).hint(hint)
        };
        match name {
            "replication" => {
                let backups = value.parse().ok().filter(|backups| *backups <= MAX_REPLICATION);
                let backups =
                    backups.ok_or_else(|| invalid(format!("It is a number of backups, 0 to {MAX_REPLICATION}.")));
                self.replication = Some(backups?);
            }
            "mode" => {
                let mode = mode_of(value).ok_or_else(|| invalid("Modes are sync, semi_sync and async.".to_owned()));
                self.mode = Some(mode?);
            }
            "change_tracking" => match value.to_lowercase().as_str() {
                "off" | "false" | "no" | "0" => self.stops_tracking = true,
                _ => {
                    return Err(invalid(
                        "It can be set off; a replication link has its tables tracked.".to_owned(),
                    ));
                }
            },
            _ => {
                let message = format!("unrecognized parameter \"{name}\"");
                return Err(SqlError::new("22023", message)
                    .hint("What can be set of a table is replication, mode and change_tracking."));
            }
        }
        Ok(())
    }
}

fn text_of(value: &Expr) -> String {
    match value {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => text.clone(),
            other => other.to_string(),
        },
        Expr::Identifier(word) => name_of(word),
        other => other.to_string(),
    }
}

/// A table that asks for more copies than there are nodes.
pub(super) fn degraded(map: &ClusterMap, table: &str, replication: u32) -> Notices {
    let alive = map.nodes.values().filter(|node| node.state.is_alive()).count();
    if (replication as usize) < alive {
        return Notices::new();
    }
    let message = format!(
        "table \"{table}\" is degraded: REPLICATION = {replication} needs {} nodes, {alive} are alive; \
         the missing copies are made when nodes are added",
        replication + 1
    );
    vec![("NOTICE", "00000", message)]
}

impl SqlEngine {
    pub(super) async fn set_copies(&self, plan: &CopiesPlan, sql: &str) -> Result<Notices, SqlError> {
        // Another node may have made it a moment ago.
        self.metadata.refresh().await?;
        let map = self.metadata.map();
        let Some(table) = map.table(&plan.table) else {
            return absent(plan, sql, &map);
        };
        if plan.stops_tracking {
            let table = table.id;
            let command = Command::TrackTable { table, rule: None };
            self.metadata.propose(command).await?;
        }
        if plan.replication.is_some() || plan.mode.is_some() {
            let command = Command::SetReplication {
                table: table.id,
                replication: plan.replication,
                mode: plan.mode,
            };
            self.metadata.propose(command).await?;
        }
        let mut notices = Notices::new();
        if !self.has_moved(table.id).await {
            let message = format!(
                "table \"{}\" is still on its way to other partitions, which goes on; see system.moves",
                plan.table
            );
            notices.push(("NOTICE", "00000", message));
            return Ok(notices);
        }
        if let Some(replication) = plan.replication {
            notices.extend(degraded(&self.metadata.map(), &plan.table, replication));
        }
        if let Some(mode) = plan.mode
            && !self.has_mode(table.id, mode).await
        {
            let message = format!(
                "not all partitions of table \"{}\" are {} yet: each becomes it when its backups have what was acknowledged; see system.partitions",
                plan.table,
                mode.name()
            );
            notices.push(("NOTICE", "00000", message));
        }
        Ok(notices)
    }

    /// Waits until a table that shared its partitions lies in others; false: it is on its way.
    async fn has_moved(&self, table: TableId) -> bool {
        self.comes_true(MOVE_WAIT, |map| !map.moves.contains_key(&table)).await
    }

    /// Waits until all partitions of a table have this mode; false: some don't.
    async fn has_mode(&self, table: TableId, mode: ReplicationMode) -> bool {
        let has_all = |map: &ClusterMap| {
            let group = map.tables.get(&table).map(|table| table.group);
            let mut partitions = map
                .partitions
                .values()
                .filter(|partition| Some(partition.group) == group);
            partitions.all(|partition| partition.mode == mode)
        };
        self.comes_true(MODE_WAIT, has_all).await
    }

    /// Waits until the map is so; false: it is not, for so long.
    async fn comes_true(&self, wait: Duration, is_so: impl Fn(&ClusterMap) -> bool) -> bool {
        let (mut watch, limit) = (self.metadata.watch(), Instant::now() + wait);
        loop {
            if is_so(&watch.borrow_and_update()) {
                return true;
            }
            match timeout_at(limit, watch.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return false,
            }
        }
    }
}

fn absent(plan: &CopiesPlan, sql: &str, map: &ClusterMap) -> Result<Notices, SqlError> {
    let name = &plan.table;
    if map.views.contains_key(name) {
        return Err(super::views::not_a_table(map, name));
    }
    let message = format!("relation \"{name}\" does not exist");
    if plan.if_exists {
        return Ok(vec![("NOTICE", "00000", message + ", skipping")]);
    }
    let error = SqlError::new("42P01", message);
    Err(match position_of(sql, name) {
        Some(position) => error.at(position),
        None => error,
    })
}
