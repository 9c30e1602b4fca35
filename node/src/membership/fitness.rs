//! Whether this node can lead: its disk works, the others reach it, and a majority answers it. A node that sends and does
//! not receive looks well to everybody, and nobody can tell it what it doesn't hear; so it must find out by itself.
//!
//! Two ways to be deaf. Nobody's connection to it passes, and on its own it hears answers: these say for how long the
//! others had none from it (`deafness`). Or it hears nothing at all: then no majority confirms that it leads
//! (`QuorumWatch`). Either way it stops leading the metadata group, and the next leader finds it by its silence.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use volt_engine::NodeId;

use super::Membership;
use crate::metadata::map::ClusterMap;

/// Who had no answer from a node for so long doesn't reach it.
pub const UNREACHED_AFTER: Duration = Duration::from_millis(2_300);
/// For so long the others must say so: a node that stood still hears it once when it wakes.
const TOLD_FOR: Duration = Duration::from_millis(300);
/// What others said lately counts.
const TOLD_LATELY: Duration = Duration::from_millis(1_000);
/// Two nodes can't tell which of them is deaf.
const LEAST_NODES: usize = 3;
/// A leader that no majority confirmed for so long leads no more. Its leases are over by then.
const UNCONFIRMED_LIMIT: Duration = Duration::from_millis(2_000);
/// For so long a majority has confirmed nothing: then the silence of others may be this node's own deafness. Less than it takes to
/// call a silent node dead.
const DOUBT_AFTER: Duration = Duration::from_millis(1_000);
/// Then it is silent for so long, for the others elect another only when they hear nothing of it.
const REST: Duration = Duration::from_millis(3_000);

/// What another node says of how it reaches this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    since: Option<Duration>,
    last: Duration,
}

impl Told {
    /// It had no answer from this node for `unanswered`.
    pub fn new(before: Option<Self>, unanswered: Duration, now: Duration) -> Self {
        let before = before.filter(|told| now.saturating_sub(told.last) < TOLD_LATELY);
        let since = before.and_then(|told| told.since).unwrap_or(now);
        Self {
            since: (unanswered >= UNREACHED_AFTER).then_some(since),
            last: now,
        }
    }

    fn is_unreached(&self, now: Duration) -> bool {
        let is_fresh = now.saturating_sub(self.last) < TOLD_LATELY;
        is_fresh && self.since.is_some_and(|since| now.saturating_sub(since) >= TOLD_FOR)
    }
}

/// Why this node is deaf: fewer than a majority of the living that it asks reach it, itself among them.
pub fn deafness(
    map: &ClusterMap,
    own: NodeId,
    asks: &BTreeSet<NodeId>,
    told: &BTreeMap<NodeId, Told>,
    now: Duration,
) -> Option<String> {
    let is_asked = |node: &NodeId| *node == own || asks.contains(node);
    let nodes = map.nodes.keys().copied().filter(is_asked);
    let living: Vec<NodeId> = nodes.filter(|node| map.is_alive(*node)).collect();
    if living.len() < LEAST_NODES {
        return None;
    }
    let unreached = |node: &&NodeId| **node != own && told.get(node).is_some_and(|told| told.is_unreached(now));
    let deaf_to = living.iter().filter(unreached).count();
    let reached_by = living.len() - deaf_to;
    (reached_by * 2 <= living.len()).then(|| {
        let (others, limit) = (living.len() - 1, UNREACHED_AFTER.as_millis());
        format!("{deaf_to} of {others} nodes had no answer from this one for {limit} ms, though it has theirs")
    })
}

/// A leader, and the majority that must confirm it.
#[derive(Clone, Debug, Default)]
pub struct QuorumWatch {
    term: u64,
    confirmed: Duration,
    rests_until: Duration,
}

impl QuorumWatch {
    /// This node leads in this term. True: it may ask for a confirmation, which its followers hear.
    pub fn may_ask(&mut self, term: u64, now: Duration) -> bool {
        if self.term != term {
            (self.term, self.confirmed) = (term, now);
        }
        !self.rests(now)
    }

    /// A majority answered what was asked then.
    pub fn confirmed(&mut self, asked: Duration) {
        self.confirmed = self.confirmed.max(asked);
    }

    /// True when a majority has confirmed lately that this node leads. Without, it calls nobody dead for silence: what it proposed then its
    /// successor would carry out.
    pub fn is_heard(&self, now: Duration) -> bool {
        now.saturating_sub(self.confirmed) < DOUBT_AFTER
    }

    /// None did. True: this node leads no more, from now on.
    pub fn unconfirmed(&mut self, now: Duration) -> bool {
        let is_over = now.saturating_sub(self.confirmed) >= UNCONFIRMED_LIMIT && !self.rests(now);
        if is_over {
            (self.confirmed, self.rests_until) = (now + REST, now + REST);
        }
        is_over
    }

    /// It keeps silent.
    pub fn rests(&self, now: Duration) -> bool {
        now < self.rests_until
    }
}

impl Membership {
    /// Why this node can't lead, nor answer for what it holds.
    pub(super) fn unfitness(&self) -> Option<String> {
        if let Some(trouble) = self.disk_trouble() {
            return Some(trouble.evidence);
        }
        let (map, now) = (self.metadata.map(), self.now());
        let state = self.lock();
        deafness(&map, self.metadata.node_id(), &state.neighbours.asks, &state.told, now)
    }

    /// While this node is unfit it has no lease, and neither leads the metadata group nor wants to.
    pub(super) async fn keep_fit(self: Arc<Self>) {
        let mut ticks = interval(self.config.heartbeat);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut was_unfit, mut was_back) = (false, false);
        loop {
            ticks.tick().await;
            let unfitness = self.unfitness();
            if unfitness.is_some() {
                self.metadata.lease().give_up();
            }
            match &unfitness {
                Some(evidence) if !was_unfit => tracing::error!(evidence, "this node gives up its lease"),
                None if was_unfit => tracing::warn!("this node is fit again"),
                _ => {}
            }
            was_unfit = unfitness.is_some();
            let back = was_unfit || self.lock().quorum.rests(self.now());
            if back != was_back {
                was_back = back;
                self.metadata.stand_back(back);
            }
        }
    }

    /// No majority confirmed that this node leads. After a while it leads no more.
    pub(super) fn unconfirmed(&self) {
        let steps_down = self.lock().quorum.unconfirmed(self.now());
        if !steps_down {
            return;
        }
        tracing::warn!("no majority answers this node; it stops leading the metadata group for a while");
        self.metadata.stand_back(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::apply::apply;
    use crate::metadata::command::{Command, Joining};

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn map(nodes: NodeId) -> ClusterMap {
        let mut map = ClusterMap::default();
        let node = |node_id: NodeId| Joining {
            node_id,
            boot_id: u64::from(node_id) * 10,
            ..Joining::default()
        };
        let first = Command::Initialise {
            cluster_uuid: "u".to_owned(),
            partitions: 1,
            node: node(1),
            awaits_restoration: false,
        };
        apply(&mut map, first).unwrap();
        for node_id in 2..=nodes {
            apply(&mut map, Command::Join(node(node_id))).unwrap();
        }
        map
    }

    /// Told by these nodes, each 100 ms from 1 s to 2 s, that they had no answer for so long.
    fn told(by: &[NodeId], unanswered: Duration) -> BTreeMap<NodeId, Told> {
        let of_one = |node: &NodeId| {
            let fold = |before, now| Some(Told::new(before, unanswered, ms(now)));
            (*node, (1_000..=2_000).step_by(100).fold(None, fold).unwrap())
        };
        by.iter().map(of_one).collect()
    }

    fn is_deaf(nodes: NodeId, told: &BTreeMap<NodeId, Told>, now: u64) -> bool {
        deafness(&map(nodes), 1, &(2..=nodes).collect(), told, ms(now)).is_some()
    }

    #[test]
    fn deaf_is_whom_fewer_than_a_majority_reach() {
        let long = ms(2_400);
        assert!(is_deaf(3, &told(&[2, 3], long), 2_000));
        assert!(!is_deaf(3, &told(&[2], long), 2_000), "one link is broken");
        assert!(!is_deaf(5, &told(&[2, 3], long), 2_000));
        assert!(is_deaf(5, &told(&[2, 3, 4], long), 2_000));
        assert!(is_deaf(4, &told(&[2, 3], long), 2_000), "two of four are no majority");
        assert!(!is_deaf(2, &told(&[2], long), 2_000), "two can't tell which");
        assert!(!is_deaf(3, &told(&[2, 3], ms(2_200)), 2_000), "not for so little");
    }

    #[test]
    fn what_was_said_once_or_long_ago_does_not_count() {
        let once = |node| (node, Told::new(None, ms(9_000), ms(2_000)));
        assert!(!is_deaf(3, &[once(2), once(3)].into(), 2_000), "it has just woken");
        let reached = |told: &Told| Told::new(Some(*told), ms(50), ms(2_100));
        let long = told(&[2, 3], ms(2_400));
        assert!(!is_deaf(3, &long, 3_000), "nobody says so any more");
        let reached: BTreeMap<NodeId, Told> = long.iter().map(|(node, told)| (*node, reached(told))).collect();
        assert!(!is_deaf(3, &reached, 2_500), "they reach it again");
    }

    #[test]
    fn a_leader_that_nobody_confirms_calls_nobody_dead() {
        let mut watch = QuorumWatch::default();
        assert!(watch.may_ask(1, ms(5_000)));
        assert!(watch.is_heard(ms(5_900)), "it has just begun");
        assert!(!watch.is_heard(ms(6_000)));
        watch.confirmed(ms(6_100));
        assert!(watch.is_heard(ms(7_000)) && !watch.is_heard(ms(7_100)));
    }

    #[test]
    fn a_leader_that_nobody_confirms_steps_down_once_and_rests() {
        let mut watch = QuorumWatch::default();
        assert!(watch.may_ask(7, ms(10_000)));
        watch.confirmed(ms(10_100));
        assert!(!watch.unconfirmed(ms(12_000)));
        assert!(watch.unconfirmed(ms(12_100)));
        assert!(!watch.unconfirmed(ms(12_200)), "once");
        assert!(watch.rests(ms(15_000)) && !watch.may_ask(7, ms(15_000)));
        assert!(!watch.rests(ms(15_100)) && watch.may_ask(7, ms(15_100)));
        // It leads still, for nobody else does: it has its time again.
        assert!(!watch.unconfirmed(ms(17_000)) && watch.unconfirmed(ms(17_100)));
    }

    #[test]
    fn a_new_term_begins_confirmed() {
        let mut watch = QuorumWatch::default();
        watch.may_ask(7, ms(10_000));
        watch.may_ask(8, ms(20_000));
        assert!(!watch.unconfirmed(ms(21_900)) && watch.unconfirmed(ms(22_000)));
    }
}
