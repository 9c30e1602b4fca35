//! From what was seen to verdicts: a function of the sightings, the map and the time.

use std::collections::BTreeMap;
use std::time::Duration;

use volt_engine::NodeId;

use super::detector::Phi;
use crate::metadata::map::{ClusterMap, NodeState};

/// A process that was said to have ended, and is heard so long afterwards, has not ended.
const EVIDENCE_REFUTED_AFTER: Duration = Duration::from_millis(300);
/// A process that starts has joined by then.
const JOINS_WITHIN: Duration = Duration::from_secs(3);
/// A process that was heard of so lately lives.
const LATELY: Duration = Duration::from_millis(1_000);

/// What was seen of every node.
#[derive(Clone, Debug, Default)]
pub struct Sightings(BTreeMap<NodeId, Sighting>);

#[derive(Clone, Debug)]
struct Sighting {
    boot_id: u64,
    since: Duration,
    phi: Phi,
    /// Evidence that the process has ended, and when it came.
    ended: Option<(Ended, Duration)>,
}

/// Evidence that a process has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// connection or operator.
    pub detector: String,
    /// What was seen.
    pub evidence: String,
}

/// That a node's process is dead, or must be taken for dead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The node.
    pub node_id: NodeId,
    /// Its process.
    pub boot_id: u64,
    /// Known to have ended, rather than silent.
    pub process_ended: bool,
    /// connection, heartbeat or operator.
    pub detector: String,
    /// What was seen.
    pub evidence: String,
}

impl Sightings {
    /// A process of a node was heard of.
    pub fn heard(&mut self, node: NodeId, boot_id: u64, now: Duration) {
        let sighting = self.0.entry(node).or_insert_with(|| Sighting::new(boot_id, now));
        if sighting.boot_id != boot_id {
            *sighting = Sighting::new(boot_id, now);
        }
        sighting.phi.heard(now);
        if sighting
            .ended
            .as_ref()
            .is_some_and(|(_, at)| now > *at + EVIDENCE_REFUTED_AFTER)
        {
            sighting.ended = None;
        }
    }

    /// A process was seen to end. True when that is news.
    pub fn ended(&mut self, node: NodeId, boot_id: u64, ended: Ended, now: Duration) -> bool {
        let sighting = self.0.entry(node).or_insert_with(|| Sighting::new(boot_id, now));
        if sighting.boot_id != boot_id || sighting.ended.is_some() {
            return false;
        }
        sighting.ended = Some((ended, now));
        true
    }

    /// Whoever the map knows and was never heard of is silent from now on, not since ever.
    pub fn expect(&mut self, map: &ClusterMap, now: Duration) {
        for node in map.nodes.values() {
            let sighting = self
                .0
                .entry(node.node_id)
                .or_insert_with(|| Sighting::new(node.boot_id, now));
            if sighting.boot_id != node.boot_id && sighting.phi.silence(now) > LATELY {
                *sighting = Sighting::new(node.boot_id, now);
            }
        }
        self.0.retain(|node, _| map.nodes.contains_key(node));
    }

    /// The observer stood still.
    pub fn forgive(&mut self, pause: Duration, now: Duration) {
        for sighting in self.0.values_mut() {
            sighting.phi.forgive(pause, now);
        }
    }

    /// The process that was heard of last.
    pub fn boot_id(&self, node: NodeId) -> Option<u64> {
        self.0.get(&node).map(|sighting| sighting.boot_id)
    }

    /// True when this process was heard of lately, and nothing says that it ended since.
    pub fn is_heard(&self, node: NodeId, boot_id: u64, now: Duration) -> bool {
        self.0.get(&node).is_some_and(|sighting| {
            let spoke = !sighting.phi.is_unheard();
            sighting.boot_id == boot_id && sighting.ended.is_none() && spoke && sighting.phi.silence(now) < LATELY
        })
    }

    fn verdict(&self, node: NodeId, boot_id: u64, now: Duration) -> Option<Verdict> {
        let sighting = self.0.get(&node)?;
        if sighting.boot_id != boot_id {
            // It should have joined long ago. That is no proof, so that the lease must run out.
            let long = now.saturating_sub(sighting.since) > JOINS_WITHIN;
            let (detector, evidence) = ("heartbeat".to_owned(), "another process answers".to_owned());
            return long.then_some(Verdict {
                node_id: node,
                boot_id,
                process_ended: false,
                detector,
                evidence,
            });
        }
        if let Some((ended, _)) = &sighting.ended {
            let Ended { detector, evidence } = ended.clone();
            return Some(Verdict {
                node_id: node,
                boot_id,
                process_ended: true,
                detector,
                evidence,
            });
        }
        sighting.phi.is_suspected(now).then(|| Verdict {
            node_id: node,
            boot_id,
            process_ended: false,
            detector: "heartbeat".to_owned(),
            evidence: format!(
                "silent for {} ms, phi {:.1}",
                sighting.phi.silence(now).as_millis(),
                sighting.phi.phi(now).min(99.9)
            ),
        })
    }
}

impl Sighting {
    fn new(boot_id: u64, now: Duration) -> Self {
        Self {
            boot_id,
            since: now,
            phi: Phi::new(now),
            ended: None,
        }
    }
}

/// The verdicts that the map doesn't know yet, on everybody but the observer.
pub fn verdicts(map: &ClusterMap, observer: NodeId, sightings: &Sightings, now: Duration) -> Vec<Verdict> {
    let others = map.nodes.values().filter(|node| node.node_id != observer);
    let judge = |node: &crate::metadata::map::NodeInfo| {
        let verdict = sightings.verdict(node.node_id, node.boot_id, now)?;
        match node.state {
            NodeState::Dead { process_ended, .. } => (verdict.process_ended && !process_ended).then_some(verdict),
            _ => Some(verdict),
        }
    };
    others.filter_map(judge).collect()
}

/// Nodes that the map calls dead, and whose same process is heard.
pub fn revived(map: &ClusterMap, sightings: &Sightings, now: Duration) -> Vec<(NodeId, u64)> {
    let dead = map.nodes.values().filter(|node| !node.state.is_alive());
    let heard = dead.filter(|node| sightings.is_heard(node.node_id, node.boot_id, now));
    heard.map(|node| (node.node_id, node.boot_id)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::apply::apply;
    use crate::metadata::command::{Command, Joining};

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn map() -> ClusterMap {
        let mut map = ClusterMap::default();
        let node = |node_id| Joining {
            node_id,
            boot_id: u64::from(node_id) * 10,
            ..Joining::default()
        };
        let init = Command::Initialise {
            cluster_uuid: "u".to_owned(),
            partitions: 1,
            node: node(1),
        };
        apply(&mut map, init).unwrap();
        apply(&mut map, Command::Join(node(2))).unwrap();
        map
    }

    fn ended() -> Ended {
        Ended {
            detector: "connection".to_owned(),
            evidence: "refused".to_owned(),
        }
    }

    #[test]
    fn silence_and_evidence() {
        let (map, mut sightings) = (map(), Sightings::default());
        sightings.expect(&map, ms(0));
        for beat in 1..20 {
            sightings.heard(2, 20, ms(beat * 100));
        }
        assert_eq!(verdicts(&map, 1, &sightings, ms(2_000)), []);
        let silent = verdicts(&map, 1, &sightings, ms(4_000));
        assert!(silent.len() == 1 && !silent[0].process_ended);
        assert!(sightings.ended(2, 20, ended(), ms(2_000)));
        assert!(!sightings.ended(2, 20, ended(), ms(2_001)));
        assert!(verdicts(&map, 1, &sightings, ms(2_001))[0].process_ended);
        // What was said of an older process says nothing of this one.
        assert!(!sightings.ended(2, 19, ended(), ms(2_000)));
    }

    #[test]
    fn a_message_that_was_on_its_way_refutes_nothing() {
        let (map, mut sightings) = (map(), Sightings::default());
        sightings.heard(2, 20, ms(0));
        sightings.ended(2, 20, ended(), ms(100));
        sightings.heard(2, 20, ms(150));
        assert_eq!(verdicts(&map, 1, &sightings, ms(160)).len(), 1);
        sightings.heard(2, 20, ms(600));
        assert_eq!(verdicts(&map, 1, &sightings, ms(610)), []);
    }

    #[test]
    fn who_is_only_expected_is_not_heard() {
        let (map, mut sightings) = (map(), Sightings::default());
        sightings.expect(&map, ms(0));
        assert!(!sightings.is_heard(2, 20, ms(1)));
        sightings.heard(2, 20, ms(5));
        assert!(sightings.is_heard(2, 20, ms(6)));
        assert!(!sightings.is_heard(2, 20, ms(2_000)));
    }
}
