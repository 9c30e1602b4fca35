//! A primary's side of idempotency keys: what a request came to is found before it is run again, and kept with what it
//! does, both under the partition's mutex.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use volt_engine::PartitionId;
use volt_engine::effects::{Effects, TransactionId};
use volt_engine::idempotency::{KeptRows, Keyed};
use volt_engine::value::ValueRef;

use super::participant::{EncodedRows, Participant, Ran, commit_wait};
use super::request::{Failure, KeyedAt};
use crate::error::SqlError;
use crate::replication::replica::Replica;
use crate::statement::CommitWait;
use crate::world::PlantedBug;

/// What a request came to before, and what to wait for until that may be told.
pub(super) struct Before {
    pub(super) affected: Result<u64, SqlError>,
    pub(super) rows: Vec<Bytes>,
    pub(super) wait: Option<CommitWait>,
}

impl Participant {
    /// What the request with this key came to here; None: it has not happened. Needs no lease: what is committed stays so.
    fn before(&self, replica: &Replica, keyed: &Keyed, sink: &mut dyn FnMut(&[ValueRef<'_>])) -> Option<Before> {
        let kept = replica.engine.find_kept(keyed)?;
        if self.has(PlantedBug::KeysNotTakenOver) && !replica.is_of_this_reign(kept.lsn) {
            return None;
        }
        // Told as a write: if it is undone, the client must not think that it never happened.
        let is_open = kept.lsn > replica.committed;
        let wait = is_open.then(|| commit_wait(replica, replica.partition, kept.lsn, true));
        let affected = kept.affected(keyed).map_err(SqlError::from);
        if affected.is_ok() {
            self.repeats.fetch_add(1, Ordering::Relaxed);
            for row in kept.rows() {
                sink(&row.values().collect::<Vec<_>>());
            }
        }
        let rows = Vec::new();
        Some(Before { affected, rows, wait })
    }

    /// The answer to a request that has happened here before.
    pub(super) fn answer_again(
        &self,
        replica: &Replica,
        keyed: Option<&Keyed>,
        sink: &mut dyn FnMut(&[ValueRef<'_>]),
    ) -> Option<Ran> {
        let Before { affected, wait, .. } = self.before(replica, keyed?, sink)?;
        Some(match affected {
            Ok(affected) => Ran::Done { affected, wait },
            Err(error) => Ran::Failed { error, wait },
        })
    }

    /// The same in a partition that the transaction holds: then it can't happen while the hold lasts.
    pub(super) fn before_in_held(&self, transaction: TransactionId, at: &KeyedAt) -> Result<Option<Before>, Failure> {
        let found = self.replicas.with(at.partition, |replica| {
            if replica.reign().is_none() {
                return Err(Failure::NotPrimary);
            }
            match replica.hold.held_by(transaction) {
                None => Err(Failure::Wounded),
                Some(_) => {
                    let mut rows = EncodedRows::default();
                    let before = self.before(replica, &at.keyed, &mut |row| rows.push(row));
                    Ok(before.map(|before| Before { rows: rows.0, ..before }))
                }
            }
        });
        found.unwrap_or(Err(Failure::NotPrimary))
    }

    /// A request's effects with what keeps its key, if it has one.
    pub(super) fn keep(
        &self,
        replica: &Replica,
        keyed: Option<&Keyed>,
        affected: u64,
        rows: &KeptRows,
        effects: Option<Effects>,
    ) -> Result<Option<Effects>, SqlError> {
        let effects = effects.map(|effects| self.track(replica, effects)).transpose()?;
        let Some(keyed) = keyed else { return Ok(effects) };
        let now_micros = self.replicas.world.clock.unix_micros();
        let kept = replica.engine.keep(keyed, affected, rows, now_micros, effects)?;
        Ok(Some(kept))
    }

    /// The effects of a transaction, with the versions of the rows of tracked tables.
    pub(super) fn track(&self, replica: &Replica, effects: Effects) -> Result<Effects, SqlError> {
        if !replica.engine.tracks_any() {
            return Ok(effects);
        }
        let now_micros = self.replicas.world.clock.unix_micros();
        Ok(replica
            .engine
            .track(effects, now_micros, self.replicas.metadata.origin())?)
    }

    /// Of the partitions that this node leads: how many keys they keep.
    pub(crate) fn keys_kept(&self) -> u64 {
        let kept = |slot: &crate::replication::Slot| {
            let replica = crate::replication::lock(slot);
            replica.reign().map_or(0, |_| replica.engine.keys_kept())
        };
        self.replicas.all().iter().map(kept).sum()
    }

    /// How many requests were answered with what was kept.
    pub(crate) fn repeats(&self) -> u64 {
        self.repeats.load(Ordering::Relaxed)
    }
}

/// The partition is this transaction's key's.
pub(super) fn is_key_of(key: Option<&KeyedAt>, partition: PartitionId) -> bool {
    key.is_some_and(|at| at.partition == partition)
}
