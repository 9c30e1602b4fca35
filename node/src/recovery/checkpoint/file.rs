//! The file of a checkpoint: a short log that makes the replicas anew. Its bytes are the log's (`log::layout`).

use std::path::{Path, PathBuf};

use bytes::{Buf, BytesMut};
use uuid::Uuid;
use volt_engine::PartitionId;

use crate::recovery::log::layout::{self, CHECKPOINT, Framed, HEADER_BYTES, Header, Unreadable, VERSION};
use crate::recovery::log::reader::{check_header, corrupt};
use crate::recovery::log::{LogEntry, LogError};
use crate::world::{AppendFile, Disk, World};

/// Bytes that are written, or read, at a time.
const BLOCK_BYTES: usize = 256 << 10;
/// Bytes that are flushed at a time, so that the log's own flushes never wait behind a whole checkpoint.
const FLUSH_BYTES: u64 = 8 << 20;

/// A checkpoint that is being written.
pub(super) struct Writer {
    file: Box<dyn AppendFile>,
    path: PathBuf,
    buffer: BytesMut,
    entries: u64,
    bytes: u64,
    unflushed: u64,
}

impl Writer {
    /// Begins the checkpoint of this number, whose first mark is `begun`.
    pub(super) async fn create(
        world: &World,
        path: PathBuf,
        cluster: Uuid,
        (number, begun): (u64, u64),
    ) -> Result<Self, LogError> {
        let file = world.disk.open_append(&path, Some(0)).await;
        let file = file.map_err(|error| LogError::io(format!("making {}", path.display()), &error))?;
        let header = Header {
            version: VERSION,
            cluster,
            sequence: number,
            salt: begun,
        };
        Ok(Self {
            file,
            path,
            buffer: header.encode(CHECKPOINT).into(),
            entries: 0,
            bytes: 0,
            unflushed: 0,
        })
    }

    /// Adds an entry.
    pub(super) async fn add(&mut self, partition: PartitionId, entry: &LogEntry) -> Result<(), LogError> {
        layout::encode(partition, entry, &mut self.buffer);
        self.entries += 1;
        match self.buffer.len() >= BLOCK_BYTES {
            true => self.write().await,
            false => Ok(()),
        }
    }

    /// Adds the end; when this returns, all of it is on the disk. Returns how long it is.
    pub(super) async fn finish(mut self, first_segment: u64) -> Result<u64, LogError> {
        layout::encode_end(self.entries, first_segment, &mut self.buffer);
        self.write().await?;
        self.flush().await?;
        Ok(self.bytes)
    }

    async fn write(&mut self) -> Result<(), LogError> {
        let block = self.buffer.split().freeze();
        let size = block.len() as u64;
        let written = self.file.append(&[block]).await;
        written.map_err(|error| LogError::io(format!("writing {}", self.path.display()), &error))?;
        self.bytes += size;
        self.unflushed += size;
        match self.unflushed >= FLUSH_BYTES {
            true => self.flush().await,
            false => Ok(()),
        }
    }

    async fn flush(&mut self) -> Result<(), LogError> {
        self.unflushed = 0;
        let flushed = self.file.sync().await;
        flushed.map_err(|error| LogError::io(format!("flushing {}", self.path.display()), &error))
    }
}

/// What a whole checkpoint says beside its entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Read {
    /// The log's mark of its beginning.
    pub(super) begun: u64,
    /// Where the log that belongs to it begins.
    pub(super) first_segment: u64,
    pub(super) bytes: u64,
}

/// Gives every entry of a checkpoint to `take`, a block at a time. A checkpoint was whole before it got its name, so
/// that whatever is wrong with it is damage.
pub(super) async fn read(
    disk: &dyn Disk,
    file: &Path,
    (cluster, number): (Uuid, u64),
    take: &mut (dyn FnMut(PartitionId, LogEntry) -> Result<(), String> + Send),
) -> Result<Read, LogError> {
    let mut blocks = Blocks {
        disk,
        file,
        bytes: BytesMut::new(),
        offset: 0,
    };
    blocks.more(HEADER_BYTES).await?;
    let begun = check_header(file, &blocks.bytes, (CHECKPOINT, number), cluster)?.salt;
    blocks.skip(HEADER_BYTES);
    let mut taken = 0;
    loop {
        match layout::decode(&blocks.bytes) {
            Ok((Framed::Entry(partition, entry), size)) => {
                let refused = |what| corrupt(file, blocks.offset as usize, what);
                take(partition, entry).map_err(refused)?;
                taken += 1;
                blocks.skip(size);
            }
            Ok((Framed::End { entries, first_segment }, size)) if entries == taken => {
                blocks.skip(size);
                if !blocks.bytes.is_empty() || blocks.more(1).await? > 0 {
                    return Err(blocks.damage("something follows its end"));
                }
                let bytes = blocks.offset;
                return Ok(Read {
                    begun,
                    first_segment,
                    bytes,
                });
            }
            Ok(_) => return Err(blocks.damage("an entry that no checkpoint holds here")),
            Err(Unreadable::Short) => {
                if blocks.more(blocks.wanted()).await? == 0 {
                    return Err(blocks.damage("it ends in the middle"));
                }
            }
            Err(unreadable) => return Err(blocks.damage(&unreadable.to_string())),
        }
    }
}

/// The part of a file that was read and not yet used.
struct Blocks<'a> {
    disk: &'a dyn Disk,
    file: &'a Path,
    bytes: BytesMut,
    /// Where in the file it begins.
    offset: u64,
}

impl Blocks<'_> {
    /// What to read next: the rest of the entry that begins here, or a block if that is more.
    fn wanted(&self) -> usize {
        layout::size(&self.bytes)
            .saturating_sub(self.bytes.len())
            .max(BLOCK_BYTES)
    }

    /// Reads up to so many bytes more; returns how many there were.
    async fn more(&mut self, length: usize) -> Result<usize, LogError> {
        let from = self.offset + self.bytes.len() as u64;
        let read = self.disk.read_range(self.file, from, length).await;
        let read = read.map_err(|error| LogError::io(format!("reading {}", self.file.display()), &error))?;
        self.bytes.extend_from_slice(&read);
        Ok(read.len())
    }

    fn skip(&mut self, size: usize) {
        self.bytes.advance(size);
        self.offset += size as u64;
    }

    fn damage(&self, what: &str) -> LogError {
        corrupt(self.file, self.offset as usize, what.to_owned())
    }
}
