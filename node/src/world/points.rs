//! Places in the code between two steps that a crash may come between, where a simulation can have it come for certain.

use super::World;

/// A moment in a node's work: what was done before it is done, and what comes after has not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CrashPoint {
    /// A batch of the log is about to be written.
    LogTaken,
    /// It is on the disk, and nobody was told.
    LogFlushed,
    /// A segment of the log is full and flushed, the next one not begun.
    LogSegmentFull,
    /// The next one is begun, and empty.
    LogSegmentBegun,
    /// A segment that is not needed any more was removed, and others perhaps not.
    LogSegmentRemoved,
    /// A checkpoint has its file and no entry.
    CheckpointBegun,
    /// One replica's state is in a checkpoint, and others perhaps not.
    CheckpointPartly,
    /// All of it is on the disk, under the name of what is unfinished.
    CheckpointWritten,
    /// The log is on the disk beyond the checkpoint's marks.
    CheckpointMarked,
    /// It has its name, and nothing that it makes needless was removed.
    CheckpointNamed,
    /// Every part of a transaction has run, and nobody was asked for his vote. On the coordinator.
    TwoPhaseRun,
    /// All have voted, and nothing is decided. On the coordinator.
    TwoPhaseVoted,
    /// It is decided, and nobody but its home partition was told. On the coordinator.
    TwoPhaseDecided,
    /// A vote is appended, and its record is not committed. On a participant.
    VoteAppended,
    /// It is committed, and the coordinator was not told. On a participant.
    VoteCommitted,
    /// A decision is appended, and its record is not committed. On a participant.
    DecisionAppended,
    /// It is committed, and the coordinator was not told. On a participant.
    DecisionCommitted,
}

impl CrashPoint {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::LogTaken,
        Self::LogFlushed,
        Self::LogSegmentFull,
        Self::LogSegmentBegun,
        Self::LogSegmentRemoved,
        Self::CheckpointBegun,
        Self::CheckpointPartly,
        Self::CheckpointWritten,
        Self::CheckpointMarked,
        Self::CheckpointNamed,
        Self::TwoPhaseRun,
        Self::TwoPhaseVoted,
        Self::TwoPhaseDecided,
        Self::VoteAppended,
        Self::VoteCommitted,
        Self::DecisionAppended,
        Self::DecisionCommitted,
    ];
}

/// Who decides whether a process ends at a point. There is nobody in production.
#[cfg(any(test, feature = "simulation"))]
pub trait Fate: Send + Sync {
    /// True: the process does nothing more from here on; whoever says so sees to it that it ends.
    fn ends_at(&self, point: CrashPoint) -> bool;
}

impl World {
    /// Passes a point, unless the process ends there.
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) async fn pass(&self, point: CrashPoint) {
        if self.fate.as_ref().is_some_and(|fate| fate.ends_at(point)) {
            std::future::pending::<()>().await;
        }
    }

    /// Passes a point.
    #[cfg(not(any(test, feature = "simulation")))]
    #[inline]
    pub(crate) async fn pass(&self, _: CrashPoint) {}
}
