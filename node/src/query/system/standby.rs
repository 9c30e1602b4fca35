//! `system.standby`: how far a standby is, told by the node that sees to it. One row; of a cluster that is none, none.

use std::sync::Arc;

use futures::FutureExt;
use volt_engine::NodeId;
use volt_engine::value::{DataType, Value};

use super::super::tables::{SystemTable, system_schema};
use super::{BIGINT, INT, TEXT, bigint, int, text};
use crate::archive::{Report, reports_of_all};
use crate::metadata::map::ClusterMap;
use crate::replication::Replicas;

pub(super) const STANDBY: &[(&str, DataType)] = &[
    ("url", TEXT),
    ("state", TEXT),
    ("as_of", DataType::Timestamp),
    ("lag_seconds", DataType::Double),
    ("lag_records", BIGINT),
    ("newest_moment", DataType::Timestamp),
    ("node_id", INT),
    ("error", TEXT),
];

/// Asks every node.
pub(super) fn standby(replicas: &Arc<Replicas>) -> SystemTable {
    let replicas = Arc::clone(replicas);
    let rows = move || {
        let replicas = Arc::clone(&replicas);
        async move { rows(&replicas.metadata.map(), &reports_of_all(&replicas).await) }.boxed()
    };
    SystemTable {
        schema: system_schema(STANDBY),
        rows: Arc::new(rows),
    }
}

fn rows(map: &ClusterMap, reports: &[(NodeId, Report)]) -> Vec<Vec<Value>> {
    let Some(standby) = &map.standby else {
        return Vec::new();
    };
    let told = reports
        .iter()
        .find_map(|(node, report)| Some((*node, report.following.as_ref()?)));
    let following = told.map(|(_, following)| following);
    let state = match following {
        _ if map.restoring().is_some() => "restoring",
        _ if standby.promotion.is_some() => "promoting",
        Some(following) if following.problem.is_some() => "failing",
        Some(following) if following.as_of_micros.is_none() => "catching up",
        _ => "following",
    };
    let time = |micros: Option<i64>| micros.map_or(Value::Null, Value::Timestamp);
    let lag = following.and_then(|following| following.lag_micros);
    vec![vec![
        text(&standby.url),
        text(state),
        time(following.and_then(|following| following.as_of_micros)),
        lag.map_or(Value::Null, |micros| Value::Double(micros as f64 / 1e6)),
        following.map_or(Value::Null, |following| bigint(following.behind_records)),
        time(following.and_then(|following| following.newest_micros)),
        told.map_or(Value::Null, |(node, _)| int(node)),
        following
            .and_then(|following| following.problem.as_ref())
            .map_or(Value::Null, text),
    ]]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::Following;
    use crate::metadata::standby::Standby;

    #[test]
    fn a_standby_has_one_row_and_another_cluster_none() {
        let mut map = ClusterMap::default();
        let following = Following {
            as_of_micros: Some(5),
            lag_micros: Some(2_500_000),
            newest_micros: Some(7),
            behind_records: 3,
            problem: None,
        };
        let report = |following| Report {
            following,
            ..Report::default()
        };
        let reports = [(1, report(None)), (2, report(Some(following.clone())))];
        assert!(rows(&map, &reports).is_empty());
        map.standby = Some(Standby {
            url: "file:///x".to_owned(),
            at_micros: 1,
            archived_version: 1,
            promotion: None,
        });
        let expected = vec![
            text("file:///x"),
            text("following"),
            Value::Timestamp(5),
            Value::Double(2.5),
            Value::BigInt(3),
            Value::Timestamp(7),
            Value::Int(2),
            Value::Null,
        ];
        assert_eq!(rows(&map, &reports), [expected]);
        let stuck = Following {
            problem: Some("damaged".to_owned()),
            ..following
        };
        let found = rows(&map, &[(2, report(Some(stuck)))]);
        assert_eq!((&found[0][1], &found[0][7]), (&text("failing"), &text("damaged")));
        let alone = rows(&map, &[(1, report(None))]);
        assert_eq!(
            (&alone[0][2], &alone[0][6]),
            (&Value::Null, &Value::Null),
            "nobody sees to it"
        );
    }
}
