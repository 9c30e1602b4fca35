//! What one node is told when it starts: a plain struct, and the arguments and environment it is made of.

mod archive;
mod balancing;
mod detection;
mod recovery;
mod remote_database;

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use tokio::time::Duration;
use volt_engine::NodeId;

use crate::balancing::queue::QueueSettings;
use crate::balancing::spool::SpoolSettings;
use crate::statement::ReadSettings;

pub(crate) use archive::store_url;
pub use archive::{ArchiveArguments, ArchiveConfig, RestoreArguments, url as archive_url};
pub use balancing::BalancingArguments;
pub use detection::{DataChangeDetection, Detection, DetectionArguments, HeartbeatDetection, IntervalDetection};
pub use recovery::{Recovery, RecoveryArguments, RecoveryOrder, RecoverySource, RecoveryStrategy};
pub use remote_database::RemoteDatabase;

/// The peer protocol's port, unless another is given.
pub const DEFAULT_PEER_PORT: u16 = 7000;
/// SQL's port, unless another is given.
pub const DEFAULT_SQL_PORT: u16 = 5432;
/// The port of `/livez`, `/readyz` and `/metrics`, unless another is given.
pub const DEFAULT_HTTP_PORT: u16 = 8080;
/// SQL connections at a time, unless another number is given.
pub const DEFAULT_MAX_CONNECTIONS: usize = 1000;
/// Records that an asynchronous backup may lack, unless another number is given.
pub const DEFAULT_ASYNC_MAX_LAG: u64 = 10_000;
/// Bytes of committed records of a partition that are kept for backups, unless another number is given.
pub const DEFAULT_TAIL_MARGIN_BYTES: usize = 4 << 20;
/// Bytes of one chunk of a fill, unless another number is given.
pub const DEFAULT_FILL_CHUNK_BYTES: usize = 256 << 10;
/// Bytes that the log may grow by before a checkpoint is taken, unless another number is given.
pub const DEFAULT_CHECKPOINT_BYTES: u64 = 256 << 20;
/// The least limit of memory: less is a mistake, for an empty node takes more.
pub const MIN_MEMORY_LIMIT_BYTES: u64 = 16 << 20;
/// The one database that a cluster has.
pub const DATABASE: &str = "volt";

/// Everything that a node must know to start.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Its number, for good; never 0.
    pub node_id: NodeId,
    /// Its name: the pod's, or `node-1`.
    pub name: String,
    /// The host under which other nodes and clients reach it.
    pub advertise: String,
    /// The address that it listens on.
    pub listen: String,
    /// The peer protocol's port.
    pub peer_port: u16,
    /// SQL's port.
    pub sql_port: u16,
    /// The port of `/livez`, `/readyz` and `/metrics`.
    pub http_port: u16,
    /// Where its files are.
    pub data: PathBuf,
    /// Peer addresses of nodes that may be in the cluster already; its own may be among them.
    pub join: Vec<String>,
    /// Failure zone; may be empty.
    pub zone: String,
    /// When a write is safe on this node.
    pub durability: Durability,
    /// Whether the cluster promotes by itself.
    pub failover: FailoverMode,
    /// How clients prove who they are.
    pub authentication: Authentication,
    /// SQL connections at a time.
    pub max_connections: usize,
    /// How long a lease lasts.
    pub lease: Duration,
    /// Time between two heartbeats.
    pub heartbeat: Duration,
    /// How failures are found.
    pub detection: Detection,
    /// How replicas recover.
    pub recovery: Recovery,
    /// Where the cluster is archived.
    pub archive: Option<ArchiveConfig>,
    /// How sessions read that say nothing of it.
    pub reads: ReadSettings,
    /// The directory whose files are loaded; None: there is none.
    pub spool: Option<SpoolSettings>,
    /// How the queue is looked at; None: it is not.
    pub queue: Option<QueueSettings>,
    /// Bytes of committed records that each replica keeps in memory for backups that were away for a moment; one that
    /// lacks more is filled.
    pub tail_margin_bytes: usize,
    /// Records that a backup of an asynchronously replicated table may lack of what is acknowledged: beyond it writers wait. It
    /// is what the loss of a primary can cost a partition.
    pub async_max_lag: u64,
    /// Bytes of one chunk of a fill: how long a fill may hold its partition at a time.
    pub fill_chunk_bytes: usize,
    /// Bytes that the log grows by between two checkpoints.
    pub checkpoint_bytes: u64,
    /// Bytes of the process's memory beyond which it refuses writes; None: a share of what there is.
    pub memory_limit: Option<u64>,
    /// When the process started, in seconds since 1970 by its machine's clock; 0: unknown. For the operator, which
    /// compares it with what the same machine says of the container; nothing in a node depends on it.
    pub started_at: i64,
}

/// When a node calls an effects record its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Durability {
    /// At once; nothing is written to disk.
    Memory,
    /// At once; the log is written in the background.
    Async,
    /// When the log is flushed.
    Fsync,
}

/// Who starts a failover.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FailoverMode {
    /// The cluster itself.
    Automatic,
    /// Only a person.
    Manual,
}

/// How a SQL client proves who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Authentication {
    /// It is believed. For loopback, and inside a cluster's own network.
    Trust,
}

impl NodeConfig {
    /// A node with this number and folder, and the default of everything else, on loopback.
    pub fn new(node_id: NodeId, data: impl Into<PathBuf>) -> Self {
        Self {
            node_id,
            name: format!("node-{node_id}"),
            advertise: "127.0.0.1".to_owned(),
            listen: "127.0.0.1".to_owned(),
            peer_port: DEFAULT_PEER_PORT,
            sql_port: DEFAULT_SQL_PORT,
            http_port: DEFAULT_HTTP_PORT,
            data: data.into(),
            join: Vec::new(),
            zone: String::new(),
            durability: Durability::Fsync,
            failover: FailoverMode::Automatic,
            authentication: Authentication::Trust,
            max_connections: DEFAULT_MAX_CONNECTIONS,
            lease: Duration::from_millis(1000),
            heartbeat: Duration::from_millis(100),
            detection: Detection::default(),
            recovery: Recovery::default(),
            archive: None,
            reads: ReadSettings::default(),
            spool: None,
            queue: None,
            tail_margin_bytes: DEFAULT_TAIL_MARGIN_BYTES,
            async_max_lag: DEFAULT_ASYNC_MAX_LAG,
            fill_chunk_bytes: DEFAULT_FILL_CHUNK_BYTES,
            checkpoint_bytes: DEFAULT_CHECKPOINT_BYTES,
            memory_limit: None,
            started_at: 0,
        }
    }

    /// `host:port` of the peer protocol, for others.
    pub fn peer_address(&self) -> String {
        join_host_port(&self.advertise, self.peer_port)
    }

    /// `host:port` of SQL, for others.
    pub fn sql_address(&self) -> String {
        join_host_port(&self.advertise, self.sql_port)
    }

    /// `host:port` on which the peer protocol listens.
    pub fn peer_listen(&self) -> String {
        join_host_port(&self.listen, self.peer_port)
    }

    /// `host:port` on which SQL listens.
    pub fn sql_listen(&self) -> String {
        join_host_port(&self.listen, self.sql_port)
    }

    /// `host:port` on which `/livez`, `/readyz` and `/metrics` are served.
    pub fn http_listen(&self) -> String {
        join_host_port(&self.listen, self.http_port)
    }
}

fn join_host_port(host: &str, port: u16) -> String {
    if host.contains(':') && !host.starts_with('[') {
        return format!("[{host}]:{port}");
    }
    format!("{host}:{port}")
}

/// The arguments of `volt-node start`; each may also come from the environment.
#[derive(Args, Clone, Debug)]
pub struct StartArguments {
    /// The node's number, for good, from 1
    #[arg(long, env = "VOLT_NODE_ID", required_unless_present = "node_id_from_name", value_parser = clap::value_parser!(u32).range(1..))]
    node_id: Option<u32>,
    /// Takes the number from a StatefulSet pod's name: its ordinal + 1
    #[arg(
        long,
        env = "VOLT_NODE_ID_FROM_NAME",
        conflicts_with = "node_id",
        value_name = "NAME"
    )]
    node_id_from_name: Option<String>,
    /// The node's name [default: the pod's, or node-N]
    #[arg(long, env = "VOLT_NAME")]
    name: Option<String>,
    /// The host under which others reach this node
    #[arg(long, env = "VOLT_ADVERTISE", default_value = "127.0.0.1")]
    advertise: String,
    /// The address to listen on
    #[arg(long, env = "VOLT_LISTEN", default_value = "127.0.0.1")]
    listen: String,
    /// The peer protocol's port
    #[arg(long, env = "VOLT_PEER_PORT", default_value_t = DEFAULT_PEER_PORT)]
    peer_port: u16,
    /// SQL's port
    #[arg(long, env = "VOLT_SQL_PORT", default_value_t = DEFAULT_SQL_PORT)]
    sql_port: u16,
    /// The port of /livez, /readyz and /metrics
    #[arg(long, env = "VOLT_HTTP_PORT", default_value_t = DEFAULT_HTTP_PORT)]
    http_port: u16,
    /// The node's folder
    #[arg(long, env = "VOLT_DATA")]
    data: PathBuf,
    /// Peer addresses of nodes that may be in the cluster already, HOST:PORT,HOST:PORT
    #[arg(long, env = "VOLT_JOIN", value_delimiter = ',')]
    join: Vec<String>,
    /// Failure zone
    #[arg(long, env = "VOLT_ZONE", default_value = "")]
    zone: String,
    /// When a write is safe on this node
    #[arg(long, env = "VOLT_DURABILITY", value_enum, default_value = "fsync")]
    durability: Durability,
    /// Whether the cluster promotes by itself
    #[arg(long, env = "VOLT_FAILOVER", value_enum, default_value = "automatic")]
    failover: FailoverMode,
    /// How SQL clients prove who they are
    #[arg(long, env = "VOLT_AUTH", value_enum, default_value = "trust")]
    auth: Authentication,
    /// SQL connections at a time
    #[arg(long, env = "VOLT_MAX_CONNECTIONS", default_value_t = DEFAULT_MAX_CONNECTIONS)]
    max_connections: usize,
    /// How long a lease lasts, in milliseconds
    #[arg(long, env = "VOLT_LEASE_MS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(100..=60_000))]
    lease_ms: u64,
    /// Milliseconds between two heartbeats
    #[arg(long, env = "VOLT_HEARTBEAT_MS", default_value_t = 100, value_parser = clap::value_parser!(u64).range(10..=10_000))]
    heartbeat_ms: u64,
    #[command(flatten)]
    detection: DetectionArguments,
    #[command(flatten)]
    recovery: RecoveryArguments,
    #[command(flatten)]
    archive: ArchiveArguments,
    #[command(flatten)]
    balancing: BalancingArguments,
    /// Bytes that the log grows by between two checkpoints
    #[arg(long, env = "VOLT_CHECKPOINT_BYTES", default_value_t = DEFAULT_CHECKPOINT_BYTES, value_parser = clap::value_parser!(u64).range(4096..))]
    checkpoint_bytes: u64,
    /// Records that a backup of a MODE async table may lack of what is acknowledged; beyond that writers wait for it
    #[arg(long, env = "VOLT_ASYNC_MAX_LAG", value_name = "RECORDS", default_value_t = DEFAULT_ASYNC_MAX_LAG)]
    async_max_lag: u64,
    /// Bytes of memory beyond which the node refuses to put rows (53200) [default: 80 % of its cgroup's, or of the machine's]
    #[arg(long, env = "VOLT_MEMORY_LIMIT", value_name = "BYTES", value_parser = clap::value_parser!(u64).range(MIN_MEMORY_LIMIT_BYTES..))]
    memory_limit: Option<u64>,
}

/// Arguments that make no sense together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// `--node-id-from-name` needs a name like `demo-0`.
    #[error("no ordinal at the end of the name \"{0}\": it must look like demo-0")]
    NoOrdinal(String),
    /// A lease must outlive a few heartbeats.
    #[error("--lease-ms {lease} must be at least three times --heartbeat-ms {heartbeat}")]
    LeaseTooShort {
        /// Milliseconds.
        lease: u64,
        /// Milliseconds.
        heartbeat: u64,
    },
    /// Nothing would find a silent node.
    #[error(
        "--detect needs heartbeat or interval: data-change finds replicas that lag or differ, not nodes that are silent"
    )]
    NobodyDetected,
    /// It belongs to a strategy that is off.
    #[error("{setting} says nothing without {strategy} in --detect")]
    IdleSetting {
        /// The argument.
        setting: &'static str,
        /// Whose it is.
        strategy: &'static str,
    },
    /// There is nothing to take rows from.
    #[error("--recovery-source file-system needs --archive")]
    NoArchive,
    /// Every node must mean the same one.
    #[error("{0} {1} must be absolute: it is the same for all nodes")]
    RelativeDirectory(&'static str, String),
    /// It is read again at each connection.
    #[error("--liveness-database-password-file {0} must be absolute")]
    RelativeFile(String),
    /// It is nobody's.
    #[error("--liveness-database-password-file says nothing without --liveness-database")]
    NoDatabase,
    /// Why it can't be used; the URL is not repeated.
    #[error("--liveness-database: {0}")]
    UnusableDatabase(String),
}

impl StartArguments {
    /// The node's configuration, or what is wrong with the arguments.
    pub fn into_config(self) -> Result<NodeConfig, ConfigError> {
        let node_id = match (&self.node_id, &self.node_id_from_name) {
            (Some(id), _) => *id,
            (None, Some(name)) => node_id_of_name(name)?,
            (None, None) => return Err(ConfigError::NoOrdinal(String::new())),
        };
        if self.lease_ms < 3 * self.heartbeat_ms {
            return Err(ConfigError::LeaseTooShort {
                lease: self.lease_ms,
                heartbeat: self.heartbeat_ms,
            });
        }
        let detection = self.detection.detection()?;
        let (recovery, archive) = (self.recovery.recovery(), self.archive.archive());
        if recovery.source == RecoverySource::FileSystem && archive.is_none() {
            return Err(ConfigError::NoArchive);
        }
        let name = self.name.or(self.node_id_from_name);
        Ok(NodeConfig {
            node_id,
            name: name.unwrap_or_else(|| format!("node-{node_id}")),
            advertise: self.advertise,
            listen: self.listen,
            peer_port: self.peer_port,
            sql_port: self.sql_port,
            http_port: self.http_port,
            data: self.data,
            join: self.join.into_iter().filter(|address| !address.is_empty()).collect(),
            zone: self.zone,
            durability: self.durability,
            failover: self.failover,
            authentication: self.auth,
            max_connections: self.max_connections,
            lease: Duration::from_millis(self.lease_ms),
            heartbeat: Duration::from_millis(self.heartbeat_ms),
            detection,
            recovery,
            archive,
            reads: self.balancing.reads(),
            spool: self.balancing.spool()?,
            queue: self.balancing.queue(),
            tail_margin_bytes: DEFAULT_TAIL_MARGIN_BYTES,
            async_max_lag: self.async_max_lag,
            fill_chunk_bytes: DEFAULT_FILL_CHUNK_BYTES,
            checkpoint_bytes: self.checkpoint_bytes,
            memory_limit: self.memory_limit,
            started_at: 0,
        })
    }
}

/// `demo-0` is node 1.
fn node_id_of_name(name: &str) -> Result<NodeId, ConfigError> {
    let ordinal = name.rsplit_once('-').and_then(|(_, digits)| digits.parse::<u32>().ok());
    ordinal
        .and_then(|ordinal| ordinal.checked_add(1))
        .ok_or_else(|| ConfigError::NoOrdinal(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_id_from_pod_name() {
        assert_eq!(node_id_of_name("demo-0"), Ok(1));
        assert_eq!(node_id_of_name("my-db-11"), Ok(12));
        assert!(node_id_of_name("demo").is_err());
        assert!(node_id_of_name("demo-x").is_err());
    }

    #[test]
    fn addresses() {
        let mut config = NodeConfig::new(1, "/tmp/x");
        assert_eq!(config.peer_address(), "127.0.0.1:7000");
        config.listen = "::".to_owned();
        assert_eq!(config.sql_listen(), "[::]:5432");
    }
}
