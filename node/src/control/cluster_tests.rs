//! Whole metadata groups on loopback, over the production doors: every node has a runtime of its own, so that dropping
//! it is as good as a `kill -9`. A small stand-in for the replication layer catches learners up at once.

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::runtime::Runtime;
use tonic::{Status, Streaming};
use volt_engine::catalog::Column;
use volt_engine::value::DataType;
use volt_engine::{NodeId, PartitionId};
use volt_proto::v1::{
    CallBatch, CompareRequest, CompareResponse, FillChunk, FillRequest, LedPartition, RecoveriesResponse, ReplicaEnd,
    ReplicateRequest, ReplicateResponse, ReplyBatch,
};

use super::{Answers, BackupReads, DataPlane, Services, serve};
use crate::config::NodeConfig;
use crate::membership::{Membership, ReplicaReport};
use crate::metadata::Metadata;
use crate::metadata::command::{Applied, Command, NewTable, PartitionChange};
use crate::metadata::failure::Strategy;
use crate::metadata::identity::Founding;
use crate::metadata::map::{ClusterMap, PartitionInfo, ReplicationMode};
use crate::metadata::placement::{Placements, target_primaries};
use crate::peers::Peers;
use crate::world::World;

mod deaf;
mod hung_disk;

const LIMIT: Duration = Duration::from_secs(20);

struct NoData;

#[async_trait::async_trait]
impl DataPlane for NoData {
    fn keys(&self) -> super::Keys {
        super::Keys::default()
    }

    async fn replicate(&self, _: Streaming<ReplicateRequest>) -> Result<Answers<ReplicateResponse>, Status> {
        Err(Status::unimplemented("no data here"))
    }
    async fn fill(&self, _: Streaming<FillRequest>) -> Result<Answers<FillChunk>, Status> {
        Err(Status::unimplemented("no data here"))
    }
    fn recoveries(&self) -> Result<RecoveriesResponse, Status> {
        Err(Status::unimplemented("no data here"))
    }
    fn archive_report(&self) -> Result<crate::archive::Report, Status> {
        Err(Status::unimplemented("no data here"))
    }
    async fn compare(&self, _: CompareRequest) -> Result<CompareResponse, Status> {
        Err(Status::unimplemented("no data here"))
    }
    async fn calls(&self, _: Streaming<CallBatch>) -> Result<Answers<ReplyBatch>, Status> {
        Err(Status::unimplemented("no data here"))
    }
    fn archived(&self) -> Option<crate::archive::Figures> {
        None
    }

    fn linked(&self) -> crate::links::LinkReport {
        Default::default()
    }
    fn fills(&self) -> crate::control::FillFigures {
        crate::control::FillFigures::default()
    }
    fn storage(&self) -> crate::control::Storage {
        crate::control::Storage::default()
    }

    fn lags(&self) -> Vec<(PartitionId, u64)> {
        Vec::new()
    }

    fn expired_rows(&self) -> u64 {
        0
    }

    fn spool(&self) -> crate::balancing::spool::SpoolCounts {
        crate::balancing::spool::SpoolCounts::default()
    }

    fn queue(&self) -> crate::balancing::queue::QueueCounts {
        crate::balancing::queue::QueueCounts::default()
    }

    fn memory(&self) -> crate::txn::MemoryFigures {
        crate::txn::MemoryFigures::default()
    }

    fn backup_reads(&self) -> BackupReads {
        BackupReads::default()
    }

    fn not_serving(&self) -> Vec<PartitionId> {
        Vec::new()
    }
}

struct Report(Arc<Metadata>);

impl ReplicaReport for Report {
    fn led(&self) -> Vec<LedPartition> {
        Vec::new()
    }

    fn heard_of(&self, _: &[LedPartition], _: Duration) {}

    fn ends(&self) -> Vec<ReplicaEnd> {
        let map = self.0.map();
        let held = map
            .partitions
            .values()
            .filter(|partition| partition.role(self.0.node_id()).is_some());
        held.map(|partition| ReplicaEnd {
            partition_id: partition.partition_id,
            last_epoch: 1,
            appended: 1,
            committed: 1,
            epoch: partition.epoch,
        })
        .collect()
    }
}

struct Node {
    runtime: Option<Runtime>,
    metadata: Arc<Metadata>,
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// The ports and folders outlive the nodes.
struct Place {
    folder: TempDir,
    ports: Vec<u16>,
}

impl Place {
    fn new(nodes: usize) -> Self {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let _ = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .try_init();
        let free: Vec<TcpListener> = (0..nodes).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports = free.iter().map(|socket| socket.local_addr().unwrap().port()).collect();
        Self {
            folder: tempfile::tempdir().unwrap(),
            ports,
        }
    }

    fn config(&self, node: NodeId) -> NodeConfig {
        let mut config = NodeConfig::new(node, self.folder.path().join(format!("node-{node}")));
        config.peer_port = self.ports[node as usize - 1];
        config.join = vec![
            format!("127.0.0.1:{}", self.ports[0]),
            format!("127.0.0.1:{}", self.ports[1]),
        ];
        config
    }

    fn start(&self, node: NodeId) -> Node {
        let config = self.config(node);
        let world = open_world(&config.data);
        Self::start_in(config, world)
    }

    fn start_in(config: NodeConfig, world: World) -> Node {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let metadata = runtime.block_on(async move {
            let peers = Peers::new(&world);
            let boot_id = world.random.next_u64() >> 1;
            let listen = config.peer_listen();
            let metadata = Metadata::open(world.clone(), config.clone(), boot_id, Arc::clone(&peers))
                .await
                .unwrap();
            let listener = world.network.listen(&listen).await.unwrap();
            let report = Arc::new(Report(Arc::clone(&metadata)));
            let membership = Membership::new(world, config, Arc::clone(&metadata), Arc::clone(&peers), report);
            membership.start();
            let services = Services {
                metadata: Arc::clone(&metadata),
                membership,
                peers,
                data: Arc::new(NoData),
                started_at: 0,
            };
            tokio::spawn(serve(listener, services));
            let entering = Arc::clone(&metadata);
            tokio::spawn(async move { entering.enter().await });
            tokio::spawn(play_primary(Arc::clone(&metadata)));
            metadata
        });
        Node {
            runtime: Some(runtime),
            metadata,
        }
    }
}

/// The directory's lock goes with the last task of the process before.
fn open_world(data: &Path) -> World {
    let began = Instant::now();
    loop {
        match World::production(data) {
            Ok(world) => return world,
            Err(error) => assert!(began.elapsed() < LIMIT, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What the replication layer does, without data: learners are in sync at once, and who should hand over does.
async fn play_primary(metadata: Arc<Metadata>) {
    loop {
        tokio::time::sleep(Duration::from_millis(20)).await;
        if !metadata.lease().is_valid() {
            continue;
        }
        let map = metadata.map();
        let targets = target_primaries(&map, &Placements::new(&map));
        let own = map
            .partitions
            .values()
            .filter(|partition| map.living_primary(partition) == Some(metadata.node_id()));
        for partition in own {
            if let Some(change) = wish(&map, partition, targets.get(&partition.partition_id).copied()) {
                let (by, boot_id) = (metadata.node_id(), metadata.boot_id());
                let _ = metadata
                    .propose(Command::ChangePartition {
                        by,
                        boot_id,
                        change,
                        grounds: None,
                    })
                    .await;
            }
        }
    }
}

fn wish(map: &ClusterMap, partition: &PartitionInfo, target: Option<NodeId>) -> Option<PartitionChange> {
    let mut change = PartitionChange {
        partition: partition.partition_id,
        epoch: partition.epoch,
        primary: partition.primary,
        in_sync: partition.in_sync.clone(),
        learners: partition.learners.clone(),
    };
    if let Some(learner) = partition.learners.iter().find(|node| map.is_alive(**node)) {
        change.learners.remove(learner);
        change.in_sync.insert(*learner);
        return Some(change);
    }
    change.primary = Some(target?);
    Some(change)
}

impl Node {
    fn map(&self) -> Arc<ClusterMap> {
        self.metadata.map()
    }

    fn propose(&self, command: Command) -> Applied {
        self.runtime
            .as_ref()
            .unwrap()
            .block_on(self.metadata.propose(command))
            .unwrap()
    }

    fn initialise(&self) {
        let founding = Founding {
            partitions: 12,
            awaits_restoration: false,
        };
        self.runtime
            .as_ref()
            .unwrap()
            .block_on(self.metadata.initialise("", founding))
            .unwrap();
    }
}

#[track_caller]
fn eventually(what: &str, nodes: &[&Node], done: impl Fn(&Node) -> bool) -> Duration {
    let began = Instant::now();
    while !nodes.iter().all(|node| done(node)) {
        assert!(
            began.elapsed() < LIMIT,
            "never: {what}\n{}",
            nodes.iter().map(|node| show(node)).collect::<String>()
        );
        std::thread::sleep(Duration::from_millis(1));
    }
    began.elapsed()
}

fn show(node: &Node) -> String {
    let metadata = &node.metadata;
    let (leader, lease) = (metadata.leader(), metadata.lease().is_valid());
    format!(
        "node {} leader {leader:?} lease {lease} voters {:?}\n{:#?}\n",
        metadata.node_id(),
        metadata.voters(),
        metadata.map()
    )
}

fn is_led_by_the_living(map: &ClusterMap) -> bool {
    !map.partitions.is_empty()
        && map
            .partitions
            .values()
            .all(|partition| map.living_primary(partition).is_some())
}

fn is_whole(map: &ClusterMap, nodes: usize) -> bool {
    is_led_by_the_living(map)
        && map
            .partitions
            .values()
            .all(|partition| partition.in_sync.len() == nodes && partition.restarted.is_empty())
}

fn table() -> Command {
    let column = Column {
        name: "id".to_owned(),
        data_type: DataType::Int,
        nullable: false,
        default: None,
        is_dropped: false,
        missing: volt_engine::value::Value::Null,
    };
    let table = NewTable {
        name: "example".to_owned(),
        columns: vec![column],
        primary_key: vec![0],
        partition_column: Some(0),
        indexes: Vec::new(),
        checks: Vec::new(),
        sequences: Vec::new(),
        ttl: None,
    };
    Command::CreateTable {
        table,
        replication: 2,
        mode: ReplicationMode::Sync,
    }
}

fn three(place: &Place) -> [Node; 3] {
    let first = place.start(1);
    first.initialise();
    let nodes = [first, place.start(2), place.start(3)];
    let all: Vec<&Node> = nodes.iter().collect();
    eventually("three voters", &all, |node| {
        node.metadata.voters().len() == 3 && node.map().nodes.len() == 3
    });
    let made = nodes[1].propose(table());
    assert!(matches!(made, Applied::TableCreated(table) if table.id == 1));
    assert!(
        nodes[1].map().table("example").is_some(),
        "who proposed sees it at once"
    );
    eventually("a whole cluster with leases", &all, |node| {
        is_whole(&node.map(), 3) && node.metadata.lease().is_valid()
    });
    nodes
}

#[test]
fn a_death_is_decided_and_the_dead_come_back() {
    let place = Place::new(3);
    let mut nodes = three(&place).map(Some);
    for round in 0..2 {
        let leader = nodes[0]
            .as_ref()
            .or(nodes[1].as_ref())
            .and_then(|node| node.metadata.leader())
            .unwrap();
        let victim = if round == 0 { leader % 3 + 1 } else { leader };
        let uuid = nodes[victim as usize - 1]
            .as_ref()
            .unwrap()
            .metadata
            .identity()
            .unwrap()
            .cluster_uuid;
        let killed = Instant::now();
        drop(nodes[victim as usize - 1].take());
        let living: Vec<&Node> = nodes.iter().flatten().collect();
        let decided = |node: &Node| !node.map().is_alive(victim) && is_led_by_the_living(&node.map());
        eventually("new primaries", &living, decided);
        eprintln!(
            "node {victim} (leader {leader}) killed: decided after {} ms",
            killed.elapsed().as_millis()
        );
        eventually("leases", &living, |node| node.metadata.lease().is_valid());
        assert_eq!(
            living[0].map().failovers.back().unwrap().finding.strategy,
            Strategy::Connection
        );
        let back = place.start(victim);
        assert_eq!(back.metadata.identity().unwrap().cluster_uuid, uuid);
        nodes[victim as usize - 1] = Some(back);
        let all: Vec<&Node> = nodes.iter().flatten().collect();
        eventually("whole again", &all, |node| {
            is_whole(&node.map(), 3) && node.metadata.lease().is_valid()
        });
        eventually("primaries everywhere", &all, |node| {
            node.map().nodes.keys().all(|id| node.map().roles(*id).primaries == 4)
        });
    }
}

#[test]
fn a_power_cut_loses_nothing() {
    let place = Place::new(3);
    let nodes = three(&place);
    let before = nodes[0].map();
    drop(nodes);
    let nodes = [3, 1, 2].map(|node| place.start(node));
    let all: Vec<&Node> = nodes.iter().collect();
    let took = eventually("whole again", &all, |node| {
        is_whole(&node.map(), 3) && node.metadata.lease().is_valid()
    });
    eprintln!("whole again {} ms after a power cut", took.as_millis());
    let after = nodes[0].map();
    assert_eq!(after.cluster_uuid, before.cluster_uuid);
    assert_eq!(after.tables, before.tables);
    assert!(
        after
            .partitions
            .iter()
            .all(|(id, partition)| partition.epoch > before.partitions[id].epoch)
    );
}

#[test]
fn an_empty_directory_never_makes_a_cluster_and_gets_a_new_incarnation() {
    let place = Place::new(3);
    let [first, second, third] = three(&place);
    drop(third);
    eventually("its death", &[&first, &second], |node| !node.map().is_alive(3));
    std::fs::remove_dir_all(place.config(3).data).unwrap();
    let third = place.start(3);
    let all = [&first, &second, &third];
    eventually("whole again", &all, |node| {
        is_whole(&node.map(), 3) && node.metadata.voters().len() == 3
    });
    assert_eq!(third.metadata.identity().unwrap().incarnation, 2);
    assert_eq!(first.map().nodes[&3].incarnation, 2);
}

#[test]
fn who_is_alone_loses_its_lease() {
    let place = Place::new(3);
    let [first, second, third] = three(&place);
    drop((second, third));
    eventually("the end of its lease", &[&first], |node| {
        !node.metadata.lease().is_valid()
    });
    std::thread::sleep(Duration::from_millis(1_500));
    assert!(!first.metadata.lease().is_valid());
}
