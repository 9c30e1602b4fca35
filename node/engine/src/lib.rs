//! The pure core of VoltCluster: values, rows, keys, row programs, partitions and their effects.
//!
//! Invariant of this crate: everything here is a function of its arguments. No I/O, no clock, no threads, no
//! randomness, no async: time, ids and random numbers come in as arguments. It knows nothing of nodes or networks.

pub mod catalog;
pub mod changes;
mod codec;
pub mod effects;
pub mod error;
pub mod followed;
mod hash;
pub mod idempotency;
pub mod key;
pub mod partition;
pub mod placement;
pub mod plan;
pub mod procedure;
pub mod row;
mod span;
mod table;
pub mod transaction;
pub mod value;

/// A node's number, for good; in Kubernetes its pod's ordinal + 1. Never 0.
pub type NodeId = u32;
/// A partition's number, unique over all replication groups, never reused. Starts at 1.
pub type PartitionId = u32;
/// A replication group's number. Starts at 1.
pub type GroupId = u32;
/// A table's number, never reused. Starts at 1.
pub type TableId = u32;
/// A procedure's number, never reused. Starts at 1.
pub type ProcedureId = u32;
/// An index's number, never reused. Starts at 1.
pub type IndexId = u32;
/// A sequence's number, never reused. Starts at 1.
pub type SequenceId = u32;
/// An effects record's place in its partition's order. The first record is 1; 0 is "before any".
pub type Lsn = u64;
/// The number of a partition's reign; grows with every change of primary or in-sync set. The first is 1.
pub type Epoch = u64;
