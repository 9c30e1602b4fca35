//! One whole node: its parts, made and started in order, and stopped again.
//!
//! ```text
//!   peer port open ──> identity? ──yes──> log read back ──> enters the cluster ──> replicas ──> SQL
//!                          └──no───> initialised or let in ──> empty log ──────────────┘
//! ```

use std::sync::{Arc, OnceLock};

use tokio::sync::{mpsc, watch};
use tokio::time::Duration;
use tonic::{Status, Streaming};
use volt_engine::{Lsn, PartitionId};
use volt_proto::v1;

use crate::config::{Durability, NodeConfig};
use crate::control::{Control, DataPlane};
use crate::gateway::Gateway;
use crate::membership::{Membership, ReplicaReport};
use crate::metadata::Metadata;
use crate::metadata::command::Command;
use crate::peers::Peers;
use crate::query::SqlEngine;
use crate::recovery::log::{self, Log, LogOptions};
use crate::recovery::replay::Replay;
use crate::replication::{self, Replicas};
use crate::txn::Coordinator;
use crate::world::World;

/// Messages of one stream that wait to be sent.
const STREAM_QUEUE: usize = 64;
/// Longest time that a stop gives the other nodes to take the primaries over.
const HAND_OVER_LIMIT: Duration = Duration::from_secs(8);
/// How often a stop looks whether they have.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A running node. It serves as soon as it belongs to a cluster and holds a lease.
pub struct Node {
    metadata: Arc<Metadata>,
    data: Arc<Data>,
    control: Control,
    gateway: OnceLock<Gateway>,
    /// Why it can't go on, once it can't.
    failed: watch::Sender<Option<String>>,
}

/// What carries data, as soon as there is any.
#[derive(Default)]
struct Data {
    parts: OnceLock<(Arc<Replicas>, Arc<Coordinator>)>,
}

impl Node {
    /// Opens the data directory and the ports, and goes on in the background: into the cluster, and to serving SQL.
    pub async fn start(config: NodeConfig, world: World) -> anyhow::Result<Arc<Self>> {
        let boot_id = world.random.next_u64() | 1;
        let peers = Peers::new(&world);
        let data = Arc::new(Data::default());
        let metadata = Metadata::open(world.clone(), config.clone(), boot_id, Arc::clone(&peers)).await?;
        let report: Arc<dyn ReplicaReport> = Arc::clone(&data) as _;
        let membership = Membership::new(
            world.clone(),
            config.clone(),
            Arc::clone(&metadata),
            Arc::clone(&peers),
            report,
        );
        let plane: Arc<dyn DataPlane> = Arc::clone(&data) as _;
        let control = Control::start(&config, &world, Arc::clone(&metadata), Arc::clone(&membership), plane).await?;
        let node = Arc::new(Self {
            metadata,
            data,
            control,
            gateway: OnceLock::new(),
            failed: watch::channel(None).0,
        });
        tokio::spawn({
            let node = Arc::clone(&node);
            async move {
                if let Err(error) = node.come_up(config, world, peers, membership).await {
                    node.failed.send_replace(Some(format!("{error:#}")));
                }
            }
        });
        Ok(node)
    }

    async fn come_up(
        &self,
        config: NodeConfig,
        world: World,
        peers: Arc<Peers>,
        membership: Arc<Membership>,
    ) -> anyhow::Result<()> {
        if self.metadata.identity().is_none() {
            self.metadata.enter().await?;
        }
        let (log, recovered) = self.read_back(&config, &world).await?;
        let replicas = Replicas::new(
            (config.node_id, self.metadata.boot_id()),
            world.clone(),
            Arc::clone(&self.metadata),
            peers,
            (Arc::clone(&log), durability(config.durability)),
            recovered,
        );
        let coordinator = Coordinator::new(Arc::clone(&replicas));
        let _ = self.data.parts.set((Arc::clone(&replicas), Arc::clone(&coordinator)));
        membership.start();
        replicas.start();
        coordinator.start();
        self.metadata.enter().await?;
        let database = Arc::new(SqlEngine::new(coordinator, Arc::clone(&self.metadata)));
        let gateway = Gateway::start(&config, &world, database).await?;
        self.control.serving(&gateway);
        let _ = self.gateway.set(gateway);
        // A log that can't be written acknowledges nothing any more: another replica must take over.
        let failure = log.wait_failure().await;
        anyhow::bail!("the log has stopped: {failure}")
    }

    /// Reads the log back into replicas.
    async fn read_back(
        &self,
        config: &NodeConfig,
        world: &World,
    ) -> anyhow::Result<(Arc<Log>, Vec<replication::replica::Replica>)> {
        let identity = self.metadata.identity().ok_or_else(|| anyhow::anyhow!("no identity"))?;
        let cluster = uuid::Uuid::try_parse(&identity.cluster_uuid)?;
        let mut replay = Replay::default();
        let options = LogOptions::new(durability(config.durability));
        let mut take =
            |partition, entry| replay.take(partition, entry).map_err(|error| error.to_string());
        let log = Log::open(world, options, cluster, &mut take).await?;
        Ok((Arc::new(log), replay.finish()))
    }

    /// Returns why the node can't go on, once it can't.
    pub async fn run_until_failed(&self) -> anyhow::Error {
        let mut failed = self.failed.subscribe();
        match failed.wait_for(Option::is_some).await {
            Ok(why) => anyhow::anyhow!("{}", why.as_deref().unwrap_or("unknown")),
            Err(_) => anyhow::anyhow!("the node is gone"),
        }
    }

    /// Stops gently: the other nodes take the primaries over first, then statements end, then the log is flushed.
    pub async fn stop(&self) {
        self.give_primaries_away().await;
        if let Some(gateway) = self.gateway.get() {
            gateway.stop().await;
        }
        self.control.stop().await;
        if let Some((replicas, _)) = self.data.parts.get() {
            let _ = replicas.log.close().await;
        }
        self.metadata.shutdown().await;
    }

    async fn give_primaries_away(&self) {
        let node_id = self.metadata.node_id();
        let yields = Command::SetYields { node_id, yields: true };
        let deadline = tokio::time::Instant::now() + HAND_OVER_LIMIT;
        if !matches!(tokio::time::timeout_at(deadline, self.metadata.propose(yields)).await, Ok(Ok(_))) {
            return;
        }
        while tokio::time::Instant::now() < deadline {
            let map = self.metadata.map();
            let others = |partition: &crate::metadata::map::PartitionInfo| {
                partition.in_sync.iter().any(|&member| member != node_id && map.is_alive(member))
            };
            let left = map.partitions.values().filter(|info| info.primary == Some(node_id) && others(info)).count();
            if left == 0 {
                return;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// (partition, committed LSN, checksum of the rows at it) of every replica: same LSN, same bytes.
    pub fn replica_checksums(&self) -> Vec<(PartitionId, Lsn, u64)> {
        self.data.parts.get().map_or_else(Vec::new, |(replicas, _)| replicas.checksums())
    }
}

fn durability(of: Durability) -> log::Durability {
    match of {
        Durability::Memory => log::Durability::Memory,
        Durability::Async => log::Durability::Async,
        Durability::Fsync => log::Durability::Fsync,
    }
}

impl ReplicaReport for Data {
    fn ends(&self) -> Vec<v1::ReplicaEnd> {
        self.parts.get().map_or_else(Vec::new, |(replicas, _)| replicas.ends())
    }
}

impl Data {
    fn parts(&self) -> Result<&(Arc<Replicas>, Arc<Coordinator>), Status> {
        self.parts.get().ok_or_else(|| Status::unavailable("this node is starting"))
    }
}
