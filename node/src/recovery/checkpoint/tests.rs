//! Checkpoints taken while replicas write, are cut, filled and dropped, on a disk that crashes, fills up and lies.

use std::sync::Mutex;

use volt_engine::effects::{EffectsBuilder, LogPayload, TransactionId};
use volt_engine::row::encode_row;
use volt_engine::value::ValueRef;
use volt_engine::{Epoch, Lsn};

use super::*;
use crate::config::NodeConfig;
use crate::recovery::log::{OF_THE_NODE, Ticket};
use crate::recovery::replay::Replay;
use crate::recovery::{Reading, Recovered, recover};
use crate::replication::replica::{Batch, Replica, Role};
use crate::replication::{Record, Slot};
use crate::world::simulated::{DiskFault, NoNetwork, SimulatedClock, SimulatedDisk, SimulatedRandom};

const CLUSTER: Uuid = Uuid::from_u128(7);
/// Small, so that a test meets many checkpoints and segments.
const CHECKPOINT_BYTES: u64 = 4 << 10;
const CHUNK_BYTES: usize = 100;
const PARTITIONS: PartitionId = 4;
const KEYS: u64 = 12;
const READING: Reading = Reading {
    lanes: 3,
    block_bytes: 100,
};

fn config() -> NodeConfig {
    let mut config = NodeConfig::new(1, "");
    config.checkpoint_bytes = CHECKPOINT_BYTES;
    config.fill_chunk_bytes = CHUNK_BYTES;
    config.tail_margin_bytes = 0;
    config
}

fn world(disk: &Arc<SimulatedDisk>, random: &SimulatedRandom) -> World {
    let clock = SimulatedClock::new(Duration::ZERO, 0);
    World::simulated(clock, Arc::new(NoNetwork), Arc::clone(disk), random.clone())
}

fn transaction(number: u64) -> TransactionId {
    TransactionId {
        began_micros: number as i64,
        node: 1,
        boot: 1,
        sequence: number,
    }
}

/// An entry that a replica wrote, and its ticket in this process; 0: of an earlier one.
type Said = (Ticket, PartitionId, LogEntry);

/// A node's replicas without anything around them, and all that they ever said to the log.
struct Node {
    random: SimulatedRandom,
    log: Arc<Log>,
    slots: Arc<Mutex<Vec<Option<Slot>>>>,
    said: Vec<Said>,
    /// Numbers transactions, and whatever else must be new.
    next: u64,
}

impl Node {
    fn new(random: &SimulatedRandom, recovered: Recovered, said: Vec<Said>, next: u64) -> (Self, Checkpointer) {
        let mut slots = vec![None; PARTITIONS as usize + 1];
        for mut replica in recovered.replicas {
            replica.tail_margin_bytes = 0;
            let partition = replica.partition as usize;
            slots[partition] = Some(Arc::new(Mutex::new(replica)));
        }
        let node = Self {
            random: random.clone(),
            log: recovered.log,
            slots: Arc::new(Mutex::new(slots)),
            said,
            next,
        };
        (node, recovered.checkpointer)
    }

    /// As `Replicas::all_at`.
    fn replicas_at(&self) -> impl Fn(u64) -> Vec<Slot> + Send + 'static {
        let (slots, log) = (Arc::clone(&self.slots), Arc::clone(&self.log));
        move |mark| {
            let slots = slots.lock().unwrap();
            log.append(OF_THE_NODE, &LogEntry::Mark { mark });
            slots.iter().flatten().cloned().collect()
        }
    }

    fn say(&mut self, partition: PartitionId, entry: LogEntry) {
        let ticket = self.log.append(partition, &entry);
        self.said.push((ticket, partition, entry));
    }

    fn below(&self, bound: u64) -> u64 {
        self.random.below(bound)
    }

    /// One thing happens to one replica.
    fn step(&mut self) {
        let partition = 1 + self.below(u64::from(PARTITIONS)) as PartitionId;
        let slot = self.slots.lock().unwrap()[partition as usize].clone();
        let Some(slot) = slot else {
            let replica = Arc::new(Mutex::new(Replica::new(partition)));
            self.slots.lock().unwrap()[partition as usize] = Some(replica);
            return;
        };
        let mut replica = lock(&slot);
        if let Role::Follower { filling: Some(_) } = replica.role {
            return self.go_on_filling(&mut replica);
        }
        match self.below(40) {
            0 => {
                replica.drop_out();
                self.say(partition, LogEntry::Dropped);
                self.slots.lock().unwrap()[partition as usize] = None;
            }
            1 => {
                replica.begin_fill();
                replica.filling_since = self.log.current_segment();
                let epoch = replica.epoch;
                self.say(partition, LogEntry::Reset { epoch });
            }
            2..5 => {
                let lsn = replica.committed;
                self.say(partition, LogEntry::Committed { lsn });
            }
            5..9 => {
                let from = replica.committed + self.below(replica.appended - replica.committed + 1);
                let epoch = replica.epoch + 1;
                self.take_batch(&mut replica, epoch, from);
            }
            _ => {
                let (epoch, from) = (replica.epoch.max(1), replica.appended);
                self.take_batch(&mut replica, epoch, from);
            }
        }
    }

    /// A batch behind the record `from`, which cuts what else there is; some of what it leaves becomes committed.
    fn take_batch(&mut self, replica: &mut Replica, epoch: Epoch, from: Lsn) {
        let previous_epoch = replica.history.epoch_at(from);
        let mut records = Vec::new();
        for lsn in from + 1..=from + 1 + self.below(3) {
            let payload = self.payload(replica, from, &records).encode();
            records.push(Record { lsn, epoch, payload });
        }
        let end = records.last().map_or(from, |record| record.lsn);
        let committed = replica.committed + self.below(end - replica.committed + 1);
        let (_, received) = replica.receive(Batch {
            epoch,
            committed,
            previous_lsn: from,
            previous_epoch,
            records,
            fill: false,
            anew: false,
        });
        let partition = replica.partition;
        if let Some(after) = received.cut {
            self.say(partition, LogEntry::Truncate { epoch, after });
        }
        for Record { lsn, epoch, payload } in received.records {
            self.say(partition, LogEntry::Record { epoch, lsn, payload });
        }
    }

    /// Something that may follow the record `from` and these.
    fn payload(&mut self, replica: &Replica, from: Lsn, newer: &[Record]) -> LogPayload {
        let applied = replica.engine.applied();
        let older = replica
            .tail
            .after(applied)
            .unwrap()
            .take_while(|record| record.lsn <= from);
        let mut prepared = replica.engine.prepared().map(|prepared| prepared.transaction);
        for record in older.chain(newer) {
            match LogPayload::decode(&record.payload).unwrap() {
                LogPayload::Prepared { transaction, .. } => prepared = Some(transaction),
                LogPayload::Commit(_) | LogPayload::Abort(_) => prepared = None,
                _ => {}
            }
        }
        self.next += 1;
        let mut effects = EffectsBuilder::default();
        for _ in 0..1 + self.below(3) {
            let key = self.below(KEYS).to_be_bytes();
            match self.below(3) {
                0 => effects.remove(1, &key),
                _ => effects.put(1, &key, &encode_row(&[ValueRef::BigInt(self.next as i64)])),
            }
        }
        let effects = effects.finish();
        match (prepared, self.below(4)) {
            (Some(transaction), 0) => LogPayload::Abort(transaction),
            (Some(transaction), _) => LogPayload::Commit(transaction),
            (None, 0) => LogPayload::Prepared {
                transaction: transaction(self.next),
                home: 1,
                effects,
            },
            (None, _) => LogPayload::Write(effects),
        }
    }

    /// The fill's source is what the replica itself held: what matters is that all comes back by way of the log.
    fn go_on_filling(&mut self, replica: &mut Replica) {
        if self.below(4) > 0 {
            return;
        }
        let partition = replica.partition;
        let (lsn, epoch) = (replica.committed, replica.epoch);
        let (mut cursor, mut engine) = (None, volt_engine::partition::Partition::new());
        loop {
            let (chunk, more) = replica.engine.dump_chunk(lsn, cursor, CHUNK_BYTES);
            engine.load_chunk(&chunk).unwrap();
            self.say(partition, LogEntry::FillChunk { chunk });
            cursor = more;
            if cursor.is_none() {
                break;
            }
        }
        let history = replica.history.until(lsn);
        let epochs = postcard::to_stdvec(&history).unwrap().into();
        self.say(partition, LogEntry::FillDone { lsn, epoch, epochs });
        replica.filled(engine, history, lsn);
    }
}

/// What must come back of a replica: where it ends, each record's epoch, its rows and what it has prepared, all of it as
/// of `appended`, and so its uncommitted records too.
type State = (Lsn, Vec<Epoch>, u64, Option<TransactionId>, Vec<Option<bool>>);

fn state(replica: &mut Replica, transactions: u64) -> State {
    let end = replica.appended;
    replica.replay_committed(end).expect("its own records");
    let epochs = (1..=end).map(|lsn| replica.history.epoch_at(lsn)).collect();
    let prepared = replica.engine.prepared().map(|prepared| prepared.transaction);
    let decisions = (0..=transactions).map(|number| replica.engine.decision(transaction(number)));
    (
        end,
        epochs,
        replica.engine.checksum_at(end),
        prepared,
        decisions.collect(),
    )
}

fn states(replicas: Vec<Replica>, transactions: u64) -> Vec<(PartitionId, State)> {
    // A replica that has nothing may be there or not.
    replicas
        .into_iter()
        .filter(|replica| replica.appended > 0)
        .map(|mut replica| (replica.partition, state(&mut replica, transactions)))
        .collect()
}

/// What the first so many entries make.
fn replayed(said: &[Said]) -> Vec<Replica> {
    let mut replay = Replay::default();
    for (_, partition, entry) in said {
        replay.take(*partition, entry.clone()).unwrap();
    }
    replay.finish().unwrap()
}

/// Recovers, and finds out which of the entries came back: all that were safe, and perhaps some more.
async fn recovers(
    disk: &Arc<SimulatedDisk>,
    random: &SimulatedRandom,
    said: &[Said],
    safe: Ticket,
    next: u64,
) -> usize {
    let recovered = recover(&world(disk, random), &config(), CLUSTER, READING)
        .await
        .unwrap();
    let found = states(recovered.replicas, next);
    let certain = said.iter().take_while(|(ticket, ..)| *ticket <= safe).count();
    let matches = |&count: &usize| states(replayed(&said[..count]), next) == found;
    let count = (certain..=said.len()).find(matches);
    count.unwrap_or_else(|| panic!("what came back is no state from entry {certain} of {} on", said.len()))
}

fn on_disk(disk: &SimulatedDisk, folder: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let files = disk.files();
    files.into_iter().filter(|(path, _)| path.starts_with(folder)).collect()
}

#[tokio::test(start_paused = true)]
async fn whatever_happens_meanwhile_a_checkpoint_and_the_log_behind_it_are_the_whole_log() {
    let (mut checkpoints, mut begun_elsewhere) = (0, 0);
    for seed in 0..30 {
        let random = SimulatedRandom::new(seed);
        let disk = SimulatedDisk::new(random.clone(), true);
        let (mut said, mut next) = (Vec::new(), 0);
        for _ in 0..5 {
            let recovered = recover(&world(&disk, &random), &config(), CLUSTER, READING)
                .await
                .unwrap();
            let (mut node, checkpointer) = Node::new(&random, recovered, std::mem::take(&mut said), next);
            let figures = checkpointer.figures();
            let running = tokio::spawn(checkpointer.run(CHECKPOINT_BYTES, node.replicas_at()));
            for _ in 0..100 + random.below(900) {
                node.step();
                if random.below(2) == 0 {
                    sleep(Duration::from_millis(random.below(8))).await;
                }
            }
            let safe = *node.log.safe().borrow();
            match random.below(2) {
                0 => disk.crash(),
                _ => disk.kill(),
            }
            running.abort();
            checkpoints += figures.taken.load(Relaxed);
            begun_elsewhere += on_disk(&disk, FOLDER)
                .iter()
                .filter(|(path, _)| is_unfinished(path))
                .count();
            (said, next) = (std::mem::take(&mut node.said), node.next);
            drop(node);
            let count = recovers(&disk, &random, &said, safe, next).await;
            disk.kill();
            said.truncate(count);
            said.iter_mut().for_each(|(ticket, ..)| *ticket = 0);
        }
        let bytes: usize = on_disk(&disk, "log").iter().map(|(_, bytes)| bytes.len()).sum();
        assert!(
            bytes < 16 * CHECKPOINT_BYTES as usize,
            "seed {seed}: the log has {bytes} bytes"
        );
    }
    assert!(checkpoints > 100, "{checkpoints}");
    assert!(
        begun_elsewhere > 0,
        "{begun_elsewhere} crashes came while a checkpoint was written"
    );
}

/// A node that wrote so many batches, and its disk.
async fn written(steps: usize) -> (Arc<SimulatedDisk>, SimulatedRandom, Node, Checkpointer) {
    let random = SimulatedRandom::new(1);
    let disk = SimulatedDisk::new(random.clone(), false);
    let recovered = recover(&world(&disk, &random), &config(), CLUSTER, READING)
        .await
        .unwrap();
    let (mut node, checkpointer) = Node::new(&random, recovered, Vec::new(), 0);
    for _ in 0..steps {
        node.step();
        tokio::task::yield_now().await;
    }
    (disk, random, node, checkpointer)
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_has_its_name_only_when_the_log_is_flushed_beyond_its_marks() {
    let mut config = config();
    config.durability = crate::config::Durability::Async;
    for seed in 0..20 {
        let random = SimulatedRandom::new(seed);
        let disk = SimulatedDisk::new(random.clone(), true);
        let recovered = recover(&world(&disk, &random), &config, CLUSTER, READING)
            .await
            .unwrap();
        let (mut node, mut checkpointer) = Node::new(&random, recovered, Vec::new(), 0);
        (0..50).for_each(|_| node.step());
        checkpointer.take(node.replicas_at()).await.unwrap();
        disk.crash();
        let again = recover(&world(&disk, &random), &config, CLUSTER, READING)
            .await
            .map(drop);
        assert!(again.is_ok(), "seed {seed}: {again:?}");
    }
}

fn copy_of(files: &[(PathBuf, Vec<u8>)]) -> Arc<SimulatedDisk> {
    let copy = SimulatedDisk::new(SimulatedRandom::new(3), false);
    files.iter().for_each(|(path, bytes)| copy.put(path, bytes.clone()));
    copy
}

#[tokio::test]
async fn a_flipped_bit_a_lost_end_and_a_byte_too_many_are_found() {
    let (disk, random, node, mut checkpointer) = written(60).await;
    checkpointer.take(node.replicas_at()).await.unwrap();
    node.log.close().await.unwrap();
    let files = disk.files();
    let (path, content) = on_disk(&disk, FOLDER).pop().unwrap();
    let damaged = async |bytes: Vec<u8>, what: String| {
        let copy = copy_of(&files);
        copy.put(&path, bytes);
        match recover(&world(&copy, &random), &config(), CLUSTER, READING)
            .await
            .map(drop)
        {
            Err(LogError::Corrupt { file, .. }) => assert_eq!(file, path, "{what}"),
            other => panic!("{what}: {other:?}"),
        }
    };
    // Header, lengths, checksums, kinds, payloads, end: every byte there is.
    for at in 0..content.len() {
        let mut bytes = content.clone();
        bytes[at] ^= 1 << (at % 8);
        damaged(bytes, format!("flipped at {at}")).await;
        damaged(content[..at].to_vec(), format!("cut at {at}")).await;
    }
    damaged([content.as_slice(), &[0]].concat(), "a byte more".to_owned()).await;
}

#[tokio::test]
async fn a_checkpoint_or_a_segment_that_is_missing_is_found() {
    let (disk, random, node, mut checkpointer) = written(600).await;
    checkpointer.take(node.replicas_at()).await.unwrap();
    node.log.close().await.unwrap();
    let files = disk.files();
    let (first, _) = on_disk(&disk, "log").first().cloned().unwrap();
    assert_ne!(first, PathBuf::from("log/00000000000000000001.log"));
    for folder in [FOLDER, "log"] {
        let left: Vec<_> = files
            .iter()
            .filter(|(path, _)| !path.starts_with(folder))
            .cloned()
            .collect();
        let error = recover(&world(&copy_of(&left), &random), &config(), CLUSTER, READING)
            .await
            .map(drop);
        assert!(
            matches!(error, Err(LogError::Corrupt { .. })),
            "without {folder}: {error:?}"
        );
    }
    // The log was flushed beyond the marks before the checkpoint got its name.
    let (last, content) = on_disk(&disk, "log").pop().unwrap();
    let copy = copy_of(&files);
    copy.put(&last, content[..100].to_vec());
    let error = recover(&world(&copy, &random), &config(), CLUSTER, READING)
        .await
        .map(drop);
    assert!(matches!(error, Err(LogError::Refused(_))), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_that_finds_no_room_is_tried_again_and_the_log_goes_on() {
    let (disk, random, mut node, checkpointer) = written(600).await;
    let figures = checkpointer.figures();
    disk.set_fault(DiskFault::FullIn(FOLDER));
    let running = tokio::spawn(checkpointer.run(CHECKPOINT_BYTES, node.replicas_at()));
    sleep(2 * TRY_AGAIN_AFTER).await;
    assert!(figures.failed.load(Relaxed) > 1);
    assert_eq!(on_disk(&disk, FOLDER), []);
    node.step();
    node.log.wait_safe(node.log.last_ticket()).await.unwrap();
    let before = node.log.bytes_on_disk();
    disk.set_fault(DiskFault::None);
    sleep(2 * TRY_AGAIN_AFTER).await;
    assert_eq!(figures.taken.load(Relaxed), 1);
    assert_eq!(on_disk(&disk, FOLDER).len(), 1);
    assert!(node.log.bytes_on_disk() < before);
    running.abort();
    disk.kill();
    let safe = node.log.last_ticket();
    assert_eq!(
        recovers(&disk, &random, &node.said, safe, node.next).await,
        node.said.len()
    );
}
