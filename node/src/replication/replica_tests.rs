//! Three replicas that exchange real messages in random order, with lost streams, deposed primaries and fills:
//! nothing acknowledged is lost, committed prefixes agree, and all become equal in the end. Each run is its seed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use volt_engine::catalog::ViewShape;
use volt_engine::effects::{Effects, LogPayload};
use volt_engine::partition::Partition;
use volt_engine::plan::Expr;
use volt_engine::{Epoch, Lsn, NodeId};

use super::replica::{Answer, Batch, Replica};

const NODES: [NodeId; 3] = [1, 2, 3];
const STEPS: u32 = 400;
const SEEDS: u64 = 300;

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
    replicas: BTreeMap<NodeId, Replica>,
    epoch: Epoch,
    primary: NodeId,
    in_sync: BTreeSet<NodeId>,
    batches: BTreeMap<(NodeId, NodeId), VecDeque<Batch>>,
    answers: BTreeMap<(NodeId, NodeId), VecDeque<(Epoch, Answer)>>,
    /// What clients were told: the record at each LSN.
    acknowledged: BTreeMap<Lsn, LogPayload>,
    written: u32,
}

impl Cluster {
    fn new(seed: u64) -> Self {
        let mut cluster = Self {
            random: Random(seed),
            replicas: NODES.map(|node| (node, Replica::new(7))).into(),
            epoch: 0,
            primary: 1,
            in_sync: NODES.into(),
            batches: BTreeMap::new(),
            answers: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            written: 0,
        };
        cluster.begin_epoch(1, NODES.into());
        cluster
    }

    fn begin_epoch(&mut self, primary: NodeId, in_sync: BTreeSet<NodeId>) {
        self.epoch += 1;
        (self.primary, self.in_sync) = (primary, in_sync);
        let members: Vec<NodeId> = self.in_sync.iter().copied().filter(|&node| node != primary).collect();
        let learners: Vec<NodeId> = NODES.into_iter().filter(|node| !self.in_sync.contains(node)).collect();
        let replica = self.replicas.get_mut(&primary).unwrap();
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
        self.begin_epoch(successor, others.into_iter().collect());
    }

    /// A learner that has caught up becomes a member.
    fn add_member(&mut self) {
        let replica = self.replicas.get_mut(&self.primary).unwrap();
        let Some(node) = replica.learner_to_propose(2) else {
            return;
        };
        let mut in_sync = self.in_sync.clone();
        in_sync.insert(node);
        self.begin_epoch(self.primary, in_sync);
    }

    /// A deposed primary hears of it.
    fn hear(&mut self, node: NodeId) {
        if node != self.primary {
            self.replicas.get_mut(&node).unwrap().follow(self.epoch);
        }
    }

    fn step(&mut self) {
        let (from, to) = (self.random.pick(&NODES), self.random.pick(&NODES));
        match self.random.below(100) {
            0..20 => self.write(from),
            20..45 if from != to => self.send(from, to),
            45..65 => self.deliver(from, to),
            65..85 => self.answer(from, to),
            85..92 => self.flush(from),
            92..94 if from != to => self.lose_stream(from, to),
            94..96 => self.hear(from),
            96..98 => self.add_member(),
            98 => self.depose(),
            _ => {}
        }
    }

    fn heal(&mut self) {
        for _ in 0..200 {
            for node in NODES {
                self.hear(node);
                self.flush(node);
            }
            let primary = self.primary;
            for to in NODES.into_iter().filter(|&to| to != primary) {
                self.send(primary, to);
                while self.batches.get(&(primary, to)).is_some_and(|queue| !queue.is_empty()) {
                    self.deliver(primary, to);
                }
                while self.answers.get(&(to, primary)).is_some_and(|queue| !queue.is_empty()) {
                    self.answer(to, primary);
                }
            }
            self.add_member();
        }
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

fn effects(number: u32) -> Effects {
    let mut builder = volt_engine::effects::EffectsBuilder::default();
    builder.put(
        1,
        &[(number % 5) as u8],
        &volt_engine::row::encode_row(&[volt_engine::value::ValueRef::Int(number as i32)]),
    );
    builder.finish()
}

#[test]
fn what_was_acknowledged_survives_and_replicas_become_equal() {
    for seed in 0..SEEDS {
        let mut cluster = Cluster::new(seed);
        for _ in 0..STEPS {
            cluster.step();
        }
        cluster.heal();
        cluster.check(seed);
    }
}

#[test]
fn an_acknowledgement_of_what_was_never_sent_is_refused() {
    let mut primary = Replica::new(7);
    primary.reign_in(1, &[2], &[]);
    primary.append(&LogPayload::EpochStart);
    assert!(primary.answered(2, 1, Answer::Accepted { matched: 2 }).is_err());
    assert_eq!(primary.reign().unwrap().followers[&2].acked, 0);
    assert!(primary.answered(2, 1, Answer::Accepted { matched: 1 }).is_ok());
}

/// Looks that a member is given.
const LATE: u32 = 3;

/// A primary of members 2 and 3 that have acknowledged all but its newest record.
fn one_record_ahead() -> Replica {
    let mut primary = Replica::new(7);
    primary.reign_in(1, &[2, 3], &[]);
    primary.append(&LogPayload::EpochStart);
    for node in [2, 3] {
        primary.answered(node, 1, Answer::Accepted { matched: 1 }).unwrap();
    }
    primary.made_durable(1, 1);
    primary.append(&LogPayload::Write(effects(1)));
    primary.made_durable(1, 2);
    primary
}

fn looks(primary: &mut Replica, count: u32) -> Vec<Vec<NodeId>> {
    (0..count).map(|_| primary.members_to_drop(LATE)).collect()
}

fn nobody(count: u32) -> Vec<Vec<NodeId>> {
    (0..count).map(|_| Vec::new()).collect()
}

#[test]
fn a_member_that_does_not_acknowledge_is_dropped_and_commits_go_on() {
    let mut primary = one_record_ahead();
    primary.answered(2, 1, Answer::Accepted { matched: 2 }).unwrap();
    // The first look only sees where it stands.
    assert_eq!(looks(&mut primary, LATE + 1), [vec![], vec![], vec![], vec![3]]);
    assert_eq!(looks(&mut primary, LATE + 1), nobody(LATE + 1), "it is proposed once");
    assert_eq!(primary.committed, 1, "the entry has not been seen");
    primary.reign_in(2, &[2], &[3]);
    primary.append(&LogPayload::EpochStart);
    primary.advance_commit();
    assert_eq!(primary.committed, 2);
    // Nothing waits for it before it has answered anew.
    assert_eq!(primary.learner_to_propose(64), None);
    primary.made_durable(2, 3);
    primary.answered(2, 2, Answer::Accepted { matched: 3 }).unwrap();
    assert_eq!(primary.committed, 3);
    primary.answered(3, 2, Answer::Accepted { matched: 3 }).unwrap();
    assert_eq!(primary.learner_to_propose(64), Some(3));
}

#[test]
fn who_advances_or_lacks_nothing_is_not_late() {
    let mut primary = one_record_ahead();
    for lsn in 2..20 {
        for node in [2, 3] {
            primary.answered(node, 1, Answer::Accepted { matched: lsn }).unwrap();
        }
        primary.append(&LogPayload::Write(effects(lsn as u32)));
        assert_eq!(looks(&mut primary, LATE), nobody(LATE));
    }
    for node in [2, 3] {
        primary.answered(node, 1, Answer::Accepted { matched: 20 }).unwrap();
    }
    assert_eq!(looks(&mut primary, 10), nobody(10));
}

#[test]
fn a_primary_without_contact_calls_nobody_late_and_asks_again_what_was_not_answered() {
    let mut primary = one_record_ahead();
    looks(&mut primary, LATE);
    primary.forgive_late();
    assert_eq!(looks(&mut primary, LATE), [vec![], vec![], vec![2, 3]]);
    primary.drop_answered(1);
    assert_eq!(looks(&mut primary, LATE), [vec![], vec![], vec![2, 3]]);
    primary.drop_answered(99);
    assert_eq!(
        looks(&mut primary, 10),
        nobody(10),
        "another epoch's answer says nothing"
    );
}

#[test]
fn a_new_epoch_ends_a_handover_of_the_one_before() {
    let mut primary = one_record_ahead();
    primary.reign_mut().unwrap().relinquishing = true;
    primary.reign_in(1, &[2, 3], &[]);
    assert!(primary.reign().unwrap().relinquishing);
    primary.reign_in(2, &[2, 3], &[]);
    assert!(!primary.reign().unwrap().relinquishing);
}

#[test]
fn a_view_that_was_completed_by_what_is_cut_is_built_again() {
    let shape = ViewShape {
        missing: Vec::new(),
        source: 1,
        filter: None,
        groups: vec![Expr::Column(0)],
        aggregates: Vec::new(),
    };
    let mut replica = one_record_ahead();
    replica.engine.set_views([(2, &shape)]);
    assert!(replica.engine.build_views(usize::MAX));
    (replica.is_building, replica.ready_views) = (false, vec![2]);
    assert!(!replica.lacks_view());
    replica.follow(9);
    let committed = replica.committed;
    assert!(replica.appended > committed);
    replica.cut(committed);
    assert!(replica.is_building && replica.lacks_view());
    assert!(replica.engine.build_views(usize::MAX));
    assert!(!replica.lacks_view());
}
