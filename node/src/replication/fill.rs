//! Fill: a learner copies a partition's state from its primary while writes go on.
//!
//! The primary names a snapshot, S: all it has applied. It sends the rows as of S in chunks, keeps the records beyond
//! S for the learner, and ends the fill only when S is committed; so a learner never holds what could be undone. If its
//! reign ends before, so does the fill: rows of S may have been cut since.
//!
//! A learner that still has rows, its **base**, takes only what differs: the primary names each chunk by its two ends and its hash,
//! and the learner, who looks at the same range of its base, says whether it has that chunk. Whatever the base is, what comes of it is S:
//! it may be what a node held before it was away, what an earlier fill had copied when either side died, a replica in doubt, what an archive has, or
//! what another database was told. The last has no LSNs: chunks are compared without them, and those of a chunk that is there are sent.

mod learner;
pub(crate) mod progress;
mod serve;
pub(crate) mod throttle;

#[cfg(test)]
pub(super) use learner::Filling;
pub(crate) use learner::begin;
pub(crate) use serve::serve;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use crate::config::Recovery;
use crate::control::FillFigures;
use crate::links::Recalled;
use progress::{FillState, Fills, Progress};
use throttle::Throttle;

/// Chunks on their way to the learner.
pub(crate) const CHUNKS_IN_FLIGHT: usize = 4;
/// Ranges that the learner has not answered yet; the primary keeps their chunks.
const RANGES_IN_FLIGHT: usize = 16;
/// The longest wait for one message.
const MESSAGE_WAIT: Duration = Duration::from_secs(10);

/// Fills that a node serves at a time; the others wait for their turn.
const FILLS_AT_A_TIME: usize = 4;

/// The fills of a node: those that it serves, and those of its own replicas.
pub(crate) struct Fillings {
    settings: Recovery,
    throttle: Mutex<Throttle>,
    turns: Semaphore,
    own: Fills,
    /// What linked databases have of replicas that are to be filled.
    recalled: Recalled,
    /// Bytes of chunks since the start.
    received: AtomicU64,
    reused: AtomicU64,
    sent: AtomicU64,
}

impl Fillings {
    pub(super) fn new(settings: Recovery, memory_limit: Option<u64>) -> Self {
        Self {
            settings,
            throttle: Mutex::new(Throttle::new(settings.bytes_per_second)),
            turns: Semaphore::new(FILLS_AT_A_TIME),
            own: Fills::default(),
            recalled: Recalled::new(memory_limit),
            received: AtomicU64::new(0),
            reused: AtomicU64::new(0),
            sent: AtomicU64::new(0),
        }
    }

    /// A statement waited so long for its commit. Most of them are heard of: nobody waits here.
    pub(super) fn committed(&self, now_ms: u64, took: Duration) {
        if let Ok(mut throttle) = self.throttle.try_lock() {
            throttle.committed(now_ms, took);
        }
    }

    /// How long to wait before so many bytes are sent.
    pub(crate) fn take(&self, now_ms: u64, bytes: usize) -> Duration {
        let mut throttle = self.throttle.lock().expect("no panic under this lock");
        throttle.take(now_ms, bytes)
    }

    pub(crate) fn figures(&self) -> FillFigures {
        let own = self.own();
        let under_way = own.iter().filter(|fill| fill.state == FillState::Copying).count();
        FillFigures {
            under_way,
            received_bytes: self.received.load(Relaxed),
            reused_bytes: self.reused.load(Relaxed),
            sent_bytes: self.sent.load(Relaxed),
            rate: self.throttle.lock().expect("no panic under this lock").rate(),
        }
    }

    /// Fills of this node's replicas, the oldest first.
    pub(crate) fn own(&self) -> Vec<Progress> {
        self.own.all()
    }
}

fn hash(chunk: &[u8]) -> [u8; 32] {
    Sha256::digest(chunk).into()
}
