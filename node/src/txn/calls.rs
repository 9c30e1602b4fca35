//! Requests between nodes: one stream to each other node, many requests in flight, batched both ways.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use volt_engine::NodeId;
use volt_proto::v1;

use super::participant::Participant;
use super::request::{Failure, Reply, Request};
use crate::error::SqlError;
use crate::metadata::Metadata;
use crate::peers::{Line, Peers, Refused};

/// Requests to one node that wait to be sent; beyond, the caller waits.
const QUEUED_CALLS: usize = 4_096;
/// Requests in one message.
const BATCH_CALLS: usize = 256;
/// Bytes of requests in one message, about.
const BATCH_BYTES: usize = 2 << 20;
/// A request or an answer may be so large; with a batch before it, it still fits into a message.
const MAX_CALL_BYTES: usize = 12 << 20;
/// Messages on their way.
const MESSAGES_IN_FLIGHT: usize = 16;
/// Requests of one peer that are being worked on; beyond, its stream waits.
const SERVED_AT_ONCE: usize = 8_192;

/// A line that doesn't come about within this is given up: nothing has been sent on it.
const OPENS_WITHIN: Duration = Duration::from_secs(3);
/// How often a line looks whether this node still has contact with the cluster; without, nobody waits for an answer.
const CONTACT_CHECK: Duration = Duration::from_millis(250);

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallError {
    /// It never left: nothing was done.
    NotSent,
    /// It may have been done: the connection broke, or the answer didn't come in time.
    Lost,
}

struct Outgoing {
    request: Bytes,
    catalog_version: u64,
    timeout_ms: u32,
    answer: oneshot::Sender<Result<Bytes, CallError>>,
}

/// The lines to all other nodes.
pub(crate) struct Calls {
    peers: Arc<Peers>,
    metadata: Arc<Metadata>,
    lines: Mutex<BTreeMap<NodeId, mpsc::Sender<Outgoing>>>,
}

impl Calls {
    pub(crate) fn new(peers: Arc<Peers>, metadata: Arc<Metadata>) -> Self {
        Self {
            peers,
            metadata,
            lines: Mutex::default(),
        }
    }

    /// Asks another node.
    pub(crate) async fn call(&self, node: NodeId, request: &Request, timeout: Duration) -> Result<Reply, CallError> {
        let request = postcard::to_stdvec(request).map_err(|_| CallError::NotSent)?;
        if request.len() > MAX_CALL_BYTES {
            return Ok(too_large("statement", request.len()));
        }
        let underway = self.peers.traffic.begin(node, Line::Data);
        let underway = underway.map_err(|_: Refused| CallError::NotSent)?;
        let reply = self.send(node, request, timeout).await;
        match &reply {
            Ok(_) => underway.answered(),
            Err(CallError::NotSent) => underway.not_sent(),
            Err(CallError::Lost) => underway.lost(),
        }
        postcard::from_bytes(&reply?).map_err(|_| CallError::Lost)
    }

    async fn send(&self, node: NodeId, request: Vec<u8>, timeout: Duration) -> Result<Bytes, CallError> {
        let (answer, answered) = oneshot::channel();
        let outgoing = Outgoing {
            request: request.into(),
            catalog_version: self.metadata.map().catalog_version,
            timeout_ms: timeout.as_millis() as u32,
            answer,
        };
        let line = self.line(node);
        let deadline = tokio::time::Instant::now() + timeout;
        match tokio::time::timeout_at(deadline, line.send(outgoing)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return Err(CallError::NotSent),
        }
        match tokio::time::timeout_at(deadline, answered).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(_)) | Err(_) => Err(CallError::Lost),
        }
    }

    fn line(&self, node: NodeId) -> mpsc::Sender<Outgoing> {
        let mut lines = self.lines.lock().expect("no panic under this lock");
        let line = lines.entry(node).or_insert_with(|| {
            let (sender, receiver) = mpsc::channel(QUEUED_CALLS);
            tokio::spawn(run(Arc::clone(&self.peers), Arc::clone(&self.metadata), node, receiver));
            sender
        });
        line.clone()
    }
}

async fn run(peers: Arc<Peers>, metadata: Arc<Metadata>, node: NodeId, mut queue: mpsc::Receiver<Outgoing>) {
    while let Some(first) = queue.recv().await {
        let mut waiting = HashMap::new();
        if let Err(status) = line(&peers, &metadata, node, first, &mut queue, &mut waiting).await {
            tracing::debug!(node, %status, "line to a node broke");
        }
        // Sent and not answered; their order doesn't matter, each has its own caller.
        for (_, answer) in waiting {
            let _ = answer.send(Err(CallError::Lost));
        }
    }
}

type Waiting = HashMap<u64, oneshot::Sender<Result<Bytes, CallError>>>;

async fn line(
    peers: &Peers,
    metadata: &Metadata,
    node: NodeId,
    first: Outgoing,
    queue: &mut mpsc::Receiver<Outgoing>,
    waiting: &mut Waiting,
) -> Result<(), Status> {
    let (sender, receiver) = mpsc::channel(MESSAGES_IN_FLIGHT);
    let connected = async {
        let mut client = peers
            .client(node)
            .map_err(|error| Status::unavailable(error.to_string()))?;
        client.calls(ReceiverStream::new(receiver)).await
    };
    let late = |_| Err(Status::deadline_exceeded("no line"));
    let mut replies = match tokio::time::timeout(OPENS_WITHIN, connected).await.unwrap_or_else(late) {
        Ok(replies) => replies.into_inner(),
        Err(status) => {
            // Nobody was reached: fail what has queued up meanwhile too, so that callers choose another way at once.
            let _ = first.answer.send(Err(CallError::NotSent));
            while let Ok(queued) = queue.try_recv() {
                let _ = queued.answer.send(Err(CallError::NotSent));
            }
            return Err(status);
        }
    };
    let boot = metadata.map().nodes.get(&node).map(|node| node.boot_id);
    let mut map = metadata.watch();
    let mut contact = tokio::time::interval(CONTACT_CHECK);
    let mut next_id = 0;
    let mut batch = vec![first];
    loop {
        if !batch.is_empty() {
            let mut calls = Vec::with_capacity(batch.len());
            for outgoing in batch.drain(..) {
                next_id += 1;
                waiting.insert(next_id, outgoing.answer);
                calls.push(v1::Call {
                    call_id: next_id,
                    timeout_ms: outgoing.timeout_ms,
                    request: outgoing.request,
                    catalog_version: outgoing.catalog_version,
                });
            }
            sender
                .send(v1::CallBatch { calls })
                .await
                .map_err(|_| Status::unavailable("closed"))?;
        }
        tokio::select! {
            biased;
            received = replies.message() => {
                let Some(received) = received? else { return Ok(()) };
                for reply in received.replies {
                    if let Some(answer) = waiting.remove(&reply.call_id) {
                        let _ = answer.send(Ok(reply.reply));
                    }
                }
            }
            changed = map.changed() => {
                let now = metadata.map().nodes.get(&node).map(|node| (node.boot_id, node.state.is_alive()));
                if changed.is_err() || now.is_none_or(|(now, alive)| !alive || boot.is_some_and(|boot| boot != now)) {
                    return Err(Status::unavailable("the node is dead"));
                }
            }
            _ = contact.tick() => {
                if metadata.lease().is_given_up() {
                    return Err(Status::unavailable("this node has lost the cluster"));
                }
            }
            outgoing = queue.recv() => {
                let Some(outgoing) = outgoing else { return Ok(()) };
                let mut bytes = outgoing.request.len();
                batch.push(outgoing);
                while batch.len() < BATCH_CALLS && bytes < BATCH_BYTES {
                    let Ok(more) = queue.try_recv() else { break };
                    bytes += more.request.len();
                    batch.push(more);
                }
            }
        }
    }
}

/// Serves another node's line: answers come in any order.
pub(crate) async fn serve(
    participant: Arc<Participant>,
    mut calls: Streaming<v1::CallBatch>,
    answers: mpsc::Sender<Result<v1::ReplyBatch, Status>>,
) {
    let (replied, mut replies) = mpsc::channel::<v1::Reply>(SERVED_AT_ONCE);
    let places = Arc::new(tokio::sync::Semaphore::new(SERVED_AT_ONCE));
    tokio::spawn(async move {
        while let Some(first) = replies.recv().await {
            let mut bytes = first.reply.len();
            let mut batch = vec![first];
            while batch.len() < BATCH_CALLS && bytes < BATCH_BYTES {
                let Ok(more) = replies.try_recv() else { break };
                bytes += more.reply.len();
                batch.push(more);
            }
            if answers.send(Ok(v1::ReplyBatch { replies: batch })).await.is_err() {
                return;
            }
        }
    });
    while let Ok(Some(batch)) = calls.message().await {
        for call in batch.calls {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return;
            };
            let (participant, replied) = (Arc::clone(&participant), replied.clone());
            tokio::spawn(async move {
                let reply = answer(&participant, &call).await;
                let _ = replied
                    .send(v1::Reply {
                        call_id: call.call_id,
                        reply,
                        more: false,
                    })
                    .await;
                drop(place);
            });
        }
    }
}

async fn answer(participant: &Arc<Participant>, call: &v1::Call) -> Bytes {
    let reply = match postcard::from_bytes::<Request>(&call.request) {
        // Rows are held to what the caller knows that they are held to.
        Ok(_) if !participant.knows_catalog(call.catalog_version).await => Reply::Failed(Failure::NotPrimary),
        Ok(request) => participant.serve_checked(request).await,
        Err(error) => Reply::Failed(Failure::Sql(SqlError::internal(format!("unreadable request: {error}")))),
    };
    let encoded = postcard::to_stdvec(&reply).unwrap_or_default();
    if encoded.len() <= MAX_CALL_BYTES {
        return encoded.into();
    }
    let refusal = too_large("result", encoded.len());
    postcard::to_stdvec(&refusal).unwrap_or_default().into()
}

/// Only what changes nothing is answered with more than a few bytes, so that refusing to send it loses nothing.
fn too_large(what: &str, bytes: usize) -> Reply {
    Reply::Failed(Failure::Sql(SqlError::new(
        "54000",
        format!(
            "a {what} of {bytes} bytes is too large for another node's partition; at most {} MiB",
            MAX_CALL_BYTES >> 20
        ),
    )))
}
