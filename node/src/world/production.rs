//! The doors in production: the kernel's clocks, TCP, files, random numbers and accounts of memory.

mod memory;

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, Write};
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use rand::RngCore;
use rustix::fs::{FlockOperation, flock};
use rustix::time::{ClockId, clock_gettime};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};

pub use memory::KernelMemory;

use super::{AppendFile, Clock, Disk, Listener, Network, Planted, Random, Stream, World};

/// Connections that the kernel keeps for us while we are busy.
const LISTEN_BACKLOG: u32 = 1024;
/// The kernel asks an idle connection for a sign of life after this, and again; without, it breaks after 45 s. It is for
/// clients: their sessions hold memory and snapshots. Nodes ask each other sooner (`peers`).
const KEEPALIVE_AFTER: Duration = Duration::from_secs(15);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);
const KEEPALIVE_TRIES: u32 = 3;
/// A `writev` takes no more buffers than this (IOV_MAX).
const MAX_BUFFERS_A_WRITE: usize = 1024;
/// Holds the lock that says which process owns the directory.
const LOCK_FILE: &str = "LOCK";
/// What a file is called while it is not yet whole.
const UNFINISHED: &str = "unfinished";

impl World {
    /// The real world, with the node's files in `data_dir`, which is made if absent and belongs to this process while
    /// the world is in use: a second process gets `WouldBlock`.
    pub fn production(data_dir: &Path) -> io::Result<Self> {
        Ok(Self {
            clock: Arc::new(KernelClock),
            network: Arc::new(Tcp),
            disk: Arc::new(Directory::open(data_dir)?),
            random: Arc::new(KernelRandom),
            memory: Arc::new(KernelMemory),
            planted: Planted::default(),
            #[cfg(any(test, feature = "simulation"))]
            fate: None,
        })
    }
}

struct KernelClock;

impl Clock for KernelClock {
    fn boot_time(&self) -> Duration {
        let now = clock_gettime(ClockId::Boottime);
        Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
    }

    fn unix_micros(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
    }
}

struct KernelRandom;

impl Random for KernelRandom {
    fn next_u64(&self) -> u64 {
        // A generator of this thread's own that the kernel seeds again and again.
        rand::rng().next_u64()
    }
}

struct Tcp;

#[async_trait]
impl Network for Tcp {
    async fn connect(&self, address: &str) -> io::Result<Box<dyn Stream>> {
        let stream = TcpStream::connect(address).await?;
        prepare(&stream)?;
        Ok(Box::new(stream))
    }

    async fn listen(&self, address: &str) -> io::Result<Box<dyn Listener>> {
        let mut last = None;
        for candidate in lookup_host(address).await? {
            match listen_on(candidate) {
                Ok(listener) => return Ok(Box::new(listener)),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| io::Error::new(io::ErrorKind::AddrNotAvailable, format!("{address} names nothing"))))
    }
}

/// Sends what is written at once, and finds out in the end about another end that vanished without a word.
fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_AFTER)
        .with_interval(KEEPALIVE_EVERY)
        .with_retries(KEEPALIVE_TRIES);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

fn listen_on(address: SocketAddr) -> io::Result<TcpDoor> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // A restarted node must not wait until the connections of the one before have left TIME_WAIT.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let listener = socket.listen(LISTEN_BACKLOG)?;
    let local = listener.local_addr()?.to_string();
    Ok(TcpDoor { listener, local })
}

struct TcpDoor {
    listener: TcpListener,
    local: String,
}

#[async_trait]
impl Listener for TcpDoor {
    async fn accept(&self) -> io::Result<(Box<dyn Stream>, String)> {
        let (stream, peer) = self.listener.accept().await?;
        prepare(&stream)?;
        Ok((Box::new(stream), peer.to_string()))
    }

    fn local_address(&self) -> String {
        self.local.clone()
    }
}

/// The node's data directory. Every call runs on tokio's blocking threads, so that no fsync stops a statement.
struct Directory {
    root: PathBuf,
    /// Closed, and so unlocked, with the process.
    _lock: File,
}

impl Directory {
    fn open(root: &Path) -> io::Result<Self> {
        fs::create_dir_all(root)?;
        let root = root.canonicalize()?;
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(root.join(LOCK_FILE))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|errno| {
            let error = io::Error::from(errno);
            io::Error::new(
                error.kind(),
                format!("{} belongs to another process: {error}", root.display()),
            )
        })?;
        Ok(Self { root, _lock: lock })
    }
}

#[async_trait]
impl Disk for Directory {
    async fn create_directory(&self, path: &Path) -> io::Result<()> {
        let path = self.root.join(path);
        blocking(move || {
            if path.is_dir() {
                return Ok(());
            }
            fs::create_dir_all(&path)?;
            sync_parent(&path)
        })
        .await
    }

    async fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        let (directory, whole) = (directory.to_owned(), self.root.join(directory));
        blocking(move || {
            let entries = match fs::read_dir(whole) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                entries => entries?,
            };
            let mut files = Vec::new();
            for entry in entries {
                let entry = entry?;
                if entry.file_type()?.is_file() {
                    files.push(directory.join(entry.file_name()));
                }
            }
            files.sort();
            Ok(files)
        })
        .await
    }

    async fn read(&self, path: &Path) -> io::Result<Bytes> {
        let path = self.root.join(path);
        blocking(move || fs::read(path).map(Bytes::from)).await
    }

    async fn read_range(&self, path: &Path, offset: u64, length: usize) -> io::Result<Bytes> {
        let path = self.root.join(path);
        blocking(move || {
            let file = File::open(path)?;
            let mut bytes = vec![0; length];
            let mut filled = 0;
            while filled < length {
                match file.read_at(&mut bytes[filled..], offset + filled as u64)? {
                    0 => break,
                    read => filled += read,
                }
            }
            bytes.truncate(filled);
            Ok(bytes.into())
        })
        .await
    }

    async fn write_atomic(&self, path: &Path, content: Bytes) -> io::Result<()> {
        let path = self.root.join(path);
        blocking(move || {
            let mut aside = path.clone().into_os_string();
            aside.push(".");
            aside.push(UNFINISHED);
            let mut file = File::create(&aside)?;
            file.write_all(&content)?;
            file.sync_all()?;
            fs::rename(&aside, &path)?;
            sync_parent(&path)
        })
        .await
    }

    async fn open_append(&self, path: &Path, length: Option<u64>) -> io::Result<Box<dyn AppendFile>> {
        let path = self.root.join(path);
        blocking(move || {
            let is_new = !path.exists();
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)?;
            let end = match length {
                Some(length) => {
                    file.set_len(length)?;
                    file.sync_all()?;
                    length
                }
                None => file.metadata()?.len(),
            };
            if is_new {
                sync_parent(&path)?;
            }
            let file = Appending {
                file: Arc::new(file),
                end,
                broken: false,
            };
            Ok(Box::new(file) as Box<dyn AppendFile>)
        })
        .await
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (self.root.join(from), self.root.join(to));
        blocking(move || {
            fs::rename(&from, &to)?;
            sync_parent(&to)?;
            match from.parent() == to.parent() {
                true => Ok(()),
                false => sync_parent(&from),
            }
        })
        .await
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        let path = self.root.join(path);
        blocking(move || {
            fs::remove_file(&path)?;
            sync_parent(&path)
        })
        .await
    }
}

/// A file that grows. After a failed write or sync nobody knows what the disk holds (the kernel may drop dirty pages
/// after telling once), so that it then refuses everything.
struct Appending {
    file: Arc<File>,
    end: u64,
    broken: bool,
}

impl Appending {
    async fn run(&mut self, buffers: &[Bytes], sync: bool) -> io::Result<()> {
        if self.broken {
            return Err(io::Error::other("an earlier write to this file failed"));
        }
        // Stays so when this future is dropped in the middle: the write may go on behind our back.
        self.broken = true;
        let (file, start, buffers) = (Arc::clone(&self.file), self.end, buffers.to_vec());
        let end = blocking(move || {
            let end = write_all(&file, start, &buffers)?;
            if sync {
                file.sync_data()?;
            }
            Ok(end)
        })
        .await?;
        self.end = end;
        self.broken = false;
        Ok(())
    }
}

#[async_trait]
impl AppendFile for Appending {
    async fn append(&mut self, buffers: &[Bytes]) -> io::Result<()> {
        self.run(buffers, false).await
    }

    async fn sync(&mut self) -> io::Result<()> {
        self.run(&[], true).await
    }

    async fn append_and_sync(&mut self, buffers: &[Bytes]) -> io::Result<()> {
        self.run(buffers, true).await
    }
}

/// Writes all buffers from `start` on; returns where they end.
fn write_all(file: &File, start: u64, buffers: &[Bytes]) -> io::Result<u64> {
    let mut end = start;
    for some in buffers.chunks(MAX_BUFFERS_A_WRITE) {
        let slices: Vec<IoSlice<'_>> = some.iter().map(|buffer| IoSlice::new(buffer)).collect();
        let total: usize = some.iter().map(Bytes::len).sum();
        let written = rustix::io::pwritev(file, &slices, end)?;
        if written < total {
            write_rest(file, end, some, written)?;
        }
        end += total as u64;
    }
    Ok(end)
}

/// After a write that took only part: the rest, one buffer after another.
fn write_rest(file: &File, start: u64, buffers: &[Bytes], written: usize) -> io::Result<()> {
    let mut offset = 0;
    for buffer in buffers {
        let skip = written.saturating_sub(offset).min(buffer.len());
        file.write_all_at(&buffer[skip..], start + (offset + skip) as u64)?;
        offset += buffer.len();
    }
    Ok(())
}

/// Makes a new, renamed or removed name durable.
fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(io::Error::other("the runtime is shutting down")),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn files_are_appended_cut_listed_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let world = World::production(folder.path()).unwrap();
        let disk = &world.disk;
        disk.create_directory(Path::new("log")).await.unwrap();
        let path = Path::new("log/1");
        let mut file = disk.open_append(path, None).await.unwrap();
        file.append(&[Bytes::from_static(b"one"), Bytes::from_static(b"two")])
            .await
            .unwrap();
        file.append_and_sync(&[Bytes::from_static(b"three")]).await.unwrap();
        drop(file);
        assert_eq!(disk.read(path).await.unwrap(), &b"onetwothree"[..]);
        let mut file = disk.open_append(path, Some(3)).await.unwrap();
        let many: Vec<Bytes> = (0..3000).map(|_| Bytes::from_static(b"x")).collect();
        file.append_and_sync(&many).await.unwrap();
        assert_eq!(disk.read(path).await.unwrap().len(), 3003);
        disk.write_atomic(Path::new("log/0"), Bytes::from_static(b"whole"))
            .await
            .unwrap();
        assert_eq!(
            disk.list(Path::new("log")).await.unwrap(),
            [PathBuf::from("log/0"), PathBuf::from("log/1")]
        );
        assert_eq!(disk.read_range(path, 2, 3).await.unwrap(), &b"exx"[..]);
        assert_eq!(disk.read_range(path, 3000, 9).await.unwrap().len(), 3);
        disk.rename(Path::new("log/0"), Path::new("log/2")).await.unwrap();
        assert_eq!(disk.read(Path::new("log/2")).await.unwrap(), &b"whole"[..]);
        disk.rename(Path::new("log/2"), Path::new("log/0")).await.unwrap();
        disk.remove(path).await.unwrap();
        assert_eq!(disk.list(Path::new("log")).await.unwrap(), [PathBuf::from("log/0")]);
        assert!(disk.list(Path::new("absent")).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_directory_has_one_owner() {
        let folder = tempfile::tempdir().unwrap();
        let world = World::production(folder.path()).unwrap();
        assert!(World::production(folder.path()).is_err());
        drop(world);
        assert!(World::production(folder.path()).is_ok());
    }

    #[tokio::test]
    async fn a_dead_port_refuses_and_a_live_one_answers() {
        let folder = tempfile::tempdir().unwrap();
        let world = World::production(folder.path()).unwrap();
        let listener = world.network.listen("127.0.0.1:0").await.unwrap();
        let address = listener.local_address();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut heard = [0; 4];
            stream.read_exact(&mut heard).await.unwrap();
            stream.write_all(&heard).await.unwrap();
        });
        let mut stream = world.network.connect(&address).await.unwrap();
        stream.write_all(b"ping").await.unwrap();
        let mut heard = [0; 4];
        stream.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"ping");
        server.await.unwrap();
        drop(stream);
        let refused = world.network.connect(&address).await.err().unwrap();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn clocks_go_forward() {
        let before = KernelClock.boot_time();
        assert!(before > Duration::ZERO);
        assert!(KernelClock.boot_time() >= before);
        assert!(KernelClock.unix_micros() > 1_600_000_000_000_000);
        assert_ne!(KernelRandom.next_u64(), KernelRandom.next_u64());
    }
}
