//! `system.archive`: how far each partition is archived, or restored, each told by its primary's node.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::FutureExt;
use volt_engine::value::{DataType, Value};
use volt_engine::{NodeId, PartitionId};

use super::super::tables::{SystemTable, system_schema};
use super::{BIGINT, INT, TEXT, bigint, int, text};
use crate::archive::{Archived, Report, reports_of_all};
use crate::metadata::map::{ClusterMap, Restoration};
use crate::replication::Replicas;

pub(super) const ARCHIVE: &[(&str, DataType)] = &[
    ("node_id", INT),
    ("partition_id", INT),
    ("url", TEXT),
    ("state", TEXT),
    ("sealed_lsn", BIGINT),
    ("committed_lsn", BIGINT),
    ("lag_records", BIGINT),
    ("lag_seconds", DataType::Double),
    ("last_object_at", DataType::Timestamp),
    ("newest_moment", DataType::Timestamp),
    ("error", TEXT),
];

/// Asks every node.
pub(super) fn archive(replicas: &Arc<Replicas>) -> SystemTable {
    let replicas = Arc::clone(replicas);
    let rows = move || {
        let replicas = Arc::clone(&replicas);
        async move { rows(&replicas.metadata.map(), &reports_of_all(&replicas).await) }.boxed()
    };
    SystemTable {
        schema: system_schema(ARCHIVE),
        rows: Arc::new(rows),
    }
}

fn rows(map: &ClusterMap, reports: &[(NodeId, Report)]) -> Vec<Vec<Value>> {
    let newest = reports.iter().filter_map(|(_, report)| report.newest_cut_micros).max();
    let of_node = |(node, report): &(NodeId, Report)| {
        let archived = report.archived.iter();
        archived
            .map(|archived| row(*node, report, archived, newest))
            .collect::<Vec<_>>()
    };
    let mut rows: Vec<Vec<Value>> = reports.iter().flat_map(of_node).collect();
    if let Some(restoration) = &map.restoration {
        rows.extend(restoring(restoration, reports));
    }
    rows
}

fn row(node: NodeId, report: &Report, archived: &Archived, newest: Option<i64>) -> Vec<Value> {
    let time = |micros: Option<i64>| micros.map_or(Value::Null, Value::Timestamp);
    let behind = archived.committed.saturating_sub(archived.sealed.unwrap_or(0));
    vec![
        int(node),
        int(archived.partition),
        report.url.as_ref().map_or(Value::Null, text),
        text(match archived.error {
            Some(_) => "failing",
            None => "archiving",
        }),
        archived.sealed.map_or(Value::Null, bigint),
        bigint(archived.committed),
        bigint(behind),
        Value::Double(archived.behind_micros as f64 / 1e6),
        time(archived.last_object_micros),
        time(newest),
        archived.error.as_ref().map_or(Value::Null, text),
    ]
}

/// Partitions that are not restored yet; the moment is the one that they become. Those whose primary does not tell have no node.
fn restoring(restoration: &Restoration, reports: &[(NodeId, Report)]) -> Vec<Vec<Value>> {
    let row = |node: Value, partition: PartitionId, problem: Option<&String>| {
        let mut row = vec![Value::Null; ARCHIVE.len()];
        row[0] = node;
        row[1] = int(partition);
        row[2] = text(&restoration.url);
        row[3] = text("restoring");
        row[9] = Value::Timestamp(restoration.at_micros);
        row[10] = problem.map_or(Value::Null, text);
        row
    };
    let told = reports.iter().flat_map(|(node, report)| {
        let restoring = report.restoring.iter();
        restoring.map(move |(partition, problem)| (*node, *partition, problem.as_ref()))
    });
    let mut of_nobody: BTreeSet<PartitionId> = restoration.left.keys().copied().collect();
    let mut rows = Vec::new();
    for (node, partition, problem) in told {
        if of_nobody.remove(&partition) {
            rows.push(row(int(node), partition, problem));
        }
    }
    rows.extend(of_nobody.into_iter().map(|partition| row(Value::Null, partition, None)));
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_that_is_left_has_one_row_with_its_problem() {
        let map = ClusterMap {
            restoration: Some(Restoration {
                url: "s3://x/y".to_owned(),
                at_micros: 7,
                partitions: 3,
                left: [(1, (5, 1)), (2, (6, 1)), (3, (7, 1))].into(),
            }),
            ..ClusterMap::default()
        };
        let report = |restoring: &[(PartitionId, Option<&str>)]| Report {
            restoring: restoring
                .iter()
                .map(|(id, why)| (*id, why.map(str::to_owned)))
                .collect(),
            ..Report::default()
        };
        // Two nodes that both think that they lead 2; 4 is restored by now; nobody speaks for 3.
        let reports = [
            (1, report(&[(1, None), (2, Some("damaged"))])),
            (2, report(&[(2, None), (4, None)])),
        ];
        let found = rows(&map, &reports);
        let seen: Vec<(Value, Value, Value)> = found
            .iter()
            .map(|row| (row[0].clone(), row[1].clone(), row[10].clone()))
            .collect();
        assert_eq!(
            seen,
            [
                (Value::Int(1), Value::Int(1), Value::Null),
                (Value::Int(1), Value::Int(2), text("damaged")),
                (Value::Null, Value::Int(3), Value::Null),
            ]
        );
    }

    #[test]
    fn what_is_not_archived_lags() {
        let archived = Archived {
            partition: 4,
            sealed: Some(10),
            committed: 12,
            behind_micros: 1_500_000,
            last_object_micros: Some(3),
            error: None,
        };
        let report = Report {
            url: Some("file:///x/u".to_owned()),
            archived: vec![archived],
            ..Report::default()
        };
        let other = Report {
            newest_cut_micros: Some(9),
            ..Report::default()
        };
        let found = rows(&ClusterMap::default(), &[(1, report), (2, other)]);
        let expected = vec![
            Value::Int(1),
            Value::Int(4),
            text("file:///x/u"),
            text("archiving"),
            Value::BigInt(10),
            Value::BigInt(12),
            Value::BigInt(2),
            Value::Double(1.5),
            Value::Timestamp(3),
            Value::Timestamp(9),
            Value::Null,
        ];
        assert_eq!(found, [expected]);
    }
}
