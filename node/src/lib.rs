//! One node of a VoltCluster. `docs/architecture/` has a page for each layer; the folders are the layers, in the
//! order in which a statement meets them: gateway, query, txn, replication, recovery; beside them metadata,
//! membership, control and world.

pub mod archive;
mod balancing;
pub mod bench;
pub mod cli;
pub mod config;
pub mod control;
pub mod dev;
pub mod error;
#[cfg(feature = "simulation")]
#[doc(hidden)]
pub mod fuzzing;
pub mod gateway;
pub mod links;
pub mod membership;
pub mod metadata;
pub mod node;
pub mod peers;
pub mod query;
pub mod recovery;
pub mod replication;
pub mod statement;
pub mod txn;
pub mod world;

/// Stack of each thread that runs statements. The layers that walk a statement's tree recurse, and this carries the deepest
/// tree that the query layer lets in, in a build without optimisation too; only what is used takes memory.
pub const WORKER_STACK_BYTES: usize = 64 << 20;
