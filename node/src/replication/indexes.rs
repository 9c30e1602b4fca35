//! Secondary indexes and materialized views of the replicas here: each has those of the catalog, and they are built while
//! others use it.

use std::sync::Arc;
use std::time::Duration;

use volt_engine::catalog::{Table, ViewShape};
use volt_engine::{GroupId, TableId};

use super::replica::Replica;
use super::{Replicas, lock};
use crate::metadata::map::ClusterMap;
use crate::world::PlantedBug;

/// Rows that are taken into an index or a view at a time: nobody else can use the partition meanwhile, about two milliseconds.
const ROWS_AT_A_TIME: usize = 2_000;

/// How often somebody looks whether there is something to build.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The replica gets the indexes, views, tracked and closed tables of this map's catalog, if it has those of an older one. `now` by the
/// clock that runs through suspension.
pub(super) fn define(replica: &mut Replica, group: GroupId, map: &ClusterMap, now: Duration) {
    if replica.catalog_version >= map.catalog_version {
        return;
    }
    let is_opened = |table: &Arc<Table>| table.group == group && replica.engine.closed_since(table.id).is_some();
    if replica.catalog_version == 0 || map.tables.values().any(is_opened) {
        replica.freshness.opened(now);
    }
    replica.catalog_version = map.catalog_version;
    // A primary has heard of each drop before it writes anything that was planned after it.
    let since = replica.reign().map_or(0, |_| replica.engine.applied());
    for table in tables(group, map) {
        replica.engine.hear_of_dropped(table.id, table.dropped_columns(), since);
        if !replica.engine.has_indexes(table.id, &table.indexes) {
            replica.engine.set_indexes(table.id, &table.indexes);
            replica.is_building = true;
        }
    }
    let rule = |table: &Arc<Table>| Some((table.id, table.tracking?));
    replica.engine.set_tracked(tables(group, map).filter_map(rule));
    if !replica.engine.has_views(views(group, map)) {
        replica.engine.set_views(views(group, map));
        replica.is_building = true;
    }
    let ready = map.views.values().filter_map(|view| view.materialized.as_ref());
    let ready = ready.filter(|view| view.is_ready).map(|view| view.table);
    replica.ready_views = ready.filter(|&id| map.has_rows_in(id, group)).collect();
    if !replica.planted.has(PlantedBug::MovedTableServed) {
        replica.engine.set_closed(map.closed_in(group), map.catalog_version);
    }
}

fn views(group: GroupId, map: &ClusterMap) -> impl Iterator<Item = (TableId, &ViewShape)> {
    tables(group, map).filter_map(|table| Some((table.id, table.view.as_deref()?)))
}

fn tables(group: GroupId, map: &ClusterMap) -> impl Iterator<Item = &Arc<Table>> {
    let has_rows = move |table: &&Arc<Table>| map.has_rows_in(table.id, group);
    map.tables.values().filter(has_rows)
}

/// Takes some rows into what lacks them, also in a partition that this map doesn't know yet, or any more: whoever builds goes
/// on only when nothing is left to build.
fn build_some(replica: &mut Replica, map: &ClusterMap, now: Duration) {
    if let Some(info) = map.partitions.get(&replica.partition) {
        define(replica, info.group, map, now);
    }
    if !replica.is_building {
        return;
    }
    // All that the replica has, which may have heard of more than this map says. A view asks an index for a value in the place
    // of one that went.
    let engine = &mut replica.engine;
    replica.is_building = !(engine.build_indexes(ROWS_AT_A_TIME) && engine.build_views(ROWS_AT_A_TIME));
}

impl Replicas {
    pub(super) async fn build_indexes(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let (map, now) = (self.metadata.map(), self.world.clock.boot_time());
            for slot in self.all() {
                loop {
                    {
                        let mut replica = lock(&slot);
                        build_some(&mut replica, &map, now);
                        if !replica.is_building {
                            break;
                        }
                    }
                    // Others come in between.
                    tokio::task::yield_now().await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use volt_engine::catalog::{Column, Index, IndexColumn, IndexShape, IndexState};
    use volt_engine::effects::{EffectsBuilder, LogPayload};
    use volt_engine::key::encode_key;
    use volt_engine::row::encode_row;
    use volt_engine::value::{DataType, Value, ValueRef};

    use super::*;
    use crate::metadata::map::PartitionInfo;

    fn map(catalog_version: u64, indexes: Vec<Index>) -> ClusterMap {
        let mut map = ClusterMap {
            catalog_version,
            ..ClusterMap::default()
        };
        let table = Table {
            id: 1,
            name: "t".to_owned(),
            columns: vec![Column {
                name: "id".to_owned(),
                data_type: DataType::BigInt,
                nullable: false,
                default: None,
                missing: Value::Null,
                is_dropped: false,
            }],
            primary_key: vec![0],
            partition_column: Some(0),
            group: 1,
            indexes,
            checks: Vec::new(),
            ttl: None,
            view: None,
            tracking: None,
            version_base: 0,
        };
        map.tables.insert(1, Arc::new(table));
        map.partitions.insert(1, PartitionInfo::new(1));
        map
    }

    fn row() -> LogPayload {
        let mut effects = EffectsBuilder::default();
        let id = ValueRef::BigInt(1);
        effects.put(1, &encode_key([id]), &encode_row(&[id]));
        LogPayload::Write(effects.finish())
    }

    #[test]
    fn what_is_built_is_what_the_replica_has_heard_of() {
        let index = Index {
            name: "i".to_owned(),
            shape: IndexShape {
                id: 7,
                columns: vec![IndexColumn {
                    place: 0,
                    descending: false,
                }],
                predicate: None,
                missing: Vec::new(),
            },
            unique: false,
            constraint: false,
            view: None,
            state: IndexState::Building,
            source: String::new(),
        };
        // Whoever builds had looked at the map a moment before: at one without the index, or without the partition.
        for before in [map(1, Vec::new()), ClusterMap::default()] {
            let mut replica = Replica::new(1);
            replica.engine.apply_record(1, &row()).expect("a first record");
            define(&mut replica, 1, &map(2, vec![index.clone()]), Duration::ZERO);
            assert!(replica.is_building && !replica.engine.has_built(1, 7));
            build_some(&mut replica, &before, Duration::ZERO);
            assert!(!replica.is_building && replica.engine.has_built(1, 7));
        }
    }
}
