//! A cluster that follows the archive of another one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use volt_engine::SequenceId;

use super::map::ClusterMap;
use super::sequence::Sequence;

/// What a standby is. How far its rows are, its partitions say themselves (`volt_engine::followed`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standby {
    /// The archive's, and behind it the archived cluster's UUID.
    pub url: String,
    /// The cut whose catalog and sequences it has, in microseconds since 1970: no partition is beyond it.
    pub at_micros: i64,
    /// The version of the archived map that has this catalog.
    pub archived_version: u64,
    /// Set when it is to become a cluster of its own.
    pub promotion: Option<Promotion>,
}

/// How a standby becomes a cluster of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promotion {
    /// With what it has: what more there is in the archive is not asked for.
    pub is_immediate: bool,
    /// The cut with which it begins: from then on nothing more is followed.
    pub settled_micros: Option<i64>,
}

/// A change of what a standby is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum StandbyCommand {
    /// Its partitions are about to be as they were at this cut. Refused when the promotion is settled; one that is older than what it has
    /// changes nothing.
    Follow {
        /// When the cut was taken.
        at_micros: i64,
        /// The archived map, for its catalog, if that is another one.
        archived: Option<Box<ClusterMap>>,
        /// What sequences had handed out then.
        sequences: BTreeMap<SequenceId, Sequence>,
    },
    /// It is to become a cluster of its own; asked for again, it may become immediate.
    Promote {
        /// As in `Promotion`.
        is_immediate: bool,
    },
    /// All its partitions are at this cut, with which it begins.
    Settle {
        /// When the cut was taken.
        at_micros: i64,
    },
    /// Its partitions follow no more: it is a cluster like any other.
    Promoted,
}
