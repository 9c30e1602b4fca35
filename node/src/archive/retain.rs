//! What of an archive is no longer needed: all that lies before the oldest moment that is kept.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::time::{Duration, sleep};
use volt_engine::{Lsn, PartitionId};

use super::chain::{Chain, Found};
use super::layout::{Base, CATALOGS, CUTS, Cut, Kind, Segment, bases_of, cuts_of_name, log_of};
use super::store::{ArchiveError, Store};
use crate::config::ArchiveConfig;
use crate::replication::Replicas;

/// How often it is looked for.
const LOOK_EVERY: Duration = Duration::from_secs(600);

/// Removes what is no longer needed, while this node leads the metadata group.
pub(super) async fn run(config: ArchiveConfig, store: Store, replicas: Arc<Replicas>) {
    let Some(keep) = config.keep else { return };
    let keep_micros = i64::try_from(keep.as_micros()).unwrap_or(i64::MAX);
    loop {
        sleep(LOOK_EVERY).await;
        if !replicas.metadata.is_leader() {
            continue;
        }
        let horizon = replicas.world.clock.unix_micros().saturating_sub(keep_micros);
        match tidy(&store, horizon).await {
            Ok(0) => {}
            Ok(objects) => tracing::info!(
                objects,
                "objects of the archive that nobody needs any more were removed"
            ),
            Err(why) => tracing::warn!(%why, "the archive keeps more than it needs for now"),
        }
    }
}

/// Removes what no moment from `horizon` on needs; how many objects.
pub(super) async fn tidy(store: &Store, horizon_micros: i64) -> Result<usize, ArchiveError> {
    let names = store.names(Path::new(CUTS)).await?;
    let is_old = |name: &&String| cuts_of_name(name).is_some_and(|last| last < horizon_micros);
    let old: Vec<PathBuf> = names
        .iter()
        .filter(is_old)
        .map(|name| Path::new(CUTS).join(name))
        .collect();
    // The newest of these has the oldest moment that is kept: what is asked for at the horizon is found there.
    let Some((newest, older)) = old.split_last() else {
        return Ok(0);
    };
    let cuts: Vec<Cut> = store.get(newest, Kind::Cuts).await?;
    let Some(oldest) = cuts.first() else { return Ok(0) };
    let mut needless = older.to_vec();
    needless.extend(old_catalogs(store, oldest.map_version).await?);
    // Numbers of partitions grow: one that is not in it is gone, or came later.
    let newest = oldest.partitions.keys().next_back().copied().unwrap_or(0);
    for partition in 0..=newest {
        needless.extend(old_parts(store, partition, oldest).await?);
    }
    for path in &needless {
        store.remove(path).await?;
    }
    Ok(needless.len())
}

async fn old_catalogs(store: &Store, oldest: u64) -> Result<Vec<PathBuf>, ArchiveError> {
    let names = store.names(Path::new(CATALOGS)).await?;
    let is_old = |name: &&String| name.parse::<u64>().is_ok_and(|version| version < oldest);
    Ok(names
        .iter()
        .filter(is_old)
        .map(|name| Path::new(CATALOGS).join(name))
        .collect())
}

async fn old_parts(store: &Store, partition: PartitionId, oldest: &Cut) -> Result<Vec<PathBuf>, ArchiveError> {
    let needed = match oldest.partitions.get(&partition) {
        // More than it needs is kept, if it is not plain what that is.
        Some(&at) => match store.contents(partition).await?.chain_to(at, |_| None) {
            Found::Chain(Chain { base: Some(base), .. }) => base.lsn,
            _ => return Ok(Vec::new()),
        },
        None => Lsn::MAX,
    };
    let (log, bases) = (log_of(partition), bases_of(partition));
    let is_old = |name: &&String| Segment::of_name(name).is_some_and(|segment| segment.last <= needed);
    let segments = store.names(&log).await?;
    let mut needless: Vec<PathBuf> = segments.iter().filter(is_old).map(|name| log.join(name)).collect();
    // What makes a base whole is last in order, and goes first: half of one is none.
    let is_old = |name: &&String| Base::of_name(name).is_some_and(|(base, _)| base.lsn < needed);
    let parts = store.names(&bases).await?;
    needless.extend(parts.iter().rev().filter(is_old).map(|name| bases.join(name)));
    Ok(needless)
}
