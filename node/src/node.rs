//! One whole node: its parts, made and started in order, and stopped again.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use volt_engine::{Lsn, PartitionId};
use volt_proto::v1;

use crate::config::NodeConfig;
use crate::replication::{self, Replicas};
use crate::txn::Coordinator;

/// Answers that wait to be sent on one stream.
const ANSWERS_QUEUED: usize = 64;

/// The node's side of the calls that carry data between nodes.
struct Data {
    replicas: Arc<Replicas>,
    coordinator: Arc<Coordinator>,
}
