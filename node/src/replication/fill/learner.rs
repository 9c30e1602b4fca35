//! The learner's side of a fill.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use volt_engine::partition::{DumpCursor, Partition, with_versions};
use volt_engine::{Epoch, Lsn, NodeId, PartitionId};
use volt_proto::v1;
use volt_proto::v1::fill_chunk::Kind;
use volt_proto::v1::fill_request::Kind as Asked;

use super::super::epochs::EpochHistory;
use super::super::replica::Replica;
use super::super::{Replicas, Slot, lock};
use super::progress::{FillState, Progress};
use super::{MESSAGE_WAIT, RANGES_IN_FLIGHT, hash};
use crate::archive;
use crate::config::{RecoverySource, RecoveryStrategy};
use crate::recovery::log::{Log, LogEntry};

/// A learner whose own log is so far behind takes no more chunks for a while.
const LOG_QUEUE_BYTES: usize = 64 << 20;
const LOG_QUEUE_PAUSE: Duration = Duration::from_millis(5);

/// A fill of a replica here. The log hears of it only while it goes on: the replica may be dropped meanwhile, and what
/// came after that in the log would make it unreadable.
pub(in crate::replication) struct Filling {
    log: Arc<Log>,
    slot: Slot,
    partition: PartitionId,
    /// Its number among the replica's.
    fill: u64,
    /// The epoch in which it began.
    epoch: Epoch,
}

/// Begins to copy a replica from its primary: it refuses records until that is done; if it fails, it is empty, and the
/// primary, which probes it again, asks for another fill.
pub(crate) fn begin(replicas: &Arc<Replicas>, slot: &Slot, replica: &mut Replica, from: NodeId) {
    let filling = Filling::begin(Arc::clone(&replicas.log), slot, replica);
    replicas.await_no_more(replica);
    tokio::spawn(fetch(Arc::clone(replicas), filling, from));
}

async fn fetch(replicas: Arc<Replicas>, filling: Filling, from: NodeId) {
    let partition = filling.partition;
    let order = replicas.metadata.map().recovery_orders.get(&replicas.node_id).copied();
    let (order, settings) = (order.unwrap_or_default(), replicas.filling.settings);
    let strategy = order.strategy.unwrap_or(settings.strategy);
    let began = replicas.now_ms();
    let medium = match order.source.unwrap_or(settings.source) {
        RecoverySource::FileSystem if take_archived(&replicas, &filling).await => RecoverySource::FileSystem,
        RecoverySource::Database if take_recalled(&replicas, &filling).await => RecoverySource::Database,
        _ => RecoverySource::Network,
    };
    let progress = replicas.filling.own.begin(Progress {
        partition,
        source: from,
        medium,
        strategy,
        state: FillState::Copying,
        began_micros: replicas.world.clock.unix_micros(),
        micros: 0,
        total_rows: 0,
        rows: 0,
        received_bytes: 0,
        reused_bytes: 0,
    });
    let mut copy = Copy {
        replicas: &replicas,
        filling: &filling,
        progress: &progress,
        began,
        engine: Partition::new(),
        snapshot: 0,
        unversioned: VecDeque::new(),
    };
    // What is there need not come, also when all is wanted at once.
    let asked = match (medium, strategy) {
        (RecoverySource::FileSystem | RecoverySource::Database, RecoveryStrategy::OneShot) => {
            RecoveryStrategy::Automatic
        }
        _ => strategy,
    };
    let copied = match copy.run(from, asked).await {
        Ok(history) => {
            let (engine, lsn) = (std::mem::take(&mut copy.engine), copy.snapshot);
            filling.finish(engine, history, lsn).map(|()| lsn)
        }
        Err(status) => Err(status),
    };
    let partial = copy.engine;
    if medium == RecoverySource::Database {
        replicas.filling.recalled.forget_what_is_not_wanted(&replicas);
    }
    let mut now = progress.lock().expect("no panic under this lock");
    now.micros = micros_since(&replicas, began);
    match copied {
        Ok(lsn) => {
            now.state = FillState::Done;
            let Progress {
                rows,
                received_bytes,
                reused_bytes,
                ..
            } = *now;
            tracing::info!(
                target: "volt_node::replication::fill",
                partition,
                from,
                lsn,
                rows,
                received_bytes,
                reused_bytes,
                "filled"
            );
        }
        Err(status) => {
            tracing::warn!(partition, from, %status, "fill failed; it will be asked for again");
            now.state = FillState::Failed(status.message().to_owned());
            filling.give_up(partial);
        }
    }
}

/// Takes the archive's rows for a base, which the fill completes and corrects. False: there are none that can be used.
async fn take_archived(replicas: &Replicas, filling: &Filling) -> bool {
    let partition = filling.partition;
    let Some(store) = replicas.archive.get() else {
        return false;
    };
    let rows = match archive::load_newest(store, partition).await {
        Ok(rows) => rows,
        Err(why) => {
            tracing::warn!(partition, %why, "the archive's rows can't be used; all come from the primary");
            return false;
        }
    };
    filling
        .replica()
        .is_ok_and(|mut replica| replica.keep_as_base(rows, true))
}

/// The same with what linked databases have.
async fn take_recalled(replicas: &Replicas, filling: &Filling) -> bool {
    let partition = filling.partition;
    match replicas.filling.recalled.take(replicas, partition).await {
        Ok(rows) => filling
            .replica()
            .is_ok_and(|mut replica| replica.keep_as_base(rows, false)),
        Err(why) => {
            tracing::warn!(partition, %why, "no linked database's rows can be used; all come from the primary");
            false
        }
    }
}

fn micros_since(replicas: &Replicas, began_ms: u64) -> i64 {
    let passed = replicas.now_ms().saturating_sub(began_ms);
    i64::try_from(passed).unwrap_or(i64::MAX).saturating_mul(1_000)
}

impl Filling {
    /// `replica` is what `slot` holds.
    pub(in crate::replication) fn begin(log: Arc<Log>, slot: &Slot, replica: &mut Replica) -> Self {
        let (partition, epoch) = (replica.partition, replica.epoch);
        let fill = replica.begin_fill();
        replica.filling_since = log.current_segment();
        log.append(partition, &LogEntry::Reset { epoch });
        Self {
            log,
            slot: Arc::clone(slot),
            partition,
            fill,
            epoch,
        }
    }

    /// The replica, while this fill goes on.
    fn replica(&self) -> Result<MutexGuard<'_, Replica>, Status> {
        let replica = lock(&self.slot);
        match replica.is_filled_by(self.fill) {
            true => Ok(replica),
            false => Err(Status::aborted("the replica was given up meanwhile")),
        }
    }

    pub(in crate::replication) fn take(&self, chunk: Bytes) -> Result<(), Status> {
        let _replica = self.replica()?;
        self.log.append(self.partition, &LogEntry::FillChunk { chunk });
        Ok(())
    }

    pub(in crate::replication) fn finish(
        &self,
        engine: Partition,
        history: EpochHistory,
        lsn: Lsn,
    ) -> Result<(), Status> {
        if engine.applied() != lsn || !history.is_sound(lsn) {
            return Err(Status::data_loss("the fill contradicts itself"));
        }
        let epochs = postcard::to_stdvec(&history).map_err(|error| Status::internal(error.to_string()))?;
        let (epoch, epochs) = (self.epoch, Bytes::from(epochs));
        let mut replica = self.replica()?;
        self.log
            .append(self.partition, &LogEntry::FillDone { epoch, lsn, epochs });
        replica.filled(engine, history, lsn);
        // Nothing of it is acknowledged before the log has it: `ticket_of` looks at `durable`.
        replica.durable = 0;
        Ok(())
    }

    /// It did not come to its end; `partial` is as far as it came, which the next one need not copy again.
    pub(in crate::replication) fn give_up(&self, partial: Partition) {
        if let Ok(mut replica) = self.replica() {
            self.log.append(self.partition, &LogEntry::Reset { epoch: self.epoch });
            replica.keep_as_base(partial, true);
            replica.emptied();
        }
    }
}

struct Copy<'a> {
    replicas: &'a Replicas,
    filling: &'a Filling,
    progress: &'a Mutex<Progress>,
    began: u64,
    /// What has come so far.
    engine: Partition,
    snapshot: Lsn,
    /// Ranges of a base without LSNs that are the primary's but for these, which come.
    unversioned: VecDeque<(u64, Bytes)>,
}

impl Copy<'_> {
    /// The rows go to `engine`, as of `snapshot`; the epochs up to it.
    async fn run(&mut self, from: NodeId, strategy: RecoveryStrategy) -> Result<EpochHistory, Status> {
        let peer = self.replicas.peers.client(from);
        let mut client = peer.map_err(|error| Status::unavailable(error.to_string()))?;
        // As many as may be unanswered, and the question: so that an answer never waits.
        let (answers, requests) = mpsc::channel(RANGES_IN_FLIGHT + 1);
        let (has_base, lacks_versions) = {
            let replica = self.filling.replica()?;
            (replica.has_base(), replica.base_lacks_versions())
        };
        let mut begin = v1::FillBegin {
            partition_id: self.filling.partition,
            epoch: self.filling.epoch,
            node_id: self.replicas.node_id,
            has_base,
            base_lacks_versions: lacks_versions,
            ..Default::default()
        };
        begin.set_strategy(wire(strategy));
        ask(&answers, Asked::Begin(begin)).await?;
        let opened = timeout(MESSAGE_WAIT, client.fill(ReceiverStream::new(requests))).await;
        let mut chunks = opened.map_err(|_| late())??.into_inner();
        let head = loop {
            match next(&mut chunks).await? {
                Kind::Wait(_) => {}
                Kind::Head(head) => break head,
                _ => return Err(Status::invalid_argument("a fill without a head")),
            }
        };
        let history = postcard::from_bytes(&head.epochs).map_err(|error| Status::data_loss(error.to_string()))?;
        self.snapshot = head.snapshot_lsn;
        self.now().total_rows = head.total_rows;
        loop {
            match next(&mut chunks).await? {
                Kind::Head(_) => return Err(Status::invalid_argument("a second head")),
                Kind::Rows(chunk) => {
                    self.received(chunk.len());
                    self.load(chunk).await?;
                }
                Kind::Range(range) => {
                    let held = self.held(&range)?;
                    let answer = v1::FillAnswer {
                        range: range.range,
                        has_it: held.is_some(),
                    };
                    ask(&answers, Asked::Answer(answer)).await?;
                    if let Some(chunk) = held {
                        let bytes = chunk.len() as u64;
                        self.now().reused_bytes += bytes;
                        self.replicas.filling.reused.fetch_add(bytes, Relaxed);
                        match lacks_versions {
                            true => self.unversioned.push_back((range.range, chunk)),
                            false => self.load(chunk).await?,
                        }
                    }
                }
                Kind::Versions(versions) => {
                    self.received(versions.lsns.len());
                    let waiting = self.unversioned.pop_front();
                    let (_, rows) = waiting
                        .filter(|(range, _)| *range == versions.range)
                        .ok_or_else(|| Status::invalid_argument("LSNs out of turn"))?;
                    let chunk = with_versions(&rows, &versions.lsns);
                    self.load(chunk.map_err(|error| Status::data_loss(error.to_string()))?)
                        .await?;
                }
                Kind::Wait(_) => {}
                Kind::End(_) => return Ok(history),
            }
        }
    }

    fn received(&self, bytes: usize) {
        self.now().received_bytes += bytes as u64;
        self.replicas.filling.received.fetch_add(bytes as u64, Relaxed);
    }

    fn now(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().expect("no panic under this lock")
    }

    /// The chunk of this range, if the base has it.
    fn held(&self, range: &v1::FillRange) -> Result<Option<Bytes>, Status> {
        let cursor = |bytes: &[u8]| DumpCursor::decode(bytes).map_err(|error| Status::data_loss(error.to_string()));
        let after = cursor(&range.after)?;
        let until = (!range.until.is_empty()).then(|| cursor(&range.until)).transpose()?;
        let bytes = usize::try_from(range.bytes).unwrap_or(usize::MAX);
        let replica = self.filling.replica()?;
        let held = replica.base_range(self.snapshot, &after, until.as_ref(), bytes);
        Ok(held.filter(|chunk| chunk.len() == bytes && hash(chunk) == *range.hash))
    }

    async fn load(&mut self, chunk: Bytes) -> Result<(), Status> {
        let loaded = self.engine.load_chunk(&chunk);
        loaded.map_err(|error| Status::data_loss(error.to_string()))?;
        self.filling.take(chunk)?;
        {
            let mut now = self.now();
            now.rows = self.engine.stats().rows;
            now.micros = micros_since(self.replicas, self.began);
        }
        while self.replicas.log.queued_bytes() > LOG_QUEUE_BYTES {
            tokio::time::sleep(LOG_QUEUE_PAUSE).await;
        }
        Ok(())
    }
}

async fn ask(answers: &mpsc::Sender<v1::FillRequest>, kind: Asked) -> Result<(), Status> {
    let request = v1::FillRequest { kind: Some(kind) };
    let sent = answers.send(request).await;
    sent.map_err(|_| Status::aborted("the primary stopped half-way"))
}

async fn next(chunks: &mut Streaming<v1::FillChunk>) -> Result<Kind, Status> {
    let chunk = timeout(MESSAGE_WAIT, chunks.message()).await.map_err(|_| late())??;
    let chunk = chunk.ok_or_else(|| Status::aborted("the primary stopped half-way"))?;
    chunk.kind.ok_or_else(|| Status::invalid_argument("an empty message"))
}

fn late() -> Status {
    Status::deadline_exceeded("the primary sends nothing")
}

fn wire(strategy: RecoveryStrategy) -> v1::FillStrategy {
    match strategy {
        RecoveryStrategy::Automatic => v1::FillStrategy::FillAutomatic,
        RecoveryStrategy::OneShot => v1::FillStrategy::FillOneShot,
        RecoveryStrategy::Incremental => v1::FillStrategy::FillIncremental,
    }
}
