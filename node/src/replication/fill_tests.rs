//! Fills whose replica, or whose primary's reign, ends before they do.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::oneshot::error::TryRecvError;
use uuid::Uuid;
use volt_engine::effects::{EffectsBuilder, LogPayload};
use volt_engine::partition::{DumpCursor, Partition};
use volt_engine::row::encode_row;
use volt_engine::value::ValueRef;
use volt_engine::{Lsn, PartitionId};

use super::epochs::EpochHistory;
use super::fill::Filling;
use super::replica::{FillSource, LagLimits, Replica};
use super::{Slot, lock};
use crate::config::Durability;
use crate::recovery::log::{Log, LogEntry, LogOptions};
use crate::recovery::replay::Replay;
use crate::recovery::sink::InOrder;
use crate::world::World;
use crate::world::simulated::{NoNetwork, SimulatedClock, SimulatedDisk, SimulatedRandom};

const PARTITION: PartitionId = 7;
const LIMITS: LagLimits = LagLimits {
    silent_looks: 1_000,
    records: None,
};
/// Small, so that a few rows are several chunks.
const CHUNK_BYTES: usize = 100;

fn write(number: i32) -> LogPayload {
    let mut effects = EffectsBuilder::default();
    effects.put(1, &number.to_be_bytes(), &encode_row(&[ValueRef::Int(number)]));
    LogPayload::Write(effects.finish())
}

/// A primary of epoch 1, with one member and this learner, that wrote so many rows.
fn primary(rows: i32) -> Replica {
    let mut primary = Replica::new(PARTITION);
    primary.reign_in(1, &[2], &[3]);
    primary.append(&LogPayload::EpochStart);
    (0..rows).for_each(|number| drop(primary.append(&write(number))));
    primary
}

/// The state of `of`, whole, in chunks.
fn chunks(of: &Replica) -> Vec<bytes::Bytes> {
    let (mut chunks, mut cursor) = (Vec::new(), None);
    loop {
        let (chunk, more) = of.engine.dump_chunk(of.engine.applied(), cursor, CHUNK_BYTES);
        chunks.push(chunk);
        cursor = more;
        if cursor.is_none() {
            return chunks;
        }
    }
}

struct Learner {
    disk: Arc<SimulatedDisk>,
    log: Arc<Log>,
    slot: Slot,
}

impl Learner {
    /// A node whose log holds a replica with one record.
    async fn new() -> Self {
        let disk = SimulatedDisk::new(SimulatedRandom::new(1), false);
        let (log, _) = open(&disk).await;
        let slot: Slot = Arc::new(Mutex::new(Replica::new(PARTITION)));
        let record = primary(0).tail.after(0).and_then(|mut records| records.next().cloned());
        let record = record.expect("the start of the epoch");
        log.append(
            PARTITION,
            &LogEntry::Record {
                epoch: record.epoch,
                lsn: record.lsn,
                payload: record.payload,
            },
        );
        Self { disk, log, slot }
    }

    fn begin(&self) -> Filling {
        Filling::begin(Arc::clone(&self.log), &self.slot, &mut lock(&self.slot))
    }

    /// As `Replicas::remove` does.
    fn drop_out(&self) {
        lock(&self.slot).drop_out();
        self.log.append(PARTITION, &LogEntry::Dropped);
    }

    /// What the next process reads: (appended, committed) of its replica.
    async fn restarted(self) -> Option<(Lsn, Lsn)> {
        self.log.close().await.expect("the log is flushed");
        let (_, replicas) = open(&self.disk).await;
        replicas.first().map(|replica| (replica.appended, replica.committed))
    }
}

async fn open(disk: &Arc<SimulatedDisk>) -> (Arc<Log>, Vec<Replica>) {
    let clock = SimulatedClock::new(Duration::ZERO, 0);
    let world = World::simulated(clock, Arc::new(NoNetwork), Arc::clone(disk), SimulatedRandom::new(1));
    let mut replay = Replay::default();
    let mut take = InOrder::new(|partition, entry| replay.take(partition, entry).map_err(|error| error.to_string()));
    let options = LogOptions::new(Durability::Fsync);
    let log = Log::open(&world, options, Uuid::from_u128(7), &mut take).await;
    (
        Arc::new(log.expect("a log that can be read")),
        replay.finish().expect("no mark is missing"),
    )
}

fn loaded(chunks: &[bytes::Bytes]) -> Partition {
    let mut engine = Partition::new();
    for chunk in chunks {
        engine.load_chunk(chunk).expect("a chunk");
    }
    engine
}

#[tokio::test]
async fn a_fill_that_ends_is_there_after_a_restart() {
    let (learner, primary) = (Learner::new().await, primary(20));
    let (filling, chunks) = (learner.begin(), chunks(&primary));
    assert!(chunks.len() > 2);
    for chunk in &chunks {
        filling.take(chunk.clone()).expect("it goes on");
    }
    let history = primary.history.clone();
    filling.finish(loaded(&chunks), history, 21).expect("it is whole");
    assert_eq!(learner.restarted().await, Some((21, 21)));
}

#[tokio::test]
async fn a_fill_leaves_no_word_in_the_log_once_its_replica_is_dropped() {
    // Dropped before the first chunk, between two, and before the end.
    let primary = primary(20);
    let chunks = chunks(&primary);
    for dropped_after in [0, 1, chunks.len()] {
        let learner = Learner::new().await;
        let filling = learner.begin();
        for (place, chunk) in chunks.iter().enumerate() {
            if place == dropped_after {
                learner.drop_out();
            }
            assert_eq!(filling.take(chunk.clone()).is_ok(), place < dropped_after);
        }
        if dropped_after == chunks.len() {
            learner.drop_out();
        }
        assert!(filling.finish(loaded(&chunks), primary.history.clone(), 21).is_err());
        filling.give_up(Partition::new());
        assert_eq!(learner.restarted().await, None);
    }
}

#[tokio::test]
async fn of_two_fills_the_newer_counts() {
    let (learner, primary) = (Learner::new().await, primary(20));
    let chunks = chunks(&primary);
    let older = learner.begin();
    older.take(chunks[0].clone()).expect("it goes on");
    let newer = learner.begin();
    assert!(older.take(chunks[1].clone()).is_err());
    for chunk in &chunks {
        newer.take(chunk.clone()).expect("it goes on");
    }
    older.give_up(Partition::new());
    newer
        .finish(loaded(&chunks), primary.history.clone(), 21)
        .expect("it is whole");
    assert_eq!(learner.restarted().await, Some((21, 21)));
}

/// What of the chunks the base of a replica has, by bytes.
fn reused(base: &Replica, of: &Replica) -> Vec<bool> {
    let (snapshot, mut cursor, mut found) = (of.engine.applied(), None::<DumpCursor>, Vec::new());
    loop {
        let (chunk, more) = of.engine.dump_chunk(snapshot, cursor.clone(), CHUNK_BYTES);
        let held = cursor.and_then(|after| base.base_range(snapshot, &after, more.as_ref(), chunk.len()));
        found.push(held == Some(chunk));
        cursor = more;
        if cursor.is_none() {
            return found;
        }
    }
}

#[tokio::test]
async fn what_was_copied_before_it_broke_off_need_not_come_again() {
    let (mut learner, primary) = (Learner::new().await, primary(20));
    let chunks = chunks(&primary);
    // Half-way this side gives up, or ends; what it had is in memory, or in the log.
    let filling = learner.begin();
    assert!(!lock(&learner.slot).has_base(), "it holds nothing yet");
    let half = chunks.len() / 2;
    chunks[..half]
        .iter()
        .for_each(|chunk| filling.take(chunk.clone()).expect("it goes on"));
    filling.give_up(loaded(&chunks[..half]));
    // A chunk without rows is there, whatever there is.
    let is_empty = |chunk: &bytes::Bytes| chunk.len() == 9;
    let is_expected = |(place, chunk)| (1..half).contains(&place) || is_empty(chunk);
    let expected: Vec<bool> = chunks.iter().enumerate().map(is_expected).collect();
    assert_eq!(reused(&lock(&learner.slot), &primary), expected);
    let filling = learner.begin();
    chunks[..half]
        .iter()
        .for_each(|chunk| filling.take(chunk.clone()).expect("it goes on"));
    learner.log.close().await.expect("the log is flushed");
    let (log, mut replicas) = open(&learner.disk).await;
    let replica = replicas.pop().expect("a replica");
    assert_eq!((replica.appended, replica.engine.applied()), (0, 0), "it is no state");
    assert_eq!(reused(&replica, &primary), expected);
    (learner.log, learner.slot) = (log, Arc::new(Mutex::new(replica)));
    // The next one comes to its end, and leaves no base.
    let filling = learner.begin();
    chunks
        .iter()
        .for_each(|chunk| filling.take(chunk.clone()).expect("it goes on"));
    filling
        .finish(loaded(&chunks), primary.history.clone(), 21)
        .expect("it is whole");
    assert!(!lock(&learner.slot).has_base());
    // What it holds now is the base of the one after that.
    let filling = learner.begin();
    drop(filling);
    learner.log.close().await.expect("the log is flushed");
    let (_, replicas) = open(&learner.disk).await;
    assert_eq!(
        reused(&replicas[0], &primary).iter().filter(|reused| !**reused).count(),
        1
    );
}

#[tokio::test]
async fn a_replica_that_refuses_the_log_is_filled_but_not_while_it_may_be_a_member() {
    use super::replica::Answer;
    let mut primary = primary(3);
    let mut follower = Replica::new(PARTITION);
    let probe = |primary: &mut Replica| primary.batch_for(3, 1000).expect("a probe");
    follower.refuses_log = true;
    let (answer, received) = follower.receive(probe(&mut primary));
    assert_eq!((answer, received.fill), (Answer::Ahead, false));
    primary.answered(3, 1, answer).expect("an answer");
    let (answer, received) = follower.receive(probe(&mut primary));
    assert!(
        matches!(answer, Answer::Gap { appended: 0, .. }) && received.fill,
        "{answer:?}"
    );
    // Proposed, for it had all: it may be a member by now, and holds what it acknowledged until it is known to be none.
    let mut primary = self::primary(3);
    primary.made_durable(1, 4);
    for node in [2, 3] {
        let _ = primary.batch_for(node, 1000);
        primary
            .answered(node, 1, Answer::Accepted { matched: 4 })
            .expect("an answer");
    }
    assert_eq!(primary.learner_to_propose(1), Some(3));
    primary.answered(3, 1, Answer::Ahead).expect("an answer");
    assert!(!probe(&mut primary).fill);
    primary.reign_in(2, &[2, 3], &[]);
    assert_eq!(primary.members_to_drop(LIMITS, &[].into()).len(), 1);
    primary.reign_in(3, &[2], &[3]);
    primary
        .answered(3, 3, Answer::Accepted { matched: 4 })
        .expect("an answer");
    assert!(probe(&mut primary).fill);
}

#[tokio::test]
async fn a_fill_that_contradicts_itself_is_refused() {
    let (learner, primary) = (Learner::new().await, primary(20));
    let filling = learner.begin();
    let chunks = chunks(&primary);
    for (history, lsn) in [
        (primary.history.clone(), 20),
        (EpochHistory::from_pairs(&[(3, 1), (2, 5)]), 21),
        (EpochHistory::from_pairs(&[(1, 22)]), 21),
    ] {
        assert!(filling.finish(loaded(&chunks), history, lsn).is_err());
    }
}

#[test]
fn a_dropped_replica_takes_no_batch() {
    let (mut primary, mut dropped) = (primary(1), Replica::new(PARTITION));
    let batch = primary.batch_for(2, 1000).expect("a probe");
    dropped.drop_out();
    let (answer, received) = dropped.receive(batch);
    assert_eq!(answer, super::replica::Answer::NotYet);
    assert!(received.records.is_empty() && received.cut.is_none() && !received.fill);
    dropped.committed = 1;
    assert!(!dropped.mark_committed());
}

/// A primary whose learner has copied a part, and its successor of epoch 2, which lacks its rows and has its own.
fn deposed_half_way() -> (Replica, FillSource, Replica) {
    let mut primary = primary(20);
    let source = primary.begin_serving_fill(3).expect("its learner");
    let (_, more) = primary.fill_chunk(source, None, CHUNK_BYTES).expect("it reigns");
    assert!(more.is_some());
    let mut successor = Replica::new(PARTITION);
    successor.reign_in(2, &[1], &[]);
    successor.append(&LogPayload::EpochStart);
    (100..130).for_each(|number| drop(successor.append(&write(number))));
    successor.made_durable(2, 31);
    (primary, source, successor)
}

/// The successor's stream to the deposed primary, until both are equal.
fn stream(successor: &mut Replica, deposed: &mut Replica) {
    while let Some(batch) = successor.batch_for(1, 10_000) {
        let epoch = batch.epoch;
        let (answer, _) = deposed.receive(batch);
        successor.answered(1, epoch, answer).expect("what was sent");
    }
    assert_eq!(deposed.committed, 31);
}

#[test]
fn a_deposed_primary_ends_a_fill_although_its_lsn_has_caught_up_again() {
    let (mut deposed, source, mut successor) = deposed_half_way();
    stream(&mut successor, &mut deposed);
    assert!(deposed.committed > source.snapshot);
    assert!(deposed.fill_chunk(source, None, CHUNK_BYTES).is_none());
    assert!(deposed.fill_committed(source).is_none());
    // Nor when it reigns again.
    deposed.reign_in(3, &[], &[3]);
    assert!(deposed.fill_chunk(source, None, CHUNK_BYTES).is_none());
}

#[test]
fn a_deposed_primary_whose_rows_were_cut_serves_none_of_them() {
    let (mut deposed, source, _) = deposed_half_way();
    deposed.follow(2);
    deposed.cut(0);
    assert!(deposed.fill_chunk(source, None, CHUNK_BYTES).is_none());
    assert!(deposed.fill_committed(source).is_none());
}

#[test]
fn who_waits_for_a_fills_snapshot_hears_of_the_end_of_the_reign() {
    let (mut deposed, source, _) = deposed_half_way();
    let mut wait = deposed.fill_committed(source).flatten().expect("not committed yet");
    assert_eq!(wait.try_recv(), Err(TryRecvError::Empty));
    deposed.follow(2);
    assert_eq!(wait.try_recv(), Err(TryRecvError::Closed));
}
