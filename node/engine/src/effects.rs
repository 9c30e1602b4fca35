//! Effects: what one transaction did to one partition. Logged, replicated and replayed as these bytes.
//!
//! Layout of `Effects`: a sequence of `put` (1, table u32, key length varint, key, row length varint, row) and
//! `remove` (2, table u32, key length varint, key). Applying is idempotent at the same LSN.
//!
//! A record of the log carries a `LogPayload`: what its partition does at that LSN.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{NodeId, PartitionId};

/// The encoded rows that a transaction put and the keys that it removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effects(pub Bytes);

/// Names a transaction over several partitions, for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TransactionId {
    /// When it began, microseconds since 1970 on its coordinator's clock: its age for wound-wait; the older wins.
    pub began_micros: i64,
    /// Its coordinator.
    pub node: NodeId,
    /// The coordinator's boot id: a restarted coordinator never repeats a name.
    pub boot: u64,
    /// Counts the coordinator's transactions.
    pub sequence: u64,
}

/// What a record does to its partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogPayload {
    /// A transaction of this partition alone.
    Write(Effects),
    /// This partition's part of a transaction over several: kept aside until its decision; the partition is held.
    Prepared {
        /// Which.
        transaction: TransactionId,
        /// The partition whose log holds the decision.
        home: PartitionId,
        /// What it will do here.
        effects: Effects,
    },
    /// The prepared transaction's effects happen now, at this record's LSN.
    Commit(TransactionId),
    /// The prepared transaction's effects never happen. Also written by a home partition that never saw it prepared.
    Abort(TransactionId),
    /// Nothing: the first record of a new primary.
    EpochStart,
}
