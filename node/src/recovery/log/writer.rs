//! Writing the log: appended to a buffer in memory by whoever has an entry, taken from there, all of it at a time, by one
//! task that writes and flushes (group commit by arrival: while one flush runs, the next batch gathers).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;
use volt_engine::PartitionId;

use super::layout::{self, HEADER_BYTES, Header, SEGMENT, VERSION};
use super::reader::{End, replay, segment_file};
use super::{ASYNC_FLUSH_INTERVAL, Durability, LogEntry, LogError, LogOptions, MAX_PAYLOAD_BYTES, Ticket};
use crate::recovery::sink::EntrySink;
use crate::world::{AppendFile, CrashPoint, PlantedBug, World};

/// The open log. Dropping it lets its task write what is queued and end.
pub struct Log {
    shared: Arc<Shared>,
    safe: watch::Receiver<Ticket>,
    folder: PathBuf,
}

/// What appenders and the task share.
struct Shared {
    durability: Durability,
    queue: Mutex<Queue>,
    /// Something was queued, or the log was closed.
    arrived: Notify,
    /// Bytes queued or being written.
    queued: AtomicUsize,
    /// Announces the greatest safe ticket; gone once the log has stopped.
    announce: Mutex<Option<watch::Sender<Ticket>>>,
    /// The greatest ticket that survives a power cut.
    flushed: watch::Sender<Ticket>,
    /// Bytes that were found on disk or written since.
    written: AtomicU64,
    /// How long each segment on disk is, by number; the last one grows.
    lengths: Mutex<BTreeMap<u64, u64>>,
}

#[derive(Default)]
struct Queue {
    bytes: BytesMut,
    last: Ticket,
    stopped: Option<LogError>,
    closing: bool,
}

impl Log {
    /// Opens the log of this cluster: gives all that it holds to `sink`, in order, cuts a torn tail, and goes on behind it.
    pub(crate) async fn open(
        world: &World,
        options: LogOptions,
        cluster: Uuid,
        sink: &mut dyn EntrySink,
    ) -> Result<Self, LogError> {
        let (announce, safe) = watch::channel(0);
        let shared = Arc::new(Shared {
            durability: options.durability,
            queue: Mutex::default(),
            arrived: Notify::new(),
            queued: AtomicUsize::new(0),
            announce: Mutex::new(Some(announce)),
            flushed: watch::channel(0).0,
            written: AtomicU64::new(0),
            lengths: Mutex::default(),
        });
        let folder = options.folder.clone();
        if options.durability != Durability::Memory {
            let disk = Arc::clone(&world.disk);
            disk.create_directory(&options.folder)
                .await
                .map_err(|error| LogError::io(format!("making {}", options.folder.display()), &error))?;
            let from = (folder.as_path(), options.first_segment);
            let mut end = replay(disk.as_ref(), from, cluster, options.block_bytes, sink).await?;
            let lengths = std::mem::take(&mut end.lengths);
            shared.written.store(lengths.values().sum(), Ordering::Relaxed);
            *shared.lengths() = lengths;
            let segments = Segments::open(world, options, cluster, end).await?;
            shared.note_length(&segments);
            tokio::spawn(run(Arc::clone(&shared), segments));
        }
        Ok(Self { shared, safe, folder })
    }

    /// Queues an entry. Never waits. When the log has stopped, the ticket never becomes safe.
    pub fn append(&self, partition: PartitionId, entry: &LogEntry) -> Ticket {
        let mut queue = self.shared.queue();
        queue.last += 1;
        let ticket = queue.last;
        if self.shared.durability == Durability::Memory {
            // Under the lock, so that whoever asks for the last ticket finds that it is safe: nobody waits, and nobody is woken.
            self.shared.set_safe(ticket);
            return ticket;
        }
        if queue.stopped.is_some() {
            return ticket;
        }
        if payload_bytes(entry) > MAX_PAYLOAD_BYTES {
            let what = format!("an entry of partition {partition} is longer than {MAX_PAYLOAD_BYTES} bytes");
            queue.stopped = Some(LogError::Io {
                what,
                cause: "too long".to_owned(),
            });
            drop(queue);
            self.shared.arrived.notify_one();
            return ticket;
        }
        let before = queue.bytes.len();
        layout::encode(partition, entry, &mut queue.bytes);
        // Still under the lock: the task must not subtract before this is added.
        self.shared
            .queued
            .fetch_add(queue.bytes.len() - before, Ordering::Relaxed);
        drop(queue);
        self.shared.arrived.notify_one();
        ticket
    }

    /// The ticket of the last entry appended.
    pub fn last_ticket(&self) -> Ticket {
        self.shared.queue().last
    }

    /// Bytes that were appended and are not yet written: what its callers bound by taking on no more work.
    pub fn queued_bytes(&self) -> usize {
        self.shared.queued.load(Ordering::Relaxed)
    }

    /// The greatest safe ticket, as it grows. The sender goes away when the log stops.
    pub fn safe(&self) -> watch::Receiver<Ticket> {
        self.safe.clone()
    }

    /// Returns when this ticket, and so all before it, is safe, or the log has stopped.
    pub async fn wait_safe(&self, ticket: Ticket) -> Result<(), LogError> {
        let mut safe = self.safe.clone();
        match safe.wait_for(|safe| *safe >= ticket).await {
            Ok(_) => Ok(()),
            Err(_) => Err(self.failure().unwrap_or(LogError::Closed)),
        }
    }

    /// Returns when this ticket, and so all before it, would survive a power cut, or the log has stopped.
    pub async fn wait_flushed(&self, ticket: Ticket) -> Result<(), LogError> {
        let mut flushed = self.shared.flushed.subscribe();
        tokio::select! {
            biased;
            _ = flushed.wait_for(|flushed| *flushed >= ticket) => Ok(()),
            failure = self.wait_failure() => Err(failure),
        }
    }

    /// Bytes found on disk at the start, and written since.
    pub fn written_bytes(&self) -> u64 {
        self.shared.written.load(Ordering::Relaxed)
    }

    /// Bytes on disk now.
    pub fn bytes_on_disk(&self) -> u64 {
        self.shared.lengths().values().sum()
    }

    /// A segment such that whatever is appended from now on is in it or in a later one.
    pub fn current_segment(&self) -> u64 {
        self.shared.lengths().keys().next_back().copied().unwrap_or(1)
    }

    /// Removes the segments below this one, which is not above the current one, lowest first.
    pub async fn remove_before(&self, world: &World, segment: u64) -> Result<(), LogError> {
        let last = self.current_segment();
        let needless: Vec<u64> = self
            .shared
            .lengths()
            .range(..segment.min(last))
            .map(|(&number, _)| number)
            .collect();
        for number in needless {
            let path = segment_file(&self.folder, number);
            let removed = world.disk.remove(&path).await;
            removed.map_err(|error| LogError::io(format!("removing {}", path.display()), &error))?;
            self.shared.lengths().remove(&number);
            world.pass(CrashPoint::LogSegmentRemoved).await;
        }
        Ok(())
    }

    /// Returns when the log has stopped, with the reason.
    pub async fn wait_failure(&self) -> LogError {
        let mut safe = self.safe.clone();
        while safe.changed().await.is_ok() {}
        self.failure().unwrap_or(LogError::Closed)
    }

    /// Why the log has stopped, if it has.
    pub fn failure(&self) -> Option<LogError> {
        self.shared.queue().stopped.clone()
    }

    /// Writes and flushes what is queued, and stops.
    pub async fn close(&self) -> Result<(), LogError> {
        let last = {
            let mut queue = self.shared.queue();
            queue.closing = true;
            queue.last
        };
        self.shared.arrived.notify_one();
        self.wait_safe(last).await?;
        let mut safe = self.safe.clone();
        while self.shared.durability != Durability::Memory && safe.changed().await.is_ok() {}
        match self.failure() {
            None | Some(LogError::Closed) => Ok(()),
            Some(failure) => Err(failure),
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.shared.queue().closing = true;
        self.shared.arrived.notify_one();
    }
}

fn payload_bytes(entry: &LogEntry) -> usize {
    match entry {
        LogEntry::Record { payload, .. } => payload.len(),
        LogEntry::FillChunk { chunk } => chunk.len(),
        LogEntry::FillDone { epochs, .. } => epochs.len(),
        _ => 0,
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // A panic while it is held leaves at worst an unfinished entry behind, which replay cuts.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lengths(&self) -> MutexGuard<'_, BTreeMap<u64, u64>> {
        self.lengths.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_length(&self, segments: &Segments) {
        self.lengths().insert(segments.sequence, segments.length);
    }

    fn announce(&self, ticket: Ticket) {
        let announce = self.announce.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(announce) = announce.as_ref() {
            announce.send_if_modified(|safe| {
                let grows = ticket > *safe;
                *safe = ticket.max(*safe);
                grows
            });
        }
    }

    /// As `announce`, when there is nobody who waits.
    fn set_safe(&self, ticket: Ticket) {
        let announce = self.announce.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(announce) = announce.as_ref() {
            announce.send_if_modified(|safe| {
                *safe = ticket.max(*safe);
                false
            });
        }
    }

    /// Nothing is announced after this.
    fn stop(&self, why: LogError) {
        if why != LogError::Closed {
            tracing::error!(%why, "the log has stopped");
        }
        self.queue().stopped.get_or_insert(why);
        self.announce.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// What the task finds in the queue.
enum Taken {
    Batch(BytesMut, Ticket),
    Nothing,
    End(LogError),
}

fn take(shared: &Shared) -> Taken {
    let mut queue = shared.queue();
    if let Some(why) = &queue.stopped {
        return Taken::End(why.clone());
    }
    if !queue.bytes.is_empty() {
        return Taken::Batch(std::mem::take(&mut queue.bytes), queue.last);
    }
    if queue.closing {
        return Taken::End(LogError::Closed);
    }
    Taken::Nothing
}

async fn run(shared: Arc<Shared>, mut segments: Segments) {
    let why = match write_until_closed(&shared, &mut segments).await {
        Ok(why) | Err(why) => why,
    };
    shared.stop(why);
}

async fn write_until_closed(shared: &Shared, segments: &mut Segments) -> Result<LogError, LogError> {
    let is_fsync = shared.durability == Durability::Fsync;
    let mut flush_at: Option<Instant> = None;
    let mut written = 0;
    loop {
        match take(shared) {
            Taken::Batch(batch, last) => {
                let size = batch.len();
                segments.world.pass(CrashPoint::LogTaken).await;
                segments.write(batch, is_fsync).await?;
                segments.world.pass(CrashPoint::LogFlushed).await;
                written = last;
                shared.queued.fetch_sub(size, Ordering::Relaxed);
                shared.written.fetch_add(size as u64, Ordering::Relaxed);
                shared.note_length(segments);
                shared.announce(last);
                match is_fsync {
                    true => drop(shared.flushed.send_replace(last)),
                    false => drop(flush_at.get_or_insert_with(|| Instant::now() + ASYNC_FLUSH_INTERVAL)),
                }
            }
            Taken::Nothing => match flush_at {
                None => shared.arrived.notified().await,
                Some(moment) => tokio::select! {
                    biased;
                    () = sleep_until(moment) => {}
                    () = shared.arrived.notified() => {}
                },
            },
            Taken::End(why) => {
                segments.flush().await?;
                shared.flushed.send_replace(written);
                return Ok(why);
            }
        }
        if flush_at.is_some_and(|moment| moment <= Instant::now()) {
            segments.flush().await?;
            shared.flushed.send_replace(written);
            flush_at = None;
        }
    }
}

/// The segment that grows, and how to get to the next.
struct Segments {
    world: World,
    options: LogOptions,
    cluster: Uuid,
    sequence: u64,
    salt: u64,
    path: PathBuf,
    file: Box<dyn AppendFile>,
    length: u64,
    /// The file is on the disk up to here.
    flushed: u64,
    /// The last mark that said so.
    marked: u64,
}

impl Segments {
    /// Goes on where replay found the end.
    async fn open(world: &World, options: LogOptions, cluster: Uuid, end: End) -> Result<Self, LogError> {
        if end.length < HEADER_BYTES as u64 {
            return Self::begin(world, options, cluster, end.sequence.max(1)).await;
        }
        let path = segment_file(&options.folder, end.sequence);
        let keeps_all = world.planted.has(PlantedBug::TornTailKept);
        let cut_to = (!keeps_all).then_some(end.length);
        let file = world
            .disk
            .open_append(&path, cut_to)
            .await
            .map_err(|error| LogError::io(format!("opening {}", path.display()), &error))?;
        let mut segments = Self {
            world: world.clone(),
            options,
            cluster,
            sequence: end.sequence,
            salt: end.salt,
            path,
            file,
            length: end.length,
            flushed: 0,
            marked: 0,
        };
        // Entries that a killed process had written but not flushed are about to be believed: flush them first.
        segments.flush().await?;
        Ok(segments)
    }

    /// Makes a segment whose header is on the disk before anything else is.
    async fn begin(world: &World, options: LogOptions, cluster: Uuid, sequence: u64) -> Result<Self, LogError> {
        let path = segment_file(&options.folder, sequence);
        let failed = |error| LogError::io(format!("making {}", path.display()), &error);
        let mut file = world.disk.open_append(&path, Some(0)).await.map_err(failed)?;
        let header = Header {
            version: VERSION,
            cluster,
            sequence,
            salt: world.random.next_u64(),
        };
        file.append_and_sync(&[header.encode(SEGMENT)]).await.map_err(failed)?;
        let (world, salt, length) = (world.clone(), header.salt, HEADER_BYTES as u64);
        Ok(Self {
            world,
            options,
            cluster,
            sequence,
            salt,
            path,
            file,
            length,
            flushed: length,
            marked: length,
        })
    }

    async fn write(&mut self, batch: BytesMut, sync: bool) -> Result<(), LogError> {
        if self.length >= self.options.segment_bytes {
            // A segment that has a successor is whole: replay relies on it.
            self.flush().await?;
            self.world.pass(CrashPoint::LogSegmentFull).await;
            *self = Self::begin(&self.world, self.options.clone(), self.cluster, self.sequence + 1).await?;
            self.world.pass(CrashPoint::LogSegmentBegun).await;
        }
        let mut buffers: Vec<Bytes> = Vec::with_capacity(2);
        if self.marked < self.flushed {
            let mut mark = BytesMut::new();
            layout::encode_flushed_to(self.salt, self.flushed, &mut mark);
            buffers.push(mark.freeze());
            self.marked = self.flushed;
        }
        buffers.push(batch.freeze());
        let skips = self.world.planted.has(PlantedBug::FlushSkipped);
        let written = match sync && !skips {
            true => self.file.append_and_sync(&buffers).await,
            false => self.file.append(&buffers).await,
        };
        written.map_err(|error| LogError::io(format!("writing {}", self.path.display()), &error))?;
        self.length += buffers.iter().map(|buffer| buffer.len() as u64).sum::<u64>();
        if sync {
            self.flushed = self.length;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), LogError> {
        if self.flushed == self.length {
            return Ok(());
        }
        self.file
            .sync()
            .await
            .map_err(|error| LogError::io(format!("flushing {}", self.path.display()), &error))?;
        self.flushed = self.length;
        Ok(())
    }
}
