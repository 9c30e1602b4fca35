//! The node's one log: what its partitions' replicas did, in order, on disk.
//!
//! All partitions share it, so that one flush makes many of them safe (group commit). It is a folder of segments,
//! numbered from 1, of which only the last one grows. `layout` says what their bytes are, `writer` how they get there,
//! `reader` how they are read again after a start.
//!
//! What must hold:
//! - An entry's ticket is announced only when the entry is as safe as the durability asks, and with it everything
//!   appended before it (`Memory`: at once; `Async`: when the kernel has it, so that it survives the process, and a power
//!   cut may cost `ASYNC_FLUSH_INTERVAL`; `Fsync`: when the disk has it). After an I/O error nothing is announced any more: what the disk holds is then unknown, and a
//!   second flush that succeeds proves nothing (the kernel may have dropped the dirty pages).
//! - Replay gives exactly a prefix of what was appended, and that prefix holds everything that was announced (`Fsync`).
//!   Damage where the log is known to have been flushed is an error that names file and offset, never a shorter log.
//! - `append` never waits: it is called from under a partition's mutex. What bounds the queue is
//!   [`Log::queued_bytes`], which its callers look at before they take on more work.
//!
//! Segments that a checkpoint has made needless are removed, lowest number first (`Log::remove_before`). Replay begins
//! where the checkpoint says, and asks for every segment from there on.

pub(super) mod blocks;
pub(super) mod layout;
pub(super) mod reader;
#[cfg(test)]
mod tests;
mod writer;

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use volt_engine::{Epoch, Lsn, PartitionId};

pub use crate::config::Durability;
pub use writer::Log;

/// A segment that has grown to this size is followed by a new one.
pub const DEFAULT_SEGMENT_BYTES: u64 = 64 << 20;
/// `Async`: the time between two flushes.
pub const ASYNC_FLUSH_INTERVAL: Duration = Duration::from_millis(100);
/// No entry's payload is longer than this.
pub const MAX_PAYLOAD_BYTES: usize = 256 << 20;

/// One thing that a partition's replica on this node did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogEntry {
    /// Took a record into its log.
    Record {
        /// The reign in which the record was made.
        epoch: Epoch,
        /// Its place.
        lsn: Lsn,
        /// An encoded `LogPayload`.
        payload: Bytes,
    },
    /// Learnt that everything up to here is committed.
    Committed {
        /// The last committed one.
        lsn: Lsn,
    },
    /// Cut its log: records beyond `after` never happened.
    Truncate {
        /// The last record that stays.
        after: Lsn,
        /// The reign that asked for it.
        epoch: Epoch,
    },
    /// Threw away all it held, to be filled. Until `FillDone` it holds nothing.
    Reset {
        /// The reign under which it is filled.
        epoch: Epoch,
    },
    /// Took a chunk of somebody's state.
    FillChunk {
        /// The chunk.
        chunk: Bytes,
    },
    /// Holds, since the last `Reset`, the whole state at this place.
    FillDone {
        /// The place.
        lsn: Lsn,
        /// The epoch of the record at that place.
        epoch: Epoch,
        /// Where the epochs before it began, as the replication layer encodes it.
        epochs: Bytes,
    },
    /// Is no replica any more.
    Dropped,
    /// A place that a checkpoint names: a replica was captured here; of partition 0: it began here, with the replicas
    /// that the node then had.
    Mark {
        /// Random, so that it names no other place.
        mark: u64,
    },
}

/// Stands for a partition where an entry is of the node as a whole; partitions are numbered from 1.
pub const OF_THE_NODE: PartitionId = 0;

/// Names an appended entry; later ones are greater. 0 names none and is always safe.
pub type Ticket = u64;

/// Where and how to keep the log.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// The folder of the segments.
    pub folder: PathBuf,
    /// When an entry counts as safe.
    pub durability: Durability,
    /// Size from which on a segment is followed by a new one.
    pub segment_bytes: u64,
    /// Replay begins with this segment: 1, unless a checkpoint holds what came before.
    pub first_segment: u64,
    /// Bytes that are read at a time.
    pub block_bytes: usize,
}

impl LogOptions {
    /// The folder `log` of the node's data directory.
    pub fn new(durability: Durability) -> Self {
        Self {
            folder: PathBuf::from("log"),
            durability,
            segment_bytes: DEFAULT_SEGMENT_BYTES,
            first_segment: 1,
            block_bytes: blocks::READ_BLOCK_BYTES,
        }
    }
}

/// The log can't be opened or has stopped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// Bytes that were once flushed are not what was written.
    #[error("{} is damaged at offset {offset}: {what}", file.display())]
    Corrupt {
        /// The segment, or the checkpoint.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// What was found.
        what: String,
    },
    /// The segment is another cluster's.
    #[error("{} belongs to cluster {found}, this is {expected}", file.display())]
    OtherCluster {
        /// The segment.
        file: PathBuf,
        /// The cluster that it names.
        found: uuid::Uuid,
        /// The cluster asked for.
        expected: uuid::Uuid,
    },
    /// The segment was written by a newer program.
    #[error("{} has layout version {version}, which this program does not know", file.display())]
    Version {
        /// The segment.
        file: PathBuf,
        /// Its layout's version.
        version: u32,
    },
    /// The disk failed. For a log in use: it has stopped for good.
    #[error("the log failed: {what}: {cause}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        cause: String,
    },
    /// Who took the replayed entries refused one.
    #[error("an entry of the log can't be replayed: {0}")]
    Refused(String),
    /// It was closed.
    #[error("the log is closed")]
    Closed,
}

impl LogError {
    pub(super) fn io(what: impl Into<String>, cause: &std::io::Error) -> Self {
        Self::Io {
            what: what.into(),
            cause: cause.to_string(),
        }
    }
}
