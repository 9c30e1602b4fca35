//! Tells this node's partitions to one link's database: connects, takes over each partition that this node leads, and tells it, record by
//! record or, where records are missing, row by row. After an error it begins anew.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use tokio::time::{Duration, Instant, sleep, timeout};
use tokio_postgres::error::SqlState;
use volt_engine::changes::{Change, origin_of};
use volt_engine::{Epoch, Lsn, PartitionId};

use super::cluster::Cluster;
use super::outgoing::{self, Outgoing};
use super::postgres::Postgres;
use super::progress::{Progress, not_told};
use super::states::LinkStates;
use super::target::{Mark, NotTold, Piece, Target};
use crate::config::RemoteDatabase;
use crate::metadata::link::{Link, LinkTarget};
use crate::peers::remote;
use crate::peers::retry::half_and_random_half;
use crate::replication::replica::Replica;
use crate::replication::{Replicas, Slot, lock};

/// How often somebody looks whether there is something to tell.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How far a partition is told is noted without changes so often, and after so many records.
const NOTE_EVERY: Duration = Duration::from_secs(10);
const NOTE_RECORDS: Lsn = 100_000;
/// Longest time for a connection, and for a piece; then the connection is given up.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
const PIECE_LIMIT: Duration = Duration::from_secs(60);
/// The longest pause after an error; the first ones are shorter.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A link's database, or why it is none.
pub(crate) fn remote_database(target: &LinkTarget) -> Result<RemoteDatabase, String> {
    RemoteDatabase::new(&target.url, target.password_file.as_ref().map(PathBuf::from))
}

/// Tells until the task is aborted.
pub(super) async fn run(link: Arc<Link>, replicas: Arc<Replicas>, states: Arc<LinkStates>) {
    let sender = Sender { link, replicas, states };
    let (mut tries, mut failures) = (0, 0_u32);
    loop {
        let begun = Instant::now();
        let Err(why) = sender.session(tries).await;
        tries += 1;
        // What went well for a while is no row of failures.
        failures = if begun.elapsed() > LONGEST_PAUSE {
            1
        } else {
            failures.saturating_add(1)
        };
        let is_new = sender.states.set_error(sender.link.id, Some(why.to_string()));
        if is_new {
            tracing::warn!(link = sender.link.name, %why, "a replication link stands still; it is tried again");
        }
        let longest = FIRST_PAUSE.saturating_mul(1 << failures.min(16)).min(LONGEST_PAUSE);
        let draw = sender.replicas.world.random.next_u64();
        sleep(half_and_random_half(longest, draw)).await;
    }
}

pub(super) struct Sender {
    pub(super) link: Arc<Link>,
    replicas: Arc<Replicas>,
    pub(super) states: Arc<LinkStates>,
}

/// How far a partition is told, of one reign and one connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) began_epoch: Epoch,
    pub(super) told: Lsn,
    /// As the other database has it.
    pub(super) noted: Lsn,
    pub(super) noted_at: Instant,
}

/// What a partition has to tell next.
enum Work {
    Nothing,
    Tell(Outgoing, Epoch),
    Copy { snapshot: Lsn, since: Lsn },
}

impl Sender {
    /// Ends with an error only.
    async fn session(&self, tries: usize) -> Result<std::convert::Infallible, NotTold> {
        let limit = timeout(CONNECT_LIMIT, self.connect(tries));
        let late = || NotTold::Remote(format!("no connection within {} s", CONNECT_LIMIT.as_secs()));
        let target = limit.await.map_err(|_| late())??;
        let mut places: BTreeMap<PartitionId, Place> = BTreeMap::new();
        loop {
            let map = self.replicas.metadata.map();
            let groups: BTreeSet<_> = self
                .link
                .tables
                .iter()
                .filter_map(|id| Some(map.tables.get(id)?.group))
                .collect();
            let mut has_told = false;
            for slot in self.replicas.all() {
                let partition = lock(&slot).partition;
                let is_linked = map
                    .partitions
                    .get(&partition)
                    .is_some_and(|info| groups.contains(&info.group));
                if !is_linked {
                    continue;
                }
                match self.tell(&*target, &slot, &mut places).await {
                    Ok(told) => has_told |= told,
                    // It is looked for again, by whoever leads it.
                    Err(NotTold::Moved(partition)) => drop(places.remove(&partition)),
                    Err(error) => return Err(error),
                }
            }
            self.states
                .retain_partitions(self.link.id, |partition| places.contains_key(&partition));
            if self.states.set_error(self.link.id, None) {
                tracing::info!(link = self.link.name, "the replication link goes on");
            }
            if !has_told {
                sleep(LOOK_EVERY).await;
            }
        }
    }

    async fn connect(&self, tries: usize) -> Result<Box<dyn Target>, NotTold> {
        let database = remote_database(&self.link.target).map_err(NotTold::Remote)?;
        let (client, carrier) = remote::connect(&self.replicas.world, &database, tries)
            .await
            .map_err(NotTold::Remote)?;
        let cluster_uuid = self.replicas.metadata.map().cluster_uuid.clone();
        let progress = Progress {
            cluster_uuid,
            link: self.link.id,
            owner: self.replicas.world.random.next_u64().cast_signed(),
        };
        let there = client.query_opt("SELECT cluster_uuid FROM system.cluster", &[]).await;
        let there: String = match there {
            Ok(Some(row)) => row.try_get(0).map_err(not_told)?,
            Ok(None) => return Err(NotTold::Remote("a VoltCluster without a UUID".to_owned())),
            Err(error)
                if matches!(
                    error.code(),
                    Some(&SqlState::UNDEFINED_TABLE | &SqlState::INVALID_SCHEMA_NAME)
                ) =>
            {
                return Ok(Box::new(Postgres::new(client, carrier, progress)));
            }
            Err(error) => return Err(not_told(error)),
        };
        if there == progress.cluster_uuid {
            return Err(NotTold::Remote("the link leads to its own cluster".to_owned()));
        }
        let (link, origin) = (self.link.name.clone(), origin_of(&there));
        Ok(Box::new(Cluster::new((client, carrier), progress, link, origin).await?))
    }

    /// Tells what a partition has to tell next, if this node leads it; false: nothing.
    async fn tell(
        &self,
        target: &dyn Target,
        slot: &Slot,
        places: &mut BTreeMap<PartitionId, Place>,
    ) -> Result<bool, NotTold> {
        let (partition, reign) = {
            let replica = lock(slot);
            (replica.partition, replica.reign().map(|reign| reign.began_epoch))
        };
        let Some(began_epoch) = reign.filter(|_| self.replicas.metadata.lease().is_valid()) else {
            places.remove(&partition);
            lock(slot).linked.remove(&self.link.id);
            return Ok(false);
        };
        let place = match places.get(&partition).filter(|place| place.began_epoch == began_epoch) {
            Some(place) => *place,
            None => self.take_over(target, slot, began_epoch).await?,
        };
        places.insert(partition, place);
        let work = self.next(&mut lock(slot), &place)?;
        let place = match work {
            Work::Nothing => {
                self.note_caught_up(partition, place.told);
                return Ok(false);
            }
            Work::Copy { snapshot, since } => self.copy(target, slot, place, (since, snapshot)).await?,
            Work::Tell(outgoing, epoch) => {
                let to = Mark {
                    lsn: outgoing.to,
                    epoch,
                };
                self.tell_records(target, (partition, place), (outgoing.changes, to))
                    .await?
            }
        };
        places.insert(partition, place);
        let mut replica = lock(slot);
        if replica.reign().is_some_and(|reign| reign.began_epoch == began_epoch) {
            replica.linked.insert(self.link.id, place.told);
        }
        let behind = replica.committed.saturating_sub(place.told);
        self.states.change(self.link.id, partition, |told| {
            (told.told, told.behind, told.is_copying) = (place.told, behind, false);
        });
        Ok(true)
    }

    fn note_caught_up(&self, partition: PartitionId, lsn: Lsn) {
        let now = self.replicas.world.clock.unix_micros();
        self.states.change(self.link.id, partition, |told| {
            (told.told, told.behind, told.is_copying) = (lsn, 0, false);
            told.caught_up_micros = Some(now);
        });
    }

    /// A partition that was never told is copied first.
    async fn take_over(&self, target: &dyn Target, slot: &Slot, began_epoch: Epoch) -> Result<Place, NotTold> {
        let partition = lock(slot).partition;
        let noted = timeout(PIECE_LIMIT, target.take_over(partition)).await;
        let noted = noted.map_err(|_| late())??;
        // Of an asynchronous partition records may have been told that are lost here: what came in their places is told from there on.
        let told = noted.map_or(0, |noted| {
            let replica = lock(slot);
            noted.lsn.min(replica.history.end_of(noted.epoch, replica.committed))
        });
        let place = Place {
            began_epoch,
            told,
            noted: told,
            noted_at: Instant::now(),
        };
        let link = &self.link.name;
        tracing::debug!(link, partition, ?noted, told, "a partition is told from here");
        if noted.is_some() {
            return Ok(place);
        }
        let snapshot = self.pin(&mut lock(slot), began_epoch)?;
        self.copy(target, slot, place, (0, snapshot)).await
    }

    fn pin(&self, replica: &mut Replica, began_epoch: Epoch) -> Result<Lsn, NotTold> {
        let partition = replica.partition;
        let leads = replica.reign().is_some_and(|reign| reign.began_epoch == began_epoch);
        if !leads || !self.replicas.metadata.lease().is_valid() {
            return Err(NotTold::Moved(partition));
        }
        let snapshot = replica.committed;
        assert!(replica.engine.pin(snapshot), "what is committed can be pinned");
        // Records beyond are kept while the rows are told.
        replica.linked.insert(self.link.id, snapshot);
        Ok(snapshot)
    }

    fn next(&self, replica: &mut Replica, place: &Place) -> Result<Work, NotTold> {
        let partition = replica.partition;
        if replica
            .reign()
            .is_none_or(|reign| reign.began_epoch != place.began_epoch)
        {
            return Err(NotTold::Moved(partition));
        }
        if replica.committed <= place.told {
            return Ok(Work::Nothing);
        }
        let span = (place.told, replica.committed);
        let records = replica.tail.after(place.told);
        let outgoing = records.and_then(|records| outgoing::next(&self.link.tables, span, records));
        match outgoing {
            Some(outgoing) if outgoing.to == place.told => Ok(Work::Nothing),
            Some(outgoing) => {
                let epoch = replica.history.epoch_at(outgoing.to);
                Ok(Work::Tell(outgoing, epoch))
            }
            None if replica.engine.forgotten() > place.told => Err(NotTold::Forgotten(partition)),
            None => Ok(Work::Copy {
                snapshot: self.pin(replica, place.began_epoch)?,
                since: place.told,
            }),
        }
    }

    async fn tell_records(
        &self,
        target: &dyn Target,
        (partition, mut place): (PartitionId, Place),
        (changes, to): (Vec<Change>, Mark),
    ) -> Result<Place, NotTold> {
        let changes = news(target, changes);
        place.told = to.lsn;
        let is_due = place.noted_at.elapsed() >= NOTE_EVERY || place.told - place.noted >= NOTE_RECORDS;
        if changes.is_empty() && !is_due {
            return Ok(place);
        }
        let piece = Piece {
            partition,
            changes: &changes,
            told: Some(to),
        };
        self.tell_piece(target, piece).await?;
        (place.noted, place.noted_at) = (place.told, Instant::now());
        Ok(place)
    }

    pub(super) async fn tell_piece(&self, target: &dyn Target, piece: Piece<'_>) -> Result<(), NotTold> {
        let (partition, changes) = (piece.partition, piece.changes.len() as u64);
        // Of now: no row is older than the catalog that this node's primaries wrote it by.
        let map = self.replicas.metadata.map();
        let told = timeout(PIECE_LIMIT, target.tell(&map, piece)).await;
        let conflicts = told.map_err(|_| late())??;
        self.states.count(self.link.id, partition, changes, conflicts);
        Ok(())
    }
}

fn late() -> NotTold {
    NotTold::Remote(format!("no answer within {} s", PIECE_LIMIT.as_secs()))
}

/// The changes but for those that the other cluster has made itself.
pub(super) fn news(target: &dyn Target, changes: Vec<Change>) -> Vec<Change> {
    let there = target.origin();
    let is_news = |change: &Change| Some(change.version.origin) != there;
    changes.into_iter().filter(is_news).collect()
}
