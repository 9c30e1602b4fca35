//! `system.recoveries`: the fills of every node, each told by the node whose replica is filled, and the wishes of `RECOVER NODE`.

use volt_engine::NodeId;
use volt_engine::value::{DataType, Value};

use super::{BIGINT, INT, TEXT, bigint, int, text};
use crate::metadata::map::ClusterMap;
use crate::replication::fill::progress::{FillState, Progress};

pub(super) const RECOVERIES: &[(&str, DataType)] = &[
    ("node_id", INT),
    ("partition_id", INT),
    ("strategy", TEXT),
    ("source", TEXT),
    ("source_node", INT),
    ("state", TEXT),
    ("percent", INT),
    ("rows", BIGINT),
    ("total_rows", BIGINT),
    ("received_bytes", BIGINT),
    ("reused_bytes", BIGINT),
    ("began_at", DataType::Timestamp),
    ("seconds", DataType::Double),
    ("seconds_left", DataType::Double),
    ("reason", TEXT),
];

/// Nodes whose process is to be started; `partition_id` is NULL of these.
pub(super) fn wishes(map: &ClusterMap) -> Vec<Vec<Value>> {
    let row = |&node: &NodeId| {
        let order = map.recovery_orders.get(&node).copied().unwrap_or_default();
        let mut row = vec![Value::Null; RECOVERIES.len()];
        row[0] = int(node);
        row[2] = order.strategy.map_or(Value::Null, |strategy| text(strategy.name()));
        row[3] = order.source.map_or(Value::Null, |source| text(source.name()));
        row[5] = text("asked for");
        row
    };
    map.recovering.iter().map(row).collect()
}

pub(super) fn fill(node_id: NodeId, fill: &Progress) -> Vec<Value> {
    let (state, reason) = match &fill.state {
        FillState::Copying => ("copying", Value::Null),
        FillState::Done => ("done", Value::Null),
        FillState::Failed(why) => ("failed", text(why)),
    };
    let seconds = |micros: i64| Value::Double(micros as f64 / 1e6);
    vec![
        int(node_id),
        int(fill.partition),
        text(fill.strategy.name()),
        text(fill.medium.name()),
        int(fill.source),
        text(state),
        int(fill.percent()),
        bigint(fill.rows),
        bigint(fill.total_rows),
        bigint(fill.received_bytes),
        bigint(fill.reused_bytes),
        Value::Timestamp(fill.began_micros),
        seconds(fill.micros),
        fill.micros_left().map_or(Value::Null, seconds),
        reason,
    ]
}
