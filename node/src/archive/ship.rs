//! What this node's primaries archive: their committed records, in segments, and now and then their rows.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::StreamExt;
use tokio::time::{Duration, Instant, sleep};
use volt_engine::{Epoch, Lsn, PartitionId};

use super::layout::{ArchivedRecord, Base, BaseEnd, Kind, Segment};
use super::report::Archived;
use super::store::{ArchiveError, Store};
use crate::config::ArchiveConfig;
use crate::replication::epochs::EpochHistory;
use crate::replication::replica::Replica;
use crate::replication::replica::capture::{Capture, Captured};
use crate::replication::{Replicas, Slot, lock};

/// How often somebody looks whether there is something to archive.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// So many bytes of records are archived before the interval is over: less than the margin that a backup keeps, so that it can go on
/// where this primary stopped.
const SEAL_BYTES: usize = 1 << 20;
/// Bytes of records in one segment, about.
const MAX_SEGMENT_BYTES: usize = 8 << 20;
/// Bytes of rows in one object of a base, about.
const BASE_OBJECT_BYTES: usize = 8 << 20;
/// Partitions that are archived at a time.
const AT_ONCE: usize = 4;
/// After an error nothing is tried for so long.
const PAUSE_AFTER_ERROR: Duration = Duration::from_secs(2);

/// How far a partition's archive is, of one reign.
#[derive(Clone, Debug)]
struct Reached {
    began_epoch: Epoch,
    /// All up to here is archived.
    lsn: Lsn,
    /// When the last record was sealed, or looked for in vain.
    sealed: Instant,
    /// When its newest base was taken, as far as this process knows.
    base: Instant,
    /// Since when there has been something to archive; None: there is nothing.
    behind: Option<Instant>,
    /// When the last object was written, in microseconds since 1970.
    last_object_micros: Option<i64>,
}

/// What there is to do for a partition.
enum Work {
    Nothing,
    /// This process does not know how far the archive of this partition is.
    Look {
        began_epoch: Epoch,
        history: EpochHistory,
        committed: Lsn,
    },
    Seal {
        /// Of the record before these.
        previous_epoch: Epoch,
        records: Vec<ArchivedRecord>,
    },
    /// Records are gone that were not archived, or it is time.
    Base(Capture),
}

/// What was archived, and what was not, for the metrics.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// Objects written.
    pub objects: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Tries that failed.
    pub failures: u64,
    /// Of each partition led here: records that are committed and not archived yet.
    pub behind: Vec<(PartitionId, u64)>,
    /// Why the last try failed, if the one after it has not succeeded.
    pub error: Option<String>,
}

/// Archives what is led here.
pub(crate) struct Archiver {
    config: ArchiveConfig,
    store: Store,
    replicas: Arc<Replicas>,
    reached: Mutex<BTreeMap<PartitionId, Reached>>,
    objects: AtomicU64,
    bytes: AtomicU64,
    failures: AtomicU64,
    error: Mutex<Option<String>>,
    /// Why a partition's last try failed.
    errors: Mutex<BTreeMap<PartitionId, String>>,
    /// The newest cut that was archived by this process; 0: none.
    newest_cut: AtomicI64,
}

impl Archiver {
    pub(super) fn new(config: ArchiveConfig, store: Store, replicas: Arc<Replicas>) -> Arc<Self> {
        Arc::new(Self {
            config,
            store,
            replicas,
            reached: Mutex::default(),
            objects: AtomicU64::default(),
            bytes: AtomicU64::default(),
            failures: AtomicU64::default(),
            error: Mutex::default(),
            errors: Mutex::default(),
            newest_cut: AtomicI64::default(),
        })
    }

    pub(super) fn url(&self) -> String {
        self.store.url(&self.config.url)
    }

    pub(super) fn newest_cut_micros(&self) -> Option<i64> {
        Some(self.newest_cut.load(Relaxed)).filter(|micros| *micros != 0)
    }

    /// A cut was archived.
    pub(super) fn note_cut(&self, at_micros: i64) {
        self.newest_cut.store(at_micros, Relaxed);
    }

    /// How far each partition led here is archived.
    pub(super) fn archived_here(&self) -> Vec<Archived> {
        let reached = self.reached().clone();
        let errors = self.errors().clone();
        let of_all = self.error.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let archived = |slot: Slot| {
            let replica = lock(&slot);
            let began_epoch = replica.reign()?.began_epoch;
            let partition = replica.partition;
            let reached = reached
                .get(&partition)
                .filter(|reached| reached.began_epoch == began_epoch);
            // What nobody can write, none of them can.
            let error = errors.get(&partition).or(of_all.as_ref().filter(|_| reached.is_none()));
            let behind = reached.and_then(|reached| reached.behind);
            Some(Archived {
                partition,
                sealed: reached.map(|reached| reached.lsn),
                committed: replica.committed,
                behind_micros: behind.map_or(0, |since| since.elapsed().as_micros() as u64),
                last_object_micros: reached.and_then(|reached| reached.last_object_micros),
                error: error.cloned(),
            })
        };
        self.replicas.all().into_iter().filter_map(archived).collect()
    }

    fn errors(&self) -> MutexGuard<'_, BTreeMap<PartitionId, String>> {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn figures(&self) -> Figures {
        let reached = self.reached().clone();
        let behind = |slot: Slot| {
            let replica = lock(&slot);
            replica.reign()?;
            let lsn = reached.get(&replica.partition).map_or(0, |reached| reached.lsn);
            Some((replica.partition, replica.committed.saturating_sub(lsn)))
        };
        Figures {
            objects: self.objects.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            failures: self.failures.load(Relaxed),
            behind: self.replicas.all().into_iter().filter_map(behind).collect(),
            error: self.error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    fn reached(&self) -> MutexGuard<'_, BTreeMap<PartitionId, Reached>> {
        self.reached.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn run(self: Arc<Self>) {
        while let Err(why) = self.store.sign().await {
            self.note(Some(&why));
            self.failures.fetch_add(1, Relaxed);
            sleep(PAUSE_AFTER_ERROR).await;
        }
        loop {
            sleep(LOOK_EVERY).await;
            if self.replicas.metadata.map().standby.is_some() {
                continue; // what it has is archived elsewhere
            }
            let slots = futures::stream::iter(self.replicas.all());
            let work = slots.map(|slot| self.try_archive(slot)).buffer_unordered(AT_ONCE);
            let failed = work.filter_map(|done| std::future::ready(done.err()));
            let failed: Vec<ArchiveError> = failed.collect().await;
            self.note(failed.first());
            if !failed.is_empty() {
                self.failures.fetch_add(failed.len() as u64, Relaxed);
                sleep(PAUSE_AFTER_ERROR).await;
            }
        }
    }

    fn note(&self, failed: Option<&ArchiveError>) {
        let mut error = self.error.lock().unwrap_or_else(PoisonError::into_inner);
        match (failed, error.is_some()) {
            (Some(why), false) => tracing::warn!(%why, "nothing is archived for now; it is tried again"),
            (None, true) => tracing::info!("archiving goes on"),
            _ => {}
        }
        *error = failed.map(ArchiveError::to_string);
    }

    async fn try_archive(&self, slot: Slot) -> Result<(), ArchiveError> {
        let partition = lock(&slot).partition;
        let done = self.archive(slot).await;
        match &done {
            Ok(()) => self.errors().remove(&partition),
            Err(why) => self.errors().insert(partition, why.to_string()),
        };
        done
    }

    /// Does what there is to do for a replica, until there is nothing.
    async fn archive(&self, slot: Slot) -> Result<(), ArchiveError> {
        let partition = lock(&slot).partition;
        loop {
            let work = self.work(&mut lock(&slot));
            match work {
                Work::Nothing => return Ok(()),
                Work::Look {
                    began_epoch,
                    history,
                    committed,
                } => {
                    let contents = self.store.contents(partition).await?;
                    let lsn = contents.reaches(&history, committed).unwrap_or(0);
                    tracing::debug!(partition, lsn, "archiving goes on from here");
                    let now = Instant::now();
                    let reached = Reached {
                        began_epoch,
                        lsn,
                        sealed: now,
                        base: now,
                        behind: (committed > lsn).then_some(now),
                        last_object_micros: None,
                    };
                    self.reached().insert(partition, reached);
                }
                Work::Seal {
                    previous_epoch,
                    records,
                } => {
                    let (Some(first), Some(last)) = (records.first(), records.last()) else {
                        return Ok(());
                    };
                    let segment = Segment {
                        first: first.lsn,
                        last: last.lsn,
                        previous_epoch,
                        first_epoch: first.epoch,
                        last_epoch: last.epoch,
                    };
                    self.put(&segment.path(partition), Kind::Log, &records).await?;
                    self.archived(&slot, segment.last, false);
                }
                Work::Base(capture) => {
                    let base = self.put_base(&slot, partition, &capture).await;
                    lock(&slot).release(&capture);
                    if base? {
                        self.archived(&slot, capture.lsn, true);
                    }
                }
            }
        }
    }

    async fn put<T: serde::Serialize>(&self, path: &Path, kind: Kind, content: &T) -> Result<(), ArchiveError> {
        let bytes = self.store.put(path, kind, content).await?;
        self.objects.fetch_add(1, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
        Ok(())
    }

    /// All up to `lsn` is archived: its records needn't be kept for that.
    fn archived(&self, slot: &Slot, lsn: Lsn, is_base: bool) {
        let mut replica = lock(slot);
        replica.archived = Some(lsn);
        if let Some(reached) = self.reached().get_mut(&replica.partition) {
            reached.lsn = reached.lsn.max(lsn);
            reached.sealed = Instant::now();
            reached.behind = (replica.committed > reached.lsn).then_some(reached.sealed);
            reached.last_object_micros = Some(self.replicas.world.clock.unix_micros());
            if is_base {
                reached.base = reached.sealed;
            }
        }
    }

    fn work(&self, replica: &mut Replica) -> Work {
        let Some(began_epoch) = replica.reign().map(|reign| reign.began_epoch) else {
            // Whoever leads it next looks by itself.
            replica.archived = None;
            return Work::Nothing;
        };
        let reached = self.reached().get(&replica.partition).cloned();
        let Some(reached) = reached.filter(|reached| reached.began_epoch == began_epoch) else {
            return Work::Look {
                began_epoch,
                history: replica.history.clone(),
                committed: replica.committed,
            };
        };
        if replica.committed == reached.lsn {
            return Work::Nothing;
        }
        if reached.behind.is_none()
            && let Some(noted) = self.reached().get_mut(&replica.partition)
        {
            noted.behind = Some(Instant::now());
        }
        let is_due = reached.sealed.elapsed() >= self.config.interval;
        if replica.tail.after(reached.lsn).is_none() || (is_due && reached.base.elapsed() >= self.config.base_every) {
            return match replica.capture() {
                Captured::Whole(capture) => Work::Base(capture),
                _ => Work::Nothing,
            };
        }
        let (mut bytes, mut sealed) = (0, Vec::new());
        let records = replica.tail.after(reached.lsn).into_iter().flatten();
        for record in records.take_while(|record| record.lsn <= replica.committed) {
            bytes += record.payload.len();
            sealed.push(record);
            if bytes >= MAX_SEGMENT_BYTES {
                break;
            }
        }
        match is_due || bytes >= SEAL_BYTES {
            true => Work::Seal {
                previous_epoch: replica.history.epoch_at(reached.lsn),
                records: sealed.into_iter().map(of_record).collect(),
            },
            false => Work::Nothing,
        }
    }

    /// False: the replica was filled meanwhile, and what was captured is gone.
    async fn put_base(&self, slot: &Slot, partition: PartitionId, capture: &Capture) -> Result<bool, ArchiveError> {
        let base = Base {
            lsn: capture.lsn,
            epoch: capture.history.epoch_at(capture.lsn),
        };
        let (mut cursor, mut objects) = (None, 0);
        loop {
            let (mut bytes, mut chunks): (usize, Vec<Bytes>) = (0, Vec::new());
            loop {
                // The mutex is held for one chunk at a time, and never while something is written.
                let chunk = lock(slot).captured_chunk(capture, cursor, self.replicas.fill_chunk_bytes);
                let Some((chunk, more)) = chunk else { return Ok(false) };
                bytes += chunk.len();
                chunks.push(chunk);
                cursor = more;
                if cursor.is_none() || bytes >= BASE_OBJECT_BYTES {
                    break;
                }
            }
            let path = base.chunks(partition, objects);
            match self.put(&path, Kind::BaseChunks, &chunks).await {
                // Of a try that came to no end, before a table was dropped: a base that is not whole is none.
                Err(ArchiveError::Taken(_)) => {
                    self.store.remove(&path).await?;
                    self.put(&path, Kind::BaseChunks, &chunks).await?;
                }
                done => done?,
            }
            objects += 1;
            if cursor.is_none() {
                break;
            }
        }
        let end = BaseEnd {
            objects,
            history: capture.history.clone(),
        };
        self.put(&base.whole(partition), Kind::BaseEnd, &end).await?;
        Ok(true)
    }
}

fn of_record(record: &crate::replication::Record) -> ArchivedRecord {
    ArchivedRecord {
        lsn: record.lsn,
        epoch: record.epoch,
        payload: record.payload.clone(),
    }
}
