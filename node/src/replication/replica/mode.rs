//! A partition's mode, and how it becomes another one while writes go on: until the change is in force, what is committed is what both
//! modes call so; and it is proposed when all that was committed before is as safe as the new mode says. So whichever of the two a new
//! primary is chosen by, it has what that mode promises.

use volt_engine::{Epoch, Lsn};

use super::primary::{Follower, Reign};
use super::{Replica, commit};
use crate::metadata::map::ReplicationMode;

impl Replica {
    /// Everything up to here is as safe as this mode says.
    pub(super) fn point_of<'f>(
        &self,
        mode: ReplicationMode,
        reign: &Reign,
        followers: impl Iterator<Item = &'f Follower> + Clone,
    ) -> Lsn {
        let point = commit::point(mode, self.max_lag, self.durable, followers);
        // Who is asked for the longest log compares epochs first, so that a majority's older records are safe only below one of
        // this reign (Raft, Ongaro and Ousterhout 2014, section 5.4.2).
        match mode == ReplicationMode::SemiSync && self.history.epoch_at(point) < reign.began_epoch {
            true => 0,
            false => point,
        }
    }

    /// Every replica in sync holds everything up to here, whatever the mode asks for.
    pub(crate) fn is_everywhere(&self, lsn: Lsn) -> bool {
        let point = |reign: &Reign| self.point_of(ReplicationMode::Sync, reign, reign.followers.values());
        self.reign().is_some_and(|reign| point(reign) >= lsn)
    }

    /// The mode to propose, and the epoch that it replaces, if all that is committed is safe enough. The caller asks again until the map says
    /// what became of it; a change of the set that is on its way is settled first.
    pub(crate) fn mode_to_propose(&self) -> Option<(ReplicationMode, Epoch)> {
        let (next, reign) = (self.next_mode?, self.reign()?);
        let is_unsettled = |follower: &Follower| follower.leaving || follower.proposed;
        if reign.relinquishing || reign.dropping || reign.followers.values().any(is_unsettled) {
            return None;
        }
        let point = self.point_of(next, reign, reign.followers.values());
        (point >= self.committed).then_some((next, reign.epoch))
    }
}
