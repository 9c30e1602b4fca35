//! A disk whose flushes are timed: what passes through the door is seen there, whoever flushes.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::{AppendFile, Clock, Disk};

/// The longest flush since somebody asked, in nanoseconds; 0: there was none.
#[derive(Debug, Default)]
pub struct Flushes(AtomicU64);

impl Flushes {
    /// And forgets it.
    pub fn take(&self) -> Option<Duration> {
        let nanos = self.0.swap(0, Relaxed);
        (nanos > 0).then(|| Duration::from_nanos(nanos))
    }

    fn note(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.0.fetch_max(nanos.max(1), Relaxed);
    }
}

/// The disk behind it, and its clock.
pub struct TimedDisk {
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    flushes: Arc<Flushes>,
}

struct TimedFile {
    file: Box<dyn AppendFile>,
    clock: Arc<dyn Clock>,
    flushes: Arc<Flushes>,
}

impl TimedDisk {
    /// Notes what flushes take there.
    pub fn new(disk: Arc<dyn Disk>, clock: Arc<dyn Clock>, flushes: Arc<Flushes>) -> Self {
        Self { disk, clock, flushes }
    }
}

#[async_trait]
impl Disk for TimedDisk {
    async fn create_directory(&self, path: &Path) -> io::Result<()> {
        self.disk.create_directory(path).await
    }

    async fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        self.disk.list(directory).await
    }

    async fn read(&self, path: &Path) -> io::Result<Bytes> {
        self.disk.read(path).await
    }

    async fn read_range(&self, path: &Path, offset: u64, length: usize) -> io::Result<Bytes> {
        self.disk.read_range(path, offset, length).await
    }

    async fn write_atomic(&self, path: &Path, content: Bytes) -> io::Result<()> {
        self.disk.write_atomic(path, content).await
    }

    async fn open_append(&self, path: &Path, length: Option<u64>) -> io::Result<Box<dyn AppendFile>> {
        let file = self.disk.open_append(path, length).await?;
        let (clock, flushes) = (Arc::clone(&self.clock), Arc::clone(&self.flushes));
        Ok(Box::new(TimedFile { file, clock, flushes }))
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to).await
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path).await
    }
}

#[async_trait]
impl AppendFile for TimedFile {
    async fn append(&mut self, buffers: &[Bytes]) -> io::Result<()> {
        self.file.append(buffers).await
    }

    async fn sync(&mut self) -> io::Result<()> {
        let began = self.clock.boot_time();
        let result = self.file.sync().await;
        self.flushes.note(self.clock.boot_time().saturating_sub(began));
        result
    }

    async fn append_and_sync(&mut self, buffers: &[Bytes]) -> io::Result<()> {
        let began = self.clock.boot_time();
        let result = self.file.append_and_sync(buffers).await;
        self.flushes.note(self.clock.boot_time().saturating_sub(began));
        result
    }
}
