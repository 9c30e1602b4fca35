//! Bugs that a simulation plants, one a run, to see that its checks find them. Each stands where the code would have it,
//! as a question that a program without the feature `simulation` answers with "no" while it is compiled.

/// Something that is wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PlantedBug {
    /// A write of one partition is acknowledged before its backups, or any disk, have it. An acknowledged write is lost.
    AckBeforeBackup,
    /// A read is answered though what it saw is not committed. What may be undone is told.
    ReadPastCommitted,
    /// A backup takes records of an older epoch than it knows. A deposed primary's writes are confirmed.
    OldEpochTaken,
    /// A primary answers without looking at its lease. Two primaries answer at one moment.
    LeaseIgnored,
    /// Whoever lives is promoted, in sync or not, however short its log is. Acknowledged writes are lost.
    StaleReplicaPromoted,
    /// Commits don't wait for a member that is a little late, though the map has it in sync. Its promotion loses writes.
    LateMemberForgotten,
    /// A backup keeps what it has beyond the last record that it shares with its primary. Replicas differ.
    BackupDoesNotCut,
    /// The log says that an entry is on the disk when it is only written. A power cut takes what was acknowledged.
    FlushSkipped,
    /// The metadata group's log is written and not flushed. A power cut takes what a member has voted for.
    GroupLogNotFlushed,
    /// Participants are told to commit before their home partition has put that on record. It may decide otherwise.
    DecisionNotReplicated,
    /// Who has voted and hears nothing aborts by himself. The others may commit.
    VoterAborts,
    /// Statements of one partition read while it has voted and knows no decision. Half of a transaction is seen.
    PreparedServed,
    /// COMMIT does not look whether what was read still stands. Updates are lost.
    ReadsNotValidated,
    /// COMMIT looks at the keys that were read, and not at the ranges. Phantoms appear.
    RangesNotValidated,
    /// A new primary does not heed the idempotency keys that its predecessor kept. A request happens twice.
    KeysNotTakenOver,
    /// A home partition tells its decision before that is on record. Its successor may decide otherwise.
    HomeAnswersEarly,
    /// A checkpoint gets its name before its marks are on the disk. A power cut leaves a log that can't be read.
    CheckpointBeforeMarks,
    /// A fill ends after its first chunk. A learner counts that lacks rows.
    FillIncomplete,
    /// The longest log is taken of one member, where as many must be asked as meet every majority. Acknowledged writes are lost.
    TooFewAsked,
    /// A participant keeps its vote to itself, and puts it on record with the decision. Its successor knows nothing of it, and the others commit.
    VoteNotReplicated,
    /// What a power cut left half of stays in the log, and what comes later is written behind it. A later start does not find it.
    TornTailKept,
    /// A table that moves to other partitions is served in the old ones until nobody knows it there. Writes stay behind.
    MovedTableServed,
    /// A snapshot shows of a table that has moved since what had come by then. A part of its rows is read.
    MovedRowsShown,
    /// A cut of the archive is taken of one partition after the other, and none is held meanwhile. Half of a transaction is restored.
    CutNotHeld,
}

impl PlantedBug {
    /// All of them.
    pub const ALL: [Self; 24] = [
        Self::AckBeforeBackup,
        Self::ReadPastCommitted,
        Self::OldEpochTaken,
        Self::LeaseIgnored,
        Self::StaleReplicaPromoted,
        Self::LateMemberForgotten,
        Self::BackupDoesNotCut,
        Self::FlushSkipped,
        Self::GroupLogNotFlushed,
        Self::DecisionNotReplicated,
        Self::VoterAborts,
        Self::PreparedServed,
        Self::ReadsNotValidated,
        Self::RangesNotValidated,
        Self::KeysNotTakenOver,
        Self::HomeAnswersEarly,
        Self::CheckpointBeforeMarks,
        Self::FillIncomplete,
        Self::TooFewAsked,
        Self::VoteNotReplicated,
        Self::TornTailKept,
        Self::MovedTableServed,
        Self::MovedRowsShown,
        Self::CutNotHeld,
    ];

    /// The one of this name, as it is written here.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|bug| format!("{bug:?}") == name)
    }
}

/// What is wrong with one process on purpose: nothing, unless a simulation says so.
#[derive(Clone, Copy, Debug, Default)]
pub struct Planted {
    #[cfg(feature = "simulation")]
    bug: Option<PlantedBug>,
}

impl Planted {
    /// This bug, and no other.
    #[cfg(feature = "simulation")]
    pub const fn with(bug: PlantedBug) -> Self {
        Self { bug: Some(bug) }
    }

    /// True when this bug is planted.
    #[cfg(feature = "simulation")]
    #[inline]
    pub(crate) fn has(self, bug: PlantedBug) -> bool {
        self.bug == Some(bug)
    }

    /// No bug ever is.
    #[cfg(not(feature = "simulation"))]
    #[inline]
    pub(crate) const fn has(self, _: PlantedBug) -> bool {
        false
    }
}
