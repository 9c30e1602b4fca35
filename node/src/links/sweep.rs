//! Forgets tombstones that every link has told, and versions of tables that are tracked no more.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::time::{Duration, sleep};
use volt_engine::PartitionId;
use volt_engine::effects::LogPayload;
use volt_engine::partition::Forget;

use super::states::LinkStates;
use crate::metadata::link::LinkId;
use crate::metadata::map::ClusterMap;
use crate::replication::{Replicas, Slot, lock};

/// How often all are looked through.
const EVERY: Duration = Duration::from_secs(60);
/// Rows that are looked at in a step: nobody else has the partition meanwhile, about a millisecond.
const ROWS_IN_A_STEP: usize = 2_000;
/// The pause between two steps.
const PAUSE: Duration = Duration::from_millis(20);
/// A removal that was told is remembered for so long: changes that other clusters made without knowing of it may be under way.
const KEPT_WHEN_TOLD: Duration = Duration::from_secs(24 * 3_600);
/// A removal that can't be told is remembered for so long.
const KEPT: Duration = Duration::from_secs(7 * 24 * 3_600);

pub(super) async fn run(replicas: Arc<Replicas>, states: Arc<LinkStates>) {
    loop {
        sleep(EVERY).await;
        let map = replicas.metadata.map();
        for slot in replicas.all() {
            let links = links_of(&map, lock(&slot).partition);
            lock(&slot).linked.retain(|link, _| links.contains(link));
            let mut after = None;
            loop {
                after = step(&replicas, &states, &slot, &links, after.as_deref());
                if after.is_none() {
                    break;
                }
                sleep(PAUSE).await;
            }
        }
    }
}

/// The links that tell a partition, also those that rest.
fn links_of(map: &ClusterMap, partition: PartitionId) -> BTreeSet<LinkId> {
    let group = map.partitions.get(&partition).map(|info| info.group);
    let is_here = |table: &volt_engine::TableId| map.tables.get(table).map(|table| table.group) == group;
    let links = map.links.values().filter(|link| link.tables.iter().any(is_here));
    links.map(|link| link.id).collect()
}

fn step(
    replicas: &Replicas,
    states: &LinkStates,
    slot: &Slot,
    links: &BTreeSet<LinkId>,
    after: Option<&[u8]>,
) -> Option<Vec<u8>> {
    let now = replicas.world.clock.unix_micros();
    let ago = |time: Duration| now.saturating_sub(i64::try_from(time.as_micros()).unwrap_or(i64::MAX));
    let mut replica = lock(slot);
    let leads = replica.reign().is_some_and(|reign| !reign.relinquishing);
    if !leads || replica.hold.holder().is_some() || !replicas.metadata.lease().is_valid() {
        return None;
    }
    let forget = Forget {
        before_micros: ago(KEPT_WHEN_TOLD),
        told: states
            .told_by_all(links.iter().copied(), replica.partition)
            .unwrap_or(0),
        surely_before_micros: ago(KEPT),
    };
    let (effects, more) = replica.engine.forget_changes(&forget, after, ROWS_IN_A_STEP);
    if let Some(effects) = effects {
        replicas.append(&mut replica, &LogPayload::Write(effects));
    }
    more
}
