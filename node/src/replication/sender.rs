//! Primary to one other node: one stream for all partitions that this node leads and the other follows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};
use volt_engine::{NodeId, PartitionId};
use volt_proto::v1;
use volt_proto::v1::partition_ack::Outcome;

use super::replica::{AckError, Answer, Batch};
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
/// A stream that a follower doesn't answer for so long is broken and made anew; also one that doesn't come about.
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
        let began = Instant::now();
        match stream(&replicas, node, &outbox).await {
            Err(status) if status.code() == Code::InvalidArgument => {
                tracing::error!(node, %status, "replication stream refused");
            }
            Err(status) => tracing::debug!(node, %status, "replication stream ended"),
            Ok(()) => {}
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
    let answers = tokio::time::timeout(STREAM_SILENCE, client.replicate(ReceiverStream::new(receiver))).await;
    let mut answers = answers
        .map_err(|_| Status::deadline_exceeded("no stream"))??
        .into_inner();
    sweep(replicas, node, outbox);
    let mut sweeps = tokio::time::interval(SWEEP);
    sweeps.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut unanswered = Unanswered::default();
    let mut more = true;
    // One message a turn: however much there is to send, answers are read in between, for commits wait for them.
    loop {
        tokio::select! {
            biased;
            answer = answers.message() => {
                let Some(answer) = answer? else { return Ok(()) };
                unanswered.answered(Instant::now());
                take_answers(replicas, node, outbox, answer).map_err(|error| Status::invalid_argument(error.to_string()))?;
            }
            _ = sweeps.tick() => {
                if unanswered.is_silent(Instant::now()) {
                    return Err(Status::deadline_exceeded("no answer"));
                }
                sweep(replicas, node, outbox);
            }
            _ = outbox.notify.notified() => {
                if outbox.is_closed() {
                    return Ok(());
                }
                more = true;
            }
            place = sender.reserve(), if more => {
                let place = place.map_err(|_| Status::unavailable("stream closed"))?;
                match next_message(replicas, node, outbox) {
                    Some(message) => {
                        unanswered.sent(Instant::now());
                        place.send(message);
                    }
                    None => more = false,
                }
            }
        }
    }
}

/// Messages that the follower owes an answer: each has one.
#[derive(Debug, Default)]
struct Unanswered {
    messages: u64,
    /// When it last answered, or when, owing nothing, it was sent something.
    since: Option<Instant>,
}

impl Unanswered {
    fn sent(&mut self, now: Instant) {
        self.messages += 1;
        self.since.get_or_insert(now);
    }

    fn answered(&mut self, now: Instant) {
        self.messages = self.messages.saturating_sub(1);
        self.since = (self.messages > 0).then_some(now);
    }

    fn is_silent(&self, now: Instant) -> bool {
        self.since.is_some_and(|since| now > since + STREAM_SILENCE)
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
        anew: batch.anew,
    }
}

fn take_answers(
    replicas: &Replicas,
    node: NodeId,
    outbox: &Outbox,
    response: v1::ReplicateResponse,
) -> Result<(), AckError> {
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
            Outcome::Ahead => Answer::Ahead,
            Outcome::NotYet => Answer::NotYet,
        };
        let more = replicas.with(partition, |replica| {
            let more = replica.answered(node, ack.epoch, answer)?;
            Ok::<bool, AckError>(more || replica.has_records_for(node))
        });
        if more.transpose()? == Some(true) {
            outbox.mark(partition);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_who_owes_an_answer_is_silent() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut unanswered = Unanswered::default();
        assert!(!unanswered.is_silent(at(100)));
        // After a long rest, the clock runs from the message on.
        unanswered.sent(at(100));
        unanswered.sent(at(102));
        assert!(!unanswered.is_silent(at(103)));
        assert!(unanswered.is_silent(at(104)));
        // One of two is answered: the other has its time from then.
        unanswered.answered(at(104));
        assert!(!unanswered.is_silent(at(107)));
        assert!(unanswered.is_silent(at(108)));
        unanswered.answered(at(108));
        assert!(!unanswered.is_silent(at(200)));
    }
}
