//! What a node serves on its peer port (node to node, operator to node, gRPC health) and over HTTP (metrics, probes).

mod archived;
mod backup_reads;
mod failures;
mod fills;
mod health;
mod http;
mod linked;
pub mod metrics;
mod operator;
mod peer;
mod peers;
mod queue;
mod server;
mod spool;
mod statements;
mod status;

use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use tonic::{Status, Streaming};
use volt_engine::{NodeId, PartitionId};
use volt_proto::v1::{
    CallBatch, CompareRequest, CompareResponse, FillChunk, FillRequest, RecoveriesResponse, ReplicateRequest,
    ReplicateResponse, ReplyBatch,
};

use crate::archive::Report as ArchiveReport;
use crate::balancing::queue::QueueCounts;
use crate::balancing::spool::SpoolCounts;
use crate::txn::MemoryFigures;

#[cfg(test)]
mod cluster_tests;

pub use fills::FillFigures;
pub use http::serve_http;
pub use server::{Services, serve};

/// Messages of one answered call.
pub type Answers<T> = BoxStream<'static, Result<T, Status>>;

/// A node's log and checkpoints, in figures; all 0 before it has read them back.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Storage {
    /// Bytes of log on disk.
    pub log_bytes: u64,
    /// Size of the newest checkpoint that this process took.
    pub checkpoint_bytes: u64,
    /// How long it took.
    pub checkpoint_seconds: f64,
    /// Checkpoints that this process took, and that failed.
    pub checkpoints: (u64, u64),
    /// How long the start took to read checkpoint and log back.
    pub replay_seconds: f64,
}

/// Idempotency keys, in figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    /// Kept in the partitions whose primary this node is.
    pub kept: u64,
    /// Requests that this node answered with what was kept.
    pub repeats: u64,
}

/// Reads of backups, in figures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackupReads {
    /// Partitions that this node's clients read at each node's backups.
    pub by_node: Vec<(NodeId, u64)>,
    /// Partitions whose primary they read because no backup could be.
    pub fallbacks: u64,
    /// How old the rows of each replica here may be; None: it can't be read.
    pub stalenesses: Vec<(PartitionId, Option<Duration>)>,
}

/// The part of the peer protocol that carries data: the replication and transaction layers'.
#[async_trait]
pub trait DataPlane: Send + Sync {
    /// Effects from a primary; acknowledgements flow back.
    async fn replicate(&self, requests: Streaming<ReplicateRequest>) -> Result<Answers<ReplicateResponse>, Status>;
    /// The state of one partition, for a learner.
    async fn fill(&self, requests: Streaming<FillRequest>) -> Result<Answers<FillChunk>, Status>;
    /// The fills of its replicas.
    fn recoveries(&self) -> Result<RecoveriesResponse, Status>;
    /// How far the partitions led here are archived, and restored.
    fn archive_report(&self) -> Result<ArchiveReport, Status>;
    /// The checksums of a backup here, for its primary.
    async fn compare(&self, request: CompareRequest) -> Result<CompareResponse, Status>;
    /// Requests of transactions and queries.
    async fn calls(&self, requests: Streaming<CallBatch>) -> Result<Answers<ReplyBatch>, Status>;
    /// Partitions whose primary this node is, and that it doesn't serve yet.
    fn not_serving(&self) -> Vec<PartitionId>;
    /// What it takes on disk, and what that took.
    fn storage(&self) -> Storage;
    /// Of each partition whose primary this node is: how many records its slowest backup in sync lacks.
    fn lags(&self) -> Vec<(PartitionId, u64)>;
    /// Its idempotency keys.
    fn keys(&self) -> Keys;
    /// Rows that it removed since its start because they had expired.
    fn expired_rows(&self) -> u64;
    /// What its fills come to.
    fn fills(&self) -> FillFigures;
    /// What it archives; None: nothing.
    fn archived(&self) -> Option<crate::archive::Figures>;
    /// What is told over replication links.
    fn linked(&self) -> crate::links::LinkReport;
    /// Its reads of backups.
    fn backup_reads(&self) -> BackupReads;
    /// Its memory.
    fn memory(&self) -> MemoryFigures;
    /// Files of the spool directory that it has loaded.
    fn spool(&self) -> SpoolCounts;
    /// Statements of the queue that it has run.
    fn queue(&self) -> QueueCounts;
}
