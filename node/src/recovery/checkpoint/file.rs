//! The file of a checkpoint: a short log that makes the replicas anew. Its bytes are the log's (`log::layout`).

use std::path::{Path, PathBuf};

use bytes::BytesMut;
use uuid::Uuid;
use volt_engine::PartitionId;

use crate::recovery::log::blocks::Blocks;
use crate::recovery::log::layout::{self, CHECKPOINT, Framed, HEADER_BYTES, Header, Unreadable, VERSION};
use crate::recovery::log::reader::{check_header, corrupt};
use crate::recovery::log::{LogEntry, LogError};
use crate::recovery::sink::{EntrySink, Refusal};
use crate::world::{AppendFile, Disk, World};

/// Bytes that are written at a time.
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

/// Gives every entry of a checkpoint to `sink`, a block at a time. A checkpoint was whole before it got its name, so
/// that whatever is wrong with it is damage.
pub(super) async fn read(
    disk: &dyn Disk,
    file: &Path,
    (cluster, number): (Uuid, u64),
    block_bytes: usize,
    sink: &mut dyn EntrySink,
) -> Result<Read, LogError> {
    let refused = |refusal: Refusal| corrupt(file, refusal.place, refusal.what);
    let mut blocks = Blocks::open(disk, file, block_bytes).await;
    let read = async {
        blocks.reach(HEADER_BYTES).await?;
        let begun = check_header(file, blocks.bytes(), (CHECKPOINT, number), cluster)?.salt;
        blocks.skip(HEADER_BYTES);
        let mut taken = 0;
        loop {
            match layout::decode(blocks.bytes()) {
                Ok((Framed::Entry(partition, entry), size)) => {
                    sink.put(blocks.offset(), partition, entry);
                    taken += 1;
                    blocks.skip(size);
                }
                Ok((Framed::End { entries, first_segment }, size)) if entries == taken => {
                    blocks.skip(size);
                    blocks.reach(1).await?;
                    if !blocks.bytes().is_empty() {
                        return Err(corrupt(file, blocks.offset(), "something follows its end".to_owned()));
                    }
                    let bytes = blocks.offset();
                    return Ok(Read {
                        begun,
                        first_segment,
                        bytes,
                    });
                }
                Ok(_) => {
                    let what = "an entry that no checkpoint holds here".to_owned();
                    return Err(corrupt(file, blocks.offset(), what));
                }
                Err(Unreadable::Short) => {
                    sink.room().await.map_err(refused)?;
                    if !blocks.more().await? {
                        return Err(corrupt(file, blocks.offset(), "it ends in the middle".to_owned()));
                    }
                }
                Err(unreadable) => return Err(corrupt(file, blocks.offset(), unreadable.to_string())),
            }
        }
    };
    let read = read.await;
    // What is refused stands before the place where reading failed.
    sink.settle().await.map_err(refused)?;
    read
}
