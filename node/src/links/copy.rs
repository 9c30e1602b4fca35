//! Tells rows instead of records: all of a partition, or those that were written since, at a snapshot.

use tokio::time::Instant;
use volt_engine::partition::RowsCursor;
use volt_engine::{Epoch, Lsn};

use super::sender::{Place, Sender, news};
use super::target::{Mark, NotTold, Piece, Target};
use crate::replication::{Slot, lock};

/// Rows that are looked at in a step of a copy, and bytes that are told in one.
const COPY_ROWS: usize = 2_000;
const COPY_BYTES: usize = 512 << 10;

/// A snapshot that is kept as long as this is, by whoever leads the partition in the same reign.
struct Pinned<'a> {
    slot: &'a Slot,
    began_epoch: Epoch,
    snapshot: Lsn,
}

impl Drop for Pinned<'_> {
    fn drop(&mut self) {
        let mut replica = lock(self.slot);
        let leads = replica
            .reign()
            .is_some_and(|reign| reign.began_epoch == self.began_epoch);
        if leads {
            replica.engine.unpin(self.snapshot);
        }
    }
}

impl Sender {
    /// Tells all rows that were written since, at a snapshot that is pinned for it; then it isn't any more.
    pub(super) async fn copy(
        &self,
        target: &dyn Target,
        slot: &Slot,
        place: Place,
        (since, snapshot): (Lsn, Lsn),
    ) -> Result<Place, NotTold> {
        let pinned = Pinned {
            slot,
            began_epoch: place.began_epoch,
            snapshot,
        };
        let (partition, link) = (lock(slot).partition, &self.link.name);
        tracing::info!(
            link,
            partition,
            since,
            snapshot,
            "rows are told that were written since"
        );
        let begin = |told: &mut super::PartitionTold| told.is_copying = true;
        self.states.change(self.link.id, partition, begin);
        let mut after: Option<RowsCursor> = None;
        loop {
            let (told, epoch) = {
                let replica = lock(pinned.slot);
                let reign = replica.reign().map(|reign| reign.began_epoch);
                if reign != Some(pinned.began_epoch) {
                    return Err(NotTold::Moved(partition));
                }
                let (span, limits) = ((since, snapshot), (COPY_ROWS, COPY_BYTES));
                let tables = &self.link.tables;
                let told = replica.engine.tell_rows(tables, span, after.as_ref(), limits);
                (told, replica.history.epoch_at(snapshot))
            };
            after = told.more;
            let changes = news(target, told.changes);
            let piece = Piece {
                partition,
                changes: &changes,
                told: after.is_none().then_some(Mark { lsn: snapshot, epoch }),
            };
            if !piece.changes.is_empty() || piece.told.is_some() {
                self.tell_piece(target, piece).await?;
            }
            if after.is_none() {
                break;
            }
        }
        Ok(Place {
            told: snapshot,
            noted: snapshot,
            noted_at: Instant::now(),
            ..place
        })
    }
}
