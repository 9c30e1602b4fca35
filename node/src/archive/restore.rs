//! A cluster as another one was at a moment: the primary of each partition takes it from that one's archive and writes it, as a client
//! would, so that its backups get it as they get everything. If the primary dies on the way, the next one begins again.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use tokio::time::{Duration, sleep};
use volt_engine::effects::{Effects, LogPayload};
use volt_engine::followed::Position;
use volt_engine::idempotency::FOLLOWED;
use volt_engine::partition::Partition;
use volt_engine::{Epoch, PartitionId};

use super::chain::Contents;
use super::cuts::{Moments, catalog_of};
use super::layout::Cut;
use super::read::{find, find_in};
use super::store::{ArchiveError, Store};
use crate::metadata::command::Command;
use crate::metadata::map::{ClusterMap, Restoration};
use crate::replication::{Replicas, lock};
use crate::statement::CommitWait;
use crate::txn::cleared;
use crate::world::World;

/// How often somebody looks whether there is something to restore, after an error too.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Moments that are looked at before it is given up.
const MAX_MOMENTS_TRIED: usize = 10_000;
/// Bytes of rows in one record, about.
const RECORD_BYTES: usize = 1 << 20;

/// What a new cluster begins with to become what the archived one was at the newest moment not after `until_micros` of which all is there: its
/// catalog, and what is to be restored.
pub(crate) async fn begin(
    world: &World,
    url: &str,
    until_micros: i64,
) -> Result<(ClusterMap, Restoration), ArchiveError> {
    let store = Store::find(world, url).await?;
    let mut moments = Moments::of(&store, until_micros).await?;
    let mut found = BTreeMap::new();
    let mut lacking = None;
    for _ in 0..MAX_MOMENTS_TRIED {
        let Some(cut) = moments.next().await? else { break };
        if let Some(why) = lacks(&store, &cut, &mut found).await? {
            lacking = lacking.or(Some(why));
            continue;
        }
        let restoration = Restoration {
            url: store.url(url),
            at_micros: cut.at_micros,
            partitions: cut.partitions.len() as u32,
            left: cut.partitions.clone(),
        };
        return Ok((catalog_of(&store, &cut).await?, restoration));
    }
    Err(ArchiveError::Missing(match lacking {
        Some(why) => format!("no moment before that is whole in the archive at {url}: {why}"),
        None => format!("the archive at {url} has no moment before that"),
    }))
}

/// What the archive lacks of a cut: the newest is often written before the records up to it are. What is `found` is not looked for again.
async fn lacks(
    store: &Store,
    cut: &Cut,
    found: &mut BTreeMap<PartitionId, Contents>,
) -> Result<Option<String>, ArchiveError> {
    for (&partition, &at) in &cut.partitions {
        if let Entry::Vacant(place) = found.entry(partition) {
            place.insert(store.contents(partition).await?);
        }
        match find_in(store, partition, &found[&partition], at).await {
            Ok(_) => {}
            Err(ArchiveError::Missing(why)) => return Ok(Some(why)),
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Restores what is led here, while there is something to restore.
pub(crate) async fn run(replicas: Arc<Replicas>) {
    let mut maps = replicas.metadata.watch();
    loop {
        if maps.wait_for(|map| map.restoration.is_some()).await.is_err() {
            return;
        }
        let map = replicas.metadata.map();
        for (partition, restoration) in led_and_left(&replicas, &map) {
            let restored = restore(&replicas, partition, restoration).await;
            if let Err(why) = &restored {
                tracing::warn!(partition, %why, "the partition is not restored yet; it is tried again");
            }
            let problem = restored.err().map(|why| why.to_string());
            replicas.note_restoration_problem(partition, problem);
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Partitions that are led here and not restored yet.
pub(super) fn led_and_left<'a>(replicas: &Replicas, map: &'a ClusterMap) -> Vec<(PartitionId, &'a Restoration)> {
    let Some(restoration) = &map.restoration else {
        return Vec::new();
    };
    let is_led = |partition: &PartitionId| replicas.with(*partition, |replica| replica.reign().is_some()) == Some(true);
    let left = restoration.left.keys().copied().filter(is_led);
    left.map(|partition| (partition, restoration)).collect()
}

#[derive(Debug, thiserror::Error)]
enum Unfinished {
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error("{0}")]
    Contradicts(&'static str),
    #[error("this node does not lead it now, or not safely yet")]
    Deposed,
    #[error("{0}")]
    NotCommitted(String),
}

async fn restore(replicas: &Replicas, partition: PartitionId, restoration: &Restoration) -> Result<(), Unfinished> {
    let Some(&at) = restoration.left.get(&partition) else {
        return Ok(());
    };
    let reign = reign_of(replicas, partition)?;
    let store = replicas.others_archive(&restoration.url).await?;
    let mut state = find(&store, partition, at).await?.load(&store).await?;
    let map = replicas.metadata.map();
    // How far the archived cluster had followed another one is nothing to this one, nor are rows of tables that were dropped: replicas
    // forget those with the map, and one that applies them later would keep them.
    state.retain_tables(|table| table != FOLLOWED && !map.has_dropped(table));
    if state.prepared().is_some() {
        return Err(Unfinished::Contradicts(
            "a transaction over several partitions is half-way at a cut",
        ));
    }
    let mut wait = append(replicas, partition, reign, cleared(&map))?;
    let mut cursor = None;
    loop {
        let (effects, next) = state.rows_as_effects(cursor, RECORD_BYTES);
        if let Some(effects) = effects {
            committed(replicas, wait).await?;
            wait = append(replicas, partition, reign, effects)?;
        }
        cursor = next;
        if cursor.is_none() {
            break;
        }
    }
    committed(replicas, wait).await?;
    if map.standby.is_some() {
        // From here on it follows.
        let position = Position {
            at_micros: restoration.at_micros,
            lsn: at.0,
            epoch: at.1,
            ..Position::default()
        };
        let wait = append(replicas, partition, reign, position.as_effects())?;
        committed(replicas, wait).await?;
    }
    let rows = state.stats().rows;
    drop::<Partition>(state);
    tracing::info!(partition, rows, "restored from the archive");
    // Refused if another one leads it by now, which begins again.
    let epoch = replicas
        .with(partition, |replica| {
            let reign_now = replica.reign().filter(|now| now.began_epoch == reign)?;
            Some(reign_now.epoch)
        })
        .flatten()
        .ok_or(Unfinished::Deposed)?;
    let done = Command::PartitionRestored { partition, epoch };
    let proposed = replicas.metadata.propose(done).await;
    proposed
        .map(|_| ())
        .map_err(|error| Unfinished::NotCommitted(error.to_string()))
}

/// The epoch in which this node's reign over the partition began.
fn reign_of(replicas: &Replicas, partition: PartitionId) -> Result<Epoch, Unfinished> {
    let reign = replicas.with(partition, |replica| replica.reign().map(|reign| reign.began_epoch));
    reign.flatten().ok_or(Unfinished::Deposed)
}

fn append(
    replicas: &Replicas,
    partition: PartitionId,
    reign: Epoch,
    effects: Effects,
) -> Result<CommitWait, Unfinished> {
    let slot = replicas.slot(partition).ok_or(Unfinished::Deposed)?;
    let mut replica = lock(&slot);
    let leads = replica
        .reign()
        .is_some_and(|now| now.began_epoch == reign && !now.relinquishing);
    if !leads || !replicas.metadata.lease().is_valid() {
        return Err(Unfinished::Deposed);
    }
    let lsn = replicas.append(&mut replica, &LogPayload::Write(effects));
    let epoch = replica.history.epoch_at(lsn);
    Ok(CommitWait {
        partition,
        epoch,
        lsn,
        wrote: true,
    })
}

async fn committed(replicas: &Replicas, wait: CommitWait) -> Result<(), Unfinished> {
    let waited = replicas.wait_committed(&[wait]).await;
    waited.map_err(|(_, error)| Unfinished::NotCommitted(error.message))
}
