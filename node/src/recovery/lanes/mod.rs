//! Replay in parallel by partition: the reader hands the entries on, and lanes, which are tasks, apply them.
//!
//! A partition belongs to one lane, which it gets when its first entry is read, one lane after the other in turn: what is
//! in the files decides, and no time does. A lane has a `Replay` of its own; at the end they are put together.
//!
//! What must hold:
//! - What comes out is what one `Replay` makes of all entries, replicas and refusals alike, however many lanes there are.
//!   When a lane has refused an entry, all that was read before that entry is still applied, so that the refusal with the
//!   lowest place is known before it is told.
//! - Nothing waits for a lane but the reader, at a block's end, when more than [`LANE_BYTES`] would lie before it.
//! - A lane that works lets others have their turn after each batch: on a runtime of one thread they share it.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::BytesMut;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{JoinError, JoinSet, yield_now};
use volt_engine::PartitionId;

use super::log::OF_THE_NODE;
use super::log::layout::Checked;
use super::replay::Replay;
use super::sink::{EntrySink, Refusal};
use crate::replication::replica::Replica;

/// There are no more lanes than this: one reader has no work for more.
pub(super) const MAX_LANES: usize = 16;
/// Bytes that lie before a lane, or are being applied by it, at most; what is longer comes alone. All lanes' together are
/// what is read ahead.
const LANE_BYTES: usize = 4 << 20;
/// What an entry costs beside its bytes.
const ENTRY_OVERHEAD_BYTES: usize = size_of::<(u64, PartitionId, usize)>();

/// Entries of one lane, in order.
#[derive(Default)]
struct Batch {
    bytes: BytesMut,
    /// Place, partition and length of each.
    entries: Vec<(u64, PartitionId, usize)>,
}

impl Batch {
    fn push(&mut self, place: u64, partition: PartitionId, entry: Checked<'_>) {
        self.bytes.extend_from_slice(entry.bytes());
        self.entries.push((place, partition, entry.bytes().len()));
    }

    /// What it takes of a lane's bytes.
    fn cost(&self) -> u32 {
        let cost = self.bytes.len() + self.entries.len() * ENTRY_OVERHEAD_BYTES;
        cost.min(LANE_BYTES) as u32
    }

    fn apply(&self, of_log: bool, replay: &mut Replay) -> Result<(), Refusal> {
        let mut bytes = &self.bytes[..];
        for &(place, partition, length) in &self.entries {
            let (entry, rest) = bytes.split_at(length);
            bytes = rest;
            let entry = Checked::again(entry).decode();
            let taken = match (entry, of_log) {
                (Ok(entry), true) => replay.take(partition, entry).map_err(|error| error.to_string()),
                (Ok(entry), false) => replay
                    .take_checkpoint(partition, entry)
                    .map_err(|error| error.to_string()),
                (Err(unreadable), _) => Err(unreadable.to_string()),
            };
            taken.map_err(|what| Refusal { place, what })?;
        }
        Ok(())
    }
}

/// What a lane does next.
enum Work {
    Apply {
        batch: Batch,
        of_log: bool,
        /// Given back when it is done.
        room: OwnedSemaphorePermit,
    },
    CheckpointEnds {
        begun: u64,
    },
}

/// The reader's end of a lane.
struct Lane {
    /// Without a bound of its own: `room` is the bound.
    work: mpsc::UnboundedSender<Work>,
    room: Arc<Semaphore>,
    pending: Batch,
}

impl Lane {
    async fn send_pending(&mut self, of_log: bool) {
        if self.pending.entries.is_empty() {
            return;
        }
        let batch = std::mem::take(&mut self.pending);
        // It is never closed.
        if let Ok(room) = Arc::clone(&self.room).acquire_many_owned(batch.cost()).await {
            // To a lane that has panicked, which its task tells.
            let _ = self.work.send(Work::Apply { batch, of_log, room });
        }
    }

    async fn wait_idle(&self) {
        let _ = self.room.acquire_many(LANE_BYTES as u32).await;
    }
}

/// The refusal with the lowest place so far.
#[derive(Clone, Default)]
struct First(Arc<Mutex<Option<Refusal>>>);

impl First {
    fn get(&self) -> Option<Refusal> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, refusal: Refusal) {
        let mut first = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if first.as_ref().is_none_or(|first| refusal.place < first.place) {
            *first = Some(refusal);
        }
    }
}

/// The lanes; dropping them ends their tasks.
pub(super) struct Lanes {
    lanes: Vec<Lane>,
    tasks: JoinSet<Replay>,
    /// Which partition is whose.
    of: BTreeMap<PartitionId, usize>,
    of_log: bool,
    first: First,
}

impl Lanes {
    /// So many, at least one, which wait for a checkpoint's entries.
    pub(super) fn new(count: usize) -> Self {
        let mut tasks = JoinSet::new();
        let first = First::default();
        let mut begin = |_| {
            let (work, queue) = mpsc::unbounded_channel();
            tasks.spawn(run(queue, first.clone()));
            Lane {
                work,
                room: Arc::new(Semaphore::new(LANE_BYTES)),
                pending: Batch::default(),
            }
        };
        Self {
            lanes: (0..count.max(1)).map(&mut begin).collect(),
            tasks,
            of: BTreeMap::new(),
            of_log: false,
            first,
        }
    }

    /// The checkpoint, if there is one, is settled, and began at this mark of the log; the log's entries follow.
    pub(super) fn log_begins(&mut self, begun: Option<u64>) {
        self.of_log = true;
        let Some(begun) = begun else { return };
        for lane in &self.lanes {
            let _ = lane.work.send(Work::CheckpointEnds { begun });
        }
    }

    /// The replicas, when everything is settled.
    pub(super) async fn finish(mut self) -> Result<Vec<Replica>, String> {
        self.lanes.clear();
        let mut replay = Replay::default();
        while let Some(joined) = self.tasks.join_next().await {
            replay.absorb(joined.map_err(ended)?);
        }
        replay.finish().map_err(|error| error.to_string())
    }
}

/// A lane's task never ends before its queue does. Its panic goes on here.
fn ended(error: JoinError) -> String {
    match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(error) => error.to_string(),
    }
}

#[async_trait]
impl EntrySink for Lanes {
    fn put(&mut self, place: u64, partition: PartitionId, entry: Checked<'_>) {
        if partition == OF_THE_NODE && self.of_log {
            for lane in &mut self.lanes {
                lane.pending.push(place, partition, entry);
            }
            return;
        }
        let next = self.of.len() % self.lanes.len();
        let lane = *self.of.entry(partition).or_insert(next);
        self.lanes[lane].pending.push(place, partition, entry);
    }

    async fn room(&mut self) -> Result<(), Refusal> {
        if self.first.get().is_some() {
            return self.settle().await;
        }
        for lane in &mut self.lanes {
            lane.send_pending(self.of_log).await;
        }
        match self.tasks.try_join_next() {
            Some(Err(error)) => Err(Refusal {
                place: u64::MAX,
                what: ended(error),
            }),
            _ => Ok(()),
        }
    }

    async fn settle(&mut self) -> Result<(), Refusal> {
        for lane in &mut self.lanes {
            lane.send_pending(self.of_log).await;
        }
        for lane in &self.lanes {
            lane.wait_idle().await;
        }
        self.first.get().map_or(Ok(()), Err)
    }
}

/// One lane, until the reader has no more.
async fn run(mut queue: mpsc::UnboundedReceiver<Work>, first: First) -> Replay {
    let mut replay = Replay::default();
    let mut has_refused = false;
    while let Some(work) = queue.recv().await {
        match work {
            Work::Apply { batch, of_log, room } => {
                if !has_refused && let Err(refusal) = batch.apply(of_log, &mut replay) {
                    has_refused = true;
                    first.note(refusal);
                }
                drop((batch, room));
            }
            Work::CheckpointEnds { begun } => replay.checkpoint_ends(begun),
        }
        yield_now().await;
    }
    replay
}
