//! A standby: a cluster that goes on as an archived one does, cut by cut, and becomes one of its own when it is promoted.
//!
//! The leader of the metadata group finds the newest cut of which all is in the archive, and has every partition's primary read what its
//! partition lacks (`staging`). Then that happens in all of them by one transaction, each partition's position in the archive with it: so who reads
//! sees one cut, whoever dies, and two who both think that they lead do nothing twice. What is too much for one record takes longer, and
//! nobody reads meanwhile (`decide::Plan`).

mod decide;
mod listings;
mod staging;

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::time::{Duration, Instant, sleep};
use volt_engine::PartitionId;

use super::cuts::{Moments, catalog_of};
use super::layout::Cut;
use super::read::find_in;
use super::report::Following;
use super::store::{ArchiveError, Store};
use crate::error::SqlError;
use crate::metadata::ProposeError;
use crate::metadata::command::Command;
use crate::metadata::map::ClusterMap;
use crate::metadata::standby::{Standby, StandbyCommand};
use crate::replication::Replicas;
use crate::txn::{Coordinator, Destination};
use decide::{Plan, Positions, Promotion, as_of, behind, floor, hide, plan, promotion};
use listings::Listings;
use staging::way;
pub(crate) use staging::{PART_BYTES, Staged, Way, stage};

/// How often the archive is looked into, after an error too.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Longest pause between two looks.
const MAX_PAUSE: Duration = Duration::from_secs(10);
/// Cuts that are looked at before it is given up for that time: the newest are not whole yet.
const MAX_CUTS_TRIED: usize = 1_000;
/// Segments that a primary is told of: one that has more to read lists them itself.
const MAX_WAY: usize = 1_000;

#[derive(Debug, thiserror::Error)]
enum Stuck {
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error("{}", .0.message)]
    Sql(SqlError),
    #[error(transparent)]
    Metadata(#[from] ProposeError),
    #[error("there is nothing any more in the archive at {0}")]
    Empty(String),
    #[error("its partitions are of different moments, and the archive has none that all can come to")]
    NotWhole,
}

/// Follows an archive, while this node leads the metadata group of a standby.
pub(crate) async fn run(replicas: Arc<Replicas>, coordinator: Arc<Coordinator>) {
    let mut maps = replicas.metadata.watch();
    let mut follower = Follower::new(replicas, coordinator);
    loop {
        if maps.wait_for(|map| map.standby.is_some()).await.is_err() {
            return;
        }
        while let Some(standby) = follower.replicas.metadata.map().standby.clone() {
            let map = follower.replicas.metadata.map();
            let began = Instant::now();
            if map.restoring().is_some() || !follower.coordinator.leads_metadata() {
                follower.known.clear();
                follower.replicas.note_following(None);
            } else {
                let done = follower.round(&map, &standby).await;
                if matches!(done, Err(Stuck::Archive(_))) {
                    // What was known may be gone.
                    follower.known.clear();
                }
                follower.note(done.err());
            }
            // An archive that is slow to be looked into is not asked all the time.
            sleep(began.elapsed().clamp(LOOK_EVERY, MAX_PAUSE)).await;
        }
        follower.replicas.note_following(None);
    }
}

struct Follower {
    replicas: Arc<Replicas>,
    coordinator: Arc<Coordinator>,
    /// What the archive had of partitions at the last look.
    known: Listings,
    told: Following,
}

impl Follower {
    fn new(replicas: Arc<Replicas>, coordinator: Arc<Coordinator>) -> Self {
        Self {
            replicas,
            coordinator,
            known: Listings::default(),
            told: Following::default(),
        }
    }

    fn note(&mut self, failed: Option<Stuck>) {
        let problem = failed.map(|why| why.to_string());
        match (&problem, &self.told.problem) {
            (Some(why), None) => tracing::warn!(%why, "the standby does not get on; it is tried again"),
            (None, Some(_)) => tracing::info!("the standby goes on"),
            _ => {}
        }
        self.told.problem = problem;
        self.tell();
    }

    /// What is known so far, for who asks meanwhile.
    fn tell(&self) {
        self.replicas.note_following(Some(self.told.clone()));
    }

    async fn propose(&self, command: StandbyCommand) -> Result<(), ProposeError> {
        self.replicas
            .metadata
            .propose(Command::Standby(command))
            .await
            .map(drop)
    }

    /// One look, and what comes of it.
    async fn round(&mut self, map: &ClusterMap, standby: &Standby) -> Result<(), Stuck> {
        let positions = self.coordinator.positions().await.map_err(Stuck::Sql)?;
        self.told.as_of_micros = as_of(standby, &positions);
        let asked = standby.promotion;
        let is_settled = asked.is_some_and(|asked| asked.settled_micros.is_some());
        let is_torn = positions
            .values()
            .flatten()
            .any(|position| position.toward_micros.is_some());
        let goes_on = match asked {
            None => true,
            Some(asked) => is_torn || !asked.is_immediate && !is_settled,
        };
        let positions = match goes_on {
            true => self.go_on(map, standby, positions).await?,
            false => positions,
        };
        match asked {
            None => Ok(()),
            Some(_) => self.promote(positions).await,
        }
    }

    /// Brings all partitions to the newest cut that is whole; where they are then.
    async fn go_on(&mut self, map: &ClusterMap, standby: &Standby, positions: Positions) -> Result<Positions, Stuck> {
        let store = self.replicas.others_archive(&standby.url).await?;
        let Some(cut) = self.newest(&store, standby, &positions).await? else {
            return Ok(positions);
        };
        let is_settled = standby.promotion.is_some_and(|asked| asked.settled_micros.is_some());
        if !is_settled {
            let archived = match cut.map_version > standby.archived_version {
                true => Some(Box::new(catalog_of(&store, &cut).await?)),
                false => None,
            };
            if archived.as_deref().is_some_and(|archived| has_moved(map, archived)) {
                let hide = hide(&positions, &cut);
                self.coordinator.follow(hide).await.map_err(Stuck::Sql)?;
                self.told.as_of_micros = None;
                self.tell();
            }
            self.follow_catalog(map, standby, &cut, archived).await?;
        }
        let positions = self.coordinator.positions().await.map_err(Stuck::Sql)?;
        let destinations = self.destinations(&store, standby, &positions, &cut).await?;
        let staged = self.coordinator.stage(&destinations).await.map_err(Stuck::Sql)?;
        match plan(&positions, &staged, &cut) {
            Plan::Atomic(step) => self.coordinator.follow(step).await.map_err(Stuck::Sql)?,
            Plan::Long { mark, finish } => {
                tracing::info!("the standby takes over more than one transaction may change; it is not read meanwhile");
                self.coordinator.follow(mark).await.map_err(Stuck::Sql)?;
                self.told.as_of_micros = None;
                self.tell();
                self.coordinator.pour(&destinations).await.map_err(Stuck::Sql)?;
                self.coordinator.follow(finish).await.map_err(Stuck::Sql)?;
            }
        }
        let positions = self.coordinator.positions().await.map_err(Stuck::Sql)?;
        let standby = self.replicas.metadata.map().standby.clone();
        self.told.as_of_micros = standby.and_then(|standby| as_of(&standby, &positions));
        self.told.behind_records = self.told.behind_records.saturating_sub(lacked(&destinations));
        Ok(positions)
    }

    /// What the partitions that are not at a cut are to come to.
    async fn destinations(
        &self,
        store: &Store,
        standby: &Standby,
        positions: &Positions,
        cut: &Cut,
    ) -> Result<Vec<Destination>, Stuck> {
        let version = self.replicas.metadata.map().version;
        let mut destinations = Vec::new();
        for partition in behind(positions, cut) {
            let (Some(&from), Some(&record)) = (positions.get(&partition), cut.partitions.get(&partition)) else {
                continue;
            };
            let way = match self.known.of(partition) {
                Some(contents) => way(store, partition, contents, from, record).await?,
                None => None,
            };
            destinations.push(Destination {
                partition,
                from,
                url: standby.url.clone(),
                at_micros: cut.at_micros,
                record,
                way: way.filter(|way| way.len() <= MAX_WAY),
                version,
            });
        }
        Ok(destinations)
    }

    /// The catalog and the sequences of a cut, if they are others than those that there are.
    async fn follow_catalog(
        &self,
        map: &ClusterMap,
        standby: &Standby,
        cut: &Cut,
        archived: Option<Box<ClusterMap>>,
    ) -> Result<(), Stuck> {
        let is_known = |(id, one): (&_, &_)| map.sequences.get(id).is_none_or(|known| **known == *one);
        let moves = map.partitions.is_empty() && cut.at_micros > standby.at_micros;
        if archived.is_some() || moves || !cut.sequences.iter().all(is_known) {
            let command = StandbyCommand::Follow {
                at_micros: cut.at_micros,
                archived,
                sequences: cut.sequences.clone(),
            };
            self.propose(command).await?;
        }
        Ok(())
    }

    /// The newest cut that is whole, if partitions are behind it.
    async fn newest(&mut self, store: &Store, standby: &Standby, positions: &Positions) -> Result<Option<Cut>, Stuck> {
        let floor = floor(standby, positions);
        let is_settled = standby.promotion.is_some_and(|asked| asked.settled_micros.is_some());
        let (mut moments, mut asked) = (Moments::since(store, floor).await?, BTreeSet::new());
        let mut newest = None;
        for _ in 0..MAX_CUTS_TRIED {
            let cut = moments.next().await?;
            if newest.is_none() && cut.is_none() {
                return Err(Stuck::Empty(standby.url.clone()));
            }
            let Some(cut) = cut.filter(|cut| cut.at_micros >= floor) else {
                break;
            };
            if newest.is_none() {
                newest = Some(cut.at_micros);
                self.told.newest_micros = newest;
                self.told.behind_records = records_behind(positions, &cut);
            }
            let is_there = as_of(standby, positions) == Some(cut.at_micros);
            if is_there && behind(positions, &cut).is_empty() {
                return Ok(None);
            }
            // Once the promotion is settled no catalog comes any more.
            let has_catalog = !is_settled || cut.map_version <= standby.archived_version;
            if has_catalog && self.is_whole(store, (&cut, positions), &mut asked).await? {
                return Ok(Some(cut));
            }
        }
        Ok(None)
    }

    /// Whether all of a cut is in the archive. What lacked something is looked for anew, once in a round.
    async fn is_whole(
        &mut self,
        store: &Store,
        (cut, positions): (&Cut, &Positions),
        asked: &mut BTreeSet<PartitionId>,
    ) -> Result<bool, Stuck> {
        self.known.retain(cut);
        for (&partition, &at) in &cut.partitions {
            loop {
                if let Some(contents) = self.known.of(partition) {
                    match find_in(store, partition, contents, at).await {
                        Ok(_) => break,
                        Err(ArchiveError::Missing(_)) if !asked.contains(&partition) => {}
                        Err(ArchiveError::Missing(_)) => return Ok(false),
                        Err(error) => return Err(error.into()),
                    }
                }
                asked.insert(partition);
                let position = positions.get(&partition).copied().flatten();
                let from = position.map_or(0, |position| position.lsn);
                self.known.look(store, partition, (from, at.0)).await?;
            }
        }
        Ok(true)
    }

    /// The steps of a promotion, one after another.
    async fn promote(&mut self, mut positions: Positions) -> Result<(), Stuck> {
        loop {
            let map = self.replicas.metadata.map();
            let Some(standby) = &map.standby else { return Ok(()) };
            match promotion(standby, &positions) {
                Promotion::Settle(at_micros) => self.propose(StandbyCommand::Settle { at_micros }).await?,
                Promotion::End(step) => {
                    self.coordinator.follow(step).await.map_err(Stuck::Sql)?;
                    positions = self.coordinator.positions().await.map_err(Stuck::Sql)?;
                }
                Promotion::Done => {
                    tracing::info!("the standby is promoted");
                    self.propose(StandbyCommand::Promoted).await?;
                    return Ok(());
                }
                Promotion::NotWhole => return Err(Stuck::NotWhole),
            }
        }
    }
}

/// Whether a table lies in other partitions by now.
fn has_moved(map: &ClusterMap, archived: &ClusterMap) -> bool {
    let mut tables = archived.tables.iter();
    tables.any(|(id, table)| map.tables.get(id).is_some_and(|known| known.group != table.group))
}

/// How many records these partitions lack.
fn lacked(destinations: &[Destination]) -> u64 {
    let lacks = |destination: &Destination| {
        let has = destination.from.map_or(0, |position| position.lsn);
        destination.record.0.saturating_sub(has)
    };
    destinations.iter().map(lacks).sum()
}

fn records_behind(positions: &Positions, cut: &Cut) -> u64 {
    let lacks = |(partition, (lsn, _)): (&PartitionId, &(u64, u64))| {
        let position = positions.get(partition).copied().flatten();
        lsn.saturating_sub(position.map_or(0, |position| position.lsn))
    };
    cut.partitions.iter().map(lacks).sum()
}
