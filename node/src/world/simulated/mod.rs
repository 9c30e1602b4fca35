//! The doors in simulation: everything that happens is a function of one seed.
//!
//! The clock is tokio's paused one, the network turmoil's, the disk a map in memory that loses what was not flushed, and
//! randomness one generator a node. `tests/simulation/README.md` says what is outside their reach.

mod disk;
#[cfg(feature = "simulation")]
mod network;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use tokio::time::Instant;

pub use disk::{DiskFault, Mounted, SimulatedDisk};
#[cfg(feature = "simulation")]
pub use network::{Faults, SimulatedNetwork};

use super::{Clock, Listener, Memory, Network, Planted, Random, Stream, World};

/// Microseconds since 1970 at which simulations begin: 2026-01-01.
pub const EPOCH_MICROS: i64 = 1_767_225_600_000_000;

/// A generator that is a function of its seed; clones share it.
#[derive(Clone)]
pub struct SimulatedRandom(Arc<Mutex<StdRng>>);

impl SimulatedRandom {
    /// From this seed.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(StdRng::seed_from_u64(seed))))
    }

    /// A number below `bound`; 0 if that is 0.
    pub fn below(&self, bound: u64) -> u64 {
        match bound {
            0 => 0,
            bound => self.next_u64() % bound,
        }
    }
}

impl Random for SimulatedRandom {
    fn next_u64(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).next_u64()
    }
}

/// Simulated time, as old as the simulation, with the node's own offset of the calendar.
pub struct SimulatedClock {
    /// What the simulation's age was when this clock was made.
    age: Duration,
    made: Instant,
    /// How wrong the calendar is here.
    skew_micros: Arc<AtomicI64>,
    /// The process stands still.
    is_still: Arc<AtomicBool>,
    /// What the clock said first since then.
    stood_at: Mutex<Option<Duration>>,
}

impl SimulatedClock {
    /// For a process that starts when the simulation is `age` old. Call it inside the process's runtime.
    pub fn new(age: Duration, skew_micros: i64) -> Self {
        Self::with_calendar(age, Arc::new(AtomicI64::new(skew_micros)))
    }

    /// The same with a calendar that outlives the process, and that others may set wrong: by so many microseconds.
    pub fn with_calendar(age: Duration, skew_micros: Arc<AtomicI64>) -> Self {
        Self {
            age,
            made: Instant::now(),
            skew_micros,
            is_still: Arc::default(),
            stood_at: Mutex::default(),
        }
    }

    /// While this is true the process stands still, and looks at no clock: what of it goes on all the same sees none go on. Then the
    /// clock has run through.
    pub fn standing_still_with(mut self, is_still: Arc<AtomicBool>) -> Self {
        self.is_still = is_still;
        self
    }
}

impl Clock for SimulatedClock {
    fn boot_time(&self) -> Duration {
        let now = self.age + self.made.elapsed();
        let is_still = self.is_still.load(Ordering::Relaxed);
        let mut stood_at = self.stood_at.lock().unwrap_or_else(PoisonError::into_inner);
        match is_still {
            true => *stood_at.get_or_insert(now),
            false => {
                *stood_at = None;
                now
            }
        }
    }

    fn unix_micros(&self) -> i64 {
        EPOCH_MICROS
            + self.skew_micros.load(Ordering::Relaxed)
            + i64::try_from(self.boot_time().as_micros()).unwrap_or(i64::MAX / 2)
    }
}

/// As much memory as one says: 0 bytes are in use, and nothing limits them, until one says otherwise.
#[derive(Default)]
pub struct SimulatedMemory {
    /// Bytes in use.
    pub resident: AtomicU64,
    /// What there is.
    pub available: Option<u64>,
}

impl Memory for SimulatedMemory {
    fn resident_bytes(&self) -> Option<u64> {
        Some(self.resident.load(Ordering::Relaxed))
    }

    fn available_bytes(&self) -> Option<u64> {
        self.available
    }
}

/// No connections: for tests of what needs none.
pub struct NoNetwork;

#[async_trait]
impl Network for NoNetwork {
    async fn connect(&self, _: &str) -> io::Result<Box<dyn Stream>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn listen(&self, _: &str) -> io::Result<Box<dyn Listener>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl World {
    /// A simulated world for a process that starts now, without a limit of memory. The disk outlives the process; the rest is made anew.
    pub fn simulated(
        clock: SimulatedClock,
        network: Arc<dyn Network>,
        disk: Arc<SimulatedDisk>,
        random: SimulatedRandom,
    ) -> Self {
        Self {
            clock: Arc::new(clock),
            network,
            disk: Arc::new(disk.mount()),
            random: Arc::new(random),
            memory: Arc::new(SimulatedMemory::default()),
            planted: Planted::default(),
            fate: None,
        }
    }
}
