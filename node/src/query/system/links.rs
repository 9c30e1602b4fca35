//! `system.links`, `system.conflicts` and `system.cluster`.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt;
use volt_engine::NodeId;
use volt_engine::catalog::Table;
use volt_engine::changes::{RowVersion, origin_of};
use volt_engine::partition::Conflict;
use volt_engine::value::{DataType, Value};

use super::super::tables::{SystemRows, SystemTable, system_schema};
use super::{BIGINT, BOOLEAN, INT, TEXT, bigint, int, text};
use crate::links::{LinkReport, PartitionTold, row_as_json};
use crate::metadata::apply::links::rule_text;
use crate::metadata::link::{Link, LinkId};
use crate::metadata::map::ClusterMap;
use crate::txn::Coordinator;

const LINKS: &[(&str, DataType)] = &[
    ("link_name", TEXT),
    ("target", TEXT),
    ("tables", TEXT),
    ("conflict", TEXT),
    ("partition_id", INT),
    ("node_id", INT),
    ("state", TEXT),
    ("told_lsn", BIGINT),
    ("behind", BIGINT),
    ("changes", BIGINT),
    ("conflicts", BIGINT),
    ("caught_up_at", DataType::Timestamp),
    ("message", TEXT),
];

const CONFLICTS: &[(&str, DataType)] = &[
    ("table_name", TEXT),
    ("key", TEXT),
    ("met_at", DataType::Timestamp),
    ("link", TEXT),
    ("local_row", TEXT),
    ("local_changed_at", DataType::Timestamp),
    ("local_is_own", BOOLEAN),
    ("remote_row", TEXT),
    ("remote_changed_at", DataType::Timestamp),
    ("kept", TEXT),
];

pub(super) const CLUSTER: &[(&str, DataType)] = &[
    ("cluster_uuid", TEXT),
    ("version", TEXT),
    ("partitions_per_group", INT),
    ("restored_to", DataType::Timestamp),
];

pub(super) fn cluster(map: &ClusterMap) -> Vec<Vec<Value>> {
    vec![vec![
        text(&map.cluster_uuid),
        text(env!("CARGO_PKG_VERSION")),
        int(map.partitions_per_group),
        map.restored_micros.map_or(Value::Null, Value::Timestamp),
    ]]
}

/// A system table with its name.
pub(super) type Named = (&'static str, Arc<SystemTable>);

/// A row for each partition of a link, as its primary tells; one for a link of which none does.
pub(in crate::query) fn links(coordinator: &Arc<Coordinator>) -> Named {
    let coordinator = Arc::clone(coordinator);
    let rows = move || {
        let coordinator = Arc::clone(&coordinator);
        async move { link_rows(&coordinator.cluster_map(), &coordinator.links_of_all().await) }.boxed()
    };
    table("links", LINKS, Arc::new(rows))
}

/// The conflicts that are kept.
pub(in crate::query) fn conflicts(coordinator: &Arc<Coordinator>) -> Named {
    let coordinator = Arc::clone(coordinator);
    let rows = move || {
        let coordinator = Arc::clone(&coordinator);
        async move {
            let (of_all, map) = (coordinator.conflicts_of_all().await, coordinator.cluster_map());
            let conflicts = of_all.iter().flat_map(|(_, conflicts)| conflicts);
            conflicts.filter_map(|conflict| conflict_row(&map, conflict)).collect()
        }
        .boxed()
    };
    table("conflicts", CONFLICTS, Arc::new(rows))
}

pub(super) fn table(name: &'static str, columns: &[(&str, DataType)], rows: Arc<SystemRows>) -> Named {
    let schema = system_schema(columns);
    (name, Arc::new(SystemTable { schema, rows }))
}

fn link_rows(map: &ClusterMap, reports: &[(NodeId, LinkReport)]) -> Vec<Vec<Value>> {
    let mut told: BTreeMap<LinkId, Vec<(u32, NodeId, &PartitionTold)>> = BTreeMap::new();
    let mut errors: BTreeMap<(LinkId, NodeId), &String> = BTreeMap::new();
    for (node, report) in reports {
        for ((link, partition), partition_told) in &report.partitions {
            told.entry(*link).or_default().push((*partition, *node, partition_told));
        }
        errors.extend(report.errors.iter().map(|(link, why)| ((*link, *node), why)));
    }
    let rows = |link: &Arc<Link>| {
        let mut partitions = told.remove(&link.id).unwrap_or_default();
        partitions.sort_by_key(|(partition, node, _)| (*partition, *node));
        let of_link = errors.iter().filter(|((of, _), _)| *of == link.id);
        let alone = of_link.filter(|((_, node), _)| !partitions.iter().any(|(_, told_by, _)| told_by == node));
        let mut rows: Vec<Vec<Value>> = alone
            .map(|((_, node), why)| link_row(map, link, None, Some(*node), Some(why)))
            .collect();
        rows.extend(partitions.iter().map(|(partition, node, told)| {
            let why = errors.get(&(link.id, *node)).copied();
            link_row(map, link, Some((*partition, told)), Some(*node), why)
        }));
        if rows.is_empty() {
            rows.push(link_row(map, link, None, None, None));
        }
        rows
    };
    map.links.values().flat_map(rows).collect()
}

fn link_row(
    map: &ClusterMap,
    link: &Link,
    told: Option<(u32, &PartitionTold)>,
    node: Option<NodeId>,
    why: Option<&String>,
) -> Vec<Value> {
    let tables: Vec<&Arc<Table>> = link.tables.iter().filter_map(|id| map.tables.get(id)).collect();
    let names: Vec<&str> = tables.iter().map(|table| table.name.as_str()).collect();
    let rule = tables.first().and_then(|table| Some(rule_text(table, table.tracking?)));
    let state = match told {
        _ if link.is_paused => "paused",
        _ if why.is_some() => "waiting",
        None => "starting",
        Some((_, told)) if told.is_copying => "copying",
        Some(_) => "telling",
    };
    let of_partition = |value: fn(&PartitionTold) -> Value| told.map_or(Value::Null, |(_, told)| value(told));
    vec![
        text(&link.name),
        text(&link.target.url),
        text(names.join(", ")),
        rule.map_or(Value::Null, text),
        told.map_or(Value::Null, |(partition, _)| int(partition)),
        node.map_or(Value::Null, int),
        text(state),
        of_partition(|told| bigint(told.told)),
        of_partition(|told| bigint(told.behind)),
        of_partition(|told| bigint(told.changes)),
        of_partition(|told| bigint(told.conflicts)),
        of_partition(|told| told.caught_up_micros.map_or(Value::Null, Value::Timestamp)),
        why.map_or(Value::Null, text),
    ]
}

/// None: its table is gone.
fn conflict_row(map: &ClusterMap, conflict: &Conflict) -> Option<Vec<Value>> {
    let table = map.tables.get(&conflict.table)?;
    let row = |row: &Option<Vec<u8>>| row.as_ref().map_or(Value::Null, |row| text(row_as_json(table, row)));
    let time = |version: RowVersion| match version {
        RowVersion::UNTRACKED => Value::Null,
        version => Value::Timestamp(version.micros),
    };
    Some(vec![
        text(&table.name),
        text(crate::links::key_as_json(table, &conflict.key)?),
        Value::Timestamp(conflict.met_micros),
        text(&conflict.link),
        row(&conflict.local),
        time(conflict.local_version),
        Value::Boolean(conflict.local_version.origin == origin_of(&map.cluster_uuid)),
        row(&conflict.remote),
        time(conflict.remote_version),
        text(if conflict.remote_stays { "remote" } else { "local" }),
    ])
}
