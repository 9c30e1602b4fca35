//! Primary to backups: who has which replica here, and the drivers that carry records between nodes.
//!
//! ```text
//!   txn ──append──> replica (pure) ──record──> log on disk ──durable──┐
//!                      │  └────────record────> sender ──stream──> receiver on the backup
//!                      └<──committed────────── acknowledgements <─────┘
//! ```
//!
//! A transaction appends under its partition's mutex and goes on; everything behind that is batched: one log for all
//! partitions, one stream to each other node. Nothing is awaited under the mutex.

mod comparison;
#[cfg(test)]
mod doubt_tests;
pub(crate) mod epochs;
pub(crate) mod fill;
#[cfg(test)]
mod fill_tests;
pub(crate) mod freshness;
mod handover;
pub(crate) mod hold;
mod indexes;
#[cfg(test)]
mod random_tests;
pub(crate) mod receiver;
pub(crate) mod replica;
#[cfg(test)]
mod replica_tests;
pub(crate) mod reports;
mod roles;
pub(crate) mod scrub;
mod sender;
mod tail;
mod tick;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, Weak};

use tokio::sync::Notify;
use volt_engine::effects::LogPayload;
use volt_engine::{Epoch, Lsn, NodeId, PartitionId};
use volt_proto::v1;

use crate::archive::{ArchiveError, Archiver, Following, Store};
use crate::config::{DataChangeDetection, Durability, NodeConfig};
use crate::error::SqlError;
use crate::metadata::Metadata;
use crate::metadata::placement::Placements;
use crate::peers::Peers;
use crate::recovery::log::{Log, LogEntry, OF_THE_NODE, Ticket};
use crate::statement::CommitWait;
use crate::world::World;

use fill::Fillings;
use replica::Replica;
pub(crate) use sender::Outbox;
pub(crate) use tail::{Record, TAIL_LIMIT_BYTES};

/// Longest wait for a commit; then the client hears that the outcome is unknown.
const COMMIT_WAIT_MS: u64 = 10_000;

/// A replica behind its mutex. Nothing blocks, awaits or does I/O while it is held.
pub(crate) type Slot = Arc<Mutex<Replica>>;

/// Every replica of this node.
pub struct Replicas {
    pub(crate) node_id: NodeId,
    pub(crate) boot_id: u64,
    pub(crate) world: World,
    pub(crate) metadata: Arc<Metadata>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) log: Arc<Log>,
    durability: Durability,
    /// When replicas that lag or differ are failures.
    detection: Option<DataChangeDetection>,
    tail_margin_bytes: usize,
    max_lag: Lsn,
    pub(crate) fill_chunk_bytes: usize,
    pub(crate) filling: Fillings,
    /// By partition id; partition ids are small and dense.
    slots: RwLock<Vec<Option<Slot>>>,
    outboxes: RwLock<BTreeMap<NodeId, Arc<Outbox>>>,
    /// Records handed to the log and not durable yet, in ticket order.
    awaiting_disk: Mutex<VecDeque<AwaitingDisk>>,
    /// The cluster's archive, if it has one.
    pub(crate) archive: OnceLock<Store>,
    /// The other cluster's archive that was used last, and its URL.
    others_archive: tokio::sync::Mutex<Option<(String, Store)>>,
    /// What archives the partitions led here, if anything does.
    pub(crate) archiver: OnceLock<Weak<Archiver>>,
    /// Why partitions led here could not be restored the last time.
    restoration_problems: Mutex<BTreeMap<PartitionId, String>>,
    /// How far this standby is, while this node sees to that.
    following: Mutex<Option<Following>>,
    /// Wakes the tick early: a learner may have caught up.
    nudge: Notify,
    /// Where partitions belong.
    placements: Mutex<Placements>,
}

/// A record on its way to the disk.
struct AwaitingDisk {
    ticket: Ticket,
    partition: PartitionId,
    epoch: Epoch,
    lsn: Lsn,
}

impl Replicas {
    /// The replicas that were read back from the log on disk, before the cluster map has been heard.
    pub(crate) fn new(
        (node_id, boot_id): (NodeId, u64),
        world: World,
        metadata: Arc<Metadata>,
        peers: Arc<Peers>,
        (log, config): (Arc<Log>, &NodeConfig),
        recovered: Vec<Replica>,
    ) -> Arc<Self> {
        let replicas = Arc::new(Self {
            node_id,
            boot_id,
            world,
            metadata,
            peers,
            log,
            durability: config.durability,
            detection: config.detection.data_change,
            tail_margin_bytes: config.tail_margin_bytes,
            max_lag: config.async_max_lag,
            fill_chunk_bytes: config.fill_chunk_bytes,
            filling: Fillings::new(config.recovery, config.memory_limit),
            slots: RwLock::default(),
            outboxes: RwLock::default(),
            awaiting_disk: Mutex::default(),
            archive: OnceLock::new(),
            archiver: OnceLock::new(),
            others_archive: tokio::sync::Mutex::default(),
            restoration_problems: Mutex::default(),
            following: Mutex::default(),
            nudge: Notify::new(),
            placements: Mutex::default(),
        });
        for mut replica in recovered {
            replica.came_back();
            replicas.insert(replica);
        }
        replicas
    }

    /// Starts the drivers: the map's follower, the disk's follower, the tick.
    pub(crate) fn start(self: &Arc<Self>) {
        tokio::spawn(Arc::clone(self).follow_map());
        tokio::spawn(Arc::clone(self).follow_disk());
        tokio::spawn(Arc::clone(self).tick());
        tokio::spawn(Arc::clone(self).build_indexes());
        if let Some(settings) = self.detection {
            tokio::spawn(Arc::clone(self).scrub(settings));
        }
    }

    /// The replica of `partition`, if this node has one.
    pub(crate) fn slot(&self, partition: PartitionId) -> Option<Slot> {
        lock_read(&self.slots).get(partition as usize).and_then(Clone::clone)
    }

    /// Another cluster's archive at this URL, with the connections that there are.
    pub(crate) async fn others_archive(&self, url: &str) -> Result<Store, ArchiveError> {
        let mut known = self.others_archive.lock().await;
        if let Some((_, store)) = known.as_ref().filter(|(at, _)| at == url) {
            return Ok(store.clone());
        }
        let store = Store::find(&self.world, url).await?;
        *known = Some((url.to_owned(), store.clone()));
        Ok(store)
    }

    /// Why partitions led here could not be restored the last time.
    pub(crate) fn restoration_problems(&self) -> BTreeMap<PartitionId, String> {
        let problems = self.restoration_problems.lock();
        problems.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A partition could not be restored, or could.
    pub(crate) fn note_restoration_problem(&self, partition: PartitionId, problem: Option<String>) {
        let mut problems = self.restoration_problems.lock().unwrap_or_else(PoisonError::into_inner);
        match problem {
            Some(problem) => problems.insert(partition, problem),
            None => problems.remove(&partition),
        };
    }

    /// How far this standby is, if this node sees to that.
    pub(crate) fn following(&self) -> Option<Following> {
        self.following.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// This node sees to it how far this standby is, or doesn't.
    pub(crate) fn note_following(&self, following: Option<Following>) {
        *self.following.lock().unwrap_or_else(PoisonError::into_inner) = following;
    }

    /// Runs `look` on the replica of `partition` under its mutex, without counting references: the hot path.
    pub(crate) fn with<T>(&self, partition: PartitionId, look: impl FnOnce(&mut Replica) -> T) -> Option<T> {
        let slots = lock_read(&self.slots);
        let slot = slots.get(partition as usize)?.as_ref()?;
        Some(look(&mut lock(slot)))
    }

    /// The same, on a replica that goes by the newest catalog that this node knows, before the map's follower comes to it: rows
    /// are held to every index of a table whose statements reach it.
    pub(crate) fn with_catalog<T>(&self, partition: PartitionId, look: impl FnOnce(&mut Replica) -> T) -> Option<T> {
        self.with(partition, |replica| {
            if replica.catalog_version < self.metadata.catalog_version() {
                let map = self.metadata.map();
                if let Some(info) = map.partitions.get(&partition) {
                    indexes::define(replica, info.group, &map, self.world.clock.boot_time());
                }
            }
            look(replica)
        })
    }

    /// All replicas, by partition id.
    pub(crate) fn all(&self) -> Vec<Slot> {
        lock_read(&self.slots).iter().flatten().cloned().collect()
    }

    /// All replicas, as they are at `mark`, which goes to the log: who is not among them held nothing there, and what the
    /// log says of it afterwards begins with nothing.
    pub(crate) fn all_at(&self, mark: u64) -> Vec<Slot> {
        let slots = lock_read(&self.slots);
        self.log.append(OF_THE_NODE, &LogEntry::Mark { mark });
        slots.iter().flatten().cloned().collect()
    }

    fn insert(&self, mut replica: Replica) -> Slot {
        replica.tail_margin_bytes = self.tail_margin_bytes;
        replica.max_lag = self.max_lag;
        replica.planted = self.world.planted;
        let partition = replica.partition as usize;
        let slot = Arc::new(Mutex::new(replica));
        let mut slots = self.slots.write().expect("no panic under this lock");
        if slots.len() <= partition {
            slots.resize(partition + 1, None);
        }
        slots[partition] = Some(Arc::clone(&slot));
        slot
    }

    fn remove(&self, partition: PartitionId) {
        let mut slots = self.slots.write().expect("no panic under this lock");
        let Some(slot) = slots.get_mut(partition as usize).and_then(Option::take) else {
            return;
        };
        // Under its mutex: whoever gets hold of it after this sees that it is dropped, and appends nothing.
        let mut replica = lock(&slot);
        replica.drop_out();
        self.log.append(partition, &LogEntry::Dropped);
        self.await_no_more(&replica);
    }

    /// What was appended so far is thrown away: that it becomes durable says nothing of what comes in its place.
    fn await_no_more(&self, replica: &Replica) {
        let mut awaiting = self.awaiting_disk.lock().expect("no panic under this lock");
        awaiting.retain(|record| record.partition != replica.partition);
    }

    // ---- Appending

    /// Appends a transaction's record on the primary: applied, on its way to the disk and to the backups.
    pub(crate) fn append(&self, replica: &mut Replica, payload: &LogPayload) -> Lsn {
        let record = replica.append(payload);
        let lsn = record.lsn;
        self.log_record(replica, record);
        self.send_soon(replica);
        lsn
    }

    /// Hands a record to the log; durable at once when the cluster's durability asks for no more than memory.
    fn log_record(&self, replica: &mut Replica, record: Record) -> Ticket {
        let Record { lsn, epoch, payload } = record;
        let partition = replica.partition;
        let entry = LogEntry::Record { epoch, lsn, payload };
        if self.durability == Durability::Memory {
            let ticket = self.log.append(partition, &entry);
            replica.made_durable(epoch, lsn);
            return ticket;
        }
        let mut awaiting = self.awaiting_disk.lock().expect("no panic under this lock");
        let ticket = self.log.append(partition, &entry);
        awaiting.push_back(AwaitingDisk {
            ticket,
            partition,
            epoch,
            lsn,
        });
        ticket
    }

    fn send_soon(&self, replica: &Replica) {
        let Some(reign) = replica.reign() else { return };
        let outboxes = lock_read(&self.outboxes);
        for node in reign.followers.keys() {
            if let Some(outbox) = outboxes.get(node) {
                outbox.mark(replica.partition);
            }
        }
    }

    // ---- Waiting

    /// Returns when all of these are committed, or with the first that can't be, by its place, and why.
    pub(crate) async fn wait_committed(&self, waits: &[CommitWait]) -> Result<(), (usize, SqlError)> {
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_millis(COMMIT_WAIT_MS);
        for (place, wait) in waits.iter().enumerate() {
            self.wait_one(wait, deadline).await.map_err(|error| (place, error))?;
        }
        Ok(())
    }

    async fn wait_one(&self, wait: &CommitWait, deadline: tokio::time::Instant) -> Result<(), SqlError> {
        let failed = |why: &str| {
            let partition = wait.partition;
            if wait.wrote {
                SqlError::unknown_outcome(format!(
                    "partition {partition}: {why}; the write may or may not have happened"
                ))
            } else {
                SqlError::unavailable(format!(
                    "partition {partition}: {why}; what was read is not safe to show"
                ))
            }
        };
        let slot = self
            .slot(wait.partition)
            .ok_or_else(|| failed("this node has given the partition up"))?;
        let receiver = {
            let mut replica = lock(&slot);
            if replica.committed < wait.lsn && replica.reign().is_none() {
                return Err(failed("this node is no longer its primary"));
            }
            replica.wait_committed(wait.lsn)
        };
        if let Some(receiver) = receiver {
            let began = tokio::time::Instant::now();
            match tokio::time::timeout_at(deadline, receiver).await {
                Ok(Ok(())) => self.filling.committed(self.now_ms(), began.elapsed()),
                Ok(Err(_)) => return Err(failed("this node is no longer its primary, or has lost contact")),
                Err(_) => return Err(failed("its backups did not confirm in time")),
            }
        }
        // The LSN is committed; is it still the same record?
        match lock(&slot).history.epoch_at(wait.lsn) == wait.epoch {
            true => Ok(()),
            false => Err(failed("another primary took over")),
        }
    }

    // ---- Following the disk

    async fn follow_disk(self: Arc<Self>) {
        let mut durable = self.log.safe();
        loop {
            let ticket = *durable.borrow_and_update();
            let mut newest: BTreeMap<PartitionId, (Epoch, Lsn)> = BTreeMap::new();
            {
                let mut awaiting = self.awaiting_disk.lock().expect("no panic under this lock");
                while awaiting.front().is_some_and(|first| first.ticket <= ticket) {
                    if let Some(record) = awaiting.pop_front() {
                        newest.insert(record.partition, (record.epoch, record.lsn));
                    }
                }
            }
            for (partition, (epoch, lsn)) in newest {
                self.with(partition, |replica| replica.made_durable(epoch, lsn));
            }
            if durable.changed().await.is_err() {
                return;
            }
        }
    }

    /// Where every replica here ends: for promotion.
    pub(crate) fn ends(&self) -> Vec<v1::ReplicaEnd> {
        let end = |slot: &Slot| {
            let replica = lock(slot);
            v1::ReplicaEnd {
                partition_id: replica.partition,
                last_epoch: replica.history.epoch_at(replica.appended),
                appended: replica.appended,
                committed: replica.committed,
                epoch: replica.epoch,
            }
        };
        self.all().iter().map(end).collect()
    }

    /// Partitions that the map gives this process and that it doesn't serve yet.
    pub(crate) fn not_serving(&self) -> Vec<PartitionId> {
        let map = self.metadata.map();
        let ours = map
            .partitions
            .values()
            .filter(|info| info.primary == Some(self.node_id) && info.primary_boot == self.boot_id);
        let serves = |partition| self.with(partition, |replica| replica.reign().is_some()) == Some(true);
        ours.map(|info| info.partition_id)
            .filter(|&partition| !serves(partition))
            .collect()
    }

    /// Of each partition led here: how many records its slowest backup in sync lacks.
    pub(crate) fn lags(&self) -> Vec<(PartitionId, u64)> {
        let lag = |slot: &Slot| {
            let replica = lock(slot);
            let members = replica.reign()?.followers.values().filter(|follower| follower.member);
            let slowest = members.map(|follower| follower.acked).min().unwrap_or(replica.appended);
            Some((replica.partition, replica.appended.saturating_sub(slowest)))
        };
        self.all().iter().filter_map(lag).collect()
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.world.clock.boot_time().as_millis() as u64
    }

    /// (partition, applied LSN, checksum of the rows at it) of every replica: replicas with the same LSN have the same bytes.
    pub fn checksums(&self) -> Vec<(PartitionId, Lsn, u64)> {
        let one = |slot: &Slot| {
            let replica = lock(slot);
            let lsn = replica.committed.min(replica.engine.applied());
            (replica.partition, lsn, replica.engine.checksum_at(lsn))
        };
        self.all().iter().map(one).collect()
    }
}

/// A replica's mutex is tried so often before its thread is put to sleep, for some tens of microseconds: what a transaction takes.
/// To be put to sleep and woken takes longer.
const TRIES: u32 = 1_000;

/// A replica's mutex. A panic under it is a broken invariant, and the process ends (`panic = "abort"`).
pub(crate) fn lock(slot: &Mutex<Replica>) -> MutexGuard<'_, Replica> {
    for _ in 0..TRIES {
        if let Ok(replica) = slot.try_lock() {
            return replica;
        }
        std::hint::spin_loop();
    }
    slot.lock().expect("no panic under a replica's mutex")
}

fn lock_read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().expect("no panic under this lock")
}
