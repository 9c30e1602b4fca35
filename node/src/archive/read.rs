//! A partition as the archive has it.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use volt_engine::effects::LogPayload;
use volt_engine::partition::Partition;
use volt_engine::{Epoch, Lsn, PartitionId};

use super::chain::{self, Chain, Contents, Question};
use super::layout::{ArchivedRecord, BaseEnd, Damage, Kind, Segment};
use super::store::{ArchiveError, Store, damaged};

/// A way to the state that is wanted.
pub(crate) struct Found {
    pub(super) chain: Chain,
    partition: PartitionId,
    at: (Lsn, Epoch),
}

/// Finds how a partition's state at this record is made.
pub(crate) async fn find(store: &Store, partition: PartitionId, at: (Lsn, Epoch)) -> Result<Found, ArchiveError> {
    find_in(store, partition, &store.contents(partition).await?, at).await
}

/// The same, of what is known to be there.
pub(crate) async fn find_in(
    store: &Store,
    partition: PartitionId,
    contents: &Contents,
    at: (Lsn, Epoch),
) -> Result<Found, ArchiveError> {
    let mut read: BTreeMap<(Lsn, Lsn, Epoch, Epoch), Vec<Epoch>> = BTreeMap::new();
    let name = |segment: &Segment| (segment.first, segment.last, segment.first_epoch, segment.last_epoch);
    loop {
        let known = |question: Question| {
            let epochs = read.get(&name(&question.segment))?;
            let place = usize::try_from(question.lsn - question.segment.first).ok()?;
            epochs.get(place).copied()
        };
        match contents.chain_to(at, known) {
            chain::Found::Chain(chain) => return Ok(Found { chain, partition, at }),
            chain::Found::Unknown(Question { segment, .. }) => {
                let records = segment_of(store, partition, &segment).await?;
                read.insert(name(&segment), records.iter().map(|record| record.epoch).collect());
            }
            chain::Found::None => {
                let lsn = at.0;
                let message = format!("the archive lacks records of partition {partition} up to LSN {lsn}");
                return Err(ArchiveError::Missing(message));
            }
        }
    }
}

/// A partition's rows as far as the archive has them: no state by itself, for what it lacks and has otherwise nobody knows here.
pub(crate) async fn load_newest(store: &Store, partition: PartitionId) -> Result<Partition, ArchiveError> {
    let contents = store.contents(partition).await?;
    let segments = contents
        .segments
        .iter()
        .map(|segment| (segment.last_epoch, segment.last));
    let bases = contents.bases.iter().map(|base| (base.epoch, base.lsn));
    let newest = segments.chain(bases).max();
    let (epoch, lsn) = newest.ok_or_else(|| ArchiveError::Missing(format!("partition {partition} is not archived")))?;
    find(store, partition, (lsn, epoch)).await?.load(store).await
}

pub(super) async fn segment_of(
    store: &Store,
    partition: PartitionId,
    segment: &Segment,
) -> Result<Vec<ArchivedRecord>, ArchiveError> {
    let path = segment.path(partition);
    let records: Vec<ArchivedRecord> = store.get(&path, Kind::Log).await?;
    let is_next = |(lsn, record): (Lsn, &ArchivedRecord)| record.lsn == lsn;
    let whole = records.len() as u64 == segment.last - segment.first + 1;
    if !whole || !(segment.first..).zip(&records).all(is_next) {
        return Err(contradicts(&path));
    }
    Ok(records)
}

pub(super) fn contradicts(object: &Path) -> ArchiveError {
    damaged(object, Damage::Content)
}

impl Found {
    /// Reads it. In memory at a time: the state, and one object beside it.
    pub(crate) async fn load(self, store: &Store) -> Result<Partition, ArchiveError> {
        let Self { chain, partition, at } = self;
        let (mut state, mut epoch) = (Partition::new(), 0);
        if let Some(base) = chain.base {
            epoch = base.epoch;
            let whole = base.whole(partition);
            let end: BaseEnd = store.get(&whole, Kind::BaseEnd).await?;
            for number in 0..end.objects {
                let path = base.chunks(partition, number);
                let chunks: Vec<Bytes> = store.get(&path, Kind::BaseChunks).await?;
                for chunk in &chunks {
                    state.load_chunk(chunk).map_err(|_| contradicts(&path))?;
                }
            }
            if state.applied() != base.lsn {
                return Err(contradicts(&whole));
            }
        }
        for (segment, until) in chain.segments {
            let records = segment_of(store, partition, &segment).await?;
            let from = state.applied();
            let wanted = records.iter().filter(|record| record.lsn > from && record.lsn <= until);
            for record in wanted {
                let applied = match LogPayload::decode(&record.payload) {
                    Ok(payload) => state.apply_record(record.lsn, &payload),
                    Err(error) => Err(error),
                };
                applied.map_err(|_| contradicts(&segment.path(partition)))?;
                epoch = record.epoch;
            }
            // Nobody looks at older versions.
            state.commit_to(state.applied());
        }
        let reached = (state.applied(), epoch);
        match reached == at {
            true => Ok(state),
            false => Err(ArchiveError::Missing(format!(
                "the archive has partition {partition} up to LSN {} of epoch {}, and not up to {} of {}",
                reached.0, reached.1, at.0, at.1
            ))),
        }
    }
}
