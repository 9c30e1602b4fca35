//! From what was seen to verdicts: a function of the sightings, the map and the time.

use std::collections::BTreeMap;
use std::time::Duration;

use volt_engine::NodeId;

use super::detector::Phi;
use super::fitness::UNREACHED_AFTER;
use super::interval::{DiskTrouble, Mark, MarkWatch, Probes};
use super::neighbours::Neighbours;
use crate::config::{Detection, IntervalDetection};
use crate::metadata::failure::{Finding, Medium, Strategy};
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
    /// When it last answered a heartbeat of the observer's own.
    reached: Duration,
    /// Its answers to probes.
    answers: Probes,
    /// Its marks in what the nodes share, once seen.
    marks: BTreeMap<Medium, MarkWatch>,
    /// What it last said of its disk.
    disk: Option<DiskTrouble>,
    /// Evidence that the process has ended, and when it came.
    ended: Option<(Ended, Duration)>,
}

/// Evidence that a process has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// By what it was seen.
    pub strategy: Strategy,
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
    /// What was found.
    pub finding: Finding,
}

/// Who judges, and by which strategies.
#[derive(Clone, Copy, Debug)]
pub struct Judge<'a> {
    /// The observer, on whom it makes no verdict.
    pub observer: NodeId,
    /// What is on.
    pub detection: &'a Detection,
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

    /// A process answered a heartbeat of the observer's own.
    pub fn reached(&mut self, node: NodeId, boot_id: u64, now: Duration) {
        if let Some(sighting) = self.0.get_mut(&node).filter(|sighting| sighting.boot_id == boot_id) {
            sighting.reached = sighting.reached.max(now);
        }
    }

    /// For how long it has answered none; nothing for a process that is not known.
    pub fn unreached(&self, node: NodeId, boot_id: u64, now: Duration) -> Duration {
        let sighting = self.0.get(&node).filter(|sighting| sighting.boot_id == boot_id);
        sighting.map_or(Duration::ZERO, |sighting| now.saturating_sub(sighting.reached))
    }

    /// How irregularly a process speaks; None: it is not known for long enough.
    pub fn jitter(&self, node: NodeId, boot_id: u64) -> Option<Duration> {
        let sighting = self.0.get(&node).filter(|sighting| sighting.boot_id == boot_id)?;
        sighting.phi.jitter()
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

    /// Whoever the map knows and was never heard of is silent from now on, not since ever. Of those who need not speak to this node nothing is
    /// expected, and nothing kept: should they have to one day, because it votes in the metadata group by then, their silence begins then.
    pub fn expect(&mut self, map: &ClusterMap, neighbours: &Neighbours, now: Duration) {
        for node in map
            .nodes
            .values()
            .filter(|node| neighbours.hears.contains(&node.node_id))
        {
            let sighting = self
                .0
                .entry(node.node_id)
                .or_insert_with(|| Sighting::new(node.boot_id, now));
            if sighting.boot_id != node.boot_id && sighting.phi.silence(now) > LATELY {
                *sighting = Sighting::new(node.boot_id, now);
            }
        }
        let is_due = |node: &NodeId| neighbours.hears.contains(node) || neighbours.asks.contains(node);
        self.0.retain(|node, _| map.nodes.contains_key(node) && is_due(node));
    }

    /// The observer stood still.
    pub fn forgive(&mut self, pause: Duration, now: Duration) {
        for sighting in self.0.values_mut() {
            sighting.phi.forgive(pause, now);
            sighting.reached = (sighting.reached + pause).min(now);
            sighting.answers.forgive(pause, now);
            for mark in sighting.marks.values_mut() {
                mark.forgive(pause, now);
            }
        }
    }

    /// A probe of a node was answered by this process; None: by nobody, in its time.
    pub fn probed(&mut self, node: NodeId, boot_id: Option<u64>, now: Duration) {
        let Some(sighting) = self.0.get_mut(&node) else { return };
        match boot_id {
            None => sighting.answers.missed(),
            Some(boot_id) if boot_id == sighting.boot_id => sighting.answers.answered(now),
            // Another process: its heartbeats will say so.
            Some(_) => {}
        }
    }

    /// A node's mark in what the nodes share was looked for; None: there is none.
    pub fn saw_mark(&mut self, node: NodeId, medium: Medium, mark: Option<Mark>, now: Duration) {
        let Some(sighting) = self.0.get_mut(&node) else { return };
        let mark = mark.filter(|mark| mark.boot_id == sighting.boot_id);
        let sequence = mark.map(|mark| mark.sequence);
        match (sighting.marks.get_mut(&medium), sequence) {
            (Some(watch), sequence) => watch.looked(sequence, now),
            (None, Some(sequence)) => _ = sighting.marks.insert(medium, MarkWatch::new(sequence, now)),
            (None, None) => {}
        }
    }

    /// The observer could not renew its own mark, or look in time: who can't use the medium blames nobody. What it missed
    /// before is forgotten too, for the others may have had the same trouble, and come back a moment later.
    pub fn could_not_look(&mut self, medium: Medium) {
        for sighting in self.0.values_mut() {
            if let Some(watch) = sighting.marks.get_mut(&medium) {
                watch.could_not_look();
            }
        }
    }

    /// A process says how its disk is.
    pub fn told_of_disk(&mut self, node: NodeId, boot_id: u64, disk: Option<DiskTrouble>) {
        if let Some(sighting) = self.0.get_mut(&node).filter(|sighting| sighting.boot_id == boot_id) {
            sighting.disk = disk;
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

    fn verdict(&self, judge: Judge<'_>, node: NodeId, boot_id: u64, now: Duration) -> Option<Verdict> {
        let sighting = self.0.get(&node)?;
        let (process_ended, finding) = sighting.find(judge, boot_id, now)?;
        Some(Verdict {
            node_id: node,
            boot_id,
            process_ended,
            finding,
        })
    }
}

impl Sighting {
    fn new(boot_id: u64, now: Duration) -> Self {
        Self {
            boot_id,
            since: now,
            phi: Phi::new(now),
            reached: now,
            answers: Probes::new(now),
            marks: BTreeMap::new(),
            disk: None,
            ended: None,
        }
    }

    /// What speaks against this process, the surest first; and whether it is known to have ended.
    fn find(&self, judge: Judge<'_>, boot_id: u64, now: Duration) -> Option<(bool, Finding)> {
        let silence = self.phi.silence(now);
        let heartbeats = (Strategy::Heartbeat, Medium::Network);
        if self.boot_id != boot_id {
            // It should have joined long ago. That is no proof, so that the lease must run out.
            let since = now.saturating_sub(self.since);
            let finding = || Finding::new(heartbeats, "another process answers", since, judge.observer);
            return (since > JOINS_WITHIN).then(|| (false, finding()));
        }
        if let Some((Ended { strategy, evidence }, at)) = &self.ended {
            let silence = silence.max(now.saturating_sub(*at));
            let finding = Finding::new((*strategy, Medium::Network), evidence, silence, judge.observer);
            return Some((true, finding));
        }
        let threshold = judge.detection.heartbeat.map(|settings| settings.threshold);
        if threshold.is_some_and(|threshold| self.phi.is_suspected(threshold, now)) {
            let phi = self.phi.phi(now).min(99.9);
            let evidence = format!("silent for {} ms, phi {phi:.1}", silence.as_millis());
            return Some((false, Finding::new(heartbeats, evidence, silence, judge.observer)));
        }
        let unanswered = now.saturating_sub(self.reached);
        if threshold.is_some() && unanswered >= UNREACHED_AFTER {
            let millis = unanswered.as_millis();
            let evidence = format!("its heartbeats come, and it has answered none for {millis} ms");
            return Some((false, Finding::new(heartbeats, evidence, unanswered, judge.observer)));
        }
        let missed = self.missed(judge.detection.interval.as_ref()?, judge.observer, now)?;
        Some((false, missed))
    }

    fn missed(&self, settings: &IntervalDetection, observer: NodeId, now: Duration) -> Option<Finding> {
        let every = settings.every.as_millis();
        if let Some(misses) = self.answers.failed(settings) {
            let silence = self.answers.silence(now);
            let last = silence.as_millis();
            let evidence =
                format!("{misses} probes missed in a row, one each {every} ms; the last answer came {last} ms ago");
            return Some(Finding::new(
                (Strategy::Interval, Medium::Network),
                evidence,
                silence,
                observer,
            ));
        }
        for (medium, watch) in &self.marks {
            let Some((misses, age)) = watch.failed(settings, now) else {
                continue;
            };
            let what = match medium {
                Medium::Database => "row in volt_liveness",
                Medium::FileSystem | Medium::Network => "liveness file",
            };
            let evidence = format!(
                "its {what} was not renewed at {misses} looks in a row, one each {every} ms; it is {} ms old",
                age.as_millis()
            );
            return Some(Finding::new((Strategy::Interval, *medium), evidence, age, observer));
        }
        let files = (Strategy::Interval, Medium::FileSystem);
        let DiskTrouble { evidence, silence } = self.disk.as_ref()?;
        Some(Finding::new(files, evidence, *silence, observer))
    }
}

/// The verdicts that the map doesn't know yet, on everybody but the observer.
pub fn verdicts(map: &ClusterMap, judge: Judge<'_>, sightings: &Sightings, now: Duration) -> Vec<Verdict> {
    let others = map.nodes.values().filter(|node| node.node_id != judge.observer);
    let found = |node: &crate::metadata::map::NodeInfo| {
        let verdict = sightings.verdict(judge, node.node_id, node.boot_id, now)?;
        match node.state {
            NodeState::Dead { process_ended, .. } => (verdict.process_ended && !process_ended).then_some(verdict),
            _ => Some(verdict),
        }
    };
    others.filter_map(found).collect()
}

/// Nodes that the map calls dead, and whose same process is heard, and has nothing against it any more.
pub fn revived(map: &ClusterMap, judge: Judge<'_>, sightings: &Sightings, now: Duration) -> Vec<(NodeId, u64)> {
    let dead = map.nodes.values().filter(|node| !node.state.is_alive());
    let is_well = |node: NodeId, boot_id: u64| sightings.verdict(judge, node, boot_id, now).is_none();
    let heard =
        dead.filter(|node| sightings.is_heard(node.node_id, node.boot_id, now) && is_well(node.node_id, node.boot_id));
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
            awaits_restoration: false,
        };
        apply(&mut map, init).unwrap();
        apply(&mut map, Command::Join(node(2))).unwrap();
        map
    }

    /// All verdicts of node 1, by heartbeats.
    fn verdicts(map: &ClusterMap, sightings: &Sightings, now: Duration) -> Vec<Verdict> {
        let detection = Detection::default();
        let judge = Judge {
            observer: 1,
            detection: &detection,
        };
        super::verdicts(map, judge, sightings, now)
    }

    fn all(map: &ClusterMap) -> Neighbours {
        Neighbours::new(map, 1, &[1].into())
    }

    #[test]
    fn of_whom_one_need_not_hear_nothing_is_kept() {
        let (map, mut sightings) = (map(), Sightings::default());
        sightings.heard(2, 20, ms(0));
        sightings.expect(&map, &Neighbours::default(), ms(10_000));
        assert_eq!(verdicts(&map, &sightings, ms(10_000)), []);
        // It votes from now on, and is spoken to.
        sightings.expect(&map, &all(&map), ms(10_000));
        assert_eq!(verdicts(&map, &sightings, ms(11_000)), []);
        assert_eq!(verdicts(&map, &sightings, ms(20_000)).len(), 1);
    }

    fn ended() -> Ended {
        Ended {
            strategy: Strategy::Connection,
            evidence: "refused".to_owned(),
        }
    }

    #[test]
    fn silence_and_evidence() {
        let (map, mut sightings) = (map(), Sightings::default());
        sightings.expect(&map, &all(&map), ms(0));
        for beat in 1..20 {
            sightings.heard(2, 20, ms(beat * 100));
            sightings.reached(2, 20, ms(beat * 100));
        }
        assert_eq!(verdicts(&map, &sightings, ms(2_000)), []);
        let silent = verdicts(&map, &sightings, ms(4_000));
        assert!(silent.len() == 1 && !silent[0].process_ended);
        assert!(sightings.ended(2, 20, ended(), ms(2_000)));
        assert!(!sightings.ended(2, 20, ended(), ms(2_001)));
        assert!(verdicts(&map, &sightings, ms(2_001))[0].process_ended);
        // What was said of an older process says nothing of this one.
        assert!(!sightings.ended(2, 19, ended(), ms(2_000)));
    }

    #[test]
    fn who_speaks_and_answers_nothing_is_found() {
        let (map, mut sightings) = (map(), Sightings::default());
        sightings.expect(&map, &all(&map), ms(0));
        sightings.heard(2, 20, ms(100));
        sightings.reached(2, 20, ms(1_000));
        for beat in 1..40 {
            sightings.heard(2, 20, ms(beat * 100));
        }
        assert_eq!(verdicts(&map, &sightings, ms(3_200)), []);
        let deaf = verdicts(&map, &sightings, ms(3_300));
        assert!(deaf.len() == 1 && !deaf[0].process_ended);
        assert!(
            deaf[0].finding.evidence.contains("answered none for 2300 ms"),
            "{deaf:?}"
        );
        sightings.forgive(ms(500), ms(3_300));
        assert_eq!(verdicts(&map, &sightings, ms(3_400)), [], "the observer stood still");
        sightings.reached(2, 20, ms(9_900));
        assert_eq!(sightings.unreached(2, 20, ms(10_000)), ms(100));
        assert_eq!(sightings.unreached(2, 21, ms(10_000)), ms(0), "another process");
    }

    #[test]
    fn a_message_that_was_on_its_way_refutes_nothing() {
        let (map, mut sightings) = (map(), Sightings::default());
        sightings.heard(2, 20, ms(0));
        sightings.ended(2, 20, ended(), ms(100));
        sightings.heard(2, 20, ms(150));
        assert_eq!(verdicts(&map, &sightings, ms(160)).len(), 1);
        sightings.heard(2, 20, ms(600));
        assert_eq!(verdicts(&map, &sightings, ms(610)), []);
    }

    #[test]
    fn who_is_only_expected_is_not_heard() {
        let (map, mut sightings) = (map(), Sightings::default());
        sightings.expect(&map, &all(&map), ms(0));
        assert!(!sightings.is_heard(2, 20, ms(1)));
        sightings.heard(2, 20, ms(5));
        assert!(sightings.is_heard(2, 20, ms(6)));
        assert!(!sightings.is_heard(2, 20, ms(2_000)));
    }
}
