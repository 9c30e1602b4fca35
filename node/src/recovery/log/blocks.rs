//! A file, read from its beginning to its end in blocks, the next one while the last one is used.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::task::Poll;

use bytes::{Buf, Bytes, BytesMut};

use super::LogError;
use crate::world::Disk;

/// Bytes that are read at a time. Two blocks, and the longest entry, are what reading holds in memory.
pub(in crate::recovery) const READ_BLOCK_BYTES: usize = 1 << 20;

/// A block that was asked for.
enum Ahead<'a> {
    Asked(Pin<Box<dyn Future<Output = io::Result<Bytes>> + Send + 'a>>),
    Read(io::Result<Bytes>),
    /// The file has ended.
    End,
}

/// The part of a file that was read and not yet used.
pub(in crate::recovery) struct Blocks<'a> {
    disk: &'a dyn Disk,
    file: &'a Path,
    block_bytes: usize,
    bytes: BytesMut,
    /// Where in the file it begins.
    offset: u64,
    ahead: Ahead<'a>,
}

impl<'a> Blocks<'a> {
    /// Asks for the first block.
    pub(in crate::recovery) async fn open(disk: &'a dyn Disk, file: &'a Path, block_bytes: usize) -> Self {
        let mut blocks = Self {
            disk,
            file,
            block_bytes,
            bytes: BytesMut::new(),
            offset: 0,
            ahead: Ahead::End,
        };
        blocks.ask(0).await;
        blocks
    }

    /// What there is.
    pub(in crate::recovery) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Where in the file that begins.
    pub(in crate::recovery) fn offset(&self) -> u64 {
        self.offset
    }

    /// So much of it is used.
    pub(in crate::recovery) fn skip(&mut self, size: usize) {
        self.bytes.advance(size);
        self.offset += size as u64;
    }

    /// Adds the next block, and asks for the one behind it. False: the file has ended.
    ///
    /// However long an entry claims to be, no more memory is taken than the file has bytes.
    pub(in crate::recovery) async fn more(&mut self) -> Result<bool, LogError> {
        let block = match std::mem::replace(&mut self.ahead, Ahead::End) {
            Ahead::Asked(reading) => reading.await,
            Ahead::Read(block) => block,
            Ahead::End => return Ok(false),
        };
        let block = block.map_err(|error| LogError::io(format!("reading {}", self.file.display()), &error))?;
        self.bytes.extend_from_slice(&block);
        // A shorter one is the last.
        if block.len() == self.block_bytes {
            self.ask(self.offset + self.bytes.len() as u64).await;
        }
        Ok(!block.is_empty())
    }

    /// Adds blocks until there are so many bytes, or the file ends.
    pub(in crate::recovery) async fn reach(&mut self, length: usize) -> Result<(), LogError> {
        while self.bytes.len() < length && self.more().await? {}
        Ok(())
    }

    async fn ask(&mut self, offset: u64) {
        let (disk, file) = (self.disk, self.file);
        let mut reading = disk.read_range(file, offset, self.block_bytes);
        // Nothing is read before the first poll.
        self.ahead = match futures::poll!(&mut reading) {
            Poll::Ready(block) => Ahead::Read(block),
            Poll::Pending => Ahead::Asked(reading),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::simulated::{SimulatedDisk, SimulatedRandom};

    #[tokio::test]
    async fn a_file_comes_whole_whatever_the_blocks_are() {
        let content: Vec<u8> = (0..=200).collect();
        let file = Path::new("file");
        for length in [0, 1, 5, 100, 200] {
            let disk = SimulatedDisk::new(SimulatedRandom::new(1), false);
            disk.put(file, content[..length].to_vec());
            let disk = disk.mount();
            for block_bytes in [1, 2, 5, 7, 100, 101, 300] {
                let mut blocks = Blocks::open(&disk, file, block_bytes).await;
                let mut found = Vec::new();
                while blocks.more().await.unwrap() {
                    assert_eq!(blocks.offset(), found.len() as u64);
                    assert!(blocks.bytes().len() <= 2 * block_bytes);
                    // Something is left each time but the last.
                    let used = blocks.bytes().len().div_ceil(2);
                    found.extend_from_slice(&blocks.bytes()[..used]);
                    blocks.skip(used);
                }
                found.extend_from_slice(blocks.bytes());
                assert_eq!(found, content[..length], "{length} by {block_bytes}");
            }
        }
    }
}
