//! What a partition of a standby lacks to be as the archived one was at a cut.

use volt_engine::effects::{Effects, LogPayload, TransactionId};
use volt_engine::followed::{Fold, Position};
use volt_engine::idempotency::{FOLLOWED, RESERVED_TABLES};
use volt_engine::partition::Partition;
use volt_engine::{Epoch, Lsn, PartitionId, TableId};

use super::super::chain::Contents;
use super::super::layout::{Base, Segment};
use super::super::read::{Found, contradicts, find_in, segment_of};
use super::super::store::{ArchiveError, Store};
use crate::metadata::map::ClusterMap;

/// Bytes of effects that one record of the standby has, about: what is more than that is no step of one transaction.
pub(crate) const PART_BYTES: usize = 2 << 20;

/// What a partition lacks.
pub(crate) enum Staged {
    /// What became of its rows since, in parts of about `PART_BYTES`. Done again they change nothing.
    Parts(Vec<Effects>),
    /// Not what became of them, only what they are: all that there was goes.
    Whole(Box<Partition>),
}

impl Staged {
    /// It is more than one record: it can't be done in one step.
    pub(crate) fn is_large(&self) -> bool {
        match self {
            Self::Parts(parts) => parts.len() > 1,
            Self::Whole(_) => true,
        }
    }
}

/// Rows of such a table are taken over: of the catalog's, for one that was dropped meanwhile is not missed, and what partitions keep by
/// themselves, but for how far another standby was.
pub(super) fn is_wanted(map: &ClusterMap, table: TableId) -> bool {
    let is_kept = RESERVED_TABLES.contains(&table) && table != FOLLOWED;
    is_kept || map.tables.get(&table).is_some_and(|table| table.view.is_none())
}

/// Segments, and up to which record of each.
pub(crate) type Way = Vec<(Segment, Lsn)>;

/// The record that a partition has come to. Who is on its way to somewhere has something of that, and nobody knows how much.
fn begins(from: Option<Position>) -> Option<(Lsn, Epoch)> {
    match from {
        None => Some((0, 0)),
        Some(position) if position.toward_micros.is_none() => Some((position.lsn, position.epoch)),
        Some(_) => None,
    }
}

/// Reads what brings a partition from where it is to a record of the archived one. `known`: by these segments, as far as who asks for it knows.
pub(crate) async fn stage(
    store: &Store,
    (partition, from): (PartitionId, Option<Position>),
    (known, to): (Option<&Way>, (Lsn, Epoch)),
    map: &ClusterMap,
) -> Result<Staged, ArchiveError> {
    let begins = begins(from);
    if let (Some(begins), Some(way)) = (begins, known) {
        match folded(store, partition, way, (begins, to), map).await {
            Ok(fold) => return Ok(Staged::Parts(fold.into_parts(PART_BYTES))),
            // They may have gone meanwhile.
            Err(why) => tracing::debug!(partition, %why, "the way that was known is none"),
        }
    }
    let contents = store.contents(partition).await?;
    if let Some(begins) = begins
        && let Some(way) = way(store, partition, &contents, from, to).await?
    {
        let fold = folded(store, partition, &way, (begins, to), map).await?;
        return Ok(Staged::Parts(fold.into_parts(PART_BYTES)));
    }
    let mut state = find_in(store, partition, &contents, to).await?.load(store).await?;
    if state.prepared().is_some() {
        return Err(half_way());
    }
    state.retain_tables(|table| is_wanted(map, table));
    Ok(Staged::Whole(Box::new(state)))
}

fn half_way() -> ArchiveError {
    ArchiveError::Missing("a transaction over several partitions is half-way at a cut".to_owned())
}

/// The records from where a partition is to another one; None: some are not there any more, or where it is did not lead there.
pub(super) async fn way(
    store: &Store,
    partition: PartitionId,
    contents: &Contents,
    from: Option<Position>,
    to: (Lsn, Epoch),
) -> Result<Option<Way>, ArchiveError> {
    let Some((lsn, epoch)) = begins(from).filter(|(lsn, _)| *lsn <= to.0) else {
        return Ok(None);
    };
    // As if what the partition has were a base, and the only one.
    let own = Base { lsn, epoch };
    let only = Contents {
        bases: if lsn == 0 { Vec::new() } else { vec![own] },
        segments: contents.segments.clone(),
    };
    match find_in(store, partition, &only, to).await {
        Ok(Found { chain, .. }) if chain.base.map_or(0, |base| base.lsn) == lsn => Ok(Some(chain.segments)),
        Ok(_) | Err(ArchiveError::Missing(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What the records between two did together.
async fn folded(
    store: &Store,
    partition: PartitionId,
    way: &Way,
    (from, to): ((Lsn, Epoch), (Lsn, Epoch)),
    map: &ClusterMap,
) -> Result<Fold, ArchiveError> {
    let (mut fold, mut reached) = (Fold::default(), from);
    let mut prepared: Option<(TransactionId, Effects)> = None;
    for (segment, until) in way {
        let damaged = || contradicts(&segment.path(partition));
        for record in segment_of(store, partition, segment).await? {
            if record.lsn <= reached.0 || record.lsn > *until {
                continue;
            }
            if record.lsn != reached.0 + 1 {
                return Err(damaged());
            }
            reached = (record.lsn, record.epoch);
            let effects = match LogPayload::decode(&record.payload).map_err(|_| damaged())? {
                LogPayload::Write(effects) => Some(effects),
                LogPayload::Prepared {
                    transaction, effects, ..
                } => {
                    prepared = Some((transaction, effects));
                    None
                }
                LogPayload::Commit(transaction) => {
                    let prepared = prepared.take_if(|(known, _)| *known == transaction);
                    Some(prepared.ok_or_else(damaged)?.1)
                }
                LogPayload::Abort(transaction) => {
                    prepared.take_if(|(known, _)| *known == transaction);
                    None
                }
                LogPayload::EpochStart => None,
            };
            if let Some(effects) = effects {
                fold.add(&effects, |table| is_wanted(map, table))
                    .map_err(|_| damaged())?;
            }
        }
    }
    if reached != to {
        let message = format!("the records of partition {partition} lead to {reached:?}, and not to {to:?}");
        return Err(ArchiveError::Missing(message));
    }
    match prepared {
        None => Ok(fold),
        Some(_) => Err(half_way()),
    }
}

#[cfg(test)]
mod tests;
