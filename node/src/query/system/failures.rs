//! `system.failovers`, `system.failures`, and `system.detectors`: what was found, by what, and what came of it.

use std::time::Duration;

use volt_engine::NodeId;
use volt_engine::value::{DataType, Value};

use super::{BIGINT, BOOLEAN, INT, TEXT, bigint, int, text};
use crate::config::Detection;
use crate::metadata::failure::{Failure, Medium, Strategy};
use crate::metadata::map::{ClusterMap, Failover};

pub(super) const FAILOVERS: &[(&str, DataType)] = &[
    ("at", DataType::Timestamp),
    ("node_id", INT),
    ("partitions", INT),
    ("detector", TEXT),
    ("evidence", TEXT),
];

pub(super) const FAILURES: &[(&str, DataType)] = &[
    ("failure_id", BIGINT),
    ("at", DataType::Timestamp),
    ("node_id", INT),
    ("partition_id", INT),
    ("strategy", TEXT),
    ("medium", TEXT),
    ("evidence", TEXT),
    ("seconds_to_detect", DataType::Double),
    ("seen_by", INT),
    ("outcome", TEXT),
];

pub(super) const DETECTORS: &[(&str, DataType)] = &[
    ("node_id", INT),
    ("strategy", TEXT),
    ("medium", TEXT),
    ("is_on", BOOLEAN),
    ("settings", TEXT),
];

pub(super) fn failovers(map: &ClusterMap) -> Vec<Vec<Value>> {
    let row = |failover: &Failover| {
        vec![
            Value::Timestamp(failover.at_micros),
            int(failover.node_id),
            int(failover.partitions),
            text(failover.finding.strategy),
            text(&failover.finding.evidence),
        ]
    };
    map.failovers.iter().map(row).collect()
}

/// `partition_id` is NULL of a node's process as a whole.
pub(super) fn failures(map: &ClusterMap) -> Vec<Vec<Value>> {
    let row = |failure: &Failure| {
        let finding = &failure.finding;
        vec![
            bigint(failure.failure_id),
            Value::Timestamp(failure.at_micros),
            int(failure.node_id),
            failure.partition.map_or(Value::Null, int),
            text(finding.strategy),
            text(finding.medium),
            text(&finding.evidence),
            Value::Double(Duration::from_micros(finding.silence_micros).as_secs_f64()),
            int(finding.observer),
            text(failure.outcome()),
        ]
    };
    map.failures.iter().map(row).collect()
}

/// This node's settings, which don't change while it runs.
pub(super) fn detectors(node_id: NodeId, detection: &Detection) -> Vec<Vec<Value>> {
    let row = |((strategy, medium), settings): ((Strategy, Medium), Option<String>)| {
        vec![
            int(node_id),
            text(strategy),
            text(medium),
            Value::Boolean(settings.is_some()),
            settings.map_or(Value::Null, text),
        ]
    };
    detection.in_words().into_iter().map(row).collect()
}
