//! `system.*`: the cluster map, and what this node sees, as tables.

mod archive;
mod balancing;
mod failures;
mod links;
mod moves;
mod recoveries;
mod spool;
mod standby;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use futures::FutureExt;
use volt_engine::NodeId;
use volt_engine::catalog::{CheckConstraint, Index, IndexState, Table};
use volt_engine::procedure::{Parameter, Procedure};
use volt_engine::value::{DataType, Value};

use super::procedure::{Counts, Statistics};
use super::tables::{SystemTable, at_once, of_map, system_schema};
use crate::metadata::Metadata;
use crate::metadata::hazard::Hazard;
use crate::metadata::map::{ClusterMap, NodeState, PartitionInfo, View};
use crate::metadata::sequence::Sequence;
use crate::replication::Replicas;
use crate::txn::{MemoryFigures, MemoryGuard};

pub(super) use links::{conflicts, links};
pub(super) use moves::moves;
pub(super) use spool::spool;

type Rows = fn(&ClusterMap) -> Vec<Vec<Value>>;

const INT: DataType = DataType::Int;
const BIGINT: DataType = DataType::BigInt;
const TEXT: DataType = DataType::Text;
const BOOLEAN: DataType = DataType::Boolean;

/// Name, columns and rows of a system table.
type Definition = (&'static str, &'static [(&'static str, DataType)], Rows);

const TABLES: &[Definition] = &[
    (
        "partitions",
        &[
            ("partition_id", INT),
            ("group_id", INT),
            ("index", INT),
            ("epoch", BIGINT),
            ("primary", INT),
            ("in_sync", TEXT),
            ("learners", TEXT),
            ("mode", TEXT),
            ("replication", INT),
            ("copies", INT),
            ("copies_wanted", INT),
            ("degraded", BOOLEAN),
        ],
        partitions,
    ),
    (
        "tables",
        &[
            ("table_id", INT),
            ("name", TEXT),
            ("replication", INT),
            ("mode", TEXT),
            ("partition_column", TEXT),
            ("partitions", INT),
            ("copies", INT),
            ("copies_wanted", INT),
            ("degraded", BOOLEAN),
        ],
        tables,
    ),
    (
        "indexes",
        &[
            ("index_id", INT),
            ("name", TEXT),
            ("table", TEXT),
            ("is_unique", BOOLEAN),
            ("state", TEXT),
            ("definition", TEXT),
        ],
        indexes,
    ),
    (
        "views",
        &[
            ("name", TEXT),
            ("is_materialized", BOOLEAN),
            ("state", TEXT),
            ("columns", TEXT),
            ("source", TEXT),
            ("definition", TEXT),
        ],
        views,
    ),
    (
        "checks",
        &[("table", TEXT), ("name", TEXT), ("condition", TEXT)],
        checks,
    ),
    (
        "sequences",
        &[
            ("sequence_name", TEXT),
            ("data_type", TEXT),
            ("start_value", BIGINT),
            ("min_value", BIGINT),
            ("max_value", BIGINT),
            ("increment", BIGINT),
            ("cache", BIGINT),
            ("table_name", TEXT),
            ("column_name", TEXT),
            ("next_value", BIGINT),
        ],
        sequences,
    ),
    ("cluster", links::CLUSTER, links::cluster),
    ("failovers", failures::FAILOVERS, failures::failovers),
    ("failures", failures::FAILURES, failures::failures),
];

/// The last two are as this node sees it.
const NODES: &[(&str, DataType)] = &[
    ("node_id", INT),
    ("name", TEXT),
    ("address", TEXT),
    ("sql_address", TEXT),
    ("zone", TEXT),
    ("is_alive", BOOLEAN),
    ("state", TEXT),
    ("incarnation", BIGINT),
    ("primaries", INT),
    ("backups", INT),
    ("learners", INT),
    ("endangered", BOOLEAN),
    ("hazard", DataType::Double),
    ("hazard_reasons", TEXT),
];

const PROCEDURES: &[(&str, DataType)] = &[
    ("name", TEXT),
    ("arguments", TEXT),
    ("returns", TEXT),
    ("language", TEXT),
    ("partition_table", TEXT),
    ("partition_parameter", INT),
    ("calls", BIGINT),
    ("aborts", BIGINT),
    ("mean_micros", BIGINT),
    ("longest_micros", BIGINT),
    ("source", TEXT),
];

const MEMORY: &[(&str, DataType)] = &[
    ("node_id", INT),
    ("resident_bytes", BIGINT),
    ("row_bytes", BIGINT),
    ("limit_bytes", BIGINT),
    ("refused_writes", BIGINT),
];

/// The system tables, by name.
pub(super) fn system_tables(
    metadata: &Arc<Metadata>,
    statistics: &Arc<Statistics>,
    memory: &Arc<MemoryGuard>,
    here: &Arc<Replicas>,
) -> Vec<(&'static str, Arc<SystemTable>)> {
    let mut tables = tables_of_the_map(metadata);
    let of_nodes = Arc::clone(metadata);
    let nodes = SystemTable {
        schema: system_schema(NODES),
        rows: of_map(metadata, move |map| nodes(map, &of_nodes.hazards())),
    };
    tables.push(("nodes", Arc::new(nodes)));
    let (node_id, memory) = (metadata.node_id(), Arc::clone(memory));
    let memory = SystemTable {
        schema: system_schema(MEMORY),
        rows: at_once(move || vec![memory_of(node_id, memory.figures())]),
    };
    tables.push(("memory", Arc::new(memory)));
    let (node_id, peers) = (metadata.node_id(), Arc::clone(&here.peers));
    let peers = SystemTable {
        schema: system_schema(balancing::PEERS),
        rows: at_once(move || balancing::peers(node_id, &peers.traffic.figures())),
    };
    tables.push(("peers", Arc::new(peers)));
    tables.push(("recoveries", Arc::new(recoveries_of_all(here))));
    tables.push(("archive", Arc::new(archive::archive(here))));
    tables.push(("standby", Arc::new(standby::standby(here))));
    let here = Arc::clone(here);
    let replicas = SystemTable {
        schema: system_schema(balancing::REPLICAS),
        rows: at_once(move || balancing::replicas(&here)),
    };
    tables.push(("replicas", Arc::new(replicas)));
    let detectors = failures::detectors(metadata.node_id(), metadata.detection());
    let detectors = SystemTable {
        schema: system_schema(failures::DETECTORS),
        rows: at_once(move || detectors.clone()),
    };
    tables.push(("detectors", Arc::new(detectors)));
    let statistics = Arc::clone(statistics);
    let procedures = SystemTable {
        schema: system_schema(PROCEDURES),
        rows: of_map(metadata, move |map| procedures(map, &statistics)),
    };
    tables.push(("procedures", Arc::new(procedures)));
    tables
}

fn tables_of_the_map(metadata: &Arc<Metadata>) -> Vec<(&'static str, Arc<SystemTable>)> {
    let table = |&(name, columns, rows): &Definition| {
        let rows = of_map(metadata, rows);
        (
            name,
            Arc::new(SystemTable {
                schema: system_schema(columns),
                rows,
            }),
        )
    };
    TABLES.iter().map(table).collect()
}

/// `next_value` is the first that no node has.
fn sequences(map: &ClusterMap) -> Vec<Vec<Value>> {
    let row = |sequence: &Arc<Sequence>| {
        let owner = sequence.owner.and_then(|(table, column)| {
            let table = map.tables.get(&table)?;
            Some((text(&table.name), text(&table.columns.get(column)?.name)))
        });
        let (table, column) = owner.unwrap_or((Value::Null, Value::Null));
        vec![
            text(&sequence.name),
            text(sequence.data_type.name()),
            Value::BigInt(sequence.start),
            Value::BigInt(sequence.min),
            Value::BigInt(sequence.max),
            Value::BigInt(sequence.increment),
            Value::BigInt(i64::from(sequence.cache)),
            table,
            column,
            sequence.next.map_or(Value::Null, Value::BigInt),
        ]
    };
    map.sequences.values().map(row).collect()
}

fn int(value: impl TryInto<i32>) -> Value {
    value.try_into().map_or(Value::Null, Value::Int)
}

fn bigint(value: u64) -> Value {
    i64::try_from(value).map_or(Value::Null, Value::BigInt)
}

fn text(value: impl ToString) -> Value {
    Value::Text(value.to_string())
}

fn state(state: NodeState) -> &'static str {
    match state {
        NodeState::Active => "active",
        NodeState::Draining => "draining",
        NodeState::Drained => "drained",
        NodeState::Dead { .. } => "dead",
    }
}

/// Nobody knows how a dead node will be.
fn nodes(map: &ClusterMap, hazards: &BTreeMap<NodeId, Hazard>) -> Vec<Vec<Value>> {
    let row = |node: &crate::metadata::map::NodeInfo| {
        let roles = map.roles(node.node_id);
        let hazard = hazards.get(&node.node_id).filter(|_| node.state.is_alive());
        vec![
            int(node.node_id),
            text(&node.name),
            text(&node.address),
            text(&node.sql_address),
            text(&node.zone),
            Value::Boolean(node.state.is_alive()),
            text(state(node.state)),
            bigint(node.incarnation),
            int(roles.primaries),
            int(roles.backups),
            int(roles.learners),
            Value::Boolean(node.endangered),
            hazard.map_or(Value::Null, |hazard| Value::Double(hazard.score)),
            hazard.map_or(Value::Null, |hazard| text(hazard.reasons.join("; "))),
        ]
    };
    map.nodes.values().map(row).collect()
}

fn list(nodes: &std::collections::BTreeSet<u32>) -> Value {
    text(nodes.iter().map(u32::to_string).collect::<Vec<_>>().join(","))
}

/// How many copies there are, how many there should be, and whether some are missing.
fn copies(there: usize, wanted: usize) -> [Value; 3] {
    [int(there), int(wanted), Value::Boolean(there < wanted)]
}

fn partitions(map: &ClusterMap) -> Vec<Vec<Value>> {
    let row = |partition: &PartitionInfo| {
        let mut row = vec![
            int(partition.partition_id),
            int(partition.group),
            int(partition.index),
            bigint(partition.epoch),
            map.living_primary(partition).map_or(Value::Null, int),
            list(&map.in_sync(partition)),
            list(&partition.learners),
            text(partition.mode.name()),
            map.groups
                .get(&partition.group)
                .map_or(Value::Null, |group| int(group.replication)),
        ];
        row.extend(copies(map.copies(partition), map.copies_wanted(partition)));
        row
    };
    map.partitions.values().map(row).collect()
}

fn tables(map: &ClusterMap) -> Vec<Vec<Value>> {
    let row = |table: &Arc<Table>| {
        let group = map.groups.get(&table.group);
        let mut row = vec![
            int(table.id),
            text(&table.name),
            group.map_or(Value::Null, |group| int(group.replication)),
            group.map_or(Value::Null, |group| text(group.mode.name())),
            table
                .partition_column
                .map_or(Value::Null, |place| text(&table.columns[place].name)),
            group.map_or(Value::Null, |group| int(group.partitions.len())),
        ];
        // A table has as many copies as the partition that has the fewest.
        let partitions = group.iter().flat_map(|group| &group.partitions);
        let partitions = partitions.filter_map(|partition| map.partitions.get(partition));
        let fewest = partitions.map(|partition| map.copies(partition)).min().unwrap_or(0);
        let wanted = group.map_or(1, |group| group.replication as usize + 1);
        row.extend(copies(fewest, wanted));
        row
    };
    let tables = map.tables.values().filter(|table| table.view.is_none());
    tables.map(row).collect()
}

/// A view that is not materialized may have many sources; it has none here.
fn views(map: &ClusterMap) -> Vec<Vec<Value>> {
    let row = |view: &Arc<View>| {
        let materialized = view.materialized.as_ref();
        let shape = materialized.and_then(|view| map.tables.get(&view.table)?.view.as_ref());
        let source = shape.and_then(|shape| map.tables.get(&shape.source));
        let is_ready = materialized.is_none_or(|view| view.is_ready);
        vec![
            text(&view.name),
            Value::Boolean(materialized.is_some()),
            text(if is_ready { "ready" } else { "building" }),
            text(list_of(&view.columns)),
            source.map_or(Value::Null, |source| text(&source.name)),
            text(&view.query),
        ]
    };
    map.views.values().map(row).collect()
}

fn indexes(map: &ClusterMap) -> Vec<Vec<Value>> {
    let row = |table: &Arc<Table>, index: &Index| {
        let state = match index.state {
            IndexState::Building => "building",
            IndexState::Checking => "checking",
            IndexState::Ready => "ready",
        };
        vec![
            int(index.shape.id),
            text(&index.name),
            text(&table.name),
            Value::Boolean(index.unique),
            text(state),
            text(&index.source),
        ]
    };
    let of = |table: &Arc<Table>| table.indexes.iter().map(|index| row(table, index)).collect::<Vec<_>>();
    map.tables.values().flat_map(of).collect()
}

/// The CHECK constraints.
fn checks(map: &ClusterMap) -> Vec<Vec<Value>> {
    let of = |table: &Arc<Table>| {
        let row = |one: &CheckConstraint| vec![text(&table.name), text(&one.check.name), text(&one.text)];
        table.checks.iter().map(row).collect::<Vec<_>>()
    };
    map.tables.values().flat_map(of).collect()
}

/// Asks every node.
fn recoveries_of_all(replicas: &Arc<Replicas>) -> SystemTable {
    let replicas = Arc::clone(replicas);
    let rows = move || {
        let replicas = Arc::clone(&replicas);
        async move {
            let mut rows = recoveries::wishes(&replicas.metadata.map());
            for (node, fills) in replicas.fills_of_all().await {
                rows.extend(fills.iter().map(|fill| recoveries::fill(node, fill)));
            }
            rows
        }
        .boxed()
    };
    SystemTable {
        schema: system_schema(recoveries::RECOVERIES),
        rows: Arc::new(rows),
    }
}

/// This node's alone; a limit of NULL is none.
fn memory_of(node_id: NodeId, memory: MemoryFigures) -> Vec<Value> {
    vec![
        int(node_id),
        bigint(memory.resident),
        bigint(memory.rows),
        if memory.limit > 0 {
            bigint(memory.limit)
        } else {
            Value::Null
        },
        bigint(memory.refused),
    ]
}

/// The counts are this node's, since its start.
fn procedures(map: &ClusterMap, statistics: &Statistics) -> Vec<Vec<Value>> {
    let row = |procedure: &Arc<Procedure>| {
        let counts = statistics.get(procedure.id);
        let count = |of: fn(&Counts) -> &AtomicU64| counts.as_ref().map_or(0, |counts| of(counts).load(Relaxed));
        let calls = count(|counts| &counts.calls);
        let by = procedure.partition_by.as_ref();
        vec![
            text(&procedure.name),
            text(arguments(procedure)),
            text(list_of(&procedure.columns)),
            text(&procedure.language),
            by.and_then(|by| map.tables.get(&by.table))
                .map_or(Value::Null, |table| text(&table.name)),
            by.map_or(Value::Null, |by| int(by.parameter)),
            bigint(calls),
            bigint(count(|counts| &counts.aborts)),
            bigint(count(|counts| &counts.total_micros) / calls.max(1)),
            bigint(count(|counts| &counts.longest_micros)),
            text(&procedure.source),
        ]
    };
    map.procedures.values().map(row).collect()
}

fn list_of(columns: &[(String, DataType)]) -> String {
    let one = |(name, data_type): &(String, DataType)| format!("{name} {}", data_type.name());
    columns.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn arguments(procedure: &Procedure) -> String {
    let one = |parameter: &Parameter| {
        let mode = match (parameter.is_input, parameter.is_output) {
            (true, true) => "INOUT ",
            (false, true) => "OUT ",
            _ => "",
        };
        let name = match parameter.name.as_str() {
            "" => String::new(),
            name => format!("{name} "),
        };
        format!("{mode}{name}{}", parameter.data_type.name())
    };
    procedure.parameters.iter().map(one).collect::<Vec<_>>().join(", ")
}
