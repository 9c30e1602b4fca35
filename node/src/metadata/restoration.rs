//! What a cluster begins with that is to be what another one was.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use volt_engine::{Epoch, Lsn, PartitionId};

/// A cluster that is becoming what an archived one was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restoration {
    /// The archive's, and behind it the archived cluster's UUID.
    pub url: String,
    /// The moment, in microseconds since 1970.
    pub at_micros: i64,
    /// Partitions that there are to restore.
    pub partitions: u32,
    /// Those that are not restored yet: the LSN of each in the archive, and an epoch that its record does not exceed.
    pub left: BTreeMap<PartitionId, (Lsn, Epoch)>,
}

impl std::fmt::Display for Restoration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (left, all) = (self.left.len(), self.partitions);
        write!(f, "the database is being restored: {left} of {all} partitions are left")
    }
}
