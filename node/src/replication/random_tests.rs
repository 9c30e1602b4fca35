//! Replicas that exchange real messages in random order, with lost streams, deposed primaries, processes that restart, fills and
//! changes of the in-sync set whose outcome is not known: nothing acknowledged is lost, but for what an asynchronous primary may
//! take with it; committed prefixes agree, and all become equal in the end. Each run is its seed.

mod restarts;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use volt_engine::effects::LogPayload;
use volt_engine::partition::Partition;
use volt_engine::{Epoch, Lsn, NodeId};

use super::replica::{Answer, Batch, LagLimits, Replica};
use super::replica_tests::effects;
use super::tail::Record;
use crate::membership::majority::meets_every_majority;
use crate::metadata::map::ReplicationMode;

/// What an asynchronous backup may lack.
const MAX_LAG: Lsn = 5;
const STEPS: u32 = 400;
const SEEDS: u64 = 500;

/// SplitMix64 (Steele, Lea and Flood 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }
}

/// The metadata group's word, and the network between the replicas.
struct Cluster {
    random: Random,
    /// The mode in force.
    mode: ReplicationMode,
    /// The mode that it is to become; another one now and then, if it changes at all.
    wanted: ReplicationMode,
    changes: bool,
    /// Modes that were proposed, each in an epoch.
    modes: Vec<(Epoch, ReplicationMode)>,
    nodes: Vec<NodeId>,
    replicas: BTreeMap<NodeId, Replica>,
    epoch: Epoch,
    /// 0: it was taken from the old one, and no other is chosen yet.
    primary: NodeId,
    in_sync: BTreeSet<NodeId>,
    /// Nodes whose new process the group has not heard of.
    restarted: BTreeSet<NodeId>,
    /// Sets that were proposed, each in an epoch, and may still come into force.
    proposed: Vec<(Epoch, BTreeSet<NodeId>)>,
    batches: BTreeMap<(NodeId, NodeId), VecDeque<Batch>>,
    answers: BTreeMap<(NodeId, NodeId), VecDeque<(Epoch, Answer)>>,
    /// What clients were told: the record at each LSN.
    acknowledged: BTreeMap<Lsn, LogPayload>,
    written: u32,
}

impl Cluster {
    fn new(mode: ReplicationMode, changes: bool, count: u32, seed: u64) -> Self {
        let nodes: Vec<NodeId> = (1..=count).collect();
        let replica = |node: &NodeId| {
            let mut replica = Replica::new(7);
            (replica.mode, replica.max_lag) = (mode, MAX_LAG);
            replica.was_async = changes || mode == ReplicationMode::Async;
            if seed % 2 == 1 {
                replica.tail_margin_bytes = 0;
            }
            (*node, replica)
        };
        let mut cluster = Self {
            mode,
            wanted: mode,
            changes,
            modes: Vec::new(),
            random: Random(seed),
            replicas: nodes.iter().map(replica).collect(),
            epoch: 0,
            primary: 1,
            in_sync: BTreeSet::new(),
            restarted: BTreeSet::new(),
            proposed: Vec::new(),
            batches: BTreeMap::new(),
            answers: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            written: 0,
            nodes,
        };
        let all = cluster.nodes.iter().copied().collect();
        cluster.begin_epoch(1, all);
        cluster
    }

    fn begin_epoch(&mut self, primary: NodeId, in_sync: BTreeSet<NodeId>) {
        self.epoch += 1;
        (self.primary, self.in_sync) = (primary, in_sync);
        self.reign(primary);
    }

    /// The primary hears of the epoch.
    fn reign(&mut self, primary: NodeId) {
        let members: Vec<NodeId> = self.in_sync.iter().copied().filter(|&node| node != primary).collect();
        let is_learner = |node: &NodeId| !self.in_sync.contains(node);
        let learners: Vec<NodeId> = self.nodes.iter().copied().filter(is_learner).collect();
        let replica = self.replicas.get_mut(&primary).unwrap();
        (replica.mode, replica.next_mode) = (self.mode, Some(self.wanted).filter(|mode| *mode != self.mode));
        replica.reign_in(self.epoch, &members, &learners);
        replica.append(&LogPayload::EpochStart);
    }

    fn write(&mut self, node: NodeId) {
        let replica = self.replicas.get_mut(&node).unwrap();
        if replica.reign().is_some() {
            self.written += 1;
            replica.append(&LogPayload::Write(effects(self.written)));
        }
    }

    /// Whoever thinks it is primary sends to `to`.
    fn send(&mut self, from: NodeId, to: NodeId) {
        if let Some(batch) = self.replicas.get_mut(&from).unwrap().batch_for(to, 200) {
            self.batches.entry((from, to)).or_default().push_back(batch);
        }
    }

    fn deliver(&mut self, from: NodeId, to: NodeId) {
        let Some(batch) = self.batches.get_mut(&(from, to)).and_then(VecDeque::pop_front) else {
            return;
        };
        let epoch = batch.epoch;
        let (answer, received) = self.replicas.get_mut(&to).unwrap().receive(batch);
        if received.fill && matches!(answer, Answer::Gap { .. }) {
            self.fill(from, to);
        }
        if matches!(answer, Answer::Accepted { .. }) {
            self.flush(to); // it is on the disk before that is said
        }
        self.answers.entry((to, from)).or_default().push_back((epoch, answer));
    }

    fn answer(&mut self, from: NodeId, to: NodeId) {
        let Some((epoch, answer)) = self.answers.get_mut(&(from, to)).and_then(VecDeque::pop_front) else {
            return;
        };
        self.replicas
            .get_mut(&to)
            .unwrap()
            .answered(from, epoch, answer)
            .unwrap();
        self.note_acknowledged(to);
    }

    /// What there is, and one batch more, gets there, and the answers back.
    fn exchange(&mut self, from: NodeId, to: NodeId) {
        self.send(from, to);
        while self.batches.get(&(from, to)).is_some_and(|queue| !queue.is_empty()) {
            self.deliver(from, to);
        }
        while self.answers.get(&(to, from)).is_some_and(|queue| !queue.is_empty()) {
            self.answer(to, from);
        }
    }

    fn flush(&mut self, node: NodeId) {
        let replica = self.replicas.get_mut(&node).unwrap();
        let (epoch, lsn) = (replica.history.epoch_at(replica.appended), replica.appended);
        replica.made_durable(epoch, lsn);
        self.note_acknowledged(node);
    }

    /// A primary tells its clients what is committed.
    fn note_acknowledged(&mut self, node: NodeId) {
        let replica = &self.replicas[&node];
        if replica.reign().is_none() {
            return;
        }
        if (self.changes || self.mode == ReplicationMode::Async) && node != self.primary {
            return; // what its lease is for
        }
        let from = self.acknowledged.last_key_value().map_or(0, |(&lsn, _)| lsn);
        for record in replica
            .tail
            .after(from)
            .into_iter()
            .flatten()
            .filter(|record| record.lsn <= replica.committed)
        {
            let payload = LogPayload::decode(&record.payload).unwrap();
            self.acknowledged.entry(record.lsn).or_insert(payload);
        }
    }

    /// Copies the primary's state, if all of it is committed.
    fn fill(&mut self, from: NodeId, to: NodeId) {
        let primary = &self.replicas[&from];
        if primary.committed != primary.engine.applied() {
            return;
        }
        let (mut engine, mut after, snapshot) = (Partition::new(), None, primary.committed);
        loop {
            let (chunk, more) = primary.engine.dump_chunk(snapshot, after, 100);
            engine.load_chunk(&chunk).unwrap();
            after = more;
            if after.is_none() {
                break;
            }
        }
        let history = primary.history.until(snapshot);
        let learner = self.replicas.get_mut(&to).unwrap();
        learner.begin_fill();
        learner.filled(engine, history, snapshot);
    }

    fn lose_stream(&mut self, from: NodeId, to: NodeId) {
        self.batches.remove(&(from, to));
        self.answers.remove(&(to, from));
        self.replicas.get_mut(&from).unwrap().stream_broke(to);
    }

    /// The primary is taken for dead: a member takes over. The old one may go on for a while, not knowing.
    fn depose(&mut self) {
        if self.mode == ReplicationMode::SemiSync {
            // Some learn of it, and then the longest of them is chosen.
            (self.epoch, self.primary) = (self.epoch + 1, 0);
            return;
        }
        let others: Vec<NodeId> = self
            .in_sync
            .iter()
            .copied()
            .filter(|&node| node != self.primary)
            .collect();
        if others.is_empty() {
            return;
        }
        let successor = self.random.pick(&others);
        if self.mode == ReplicationMode::Async {
            self.lose_what_lacks(successor);
        }
        self.begin_epoch(successor, others.into_iter().collect());
    }

    /// What this one does not have, of what was acknowledged, is lost.
    fn lose_what_lacks(&mut self, successor: NodeId) {
        let replica = &self.replicas[&successor];
        let before = self.acknowledged.len();
        self.acknowledged.retain(|&lsn, payload| {
            let mut records = replica.tail.after(lsn - 1).into_iter().flatten();
            let record = records.next();
            let same = |record: &Record| LogPayload::decode(&record.payload).as_ref() == Ok(payload);
            lsn <= replica.appended && record.is_none_or(same)
        });
        let lost = before - self.acknowledged.len();
        assert!(lost as Lsn <= MAX_LAG, "{lost} records were lost");
    }

    /// Members that meet every majority, and have seen the epoch, tell how far they reach.
    fn elect(&mut self, mut asked: BTreeSet<NodeId>) {
        if self.primary != 0 {
            return;
        }
        asked.retain(|node| self.in_sync.contains(node) && self.replicas[node].epoch >= self.epoch);
        let end = |node: &NodeId| {
            let replica = &self.replicas[node];
            (replica.history.epoch_at(replica.appended), replica.appended)
        };
        if asked.len() >= meets_every_majority(self.in_sync.len())
            && let Some(chosen) = asked.iter().copied().max_by_key(end)
        {
            self.begin_epoch(chosen, self.in_sync.clone());
        }
    }

    fn elect_some(&mut self) {
        let nodes = self.nodes.clone();
        let asked = nodes.into_iter().filter(|_| self.random.below(4) > 0).collect();
        self.elect(asked);
    }

    /// Whoever thinks it is primary proposes a set without another node, and without those that must be filled.
    fn propose_without(&mut self, primary: NodeId, other: Option<NodeId>) {
        if self.mode == ReplicationMode::Sync {
            return;
        }
        let Some(replica) = self
            .replicas
            .get_mut(&primary)
            .filter(|replica| replica.reign().is_some())
        else {
            return;
        };
        let limits = LagLimits {
            silent_looks: u32::MAX,
            records: None,
        };
        let leaving = replica.members_to_drop(limits, &other.into_iter().collect());
        let leaving: BTreeSet<NodeId> = leaving.into_iter().map(|late| late.node).collect();
        let epoch = replica.epoch;
        if !leaving.is_empty() && epoch == self.epoch && primary == self.primary {
            let rest = self.in_sync.iter().copied().filter(|node| !leaving.contains(node));
            self.proposed.push((epoch, rest.collect()));
        }
        if self.random.below(2) == 0 {
            // The answer is lost.
            self.replicas.get_mut(&primary).unwrap().drop_answered(epoch);
        }
    }

    /// A proposal comes into force, if it is not too late.
    fn settle(&mut self) {
        if self.proposed.is_empty() {
            return;
        }
        let place = self.random.below(self.proposed.len() as u64) as usize;
        let (epoch, in_sync) = self.proposed.swap_remove(place);
        if epoch == self.epoch {
            self.epoch += 1;
            self.in_sync = in_sync;
        }
    }

    /// Somebody wants another mode.
    fn want(&mut self) {
        use ReplicationMode::{Async, SemiSync, Sync};
        if self.changes {
            self.wanted = self.random.pick(&[Sync, SemiSync, Async]);
            self.epoch += 1;
        }
    }

    /// The primary proposes what it knows to be wanted, if it may.
    fn propose_mode(&mut self) {
        let proposed = self.replicas.get(&self.primary).and_then(Replica::mode_to_propose);
        if let Some((mode, epoch)) = proposed {
            self.modes.push((epoch, mode));
        }
    }

    fn settle_mode(&mut self) {
        if self.modes.is_empty() {
            return;
        }
        let place = self.random.below(self.modes.len() as u64) as usize;
        let (epoch, mode) = self.modes.swap_remove(place);
        if epoch == self.epoch && mode == self.wanted && self.primary != 0 {
            (self.epoch, self.mode) = (self.epoch + 1, mode);
        }
    }

    /// A learner that has caught up becomes a member.
    fn add_member(&mut self) {
        let Some(replica) = self.replicas.get_mut(&self.primary) else {
            return;
        };
        let Some(node) = replica.learner_to_propose(2) else {
            return;
        };
        let epoch = replica.epoch;
        let mut in_sync = self.in_sync.clone();
        in_sync.insert(node);
        self.proposed.push((epoch, in_sync));
    }

    /// A node hears what the group has decided.
    fn hear(&mut self, node: NodeId) {
        self.join(node);
        if node != self.primary {
            let replica = self.replicas.get_mut(&node).unwrap();
            (replica.mode, replica.next_mode) = (self.mode, None);
            replica.follow(self.epoch);
        } else if self.replicas[&node].epoch < self.epoch {
            self.reign(node);
        } else {
            let (mode, wanted) = (self.mode, self.wanted);
            self.replicas.get_mut(&node).unwrap().next_mode = Some(wanted).filter(|wanted| *wanted != mode);
        }
    }

    fn step(&mut self) {
        let nodes = self.nodes.clone();
        let (from, to) = (self.random.pick(&nodes), self.random.pick(&nodes));
        match self.random.below(100) {
            0..20 => self.write(from),
            20..42 if from != to => self.send(from, to),
            42..62 => self.deliver(from, to),
            62..80 => self.answer(from, to),
            80..86 => self.flush(from),
            86..88 if from != to => self.lose_stream(from, to),
            88..91 => self.hear(from),
            91..93 => self.add_member(),
            93 => self.depose(),
            94..96 => self.elect_some(),
            96 => self.propose_without(from, Some(to).filter(|to| *to != from)),
            97 => self.settle(),
            98 => match self.random.below(4) {
                0 => self.want(),
                1 => self.propose_mode(),
                2 => self.settle_mode(),
                _ => self.settle(),
            },
            99 if from != to => self.restart(from, to),
            _ => {}
        }
    }

    fn heal(&mut self) {
        let nodes = self.nodes.clone();
        nodes.iter().for_each(|&node| self.join(node));
        for _ in 0..200 {
            for &node in &nodes {
                self.hear(node);
                self.flush(node);
            }
            self.elect(nodes.iter().copied().collect());
            let primary = self.primary;
            self.propose_without(primary, None);
            for to in nodes.iter().copied().filter(|&to| to != primary) {
                self.exchange(primary, to);
            }
            self.add_member();
            self.settle();
            self.propose_mode();
            self.settle_mode();
        }
        assert_eq!(self.mode, self.wanted, "it becomes what was wanted");
    }

    fn check(&self, seed: u64) {
        let primary = &self.replicas[&self.primary];
        assert_eq!(
            primary.committed, primary.appended,
            "seed {seed}: all is committed in the end"
        );
        for (&lsn, payload) in &self.acknowledged {
            let found = primary
                .tail
                .after(lsn - 1)
                .and_then(|mut records| records.next().cloned());
            if let Some(record) = found {
                assert_eq!(
                    &LogPayload::decode(&record.payload).unwrap(),
                    payload,
                    "seed {seed}: record {lsn} was acknowledged"
                );
            }
            assert!(
                lsn <= primary.appended,
                "seed {seed}: record {lsn} was acknowledged and is gone"
            );
        }
        for replica in self.replicas.values() {
            assert_eq!(replica.committed, primary.committed, "seed {seed}");
            let lsn = primary.committed;
            assert_eq!(
                replica.engine.checksum_at(lsn),
                primary.engine.checksum_at(lsn),
                "seed {seed}: same LSN, same bytes"
            );
        }
    }
}

fn survives(mode: ReplicationMode, changes: bool, nodes: u32) {
    for seed in 0..SEEDS {
        let mut cluster = Cluster::new(mode, changes, nodes, seed);
        for _ in 0..STEPS {
            cluster.step();
        }
        cluster.heal();
        cluster.check(seed);
    }
}

#[test]
fn what_was_acknowledged_survives_and_replicas_become_equal() {
    survives(ReplicationMode::Sync, false, 3);
}

#[test]
fn what_a_majority_has_survives() {
    for nodes in [2, 3, 4, 5] {
        survives(ReplicationMode::SemiSync, false, nodes);
    }
}

#[test]
fn an_asynchronous_primary_takes_no_more_with_it_than_it_may() {
    survives(ReplicationMode::Async, false, 3);
}

#[test]
fn a_mode_that_becomes_another_one_keeps_what_both_promise() {
    for nodes in [3, 4, 5] {
        survives(ReplicationMode::Sync, true, nodes);
    }
}
