//! The limit of memory: writes that put rows are refused (53200) before the machine is in danger; reads and deletes go on.
//!
//! What is compared with the limit is what the kernel says that the process has, looked at now and then and whenever much
//! was admitted, and what was admitted since. But memory that rows gave back stays with the allocator as long as a row is left in its page, and new
//! rows take it again. So a node over its limit still admits rows, as long as they come to no more by their own count than
//! the node has had within its limit before, and the process has not grown by another eighth, or 32 MiB, which no deletion explains.
//!
//! Asked where a write's effects are known and nothing has happened yet, on the primary. A backup takes what its primary
//! has done, and a transaction that has voted is not asked again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval, sleep};
use volt_engine::effects::Effects;

use crate::config::NodeConfig;
use crate::error::SqlError;
use crate::replication::{Replicas, lock};
use crate::world::Memory;

/// How often the process's memory is looked at. Between two looks, backups take what their primaries send, uncounted.
const SAMPLE_EVERY: Duration = Duration::from_millis(100);
/// It is looked at before its time when this part of the limit was admitted since: what is admitted counts more than it takes.
const LOOK_AFTER_PART: u64 = 64;
/// And no sooner than so long after the last look.
const LOOK_NO_SOONER: Duration = Duration::from_millis(5);
/// Of what there is, so much is the limit, unless one is given.
const DEFAULT_PERCENT: u64 = 80;
/// A byte of effects takes so many: as a row, and on its way to the log and the backups.
const BYTES_AN_EFFECT_BYTE: u64 = 2;
/// Beyond the limit by this part of it, nothing is admitted in the place of what was deleted.
const BEYOND_PART: u64 = 8;
/// But by so much it may always be: what statements took on their way stays with the allocator for a while.
const BEYOND_LEAST: u64 = 32 << 20;

/// The limit of a node that was given none: of this memory, shared by so many nodes. None: nobody says how much there is.
pub fn default_limit(memory: &dyn Memory, nodes: u32) -> Option<u64> {
    let available = memory.available_bytes()?;
    Some(available / 100 * DEFAULT_PERCENT / u64::from(nodes.max(1)))
}

/// What is known of the memory at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Known {
    /// The process's, at the last look.
    resident: u64,
    /// Admitted since, as memory.
    admitted: u64,
    /// The rows', at the last look.
    rows: u64,
    /// The most that a look found of them while the process was within its limit.
    rows_within: u64,
}

/// Whether so much more may be taken.
fn admits(limit: u64, known: Known, more: u64) -> bool {
    let coming = known.admitted.saturating_add(more);
    let resident = known.resident.saturating_add(coming);
    let takes_again = || known.rows.saturating_add(coming) <= known.rows_within;
    let beyond = (limit / BEYOND_PART).max(BEYOND_LEAST);
    resident <= limit || (resident <= limit.saturating_add(beyond) && takes_again())
}

/// What this node takes, for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryFigures {
    /// The process's memory, at the last look; 0: unknown.
    pub resident: u64,
    /// The rows' part of it.
    pub rows: u64,
    /// The limit; 0: none.
    pub limit: u64,
    /// Writes that were refused since the start.
    pub refused: u64,
}

/// Keeps a node within its limit.
pub(crate) struct MemoryGuard {
    memory: Arc<dyn Memory>,
    /// `u64::MAX`: none.
    limit: u64,
    resident: AtomicU64,
    admitted: AtomicU64,
    rows: AtomicU64,
    rows_within: AtomicU64,
    refused: AtomicU64,
    /// That it is time to look.
    much: Notify,
}

impl MemoryGuard {
    pub(crate) fn new(memory: Arc<dyn Memory>, config: &NodeConfig) -> Self {
        let limit = config.memory_limit.or_else(|| default_limit(&*memory, 1));
        Self {
            memory,
            limit: limit.unwrap_or(u64::MAX),
            resident: AtomicU64::default(),
            admitted: AtomicU64::default(),
            rows: AtomicU64::default(),
            rows_within: AtomicU64::default(),
            refused: AtomicU64::default(),
            much: Notify::new(),
        }
    }

    fn known(&self) -> Known {
        Known {
            resident: self.resident.load(Relaxed),
            admitted: self.admitted.load(Relaxed),
            rows: self.rows.load(Relaxed),
            rows_within: self.rows_within.load(Relaxed),
        }
    }

    /// Lets effects happen, or says why not. What puts nothing always may.
    pub(crate) fn admit(&self, effects: Option<&Effects>) -> Result<(), SqlError> {
        let Some(more) = self.check(effects)? else {
            return Ok(());
        };
        let before = self.admitted.fetch_add(more, Relaxed);
        if before.saturating_add(more) > self.limit / LOOK_AFTER_PART {
            self.much.notify_one();
        }
        Ok(())
    }

    /// The same for effects that are not to happen yet. Returns what they will take.
    pub(crate) fn check(&self, effects: Option<&Effects>) -> Result<Option<u64>, SqlError> {
        let Some(effects) = effects.filter(|_| self.limit != u64::MAX) else {
            return Ok(None);
        };
        let more = (effects.size() as u64).saturating_mul(BYTES_AN_EFFECT_BYTE);
        let known = self.known();
        if admits(self.limit, known, more) {
            return Ok(Some(more));
        }
        if !effects.puts() {
            return Ok(None);
        }
        self.much.notify_one();
        self.refused.fetch_add(1, Relaxed);
        Err(out_of_memory(known.resident.saturating_add(known.admitted), self.limit))
    }

    /// Looks, and goes on looking while the node runs.
    pub(super) fn start(self: &Arc<Self>, replicas: &Arc<Replicas>) {
        if self.limit == u64::MAX {
            return;
        }
        // Also a node that begins beyond its limit may put rows in the place of others.
        let rows = row_bytes(replicas);
        self.rows_within.store(rows, Relaxed);
        self.look(rows);
        let (guard, replicas) = (Arc::clone(self), Arc::clone(replicas));
        tokio::spawn(async move {
            let mut ticks = interval(SAMPLE_EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    _ = ticks.tick() => {}
                    () = guard.much.notified() => {}
                }
                guard.look(row_bytes(&replicas));
                sleep(LOOK_NO_SOONER).await;
            }
        });
    }

    fn look(&self, rows: u64) {
        // What is admitted from here on may not be in what is seen, and counts until the next look.
        let seen = self.admitted.load(Relaxed);
        let Some(resident) = self.memory.resident_bytes() else {
            return;
        };
        self.resident.store(resident, Relaxed);
        self.rows.store(rows, Relaxed);
        if resident <= self.limit {
            self.rows_within.fetch_max(rows, Relaxed);
        }
        self.admitted.fetch_sub(seen, Relaxed);
    }

    pub(crate) fn figures(&self) -> MemoryFigures {
        let Known { resident, rows, .. } = self.known();
        MemoryFigures {
            resident,
            rows,
            limit: if self.limit == u64::MAX { 0 } else { self.limit },
            refused: self.refused.load(Relaxed),
        }
    }
}

fn row_bytes(replicas: &Replicas) -> u64 {
    replicas.all().iter().map(|slot| lock(slot).engine.stats().bytes).sum()
}

fn out_of_memory(used: u64, limit: u64) -> SqlError {
    SqlError::new("53200", "out of memory")
        .detail(format!(
            "The node of this row takes {} MiB of memory, and puts no more rows beyond {} MiB.",
            used >> 20,
            limit >> 20
        ))
        .hint("Delete rows, raise the node's --memory-limit, or add nodes.")
}

#[cfg(test)]
mod tests;
