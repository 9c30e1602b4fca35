//! Tables about where work goes: `system.peers`, and `system.replicas` with how old each replica may be.

use std::collections::BTreeMap;
use std::time::Duration;

use volt_engine::value::{DataType, Value};
use volt_engine::{NodeId, PartitionId};

use super::{BIGINT, BOOLEAN, INT, TEXT, bigint, int, text};
use crate::metadata::map::PartitionInfo;
use crate::peers::{Line, LineFigures};
use crate::replication::Replicas;

pub(super) const PEERS: &[(&str, DataType)] = &[
    ("node_id", INT),
    ("peer_id", INT),
    ("line", TEXT),
    ("breaker", TEXT),
    ("failures", INT),
    ("opened", BIGINT),
    ("in_flight", BIGINT),
    ("answered", BIGINT),
    ("not_sent", BIGINT),
    ("lost", BIGINT),
    ("refused", BIGINT),
    ("latency_micros", BIGINT),
];

/// This node's calls to the others, since its start; `latency_micros` is a moving average, NULL before the first answer.
pub(super) fn peers(node_id: NodeId, figures: &[(NodeId, Line, LineFigures)]) -> Vec<Vec<Value>> {
    let micros = |time: Duration| u64::try_from(time.as_micros()).map_or(Value::Null, bigint);
    let row = |(peer, line, of): &(NodeId, Line, LineFigures)| {
        vec![
            int(node_id),
            int(*peer),
            text(line.name()),
            text(of.state.name()),
            int(of.failures),
            bigint(of.transitions.opened),
            bigint(of.in_flight),
            bigint(of.answered),
            bigint(of.not_sent),
            bigint(of.lost),
            bigint(of.refused),
            of.latency.map_or(Value::Null, micros),
        ]
    };
    figures.iter().map(row).collect()
}

pub(super) const REPLICAS: &[(&str, DataType)] = &[
    ("partition_id", INT),
    ("node_id", INT),
    ("role", TEXT),
    ("in_sync", BOOLEAN),
    ("epoch", BIGINT),
    ("lag_ms", BIGINT),
];

/// `lag_ms` is how old the rows of this node's own replicas may be: 0 of a primary, NULL of one that can't be read, and of other nodes'.
pub(super) fn replicas(here: &Replicas) -> Vec<Vec<Value>> {
    let map = here.metadata.map();
    let stalenesses: BTreeMap<PartitionId, Option<Duration>> = here.stalenesses().into_iter().collect();
    let lag = |partition: PartitionId, node: NodeId| {
        let staleness = stalenesses.get(&partition).copied().flatten();
        let staleness = staleness.filter(|_| node == here.node_id);
        let milliseconds = staleness.map(|staleness| staleness.as_micros().div_ceil(1_000));
        milliseconds
            .and_then(|milliseconds| u64::try_from(milliseconds).ok())
            .map_or(Value::Null, bigint)
    };
    let of = |partition: &PartitionInfo| {
        let row = |node: NodeId, role: &str, in_sync: bool| {
            vec![
                int(partition.partition_id),
                int(node),
                text(role),
                Value::Boolean(in_sync),
                bigint(partition.epoch),
                lag(partition.partition_id, node),
            ]
        };
        let in_sync = map.in_sync(partition);
        let members = partition.in_sync.iter().map(|&node| {
            let role = match partition.primary == Some(node) {
                true => "primary",
                false => "backup",
            };
            row(node, role, in_sync.contains(&node))
        });
        let learners = partition.learners.iter().map(|&node| row(node, "learner", false));
        members.chain(learners).collect::<Vec<_>>()
    };
    map.partitions.values().flat_map(of).collect()
}
