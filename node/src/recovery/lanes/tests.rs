//! What lanes make is what one `Replay` makes, and no more than their bound lies before them.

use std::pin::pin;

use bytes::Bytes;
use futures::poll;
use proptest::prelude::*;
use tokio::runtime::{Builder, Runtime};
use volt_engine::effects::{EffectsBuilder, LogPayload};
use volt_engine::partition::Partition;
use volt_engine::row::encode_row;
use volt_engine::value::ValueRef;
use volt_engine::{Epoch, Lsn};

use super::*;
use crate::recovery::log::LogEntry;
use crate::recovery::log::layout::{self, Framed};
use crate::recovery::sink::InOrder;
use crate::replication::epochs::EpochHistory;
use crate::world::simulated::SimulatedRandom;

const PARTITIONS: PartitionId = 6;
/// The checkpoint's mark of its beginning.
const BEGUN: u64 = 99;

type Entry = (PartitionId, LogEntry);

/// A start's files: what is in the checkpoint, if there is one, and what is in the log.
#[derive(Debug, Default)]
struct Files {
    checkpoint: Option<Vec<Entry>>,
    log: Vec<Entry>,
}

/// Says what a replica might say.
struct Writer<'a> {
    random: &'a SimulatedRandom,
    /// One entry of so many can't follow; 0: none.
    wrong_one_of: u64,
    said: Vec<LogEntry>,
    epoch: Epoch,
    appended: Lsn,
    committed: Lsn,
}

impl Writer<'_> {
    fn below(&self, bound: u64) -> u64 {
        self.random.below(bound)
    }

    fn write(&self, lsn: Lsn) -> LogPayload {
        let mut effects = EffectsBuilder::default();
        let row = encode_row(&[ValueRef::BigInt(lsn as i64)]);
        effects.put(1, &self.below(20).to_be_bytes(), &row);
        LogPayload::Write(effects.finish())
    }

    fn step(&mut self) {
        if self.wrong_one_of > 0 && self.below(self.wrong_one_of) == 0 {
            return self.say_what_is_wrong();
        }
        match self.below(30) {
            0 => {
                self.said.push(LogEntry::Dropped);
                (self.epoch, self.appended, self.committed) = (0, 0, 0);
            }
            1 => self.fill(),
            2..6 => {
                self.committed += self.below(self.appended - self.committed + 1);
                self.said.push(LogEntry::Committed { lsn: self.committed });
            }
            6 => {
                self.epoch += 1;
                self.appended = self.committed + self.below(self.appended - self.committed + 1);
                let (after, epoch) = (self.appended, self.epoch);
                self.said.push(LogEntry::Truncate { after, epoch });
            }
            _ => {
                self.appended += 1;
                self.epoch = self.epoch.max(1);
                let (lsn, epoch) = (self.appended, self.epoch);
                let payload = self.write(lsn).encode();
                self.said.push(LogEntry::Record { epoch, lsn, payload });
            }
        }
    }

    fn fill(&mut self) {
        let lsn = 1 + self.below(8);
        let (mut engine, mut history) = (Partition::new(), EpochHistory::default());
        for lsn in 1..=lsn {
            engine.apply_record(lsn, &self.write(lsn)).unwrap();
        }
        engine.commit_to(lsn);
        self.epoch = self.epoch.max(1);
        history.note(self.epoch, 1);
        let epoch = self.epoch;
        self.said.push(LogEntry::Reset { epoch });
        let (chunk, rest) = engine.dump_chunk(lsn, None, 1 << 20);
        assert!(rest.is_none());
        self.said.push(LogEntry::FillChunk { chunk });
        let epochs = postcard::to_stdvec(&history).unwrap().into();
        self.said.push(LogEntry::FillDone { lsn, epoch, epochs });
        (self.appended, self.committed) = (lsn, lsn);
    }

    fn say_what_is_wrong(&mut self) {
        let (lsn, epoch) = (self.appended + 1, self.epoch);
        let payload = Bytes::from_static(b"not a payload");
        let epochs = Bytes::new();
        self.said.push(match self.below(4) {
            0 => LogEntry::Record { epoch, lsn, payload },
            1 => {
                let (lsn, payload) = (lsn + 3, self.write(lsn).encode());
                LogEntry::Record { epoch, lsn, payload }
            }
            2 => LogEntry::FillDone { lsn, epoch, epochs },
            _ => LogEntry::FillChunk { chunk: payload },
        });
    }
}

/// What a node might find, of a checkpoint and a log or of a log alone.
fn files(random: &SimulatedRandom, steps: u64, wrong_one_of: u64) -> Files {
    let mut files = Files::default();
    let mut of_log: Vec<Vec<Entry>> = vec![Vec::new()];
    if random.below(2) == 0 {
        files.checkpoint = Some(Vec::new());
        // Now and then a mark is missing, which is known at the end.
        let mark = BEGUN + u64::from(random.below(15) == 0);
        of_log[0].push((OF_THE_NODE, LogEntry::Mark { mark }));
    }
    for partition in 1..=PARTITIONS {
        let mut writer = Writer {
            random,
            wrong_one_of,
            said: Vec::new(),
            epoch: 0,
            appended: 0,
            committed: 0,
        };
        // What a checkpoint makes needless, or the first part of the log.
        (0..random.below(steps)).for_each(|_| writer.step());
        if let Some(checkpoint) = &mut files.checkpoint
            && random.below(3) > 0
        {
            let before = std::mem::take(&mut writer.said);
            writer.fill();
            (0..random.below(4)).for_each(|_| writer.step());
            writer.said.push(LogEntry::Mark { mark: partition.into() });
            checkpoint.extend(writer.said.drain(..).map(|entry| (partition, entry)));
            writer.said = before;
            if random.below(15) > 0 {
                writer.said.push(LogEntry::Mark { mark: partition.into() });
            }
        }
        (0..random.below(steps)).for_each(|_| writer.step());
        of_log.push(writer.said.into_iter().map(|entry| (partition, entry)).collect());
    }
    let mut of_log: Vec<_> = of_log.into_iter().map(Vec::into_iter).collect();
    while of_log.iter().any(|rest| rest.len() > 0) {
        let which = random.below(of_log.len() as u64) as usize;
        files.log.extend(of_log[which].next());
    }
    files
}

fn put(sink: &mut dyn EntrySink, place: u64, (partition, entry): &Entry) {
    let mut bytes = BytesMut::new();
    layout::encode(*partition, entry, &mut bytes);
    match layout::decode(&bytes) {
        Ok((Framed::Entry(partition, entry), _)) => sink.put(place, partition, entry),
        other => panic!("{other:?}"),
    }
}

/// As a reader does it, with so many entries a block.
async fn read(sink: &mut dyn EntrySink, entries: &[Entry], block: usize) -> Result<(), Refusal> {
    for (place, entry) in entries.iter().enumerate() {
        put(sink, place as u64, entry);
        if place % block == block - 1 {
            sink.room().await?;
        }
    }
    sink.settle().await
}

/// Of each replica: its end, what is committed, its epoch, and its rows with the records that are not yet committed.
type State = (PartitionId, Lsn, Lsn, Epoch, u64);

/// What comes of it, or where it was refused and why; None: at the end.
type Outcome = Result<Vec<State>, (Option<u64>, String)>;

fn outcome(replicas: Result<Vec<Replica>, String>) -> Outcome {
    let state = |mut replica: Replica| {
        let (end, committed) = (replica.appended, replica.committed);
        replica.replay_committed(end).expect("its own records");
        let rows = replica.engine.checksum_at(end);
        (replica.partition, end, committed, replica.epoch, rows)
    };
    let replicas = replicas.map_err(|what| (None, what))?;
    Ok(replicas.into_iter().map(state).collect())
}

fn refused(refusal: Refusal) -> (Option<u64>, String) {
    (Some(refusal.place), refusal.what)
}

async fn in_order(files: &Files) -> Outcome {
    let mut replay = Replay::default();
    if let Some(checkpoint) = &files.checkpoint {
        let mut take = InOrder::new(|partition, entry| {
            let taken = replay.take_checkpoint(partition, entry);
            taken.map_err(|error| error.to_string())
        });
        read(&mut take, checkpoint, 1).await.map_err(refused)?;
        replay.checkpoint_ends(BEGUN);
    }
    let mut take = InOrder::new(|partition, entry| replay.take(partition, entry).map_err(|error| error.to_string()));
    read(&mut take, &files.log, 1).await.map_err(refused)?;
    outcome(replay.finish().map_err(|error| error.to_string()))
}

async fn in_lanes(files: &Files, count: usize, block: usize) -> Outcome {
    let mut lanes = Lanes::new(count);
    if let Some(checkpoint) = &files.checkpoint {
        read(&mut lanes, checkpoint, block).await.map_err(refused)?;
    }
    lanes.log_begins(files.checkpoint.as_ref().map(|_| BEGUN));
    read(&mut lanes, &files.log, block).await.map_err(refused)?;
    outcome(lanes.finish().await)
}

fn runtimes() -> [Runtime; 2] {
    let threads = Builder::new_multi_thread().worker_threads(3).build();
    [Builder::new_current_thread().build().unwrap(), threads.unwrap()]
}

proptest! {
    #[test]
    fn lanes_make_what_one_replay_makes_and_refuse_what_it_refuses(
        seed in any::<u64>(),
        steps in 1..60u64,
        block in 1..100usize,
        wrong_one_of in prop_oneof![Just(0u64), 20..400u64],
    ) {
        let files = files(&SimulatedRandom::new(seed), steps, wrong_one_of);
        for runtime in runtimes() {
            let expected = runtime.block_on(in_order(&files));
            for count in [1, 2, 3, 8] {
                let found = runtime.block_on(in_lanes(&files, count, block));
                prop_assert_eq!(&found, &expected, "{} lanes", count);
            }
        }
    }
}

#[test]
fn the_generator_makes_whole_starts_and_refusals_of_each_kind() {
    let runtime = Builder::new_current_thread().build().unwrap();
    let (mut whole, mut refused_early, mut refused_at_the_end) = (0, 0, 0);
    for seed in 0..200 {
        let files = files(&SimulatedRandom::new(seed), 40, (seed % 2) * 100);
        match runtime.block_on(in_order(&files)) {
            Ok(states) => whole += usize::from(states.len() > 2),
            Err((Some(_), _)) => refused_early += 1,
            Err((None, _)) => refused_at_the_end += 1,
        }
    }
    assert!(whole > 50, "{whole}");
    assert!(refused_early > 30, "{refused_early}");
    assert!(refused_at_the_end > 5, "{refused_at_the_end}");
}

/// Of which few fill a lane.
const LONG: usize = 64 << 10;

fn long_record(lsn: Lsn) -> LogEntry {
    let text = "x".repeat(LONG);
    let mut effects = EffectsBuilder::default();
    effects.put(1, &lsn.to_be_bytes(), &encode_row(&[ValueRef::Text(&text)]));
    let payload = LogPayload::Write(effects.finish()).encode();
    LogEntry::Record { epoch: 1, lsn, payload }
}

#[tokio::test]
async fn of_two_refusals_the_first_in_the_log_is_told_and_the_rest_of_the_log_is_not_read() {
    const LANES: usize = 3;
    let gap = || long_record(1 << 40);
    // The third partition's refusal comes first in the log; the first one's lane is the first to find its own.
    let mut entries: Vec<Entry> = (1..=3).map(|partition| (partition, long_record(1))).collect();
    entries.push((3, gap()));
    entries.push((1, gap()));
    let long = LANES * LANE_BYTES / LONG;
    for lsn in 2..2 + 2 * long as Lsn {
        entries.push((2, long_record(lsn)));
    }
    let mut lanes = Lanes::new(LANES);
    lanes.log_begins(None);
    let mut taken = 0;
    let refusal = loop {
        put(&mut lanes, taken as u64, &entries[taken]);
        taken += 1;
        if let Err(refusal) = lanes.room().await {
            break refusal;
        }
    };
    assert_eq!(refusal.place, 3);
    assert!(refusal.what.contains("partition 3"), "{}", refusal.what);
    assert!(taken < long, "{taken} entries were read");
    assert_eq!(lanes.settle().await, Err(refusal));
}

#[tokio::test]
async fn who_asks_for_room_waits_for_a_refusal_that_may_come_before_the_one_that_is_known() {
    const BATCHES: u64 = 1000;
    let mut lanes = Lanes::new(2);
    lanes.log_begins(None);
    let gap = |lsn| {
        let payload = LogPayload::EpochStart.encode();
        LogEntry::Record { epoch: 1, lsn, payload }
    };
    for lsn in 1..=BATCHES {
        put(&mut lanes, lsn, &(1, gap(lsn)));
        lanes.room().await.unwrap();
    }
    put(&mut lanes, BATCHES + 1, &(1, gap(1)));
    put(&mut lanes, BATCHES + 2, &(2, gap(2)));
    lanes.room().await.unwrap();
    while lanes.first.get().is_none() {
        yield_now().await;
    }
    assert_eq!(lanes.first.get().unwrap().place, BATCHES + 2);
    assert_eq!(lanes.room().await.unwrap_err().place, BATCHES + 1);
}

#[tokio::test]
async fn the_reader_waits_for_a_lane_that_does_not_get_on() {
    let mut lanes = Lanes::new(2);
    lanes.log_begins(None);
    put(&mut lanes, 0, &(1, LogEntry::Reset { epoch: 1 }));
    put(&mut lanes, 1, &(1, LogEntry::Dropped));
    lanes.settle().await.unwrap();
    let cost = {
        let mut batch = Batch::default();
        let mut bytes = BytesMut::new();
        layout::encode(1, &long_record(1), &mut bytes);
        batch.push(0, 1, Checked::again(&bytes));
        batch.cost() as usize
    };
    // Nothing here gives the lanes a turn before the reader waits.
    let mut lsn = 0;
    loop {
        lsn += 1;
        put(&mut lanes, 1 + lsn, &(1, long_record(lsn)));
        let mut room = pin!(lanes.room());
        if poll!(room.as_mut()).is_ready() {
            assert!(lsn as usize * cost <= LANE_BYTES, "{lsn} entries lie before a lane");
            continue;
        }
        assert_eq!(lsn as usize, LANE_BYTES / cost + 1);
        room.await.unwrap();
        break;
    }
    lanes.settle().await.unwrap();
    let replicas = lanes.finish().await.unwrap();
    assert_eq!((replicas.len(), replicas[0].appended), (1, lsn));
}

#[tokio::test]
async fn an_entry_longer_than_the_bound_comes_alone() {
    let mut lanes = Lanes::new(1);
    lanes.log_begins(None);
    for lsn in 1..=3 {
        let mut effects = EffectsBuilder::default();
        let text = "x".repeat(2 * LANE_BYTES);
        effects.put(1, &[1], &encode_row(&[ValueRef::Text(&text)]));
        let payload = LogPayload::Write(effects.finish()).encode();
        put(&mut lanes, lsn, &(1, LogEntry::Record { epoch: 1, lsn, payload }));
        lanes.room().await.unwrap();
    }
    lanes.settle().await.unwrap();
    assert_eq!(lanes.finish().await.unwrap()[0].appended, 3);
}
