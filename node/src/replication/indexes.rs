//! Secondary indexes and materialized views of the replicas here: each has those of the catalog, and they are built while
//! others use it.

use std::sync::Arc;
use std::time::Duration;

use volt_engine::catalog::{Table, ViewShape};
use volt_engine::{GroupId, TableId};

use super::replica::Replica;
use super::{Replicas, lock};
use crate::metadata::map::ClusterMap;

/// Rows that are taken into an index or a view at a time: nobody else can use the partition meanwhile, about two milliseconds.
const ROWS_AT_A_TIME: usize = 2_000;

/// How often somebody looks whether there is something to build.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The replica gets the indexes and views of this map's catalog, if it has those of an older one.
pub(super) fn define(replica: &mut Replica, group: GroupId, map: &ClusterMap) {
    if replica.catalog_version >= map.catalog_version {
        return;
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
    if !replica.engine.has_views(views(group, map)) {
        replica.engine.set_views(views(group, map));
        replica.is_building = true;
    }
    let ready = map.views.values().filter_map(|view| view.materialized.as_ref());
    let ready = ready.filter(|view| view.is_ready).map(|view| view.table);
    let is_here = |id: &TableId| map.tables.get(id).is_some_and(|table| table.group == group);
    replica.ready_views = ready.filter(is_here).collect();
}

fn views(group: GroupId, map: &ClusterMap) -> impl Iterator<Item = (TableId, &ViewShape)> {
    tables(group, map).filter_map(|table| Some((table.id, table.view.as_deref()?)))
}

fn tables(group: GroupId, map: &ClusterMap) -> impl Iterator<Item = &Arc<Table>> {
    map.tables.values().filter(move |table| table.group == group)
}

/// Takes some rows into what lacks them.
fn build_some(replica: &mut Replica, map: &ClusterMap) {
    let Some(info) = map.partitions.get(&replica.partition) else {
        return;
    };
    define(replica, info.group, map);
    if !replica.is_building {
        return;
    }
    let mut indexed = tables(info.group, map).filter(|table| !table.indexes.is_empty());
    let is_built = |table: &Arc<Table>| replica.engine.build_indexes(table.id, ROWS_AT_A_TIME);
    // A view asks an index for a value in the place of one that went.
    replica.is_building = !(indexed.all(is_built) && replica.engine.build_views(ROWS_AT_A_TIME));
}

impl Replicas {
    pub(super) async fn build_indexes(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let map = self.metadata.map();
            for slot in self.all() {
                loop {
                    {
                        let mut replica = lock(&slot);
                        build_some(&mut replica, &map);
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
