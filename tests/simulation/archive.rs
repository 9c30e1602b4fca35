//! The archive of some runs' clusters (`node/src/archive`): a folder that all nodes share, that outlives them all, and that has troubles of its own.
//! At the end another cluster is made of it (`restored`).

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use volt_node::config::ArchiveConfig;
use volt_node::world::simulated::{DiskFault, Mounted, SimulatedDisk, SimulatedRandom};
use volt_node::world::{AppendFile, Disk};

use crate::determinism::mix;
use crate::plan;
use crate::run::Cluster;

/// Where every node has it,
const FOLDER: &str = "/archive";
/// and what it is told.
pub const URL: &str = "file:///archive";

/// A committed record waits no longer, and so long is it from one cut to the next.
const INTERVAL: Duration = Duration::from_millis(100);
/// Seldom in a run: most bases are of records that were gone.
const BASE_EVERY: Duration = Duration::from_secs(2);

/// What the nodes' configuration says of it.
pub fn config() -> ArchiveConfig {
    ArchiveConfig {
        url: URL.to_owned(),
        interval: INTERVAL,
        cut_interval: INTERVAL,
        base_every: BASE_EVERY,
        keep: None,
    }
}

/// What goes wrong with it while clients work, beside what goes wrong with the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// From when on, from the start of the workload,
    pub at: Duration,
    /// and for how long.
    pub lasts: Duration,
    /// What.
    pub kind: TroubleKind,
}

/// What can go wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TroubleKind {
    /// A write takes up to so long.
    Slow(Duration),
    /// It takes nothing, and says why.
    Takes(DiskFault),
    /// This node does not reach it.
    Away(u32),
}

/// Of this seed, none to three.
pub fn troubles(seed: u64) -> Vec<Trouble> {
    let mut random = StdRng::seed_from_u64(mix(seed ^ 0xa4c8));
    let count = random.random_range(0..=3);
    let mut trouble = || {
        let millis = Duration::from_millis;
        let at = millis(random.random_range(0..3_000));
        let lasts = millis(random.random_range(100..2_000));
        let kind = match random.random_range(0..5) {
            0..2 => TroubleKind::Slow(millis(random.random_range(20..800))),
            2 => TroubleKind::Takes(DiskFault::Full),
            3 => TroubleKind::Takes(DiskFault::Broken),
            _ => TroubleKind::Away(random.random_range(1..=plan::nodes(seed))),
        };
        Trouble { at, lasts, kind }
    };
    (0..count).map(|_| trouble()).collect()
}

/// The folder, and who does not reach it.
pub struct Archive {
    folder: Arc<SimulatedDisk>,
    troubles: Vec<Trouble>,
    now: Mutex<State>,
}

/// How it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct State {
    longest: Option<Duration>,
    fault: DiskFault,
    away: BTreeSet<u32>,
}

impl Archive {
    /// Empty, with this seed's troubles.
    pub fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self {
            folder: SimulatedDisk::new(SimulatedRandom::new(mix(seed ^ 0xf01d)), true),
            troubles: troubles(seed),
            now: Mutex::default(),
        })
    }

    /// How it is so long after the work began; None: all troubles are over. The words of the trace, when that is news.
    pub fn is(&self, age: Option<Duration>) -> Option<String> {
        let mut state = State::default();
        let is_on = |trouble: &&Trouble| age.is_some_and(|age| age >= trouble.at && age < trouble.at + trouble.lasts);
        for trouble in self.troubles.iter().filter(is_on) {
            match trouble.kind {
                TroubleKind::Slow(longest) => state.longest = state.longest.max(Some(longest)),
                TroubleKind::Takes(fault) => state.fault = fault,
                TroubleKind::Away(node) => _ = state.away.insert(node),
            }
        }
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        if *now == state {
            return None;
        }
        self.folder.set_longest_flush(state.longest);
        self.folder.set_fault(state.fault);
        *now = state;
        Some(format!("the archive is {now:?}"))
    }

    /// A node's disk, in which the folder appears.
    pub fn seen_by(self: &Arc<Self>, node: u32, disk: &Arc<SimulatedDisk>) -> Arc<dyn Disk> {
        Arc::new(WithFolder {
            node,
            archive: Arc::clone(self),
            own: disk.mount(),
            shared: self.folder.mount(),
            disk: Arc::clone(disk),
        })
    }

    fn reaches(&self, node: u32) -> bool {
        let now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        !now.away.contains(&node)
    }
}

impl Cluster {
    /// One step of the archive's own: its troubles, and what clients had been told by then.
    pub(crate) fn look_at_the_archive(&self, now: Duration, age: Option<Duration>) {
        let Some(archive) = &self.shared.archive else { return };
        if let Some(news) = archive.is(age) {
            self.shared.trace.line(now.as_micros() as u64, &news);
            self.shared.run().happened.insert(plan::TROUBLED.to_owned());
        }
        if age.is_some() {
            self.shared.run().note_moment(now);
        }
    }
}

struct WithFolder {
    node: u32,
    archive: Arc<Archive>,
    disk: Arc<SimulatedDisk>,
    own: Mounted,
    shared: Mounted,
}

impl WithFolder {
    /// The disk on which this path is.
    async fn of(&self, path: &Path) -> io::Result<&Mounted> {
        if !path.starts_with(FOLDER) {
            return Ok(&self.own);
        }
        // Who stands still asks nothing.
        self.disk.goes_on().await;
        match self.archive.reaches(self.node) {
            true => Ok(&self.shared),
            false => Err(io::Error::new(io::ErrorKind::HostUnreachable, "no way to the archive")),
        }
    }
}

#[async_trait]
impl Disk for WithFolder {
    async fn create_directory(&self, path: &Path) -> io::Result<()> {
        self.of(path).await?.create_directory(path).await
    }

    async fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        self.of(directory).await?.list(directory).await
    }

    async fn read(&self, path: &Path) -> io::Result<Bytes> {
        self.of(path).await?.read(path).await
    }

    async fn read_range(&self, path: &Path, offset: u64, length: usize) -> io::Result<Bytes> {
        self.of(path).await?.read_range(path, offset, length).await
    }

    async fn write_atomic(&self, path: &Path, content: Bytes) -> io::Result<()> {
        self.of(path).await?.write_atomic(path, content).await
    }

    async fn open_append(&self, path: &Path, length: Option<u64>) -> io::Result<Box<dyn AppendFile>> {
        self.of(path).await?.open_append(path, length).await
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.of(from).await?.rename(from, to).await
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        self.of(path).await?.remove(path).await
    }
}
