//! The other database: what a sender asks of it.

use async_trait::async_trait;
use volt_engine::changes::Change;
use volt_engine::{Epoch, Lsn, PartitionId};

use crate::metadata::map::ClusterMap;

/// Why nothing is told now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotTold {
    /// The other database can't be reached, or refuses.
    #[error("{0}")]
    Remote(String),
    /// Somebody else tells this partition by now, or this node leads it no more.
    #[error("partition {0} is another node's to tell")]
    Moved(PartitionId),
    /// Removals are forgotten that were never told.
    #[error(
        "partition {0} was not told for so long that removed rows are forgotten: drop the link, empty its tables there, and create it again"
    )]
    Forgotten(PartitionId),
    /// The catalog has changed under it.
    #[error("{0}")]
    Catalog(String),
}

/// A part of a partition's changes, and how far they go.
pub(super) struct Piece<'a> {
    pub(super) partition: PartitionId,
    pub(super) changes: &'a [Change],
    /// All up to here is told with it; None: more of the same follows, as of a copy.
    pub(super) told: Option<Mark>,
}

/// A record, by its place and the epoch of the primary that made it: together they name it for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) lsn: Lsn,
    pub(super) epoch: Epoch,
}

/// Another database, of one connection.
#[async_trait]
pub(super) trait Target: Send + Sync {
    /// Makes this connection the one that tells a partition, and returns how far it was told; None: nothing of it.
    async fn take_over(&self, partition: PartitionId) -> Result<Option<Mark>, NotTold>;

    /// Tells a part; the changes that met others there.
    async fn tell(&self, map: &ClusterMap, piece: Piece<'_>) -> Result<u64, NotTold>;

    /// The cluster whose changes need not be told to it: itself.
    fn origin(&self) -> Option<u64>;
}
