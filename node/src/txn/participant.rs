//! What a primary does for transactions: the steps of single-partition execution, of two-phase commit and of
//! snapshots, each under the partition's mutex, none waiting there.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::sync::oneshot;
use volt_engine::effects::{LogPayload, TransactionId};
use volt_engine::error::StatementError;
use volt_engine::idempotency::{KeptRows, Keyed};
use volt_engine::partition::{Failed, Outcome, Partition};
use volt_engine::plan::{Program, StatementContext};
use volt_engine::value::{Value, ValueRef};
use volt_engine::{Lsn, PartitionId, TableId};
use volt_wasm::Modules;

use super::arriving::Arrived;
use super::expiry::Expiry;
use super::follow::{Stages, is_hidden};
use super::holding::Holdings;
use super::memory::MemoryGuard;
use super::optimistic::{conflict, still_right};
use super::pins::Pins;
use super::request::{Changed, Failure, Held, KeyedAt, Work};
use super::resolve::OldHold;
use super::sequences::Sequences;
use super::stuck::Stuck;
use crate::error::SqlError;
use crate::links::LinkStates;
use crate::replication::hold::Asked;
use crate::replication::replica::Replica;
use crate::replication::{Replicas, TAIL_LIMIT_BYTES, lock};
use crate::statement::CommitWait;
use crate::world::PlantedBug;

/// Records of one partition that may wait for their backups; beyond, transactions wait before they run.
const MAX_UNCOMMITTED_RECORDS: Lsn = 100_000;
/// Bytes of records of one partition that may be kept for backups and learners; beyond, writes wait before they run.
const MAX_TAIL_BYTES: usize = 128 << 20;
const _: () = assert!(
    MAX_TAIL_BYTES > TAIL_LIMIT_BYTES,
    "a learner alone doesn't stop writers"
);
/// Bytes that may wait for the disk; beyond, writes wait before they run.
const MAX_LOG_QUEUE_BYTES: usize = 256 << 20;
/// Transactions and statements that may wait for one partition's hold.
const MAX_WAITING: usize = 10_000;
/// The transaction layer's side of the replicas that are primaries here.
pub(crate) struct Participant {
    pub(crate) replicas: Arc<Replicas>,
    pub(super) pins: Pins,
    pub(crate) memory: Arc<MemoryGuard>,
    pub(super) modules: Modules,
    /// This node's values of sequences.
    pub(crate) sequences: Arc<Sequences>,
    /// What has expired here.
    pub(crate) expiry: Arc<Expiry>,
    /// How far partitions led here are told over links.
    pub(crate) links: Arc<LinkStates>,
    /// What came of tables that move to partitions led here.
    pub(super) arrived: Mutex<BTreeMap<(TableId, PartitionId), Arrived>>,
    /// Why tables can't be moved on now from partitions that this node leads.
    pub(super) stuck: Stuck,
    /// What partitions of a standby lack, as far as it is read here.
    pub(super) stages: Stages,
    /// Requests that were answered with what was kept under their keys.
    pub(super) repeats: AtomicU64,
    /// Who of this node's transactions may hold partitions, anywhere.
    pub(super) holdings: Arc<Holdings>,
}

/// What came of running a program here and now.
pub(crate) enum Ran {
    /// It ran; what it did or saw may have to be waited for.
    Done { affected: u64, wait: Option<CommitWait> },
    /// It failed, having seen this.
    Failed { error: SqlError, wait: Option<CommitWait> },
    /// Not the primary here, or no lease.
    NotPrimary,
    /// A transaction over several partitions has it.
    Held,
}

impl Participant {
    pub(crate) fn new(replicas: Arc<Replicas>, memory: Arc<MemoryGuard>, sequences: Arc<Sequences>) -> Self {
        Self {
            replicas,
            pins: Pins::default(),
            memory,
            modules: Modules::default(),
            sequences,
            expiry: Arc::default(),
            links: Arc::default(),
            arrived: Mutex::default(),
            stuck: Mutex::default(),
            stages: Stages::default(),
            repeats: AtomicU64::default(),
            holdings: Arc::default(),
        }
    }

    pub(super) fn has(&self, bug: PlantedBug) -> bool {
        self.replicas.world.planted.has(bug)
    }

    pub(super) fn lease_is_valid(&self) -> bool {
        self.replicas.metadata.lease().is_valid() || self.has(PlantedBug::LeaseIgnored)
    }

    /// Runs a transaction of one partition, if this node leads it and nobody holds it.
    pub(crate) fn run(
        &self,
        partition: PartitionId,
        program: &Program,
        parameters: &[Value],
        context: &StatementContext,
        key: Option<&Keyed>,
        sink: &mut dyn FnMut(&[ValueRef<'_>]),
    ) -> Ran {
        self.run_here(partition, program.is_read_only(), key, sink, |engine, sink| {
            let accepted = engine.accept(program);
            accepted.map_err(|error| Failed { observed: 0, error })?;
            engine.run(program, parameters, context, sink)
        })
    }

    /// Runs something in a partition, if this node leads it and nobody holds it, and puts its effects on record; what has
    /// happened under its key is answered again.
    pub(super) fn run_here(
        &self,
        partition: PartitionId,
        read_only: bool,
        key: Option<&Keyed>,
        sink: &mut dyn FnMut(&[ValueRef<'_>]),
        run: impl FnOnce(&mut Partition, &mut dyn FnMut(&[ValueRef<'_>])) -> Result<Outcome, Failed>,
    ) -> Ran {
        let ran = self.replicas.with_catalog(partition, |replica| {
            if let Some(not) = self.not_now(replica, read_only) {
                return not;
            }
            if let Some(again) = self.answer_again(replica, key, sink) {
                return again;
            }
            if !read_only {
                replica.complete_unique_indexes();
            }
            let mut rows = KeptRows::default();
            let result = match key {
                None => run(&mut replica.engine, sink),
                Some(_) => run(&mut replica.engine, &mut |row| {
                    rows.push(row);
                    sink(row);
                }),
            };
            // Read first, then check the lease, then answer.
            if !self.lease_is_valid() {
                return Ran::NotPrimary;
            }
            let outcome = match result {
                Ok(outcome) => outcome,
                Err(failed) if failed.error == StatementError::ViewNotBuilt => return Ran::NotPrimary,
                Err(failed) => {
                    let wait = read_wait(replica, partition, failed.observed);
                    return Ran::Failed {
                        error: failed.error.into(),
                        wait,
                    };
                }
            };
            let admitted = self.memory.admit(outcome.effects.as_ref());
            let effects = admitted.and_then(|()| self.keep(replica, key, outcome.affected, &rows, outcome.effects));
            let effects = match effects {
                Ok(effects) => effects,
                Err(error) => {
                    let wait = read_wait(replica, partition, outcome.observed);
                    return Ran::Failed { error, wait };
                }
            };
            let Some(effects) = effects else {
                return Ran::Done {
                    affected: outcome.affected,
                    wait: read_wait(replica, partition, outcome.observed),
                };
            };
            let lsn = self.replicas.append(replica, &LogPayload::Write(effects));
            let wait = write_wait(replica, partition, lsn);
            Ran::Done {
                affected: outcome.affected,
                wait,
            }
        });
        ran.unwrap_or(Ran::NotPrimary)
    }

    /// Why nothing can run in this partition now.
    pub(super) fn not_now(&self, replica: &Replica, read_only: bool) -> Option<Ran> {
        if replica.reign().is_none_or(|reign| reign.relinquishing) {
            return Some(Ran::NotPrimary);
        }
        if read_only && is_hidden(replica) {
            return Some(Ran::NotPrimary);
        }
        let overloaded = replica.appended - replica.committed > MAX_UNCOMMITTED_RECORDS
            || replica.tail.bytes() > MAX_TAIL_BYTES
            || self.replicas.log.queued_bytes() > MAX_LOG_QUEUE_BYTES;
        let held = replica.hold.holder().is_some() && !(read_only && self.has(PlantedBug::PreparedServed));
        (held || (overloaded && !read_only)).then_some(Ran::Held)
    }

    /// Waits for the end of a hold, in turn with other statements.
    pub(crate) fn statement_turn(&self, partition: PartitionId) -> Result<oneshot::Receiver<()>, Failure> {
        let turn = self.replicas.with(partition, |replica| {
            (replica.hold.waiting() < MAX_WAITING).then(|| replica.hold.wait_statement())
        });
        turn.flatten().ok_or(Failure::Busy)
    }

    /// Takes a partition for a transaction, now: the LSN it then stands at, or how to wait for a turn.
    pub(crate) fn hold(
        &self,
        transaction: TransactionId,
        partition: PartitionId,
    ) -> Result<Held, Result<oneshot::Receiver<()>, Failure>> {
        let now_ms = self.replicas.now_ms();
        let held = self.replicas.with(partition, |replica| {
            if replica.reign().is_none_or(|reign| reign.relinquishing) || !self.lease_is_valid() {
                return Err(Err(Failure::NotPrimary));
            }
            if replica.engine.decision(transaction).is_some() {
                return Err(Err(Failure::Wounded));
            }
            match replica.hold.ask(transaction, now_ms) {
                Asked::Granted => {
                    let lsn = replica.engine.applied();
                    let epoch = replica.history.epoch_at(lsn);
                    Ok(Held { partition, lsn, epoch })
                }
                Asked::Busy if replica.hold.waiting() >= MAX_WAITING => Err(Err(Failure::Busy)),
                Asked::Busy => Err(Ok(replica.hold.wait_transaction(transaction))),
            }
        });
        held.unwrap_or(Err(Err(Failure::NotPrimary)))
    }

    /// Does a part in a held partition and keeps its effects for the vote, to which a key may be added.
    pub(crate) fn execute(
        &self,
        transaction: TransactionId,
        partition: PartitionId,
        work: &Work,
        parameters: &[Value],
        context: &StatementContext,
        has_key: bool,
    ) -> Result<Changed, Box<(Failure, Option<CommitWait>)>> {
        let executed = self.replicas.with_catalog(partition, |replica| {
            if replica.reign().is_none() {
                return Err(Box::new((Failure::NotPrimary, None)));
            }
            if replica.hold.held_by(transaction).is_none() {
                return Err(Box::new((Failure::Wounded, None)));
            }
            replica.complete_unique_indexes();
            if let Work::Program(program) = work
                && let Err(error) = replica.engine.accept(program)
            {
                return Err(Box::new((Failure::Sql(error.into()), None)));
            }
            let mut rows = EncodedRows::default();
            let mut sink = |row: &[ValueRef<'_>]| rows.push(row);
            let (affected, effects) = match work {
                Work::Program(program) => match replica.engine.run(program, parameters, context, &mut sink) {
                    Ok(outcome) => (outcome.affected, outcome.effects.unwrap_or_default()),
                    Err(failed) => {
                        let wait = read_wait(replica, partition, failed.observed);
                        return Err(Box::new((Failure::Sql(failed.error.into()), wait)));
                    }
                },
                Work::Buffered(buffered) if still_right(replica, buffered) => (0, buffered.effects.clone()),
                Work::Buffered(_) => return Err(Box::new((Failure::Sql(conflict()), None))),
                Work::Follow(work) => match self.follow(replica, partition, work) {
                    Ok(effects) => (0, effects),
                    Err(error) => return Err(Box::new((Failure::Sql(error), None))),
                },
            };
            if let Err(error) = self.memory.admit(Some(&effects)) {
                return Err(Box::new((Failure::Sql(error), None)));
            }
            if has_key && let Err(error) = replica.engine.check_room_to_keep(&effects) {
                return Err(Box::new((Failure::Sql(error.into()), None)));
            }
            if let Some(holder) = replica.hold.held_by(transaction) {
                holder.effects = Some(effects);
            }
            let rows = rows.0;
            Ok(Changed { affected, rows })
        });
        executed.unwrap_or_else(|| Err(Box::new((Failure::NotPrimary, None))))
    }

    /// Puts the vote on record, with the key if this partition keeps it. It counts when it is committed.
    pub(crate) fn prepare(
        &self,
        transaction: TransactionId,
        partition: PartitionId,
        home: PartitionId,
        key: Option<&(KeyedAt, Changed)>,
    ) -> Result<CommitWait, Failure> {
        let prepared = self.replicas.with(partition, |replica| {
            if replica.reign().is_none() {
                return Err(Failure::NotPrimary);
            }
            let Some(holder) = replica.hold.held_by(transaction) else {
                return Err(Failure::Wounded);
            };
            let (None, Some(mut effects)) = (holder.voted, holder.effects.clone()) else {
                return Err(Failure::Wounded);
            };
            if let Some((at, changed)) = key.filter(|(at, _)| at.partition == partition) {
                let rows = changed.to_kept();
                let kept = self.keep(replica, Some(&at.keyed), changed.affected, &rows, Some(effects));
                effects = kept.map_err(Failure::Sql)?.unwrap_or_default();
            } else {
                effects = self.track(replica, effects).map_err(Failure::Sql)?;
            }
            let lsn = if self.has(PlantedBug::VoteNotReplicated) {
                if let Some(holder) = replica.hold.held_by(transaction) {
                    holder.effects = Some(effects);
                }
                replica.appended
            } else {
                let vote = LogPayload::Prepared {
                    transaction,
                    home,
                    effects,
                };
                self.replicas.append(replica, &vote)
            };
            if let Some(holder) = replica.hold.held_by(transaction) {
                holder.voted = Some((home, lsn));
            }
            Ok(commit_wait(replica, partition, lsn, true))
        });
        prepared.unwrap_or(Err(Failure::NotPrimary))
    }

    /// Puts the decision on record, if it can still be this one; returns what was decided, and its record to wait for.
    pub(crate) fn decide(
        &self,
        transaction: TransactionId,
        partition: PartitionId,
        commit: bool,
    ) -> Result<(bool, CommitWait), Failure> {
        let decided = self.replicas.with(partition, |replica| {
            if replica.reign().is_none() {
                return Err(Failure::NotPrimary);
            }
            if let Some(earlier) = replica.engine.decision(transaction) {
                // On record already; perhaps not committed yet.
                return Ok((earlier, commit_wait(replica, partition, replica.appended, true)));
            }
            if self.has(PlantedBug::VoteNotReplicated) {
                self.put_vote_on_record(replica, transaction);
            }
            let prepared = replica
                .engine
                .prepared()
                .is_some_and(|prepared| prepared.transaction == transaction);
            let commit = commit && prepared;
            let payload = if commit {
                LogPayload::Commit(transaction)
            } else {
                LogPayload::Abort(transaction)
            };
            let lsn = self.replicas.append(replica, &payload);
            replica.hold.release(transaction);
            Ok((commit, commit_wait(replica, partition, lsn, true)))
        });
        decided.unwrap_or(Err(Failure::NotPrimary))
    }

    /// Of a planted bug: what should have been on record since the vote.
    fn put_vote_on_record(&self, replica: &mut Replica, transaction: TransactionId) {
        let Some(holder) = replica.hold.held_by(transaction) else {
            return;
        };
        let (Some((home, _)), Some(effects)) = (holder.voted, holder.effects.take()) else {
            return;
        };
        let vote = LogPayload::Prepared {
            transaction,
            home,
            effects,
        };
        self.replicas.append(replica, &vote);
    }

    /// Ends the hold of a transaction that has not voted, or its wait for one; false if it had lost it, or had none.
    pub(crate) fn release(&self, transaction: TransactionId, partition: PartitionId) -> bool {
        let released = self.replicas.with(partition, |replica| {
            let voted = replica
                .hold
                .held_by(transaction)
                .is_some_and(|holder| holder.voted.is_some());
            !voted && replica.hold.release(transaction)
        });
        released.unwrap_or(false)
    }

    /// A read's wait for `lsn`, as of now.
    pub(crate) fn read_wait(&self, partition: PartitionId, lsn: Lsn) -> Option<CommitWait> {
        self.replicas
            .with(partition, |replica| read_wait(replica, partition, lsn))
            .flatten()
    }

    /// Holds here that are older than `limit_ms`, or whose coordinators are dead.
    pub(crate) fn old_holds(&self, limit_ms: u64) -> Vec<OldHold> {
        let now_ms = self.replicas.now_ms();
        let map = self.replicas.metadata.map();
        let is_gone = |transaction: TransactionId| {
            !map.is_alive(transaction.node) || !map.is_current(transaction.node, transaction.boot)
        };
        let old = |slot: &crate::replication::Slot| {
            let replica = lock(slot);
            let holder = replica.hold.holder()?;
            let hold = OldHold {
                partition: replica.partition,
                transaction: holder.transaction,
                home: holder.voted.map(|(home, _)| home),
                age_ms: now_ms.saturating_sub(holder.since_ms),
                is_orphan: is_gone(holder.transaction),
            };
            (hold.age_ms > limit_ms || hold.is_orphan).then_some(hold)
        };
        self.replicas.all().iter().filter_map(old).collect()
    }
}

pub(super) fn commit_wait(replica: &Replica, partition: PartitionId, lsn: Lsn, wrote: bool) -> CommitWait {
    CommitWait {
        partition,
        epoch: replica.history.epoch_at(lsn),
        lsn,
        wrote,
    }
}

/// What a write of one partition waits for.
pub(super) fn write_wait(replica: &Replica, partition: PartitionId, lsn: Lsn) -> Option<CommitWait> {
    let is_open = lsn > replica.committed && !replica.planted.has(PlantedBug::AckBeforeBackup);
    is_open.then(|| commit_wait(replica, partition, lsn, true))
}

fn read_wait(replica: &Replica, partition: PartitionId, observed: Lsn) -> Option<CommitWait> {
    let is_open = observed > replica.committed && !replica.planted.has(PlantedBug::ReadPastCommitted);
    is_open.then(|| commit_wait(replica, partition, observed, false))
}

/// Collects a result's rows in the row encoding.
#[derive(Default)]
pub(crate) struct EncodedRows(pub(crate) Vec<Bytes>);

impl EncodedRows {
    pub(crate) fn push(&mut self, values: &[ValueRef<'_>]) {
        self.0.push(volt_engine::row::encode_row(values).into());
    }
}
