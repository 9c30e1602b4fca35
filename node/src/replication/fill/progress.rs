//! How far this node's fills have come: rows of `system.recoveries`.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use volt_engine::{NodeId, PartitionId};

use crate::config::{RecoverySource, RecoveryStrategy};

/// Fills that a node remembers.
const KEPT: usize = 256;

/// How a fill stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum FillState {
    /// Rows are copied.
    Copying,
    /// The replica has the snapshot, and takes the records behind it.
    Done,
    /// It ended before; why. It begins again by itself.
    Failed(String),
}

/// A fill of one replica here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Progress {
    pub(crate) partition: PartitionId,
    /// From whom.
    pub(crate) source: NodeId,
    /// What had most of it, if it was there already.
    pub(crate) medium: RecoverySource,
    pub(crate) strategy: RecoveryStrategy,
    pub(crate) state: FillState,
    /// Microseconds since 1970 on this node's clock.
    pub(crate) began_micros: i64,
    /// How long it has taken.
    pub(crate) micros: i64,
    pub(crate) total_rows: u64,
    pub(crate) rows: u64,
    /// Bytes of chunks that came over the network, and of those that were here already.
    pub(crate) received_bytes: u64,
    pub(crate) reused_bytes: u64,
}

impl Progress {
    /// 0 to 100; 100 only when it is done.
    pub(crate) fn percent(&self) -> u8 {
        match self.state {
            FillState::Done => 100,
            _ if self.total_rows == 0 => 0,
            _ => (self.rows.min(self.total_rows) * 100 / self.total_rows).min(99) as u8,
        }
    }

    /// Microseconds that it will still take, if it goes on as it went; None: nobody knows.
    pub(crate) fn micros_left(&self) -> Option<i64> {
        match self.state {
            FillState::Done => Some(0),
            FillState::Failed(_) => None,
            FillState::Copying if self.rows == 0 => None,
            FillState::Copying => {
                let left = self.total_rows.saturating_sub(self.rows) as f64 / self.rows as f64;
                Some((self.micros as f64 * left) as i64)
            }
        }
    }
}

/// The newest fills of a node.
#[derive(Debug, Default)]
pub(crate) struct Fills(Mutex<VecDeque<Arc<Mutex<Progress>>>>);

impl Fills {
    /// One more.
    pub(super) fn begin(&self, progress: Progress) -> Arc<Mutex<Progress>> {
        let mut fills = self.0.lock().expect("no panic under this lock");
        if fills.len() == KEPT {
            fills.pop_front();
        }
        let progress = Arc::new(Mutex::new(progress));
        fills.push_back(Arc::clone(&progress));
        progress
    }

    /// All of them, the oldest first.
    pub(crate) fn all(&self) -> Vec<Progress> {
        let fills = self.0.lock().expect("no panic under this lock");
        let one = |fill: &Arc<Mutex<Progress>>| fill.lock().expect("no panic under this lock").clone();
        fills.iter().map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(state: FillState, rows: u64, total_rows: u64) -> Progress {
        Progress {
            partition: 1,
            source: 2,
            medium: RecoverySource::Network,
            strategy: RecoveryStrategy::Automatic,
            state,
            began_micros: 0,
            micros: 3_000_000,
            total_rows,
            rows,
            received_bytes: 0,
            reused_bytes: 0,
        }
    }

    #[test]
    fn progress_tells_how_far_it_is_and_how_long_it_takes() {
        let copying = |rows, total| {
            let progress = progress(FillState::Copying, rows, total);
            (progress.percent(), progress.micros_left())
        };
        assert_eq!(copying(0, 0), (0, None));
        assert_eq!(copying(0, 200), (0, None));
        assert_eq!(copying(150, 200), (75, Some(1_000_000)));
        assert_eq!(copying(200, 200), (99, Some(0)), "the snapshot is not committed yet");
        // Rows that were put meanwhile are not in the snapshot; what is counted may be more than was told.
        assert_eq!(copying(300, 200), (99, Some(0)));
        assert_eq!(progress(FillState::Done, 0, 0).percent(), 100);
        assert_eq!(
            progress(FillState::Failed("gone".to_owned()), 5, 10).micros_left(),
            None
        );
    }

    #[test]
    fn only_so_many_are_kept() {
        let fills = Fills::default();
        for rows in 0..KEPT as u64 + 3 {
            fills.begin(progress(FillState::Copying, rows, 1));
        }
        let all = fills.all();
        assert_eq!((all.len(), all[0].rows), (KEPT, 3));
    }
}
