//! The nodes of a cluster on one machine: their settings, their processes, starting and stopping them.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Duration, Instant, sleep, timeout};
use volt_engine::value::timestamp_to_text;
use volt_proto::v1::{GetStatusResponse, InitialiseRequest};

use super::DevArguments;
use super::control::Control;
use super::process::NodeProcess;
use crate::txn::default_limit;
use crate::world::production::KernelMemory;

/// How long all nodes may take until they serve.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// Time between two looks at a node.
const READY_POLL: Duration = Duration::from_millis(50);
/// How long a node may take to stop before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of a log's end that an error shows.
const LOG_TAIL: usize = 2000;
/// Holds the cluster's UUID, and whether the first node has been told.
const IDENTITY_FILE: &str = "cluster";
const INITIALISED: &str = "initialised";

/// What one node is started with.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    /// Its number.
    pub node_id: u32,
    /// Its folder.
    pub folder: PathBuf,
    /// Its SQL port.
    pub sql_port: u16,
    /// Its peer port.
    pub peer_port: u16,
    http_port: u16,
    join: String,
    durability: crate::config::Durability,
    memory_limit: Option<u64>,
    /// How failures are found, replicas recover, the cluster is archived, and reads are spread.
    fault_tolerance: Vec<String>,
    log: String,
}

impl NodeSettings {
    fn new(arguments: &DevArguments, data: &Path, node_id: u32) -> Self {
        let place = (node_id - 1) as u16;
        let peers: Vec<String> = (0..arguments.nodes as u16)
            .map(|node| format!("127.0.0.1:{}", arguments.peer_port + node))
            .collect();
        Self {
            node_id,
            folder: data.join(format!("node-{node_id}")),
            sql_port: arguments.sql_port + place,
            peer_port: arguments.peer_port + place,
            http_port: arguments.http_port + place,
            join: peers.join(","),
            durability: arguments.durability,
            memory_limit: arguments
                .memory_limit
                .or_else(|| default_limit(&KernelMemory, arguments.nodes)),
            fault_tolerance: [
                arguments.detection.words(),
                arguments.recovery.words(),
                arguments.archive.words(),
                arguments.balancing.words(),
            ]
            .concat(),
            log: arguments.log.clone(),
        }
    }

    pub(super) fn arguments(&self) -> Vec<String> {
        let durability = clap::ValueEnum::to_possible_value(&self.durability);
        let pairs = [
            ("--node-id", self.node_id.to_string()),
            ("--name", format!("node-{}", self.node_id)),
            ("--advertise", "127.0.0.1".to_owned()),
            ("--listen", "127.0.0.1".to_owned()),
            ("--peer-port", self.peer_port.to_string()),
            ("--sql-port", self.sql_port.to_string()),
            ("--http-port", self.http_port.to_string()),
            ("--data", self.folder.display().to_string()),
            ("--join", self.join.clone()),
            (
                "--durability",
                durability.map_or_else(String::new, |value| value.get_name().to_owned()),
            ),
            ("--log", self.log.clone()),
        ];
        let memory_limit = self.memory_limit.map(|bytes| ("--memory-limit", bytes.to_string()));
        pairs
            .into_iter()
            .chain(memory_limit)
            .flat_map(|(name, value)| [name.to_owned(), value])
            .chain(self.fault_tolerance.iter().cloned())
            .collect()
    }

    pub(super) fn log_file(&self) -> PathBuf {
        self.folder.join("log.txt")
    }

    /// The end of its log, for an error.
    fn log_tail(&self) -> String {
        let log = std::fs::read(self.log_file()).unwrap_or_default();
        let tail = &log[log.len().saturating_sub(LOG_TAIL)..];
        String::from_utf8_lossy(tail).into_owned()
    }

    /// The first of its ports that somebody else listens on.
    async fn taken_port(&self) -> Option<(u16, &'static str)> {
        for (port, what) in [
            (self.sql_port, "sql"),
            (self.peer_port, "peer"),
            (self.http_port, "http"),
        ] {
            if TcpListener::bind(("127.0.0.1", port)).await.is_err() {
                return Some((port, what));
            }
        }
        None
    }
}

/// A node and, while it lives, its process.
pub struct DevNode {
    /// What it is started with.
    pub settings: NodeSettings,
    /// Its control service.
    pub control: Control,
    pub(super) process: Option<NodeProcess>,
}

impl DevNode {
    fn new(settings: NodeSettings) -> anyhow::Result<Self> {
        let control = Control::to(&format!("127.0.0.1:{}", settings.peer_port))?;
        Ok(Self {
            settings,
            control,
            process: None,
        })
    }

    /// Starts its process and prints where it is.
    pub fn start(&mut self) -> anyhow::Result<()> {
        let process = NodeProcess::start(&self.settings)?;
        let NodeSettings { node_id, sql_port, .. } = self.settings;
        super::supervisor::say(format_args!(
            "node={node_id} pid={} sql=127.0.0.1:{sql_port}",
            process.pid
        ));
        self.process = Some(process);
        Ok(())
    }

    /// Ends its process like `kill -9`.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill().await?;
        }
        Ok(())
    }

    /// Its process's id, while it lives.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(|process| process.pid)
    }

    /// How its process ended, once.
    pub(super) fn reap(&mut self) -> Option<(u32, std::process::ExitStatus)> {
        let process = self.process.as_mut()?;
        let status = process.ended()?;
        let pid = process.pid;
        self.process = None;
        Some((pid, status))
    }
}

/// All nodes of a cluster on this machine. Dropping it kills them.
pub struct DevCluster {
    /// The nodes, by number.
    pub nodes: Vec<DevNode>,
    data: PathBuf,
    restore: crate::config::RestoreArguments,
    _temporary: Option<tempfile::TempDir>,
}

impl DevCluster {
    /// Checks the ports, starts every node, initialises the cluster if it is new, and returns when all nodes serve.
    pub async fn start(arguments: &DevArguments) -> anyhow::Result<Self> {
        arguments.detection.detection()?;
        let temporary = if arguments.ephemeral {
            Some(tempfile::tempdir()?)
        } else {
            None
        };
        let folder = temporary
            .as_ref()
            .map_or(arguments.data.as_path(), tempfile::TempDir::path);
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let data = folder.canonicalize()?;
        for first in [arguments.sql_port, arguments.peer_port, arguments.http_port] {
            if u32::from(first) + arguments.nodes > u32::from(u16::MAX) {
                bail!("there are not enough ports from {first} on");
            }
        }
        let settings = (1..=arguments.nodes).map(|node_id| NodeSettings::new(arguments, &data, node_id));
        let nodes = settings.map(DevNode::new).collect::<anyhow::Result<Vec<_>>>()?;
        for node in &nodes {
            if let Some((port, what)) = node.settings.taken_port().await {
                let node_id = node.settings.node_id;
                bail!("port {port}, for {what} of node {node_id}, is taken; choose others with --{what}-port");
            }
        }
        let mut cluster = Self {
            nodes,
            data,
            restore: arguments.restore.clone(),
            _temporary: temporary,
        };
        for node in &mut cluster.nodes {
            node.start()?;
        }
        cluster.initialise().await?;
        cluster.wait_until_serving().await?;
        Ok(cluster)
    }

    /// Tells the first node once that it is the first; the UUID is written down before, so that a repetition is no harm.
    async fn initialise(&mut self) -> anyhow::Result<()> {
        let path = self.data.join(IDENTITY_FILE);
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        let mut words = written.split_whitespace();
        let uuid = words
            .next()
            .map_or_else(|| uuid::Uuid::from_u128(rand::random()).to_string(), str::to_owned);
        if words.next() == Some(INITIALISED) {
            return Ok(());
        }
        std::fs::write(&path, format!("{uuid}\n"))?;
        self.wait_for("answers", |cluster, answers| answers.len() == cluster.nodes.len())
            .await?;
        let request = InitialiseRequest {
            cluster_uuid: uuid.clone(),
            ..self.restore.in_request()
        };
        let made = self.nodes[0].control.initialise(request).await?;
        if made.restored_micros != 0 {
            println!("restored={} UTC", timestamp_to_text(made.restored_micros));
        }
        std::fs::write(&path, format!("{uuid} {INITIALISED}\n"))?;
        Ok(())
    }

    /// Returns when every node holds a lease and takes SQL connections.
    async fn wait_until_serving(&mut self) -> anyhow::Result<()> {
        self.wait_for("serves", |cluster, answers| {
            answers.len() == cluster.nodes.len() && answers.iter().all(|status| status.serving)
        })
        .await?;
        let deadline = Instant::now() + READY_TIMEOUT;
        for node in &self.nodes {
            let port = node.settings.sql_port;
            while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                if Instant::now() > deadline {
                    bail!("node {} does not listen on port {port}", node.settings.node_id);
                }
                sleep(READY_POLL).await;
            }
        }
        Ok(())
    }

    /// Returns when the cluster is whole: all nodes serve, and each partition has all its replicas in sync.
    pub async fn wait_until_whole(&mut self) -> anyhow::Result<()> {
        self.wait_for("is whole", |cluster, answers| {
            let nodes = cluster.nodes.len();
            let backups = |replication: u32| (replication as usize).min(nodes - 1);
            answers.len() == nodes
                && answers.iter().all(|status| {
                    status.serving
                        && status.nodes.iter().all(|node| node.is_alive)
                        && status.partitions.iter().all(|partition| {
                            partition.primary != 0 && partition.in_sync.len() > backups(partition.replication)
                        })
                })
        })
        .await
    }

    async fn wait_for(&mut self, what: &str, done: impl Fn(&Self, &[GetStatusResponse]) -> bool) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_TIMEOUT;
        loop {
            for node in &mut self.nodes {
                if let Some((pid, status)) = node.reap() {
                    let node_id = node.settings.node_id;
                    let tail = node.settings.log_tail();
                    bail!("node {node_id} (pid {pid}) has ended: {status}\n{tail}");
                }
            }
            let answers = futures::future::join_all(self.nodes.iter().map(|node| node.control.status())).await;
            let answers: Vec<GetStatusResponse> = answers.into_iter().flatten().collect();
            if done(self, &answers) {
                return Ok(());
            }
            if Instant::now() > deadline {
                let seconds = READY_TIMEOUT.as_secs();
                bail!(
                    "not every node {what} after {seconds} s; see log.txt in {}",
                    self.data.display()
                );
            }
            sleep(READY_POLL).await;
        }
    }

    /// What some living node knows of the cluster.
    pub async fn status(&self) -> Option<GetStatusResponse> {
        for node in self.nodes.iter().filter(|node| node.process.is_some()) {
            match node.control.status().await {
                Some(status) if status.serving => return Some(status),
                _ => {}
            }
        }
        None
    }

    /// Stops every node: asks first, kills what has not stopped in time.
    pub async fn stop(&mut self) {
        for process in self.nodes.iter().filter_map(|node| node.process.as_ref()) {
            process.terminate();
        }
        let deadline = Instant::now() + STOP_TIMEOUT;
        for node in &mut self.nodes {
            let Some(mut process) = node.process.take() else {
                continue;
            };
            if timeout(deadline - Instant::now(), process.wait()).await.is_err() {
                let _ = process.kill().await;
            }
        }
    }
}
