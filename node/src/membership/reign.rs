//! What the metadata group's leader does for as long as it leads: judge, promote, drop, rebalance. One loop, so that one
//! decision is made at a time, each from the map that the one before it made.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use volt_engine::{NodeId, PartitionId};

use super::promotion::{Decision, Situation, Wait, decide};
use super::questions::{Questions, vacant};
use super::rebalance::{drained, rebalance};
use super::verdict::{Verdict, revived, verdicts};
use super::{Membership, Reign, State};
use crate::config::Durability;
use crate::metadata::ProposeError;
use crate::metadata::command::{Applied, Command, FailoverNote, PartitionChange};
use crate::metadata::failure::{Failure, Finding};
use crate::metadata::lease::LeaseBook;
use crate::metadata::map::ClusterMap;

/// The leader looks around so often, should nothing have woken it.
const TICK: Duration = Duration::from_millis(50);
/// A tick that comes so late means that this process, or its machine, stood still.
const STOOD_STILL: Duration = Duration::from_millis(500);
/// Longest wait for a majority's confirmation.
const CONFIRM_LIMIT: Duration = Duration::from_millis(400);

/// One look at everything.
struct Judgement {
    term: u64,
    verdicts: Vec<Verdict>,
    revived: Vec<(NodeId, u64)>,
    decision: Decision,
}

impl Membership {
    pub(super) async fn reign(self: Arc<Self>) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = self.now();
        loop {
            tokio::select! {
                biased;
                _ = ticks.tick() => {}
                () = self.nudge.notified() => {}
            }
            let now = self.now();
            let paused = now.saturating_sub(last);
            if paused > STOOD_STILL {
                tracing::warn!(millis = paused.as_millis() as u64, "this process stood still");
                let mut state = self.lock();
                state.sightings.forgive(paused, now);
                state.disk.forgive(paused, now);
            }
            if self.update_reign() {
                self.rule().await;
            }
            last = self.now();
        }
    }

    /// True while this node leads the group.
    fn update_reign(&self) -> bool {
        let (term, is_unfit) = (self.metadata.term_as_leader(), self.unfitness().is_some());
        let (now, map) = (self.now(), self.metadata.map());
        let mut state = self.lock();
        let State {
            sightings, neighbours, ..
        } = &mut *state;
        sightings.expect(&map, neighbours, now);
        // Who can't write, or can't be reached, can't decide: another one will lead.
        let rests = state.quorum.rests(now);
        let term = term.filter(|_| !is_unfit && !rests);
        let Some(term) = term else {
            state.reign = None;
            return false;
        };
        if state.reign.as_ref().is_none_or(|reign| reign.term != term) {
            tracing::info!(term, "this node leads the metadata group");
            state.reign = Some(Reign::new(term, LeaseBook::new(self.config.lease, now)));
        }
        true
    }

    /// A majority's word that this node still leads is what leases rest on, its own among them.
    pub(super) async fn confirm(self: Arc<Self>) {
        let mut ticks = interval(self.config.heartbeat);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut leading = self.metadata.watch();
        loop {
            tokio::select! {
                biased;
                _ = ticks.tick() => {}
                _ = leading.changed() => {}
            }
            let Some(term) = self.metadata.term_as_leader().filter(|_| self.unfitness().is_none()) else {
                continue;
            };
            let asked = self.now();
            if !self.lock().quorum.may_ask(term, asked) {
                continue;
            }
            let is_confirmed = self.metadata.is_confirmed(CONFIRM_LIMIT).await;
            if self.metadata.term_as_leader() != Some(term) {
                continue;
            }
            if !is_confirmed {
                self.unconfirmed();
                continue;
            }
            let map = self.metadata.map();
            let (node, boot_id) = (self.metadata.node_id(), self.metadata.boot_id());
            let mut state = self.lock();
            state.quorum.confirmed(asked);
            let Some(reign) = state.reign.as_mut().filter(|reign| reign.term == term) else {
                continue;
            };
            reign.book.confirm(asked);
            if map.is_current(node, boot_id) && map.is_alive(node) {
                let sent = self.now();
                if let Some(length) = reign.book.grant(node, boot_id, sent) {
                    self.metadata.lease().renew(sent, length);
                }
            }
        }
    }

    async fn rule(&self) {
        let map = self.metadata.map();
        if map.cluster_uuid.is_empty() {
            return;
        }
        let Some(judgement) = self.judge(&map) else { return };
        let (verdicts, revived) = (judgement.verdicts, judgement.revived);
        let mut changes = judgement.decision.changes;
        let idle = verdicts.is_empty() && changes.is_empty() && revived.is_empty();
        let mut changed = false;
        for verdict in verdicts {
            let own = take_changes_of(&map, &mut changes, verdict.node_id);
            changed |= changed_partitions(self.pronounce(judgement.term, verdict, own).await.as_ref());
        }
        if !changes.is_empty() {
            let failover = self.note(&map, &changes);
            let command = Command::ChangePartitions {
                term: judgement.term,
                changes,
                failover,
            };
            changed |= changed_partitions(self.propose(command).await.as_ref());
        }
        for (node_id, boot_id) in revived {
            if self.propose(Command::NodeAlive { node_id, boot_id }).await.is_some() {
                self.pardon(node_id, boot_id);
            }
        }
        if changed {
            self.nudge.notify_one();
        }
        if idle {
            self.rebalance(judgement.term, &map).await;
        }
    }

    fn judge(&self, map: &ClusterMap) -> Option<Judgement> {
        let (now, own) = (self.now(), self.metadata.node_id());
        let ends = self.report.ends();
        let mut state = self.lock();
        state.ends.note(own, self.metadata.boot_id(), &ends);
        state.ends.keep_current(map);
        let State {
            sightings,
            ends,
            reign,
            quorum,
            ..
        } = &mut *state;
        let reign = reign.as_mut()?;
        let mut verdicts = verdicts(map, self.judge_of(), sightings, now);
        verdicts.retain(|verdict| verdict.process_ended || quorum.is_heard(now));
        let mut revived = revived(map, self.judge_of(), sightings, now);
        revived.retain(|(node, _)| verdicts.iter().all(|verdict| verdict.node_id != *node));
        for verdict in &verdicts {
            reign.book.condemn(verdict.node_id, verdict.boot_id);
            reign.condemned.insert((verdict.node_id, verdict.boot_id));
            reign.deaths.insert(verdict.node_id, verdict.finding.clone());
        }
        // Condemned by a verdict that was never committed, and heard again: a proposal settles which it is.
        let acquitted = |(node, boot_id): &&(NodeId, u64)| {
            map.is_alive(*node)
                && map.is_current(*node, *boot_id)
                && sightings.is_heard(*node, *boot_id, now)
                && verdicts.iter().all(|verdict| verdict.node_id != *node)
        };
        revived.extend(reign.condemned.iter().filter(acquitted).copied());
        let alive = |node: NodeId, boot_id: u64| node == own || sightings.is_heard(node, boot_id, now);
        let heard: BTreeSet<NodeId> = map
            .nodes
            .values()
            .filter(|node| alive(node.node_id, node.boot_id))
            .map(|node| node.node_id)
            .collect();
        let dead: BTreeMap<NodeId, bool> = verdicts
            .iter()
            .map(|verdict| (verdict.node_id, verdict.process_ended))
            .collect();
        let partitions = reign.questions.of(map, &dead);
        let (reach, seen) = ends.of(&vacant(map, &partitions, &dead));
        let lease_over = map
            .nodes
            .keys()
            .copied()
            .filter(|node| reign.book.is_over(*node, now))
            .collect();
        reign.note_deaths(map, now);
        let decision = decide(&Situation {
            map,
            partitions: &partitions,
            dead: &dead,
            heard: &heard,
            lease_over: &lease_over,
            ends: &reach,
            seen: &seen,
            restarts_keep: self.config.durability == Durability::Fsync,
            waited: &reign.waited(now),
            patience: self.patience(),
            manual: self.is_manual(),
            planted: self.world.planted,
        });
        reign.note_waiting(&decision, now);
        Some(Judgement {
            term: reign.term,
            verdicts,
            revived,
            decision,
        })
    }

    async fn pronounce(&self, term: u64, verdict: Verdict, changes: Vec<PartitionChange>) -> Option<Applied> {
        let Verdict {
            node_id,
            boot_id,
            process_ended,
            finding,
        } = verdict;
        tracing::warn!(
            node_id,
            boot_id,
            process_ended,
            strategy = %finding.strategy,
            medium = %finding.medium,
            evidence = finding.evidence,
            changes = changes.len(),
            "a node is dead"
        );
        let at_micros = self.world.clock.unix_micros();
        let command = Command::NodeDead {
            term,
            node_id,
            boot_id,
            process_ended,
            finding,
            at_micros,
            changes,
        };
        self.propose(command).await
    }

    /// For the record: whose death these changes of primary end.
    fn note(&self, map: &ClusterMap, changes: &[PartitionChange]) -> Option<FailoverNote> {
        let state = self.lock();
        let deaths = &state.reign.as_ref()?.deaths;
        let old_primary = |change: &PartitionChange| {
            let partition = map.partitions.get(&change.partition)?;
            partition.primary.filter(|primary| Some(*primary) != change.primary)
        };
        let node_id = changes.iter().find_map(old_primary)?;
        let finding = deaths.get(&node_id).cloned().or_else(|| told_before(map, node_id))?;
        Some(FailoverNote {
            node_id,
            finding,
            at_micros: self.world.clock.unix_micros(),
        })
    }

    fn pardon(&self, node: NodeId, boot_id: u64) {
        let map = self.metadata.map();
        if let Some(reign) = &mut self.lock().reign
            && map.is_alive(node)
            && map.is_current(node, boot_id)
        {
            reign.condemned.remove(&(node, boot_id));
            reign.book.pardon(node, boot_id);
        }
    }

    async fn rebalance(&self, term: u64, map: &ClusterMap) {
        let done = self
            .lock()
            .reign
            .as_ref()
            .is_none_or(|reign| reign.balanced == map.version);
        if done {
            return;
        }
        let mut changed = false;
        let changes = {
            let mut state = self.lock();
            state.placements.follow(map);
            rebalance(map, &state.placements)
        };
        if !changes.is_empty() {
            let command = Command::ChangePartitions {
                term,
                changes,
                failover: None,
            };
            changed = changed_partitions(self.propose(command).await.as_ref());
        }
        for node_id in drained(map) {
            changed |= self.propose(Command::Drained { node_id }).await == Some(Applied::Done);
        }
        // What came to nothing is not tried again before the map is another.
        let version = if changed {
            map.version
        } else {
            self.metadata.map().version
        };
        if let Some(reign) = &mut self.lock().reign {
            reign.balanced = version;
        }
    }

    /// What the proposal did; None: nothing, or nobody knows.
    pub(super) async fn propose(&self, command: Command) -> Option<Applied> {
        match self.metadata.propose_as_leader(command).await {
            Ok(applied) => Some(applied),
            Err(ProposeError::Refused(refusal)) => {
                tracing::info!(%refusal, "a decision came too late");
                None
            }
            Err(error) => {
                tracing::info!(%error, "a decision could not be committed");
                None
            }
        }
    }
}

/// True when it changed partitions: then there may be more to do at once.
fn changed_partitions(applied: Option<&Applied>) -> bool {
    matches!(applied, Some(Applied::ManyChanged { partitions }) if !partitions.is_empty())
}

impl Reign {
    fn new(term: u64, book: LeaseBook) -> Self {
        Self {
            term,
            book,
            waiting_since: BTreeMap::new(),
            waiting: BTreeMap::new(),
            deaths: BTreeMap::new(),
            dead_since: BTreeMap::new(),
            condemned: BTreeSet::new(),
            balanced: 0,
            questions: Questions::default(),
        }
    }

    fn waited(&self, now: Duration) -> BTreeMap<PartitionId, Duration> {
        self.waiting_since
            .iter()
            .map(|(partition, since)| (*partition, now.saturating_sub(*since)))
            .collect()
    }

    fn note_waiting(&mut self, decision: &Decision, now: Duration) {
        let restarted = |partition: &PartitionId| {
            let wait = decision.waiting.get(partition);
            matches!(wait, Some(Wait::Restarted | Wait::Majority { .. }))
        };
        self.waiting_since.retain(|partition, _| restarted(partition));
        for partition in decision.waiting.keys().filter(|partition| restarted(partition)) {
            self.waiting_since.entry(*partition).or_insert(now);
        }
        if self.waiting != decision.waiting {
            for (partition, wait) in &decision.waiting {
                tracing::info!(partition, "{wait}");
            }
            self.waiting.clone_from(&decision.waiting);
        }
    }

    fn note_deaths(&mut self, map: &ClusterMap, now: Duration) {
        let is_dead = |node: &NodeId| map.nodes.contains_key(node) && !map.is_alive(*node);
        self.dead_since.retain(|node, _| is_dead(node));
        for node in map.nodes.keys().filter(|node| is_dead(node)) {
            self.dead_since.entry(*node).or_insert(now);
        }
    }
}

/// What a leader before this one found of a node.
fn told_before(map: &ClusterMap, node: NodeId) -> Option<Finding> {
    let of_node = |failure: &&Failure| failure.node_id == node && failure.partition.is_none();
    let newest = map.failures.iter().rev().find(of_node)?;
    Some(newest.finding.clone())
}

/// Takes out the changes that end this node's reigns, and those that only drop it.
fn take_changes_of(map: &ClusterMap, changes: &mut Vec<PartitionChange>, node: NodeId) -> Vec<PartitionChange> {
    let concerns = |change: &PartitionChange| {
        let partition = map.partitions.get(&change.partition);
        partition.is_some_and(|partition| partition.primary == Some(node) || !change.in_sync.contains(&node))
    };
    let (own, rest) = std::mem::take(changes).into_iter().partition(concerns);
    *changes = rest;
    own
}
