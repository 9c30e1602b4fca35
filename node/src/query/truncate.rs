//! TRUNCATE: a write of every partition of its tables, whose effect is that all rows go. As a two-phase commit it happens
//! everywhere or nowhere, and at one moment: a write comes before it and is gone, or after it and stays.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::sql::sqlparser::ast::{Truncate, TruncateIdentityOption};
use volt_engine::catalog::Table;
use volt_engine::idempotency::Keyed;
use volt_engine::plan::Action;
use volt_engine::value::ValueRef;
use volt_engine::{GroupId, PartitionId, TableId};

use super::SqlEngine;
use super::compile::program;
use super::ddl::table_name;
use crate::error::SqlError;
use crate::statement::RowSink;

/// The tables that a TRUNCATE names, and whether their sequences are to start again. No other's key hangs on a table, so
/// that the clauses about those change nothing.
pub(super) fn names(truncate: &Truncate) -> Result<(Vec<String>, bool), SqlError> {
    if truncate.if_exists || truncate.partitions.is_some() || truncate.on_cluster.is_some() {
        return Err(SqlError::new(
            "42601",
            "TRUNCATE takes names of tables, RESTART or CONTINUE IDENTITY, CASCADE or RESTRICT",
        ));
    }
    let names = truncate.table_names.iter().map(|target| table_name(&target.name));
    let restarts = matches!(truncate.identity, Some(TruncateIdentityOption::Restart));
    Ok((names.collect::<Result<_, _>>()?, restarts))
}

impl SqlEngine {
    /// Removes all rows of these tables.
    pub(super) async fn truncate(
        &self,
        (names, restarts): (&[String], bool),
        sql: &str,
        key: Option<Keyed>,
    ) -> Result<(), SqlError> {
        let (tables, _) = self.tables_named(names, false, sql).await.map_err(as_relation)?;
        let map = self.metadata.map();
        let owns = |owner: Option<(TableId, usize)>| owner.is_some_and(|(table, _)| tables.contains(&table));
        if restarts && map.sequences.values().any(|sequence| owns(sequence.owner)) {
            return Err(SqlError::unsupported(
                "TRUNCATE ... RESTART IDENTITY of a table with IDENTITY or SERIAL columns",
            )
            .hint("TRUNCATE it, then ALTER SEQUENCE ... RESTART."));
        }
        let mut groups: BTreeMap<GroupId, Vec<&Arc<Table>>> = BTreeMap::new();
        for id in tables {
            // Another node may have dropped it a moment ago.
            let table = map.tables.get(&id);
            let table = table.ok_or_else(|| SqlError::new("42P01", "a relation was dropped meanwhile"))?;
            groups.entry(table.group).or_default().push(table);
        }
        let mut parts: Vec<(PartitionId, _)> = Vec::new();
        for (group, tables) in groups {
            let Some((first, others)) = tables.split_first() else {
                continue;
            };
            let others = others.iter().map(|table| table.id).collect();
            let program = Arc::new(program(first, Action::Truncate { others }));
            let partitions = map.groups.get(&group).into_iter().flat_map(|group| &group.partitions);
            parts.extend(partitions.map(|&partition| (partition, Arc::clone(&program))));
        }
        self.coordinator
            .run_multi(parts, &[], key, &mut Nowhere)
            .await
            .map(drop)
    }
}

/// Takes the rows of what returns none.
struct Nowhere;

#[async_trait]
impl RowSink for Nowhere {
    fn row(&mut self, _: &[ValueRef<'_>]) {}
}

/// As DROP TABLE says it: "table"; here it is "relation".
fn as_relation(mut error: SqlError) -> SqlError {
    if error.sqlstate == "42P01"
        && let Some(rest) = error.message.strip_prefix("table ")
    {
        error.message = format!("relation {rest}");
    }
    error
}
