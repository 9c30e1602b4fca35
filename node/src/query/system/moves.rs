//! Tables on their way to other partitions.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt;
use volt_engine::value::{DataType, Value};
use volt_engine::{PartitionId, TableId};

use super::links::{Named, table};
use super::{INT, TEXT, text};
use crate::metadata::map::ClusterMap;
use crate::metadata::moves::TableMove;
use crate::txn::Coordinator;

/// `message` says why a table is not moved on now: that of its first partition which is refused where it goes.
const MOVES: &[(&str, DataType)] = &[
    ("table", TEXT),
    ("phase", TEXT),
    ("to_replication", INT),
    ("to_mode", TEXT),
    ("partitions", INT),
    ("partitions_done", INT),
    ("message", TEXT),
];

/// A row for each move.
pub(in crate::query) fn moves(coordinator: &Arc<Coordinator>) -> Named {
    let coordinator = Arc::clone(coordinator);
    let rows = move || {
        let coordinator = Arc::clone(&coordinator);
        async move {
            coordinator.catch_up_with_leader().await;
            rows(&coordinator.cluster_map(), &coordinator.stuck_moves_of_all().await)
        }
        .boxed()
    };
    table("moves", MOVES, Arc::new(rows))
}

fn rows(map: &ClusterMap, stuck: &BTreeMap<(TableId, PartitionId), String>) -> Vec<Vec<Value>> {
    let row = |(table, one): (&TableId, &TableMove)| {
        let mut refused = stuck.range((*table, PartitionId::MIN)..=(*table, PartitionId::MAX));
        let message = refused
            .next()
            .map(|((_, partition), why)| format!("partition {partition}: {why}"));
        let (table, group) = (map.tables.get(table)?, map.groups.get(&one.to)?);
        Some(vec![
            text(&table.name),
            text(one.phase.name()),
            Value::Int(group.replication.cast_signed()),
            text(group.mode.name()),
            Value::Int(group.partitions.len() as i32),
            Value::Int(one.done.len() as i32),
            message.map_or(Value::Null, text),
        ])
    };
    map.moves.iter().filter_map(row).collect()
}
