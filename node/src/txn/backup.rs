//! Reads of backups: what is committed there, as of a moment ago.
//!
//! Each partition shows a prefix of what it has committed, no older than the session's bound; several partitions, each its own, so not one
//! cut. A backup that is too old, is being filled, or can't be reached is left out, and where none is left the primary is read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use tokio::time::Instant;
use volt_engine::effects::TransactionId;
use volt_engine::error::StatementError;
use volt_engine::plan::Program;
use volt_engine::transaction::Writes;
use volt_engine::value::Value;
use volt_engine::{Lsn, NodeId, PartitionId};

use super::participant::{EncodedRows, Participant};
use super::pins::pin;
use super::request::{BackupRead, Failure, Pinned, Reply, Request};
use super::snapshot::Snapshot;
use super::{Coordinator, give_rows};
use crate::balancing::{Candidate, Strategy, choose};
use crate::error::SqlError;
use crate::metadata::map::ClusterMap;
use crate::peers::Line;
use crate::replication::freshness::is_sound_backup;
use crate::statement::{ReadSettings, RowSink};

/// Longest wait for a backup's answer; then another is asked. What is asked of it takes some milliseconds.
const BACKUP_LIMIT: Duration = Duration::from_secs(2);
/// The share of the newest answer in the moving average of a node's reads: one of so many.
const AVERAGE_OVER: u64 = 8;

/// Who reads of backups went to.
#[derive(Debug, Default)]
pub(crate) struct Balancer {
    turn: AtomicU64,
    nodes: Mutex<BTreeMap<NodeId, Reader>>,
    /// Partitions whose primary was read because no backup could be.
    fallbacks: AtomicU64,
}

/// What is known of a node that was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Reader {
    /// Partitions read.
    reads: u64,
    average_micros: Option<u64>,
}

impl Balancer {
    fn nodes(&self) -> MutexGuard<'_, BTreeMap<NodeId, Reader>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, node: NodeId, partitions: u64, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let mut nodes = self.nodes();
        let reader = nodes.entry(node).or_default();
        reader.reads += partitions;
        let average = reader.average_micros.unwrap_or(micros);
        reader.average_micros = Some(average - average / AVERAGE_OVER + micros / AVERAGE_OVER);
    }

    fn candidate(&self, node: NodeId, map: &ClusterMap) -> Candidate {
        Candidate {
            node,
            capacity: map.nodes.get(&node).map_or(0, |node| node.weight),
            latency_micros: self.nodes().get(&node).and_then(|reader| reader.average_micros),
        }
    }

    /// Partitions read at each node, and those whose primary was read instead.
    pub(crate) fn figures(&self) -> (Vec<(NodeId, u64)>, u64) {
        let reads = self
            .nodes()
            .iter()
            .map(|(node, reader)| (*node, reader.reads))
            .collect();
        (reads, self.fallbacks.load(Relaxed))
    }
}

impl Coordinator {
    /// The backups of a partition that are worth asking, best known.
    fn backups_of(&self, partition: PartitionId, map: &ClusterMap) -> Vec<Candidate> {
        let Some(info) = map.partitions.get(&partition) else {
            return Vec::new();
        };
        let is_worth_asking = |node: &NodeId| {
            is_sound_backup(info, *node)
                && map.is_alive(*node)
                && (*node == self.replicas.node_id || !self.replicas.peers.traffic.would_refuse(*node, Line::Data))
        };
        let nodes = info.in_sync.iter().copied().filter(is_worth_asking);
        nodes.map(|node| self.balancer.candidate(node, map)).collect()
    }

    /// Takes one of them out, by the strategy.
    fn take_one(&self, strategy: Strategy, candidates: &mut Vec<Candidate>) -> Option<NodeId> {
        let turn = self.balancer.turn.fetch_add(1, Relaxed);
        let place = choose(strategy, candidates, turn, self.replicas.world.random.next_u64())?;
        Some(candidates.remove(place).node)
    }

    async fn ask_backup(&self, node: NodeId, request: Request) -> Option<Reply> {
        if node == self.replicas.node_id {
            return Some(self.participant.serve(request).await);
        }
        self.calls.call(node, &request, BACKUP_LIMIT).await.ok()
    }

    /// Runs a program that only reads at a backup of its partition: how many rows it returned, and how old they may be in
    /// milliseconds. None: no backup can be read now.
    pub(crate) async fn read_backup(
        &self,
        partition: PartitionId,
        program: &Arc<Program>,
        parameters: &[Value],
        settings: &ReadSettings,
        sink: &mut dyn RowSink,
    ) -> Result<Option<(u64, u64)>, SqlError> {
        let request = Request::ReadBackup(BackupRead {
            partition,
            program: Program::clone(program),
            parameters: parameters.to_vec(),
            context: self.context(),
            max_staleness_ms: settings.max_staleness_ms,
        });
        let mut candidates = self.backups_of(partition, &self.map());
        while let Some(node) = self.take_one(settings.balance, &mut candidates) {
            let began = Instant::now();
            match self.ask_backup(node, request.clone()).await {
                Some(Reply::BackupRead {
                    rows,
                    affected,
                    staleness_ms,
                }) => {
                    self.balancer.note(node, 1, began.elapsed());
                    give_rows(&rows, sink)?;
                    return Ok(Some((affected, staleness_ms)));
                }
                Some(Reply::Failed(Failure::Sql(error))) => return Err(error),
                _ => {}
            }
        }
        self.balancer.fallbacks.fetch_add(1, Relaxed);
        Ok(None)
    }

    /// What backups of these partitions hold, each its own prefix of what is committed, and how old that may be in milliseconds; of
    /// those that no backup can be read of, a cut of what their primaries hold.
    pub(crate) async fn backup_snapshot(
        self: &Arc<Self>,
        partitions: &[PartitionId],
        settings: &ReadSettings,
    ) -> Result<(Arc<Snapshot>, u64), SqlError> {
        let snapshot = Arc::new(Snapshot::new(self, self.context()));
        let map = self.map();
        let mut left: BTreeMap<PartitionId, Vec<Candidate>> = partitions
            .iter()
            .map(|&partition| (partition, self.backups_of(partition, &map)))
            .collect();
        let (mut oldest, mut from_primaries) = (0, Vec::new());
        while !left.is_empty() {
            let mut asked: BTreeMap<NodeId, BTreeSet<PartitionId>> = BTreeMap::new();
            left.retain(
                |&partition, candidates| match self.take_one(settings.balance, candidates) {
                    Some(node) => asked.entry(node).or_default().insert(partition),
                    None => {
                        from_primaries.push(partition);
                        false
                    }
                },
            );
            let pinned = self.pin_at_backups(&snapshot, asked, settings.max_staleness_ms).await;
            for (partition, staleness_ms) in pinned {
                oldest = oldest.max(staleness_ms);
                left.remove(&partition);
            }
        }
        if !from_primaries.is_empty() {
            self.balancer.fallbacks.fetch_add(from_primaries.len() as u64, Relaxed);
            self.extend(&snapshot, &from_primaries).await?;
        }
        Ok((snapshot, oldest))
    }

    /// Has nodes keep what they hold; which partitions they could, and how old it may be.
    async fn pin_at_backups(
        &self,
        snapshot: &Snapshot,
        asked: BTreeMap<NodeId, BTreeSet<PartitionId>>,
        max_staleness_ms: u64,
    ) -> Vec<(PartitionId, u64)> {
        snapshot.asked(asked.keys().copied());
        let pins = asked.into_iter().map(|(node, partitions)| {
            let request = Request::PinBackup {
                transaction: snapshot.transaction(),
                partitions: partitions.into_iter().collect(),
                max_staleness_ms,
            };
            async move {
                let began = Instant::now();
                (node, self.ask_backup(node, request).await, began.elapsed())
            }
        });
        let mut all = Vec::new();
        for (node, reply, took) in join_all(pins).await {
            let Some(Reply::Pinned(pinned)) = reply else { continue };
            self.balancer.note(node, pinned.len() as u64, took);
            snapshot.add(pinned.iter().map(|pin| (pin.partition, (node, pin.lsn))));
            all.extend(pinned.iter().map(|pin| (pin.partition, pin.staleness_ms)));
        }
        all
    }
}

impl Participant {
    /// The LSN that a backup here shows, pinned once, with the catalog's version of then, and how old it may be; None: it can't be read.
    fn pin_here(&self, partition: PartitionId, max_staleness_ms: u64) -> Option<((Lsn, u64), u64)> {
        if !self.replicas.is_backup_here(partition) {
            return None;
        }
        let now = self.replicas.world.clock.boot_time();
        let pinned = self.replicas.with_catalog(partition, |replica| {
            // Rounded up: what is told is never less than it may be.
            let staleness = replica.staleness(now)?.as_micros().div_ceil(1_000);
            let staleness = u64::try_from(staleness).ok().filter(|&age| age <= max_staleness_ms)?;
            let lsn = replica.engine.applied();
            Some(((lsn, pin(replica, lsn)?), staleness))
        });
        pinned.flatten()
    }

    /// Runs a program at what a backup here holds.
    pub(super) fn serve_backup_read(&self, asked: &BackupRead) -> Reply {
        let BackupRead {
            partition,
            program,
            parameters,
            context,
            ..
        } = asked;
        if !program.is_read_only() {
            return Reply::Failed(Failure::Sql(SqlError::internal("a write for a backup")));
        }
        let Some(((lsn, _), staleness_ms)) = self.pin_here(*partition, asked.max_staleness_ms) else {
            return Reply::Failed(Failure::NotPrimary);
        };
        let mut rows = EncodedRows::default();
        let ran = self.replicas.with(*partition, |replica| {
            // Filled, or taken anew, since it was pinned.
            if !replica.engine.is_pinned(lsn) {
                return None;
            }
            let attempt = replica
                .engine
                .attempt(lsn, &Writes::default(), program, parameters, context, &mut |row| {
                    rows.push(row)
                });
            replica.engine.unpin(lsn);
            Some(attempt.result)
        });
        match ran.flatten() {
            Some(Ok((affected, _))) => Reply::BackupRead {
                rows: rows.0,
                affected,
                staleness_ms,
            },
            // It has not heard yet that the table lies here: others may have.
            Some(Err(StatementError::TableMoved)) | None => Reply::Failed(Failure::NotPrimary),
            Some(Err(error)) => Reply::Failed(Failure::Sql(error.into())),
        }
    }

    /// Keeps what backups here hold for a snapshot: of those that can be read.
    pub(super) fn serve_pin_backup(
        &self,
        transaction: TransactionId,
        partitions: &[PartitionId],
        max_staleness_ms: u64,
    ) -> Reply {
        let (mut pinned, mut kept) = (Vec::new(), Vec::new());
        for &partition in partitions {
            let Some(((lsn, catalog), staleness_ms)) = self.pin_here(partition, max_staleness_ms) else {
                continue;
            };
            kept.push((partition, (lsn, catalog)));
            pinned.push(Pinned {
                partition,
                lsn,
                staleness_ms,
            });
        }
        self.note_pinned(transaction, kept);
        Reply::Pinned(pinned)
    }
}
