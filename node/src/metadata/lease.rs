//! Leases: the metadata group's word to a node that no primary of its partitions has a successor until a moment.
//!
//! The holder counts from when it *sent* its request, on a clock that runs through suspension; the granter counts from
//! when it *received* it, a little longer. So the holder's end always comes first. A granter speaks for the group only
//! for as long after a majority has confirmed it as a lease lasts; and a new one takes every lease that it doesn't know
//! of for just renewed, because its predecessor may have granted it a moment ago.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use volt_engine::NodeId;

use crate::world::Clock;

/// By how many percent two clocks may differ in speed.
const DRIFT_PERCENT: u32 = 1;

/// A lease that ends is mostly followed by another, when the metadata group has chosen a new leader: for so long
/// statements wait for it, unanswered, before they are refused.
const GRACE: Duration = Duration::from_millis(2000);

/// This node's lease. Cheap to ask: one load and one look at the clock.
pub struct Lease {
    clock: Arc<dyn Clock>,
    /// Nanoseconds of boot time; 0: none.
    until: AtomicU64,
}

impl Lease {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            until: AtomicU64::new(0),
        }
    }

    /// True while nobody else can be primary of what this node is primary of.
    pub fn is_valid(&self) -> bool {
        nanos(self.clock.boot_time()) < self.until.load(Ordering::Acquire)
    }

    /// How long it still lasts.
    pub fn remaining(&self) -> Duration {
        let until = self.until.load(Ordering::Acquire);
        Duration::from_nanos(until.saturating_sub(nanos(self.clock.boot_time())))
    }

    /// True when it ended so long ago that nobody should wait for the next one: whoever asks is refused.
    pub fn is_given_up(&self) -> bool {
        let until = self.until.load(Ordering::Acquire);
        nanos(self.clock.boot_time()) >= until.saturating_add(nanos(GRACE))
    }

    /// This node can't answer for what it holds: it has no lease any more, whoever granted it one.
    pub(crate) fn give_up(&self) {
        self.until.store(0, Ordering::Release);
    }

    /// Granted for `length` by somebody who was asked at `sent`, on this node's clock.
    pub(crate) fn renew(&self, sent: Duration, length: Duration) {
        self.until.fetch_max(nanos(sent + length), Ordering::AcqRel);
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// What the group's leader has granted during one term of its own. All times are its boot time.
#[derive(Clone, Debug)]
pub struct LeaseBook {
    length: Duration,
    /// When the term began for this leader: leases of its predecessors may have been granted until then.
    since: Duration,
    /// When a majority last confirmed that it still led, counted from before it was asked.
    confirmed: Option<Duration>,
    /// When each node's newest lease is over.
    over_at: BTreeMap<NodeId, Duration>,
    /// Processes that get none any more: a decision about their death is under way.
    condemned: BTreeSet<(NodeId, u64)>,
}

impl LeaseBook {
    /// Of a leader whose term began at `since`; a lease lasts for `length`.
    pub fn new(length: Duration, since: Duration) -> Self {
        let (confirmed, over_at, condemned) = (None, BTreeMap::new(), BTreeSet::new());
        Self {
            length,
            since,
            confirmed,
            over_at,
            condemned,
        }
    }

    /// A majority has confirmed the leader, after it had been asked at `asked`.
    pub fn confirm(&mut self, asked: Duration) {
        self.confirmed = self.confirmed.max(Some(asked));
    }

    /// Grants a lease to whoever asked and was heard at `now`; None: not now. The length counts from the asking.
    pub fn grant(&mut self, node: NodeId, boot_id: u64, now: Duration) -> Option<Duration> {
        if self.condemned.contains(&(node, boot_id)) {
            return None;
        }
        let unconfirmed = now.saturating_sub(self.confirmed?);
        let length = self
            .length
            .checked_sub(unconfirmed)
            .filter(|length| !length.is_zero())?;
        let over_at = now + length + length * DRIFT_PERCENT / 100;
        let last = self.over_at.entry(node).or_default();
        *last = over_at.max(*last);
        Some(length)
    }

    /// From now on this process gets no lease.
    pub fn condemn(&mut self, node: NodeId, boot_id: u64) {
        self.condemned.insert((node, boot_id));
    }

    /// The decision came to nothing.
    pub fn pardon(&mut self, node: NodeId, boot_id: u64) {
        self.condemned.remove(&(node, boot_id));
    }

    /// True when no lease of this node's can be valid any more, wherever it was granted.
    pub fn is_over(&self, node: NodeId, now: Duration) -> bool {
        let inherited = self.since + self.length + self.length * DRIFT_PERCENT / 100;
        let granted = self.over_at.get(&node).copied().unwrap_or_default();
        now > inherited.max(granted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn nothing_without_a_majority() {
        let mut book = LeaseBook::new(ms(1000), ms(0));
        assert_eq!(book.grant(1, 7, ms(10)), None);
        book.confirm(ms(10));
        assert_eq!(book.grant(1, 7, ms(10)), Some(ms(1000)));
        // The longer ago the majority spoke, the shorter the lease.
        assert_eq!(book.grant(1, 7, ms(910)), Some(ms(100)));
        assert_eq!(book.grant(1, 7, ms(1010)), None);
    }

    #[test]
    fn over_for_the_holder_before_it_is_over_for_the_granter() {
        let mut book = LeaseBook::new(ms(1000), ms(0));
        book.confirm(ms(5000));
        book.grant(1, 7, ms(5000));
        assert!(!book.is_over(1, ms(6010)));
        assert!(book.is_over(1, ms(6011)));
        // A shorter one later doesn't shorten the one before.
        book.grant(1, 7, ms(5900));
        assert!(!book.is_over(1, ms(6000)));
    }

    #[test]
    fn a_new_leader_takes_every_lease_for_just_renewed() {
        let book = LeaseBook::new(ms(1000), ms(5000));
        assert!(!book.is_over(2, ms(6000)));
        assert!(book.is_over(2, ms(6011)));
    }

    #[test]
    fn the_condemned_get_none() {
        let mut book = LeaseBook::new(ms(1000), ms(0));
        book.confirm(ms(1));
        book.condemn(1, 7);
        assert_eq!(book.grant(1, 7, ms(2)), None);
        assert!(book.grant(1, 8, ms(2)).is_some());
        book.pardon(1, 7);
        assert!(book.grant(1, 7, ms(2)).is_some());
    }
}
