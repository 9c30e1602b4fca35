//! The doors by which the world comes in: clock, network, disk, randomness, and how much memory there is.
//!
//! Node code outside `main.rs` meets the outside only here, so that a simulation can stand in for all of it.
//! Timers and tasks are tokio's (`tokio::time`, `tokio::spawn`), which a simulation controls too; `std::time` and
//! `std::thread` are not used outside this folder.

mod planted;
mod points;
pub mod production;
#[cfg(any(test, feature = "simulation"))]
pub mod simulated;
pub mod timed;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

pub use planted::{Planted, PlantedBug};
pub use points::CrashPoint;
#[cfg(any(test, feature = "simulation"))]
pub use points::Fate;

/// The doors of one node; cheap to clone.
#[derive(Clone)]
pub struct World {
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Connections.
    pub network: Arc<dyn Network>,
    /// Files.
    pub disk: Arc<dyn Disk>,
    /// Randomness.
    pub random: Arc<dyn Random>,
    /// How much memory there is.
    pub memory: Arc<dyn Memory>,
    /// What is wrong with the process on purpose; nothing in production.
    pub planted: Planted,
    /// Who decides whether the process ends at a `CrashPoint`; None: it never does.
    #[cfg(any(test, feature = "simulation"))]
    pub fate: Option<Arc<dyn Fate>>,
}

/// The clock's door.
pub trait Clock: Send + Sync {
    /// Time since some fixed moment, on a clock that runs through suspension (CLOCK_BOOTTIME): for leases.
    fn boot_time(&self) -> Duration;
    /// Microseconds since 1970, which may jump: for `now()` and ages, never for safety.
    fn unix_micros(&self) -> i64;
}

/// Randomness's door.
pub trait Random: Send + Sync {
    /// 64 fresh bits.
    fn next_u64(&self) -> u64;
}

/// The memory's door. Neither waits for anything.
pub trait Memory: Send + Sync {
    /// Bytes of this process that are in memory and that the kernel can't drop; None: nobody says.
    fn resident_bytes(&self) -> Option<u64>;
    /// What the process may take before the kernel ends something: its cgroup's limit or the machine's memory; None:
    /// nobody says.
    fn available_bytes(&self) -> Option<u64>;
}

/// A byte stream of the network.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// The network's door.
#[async_trait]
pub trait Network: Send + Sync {
    /// Connects to `host:port`. `ConnectionRefused` means that the machine is there and nobody listens.
    async fn connect(&self, address: &str) -> io::Result<Box<dyn Stream>>;
    /// Listens on `host:port`; port 0 takes a free one.
    async fn listen(&self, address: &str) -> io::Result<Box<dyn Listener>>;
}

/// A listening socket.
#[async_trait]
pub trait Listener: Send + Sync {
    /// The next connection and its peer's address.
    async fn accept(&self) -> io::Result<(Box<dyn Stream>, String)>;
    /// The address that it listens on, `ip:port`.
    fn local_address(&self) -> String;
}

/// The disk's door. Paths are absolute, or relative to the node's data directory.
#[async_trait]
pub trait Disk: Send + Sync {
    /// Makes a directory and its parents.
    async fn create_directory(&self, path: &Path) -> io::Result<()>;
    /// The files of a directory, sorted by name; empty if there is no such directory.
    async fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>>;
    /// A whole file.
    async fn read(&self, path: &Path) -> io::Result<Bytes>;
    /// A file's bytes from `offset` on: so many, or fewer where it ends.
    async fn read_range(&self, path: &Path, offset: u64, length: usize) -> io::Result<Bytes>;
    /// Replaces a file, whole or not at all, durably (write aside, sync, rename, sync the directory).
    async fn write_atomic(&self, path: &Path, content: Bytes) -> io::Result<()>;
    /// Opens a file to append to, made if absent, cut to `length` bytes first if given.
    async fn open_append(&self, path: &Path, length: Option<u64>) -> io::Result<Box<dyn AppendFile>>;
    /// Gives a file, whose content is synced, another name, perhaps in another directory of the same file system, durably; a file of that name
    /// is replaced. Of several who move a file at a time one succeeds, and the others have `NotFound`.
    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file, durably.
    async fn remove(&self, path: &Path) -> io::Result<()>;
}

/// A file that is only appended to.
#[async_trait]
pub trait AppendFile: Send {
    /// Writes the buffers, in order, at the end.
    async fn append(&mut self, buffers: &[Bytes]) -> io::Result<()>;
    /// Returns when all that was appended would survive a power cut.
    async fn sync(&mut self) -> io::Result<()>;
    /// The two in one; on a real disk in one hop to a blocking thread, which is what a group commit waits for.
    async fn append_and_sync(&mut self, buffers: &[Bytes]) -> io::Result<()> {
        self.append(buffers).await?;
        self.sync().await
    }
}
