//! Answers the requests of `request`, of other nodes and of this one alike.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use volt_engine::changes::Change;
use volt_engine::effects::TransactionId;
use volt_engine::error::StatementError;
use volt_engine::plan::StatementContext;
use volt_engine::procedure::Notice;
use volt_engine::row::RowRef;
use volt_engine::value::Value;
use volt_engine::{Lsn, PartitionId};

use super::follow::is_hidden;
use super::keyed::{Before, is_key_of};
use super::participant::{EncodedRows, Participant, Ran};
use super::request::{
    AttemptRequest, BackupRead, Changed, Failure, Held, KeyedAt, Part, Reply, Request, ScanRequest, Work,
};
use crate::error::SqlError;
use crate::statement::CommitWait;
use crate::world::{CrashPoint, PlantedBug};

/// Longest wait for a partition that others hold.
pub(super) const HOLD_WAIT: Duration = Duration::from_secs(5);
/// A waiter looks again by itself so often, should whoever was to wake it be gone.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(50);

fn check_rows(changes: &[Change]) -> Result<(), SqlError> {
    let mut rows = changes.iter().filter_map(|change| change.row.as_ref());
    rows.try_for_each(|row| RowRef::parse(row).map(drop))
        .map_err(SqlError::internal)
}

impl Participant {
    /// The same for a request from another node, whose programs are checked first.
    pub(crate) async fn serve_checked(self: &Arc<Self>, request: Request) -> Reply {
        let checked = match &request {
            Request::Run { program, .. } => program.validate().map_err(SqlError::from),
            Request::ReadBackup(BackupRead { program, .. }) => program.validate().map_err(SqlError::from),
            Request::Attempt(AttemptRequest { program, .. }) => program.validate().map_err(SqlError::from),
            Request::Scan(ScanRequest {
                program: Some(program), ..
            }) => program.validate().map_err(SqlError::from),
            Request::Incorporate { changes, .. } => check_rows(changes),
            Request::Place(place) => place.rows.check().map_err(SqlError::internal),
            Request::Apply { buffered, .. } => buffered.effects.check().map_err(SqlError::internal),
            Request::Execute { parts, .. } => parts.iter().try_for_each(|part| match &part.work {
                Work::Program(program) => program.validate().map_err(SqlError::from),
                Work::Buffered(buffered) => buffered.effects.check().map_err(SqlError::internal),
                Work::Follow(_) => Ok(()),
            }),
            _ => Ok(()),
        };
        match checked {
            Ok(()) => self.serve(request).await,
            Err(error) => Reply::Failed(Failure::Sql(error)),
        }
    }

    /// Does what is asked and answers.
    pub(crate) async fn serve(self: &Arc<Self>, request: Request) -> Reply {
        match request {
            Request::Run {
                partition,
                program,
                parameters,
                context,
                key,
            } => {
                let key = key.as_ref();
                let run = |rows: &mut EncodedRows| {
                    let ran = self.run(partition, &program, &parameters, &context, key, &mut |row| {
                        rows.push(row)
                    });
                    (ran, Vec::new())
                };
                self.serve_run(partition, run).await
            }
            Request::Call {
                partition,
                procedure,
                arguments,
                context,
                key,
            } => {
                let key = key.as_ref();
                self.serve_call(partition, procedure, &arguments, &context, key).await
            }
            Request::Attempt(request) => self.serve_attempt(&request).await,
            Request::Apply {
                partition,
                buffered,
                key,
            } => {
                let apply = |_: &mut EncodedRows| (self.apply(partition, &buffered, key.as_ref()), Vec::new());
                self.serve_run(partition, apply).await
            }
            Request::Hold {
                transaction,
                partitions,
                pin_for,
            } => self.serve_hold(transaction, partitions, pin_for).await,
            Request::Execute {
                transaction,
                parts,
                parameters,
                context,
                key,
            } => self.serve_execute(transaction, parts, &parameters, &context, key).await,
            Request::Prepare {
                transaction,
                partitions,
                home,
                key,
            } => self.serve_prepare(transaction, partitions, home, key).await,
            Request::Decide {
                transaction,
                partitions,
                commit,
            } => self.serve_decide(transaction, partitions, commit).await,
            Request::Release {
                transaction,
                partitions,
                snapshot,
            } => self.serve_release(transaction, partitions, snapshot).await,
            Request::Resolve { transaction, home } => self.serve_resolve(transaction, home).await,
            Request::Scan(scan) => self.scan(&scan),
            Request::ReadBackup(asked) => self.serve_backup_read(&asked),
            Request::PinBackup {
                transaction,
                partitions,
                max_staleness_ms,
            } => self.serve_pin_backup(transaction, &partitions, max_staleness_ms),
            Request::Know { version } => self.serve_know(version).await,
            Request::Index(request) => self.serve_index(&request),
            Request::Positions { partitions } => self.positions(&partitions).await,
            Request::Stage(destination) => self.serve_stage(destination).await,
            Request::Pour(destination) => self.serve_pour(destination),
            Request::Incorporate {
                partition,
                link,
                changes,
            } => {
                let incorporate =
                    |rows: &mut EncodedRows| (self.incorporate(partition, &link, &changes, rows), Vec::new());
                self.serve_run(partition, incorporate).await
            }
            Request::Place(place) => self.serve_place(&place).await,
            Request::Links => Reply::Links(self.links.report()),
            Request::Conflicts => Reply::Conflicts(self.conflicts()),
            Request::Moves => Reply::Moves(self.stuck_moves()),
            Request::Unpin { transaction } => {
                self.unpin(transaction);
                Reply::Done
            }
            Request::IsHolding { transaction } => Reply::Holding(self.is_holding(transaction)),
        }
    }

    /// Tries until nobody holds the partition, and answers when what was done is committed.
    pub(super) async fn serve_run(
        &self,
        partition: PartitionId,
        run: impl Fn(&mut EncodedRows) -> (Ran, Vec<Notice>),
    ) -> Reply {
        let deadline = Instant::now() + HOLD_WAIT;
        loop {
            let mut rows = EncodedRows::default();
            let (ran, notices) = run(&mut rows);
            match ran {
                Ran::Done { affected, wait } => {
                    return match self.committed(wait.as_slice()).await {
                        Ok(()) => Reply::Ran {
                            rows: rows.0,
                            affected,
                            notices,
                        },
                        Err(failure) => Reply::Failed(failure),
                    };
                }
                Ran::Failed { error, wait } => {
                    return match self.committed(wait.as_slice()).await {
                        Ok(()) => Reply::Failed(Failure::Sql(error)),
                        Err(failure) => Reply::Failed(failure),
                    };
                }
                Ran::NotPrimary => return Reply::Failed(Failure::NotPrimary),
                Ran::Held => {}
            }
            if let Err(failure) = self.turn(partition, deadline).await {
                return Reply::Failed(failure);
            }
        }
    }

    async fn hold_one(
        &self,
        transaction: TransactionId,
        partition: PartitionId,
        deadline: Instant,
    ) -> Result<Held, Failure> {
        loop {
            let turn = match self.hold(transaction, partition) {
                Ok(held) => return Ok(held),
                Err(Ok(turn)) => turn,
                Err(Err(failure)) => return Err(failure),
            };
            if Instant::now() >= deadline {
                return Err(Failure::Busy);
            }
            let turn = timeout_at(deadline.min(Instant::now() + LOOK_AGAIN), turn).await;
            if matches!(turn, Ok(Err(_))) {
                // It was let go before it had anything, so nobody waits for the answer; or the replica is gone.
                return Err(Failure::Wounded);
            }
        }
    }

    /// Holds all of them or none.
    async fn hold_all(&self, transaction: TransactionId, partitions: &[PartitionId]) -> Result<Vec<Held>, Failure> {
        let deadline = Instant::now() + HOLD_WAIT;
        let mut held = Vec::with_capacity(partitions.len());
        for &partition in partitions {
            match self.hold_one(transaction, partition, deadline).await {
                Ok(one) => held.push(one),
                Err(failure) => {
                    for one in held {
                        self.release(transaction, one.partition);
                    }
                    return Err(failure);
                }
            }
        }
        Ok(held)
    }

    async fn serve_hold(
        &self,
        transaction: TransactionId,
        partitions: Vec<PartitionId>,
        pin_for: Option<TransactionId>,
    ) -> Reply {
        // A snapshot is taken when all can be read at it.
        let lacks_view = |&partition: &PartitionId| {
            let lacks = self.replicas.with(partition, |replica| replica.lacks_view());
            lacks.unwrap_or(false)
        };
        if pin_for.is_some() && partitions.iter().any(lacks_view) {
            return Reply::Failed(Failure::NotPrimary);
        }
        match self.hold_all(transaction, &partitions).await {
            Ok(held) => {
                if let Some(snapshot) = pin_for {
                    let is_hidden =
                        |partition| self.replicas.with(partition, |replica| is_hidden(replica)) == Some(true);
                    if partitions.iter().any(|&partition| is_hidden(partition)) {
                        self.release_all(transaction, &partitions);
                        return Reply::Failed(Failure::NotPrimary);
                    }
                    self.pin(snapshot, held.iter().map(|held| (held.partition, held.lsn)).collect());
                }
                Reply::Held(held)
            }
            Err(failure) => Reply::Failed(failure),
        }
    }

    async fn serve_execute(
        &self,
        transaction: TransactionId,
        parts: Vec<Part>,
        parameters: &[Value],
        context: &StatementContext,
        key: Option<KeyedAt>,
    ) -> Reply {
        let partitions: Vec<PartitionId> = parts.iter().map(|part| part.partition).collect();
        if let Err(failure) = self.hold_all(transaction, &partitions).await {
            return Reply::Failed(failure);
        }
        if let Some(at) = &key {
            match self.before_in_held(transaction, at) {
                Ok(None) => {}
                Ok(Some(before)) => {
                    self.release_all(transaction, &partitions);
                    return self.serve_before(before).await;
                }
                Err(failure) => {
                    self.release_all(transaction, &partitions);
                    return Reply::Failed(failure);
                }
            }
        }
        let mut changed = Changed::default();
        for part in &parts {
            let has_key = is_key_of(key.as_ref(), part.partition);
            let executed = self.execute(transaction, part.partition, &part.work, parameters, context, has_key);
            let too_much = |error: StatementError| Box::new((Failure::Sql(error.into()), None));
            match executed.and_then(|more| changed.add(more).map_err(too_much)) {
                Ok(()) => {}
                Err(failed) => {
                    let (failure, wait) = *failed;
                    let lost = self.release_all(transaction, &partitions);
                    // Whoever took the key's partition may have been the same request, and this error what it did.
                    if key.is_some_and(|at| lost.contains(&at.partition)) {
                        return Reply::Failed(Failure::Wounded);
                    }
                    return match self.committed(wait.as_slice()).await {
                        Ok(()) => Reply::Failed(failure),
                        Err(unsafe_to_tell) => Reply::Failed(unsafe_to_tell),
                    };
                }
            }
        }
        Reply::Executed(changed)
    }

    async fn serve_before(&self, before: Before) -> Reply {
        let rows = before.rows;
        match (self.committed(before.wait.as_slice()).await, before.affected) {
            (Ok(()), Ok(affected)) => Reply::Before(Changed { affected, rows }),
            (Ok(()), Err(error)) => Reply::Failed(Failure::Sql(error)),
            (Err(failure), _) => Reply::Failed(failure),
        }
    }

    /// Ends the holds of a transaction that has not voted; returns those that it had lost.
    fn release_all(&self, transaction: TransactionId, partitions: &[PartitionId]) -> Vec<PartitionId> {
        let lost = |partition: &PartitionId| !self.release(transaction, *partition);
        partitions.iter().copied().filter(lost).collect()
    }

    async fn serve_prepare(
        &self,
        transaction: TransactionId,
        partitions: Vec<PartitionId>,
        home: PartitionId,
        key: Option<(KeyedAt, Changed)>,
    ) -> Reply {
        let mut waits = Vec::with_capacity(partitions.len());
        for partition in partitions {
            match self.prepare(transaction, partition, home, key.as_ref()) {
                Ok(wait) => waits.push(wait),
                Err(failure) => return Reply::Failed(failure),
            }
        }
        self.replicas.world.pass(CrashPoint::VoteAppended).await;
        let committed = self.committed(&waits).await;
        self.replicas.world.pass(CrashPoint::VoteCommitted).await;
        match committed {
            Ok(()) => Reply::Done,
            Err(failure) => Reply::Failed(failure),
        }
    }

    /// All of `partitions` decide alike; the answer is the last one's, and is true when it is committed.
    async fn serve_decide(&self, transaction: TransactionId, partitions: Vec<PartitionId>, commit: bool) -> Reply {
        let (mut waits, mut decision) = (Vec::with_capacity(partitions.len()), commit);
        for partition in partitions {
            match self.decide(transaction, partition, commit) {
                Ok((decided, wait)) => {
                    decision = decided;
                    waits.push(wait);
                }
                Err(failure) => return Reply::Failed(failure),
            }
        }
        self.replicas.world.pass(CrashPoint::DecisionAppended).await;
        if self.has(PlantedBug::HomeAnswersEarly) {
            return Reply::Decision(Some(decision));
        }
        let committed = self.committed(&waits).await;
        self.replicas.world.pass(CrashPoint::DecisionCommitted).await;
        match committed {
            Ok(()) => Reply::Decision(Some(decision)),
            Err(failure) => Reply::Failed(failure),
        }
    }

    async fn serve_release(
        &self,
        transaction: TransactionId,
        partitions: Vec<PartitionId>,
        snapshot: Vec<(PartitionId, Lsn)>,
    ) -> Reply {
        let mut lost = false;
        for &partition in &partitions {
            lost |= !self.release(transaction, partition);
        }
        if snapshot.is_empty() {
            return Reply::Done;
        }
        if lost {
            return Reply::Failed(Failure::Wounded);
        }
        let waits: Vec<CommitWait> = snapshot
            .iter()
            .filter_map(|&(partition, lsn)| self.read_wait(partition, lsn))
            .collect();
        match self.committed(&waits).await {
            // All holds were taken before this was asked for. A lease that is still valid says that nobody else led
            // these partitions while the others were taken, so that the cut is one of this moment.
            Ok(()) if self.lease_is_valid() => Reply::Done,
            Ok(()) => Reply::Failed(Failure::NotPrimary),
            Err(failure) => Reply::Failed(failure),
        }
    }

    /// The home partition's word. Undecided and old: it decides to abort, also for one that it never saw.
    async fn serve_resolve(&self, transaction: TransactionId, home: PartitionId) -> Reply {
        let undecided = self.replicas.with(home, |replica| {
            replica.reign().is_some()
                && replica.engine.decision(transaction).is_none()
                && replica.hold.held_by(transaction).is_some()
        });
        let young = self
            .old_holds(super::resolve::ABORT_AFTER_MS)
            .iter()
            .all(|hold| hold.transaction != transaction);
        if undecided == Some(true) && young {
            return Reply::Decision(None);
        }
        self.serve_decide(transaction, vec![home], false).await
    }

    /// Waits for commits; a failure is the client's to hear.
    pub(super) async fn committed(&self, waits: &[CommitWait]) -> Result<(), Failure> {
        if waits.is_empty() {
            return Ok(());
        }
        self.replicas
            .wait_committed(waits)
            .await
            .map_err(|(_, error)| Failure::Sql(error))
    }
}
