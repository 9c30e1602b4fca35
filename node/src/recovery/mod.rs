//! What survives: the node's log and its checkpoints, reading them back, and bringing a node back into sync.

pub(crate) mod checkpoint;
#[cfg(feature = "simulation")]
pub(crate) mod fuzzing;
mod lanes;
pub mod log;
pub(crate) mod rejoin;
pub(crate) mod replay;
pub(crate) mod sink;

use std::sync::Arc;

use tokio::time::{Duration, Instant};
use uuid::Uuid;

use crate::config::{Durability, NodeConfig};
use crate::replication::replica::Replica;
use crate::world::World;
use checkpoint::Checkpointer;
use lanes::{Lanes, MAX_LANES};
use log::blocks::READ_BLOCK_BYTES;
use log::{DEFAULT_SEGMENT_BYTES, Log, LogError, LogOptions};

/// A checkpoint makes whole segments needless: so many of them make up what the log may grow by between two.
const SEGMENTS_A_CHECKPOINT: u64 = 4;

/// What the data directory held.
pub(crate) struct Recovered {
    /// Open, and read back.
    pub(crate) log: Arc<Log>,
    /// As the checkpoint and the log left them.
    pub(crate) replicas: Vec<Replica>,
    /// To be run.
    pub(crate) checkpointer: Checkpointer,
    /// How long it took.
    pub(crate) took: Duration,
}

/// How the files are read at a start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    /// Tasks that apply what is read; a partition belongs to one of them.
    pub(crate) lanes: usize,
    /// Bytes that are read at a time.
    pub(crate) block_bytes: usize,
}

impl Reading {
    /// As many lanes as this runtime has threads.
    pub(crate) fn of_runtime() -> Self {
        let workers = tokio::runtime::Handle::current().metrics().num_workers();
        Self {
            lanes: workers.clamp(1, MAX_LANES),
            block_bytes: READ_BLOCK_BYTES,
        }
    }
}

/// Reads the newest checkpoint, then the log behind it, and opens the log.
pub(crate) async fn recover(
    world: &World,
    config: &NodeConfig,
    cluster: Uuid,
    reading: Reading,
) -> Result<Recovered, LogError> {
    let began = Instant::now();
    let mut lanes = Lanes::new(reading.lanes);
    let disk = world.disk.as_ref();
    let loaded = match config.durability {
        Durability::Memory => None,
        Durability::Async | Durability::Fsync => {
            checkpoint::load(disk, cluster, reading.block_bytes, &mut lanes).await?
        }
    };
    lanes.log_begins(loaded.map(|loaded| loaded.begun));
    let mut options = LogOptions::new(config.durability);
    options.segment_bytes = DEFAULT_SEGMENT_BYTES.min(config.checkpoint_bytes / SEGMENTS_A_CHECKPOINT);
    options.block_bytes = reading.block_bytes;
    options.first_segment = loaded.map_or(options.first_segment, |loaded| loaded.first_segment);
    let first_segment = options.first_segment;
    let log = Arc::new(Log::open(world, options, cluster, &mut lanes).await?);
    let replicas = lanes.finish().await.map_err(LogError::Refused)?;
    let checkpointer = Checkpointer::new(world, Arc::clone(&log), cluster, config.fill_chunk_bytes, loaded);
    if config.durability != Durability::Memory {
        checkpointer.tidy(first_segment).await;
    }
    let took = began.elapsed();
    tracing::info!(
        replicas = replicas.len(),
        log_bytes = log.bytes_on_disk(),
        lanes = reading.lanes,
        ?took,
        "read back"
    );
    Ok(Recovered {
        log,
        replicas,
        checkpointer,
        took,
    })
}
