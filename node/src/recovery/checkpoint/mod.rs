//! Checkpoints: the state of every replica in one file, so that the log before it may go.
//!
//! A checkpoint is fuzzy: replicas are captured one after another, each as a pinned snapshot of what is committed, and
//! copied in chunks while writes go on. It is a short log itself: of each replica what a fill would have written, the
//! records beyond, and a mark that was put into the log at the moment of the capture. Replay takes the checkpoint, then
//! the log from the segment on in which the checkpoint began; of each partition it skips what precedes the mark.
//!
//! | step | a crash after it finds |
//! | --- | --- |
//! | marks in the log; the file written under another name, and flushed | the old checkpoint and all of its log |
//! | the log flushed beyond the marks | the same |
//! | the file renamed, the folder synced | the new checkpoint, and more log and checkpoints than it needs |
//! | older checkpoints removed, then needless segments, lowest first | the new checkpoint |
//!
//! A replica that is being filled has no state; the log is kept from the segment on in which that fill began.

mod file;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use tokio::time::{Duration, Instant, sleep};
use uuid::Uuid;
use volt_engine::PartitionId;

use super::log::{Log, LogEntry, LogError};
use super::sink::EntrySink;
use crate::replication::replica::capture::{Capture, Captured};
use crate::replication::{Slot, lock};
use crate::world::{CrashPoint, Disk, PlantedBug, World};

/// The folder of checkpoints in the node's data directory.
const FOLDER: &str = "checkpoint";
pub(super) const SUFFIX: &str = "checkpoint";
/// What a checkpoint is called while it is not yet whole.
const UNFINISHED: &str = "unfinished";
/// How often the log's length is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Pause after a checkpoint that failed.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// So often a replica is captured anew when a fill takes its state away; then the whole checkpoint is tried again later.
const CAPTURES_OF_ONE: u32 = 4;

/// What checkpoints came to, for the metrics.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    /// Size of the newest.
    pub(crate) bytes: AtomicU64,
    /// How long it took.
    pub(crate) micros: AtomicU64,
    /// Taken by this process.
    pub(crate) taken: AtomicU64,
    /// Failed in this process.
    pub(crate) failed: AtomicU64,
}

/// The checkpoint that a start goes out from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Loaded {
    /// Its number.
    pub(crate) number: u64,
    /// The log's mark of its beginning.
    pub(crate) begun: u64,
    /// Where the log that belongs to it begins.
    pub(crate) first_segment: u64,
}

pub(super) fn path_of(number: u64, suffix: &str) -> PathBuf {
    Path::new(FOLDER).join(format!("{number:020}.{suffix}"))
}

/// The number of a file, if it is a checkpoint.
fn number_of(file: &Path) -> Option<u64> {
    let is_whole = file.extension().is_some_and(|extension| extension == SUFFIX);
    let number = file.file_stem()?.to_str()?.parse().ok()?;
    is_whole.then_some(number)
}

fn is_unfinished(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == UNFINISHED)
}

async fn files(disk: &dyn Disk) -> Result<Vec<PathBuf>, LogError> {
    let files = disk.list(Path::new(FOLDER)).await;
    files.map_err(|error| LogError::io(format!("listing {FOLDER}"), &error))
}

/// Gives the entries of the newest checkpoint, if there is one, to `sink`. One that is damaged is an error: the log that
/// an older one needs is gone.
pub(crate) async fn load(
    disk: &dyn Disk,
    cluster: Uuid,
    block_bytes: usize,
    sink: &mut dyn EntrySink,
) -> Result<Option<Loaded>, LogError> {
    let newest = files(disk).await?.iter().filter_map(|file| number_of(file)).max();
    let Some(number) = newest else { return Ok(None) };
    let path = path_of(number, SUFFIX);
    let read = file::read(disk, &path, (cluster, number), block_bytes, sink).await?;
    tracing::info!(file = %path.display(), bytes = read.bytes, "loaded a checkpoint");
    Ok(Some(Loaded {
        number,
        begun: read.begun,
        first_segment: read.first_segment,
    }))
}

/// Takes checkpoints of one node, one after another.
pub(crate) struct Checkpointer {
    world: World,
    log: Arc<Log>,
    cluster: Uuid,
    chunk_bytes: usize,
    /// The newest checkpoint; 0 when there is none.
    number: u64,
    figures: Arc<Figures>,
}

/// A replica's capture, released when dropped.
struct Held {
    slot: Slot,
    capture: Capture,
}

impl Drop for Held {
    fn drop(&mut self) {
        lock(&self.slot).release(&self.capture);
    }
}

impl Checkpointer {
    /// For the log that was opened after this checkpoint was loaded.
    pub(crate) fn new(world: &World, log: Arc<Log>, cluster: Uuid, chunk_bytes: usize, loaded: Option<Loaded>) -> Self {
        Self {
            world: world.clone(),
            log,
            cluster,
            chunk_bytes,
            number: loaded.map_or(0, |loaded| loaded.number),
            figures: Arc::default(),
        }
    }

    /// What its checkpoints came to.
    pub(crate) fn figures(&self) -> Arc<Figures> {
        Arc::clone(&self.figures)
    }

    /// Takes a checkpoint whenever the log has grown by so many bytes, until the log stops. A checkpoint that fails is
    /// tried again later; meanwhile the log grows. `replicas_at` puts a mark into the log, and gives the replicas that the
    /// node has at that place.
    pub(crate) async fn run(mut self, every_bytes: u64, replicas_at: impl Fn(u64) -> Vec<Slot>) {
        let mut covered = 0;
        while self.log.failure().is_none() {
            sleep(LOOK_EVERY).await;
            let written = self.log.written_bytes();
            if written - covered < every_bytes {
                continue;
            }
            match self.take(&replicas_at).await {
                Ok(()) => covered = written,
                Err(LogError::Closed) => return,
                Err(why) => {
                    self.figures.failed.fetch_add(1, Relaxed);
                    tracing::warn!(%why, "a checkpoint failed; the log stays, and it is tried again");
                    self.remove(&path_of(self.number + 1, UNFINISHED)).await;
                    sleep(TRY_AGAIN_AFTER).await;
                }
            }
        }
    }

    /// Takes one, and removes what it makes needless.
    pub(crate) async fn take(&mut self, replicas_at: impl Fn(u64) -> Vec<Slot>) -> Result<(), LogError> {
        let began = Instant::now();
        let disk = Arc::clone(&self.world.disk);
        let made = disk.create_directory(Path::new(FOLDER)).await;
        made.map_err(|error| LogError::io(format!("making {FOLDER}"), &error))?;
        let number = self.number + 1;
        let (unfinished, path) = (path_of(number, UNFINISHED), path_of(number, SUFFIX));
        // Every mark is in this segment or in a later one.
        let mut first_segment = self.log.current_segment();
        let begun = self.world.random.next_u64();
        let slots = replicas_at(begun);
        let mut file = file::Writer::create(&self.world, unfinished.clone(), self.cluster, (number, begun)).await?;
        self.world.pass(CrashPoint::CheckpointBegun).await;
        for slot in slots {
            if let Some(filling_since) = self.add(&mut file, &slot).await? {
                first_segment = first_segment.min(filling_since);
            }
            self.world.pass(CrashPoint::CheckpointPartly).await;
        }
        let bytes = file.finish(first_segment).await?;
        self.world.pass(CrashPoint::CheckpointWritten).await;
        // A mark that a power cut takes away, and the file does not, would make the log unreadable.
        if !self.world.planted.has(PlantedBug::CheckpointBeforeMarks) {
            self.log.wait_flushed(self.log.last_ticket()).await?;
        }
        self.world.pass(CrashPoint::CheckpointMarked).await;
        let renamed = disk.rename(&unfinished, &path).await;
        renamed.map_err(|error| LogError::io(format!("naming {}", path.display()), &error))?;
        self.world.pass(CrashPoint::CheckpointNamed).await;
        self.number = number;
        self.tidy(first_segment).await;
        let took = began.elapsed();
        self.figures.bytes.store(bytes, Relaxed);
        self.figures.micros.store(took.as_micros() as u64, Relaxed);
        self.figures.taken.fetch_add(1, Relaxed);
        tracing::info!(number, bytes, first_segment, ?took, "checkpoint taken");
        Ok(())
    }

    /// Adds one replica. Some: it is being filled, and the log from this segment on says what it will be.
    async fn add(&self, file: &mut file::Writer, slot: &Slot) -> Result<Option<u64>, LogError> {
        for _ in 0..CAPTURES_OF_ONE {
            let mark = self.world.random.next_u64();
            let (partition, captured) = {
                let mut replica = lock(slot);
                let captured = replica.capture();
                if matches!(captured, Captured::Whole(_)) {
                    self.log.append(replica.partition, &LogEntry::Mark { mark });
                }
                (replica.partition, captured)
            };
            match captured {
                Captured::Whole(capture) => {
                    let slot = Arc::clone(slot);
                    if self.copy(file, partition, &Held { slot, capture }, mark).await? {
                        return Ok(None);
                    }
                }
                Captured::Filling { segment } => {
                    file.add(partition, &LogEntry::Reset { epoch: 0 }).await?;
                    return Ok(Some(segment));
                }
                Captured::Dropped => {
                    file.add(partition, &LogEntry::Dropped).await?;
                    return Ok(None);
                }
                Captured::Unpinned => break,
            }
        }
        let partition = lock(slot).partition;
        let cause = std::io::Error::other("its state does not stay");
        Err(LogError::io(format!("capturing partition {partition}"), &cause))
    }

    /// Writes what was captured, as a fill and the records beyond. False: a fill took it away; what was written of it
    /// is replaced by the `Reset` with which the next try begins.
    async fn copy(
        &self,
        file: &mut file::Writer,
        partition: PartitionId,
        held: &Held,
        mark: u64,
    ) -> Result<bool, LogError> {
        let capture = &held.capture;
        let epoch = capture.history.epoch_at(capture.lsn);
        file.add(partition, &LogEntry::Reset { epoch }).await?;
        let mut cursor = None;
        loop {
            // The mutex is held for one chunk at a time, and never while something is written.
            let chunk = lock(&held.slot).captured_chunk(capture, cursor, self.chunk_bytes);
            let Some((chunk, more)) = chunk else { return Ok(false) };
            file.add(partition, &LogEntry::FillChunk { chunk }).await?;
            cursor = more;
            if cursor.is_none() {
                break;
            }
        }
        let epochs = postcard::to_stdvec(&capture.history).map(Bytes::from);
        let epochs = epochs.map_err(|error| LogError::Refused(error.to_string()))?;
        let lsn = capture.lsn;
        file.add(partition, &LogEntry::FillDone { lsn, epoch, epochs }).await?;
        for record in &capture.tail {
            let (epoch, lsn, payload) = (record.epoch, record.lsn, record.payload.clone());
            file.add(partition, &LogEntry::Record { epoch, lsn, payload }).await?;
        }
        file.add(partition, &LogEntry::Mark { mark }).await?;
        Ok(true)
    }

    /// Removes what the newest checkpoint makes needless. What can't be removed now is tried again the next time.
    pub(crate) async fn tidy(&self, first_segment: u64) {
        match files(self.world.disk.as_ref()).await {
            Ok(files) => {
                let needless =
                    |file: &&PathBuf| is_unfinished(file) || number_of(file).is_some_and(|n| n < self.number);
                for file in files.iter().filter(needless) {
                    self.remove(file).await;
                }
            }
            Err(why) => tracing::warn!(%why, "old checkpoints stay for now"),
        }
        if let Err(why) = self.log.remove_before(&self.world, first_segment).await {
            tracing::warn!(%why, "old segments of the log stay for now");
        }
    }

    async fn remove(&self, file: &Path) {
        match self.world.disk.remove(file).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(file = %file.display(), %error, "not removed");
            }
            _ => {}
        }
    }
}
