//! Tables on their way to other partitions.

use volt_engine::TableId;
use volt_engine::value::{DataType, Value};

use super::{INT, TEXT, text};
use crate::metadata::map::ClusterMap;
use crate::metadata::moves::TableMove;

pub(super) const MOVES: &[(&str, DataType)] = &[
    ("table", TEXT),
    ("phase", TEXT),
    ("to_replication", INT),
    ("to_mode", TEXT),
    ("partitions", INT),
    ("partitions_done", INT),
];

pub(super) fn moves(map: &ClusterMap) -> Vec<Vec<Value>> {
    let row = |(table, one): (&TableId, &TableMove)| {
        let (table, group) = (map.tables.get(table)?, map.groups.get(&one.to)?);
        Some(vec![
            text(&table.name),
            text(one.phase.name()),
            Value::Int(group.replication.cast_signed()),
            text(group.mode.name()),
            Value::Int(group.partitions.len() as i32),
            Value::Int(one.done.len() as i32),
        ])
    };
    map.moves.iter().filter_map(row).collect()
}
