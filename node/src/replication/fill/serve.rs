//! The primary's side of a fill.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{SemaphorePermit, mpsc};
use tokio::time::timeout;
use tonic::{Status, Streaming};
use volt_engine::partition::{DumpCursor, without_versions};
use volt_proto::v1;
use volt_proto::v1::fill_chunk::Kind;
use volt_proto::v1::fill_request::Kind as Asked;

use super::super::replica::FillSource;
use super::super::{Replicas, Slot, lock};
use super::{MESSAGE_WAIT, RANGES_IN_FLIGHT, hash};
use crate::world::PlantedBug;

/// A learner that waits hears so often that it does so for somebody.
const SIGN_OF_LIFE: Duration = Duration::from_secs(2);
/// An automatic fill looks, after so many answers, whether asking pays.
const ANSWERS_TO_JUDGE: u64 = 16;
/// It does while at least one of so many chunks is there.
const ONE_OF: u64 = 8;
/// A chunk that is asked for counts as so small a part of its bytes: it is read and hashed, not sent.
const ASKED_PART: usize = 4;

type Chunks = mpsc::Sender<Result<v1::FillChunk, Status>>;

/// Sends one partition's state. Errors go to the learner as the stream's status.
pub(crate) async fn serve(replicas: Arc<Replicas>, mut requests: Streaming<v1::FillRequest>, chunks: Chunks) {
    let done = match first(&mut requests).await {
        Ok(begin) => send(&replicas, &begin, requests, &chunks).await,
        Err(status) => Err(status),
    };
    if let Err(status) = done {
        let _ = chunks.send(Err(status)).await;
    }
}

async fn first(requests: &mut Streaming<v1::FillRequest>) -> Result<v1::FillBegin, Status> {
    match next(requests).await? {
        Asked::Begin(begin) => Ok(begin),
        Asked::Answer(_) => Err(Status::invalid_argument("an answer before the question")),
    }
}

async fn next(requests: &mut Streaming<v1::FillRequest>) -> Result<Asked, Status> {
    let late = |_| Status::deadline_exceeded("the learner does not answer");
    let message = timeout(MESSAGE_WAIT, requests.message()).await.map_err(late)??;
    let message = message.ok_or_else(gone)?;
    message.kind.ok_or_else(|| Status::invalid_argument("an empty message"))
}

fn gone() -> Status {
    Status::cancelled("the learner went away")
}

fn over() -> Status {
    Status::aborted("no longer the primary, or out of contact")
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
    begin: &v1::FillBegin,
    requests: Streaming<v1::FillRequest>,
    chunks: &Chunks,
) -> Result<(), Status> {
    let _turn = turn(replicas, chunks).await?;
    let slot = replicas
        .slot(begin.partition_id)
        .ok_or_else(|| Status::failed_precondition("no such replica here"))?;
    let (source, pin, epochs, total_rows) = {
        let mut replica = lock(&slot);
        let source = replica
            .begin_serving_fill(begin.node_id)
            .ok_or_else(|| Status::failed_precondition("not the primary of this learner"))?;
        let pin = Pin(Arc::clone(&slot), source);
        let total_rows = replica.engine.stats().rows;
        (source, pin, replica.history.until(source.snapshot), total_rows)
    };
    let epochs = postcard::to_stdvec(&epochs).map_err(|error| Status::internal(error.to_string()))?;
    let mut sender = Sender {
        replicas,
        chunks,
        requests,
        is_throttled: begin.strategy() != v1::FillStrategy::FillOneShot,
        asks: Asks::of(begin),
        sends_versions: begin.base_lacks_versions,
        ranges: VecDeque::new(),
        number: 0,
    };
    let head = v1::FillHead {
        snapshot_lsn: source.snapshot,
        epochs: epochs.into(),
        total_rows,
    };
    put(chunks, Kind::Head(head)).await?;
    let mut cursor = None;
    loop {
        let (chunk, more) = lock(&slot)
            .fill_chunk(source, cursor.clone(), replicas.fill_chunk_bytes)
            .ok_or_else(over)?;
        sender.chunk(chunk, cursor.as_ref(), more.as_ref()).await?;
        cursor = more;
        if cursor.is_none() || replicas.world.planted.has(PlantedBug::FillIncomplete) {
            break;
        }
    }
    while !sender.ranges.is_empty() {
        sender.take_answer().await?;
    }
    drop(pin);
    // The reign that ends drops the wait; the learner, who waits for no longer than `MESSAGE_WAIT`, ends it too.
    let committed = lock(&slot).fill_committed(source).ok_or_else(over)?;
    if let Some(committed) = committed {
        tokio::select! {
            committed = committed => committed.map_err(|_| over())?,
            () = chunks.closed() => return Err(gone()),
        }
    }
    lock(&slot).fill_ends(begin.node_id);
    put(chunks, Kind::End(v1::FillEnd {})).await
}

/// Waits until this node serves few enough fills.
async fn turn<'r>(replicas: &'r Replicas, chunks: &Chunks) -> Result<SemaphorePermit<'r>, Status> {
    loop {
        match timeout(SIGN_OF_LIFE, replicas.filling.turns.acquire()).await {
            Ok(turn) => return turn.map_err(|_| Status::unavailable("this node ends")),
            Err(_) => put(chunks, Kind::Wait(v1::FillWait {})).await?,
        }
    }
}

async fn put(chunks: &Chunks, kind: Kind) -> Result<(), Status> {
    let chunk = v1::FillChunk { kind: Some(kind) };
    chunks.send(Ok(chunk)).await.map_err(|_| gone())
}

/// Whether the learner is asked for what it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Asks {
    is_on: bool,
    /// It is, however little comes of it.
    always: bool,
    answers: u64,
    hits: u64,
}

impl Asks {
    fn of(begin: &v1::FillBegin) -> Self {
        Self {
            is_on: begin.has_base && begin.strategy() != v1::FillStrategy::FillOneShot,
            always: begin.strategy() == v1::FillStrategy::FillIncremental,
            answers: 0,
            hits: 0,
        }
    }

    fn answered(&mut self, has_it: bool) {
        self.answers += 1;
        self.hits += u64::from(has_it);
        let pays = self.answers < ANSWERS_TO_JUDGE || self.hits * ONE_OF >= self.answers;
        self.is_on &= self.always || pays;
    }
}

/// A range, its chunk, and the LSNs in it if the learner lacks them.
struct Named {
    range: u64,
    chunk: Bytes,
    versions: Option<Bytes>,
}

struct Sender<'a> {
    replicas: &'a Replicas,
    chunks: &'a Chunks,
    requests: Streaming<v1::FillRequest>,
    is_throttled: bool,
    asks: Asks,
    /// The learner lacks the LSNs of what it has.
    sends_versions: bool,
    /// Ranges that were named and are not answered.
    ranges: VecDeque<Named>,
    number: u64,
}

impl Sender<'_> {
    /// Sends the chunk between these cursors, or asks whether the learner has it.
    async fn chunk(&mut self, chunk: Bytes, from: Option<&DumpCursor>, to: Option<&DumpCursor>) -> Result<(), Status> {
        let is_rows = from.is_some_and(DumpCursor::is_among_rows);
        if !self.asks.is_on || !is_rows {
            return self.rows(chunk).await;
        }
        while self.ranges.len() >= RANGES_IN_FLIGHT {
            self.take_answer().await?;
        }
        self.pause(chunk.len() / ASKED_PART).await?;
        self.number += 1;
        let split = self.sends_versions.then(|| without_versions(&chunk)).transpose();
        let split = split.map_err(|error| Status::internal(error.to_string()))?;
        let (compared, versions) = split.unzip();
        let range = v1::FillRange {
            range: self.number,
            after: from.map_or_else(Bytes::new, |cursor| cursor.encode().into()),
            until: to.map_or_else(Bytes::new, |cursor| cursor.encode().into()),
            bytes: chunk.len() as u64,
            hash: Bytes::copy_from_slice(&hash(compared.as_ref().unwrap_or(&chunk))),
        };
        self.ranges.push_back(Named {
            range: self.number,
            chunk,
            versions,
        });
        put(self.chunks, Kind::Range(range)).await
    }

    async fn rows(&self, chunk: Bytes) -> Result<(), Status> {
        self.pause(chunk.len()).await?;
        self.replicas.filling.sent.fetch_add(chunk.len() as u64, Relaxed);
        put(self.chunks, Kind::Rows(chunk)).await
    }

    /// Until so many bytes may be sent.
    async fn pause(&self, bytes: usize) -> Result<(), Status> {
        if self.is_throttled {
            let mut pause = self.replicas.filling.take(self.replicas.now_ms(), bytes);
            while !pause.is_zero() {
                let slice = pause.min(SIGN_OF_LIFE);
                tokio::time::sleep(slice).await;
                pause -= slice;
                if !pause.is_zero() {
                    put(self.chunks, Kind::Wait(v1::FillWait {})).await?;
                }
            }
        }
        Ok(())
    }

    async fn take_answer(&mut self) -> Result<(), Status> {
        let Asked::Answer(answer) = next(&mut self.requests).await? else {
            return Err(Status::invalid_argument("asked twice"));
        };
        let named = self
            .ranges
            .pop_front()
            .filter(|named| named.range == answer.range)
            .ok_or_else(|| Status::invalid_argument("an answer out of turn"))?;
        self.asks.answered(answer.has_it);
        match (answer.has_it, named.versions) {
            (true, None) => Ok(()),
            (true, Some(lsns)) => {
                self.pause(lsns.len()).await?;
                self.replicas.filling.sent.fetch_add(lsns.len() as u64, Relaxed);
                let versions = v1::FillVersions {
                    range: named.range,
                    lsns,
                };
                put(self.chunks, Kind::Versions(versions)).await
            }
            (false, _) => self.rows(named.chunk).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(strategy: v1::FillStrategy, has_base: bool) -> Asks {
        let mut begin = v1::FillBegin {
            has_base,
            ..Default::default()
        };
        begin.set_strategy(strategy);
        Asks::of(&begin)
    }

    #[test]
    fn an_automatic_fill_asks_while_that_pays() {
        use v1::FillStrategy::{FillAutomatic, FillIncremental, FillOneShot};
        assert!(!asks(FillOneShot, true).is_on && !asks(FillAutomatic, false).is_on);
        let mut automatic = asks(FillAutomatic, true);
        (1..ANSWERS_TO_JUDGE).for_each(|_| automatic.answered(false));
        assert!(automatic.is_on, "too early to tell");
        automatic.answered(false);
        assert!(!automatic.is_on);
        let mut automatic = asks(FillAutomatic, true);
        (0..100).for_each(|number| automatic.answered(number % ONE_OF == 0));
        assert!(automatic.is_on, "one of eight is enough");
        let mut incremental = asks(FillIncremental, true);
        (0..100).for_each(|_| incremental.answered(false));
        assert!(incremental.is_on);
    }
}
