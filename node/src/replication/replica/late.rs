//! Members that hold commits up, or lag, or should leave a set that only its primary changes: it looks at them now and then.

use std::collections::BTreeSet;

use volt_engine::{Epoch, Lsn, NodeId};

use super::primary::Follower;
use super::{Replica, commit};
use crate::metadata::map::ReplicationMode;
use crate::world::PlantedBug;

/// When a member holds commits up, or lags, for too long; in looks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LagLimits {
    /// It lacks something, and has acknowledged nothing for so many looks.
    pub(crate) silent_looks: u32,
    /// It is behind by more records than this, for so many looks.
    pub(crate) records: Option<(Lsn, u32)>,
}

/// A member that should leave the in-sync set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Late {
    /// Which.
    pub(crate) node: NodeId,
    /// Records that it has not acknowledged.
    pub(crate) missing: Lsn,
    /// For so many looks.
    pub(crate) looks: u32,
    /// What is wrong with it.
    pub(crate) why: Why,
}

/// Why a member should leave the in-sync set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// It lacks something, and has acknowledged nothing meanwhile.
    IsSilent,
    /// It is behind by more records than it may be.
    Lags,
    /// It is not late: it must be filled, or should leave whatever it holds, or may leave by an earlier proposal.
    Leaves,
}

impl LagLimits {
    fn late(&self, node: NodeId, follower: &Follower, appended: Lsn) -> Option<Late> {
        let lags = self.records.filter(|(_, looks)| follower.lagging_looks >= *looks);
        let (why, looks) = match lags {
            _ if follower.late_looks >= self.silent_looks => (Why::IsSilent, follower.late_looks),
            Some(_) => (Why::Lags, follower.lagging_looks),
            None => return None,
        };
        let missing = appended.saturating_sub(follower.acked);
        Some(Late {
            node,
            missing,
            looks,
            why,
        })
    }
}

fn leaves(node: NodeId) -> Late {
    Late {
        node,
        missing: 0,
        looks: 0,
        why: Why::Leaves,
    }
}

impl Replica {
    /// One more look at the members: those that have been late for so many looks that commits should wait no longer, or
    /// behind by more records than they may be, for as long as that may last.
    /// From then on it is the caller's to propose that they leave; they count until the entry is seen committed.
    /// Looks are counted, not time: a process that stood still has not looked.
    ///
    /// `gone`: those that should leave whatever they hold, of a set that only its primary changes.
    pub(crate) fn members_to_drop(&mut self, limits: LagLimits, gone: &BTreeSet<NodeId>) -> Vec<Late> {
        if self.planted.has(PlantedBug::LateMemberForgotten) {
            self.advance_commit();
        }
        let (appended, mode, committed, durable) = (self.appended, self.mode, self.committed, self.durable);
        let Some(reign) = self.reign_mut() else {
            return Vec::new();
        };
        for follower in reign.followers.values_mut() {
            let is_late = follower.member && follower.acked < appended && follower.acked <= follower.acked_then;
            follower.late_looks = if is_late { follower.late_looks + 1 } else { 0 };
            follower.acked_then = follower.acked;
            let missing = appended.saturating_sub(follower.acked);
            let lags = follower.member && limits.records.is_some_and(|(records, _)| missing > records);
            follower.lagging_looks = if lags { follower.lagging_looks + 1 } else { 0 };
        }
        if reign.dropping {
            return Vec::new();
        }
        // What may still go through is asked for again, and nothing else.
        let unsettled = reign.followers.values().any(|follower| follower.leaving);
        let one = |(&node, follower): (&NodeId, &Follower)| {
            if unsettled {
                return follower.leaving.then(|| leaves(node));
            }
            let is_gone = follower.member && (follower.to_fill || gone.contains(&node));
            let late = limits.late(node, follower, appended);
            late.or_else(|| is_gone.then(|| leaves(node)))
        };
        let late: Vec<Late> = reign.followers.iter().filter_map(one).collect();
        if mode == ReplicationMode::SemiSync {
            let leaves = |node: &NodeId| late.iter().any(|late| late.node == *node);
            let others = reign.followers.iter();
            let others = others.filter(|(node, follower)| follower.member && !leaves(node));
            if commit::majority(durable, others.map(|(_, follower)| follower)) < committed {
                // A majority of those who would stay lacks what is committed: it is waited for.
                return Vec::new();
            }
            for late in &late {
                if let Some(follower) = reign.followers.get_mut(&late.node) {
                    follower.leaving = true;
                }
            }
        }
        reign.dropping = !late.is_empty();
        late
    }

    /// Nobody is late: it is this node that has no contact.
    pub(crate) fn forgive_late(&mut self) {
        for follower in self
            .reign_mut()
            .into_iter()
            .flat_map(|reign| reign.followers.values_mut())
        {
            (follower.late_looks, follower.lagging_looks) = (0, 0);
        }
    }

    /// The proposal made in `epoch` is answered, or was given up. Who is still late is counted from the beginning.
    pub(crate) fn drop_answered(&mut self, epoch: Epoch) {
        if let Some(reign) = self.reign_mut().filter(|reign| reign.epoch == epoch) {
            reign.dropping = false;
            self.forgive_late();
        }
    }
}
