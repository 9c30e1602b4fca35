//! Primary to one other node: one stream for all partitions that this node leads and the other follows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use volt_engine::{NodeId, PartitionId};
use volt_proto::v1;
use volt_proto::v1::partition_ack::Outcome;

use super::replica::{Answer, Batch};
use super::{Replicas, lock};

/// Bytes of records of one partition in one batch.
const BATCH_BYTES: usize = 1 << 20;
/// Bytes of records in one message; below `MAX_MESSAGE_BYTES` with its largest batch on top.
const MESSAGE_BYTES: usize = 4 << 20;
/// Messages on their way that the stream has not taken yet.
const MESSAGES_IN_FLIGHT: usize = 8;
/// How long a stream's answers may stay away before what is not matched is asked anew, and how often idle followers hear what is committed.
const SWEEP: Duration = Duration::from_millis(25);
/// First and longest pause before connecting again.
const RECONNECT_MIN: Duration = Duration::from_millis(20);
const RECONNECT_MAX: Duration = Duration::from_millis(500);
/// A stream that a follower doesn't answer for so long is broken and made anew.
const STREAM_SILENCE: Duration = Duration::from_secs(3);

/// Which partitions have something for one node. Marking is cheap and never waits.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    marked: Mutex<BTreeSet<PartitionId>>,
    notify: Notify,
    closed: AtomicBool,
}

impl Outbox {
    /// `partition` has something to send.
    pub(crate) fn mark(&self, partition: PartitionId) {
        let mut marked = self.marked.lock().expect("no panic under this lock");
        if marked.insert(partition) && marked.len() == 1 {
            self.notify.notify_one();
        }
    }

    /// The node is gone for good.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.notify.notify_one();
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    fn take(&self) -> BTreeSet<PartitionId> {
        std::mem::take(&mut *self.marked.lock().expect("no panic under this lock"))
    }
}

/// Sends to `node` until it leaves the cluster.
pub(crate) async fn run(replicas: Arc<Replicas>, node: NodeId, outbox: Arc<Outbox>) {
    let mut pause = RECONNECT_MIN;
    while !outbox.is_closed() {
        let began = tokio::time::Instant::now();
        if let Err(status) = stream(&replicas, node, &outbox).await {
            tracing::debug!(node, %status, "replication stream ended");
        }
        for slot in replicas.all() {
            lock(&slot).stream_broke(node);
        }
        pause = if began.elapsed() > RECONNECT_MAX {
            RECONNECT_MIN
        } else {
            (pause * 2).min(RECONNECT_MAX)
        };
        tokio::time::sleep(pause).await;
    }
}

async fn stream(replicas: &Arc<Replicas>, node: NodeId, outbox: &Outbox) -> Result<(), Status> {
    let mut client = replicas
        .peers
        .client(node)
        .map_err(|error| Status::unavailable(error.to_string()))?;
    let (sender, receiver) = mpsc::channel(MESSAGES_IN_FLIGHT);
    let mut answers = client.replicate(ReceiverStream::new(receiver)).await?.into_inner();
    sweep(replicas, node, outbox);
    let mut sweeps = tokio::time::interval(SWEEP);
    sweeps.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut heard = tokio::time::Instant::now();
    let mut owed = false;
    loop {
        tokio::select! {
            biased;
            answer = answers.message() => {
                let Some(answer) = answer? else { return Ok(()) };
                (heard, owed) = (tokio::time::Instant::now(), false);
                take_answers(replicas, node, outbox, answer);
            }
            _ = outbox.notify.notified() => {
                if outbox.is_closed() {
                    return Ok(());
                }
                while let Some(message) = next_message(replicas, node, outbox) {
                    owed = true;
                    sender.send(message).await.map_err(|_| Status::unavailable("stream closed"))?;
                }
            }
            _ = sweeps.tick() => {
                if owed && heard.elapsed() > STREAM_SILENCE {
                    return Err(Status::deadline_exceeded("no answer"));
                }
                sweep(replicas, node, outbox);
            }
        }
    }
}

/// Marks what the marks of appending don't cover: followers to be probed, and idle ones that lack the newest `committed`.
fn sweep(replicas: &Replicas, node: NodeId, outbox: &Outbox) {
    for slot in replicas.all() {
        let replica = lock(&slot);
        if replica.is_behind(node) {
            outbox.mark(replica.partition);
        }
    }
}

fn next_message(replicas: &Replicas, node: NodeId, outbox: &Outbox) -> Option<v1::ReplicateRequest> {
    let (mut batches, mut bytes) = (Vec::new(), 0);
    for partition in outbox.take() {
        if bytes > MESSAGE_BYTES {
            outbox.mark(partition);
            continue;
        }
        let found = replicas.with(partition, |replica| {
            let batch = replica.batch_for(node, BATCH_BYTES);
            (batch, replica.has_records_for(node))
        });
        let Some((Some(batch), more)) = found else { continue };
        bytes += batch.records.iter().map(|record| record.payload.len()).sum::<usize>();
        batches.push(to_wire(partition, batch));
        if more {
            outbox.mark(partition);
        }
    }
    let request = v1::ReplicateRequest {
        from_node: replicas.node_id,
        from_boot: replicas.boot_id,
        batches,
    };
    (!request.batches.is_empty()).then_some(request)
}

fn to_wire(partition_id: PartitionId, batch: Batch) -> v1::PartitionBatch {
    let record = |record: super::Record| v1::Record {
        lsn: record.lsn,
        epoch: record.epoch,
        payload: record.payload,
    };
    v1::PartitionBatch {
        partition_id,
        epoch: batch.epoch,
        committed: batch.committed,
        previous_lsn: batch.previous_lsn,
        previous_epoch: batch.previous_epoch,
        records: batch.records.into_iter().map(record).collect(),
        fill: batch.fill,
    }
}

fn take_answers(replicas: &Replicas, node: NodeId, outbox: &Outbox, response: v1::ReplicateResponse) {
    // The newest acknowledgement of a partition says it all; other outcomes each count.
    let mut newest: BTreeMap<PartitionId, v1::PartitionAck> = BTreeMap::new();
    for ack in response.acks {
        newest.insert(ack.partition_id, ack);
    }
    for (partition, ack) in newest {
        let answer = match ack.outcome() {
            Outcome::Accepted => Answer::Accepted { matched: ack.durable },
            Outcome::StaleEpoch => Answer::Stale { epoch: ack.epoch },
            Outcome::Gap => Answer::Gap {
                appended: ack.appended,
                last_epoch: ack.last_epoch,
            },
            Outcome::NotYet => Answer::NotYet,
        };
        let more = replicas.with(partition, |replica| {
            let more = replica.answered(node, ack.epoch, answer);
            more || replica.has_records_for(node)
        });
        if more == Some(true) {
            outbox.mark(partition);
        }
    }
}
