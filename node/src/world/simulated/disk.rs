//! A disk in memory. It outlives its node's processes, and at a crash loses what was not flushed, or half of it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;

use super::SimulatedRandom;
use crate::world::{AppendFile, Disk};

/// The longest that a flush takes on a disk that is well.
const MAX_FLUSH_MILLIS: u64 = 3;

/// What ails the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DiskFault {
    /// Nothing.
    #[default]
    None,
    /// Nothing more fits: writes take a part and fail.
    Full,
    /// The same, in this folder only.
    FullIn(&'static str),
    /// Every write and flush fails.
    Broken,
}

/// The disk of one node.
pub struct SimulatedDisk {
    state: Mutex<State>,
    random: SimulatedRandom,
    /// False: flushes take no time (for unit tests without a paused clock).
    takes_time: bool,
    /// The longest that a flush takes.
    max_flush_millis: AtomicU64,
    /// The process that uses it stands still.
    is_still: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    files: BTreeMap<PathBuf, Content>,
    fault: DiskFault,
    /// Counts the crashes: what was opened before the last one is gone.
    crashes: u64,
}

#[derive(Clone, Default)]
struct Content {
    bytes: Vec<u8>,
    /// This much of it survives a crash for certain.
    flushed: usize,
}

impl SimulatedDisk {
    /// An empty disk.
    pub fn new(random: SimulatedRandom, takes_time: bool) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            random,
            takes_time,
            max_flush_millis: AtomicU64::new(MAX_FLUSH_MILLIS),
            is_still: watch::Sender::new(false),
        })
    }

    /// The disk as a process sees it that starts now.
    pub fn mount(self: &Arc<Self>) -> Mounted {
        Mounted {
            crashes: self.state().crashes,
            disk: Arc::clone(self),
        }
    }

    /// The machine loses power: of what was not flushed a file keeps nothing, some, or some and zeros behind it.
    pub fn crash(&self) {
        let mut state = self.state();
        state.crashes += 1;
        for content in state.files.values_mut() {
            let length = content.bytes.len();
            let kept = content.flushed + self.random.below((length - content.flushed) as u64 + 1) as usize;
            match self.random.below(3) {
                0 => content.bytes.truncate(content.flushed),
                1 => content.bytes.truncate(kept),
                _ => content.bytes[kept..].fill(0),
            }
            content.flushed = content.bytes.len();
        }
    }

    /// The process is killed: the kernel still writes what it was given.
    pub fn kill(&self) {
        self.state().crashes += 1;
    }

    /// An empty directory again: a lost volume.
    pub fn lose(&self) {
        let mut state = self.state();
        state.crashes += 1;
        state.files.clear();
    }

    /// From now on a flush takes up to so long; None: what it takes on a disk that is well.
    pub fn set_longest_flush(&self, longest: Option<Duration>) {
        let millis = longest.map_or(MAX_FLUSH_MILLIS, |longest| longest.as_millis() as u64);
        self.max_flush_millis.store(millis, Ordering::Relaxed);
    }

    /// From now on its process gets no answer from it, as it asks nothing; until it goes on.
    pub fn set_still(&self, is_still: bool) {
        self.is_still.send_replace(is_still);
    }

    /// From now on.
    pub fn set_fault(&self, fault: DiskFault) {
        self.state().fault = fault;
    }

    /// What ails it.
    pub fn fault(&self) -> DiskFault {
        self.state().fault
    }

    /// A bit of what was flushed changes, somewhere in one of the files; the file, None if there is nothing to change.
    pub fn rot(&self) -> Option<PathBuf> {
        let mut state = self.state();
        let mut files: Vec<_> = state.files.iter_mut().filter(|(_, file)| file.flushed > 0).collect();
        let chosen = self.random.below(files.len() as u64) as usize;
        let (path, content) = files.get_mut(chosen)?;
        let place = self.random.below(content.flushed as u64) as usize;
        content.bytes[place] ^= 1 << self.random.below(8);
        Some((*path).clone())
    }

    /// All files and their bytes.
    pub fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        self.state()
            .files
            .iter()
            .map(|(path, content)| (path.clone(), content.bytes.clone()))
            .collect()
    }

    /// Replaces a file's bytes, durably: for a test that damages one.
    pub fn put(&self, path: &Path, bytes: Vec<u8>) {
        let flushed = bytes.len();
        self.state().files.insert(path.to_owned(), Content { bytes, flushed });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn pause(&self) {
        if self.takes_time {
            let longest = self.max_flush_millis.load(Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(self.random.below(longest + 1))).await;
        }
        self.goes_on().await;
    }

    /// Returns when its process does not stand still.
    pub async fn goes_on(&self) {
        // The sender lives as long as the disk.
        let _ = self.is_still.subscribe().wait_for(|is_still| !is_still).await;
    }
}

/// A disk in use by one process.
#[derive(Clone)]
pub struct Mounted {
    disk: Arc<SimulatedDisk>,
    crashes: u64,
}

impl Mounted {
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.state();
        match state.crashes == self.crashes {
            true => Ok(state),
            false => Err(io::Error::other("this process is dead")),
        }
    }
}

fn absent(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, path.display().to_string())
}

#[async_trait]
impl Disk for Mounted {
    async fn create_directory(&self, _: &Path) -> io::Result<()> {
        self.state().map(drop)
    }

    async fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        let state = self.state()?;
        Ok(state
            .files
            .keys()
            .filter(|path| path.parent() == Some(directory))
            .cloned()
            .collect())
    }

    async fn read(&self, path: &Path) -> io::Result<Bytes> {
        let state = self.state()?;
        state
            .files
            .get(path)
            .map(|content| Bytes::copy_from_slice(&content.bytes))
            .ok_or_else(|| absent(path))
    }

    async fn read_range(&self, path: &Path, offset: u64, length: usize) -> io::Result<Bytes> {
        let state = self.state()?;
        let content = state.files.get(path).ok_or_else(|| absent(path))?;
        let whole = &content.bytes;
        let start = whole.len().min(offset as usize);
        Ok(Bytes::copy_from_slice(&whole[start..whole.len().min(start + length)]))
    }

    async fn write_atomic(&self, path: &Path, content: Bytes) -> io::Result<()> {
        self.disk.pause().await;
        let mut state = self.state()?;
        state.fault.check(path)?;
        state.files.insert(
            path.to_owned(),
            Content {
                bytes: content.to_vec(),
                flushed: content.len(),
            },
        );
        Ok(())
    }

    async fn open_append(&self, path: &Path, length: Option<u64>) -> io::Result<Box<dyn AppendFile>> {
        self.disk.pause().await;
        let mut state = self.state()?;
        state.fault.check(path)?;
        let content = state.files.entry(path.to_owned()).or_default();
        if let Some(length) = length {
            content.bytes.resize(length as usize, 0);
            content.flushed = content.bytes.len();
        }
        Ok(Box::new(Appending {
            mounted: self.clone(),
            path: path.to_owned(),
        }))
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.pause().await;
        let mut state = self.state()?;
        let content = state.files.remove(from).ok_or_else(|| absent(from))?;
        state.files.insert(to.to_owned(), content);
        Ok(())
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.pause().await;
        let mut state = self.state()?;
        state.files.remove(path).map(drop).ok_or_else(|| absent(path))
    }
}

impl DiskFault {
    fn check(self, path: &Path) -> io::Result<()> {
        match self {
            Self::None => Ok(()),
            Self::FullIn(folder) if !path.starts_with(folder) => Ok(()),
            Self::Full | Self::FullIn(_) => Err(io::Error::new(
                io::ErrorKind::StorageFull,
                "no space left on the simulated disk",
            )),
            Self::Broken => Err(io::Error::other("the simulated disk is broken")),
        }
    }
}

struct Appending {
    mounted: Mounted,
    path: PathBuf,
}

impl Appending {
    fn change<T>(&self, change: impl FnOnce(&mut Content) -> T) -> io::Result<T> {
        let mut state = self.mounted.state()?;
        state
            .files
            .get_mut(&self.path)
            .map(change)
            .ok_or_else(|| absent(&self.path))
    }
}

#[async_trait]
impl AppendFile for Appending {
    async fn append(&mut self, buffers: &[Bytes]) -> io::Result<()> {
        let fault = self.mounted.state()?.fault;
        let total: usize = buffers.iter().map(Bytes::len).sum();
        let checked = fault.check(&self.path);
        let taken = match checked {
            Ok(()) => total,
            Err(_) => self.mounted.disk.random.below(total as u64) as usize,
        };
        self.change(|content| {
            let end = content.bytes.len() + taken;
            buffers
                .iter()
                .for_each(|buffer| content.bytes.extend_from_slice(buffer));
            content.bytes.truncate(end);
        })?;
        checked
    }

    async fn sync(&mut self) -> io::Result<()> {
        // What is appended while a flush runs may or may not be in it; the writer waits, so it does not matter.
        self.mounted.disk.pause().await;
        self.mounted.state()?.fault.check(&self.path)?;
        self.change(|content| content.flushed = content.bytes.len())
    }
}
