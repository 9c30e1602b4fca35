//! Partitions of a standby that follow an archive: what each lacks is read by its primary, and happens to all in one transaction.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};
use volt_engine::effects::{Effects, EffectsBuilder, LogPayload};
use volt_engine::followed::Position;
use volt_engine::idempotency::{FOLLOWED, RESERVED_TABLES};
use volt_engine::partition::RowsCursor;
use volt_engine::{Epoch, Lsn, PartitionId, TableId};

use super::Coordinator;
use super::optimistic::conflict;
use super::participant::{Participant, commit_wait};
use super::request::{Failure, Reply, Request, Work};
use super::serve::HOLD_WAIT;
use crate::archive::{ArchiveError, PART_BYTES, Staged, Way, stage};
use crate::error::SqlError;
use crate::metadata::map::ClusterMap;
use crate::replication::replica::Replica;
use crate::statement::CommitWait;

/// Partitions of one node that are read from the archive, or filled, at a time: each is in memory meanwhile.
const AT_ONCE: usize = 2;
/// Between two questions how far a primary is.
const ASK_AGAIN: Duration = Duration::from_millis(20);
/// Longest wait for all primaries to be through; what they have by then they keep, and are asked for again.
const MAX_WAIT: Duration = Duration::from_secs(600);

/// What a partition does as its part of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FollowWork {
    /// Only if it is here.
    pub(crate) expect: Option<Position>,
    /// Then it is here.
    pub(crate) put: Position,
    pub(crate) needs: Needs,
}

/// What besides its position a part changes, or must have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Needs {
    Nothing,
    /// What its primary has read from the archive happens with it.
    Staged,
    /// It has happened before.
    Poured,
}

/// Where a partition is to come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Destination {
    pub(crate) partition: PartitionId,
    /// From here.
    pub(crate) from: Option<Position>,
    /// The archive's.
    pub(crate) url: String,
    /// To the cut of this moment.
    pub(crate) at_micros: i64,
    /// Its record.
    pub(crate) record: (Lsn, Epoch),
    /// The records in between, as far as who leads this knows where they are.
    pub(crate) way: Option<Way>,
    /// The cluster map that has the cut's catalog.
    pub(crate) version: u64,
}

/// How far a primary is with what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Staging {
    /// Ask again.
    Working,
    /// It is read: is it too much for one record?
    Staged { is_large: bool },
    /// It has happened, but for the position.
    Poured,
    /// It is not where it was taken to be.
    Elsewhere,
    /// Why it can't be.
    Failed(String),
}

/// What primaries of this node have read.
pub(super) struct Stages {
    entries: Mutex<BTreeMap<PartitionId, Stage>>,
    turns: Semaphore,
}

impl Default for Stages {
    fn default() -> Self {
        Self {
            entries: Mutex::default(),
            turns: Semaphore::new(AT_ONCE),
        }
    }
}

struct Stage {
    from: Option<Position>,
    at_micros: i64,
    reign: Epoch,
    state: State,
}

enum State {
    Reading,
    Read(Staged),
    Pouring,
    Poured,
    Failed(String),
}

impl Stages {
    fn entries(&self) -> MutexGuard<'_, BTreeMap<PartitionId, Stage>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what became of it, unless something else was asked for meanwhile.
    fn note(&self, destination: &Destination, reign: Epoch, state: State) {
        let mut entries = self.entries();
        let entry = entries.get_mut(&destination.partition);
        if let Some(entry) = entry.filter(|entry| entry.is_for(destination, reign)) {
            entry.state = state;
        }
    }
}

impl Stage {
    fn is_for(&self, destination: &Destination, reign: Epoch) -> bool {
        (self.at_micros, self.from, self.reign) == (destination.at_micros, destination.from, reign)
    }
}

/// Nobody may read it: it is on its way from one cut to another.
pub(super) fn is_hidden(replica: &Replica) -> bool {
    let position = replica.engine.followed();
    position.is_some_and(|position| position.toward_micros.is_some())
}

impl Participant {
    /// Where each of these partitions is, as far as it is led here, and when nothing is undecided there: a step that was decided elsewhere
    /// may be on its way to it.
    pub(super) async fn positions(&self, partitions: &[PartitionId]) -> Reply {
        let deadline = Instant::now() + HOLD_WAIT;
        let mut positions = Vec::with_capacity(partitions.len());
        for &partition in partitions {
            loop {
                let position = self.replicas.with(partition, |replica| {
                    let leads = replica.reign().is_some_and(|reign| !reign.relinquishing) && self.lease_is_valid();
                    let is_open = replica.hold.holder().is_some_and(|holder| holder.voted.is_some());
                    leads.then(|| (!is_open).then(|| replica.engine.followed()))
                });
                match position.flatten() {
                    None => return Reply::Failed(Failure::NotPrimary),
                    Some(Some(position)) => {
                        positions.push((partition, position));
                        break;
                    }
                    Some(None) => {
                        if let Err(failure) = self.turn(partition, deadline).await {
                            return Reply::Failed(failure);
                        }
                    }
                }
            }
        }
        Reply::Positions(positions)
    }

    fn reign(&self, partition: PartitionId) -> Option<(Epoch, Option<Position>)> {
        let reign = self.replicas.with(partition, |replica| {
            let reign = replica.reign().filter(|reign| !reign.relinquishing)?;
            Some((reign.began_epoch, replica.engine.followed()))
        });
        reign.flatten().filter(|_| self.lease_is_valid())
    }

    /// Begins to read what a partition lacks, or says how far that is.
    pub(super) async fn serve_stage(self: &Arc<Self>, destination: Destination) -> Reply {
        if !matches!(self.serve_know(destination.version).await, Reply::Done) {
            return Reply::Failed(Failure::Busy);
        }
        let Some((reign, position)) = self.reign(destination.partition) else {
            return Reply::Failed(Failure::NotPrimary);
        };
        if position != destination.from {
            return Reply::Staging(Staging::Elsewhere);
        }
        {
            let mut entries = self.stages.entries();
            let known = entries.get(&destination.partition);
            let known = known.filter(|entry| entry.is_for(&destination, reign));
            let told = match known.map(|entry| &entry.state) {
                None => None,
                Some(State::Reading | State::Pouring) => Some(Staging::Working),
                Some(State::Read(staged)) => Some(Staging::Staged {
                    is_large: staged.is_large(),
                }),
                // It was poured from another place than this.
                Some(State::Poured) => None,
                Some(State::Failed(why)) => Some(Staging::Failed(why.clone())),
            };
            if matches!(told, Some(Staging::Failed(_))) {
                entries.remove(&destination.partition);
            }
            if let Some(told) = told {
                return Reply::Staging(told);
            }
            let entry = Stage {
                from: destination.from,
                at_micros: destination.at_micros,
                reign,
                state: State::Reading,
            };
            entries.insert(destination.partition, entry);
        }
        let participant = Arc::clone(self);
        tokio::spawn(async move {
            let _turn = participant.stages.turns.acquire().await;
            let read = participant.read(&destination).await;
            let state = match read {
                Ok(staged) => State::Read(staged),
                Err(why) => State::Failed(why.to_string()),
            };
            participant.stages.note(&destination, reign, state);
        });
        Reply::Staging(Staging::Working)
    }

    async fn read(&self, destination: &Destination) -> Result<Staged, ArchiveError> {
        let store = self.replicas.others_archive(&destination.url).await?;
        let known = (destination.way.as_ref(), destination.record);
        let map = self.replicas.metadata.map();
        stage(&store, (destination.partition, destination.from), known, &map).await
    }

    /// Begins to write what was read for a partition that nobody reads, or says how far that is.
    pub(super) fn serve_pour(self: &Arc<Self>, destination: Destination) -> Reply {
        let Some((reign, position)) = self.reign(destination.partition) else {
            return Reply::Failed(Failure::NotPrimary);
        };
        if position.and_then(|position| position.toward_micros) != Some(destination.at_micros) {
            return Reply::Staging(Staging::Elsewhere);
        }
        let staged = {
            let mut entries = self.stages.entries();
            let entry = entries.get_mut(&destination.partition);
            let Some(entry) = entry.filter(|entry| entry.is_for(&destination, reign)) else {
                return Reply::Staging(Staging::Elsewhere);
            };
            match std::mem::replace(&mut entry.state, State::Pouring) {
                State::Read(staged) => staged,
                State::Pouring => return Reply::Staging(Staging::Working),
                State::Failed(why) => {
                    entries.remove(&destination.partition);
                    return Reply::Staging(Staging::Failed(why));
                }
                state @ (State::Reading | State::Poured) => {
                    let is_poured = matches!(state, State::Poured);
                    entry.state = state;
                    return Reply::Staging(if is_poured { Staging::Poured } else { Staging::Elsewhere });
                }
            }
        };
        let participant = Arc::clone(self);
        tokio::spawn(async move {
            let _turn = participant.stages.turns.acquire().await;
            let state = match participant.pour(&destination, reign, staged).await {
                Ok(()) => State::Poured,
                Err(why) => State::Failed(why.message),
            };
            tracing::debug!(partition = destination.partition, "filled from the archive");
            participant.stages.note(&destination, reign, state);
        });
        Reply::Staging(Staging::Working)
    }

    async fn pour(&self, destination: &Destination, reign: Epoch, staged: Staged) -> Result<(), SqlError> {
        match staged {
            Staged::Parts(parts) => {
                for part in parts {
                    self.pour_some(destination, reign, &part).await?;
                }
            }
            Staged::Whole(state) => {
                let map = self.replicas.metadata.map();
                self.pour_some(destination, reign, &cleared(&map)).await?;
                let mut cursor: Option<RowsCursor> = None;
                loop {
                    let (effects, next) = state.rows_as_effects(cursor, PART_BYTES);
                    if let Some(effects) = effects {
                        self.pour_some(destination, reign, &effects).await?;
                    }
                    cursor = next;
                    if cursor.is_none() {
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// One record of it, when it is committed.
    async fn pour_some(&self, destination: &Destination, reign: Epoch, effects: &Effects) -> Result<(), SqlError> {
        let deadline = Instant::now() + HOLD_WAIT;
        loop {
            match self.append_some(destination, reign, effects)? {
                Some(wait) => {
                    let waited = self.replicas.wait_committed(&[wait]).await;
                    return waited.map_err(|(_, error)| error);
                }
                None => {
                    let turn = self.turn(destination.partition, deadline).await;
                    turn.map_err(|_| SqlError::unavailable("the partition stayed held for too long"))?;
                }
            }
        }
    }

    /// None: somebody has it.
    fn append_some(
        &self,
        destination: &Destination,
        reign: Epoch,
        effects: &Effects,
    ) -> Result<Option<CommitWait>, SqlError> {
        let deposed = || SqlError::unavailable("another node leads the partition");
        let appended = self.replicas.with_catalog(destination.partition, |replica| {
            let leads = replica
                .reign()
                .is_some_and(|now| now.began_epoch == reign && !now.relinquishing);
            let toward = replica.engine.followed().and_then(|position| position.toward_micros);
            if !leads || !self.lease_is_valid() || toward != Some(destination.at_micros) {
                return Err(deposed());
            }
            if self.not_now(replica, false).is_some() {
                return Ok(None);
            }
            self.memory.admit(Some(effects))?;
            let lsn = self.replicas.append(replica, &LogPayload::Write(effects.clone()));
            Ok(Some(commit_wait(replica, destination.partition, lsn, true)))
        });
        appended.unwrap_or_else(|| Err(deposed()))
    }

    /// What a part of a step does in a partition that is held for it.
    pub(super) fn follow(
        &self,
        replica: &Replica,
        partition: PartitionId,
        work: &FollowWork,
    ) -> Result<Effects, SqlError> {
        let reign = replica.reign().map(|reign| reign.began_epoch);
        let position = replica.engine.followed();
        // Whoever is late finds that it follows no more.
        if position != work.expect || position.is_some_and(|position| position.is_end) {
            return Err(conflict());
        }
        if work.needs == Needs::Nothing {
            return Ok(work.put.as_effects());
        }
        let entries = self.stages.entries();
        let entry = entries.get(&partition);
        let entry = entry.filter(|entry| entry.at_micros == work.put.at_micros && Some(entry.reign) == reign);
        match (work.needs, entry.map(|entry| &entry.state)) {
            (Needs::Staged, Some(State::Read(Staged::Parts(parts)))) if parts.len() <= 1 => {
                Ok(work.put.after(parts.first().cloned()))
            }
            (Needs::Poured, Some(State::Poured)) => Ok(work.put.as_effects()),
            _ => Err(conflict()),
        }
    }
}

/// What takes away all that a partition has, but for how far it is: also of tables that lie elsewhere, which move here, or have left.
pub(crate) fn cleared(map: &ClusterMap) -> Effects {
    let tables = map.tables.values().filter(|table| table.view.is_none());
    let kept = RESERVED_TABLES.into_iter().filter(|table| *table != FOLLOWED);
    let tables: Vec<TableId> = tables.map(|table| table.id).chain(kept).collect();
    let mut effects = EffectsBuilder::default();
    tables.into_iter().for_each(|table| effects.clear(table));
    effects.finish()
}

impl Coordinator {
    /// Where each partition of the cluster is.
    pub(crate) async fn positions(&self) -> Result<BTreeMap<PartitionId, Option<Position>>, SqlError> {
        let map = self.map();
        let nodes = self
            .by_primary(map.partitions.keys().copied())
            .ok_or_else(|| SqlError::unavailable("a partition has no primary"))?;
        let mut positions = BTreeMap::new();
        for (node, partitions) in nodes {
            match self.ask(node, Request::Positions { partitions }).await {
                Ok(Reply::Positions(known)) => positions.extend(known),
                _ => {
                    return Err(SqlError::unavailable(format!(
                        "node {node} does not say how far its partitions are"
                    )));
                }
            }
        }
        Ok(positions)
    }

    /// Has primaries read what these partitions lack: of each whether it is too much for one record.
    pub(crate) async fn stage(&self, destinations: &[Destination]) -> Result<BTreeMap<PartitionId, bool>, SqlError> {
        let staged = self
            .until_through(destinations, |destination| Request::Stage(destination.clone()))
            .await?;
        let staged = staged.into_iter().filter_map(|(partition, staging)| match staging {
            Staging::Staged { is_large } => Some((partition, is_large)),
            _ => None,
        });
        Ok(staged.collect())
    }

    /// Has primaries write what they have read for partitions that nobody reads.
    pub(crate) async fn pour(&self, destinations: &[Destination]) -> Result<(), SqlError> {
        self.until_through(destinations, |destination| Request::Pour(destination.clone()))
            .await
            .map(drop)
    }

    async fn until_through(
        &self,
        destinations: &[Destination],
        request: impl Fn(&Destination) -> Request,
    ) -> Result<BTreeMap<PartitionId, Staging>, SqlError> {
        let deadline = Instant::now() + MAX_WAIT;
        let (mut open, mut through): (Vec<&Destination>, _) = (destinations.iter().collect(), BTreeMap::new());
        loop {
            let asked = open
                .iter()
                .map(|destination| self.ask_primary(destination.partition, request(destination)));
            let answers = futures::future::join_all(asked).await;
            let mut still = Vec::new();
            for (destination, answer) in open.into_iter().zip(answers) {
                let partition = destination.partition;
                match answer {
                    Ok(Reply::Staging(Staging::Working)) => still.push(destination),
                    Ok(Reply::Staging(Staging::Failed(why))) => {
                        return Err(SqlError::unavailable(format!("partition {partition}: {why}")));
                    }
                    Ok(Reply::Staging(Staging::Elsewhere)) => return Err(conflict()),
                    Ok(Reply::Staging(staging)) => drop(through.insert(partition, staging)),
                    Ok(Reply::Failed(Failure::Sql(error))) => return Err(error),
                    _ => {
                        return Err(SqlError::unavailable(format!(
                            "partition {partition}: its primary can't be reached"
                        )));
                    }
                }
            }
            if still.is_empty() {
                return Ok(through);
            }
            if Instant::now() >= deadline {
                return Err(SqlError::unavailable("the primaries are still reading the archive"));
            }
            open = still;
            sleep(ASK_AGAIN).await;
        }
    }

    /// All of these parts in one transaction, or none.
    pub(crate) async fn follow(self: &Arc<Self>, step: BTreeMap<PartitionId, FollowWork>) -> Result<(), SqlError> {
        if step.is_empty() {
            return Ok(());
        }
        let parts = step
            .into_iter()
            .map(|(partition, work)| (partition, Work::Follow(work)));
        self.run_works(parts.collect(), &[], None).await.map(drop)
    }
}
