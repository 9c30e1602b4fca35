//! A replica's state for a checkpoint: what is committed, as a pinned snapshot, and the records beyond it.

use bytes::Bytes;
use volt_engine::Lsn;
use volt_engine::partition::DumpCursor;

use super::{Replica, Role};
use crate::replication::epochs::EpochHistory;
use crate::replication::tail::Record;

/// What a checkpoint finds.
#[derive(Debug)]
pub(crate) enum Captured {
    /// A replica with a state; pinned, until `release`.
    Whole(Capture),
    /// It is being filled: it will be what the log says from its last `Reset` on, which is in this segment or a later one.
    Filling { segment: u64 },
    /// It is no replica any more, and the log says so.
    Dropped,
    /// What is committed can't be pinned.
    Unpinned,
}

/// A replica as it was at one moment.
#[derive(Debug)]
pub(crate) struct Capture {
    /// All up to here was committed.
    pub(crate) lsn: Lsn,
    /// Up to there.
    pub(crate) history: EpochHistory,
    /// The records beyond.
    pub(crate) tail: Vec<Record>,
    /// A later fill replaces the state that is pinned.
    fills: u64,
}

impl Replica {
    /// The state as it is now. The caller notes the place in the log, still under the mutex.
    pub(crate) fn capture(&mut self) -> Captured {
        match self.role {
            Role::Dropped => return Captured::Dropped,
            Role::Follower { filling: Some(_) } => {
                return Captured::Filling {
                    segment: self.filling_since,
                };
            }
            Role::Primary(_) | Role::Follower { filling: None } => {}
        }
        let lsn = self.committed.min(self.engine.applied());
        if !self.engine.pin(lsn) {
            return Captured::Unpinned;
        }
        let records = self.tail.after(lsn).expect("what is not committed is in the tail");
        Captured::Whole(Capture {
            lsn,
            history: self.history.until(lsn),
            tail: records.cloned().collect(),
            fills: self.fills,
        })
    }

    /// The next chunk, and where to go on. None: a fill began, and what was captured is gone or will be.
    pub(crate) fn captured_chunk(
        &self,
        capture: &Capture,
        after: Option<DumpCursor>,
        max_bytes: usize,
    ) -> Option<(Bytes, Option<DumpCursor>)> {
        (self.fills == capture.fills).then(|| self.engine.dump_chunk(capture.lsn, after, max_bytes))
    }

    /// The capture is no longer needed.
    pub(crate) fn release(&mut self, capture: &Capture) {
        if self.fills == capture.fills {
            self.engine.unpin(capture.lsn);
        }
    }
}
