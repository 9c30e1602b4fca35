//! One whole node: its parts, made and started in order, and stopped again.
//!
//! ```text
//!   peer port open ──> identity? ──yes──> log read back ──> enters the cluster ──> replicas ──> SQL
//!                          └──no───> initialised or let in ──> empty log ──────────────┘
//! ```

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};

use anyhow::Context;
use async_trait::async_trait;
use futures::StreamExt;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Duration;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use volt_engine::{Lsn, PartitionId};
use volt_proto::v1;

use crate::archive::{self, Archiver, Store};
use crate::balancing::queue::{Queue, QueueCounts, QueueFigures};
use crate::balancing::spool::{Spool, SpoolCounts, SpoolFigures, SpoolView};
use crate::config::{ArchiveConfig, Durability, NodeConfig};
use crate::control::metrics::Metrics;
use crate::control::{Answers, BackupReads, DataPlane, FillFigures, Keys, Services, Storage, serve, serve_http};
use crate::gateway::{Gateway, GatewayMetrics, Limits};
use crate::links;
use crate::membership::{Membership, ReplicaReport};
use crate::metadata::Metadata;
use crate::metadata::command::Command;
#[cfg(test)]
use crate::metadata::map::ClusterMap;
use crate::peers::Peers;
use crate::query::SqlEngine;
use crate::recovery::checkpoint::Figures;
use crate::recovery::{self, Recovered};
use crate::replication::reports;
use crate::replication::{Replicas, fill, receiver, scrub};
use crate::statement::Database;
use crate::txn::{Coordinator, MemoryFigures};
use crate::world::timed::{Flushes, TimedDisk};
use crate::world::{Listener, World};

/// Messages of one stream that wait to be sent.
const STREAM_QUEUE: usize = 16;
/// Longest time that a stop gives the other nodes to take the primaries over.
const HAND_OVER_LIMIT: Duration = Duration::from_secs(2);
/// How often a stop looks whether they have.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A running node. It serves as soon as it belongs to a cluster and holds a lease.
pub struct Node {
    metadata: Arc<Metadata>,
    data: Arc<Data>,
    gateway: OnceLock<Gateway>,
    /// What loads files of the spool directory, runs statements of the queue, and tells links.
    workers: OnceLock<Vec<JoinHandle<()>>>,
    servers: Vec<JoinHandle<()>>,
    /// Why it can't go on, once it can't.
    failed: watch::Sender<Option<String>>,
}

/// What carries data, as soon as there is any.
#[derive(Default)]
struct Data {
    parts: OnceLock<(Arc<Replicas>, Arc<Coordinator>)>,
    /// What checkpoints came to, and how long the data directory took to read.
    storage: OnceLock<(Arc<Figures>, Duration)>,
    /// What archives this node's partitions, if anything does.
    archiver: OnceLock<Arc<Archiver>>,
    /// What came of files of the spool directory.
    spool: Arc<SpoolFigures>,
    /// What came of statements of the queue.
    queue: Arc<QueueFigures>,
    flushes: Arc<Flushes>,
}

impl Node {
    /// Opens the data directory and the ports, and goes on in the background: into the cluster, and to serving SQL.
    pub async fn start(config: NodeConfig, mut world: World) -> anyhow::Result<Arc<Self>> {
        let boot_id = world.random.next_u64() | 1;
        let peers = Peers::new(&world);
        let data = Arc::new(Data::default());
        let (clock, flushes) = (Arc::clone(&world.clock), Arc::clone(&data.flushes));
        world.disk = Arc::new(TimedDisk::new(Arc::clone(&world.disk), clock, flushes));
        let metadata = Metadata::open(world.clone(), config.clone(), boot_id, Arc::clone(&peers)).await?;
        let report: Arc<dyn ReplicaReport> = Arc::clone(&data) as _;
        let membership = Membership::new(
            world.clone(),
            config.clone(),
            Arc::clone(&metadata),
            Arc::clone(&peers),
            report,
        );
        let listen = async |address: String| {
            let listener = world.network.listen(&address).await;
            listener.with_context(|| format!("cannot listen on {address}"))
        };
        let started_at = config.started_at;
        let (peer_port, http_port) = (listen(config.peer_listen()).await?, listen(config.http_listen()).await?);
        let sql_port = listen(config.sql_listen()).await?;
        let plane: Arc<dyn DataPlane> = Arc::clone(&data) as _;
        let services = Services {
            metadata: Arc::clone(&metadata),
            membership: Arc::clone(&membership),
            peers: Arc::clone(&peers),
            data: Arc::clone(&plane),
            started_at,
        };
        let counted = Arc::<GatewayMetrics>::default();
        let metrics = Arc::new(Metrics::new(Arc::clone(&counted)).with_peers(Arc::clone(&peers)));
        let failed = watch::channel(None).0;
        let servers = vec![
            tokio::spawn(ends(serve(peer_port, services), "the peer port", failed.clone())),
            tokio::spawn(ends(
                serve_http(http_port, metrics, Arc::clone(&metadata), plane),
                "the HTTP port",
                failed.clone(),
            )),
        ];
        let node = Arc::new(Self {
            metadata,
            data,
            gateway: OnceLock::new(),
            workers: OnceLock::new(),
            servers,
            failed,
        });
        let coming = Arc::clone(&node);
        tokio::spawn(async move {
            let coming_up = coming.come_up(config, world, peers, membership, (sql_port, counted));
            let ended = tokio::select! {
                // Also while it comes up: without its member it is never let in.
                failure = coming.metadata.wait_failure() => {
                    Err(anyhow::anyhow!("the metadata group's member has stopped: {failure}"))
                }
                ended = coming_up => ended,
            };
            if let Err(error) = ended {
                coming.failed.send_replace(Some(format!("{error:#}")));
            }
        });
        Ok(node)
    }

    /// Becomes a node of the cluster, and serves until it can't any more.
    async fn come_up(
        &self,
        config: NodeConfig,
        world: World,
        peers: Arc<Peers>,
        membership: Arc<Membership>,
        (sql_port, counted): (Box<dyn Listener>, Arc<GatewayMetrics>),
    ) -> anyhow::Result<()> {
        if self.metadata.identity().is_none() {
            self.metadata.enter().await?;
        }
        let recovered = self.read_back(&config, &world).await?;
        let log = recovered.log;
        let figures = recovered.checkpointer.figures();
        let _ = self.data.storage.set((figures, recovered.took));
        let replicas = Replicas::new(
            (config.node_id, self.metadata.boot_id()),
            world.clone(),
            Arc::clone(&self.metadata),
            peers,
            (Arc::clone(&log), &config),
            recovered.replicas,
        );
        let coordinator = Coordinator::new(Arc::clone(&replicas), &config);
        let _ = self.data.parts.set((Arc::clone(&replicas), Arc::clone(&coordinator)));
        membership.start();
        replicas.start();
        if config.durability != Durability::Memory {
            let checkpointed = Arc::clone(&replicas);
            let checkpoints = recovered.checkpointer;
            tokio::spawn(checkpoints.run(config.checkpoint_bytes, move |mark| checkpointed.all_at(mark)));
        }
        coordinator.start();
        if let Some(config) = &config.archive {
            let archiver = self.archive(config, &world, &replicas, &coordinator)?;
            let _ = self.data.archiver.set(archiver);
        }
        tokio::spawn(archive::restore_what_is_left(Arc::clone(&replicas)));
        tokio::spawn(archive::follow_archive(Arc::clone(&replicas), Arc::clone(&coordinator)));
        let links = links::start(&replicas, &coordinator.participant.links);
        self.metadata.enter().await?;
        let settings = config.spool.clone();
        let view = settings
            .as_ref()
            .map(|spool| SpoolView::new(Arc::clone(&world.disk), &spool.directory));
        let database = Arc::new(SqlEngine::new(coordinator, Arc::clone(&self.metadata), view));
        let mut workers = self.start_workers(&config, &world, &database);
        workers.extend(links);
        let _ = self.workers.set(workers);
        let limits = Limits {
            max_connections: config.max_connections,
            authentication: config.authentication,
            reads: config.reads,
        };
        let _ = self.gateway.set(Gateway::serve(
            sql_port,
            limits,
            Arc::clone(&world.random),
            database,
            counted,
        ));
        // A log that can't be written acknowledges nothing any more: another replica must take over.
        let failure = log.wait_failure().await;
        anyhow::bail!("the log has stopped: {failure}")
    }

    fn archive(
        &self,
        config: &ArchiveConfig,
        world: &World,
        replicas: &Arc<Replicas>,
        coordinator: &Arc<Coordinator>,
    ) -> anyhow::Result<Arc<Archiver>> {
        let store = Store::new(world, &config.url, self.cluster()?)?;
        Ok(archive::start(config, store, replicas, coordinator))
    }

    fn cluster(&self) -> anyhow::Result<uuid::Uuid> {
        let identity = self.metadata.identity().ok_or_else(|| anyhow::anyhow!("no identity"))?;
        Ok(uuid::Uuid::try_parse(&identity.cluster_uuid)?)
    }

    /// What does the work that comes through a directory, and through a table.
    fn start_workers(&self, config: &NodeConfig, world: &World, database: &Arc<SqlEngine>) -> Vec<JoinHandle<()>> {
        let parts = || {
            (
                world.clone(),
                Arc::clone(&self.metadata),
                Arc::clone(database) as Arc<dyn Database>,
            )
        };
        let mut workers = Vec::new();
        if let Some(settings) = config.spool.clone() {
            workers.extend(Spool::new(parts(), settings, Arc::clone(&self.data.spool)).start());
        }
        if let Some(settings) = config.queue.clone() {
            workers.push(Queue::new(parts(), settings, Arc::clone(&self.data.queue)).start());
        }
        workers
    }

    /// Reads the data directory back into replicas.
    async fn read_back(&self, config: &NodeConfig, world: &World) -> anyhow::Result<Recovered> {
        Ok(recovery::recover(world, config, self.cluster()?, recovery::Reading::of_runtime()).await?)
    }

    /// Returns when the node can't go on, with the reason.
    pub async fn run_until_stopped(&self) -> anyhow::Result<()> {
        let mut failed = self.failed.subscribe();
        match failed.wait_for(Option::is_some).await {
            Ok(why) => anyhow::bail!("{}", why.as_deref().unwrap_or_default()),
            Err(_) => Ok(()),
        }
    }

    /// Stops gently: the other nodes take the primaries over first, then statements end, then the log is flushed.
    pub async fn stop(&self) {
        if let Some(gateway) = self.gateway.get() {
            gateway.close();
        }
        self.workers.get().into_iter().flatten().for_each(JoinHandle::abort);
        self.give_primaries_away().await;
        if let Some(gateway) = self.gateway.get() {
            gateway.stop().await;
        }
        self.servers.iter().for_each(JoinHandle::abort);
        if let Some((replicas, _)) = self.data.parts.get() {
            let _ = replicas.log.close().await;
        }
        self.metadata.shutdown().await;
    }

    async fn give_primaries_away(&self) {
        let node_id = self.metadata.node_id();
        let yields = Command::SetYields { node_id, yields: true };
        let deadline = tokio::time::Instant::now() + HAND_OVER_LIMIT;
        if !matches!(
            tokio::time::timeout_at(deadline, self.metadata.propose(yields)).await,
            Ok(Ok(_))
        ) {
            return;
        }
        while tokio::time::Instant::now() < deadline {
            if self.metadata.map().primaries_to_hand_over(node_id) == 0 {
                return;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// What the metadata group has decided, as far as this node knows.
    #[cfg(test)]
    pub(crate) fn map(&self) -> Arc<ClusterMap> {
        self.metadata.map()
    }

    /// (partition, committed LSN, checksum of the rows at it) of every replica: same LSN, same bytes.
    pub fn replica_checksums(&self) -> Vec<(PartitionId, Lsn, u64)> {
        self.data
            .parts
            .get()
            .map_or_else(Vec::new, |(replicas, _)| replicas.checksums())
    }
}

/// A server that ends takes the node with it.
async fn ends<E: std::fmt::Display>(
    server: impl Future<Output = Result<(), E>>,
    name: &str,
    failed: watch::Sender<Option<String>>,
) {
    let why = match server.await {
        Ok(()) => format!("{name} is no longer served"),
        Err(error) => format!("{name}: {error}"),
    };
    failed.send_replace(Some(why));
}

impl ReplicaReport for Data {
    fn longest_flush(&self) -> Option<Duration> {
        self.flushes.take()
    }

    fn ends(&self) -> Vec<v1::ReplicaEnd> {
        self.parts.get().map_or_else(Vec::new, |(replicas, _)| replicas.ends())
    }

    fn led(&self) -> Vec<v1::LedPartition> {
        self.parts.get().map_or_else(Vec::new, |(replicas, _)| replicas.led())
    }

    fn heard_of(&self, led: &[v1::LedPartition], asked: Duration) {
        if let Some((replicas, _)) = self.parts.get() {
            replicas.heard_of(led, asked);
        }
    }
}

impl Data {
    fn parts(&self) -> Result<&(Arc<Replicas>, Arc<Coordinator>), Status> {
        self.parts
            .get()
            .ok_or_else(|| Status::unavailable("this node is starting"))
    }
}

fn answers<T: Send + 'static>(receiver: mpsc::Receiver<Result<T, Status>>) -> Answers<T> {
    ReceiverStream::new(receiver).boxed()
}

#[async_trait]
impl DataPlane for Data {
    async fn replicate(
        &self,
        requests: Streaming<v1::ReplicateRequest>,
    ) -> Result<Answers<v1::ReplicateResponse>, Status> {
        let (sender, receiver) = mpsc::channel(STREAM_QUEUE);
        tokio::spawn(receiver::serve(Arc::clone(&self.parts()?.0), requests, sender));
        Ok(answers(receiver))
    }

    async fn fill(&self, requests: Streaming<v1::FillRequest>) -> Result<Answers<v1::FillChunk>, Status> {
        let (sender, receiver) = mpsc::channel(fill::CHUNKS_IN_FLIGHT);
        tokio::spawn(fill::serve(Arc::clone(&self.parts()?.0), requests, sender));
        Ok(answers(receiver))
    }

    fn recoveries(&self) -> Result<v1::RecoveriesResponse, Status> {
        reports::serve(&self.parts()?.0)
    }

    fn archive_report(&self) -> Result<archive::Report, Status> {
        Ok(archive::own_report(&self.parts()?.0))
    }

    async fn compare(&self, request: v1::CompareRequest) -> Result<v1::CompareResponse, Status> {
        scrub::serve(&self.parts()?.0, &request).await
    }

    async fn calls(&self, requests: Streaming<v1::CallBatch>) -> Result<Answers<v1::ReplyBatch>, Status> {
        let (sender, receiver) = mpsc::channel(STREAM_QUEUE);
        let coordinator = Arc::clone(&self.parts()?.1);
        tokio::spawn(async move { coordinator.serve_calls(requests, sender).await });
        Ok(answers(receiver))
    }

    fn storage(&self) -> Storage {
        let (Some((replicas, _)), Some((figures, replay))) = (self.parts.get(), self.storage.get()) else {
            return Storage::default();
        };
        Storage {
            log_bytes: replicas.log.bytes_on_disk(),
            checkpoint_bytes: figures.bytes.load(Relaxed),
            checkpoint_seconds: Duration::from_micros(figures.micros.load(Relaxed)).as_secs_f64(),
            checkpoints: (figures.taken.load(Relaxed), figures.failed.load(Relaxed)),
            replay_seconds: replay.as_secs_f64(),
        }
    }

    fn lags(&self) -> Vec<(PartitionId, u64)> {
        self.parts.get().map_or_else(Vec::new, |(replicas, _)| replicas.lags())
    }

    fn keys(&self) -> Keys {
        let participant = self.parts.get().map(|(_, coordinator)| &coordinator.participant);
        participant.map_or_else(Keys::default, |participant| Keys {
            kept: participant.keys_kept(),
            repeats: participant.repeats(),
        })
    }

    fn expired_rows(&self) -> u64 {
        let participant = self.parts.get().map(|(_, coordinator)| &coordinator.participant);
        participant.map_or(0, |participant| participant.expiry.rows())
    }

    fn fills(&self) -> FillFigures {
        self.parts
            .get()
            .map_or_else(FillFigures::default, |(replicas, _)| replicas.filling.figures())
    }

    fn linked(&self) -> links::LinkReport {
        let participant = self.parts.get().map(|(_, coordinator)| &coordinator.participant);
        participant.map_or_else(Default::default, |participant| participant.links.report())
    }

    fn archived(&self) -> Option<archive::Figures> {
        self.archiver.get().map(|archiver| archiver.figures())
    }

    fn backup_reads(&self) -> BackupReads {
        let Some((replicas, coordinator)) = self.parts.get() else {
            return BackupReads::default();
        };
        let (by_node, fallbacks) = coordinator.balancer.figures();
        BackupReads {
            by_node,
            fallbacks,
            stalenesses: replicas.stalenesses(),
        }
    }

    fn memory(&self) -> MemoryFigures {
        let participant = self.parts.get().map(|(_, coordinator)| &coordinator.participant);
        participant.map_or_else(MemoryFigures::default, |participant| participant.memory.figures())
    }

    fn spool(&self) -> SpoolCounts {
        self.spool.counts()
    }

    fn queue(&self) -> QueueCounts {
        self.queue.counts()
    }

    fn not_serving(&self) -> Vec<PartitionId> {
        self.parts
            .get()
            .map_or_else(Vec::new, |(replicas, _)| replicas.not_serving())
    }
}

#[cfg(test)]
mod tests;
