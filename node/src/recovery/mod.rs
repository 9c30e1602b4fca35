//! What survives: the node's log and its checkpoints, reading them back, and bringing a node back into sync.

pub(crate) mod checkpoint;
#[cfg(feature = "simulation")]
pub(crate) mod fuzzing;
pub mod log;
pub(crate) mod rejoin;
pub(crate) mod replay;

use std::sync::Arc;

use tokio::time::{Duration, Instant};
use uuid::Uuid;

use crate::config::{Durability, NodeConfig};
use crate::replication::replica::Replica;
use crate::world::World;
use checkpoint::Checkpointer;
use log::{DEFAULT_SEGMENT_BYTES, Log, LogError, LogOptions};
use replay::Replay;

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

/// Reads the newest checkpoint, then the log behind it, and opens the log.
pub(crate) async fn recover(world: &World, config: &NodeConfig, cluster: Uuid) -> Result<Recovered, LogError> {
    let began = Instant::now();
    let mut replay = Replay::default();
    let mut take = |partition, entry| {
        replay
            .take_checkpoint(partition, entry)
            .map_err(|error| error.to_string())
    };
    let loaded = match config.durability {
        Durability::Memory => None,
        Durability::Async | Durability::Fsync => checkpoint::load(world.disk.as_ref(), cluster, &mut take).await?,
    };
    let mut options = LogOptions::new(config.durability);
    options.segment_bytes = DEFAULT_SEGMENT_BYTES.min(config.checkpoint_bytes / SEGMENTS_A_CHECKPOINT);
    if let Some(loaded) = loaded {
        options.first_segment = loaded.first_segment;
        replay.checkpoint_ends(loaded.begun);
    }
    let first_segment = options.first_segment;
    let mut take = |partition, entry| replay.take(partition, entry).map_err(|error| error.to_string());
    let log = Arc::new(Log::open(world, options, cluster, &mut take).await?);
    let replicas = replay.finish().map_err(|error| LogError::Refused(error.to_string()))?;
    let checkpointer = Checkpointer::new(world, Arc::clone(&log), cluster, config.fill_chunk_bytes, loaded);
    if config.durability != Durability::Memory {
        checkpointer.tidy(first_segment).await;
    }
    let took = began.elapsed();
    tracing::info!(
        replicas = replicas.len(),
        log_bytes = log.bytes_on_disk(),
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
