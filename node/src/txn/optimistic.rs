//! A primary's side of interactive transactions: their statements at a snapshot, and their end.

use tokio::time::{Instant, timeout_at};
use volt_engine::effects::{Effects, LogPayload};
use volt_engine::error::StatementError;
use volt_engine::idempotency::{KeptRows, Keyed};
use volt_engine::partition::Attempt;
use volt_engine::transaction::{Reads, Writes};
use volt_engine::{Lsn, PartitionId};

use super::participant::{EncodedRows, Participant, Ran, commit_wait, write_wait};
use super::pins::{check_shown, pin};
use super::request::{AttemptRequest, Attempted, Buffered, Failure, Reply};
use super::serve::{HOLD_WAIT, LOOK_AGAIN};
use crate::error::SqlError;
use crate::replication::replica::Replica;
use crate::statement::CommitWait;
use crate::world::PlantedBug;

/// What another transaction did makes this one's answers wrong.
pub(crate) fn conflict() -> SqlError {
    SqlError::new(
        "40001",
        "could not serialize access due to read/write dependencies among transactions",
    )
    .detail("Another transaction has changed rows that this one read or wrote.")
    .hint("The transaction might succeed if retried.")
}

/// Why a statement did not run now.
enum NotRun {
    NotPrimary,
    /// Somebody who has voted has the partition.
    Held,
    /// What is not committed yet may have been told already.
    NotCommitted(CommitWait),
}

impl Participant {
    /// Runs a statement of an interactive transaction, and waits while its partition can't tell what is committed.
    pub(super) async fn serve_attempt(&self, request: &AttemptRequest) -> Reply {
        let writes = match Writes::of(&request.writes) {
            Ok(writes) => writes,
            Err(error) => return Reply::Failed(Failure::Sql(SqlError::internal(error))),
        };
        let deadline = Instant::now() + HOLD_WAIT;
        loop {
            match self.attempt(request, &writes) {
                Ok(attempted) => return Reply::Attempted(attempted),
                Err(NotRun::NotPrimary) => return Reply::Failed(Failure::NotPrimary),
                Err(NotRun::Held) => {
                    if let Err(failure) = self.turn(request.partition, deadline).await {
                        return Reply::Failed(failure);
                    }
                }
                Err(NotRun::NotCommitted(wait)) => {
                    if let Err(failure) = self.committed(&[wait]).await {
                        return Reply::Failed(failure);
                    }
                }
            }
        }
    }

    /// Waits for a hold to end, or a moment; an error when it has taken too long.
    pub(super) async fn turn(&self, partition: PartitionId, deadline: Instant) -> Result<(), Failure> {
        let turn = self.statement_turn(partition)?;
        if Instant::now() >= deadline {
            return Err(Failure::Busy);
        }
        let _ = timeout_at(deadline.min(Instant::now() + LOOK_AGAIN), turn).await;
        Ok(())
    }

    fn attempt(&self, request: &AttemptRequest, writes: &Writes) -> Result<Attempted, NotRun> {
        let mut rows = EncodedRows::default();
        let (snapshot, attempt) = match request.snapshot {
            Some(snapshot) => (snapshot, self.attempt_again(request, snapshot, writes, &mut rows)?),
            None => self.attempt_first(request, writes, &mut rows)?,
        };
        let Attempt { reads, result } = attempt;
        if result == Err(StatementError::ViewNotBuilt) {
            return Err(NotRun::NotPrimary);
        }
        let result = match result {
            // Its end will be asked again; but who can't write should not go on as if he could.
            Ok((affected, effects)) => {
                let checked = self.memory.check(effects.as_ref());
                checked.map(|_| (rows.0, affected, effects))
            }
            Err(error) => Err(error.into()),
        };
        Ok(Attempted {
            snapshot,
            reads,
            result,
        })
    }

    /// At a snapshot that is kept here, whoever leads the partition by now: it is committed, and doesn't change.
    fn attempt_again(
        &self,
        request: &AttemptRequest,
        snapshot: Lsn,
        writes: &Writes,
        rows: &mut EncodedRows,
    ) -> Result<Attempt, NotRun> {
        let pinned_by = self.uses_pin(request.transaction, request.partition, snapshot);
        let pinned_by = pinned_by.ok_or(NotRun::NotPrimary)?;
        let attempt = self.replicas.with_catalog(request.partition, |replica| {
            // A replica that was filled, or given up and taken again, has none of the old one's pins.
            if !request.program.is_read_only() {
                replica.complete_unique_indexes();
            }
            if !replica.engine.is_pinned(snapshot) {
                return None;
            }
            if let Err(error) = check_shown(replica, request.program.table, pinned_by) {
                let (reads, result) = (Reads::default(), Err(error));
                return Some(Attempt { reads, result });
            }
            Some(run(replica, request, snapshot, writes, rows))
        });
        attempt.flatten().ok_or(NotRun::NotPrimary)
    }

    /// At what is committed: everything that anybody was told of, and nothing that may be undone.
    fn attempt_first(
        &self,
        request: &AttemptRequest,
        writes: &Writes,
        rows: &mut EncodedRows,
    ) -> Result<(Lsn, Attempt), NotRun> {
        let attempted = self.replicas.with_catalog(request.partition, |replica| {
            let Some(reign) = replica.reign().filter(|reign| !reign.relinquishing) else {
                return Err(NotRun::NotPrimary);
            };
            // Who has voted may be committed elsewhere, and its client told.
            if replica.hold.holder().is_some_and(|holder| holder.voted.is_some()) {
                return Err(NotRun::Held);
            }
            // So may be whose decision came here and is not committed here. And a new primary doesn't know how far its
            // predecessor had committed until a record of its own is.
            let is_new = replica.history.epoch_at(replica.committed) < reign.began_epoch;
            let decision = replica.engine.uncommitted_decision();
            if let Some(lsn) = decision.max(is_new.then_some(replica.appended)) {
                return Err(NotRun::NotCommitted(commit_wait(
                    replica,
                    request.partition,
                    lsn,
                    false,
                )));
            }
            if !request.program.is_read_only() {
                replica.complete_unique_indexes();
            }
            let snapshot = replica.committed;
            let attempt = run(replica, request, snapshot, writes, rows);
            // Read first, then check the lease, then answer.
            if !self.lease_is_valid() {
                return Err(NotRun::NotPrimary);
            }
            let catalog = pin(replica, snapshot).expect("what is committed can be pinned");
            Ok((snapshot, catalog, attempt))
        });
        let (snapshot, catalog, attempt) = attempted.unwrap_or(Err(NotRun::NotPrimary))?;
        self.note_pinned(request.transaction, vec![(request.partition, (snapshot, catalog))]);
        Ok((snapshot, attempt))
    }

    /// Ends an interactive transaction in its only partition, if this node leads it and nobody holds it.
    pub(crate) fn apply(&self, partition: PartitionId, buffered: &Buffered, key: Option<&Keyed>) -> Ran {
        let writes = buffered.effects != Effects::default();
        let ran = self.replicas.with_catalog(partition, |replica| {
            if let Some(not) = self.not_now(replica, !writes) {
                return not;
            }
            if let Some(again) = self.answer_again(replica, key, &mut |_| {}) {
                return again;
            }
            replica.complete_unique_indexes();
            let stands = still_right(replica, buffered);
            if !self.lease_is_valid() {
                return Ran::NotPrimary;
            }
            if !stands {
                return Ran::Failed {
                    error: conflict(),
                    wait: None,
                };
            }
            if !writes {
                return Ran::Done {
                    affected: 0,
                    wait: None,
                };
            }
            let effects = Some(buffered.effects.clone());
            let admitted = self.memory.admit(effects.as_ref());
            let kept = admitted.and_then(|()| self.keep(replica, key, 0, &KeptRows::default(), effects));
            let effects = match kept {
                Ok(effects) => effects.unwrap_or_default(),
                Err(error) => return Ran::Failed { error, wait: None },
            };
            let lsn = self.replicas.append(replica, &LogPayload::Write(effects));
            let wait = write_wait(replica, partition, lsn);
            Ran::Done { affected: 0, wait }
        });
        ran.unwrap_or(Ran::NotPrimary)
    }
}

/// What a transaction read still stands, and nobody has written meanwhile what its rows must not meet.
pub(super) fn still_right(replica: &Replica, buffered: &Buffered) -> bool {
    let (engine, planted) = (&replica.engine, replica.planted);
    let stands = if planted.has(PlantedBug::ReadsNotValidated) {
        true
    } else if planted.has(PlantedBug::RangesNotValidated) {
        engine.stands(&buffered.reads.keys_only(), buffered.snapshot)
    } else {
        engine.stands(&buffered.reads, buffered.snapshot)
    };
    let is_open = engine.check_all_open(&buffered.effects).is_ok();
    stands && is_open && engine.keeps_unique(&buffered.effects) == Ok(true)
}

fn run(
    replica: &mut Replica,
    request: &AttemptRequest,
    snapshot: Lsn,
    writes: &Writes,
    rows: &mut EncodedRows,
) -> Attempt {
    // What it wants to write comes here without it.
    let (program, engine) = (&request.program, &mut replica.engine);
    engine.hear_of_dropped(program.table, program.dropped_columns(), engine.applied());
    engine.attempt(
        snapshot,
        writes,
        &request.program,
        &request.parameters,
        &request.context,
        &mut |row| rows.push(row),
    )
}
