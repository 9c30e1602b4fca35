//! What is committed: the rule of each replication mode, over what the members are known to hold.

use smallvec::SmallVec;
use volt_engine::Lsn;

use super::primary::Follower;
use crate::metadata::map::ReplicationMode;

/// Copies whose ends are sorted without allocating.
const FEW: usize = 8;

/// Everything up to here may be acknowledged; `durable` is what the primary itself holds.
pub(super) fn point<'f>(
    mode: ReplicationMode,
    max_lag: Lsn,
    durable: Lsn,
    followers: impl Iterator<Item = &'f Follower> + Clone,
) -> Lsn {
    let slowest = || {
        let counted = followers.clone().filter(|follower| follower.counts);
        counted.map(|follower| follower.acked).min().unwrap_or(Lsn::MAX)
    };
    match mode {
        ReplicationMode::Sync => durable.min(slowest()),
        ReplicationMode::Async => durable.min(slowest().saturating_add(max_lag)),
        ReplicationMode::SemiSync => {
            // While a change of the set is on its way, either set may be the one in force.
            let members = followers.clone().filter(|follower| follower.member);
            let without = members.clone().filter(|follower| !follower.leaving);
            let with = followers.clone().filter(|follower| follower.counts);
            let now = majority(durable, members);
            now.min(majority(durable, without)).min(majority(durable, with))
        }
    }
}

/// What the primary and a majority of the set hold that it makes up with these.
pub(super) fn majority<'f>(durable: Lsn, others: impl Iterator<Item = &'f Follower>) -> Lsn {
    let mut ends: SmallVec<[Lsn; FEW]> = others.map(|follower| follower.acked).collect();
    ends.push(durable);
    ends.sort_unstable_by(|one, other| other.cmp(one));
    // Of n the one at n / 2, from the greatest, is held by n / 2 + 1.
    ends[ends.len() / 2].min(durable)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follower(acked: Lsn) -> Follower {
        let mut follower = Follower::default();
        (follower.acked, follower.member, follower.counts) = (acked, true, true);
        follower
    }

    fn of(mode: ReplicationMode, durable: Lsn, followers: &[Follower]) -> Lsn {
        point(mode, 10, durable, followers.iter())
    }

    #[test]
    fn each_mode_has_its_rule() {
        use ReplicationMode::{Async, SemiSync, Sync};
        let three = [follower(5), follower(80)];
        assert_eq!([Sync, SemiSync, Async].map(|mode| of(mode, 100, &three)), [5, 80, 15]);
        // The primary itself always has it.
        assert_eq!([Sync, SemiSync, Async].map(|mode| of(mode, 3, &three)), [3, 3, 3]);
        assert_eq!([Sync, SemiSync, Async].map(|mode| of(mode, 100, &[])), [100, 100, 100]);
        let two = [follower(7)];
        assert_eq!(of(SemiSync, 100, &two), 7, "two of two");
        let four = [follower(1), follower(2), follower(3)];
        assert_eq!(of(SemiSync, 100, &four), 2, "three of four");
        let five = [follower(1), follower(2), follower(3), follower(4)];
        assert_eq!(of(SemiSync, 100, &five), 3, "three of five");
    }

    #[test]
    fn while_the_set_changes_both_sets_have_what_is_committed() {
        let mut set = [follower(80), follower(5)];
        set[0].leaving = true;
        assert_eq!(of(ReplicationMode::SemiSync, 100, &set), 5);
        let mut set = [follower(80), follower(5)];
        set[1].member = false;
        assert_eq!(
            of(ReplicationMode::SemiSync, 100, &set),
            80,
            "two of two, and two of three"
        );
        set[0].acked = 5;
        set[1].acked = 80;
        assert_eq!(of(ReplicationMode::SemiSync, 100, &set), 5, "two of two");
    }
}
