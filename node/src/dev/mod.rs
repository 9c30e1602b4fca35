//! A cluster on one machine, for development: child processes of this program, real sockets between them.
//!
//! What must hold: no child outlives its supervisor, however that ends; a node that dies stays dead until somebody
//! asks for its recovery (`RECOVER NODE`), so that one can see what a death does.

pub mod cluster;
pub mod control;
pub mod process;
mod supervisor;

use std::path::PathBuf;

use clap::Args;

pub use supervisor::run;

/// Nodes on one machine at most.
pub const MAX_NODES: u32 = 9;
/// The first node's SQL port; the others' follow it.
pub const FIRST_SQL_PORT: u16 = 5433;
/// The first node's peer port; the others' follow it.
pub const FIRST_PEER_PORT: u16 = 7433;
/// The first node's HTTP port; the others' follow it.
pub const FIRST_HTTP_PORT: u16 = 8433;
/// The least nodes that survive the loss of one.
pub const NODES_TO_SURVIVE_A_LOSS: u32 = 3;

/// Arguments of `volt-node dev`.
#[derive(Args, Clone, Debug)]
pub struct DevArguments {
    /// How many nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_NODES)))]
    pub nodes: u32,
    /// The cluster's folder; what is in it is used again
    #[arg(long, default_value = "data", conflicts_with = "ephemeral")]
    pub data: PathBuf,
    /// Uses a temporary folder, and removes it at the end
    #[arg(long)]
    pub ephemeral: bool,
    /// The first node's SQL port; the others' follow it
    #[arg(long, default_value_t = FIRST_SQL_PORT)]
    pub sql_port: u16,
    /// The first node's peer port; the others' follow it
    #[arg(long, default_value_t = FIRST_PEER_PORT)]
    pub peer_port: u16,
    /// The first node's HTTP port; the others' follow it
    #[arg(long, default_value_t = FIRST_HTTP_PORT)]
    pub http_port: u16,
    /// When a write is safe on a node
    #[arg(long, value_enum, default_value = "fsync")]
    pub durability: crate::config::Durability,
    /// Bytes of memory beyond which a node refuses to put rows [default: 80 % of this machine's, shared by the nodes]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(crate::config::MIN_MEMORY_LIMIT_BYTES..))]
    pub memory_limit: Option<u64>,
    /// How failures are found
    #[command(flatten)]
    pub detection: crate::config::DetectionArguments,
    /// How replicas recover.
    #[command(flatten)]
    pub recovery: crate::config::RecoveryArguments,
    /// Where the cluster is archived
    #[command(flatten)]
    pub archive: crate::config::ArchiveArguments,
    /// What a new cluster begins with
    #[command(flatten)]
    pub restore: crate::config::RestoreArguments,
    /// Where sessions read
    #[command(flatten)]
    pub balancing: crate::config::BalancingArguments,
    /// What the nodes log, into log.txt in each one's folder
    #[arg(long, default_value = "warn")]
    pub log: String,
}
