//! What is known of the archive that is followed, so that a look costs no more when a week of it is kept.

use std::collections::BTreeMap;

use tokio::time::{Duration, Instant};
use volt_engine::{Lsn, PartitionId};

use super::super::chain::Contents;
use super::super::layout::Cut;
use super::super::store::{ArchiveError, Store};

/// All that there is of a partition is listed again no sooner than this, if what is new doesn't lead on from what is known.
const ALL_AGAIN: Duration = Duration::from_secs(60);

/// One partition.
struct Known {
    contents: Contents,
    /// When all was listed.
    listed: Instant,
}

/// Partitions as the archive had them at the last look.
#[derive(Default)]
pub(super) struct Listings(BTreeMap<PartitionId, Known>);

impl Listings {
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Forgets the partitions that a cut doesn't have.
    pub(super) fn retain(&mut self, cut: &Cut) {
        self.0.retain(|partition, _| cut.partitions.contains_key(partition));
    }

    pub(super) fn of(&self, partition: PartitionId) -> Option<&Contents> {
        self.0.get(&partition).map(|known| &known.contents)
    }

    /// Looks what is new, for who is at `from` and can't come to `wanted` by what is known.
    pub(super) async fn look(
        &mut self,
        store: &Store,
        partition: PartitionId,
        (from, wanted): (Lsn, Lsn),
    ) -> Result<(), ArchiveError> {
        let now = Instant::now();
        if let Some(known) = self.0.get_mut(&partition)
            && (now < known.listed + ALL_AGAIN || !known.contents.reach(wanted))
        {
            let first = known.contents.first_behind(from);
            let newer = store.contents_from(partition, first).await?;
            known.contents.renew(first, newer);
            return Ok(());
        }
        let contents = store.contents_from(partition, 0).await?;
        self.0.insert(partition, Known { contents, listed: now });
        Ok(())
    }
}
