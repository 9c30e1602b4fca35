//! On the backup: takes batches from a primary's stream, hands them to the log, acknowledges what is safe.

use std::sync::Arc;

use futures::StreamExt;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};
use volt_engine::PartitionId;
use volt_engine::effects::LogPayload;
use volt_proto::v1;
use volt_proto::v1::partition_ack::Outcome;

use super::replica::{Answer, Batch, Received, Replica};
use super::tail::Record;
use super::{Replicas, fill, lock};
use crate::config::Durability;
use crate::recovery::log::{LogEntry, Ticket};

/// Answered messages that wait for the disk.
const ANSWERS_IN_FLIGHT: usize = 64;
/// With so much waiting for this node's disk, its primaries wait before they send more.
const LOG_QUEUE_BYTES: usize = 64 << 20;
const LOG_QUEUE_PAUSE: std::time::Duration = std::time::Duration::from_millis(2);

/// Serves one primary's stream: the answers come in the order of the requests, each when the disk has its records.
pub(crate) async fn serve(
    replicas: Arc<Replicas>,
    mut requests: Streaming<v1::ReplicateRequest>,
    answers: mpsc::Sender<Result<v1::ReplicateResponse, Status>>,
) {
    let (waiting, mut on_disk) = mpsc::channel::<(u64, v1::ReplicateResponse)>(ANSWERS_IN_FLIGHT);
    let refusal = answers.clone();
    let log = Arc::clone(&replicas.log);
    let answer = tokio::spawn(async move {
        while let Some((ticket, response)) = on_disk.recv().await {
            if let Err(error) = log.wait_safe(ticket).await {
                let _ = answers.send(Err(Status::internal(format!("log: {error}")))).await;
                return;
            }
            if answers.send(Ok(response)).await.is_err() {
                return;
            }
        }
    });
    while let Some(Ok(request)) = requests.next().await {
        while replicas.log.queued_bytes() > LOG_QUEUE_BYTES {
            tokio::time::sleep(LOG_QUEUE_PAUSE).await;
        }
        let (mut ticket, mut acks) = (0, Vec::with_capacity(request.batches.len()));
        for batch in request.batches {
            let partition = batch.partition_id;
            match take_batch(&replicas, request.from_node, batch) {
                Ok((ack, logged)) => {
                    ticket = ticket.max(logged);
                    acks.push(ack);
                }
                Err(status) => {
                    tracing::error!(partition, from = request.from_node, %status, "refused a batch");
                    answer.abort();
                    let _ = refusal.send(Err(status)).await;
                    return;
                }
            }
        }
        if waiting.send((ticket, v1::ReplicateResponse { acks })).await.is_err() {
            return;
        }
    }
}

/// Takes one partition's batch; returns the answer and the log's ticket after which it is true.
fn take_batch(
    replicas: &Arc<Replicas>,
    from: volt_engine::NodeId,
    batch: v1::PartitionBatch,
) -> Result<(v1::PartitionAck, u64), Status> {
    let (partition, epoch) = (batch.partition_id, batch.epoch);
    let batch = from_wire(batch)?;
    let Some(slot) = replicas.slot(partition) else {
        return Ok((ack(partition, epoch, Answer::NotYet), 0));
    };
    let mut replica = lock(&slot);
    let (answer, received) = replica.receive(batch);
    if let Some(records) = received.lost {
        tracing::warn!(
            partition,
            epoch,
            records,
            "an asynchronous primary took acknowledged records with it; they are lost"
        );
    }
    if received.fill && matches!(answer, Answer::Gap { .. }) {
        fill::begin(replicas, &slot, &mut replica, from);
    }
    let ticket = log_received(replicas, &mut replica, epoch, received);
    // A record that was matched before may still be on its way to the disk.
    let ticket = ticket.max(replicas.ticket_of(&replica));
    Ok((ack(partition, epoch, answer), ticket))
}

fn log_received(replicas: &Replicas, replica: &mut Replica, epoch: u64, received: Received) -> Ticket {
    let mut ticket = 0;
    if let Some(after) = received.cut {
        ticket = replicas
            .log
            .append(replica.partition, &LogEntry::Truncate { epoch, after });
    }
    for record in received.records {
        ticket = replicas.log_record(replica, record);
    }
    ticket
}

fn from_wire(batch: v1::PartitionBatch) -> Result<Batch, Status> {
    let (mut lsn, mut epoch) = (batch.previous_lsn, batch.previous_epoch);
    let mut records = Vec::with_capacity(batch.records.len());
    for record in batch.records {
        let follows = lsn.checked_add(1) == Some(record.lsn);
        if !follows || !(epoch..=batch.epoch).contains(&record.epoch) {
            return Err(Status::invalid_argument("records out of order"));
        }
        (lsn, epoch) = (record.lsn, record.epoch);
        LogPayload::decode(&record.payload).map_err(|error| Status::invalid_argument(error.to_string()))?;
        records.push(Record {
            lsn: record.lsn,
            epoch: record.epoch,
            payload: record.payload,
        });
    }
    Ok(Batch {
        epoch: batch.epoch,
        committed: batch.committed,
        previous_lsn: batch.previous_lsn,
        previous_epoch: batch.previous_epoch,
        records,
        fill: batch.fill,
        anew: batch.anew,
    })
}

fn ack(partition_id: PartitionId, epoch: u64, answer: Answer) -> v1::PartitionAck {
    let mut ack = v1::PartitionAck {
        partition_id,
        epoch,
        ..Default::default()
    };
    match answer {
        Answer::Accepted { matched } => {
            ack.set_outcome(Outcome::Accepted);
            (ack.appended, ack.durable) = (matched, matched);
        }
        Answer::Stale { epoch } => {
            ack.set_outcome(Outcome::StaleEpoch);
            ack.epoch = epoch;
        }
        Answer::Gap { appended, last_epoch } => {
            ack.set_outcome(Outcome::Gap);
            (ack.appended, ack.last_epoch) = (appended, last_epoch);
        }
        Answer::Ahead => ack.set_outcome(Outcome::Ahead),
        Answer::NotYet => ack.set_outcome(Outcome::NotYet),
    }
    ack
}

impl Replicas {
    /// A ticket at which everything that this replica has appended is as safe as the cluster's durability asks.
    fn ticket_of(&self, replica: &Replica) -> Ticket {
        match self.durability {
            Durability::Async | Durability::Fsync if replica.durable < replica.appended => self.log.last_ticket(),
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A batch of epoch 5 behind record 10 of epoch 3, with records of these (LSN, epoch).
    fn batch(previous_lsn: u64, records: &[(u64, u64)]) -> Result<Batch, Status> {
        let record = |&(lsn, epoch): &(u64, u64)| v1::Record {
            lsn,
            epoch,
            payload: LogPayload::EpochStart.encode(),
        };
        from_wire(v1::PartitionBatch {
            epoch: 5,
            previous_lsn,
            previous_epoch: 3,
            records: records.iter().map(record).collect(),
            ..Default::default()
        })
    }

    #[test]
    fn records_that_do_not_follow_each_other_are_refused() {
        assert!(batch(10, &[]).is_ok());
        assert!(batch(10, &[(11, 3), (12, 3), (13, 5)]).is_ok());
        assert!(batch(u64::MAX, &[]).is_ok());
        for wrong in [
            batch(10, &[(12, 3)]),
            batch(10, &[(11, 3), (11, 3)]),
            batch(10, &[(11, 2)]),
            batch(10, &[(11, 4), (12, 3)]),
            batch(10, &[(11, 6)]),
            batch(u64::MAX, &[(0, 3)]),
        ] {
            assert!(wrong.is_err());
        }
    }
}
