//! Consistent cuts: the moments to which a cluster can be restored.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use tokio::time::{Instant, MissedTickBehavior, interval};
use volt_engine::PartitionId;

use super::layout::{CUTS, Cut, Kind, catalog, cuts_before, cuts_of_name, cuts_path};
use super::ship::Archiver;
use super::store::{ArchiveError, Store};
use crate::config::ArchiveConfig;
use crate::error::SqlError;
use crate::metadata::map::ClusterMap;
use crate::txn::Coordinator;
use crate::world::PlantedBug;

/// Cuts that wait while the archive can't be written; beyond, the oldest are lost.
const MAX_WAITING: usize = 3_600;

/// Objects that are read together: cuts of leaders that followed each other may lie in any of them.
const OVERLAPPING: usize = 2;

/// Takes cuts while this node leads the metadata group, and archives them and their catalogs.
pub(super) async fn run(config: ArchiveConfig, store: Store, coordinator: Arc<Coordinator>, archiver: Arc<Archiver>) {
    let mut ticks = interval(config.cut_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut waiting: Vec<Cut> = Vec::new();
    let (mut archived, mut catalog_version) = (Instant::now(), None);
    loop {
        ticks.tick().await;
        if coordinator.leads_metadata() {
            match take(&store, &coordinator, &mut catalog_version).await {
                Ok(cut) => waiting.push(cut),
                Err(why) => tracing::debug!(%why, "no cut was taken"),
            }
        }
        let excess = waiting.len().saturating_sub(MAX_WAITING);
        waiting.drain(..excess);
        let Some(last) = waiting.last().filter(|_| archived.elapsed() >= config.interval) else {
            continue;
        };
        let path = cuts_path(last.at_micros, coordinator.boot_id());
        archived = Instant::now();
        match store.put(&path, Kind::Cuts, &waiting).await {
            Ok(_) => {
                archiver.note_cut(last.at_micros);
                waiting.clear();
            }
            Err(why) => tracing::debug!(%why, "the cuts are not archived yet"),
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum NoCut {
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error("{}", .0.message)]
    Sql(SqlError),
    #[error("no majority confirms that this node leads the metadata group")]
    NotConfirmed,
    #[error("the catalog changed meanwhile")]
    Changed,
    #[error("the database is being restored")]
    Restoring,
    #[error("the cluster is a standby")]
    Standby,
}

/// `catalog_version`: the map's version under which the catalog was archived, and the catalog's.
async fn take(store: &Store, coordinator: &Arc<Coordinator>, archived: &mut Option<(u64, u64)>) -> Result<Cut, NoCut> {
    // Who has just begun to lead may not know yet what there is.
    if !coordinator.surely_leads_metadata().await {
        return Err(NoCut::NotConfirmed);
    }
    let before = coordinator.cluster_map();
    if before.restoring().is_some() {
        return Err(NoCut::Restoring);
    }
    if before.standby.is_some() {
        return Err(NoCut::Standby);
    }
    let partitions: Vec<PartitionId> = before.partitions.keys().copied().collect();
    // Before: whoever is told of a write after this moment finds it in the cut.
    let at_micros = coordinator.context().now_micros;
    let mut held: Vec<&[PartitionId]> = vec![&partitions];
    if coordinator.has(PlantedBug::CutNotHeld) {
        held = partitions.chunks(1).collect();
    }
    let mut at = BTreeMap::new();
    for partitions in held {
        let snapshot = coordinator.snapshot(partitions).await.map_err(NoCut::Sql)?;
        at.extend(
            partitions
                .iter()
                .filter_map(|partition| Some((*partition, snapshot.record(*partition)?))),
        );
    }
    let after = coordinator.cluster_map();
    if after.catalog_version != before.catalog_version {
        return Err(NoCut::Changed);
    }
    let map_version = match *archived {
        Some((map_version, catalog_version)) if catalog_version == after.catalog_version => map_version,
        _ => {
            let path = catalog(after.version);
            store.put(&path, Kind::Catalog, &*after).await?;
            *archived = Some((after.version, after.catalog_version));
            after.version
        }
    };
    Ok(Cut {
        at_micros,
        map_version,
        partitions: at,
        sequences: after.sequences.iter().map(|(id, one)| (*id, (**one).clone())).collect(),
    })
}

/// Cuts from the newest that is not after a moment backwards, read as they are asked for.
pub(super) struct Moments<'a> {
    store: &'a Store,
    until_micros: i64,
    /// Objects that are not read yet, oldest first.
    names: Vec<String>,
    /// Cuts that are, oldest first.
    read: Vec<Cut>,
}

impl<'a> Moments<'a> {
    /// Those until then.
    pub(super) async fn of(store: &'a Store, until_micros: i64) -> Result<Self, ArchiveError> {
        Self::among(store, store.names(Path::new(CUTS)).await?, until_micros)
    }

    /// Those from then on, and some before. What is asked of the archive does not grow with what is kept there.
    pub(super) async fn since(store: &'a Store, since_micros: i64) -> Result<Self, ArchiveError> {
        let names = store.names_after(Path::new(CUTS), &cuts_before(since_micros)).await?;
        Self::among(store, names, i64::MAX)
    }

    fn among(store: &'a Store, mut names: Vec<String>, until_micros: i64) -> Result<Self, ArchiveError> {
        names.retain(|name| cuts_of_name(name).is_some());
        // An object has the cuts up to its time, and two leaders may have written at once: those that end later may begin before.
        let beyond = names
            .iter()
            .filter(|name| cuts_of_name(name) > Some(until_micros))
            .count();
        names.truncate(names.len() - beyond.saturating_sub(OVERLAPPING));
        Ok(Self {
            store,
            until_micros,
            names,
            read: Vec::new(),
        })
    }

    pub(super) async fn next(&mut self) -> Result<Option<Cut>, ArchiveError> {
        while self.read.is_empty() {
            let last = self.names.len().saturating_sub(OVERLAPPING);
            if self.names.is_empty() {
                return Ok(None);
            }
            for name in self.names.drain(last..) {
                let cuts: Vec<Cut> = self.store.get(&Path::new(CUTS).join(name), Kind::Cuts).await?;
                self.read.extend(cuts);
            }
            self.read.retain(|cut| cut.at_micros <= self.until_micros);
            self.read.sort_by_key(|cut| cut.at_micros);
        }
        Ok(self.read.pop())
    }
}

/// The catalog of a cut.
pub(super) async fn catalog_of(store: &Store, cut: &Cut) -> Result<ClusterMap, ArchiveError> {
    let mut map: ClusterMap = store.get(&catalog(cut.map_version), Kind::Catalog).await?;
    for (id, sequence) in &cut.sequences {
        map.sequences.insert(*id, Arc::new(sequence.clone()));
    }
    Ok(map)
}
