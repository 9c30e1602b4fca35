//! The metadata group: Raft over the cluster map and the catalog. The only authority on who is primary, who is in
//! sync, who is a node, and what the tables are. Knows nothing of SQL.
//!
//! `command` and `apply` are the state machine, pure; `raft` keeps its log; `lease` says how long a primary may believe
//! what it knows; `Metadata` is the handle that the rest of the node holds.

pub mod answer;
pub mod apply;
mod bounds;
pub mod command;
mod definitions;
mod entry;
pub mod failure;
mod handle;
pub mod hazard;
pub mod identity;
pub mod lease;
pub mod link;
pub mod map;
pub mod moves;
mod newest;
pub mod placement;
mod placements;
mod propose;
pub(crate) mod raft;
mod restoration;
pub mod sequence;
pub mod standby;

pub(crate) use apply::loss::Loss;
pub use entry::EnterError;
pub use handle::{Metadata, OpenError};
pub use propose::ProposeError;
pub(crate) use raft::salvage::{Remains, list};
