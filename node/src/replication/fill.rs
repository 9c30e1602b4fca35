//! One-shot fill: a learner copies a partition's state from its primary while writes go on.
//!
//! The primary names a snapshot, S: all it has applied. It sends the rows as of S in chunks, keeps the records beyond
//! S for the learner, and ends the fill only when S is committed; so a learner never holds what could be undone. If its
//! reign ends before, so does the fill: rows of S may have been cut since.

use std::sync::{Arc, MutexGuard};

use bytes::Bytes;
use tokio::sync::mpsc;
use tonic::Status;
use volt_engine::partition::Partition;
use volt_engine::{Epoch, Lsn, NodeId, PartitionId};
use volt_proto::v1;

use super::epochs::EpochHistory;
use super::replica::{FillSource, Replica};
use super::{Replicas, Slot, lock};
use crate::recovery::log::{Log, LogEntry};
use crate::world::PlantedBug;

/// Chunks on their way to the learner.
pub(crate) const CHUNKS_IN_FLIGHT: usize = 4;
/// A learner whose own log is so far behind takes no more chunks for a while.
const LOG_QUEUE_BYTES: usize = 64 << 20;
/// The longest wait for one chunk.
const CHUNK_WAIT: std::time::Duration = std::time::Duration::from_secs(10);

// ---- The primary's side

/// Sends one partition's state. Errors go to the learner as the stream's status.
pub(crate) async fn serve(
    replicas: Arc<Replicas>,
    request: v1::FillRequest,
    chunks: mpsc::Sender<Result<v1::FillChunk, Status>>,
) {
    if let Err(status) = send(&replicas, &request, &chunks).await {
        let _ = chunks.send(Err(status)).await;
    }
}

/// Keeps a snapshot's versions until dropped.
struct Pin(Slot, FillSource);

impl Drop for Pin {
    fn drop(&mut self) {
        lock(&self.0).engine.unpin(self.1.snapshot);
    }
}

async fn send(
    replicas: &Arc<Replicas>,
    request: &v1::FillRequest,
    chunks: &mpsc::Sender<Result<v1::FillChunk, Status>>,
) -> Result<(), Status> {
    let gone = || Status::cancelled("the learner went away");
    let over = || Status::aborted("no longer the primary, or out of contact");
    let slot = replicas
        .slot(request.partition_id)
        .ok_or_else(|| Status::failed_precondition("no such replica here"))?;
    let (source, _pin, epochs) = {
        let mut replica = lock(&slot);
        let source = replica
            .begin_serving_fill(request.node_id)
            .ok_or_else(|| Status::failed_precondition("not the primary of this learner"))?;
        let pin = Pin(Arc::clone(&slot), source);
        (source, pin, replica.history.until(source.snapshot))
    };
    let epochs = postcard::to_stdvec(&epochs).map_err(|error| Status::internal(error.to_string()))?;
    let head = v1::FillChunk {
        snapshot_lsn: source.snapshot,
        epochs: epochs.into(),
        ..Default::default()
    };
    chunks.send(Ok(head)).await.map_err(|_| gone())?;
    let mut cursor = None;
    loop {
        let (next, more) = lock(&slot)
            .fill_chunk(source, cursor, replicas.fill_chunk_bytes)
            .ok_or_else(over)?;
        chunks.send(Ok(chunk(next, false))).await.map_err(|_| gone())?;
        cursor = more;
        if cursor.is_none() || replicas.world.planted.has(PlantedBug::FillIncomplete) {
            break;
        }
    }
    // The reign that ends drops the wait; the learner, who waits for no longer than `CHUNK_WAIT`, ends it too.
    let committed = lock(&slot).fill_committed(source).ok_or_else(over)?;
    if let Some(committed) = committed {
        tokio::select! {
            committed = committed => committed.map_err(|_| over())?,
            () = chunks.closed() => return Err(gone()),
        }
    }
    lock(&slot).fill_ends(request.node_id);
    chunks.send(Ok(chunk(Bytes::new(), true))).await.map_err(|_| gone())
}

fn chunk(payload: Bytes, last: bool) -> v1::FillChunk {
    v1::FillChunk {
        payload,
        last,
        ..Default::default()
    }
}

// ---- The learner's side

/// A fill of a replica here. The log hears of it only while it goes on: the replica may be dropped meanwhile, and what
/// came after that in the log would make it unreadable.
pub(super) struct Filling {
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
    let copied = match copy(&replicas, &filling, from).await {
        Ok((engine, history, lsn)) => filling.finish(engine, history, lsn).map(|()| lsn),
        Err(status) => Err(status),
    };
    match copied {
        Ok(lsn) => tracing::info!(partition, from, lsn, "filled"),
        Err(status) => {
            tracing::warn!(partition, from, %status, "fill failed; it will be asked for again");
            filling.give_up();
        }
    }
}

impl Filling {
    /// `replica` is what `slot` holds.
    pub(super) fn begin(log: Arc<Log>, slot: &Slot, replica: &mut Replica) -> Self {
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

    pub(super) fn take(&self, chunk: Bytes) -> Result<(), Status> {
        let _replica = self.replica()?;
        self.log.append(self.partition, &LogEntry::FillChunk { chunk });
        Ok(())
    }

    pub(super) fn finish(&self, engine: Partition, history: EpochHistory, lsn: Lsn) -> Result<(), Status> {
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

    pub(super) fn give_up(&self) {
        if let Ok(mut replica) = self.replica() {
            self.log.append(self.partition, &LogEntry::Reset { epoch: self.epoch });
            replica.emptied();
        }
    }
}

async fn copy(
    replicas: &Arc<Replicas>,
    filling: &Filling,
    from: NodeId,
) -> Result<(Partition, EpochHistory, Lsn), Status> {
    let mut client = replicas
        .peers
        .client(from)
        .map_err(|error| Status::unavailable(error.to_string()))?;
    let request = v1::FillRequest {
        partition_id: filling.partition,
        epoch: filling.epoch,
        node_id: replicas.node_id,
    };
    let late = |_| Status::deadline_exceeded("the primary sends nothing");
    let mut chunks = tokio::time::timeout(CHUNK_WAIT, client.fill(request))
        .await
        .map_err(late)??
        .into_inner();
    let mut next = async || -> Result<v1::FillChunk, Status> {
        let chunk = tokio::time::timeout(CHUNK_WAIT, chunks.message())
            .await
            .map_err(late)??;
        chunk.ok_or_else(|| Status::aborted("the primary stopped half-way"))
    };
    let head = next().await?;
    let history: EpochHistory =
        postcard::from_bytes(&head.epochs).map_err(|error| Status::data_loss(error.to_string()))?;
    let mut engine = Partition::new();
    loop {
        let chunk = next().await?;
        if chunk.last {
            return Ok((engine, history, head.snapshot_lsn));
        }
        engine
            .load_chunk(&chunk.payload)
            .map_err(|error| Status::data_loss(error.to_string()))?;
        filling.take(chunk.payload)?;
        while replicas.log.queued_bytes() > LOG_QUEUE_BYTES {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }
}
