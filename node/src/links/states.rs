//! How far this node's partitions have been told, for `system.links` and metrics.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use volt_engine::{Lsn, PartitionId};

use crate::metadata::link::LinkId;

/// How far a partition has been told over a link.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionTold {
    /// It is being copied whole.
    pub is_copying: bool,
    /// All up to here is told.
    pub told: Lsn,
    /// Committed, and not told.
    pub behind: Lsn,
    /// Changes told by this node.
    pub changes: u64,
    /// Of these, what met other changes there.
    pub conflicts: u64,
    /// When all was told last, in microseconds since 1970.
    pub caught_up_micros: Option<i64>,
}

#[derive(Debug, Default)]
struct Known {
    /// All changes that were told, and conflicts.
    totals: (u64, u64),
    partitions: BTreeMap<(LinkId, PartitionId), PartitionTold>,
    /// Why a link stands still.
    errors: BTreeMap<LinkId, String>,
}

/// What this node knows of its links.
#[derive(Debug, Default)]
pub(crate) struct LinkStates(Mutex<Known>);

impl LinkStates {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets other links.
    pub(super) fn retain(&self, keep: impl Fn(LinkId) -> bool) {
        let mut known = self.known();
        known.partitions.retain(|(link, _), _| keep(*link));
        known.errors.retain(|link, _| keep(*link));
    }

    /// Forgets partitions of a link that this node does not lead.
    pub(super) fn retain_partitions(&self, link: LinkId, led: impl Fn(PartitionId) -> bool) {
        let is_led = |&(of, partition): &(LinkId, PartitionId)| of != link || led(partition);
        self.known().partitions.retain(|place, _| is_led(place));
    }

    pub(super) fn change(&self, link: LinkId, partition: PartitionId, change: impl FnOnce(&mut PartitionTold)) {
        change(self.known().partitions.entry((link, partition)).or_default());
    }

    /// So many changes were told, of which so many met others.
    pub(super) fn count(&self, link: LinkId, partition: PartitionId, changes: u64, conflicts: u64) {
        let mut known = self.known();
        known.totals.0 += changes;
        known.totals.1 += conflicts;
        let told = known.partitions.entry((link, partition)).or_default();
        told.changes += changes;
        told.conflicts += conflicts;
    }

    /// True when it was not known.
    pub(super) fn set_error(&self, link: LinkId, why: Option<String>) -> bool {
        let mut known = self.known();
        match why {
            Some(why) => known.errors.insert(link, why.clone()) != Some(why),
            None => known.errors.remove(&link).is_some(),
        }
    }

    /// How far partitions led here have been told, and why links stand still.
    pub(crate) fn report(&self) -> LinkReport {
        let known = self.known();
        LinkReport {
            partitions: known.partitions.clone().into_iter().collect(),
            errors: known.errors.clone().into_iter().collect(),
            changes: known.totals.0,
            conflicts: known.totals.1,
        }
    }

    /// The least that was told of a partition by these links; None: one has not told.
    pub(super) fn told_by_all(&self, links: impl Iterator<Item = LinkId>, partition: PartitionId) -> Option<Lsn> {
        let known = self.known();
        let mut least = Lsn::MAX;
        for link in links {
            let told = known
                .partitions
                .get(&(link, partition))
                .filter(|told| !told.is_copying)?;
            least = least.min(told.told);
        }
        Some(least)
    }
}

/// What a node knows of its links.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkReport {
    /// How far each partition led there has been told.
    pub partitions: Vec<((LinkId, PartitionId), PartitionTold)>,
    /// Why links stand still.
    pub errors: Vec<(LinkId, String)>,
    /// Changes told since the node's start, over all links.
    pub changes: u64,
    /// Of these, what met other changes there.
    pub conflicts: u64,
}
