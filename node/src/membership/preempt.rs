//! When primaries move away from a node before it fails: its hazard stays over the threshold for a while. Slow to begin,
//! slower to end, and one node at a time: a prediction that is wrong costs a hand-over, not more. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use volt_engine::NodeId;

use super::hazard::Hazard;
use crate::metadata::map::{ClusterMap, NodeInfo, NodeState};

/// A hazard must last for so long.
pub const HELD_FOR: Duration = Duration::from_secs(5);
/// And be gone for so long.
pub const CALM_FOR: Duration = Duration::from_secs(60);
/// It is gone below this part of the threshold.
const CALM_PART: f64 = 0.5;

/// Since when each node is over the threshold, or calm.
#[derive(Clone, Debug, Default)]
pub struct Preemption {
    over: BTreeMap<NodeId, Duration>,
    calm: BTreeMap<NodeId, Duration>,
}

/// The node, and whether it is to hold no primaries.
pub type Step = (NodeId, bool);

impl Preemption {
    /// What to do now, one thing at a time. Nothing is moved while a node is dead, for what is left has enough to do, nor
    /// when nobody else could take a primary.
    pub fn next(
        &mut self,
        map: &ClusterMap,
        hazards: &BTreeMap<NodeId, Hazard>,
        threshold: f64,
        now: Duration,
    ) -> Option<Step> {
        let score = |node: &NodeId| hazards.get(node).map_or(0.0, |hazard| hazard.score);
        let is_over = |node: &NodeId| score(node) >= threshold;
        let is_calm = |node: &NodeId| score(node) < threshold * CALM_PART;
        note(&mut self.over, map, is_over, now);
        note(&mut self.calm, map, is_calm, now);
        let lasts = |since: &BTreeMap<NodeId, Duration>, node: &NodeId, long: Duration| {
            since.get(node).is_some_and(|since| now.saturating_sub(*since) >= long)
        };
        if let Some(marked) = map.nodes.values().find(|node| node.endangered) {
            let node = marked.node_id;
            return lasts(&self.calm, &node, CALM_FOR).then_some((node, false));
        }
        if map.nodes.values().any(|node| !node.state.is_alive()) {
            return None;
        }
        let held = self
            .over
            .keys()
            .copied()
            .filter(|node| lasts(&self.over, node, HELD_FOR));
        let worst = held.max_by(|one, other| score(one).total_cmp(&score(other)))?;
        let able = |node: &NodeInfo| {
            node.node_id != worst && node.state == NodeState::Active && !node.yields && !is_over(&node.node_id)
        };
        map.nodes.values().any(able).then_some((worst, true))
    }
}

/// Keeps since when each node of the map is so.
fn note(since: &mut BTreeMap<NodeId, Duration>, map: &ClusterMap, is_so: impl Fn(&NodeId) -> bool, now: Duration) {
    since.retain(|node, _| map.nodes.contains_key(node) && is_so(node));
    for node in map.nodes.keys().filter(|node| is_so(node)) {
        since.entry(*node).or_insert(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::apply::apply;
    use crate::metadata::command::{Command, Joining};

    struct Script {
        map: ClusterMap,
        preemption: Preemption,
        hazards: BTreeMap<NodeId, Hazard>,
    }

    impl Script {
        fn new() -> Self {
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
            for command in [first, Command::Join(node(2)), Command::Join(node(3))] {
                apply(&mut map, command).unwrap();
            }
            Self {
                map,
                preemption: Preemption::default(),
                hazards: BTreeMap::new(),
            }
        }

        fn score(&mut self, node: NodeId, score: f64) {
            let reasons = Vec::new();
            self.hazards.insert(node, Hazard { score, reasons });
        }

        /// What is done at this second, and has the map know of it.
        fn at(&mut self, second: u64) -> Option<Step> {
            let now = Duration::from_secs(second);
            let step = self.preemption.next(&self.map, &self.hazards, 0.5, now);
            if let Some((node_id, endangered)) = step {
                apply(&mut self.map, Command::SetEndangered { node_id, endangered }).unwrap();
            }
            step
        }
    }

    #[test]
    fn a_hazard_that_lasts_moves_primaries_once_and_back_when_it_is_long_gone() {
        let mut script = Script::new();
        script.score(2, 0.6);
        assert_eq!([script.at(1), script.at(5)], [None, None]);
        assert_eq!(script.at(6), Some((2, true)));
        assert_eq!(script.at(7), None, "once");
        script.score(2, 0.4);
        assert_eq!([script.at(8), script.at(99)], [None, None], "lower, and not calm");
        script.score(2, 0.2);
        assert_eq!([script.at(100), script.at(159)], [None, None]);
        assert_eq!(script.at(160), Some((2, false)));
    }

    #[test]
    fn a_hazard_that_comes_and_goes_does_nothing() {
        let mut script = Script::new();
        for second in 0..100 {
            script.score(2, if second % 4 == 3 { 0.1 } else { 0.9 });
            assert_eq!(script.at(second), None);
        }
    }

    #[test]
    fn one_node_at_a_time_and_none_while_another_is_dead() {
        let mut script = Script::new();
        script.score(2, 0.6);
        script.score(3, 0.8);
        script.at(1);
        assert_eq!(script.at(6), Some((3, true)), "the worst");
        assert_eq!(script.at(20), None, "one");
        let refused = Command::SetEndangered {
            node_id: 2,
            endangered: true,
        };
        assert!(apply(&mut script.map, refused).is_err(), "whoever asks");
        let mut script = Script::new();
        script.map.nodes.get_mut(&3).unwrap().state = NodeState::Dead {
            process_ended: true,
            draining: false,
        };
        script.score(2, 0.9);
        script.at(1);
        assert_eq!(script.at(60), None);
    }

    #[test]
    fn nothing_moves_when_all_are_in_danger() {
        let mut script = Script::new();
        (1..=3).for_each(|node| script.score(node, 0.9));
        script.at(1);
        assert_eq!(script.at(60), None);
    }
}
