//! The way to the other nodes: tonic channels through the world's network, by node id.
//!
//! Each node has two channels, so that a heartbeat never stands behind a megabyte of effects: one for control (Raft,
//! heartbeats, proposals) and one for data. Both connect when they are used, and again when they are used after a
//! break. A break of the control connection is told at once: it is the first sign of a dead process.
//!
//! Calls (transactions, reads, proposals, comparisons) go through a circuit breaker, one a channel (`breaker.rs`, `traffic.rs`); what is tried
//! again waits for a random part of a growing pause (`retry.rs`).

mod breaker;
mod connector;
pub(crate) mod remote;
pub(crate) mod retry;
mod traffic;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tonic::transport::{Channel, Endpoint};
use volt_engine::NodeId;
use volt_proto::MAX_MESSAGE_BYTES;
use volt_proto::v1::control_client::ControlClient;
use volt_proto::v1::peer_client::PeerClient;

use crate::metadata::map::ClusterMap;
use crate::world::{Network, World};

pub use breaker::{BreakerState, Transitions};
pub use connector::never_left;
pub(crate) use traffic::Refused;
use traffic::Traffic;
pub use traffic::{Line, LineFigures};

/// Longest wait for a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// A connection on which nothing comes for so long is asked for a sign of life, also when it is idle.
pub(crate) const KEEPALIVE_EVERY: Duration = Duration::from_secs(1);
/// One that gives none for so long is given up, and made anew when it is used: its machine may be gone, and another stand
/// under the same name. As long as a heartbeat's silence; and, like it, no proof of anybody's end.
pub(crate) const KEEPALIVE_LIMIT: Duration = Duration::from_secs(2);
/// How much of a stream may be on its way, unacknowledged by the reader.
const STREAM_WINDOW: u32 = 4 << 20;
/// The same for a whole connection.
const CONNECTION_WINDOW: u32 = 16 << 20;

/// Why there is no way to a node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// The map doesn't know it.
    #[error("node {0} is not in the cluster map")]
    Unknown(NodeId),
    /// Its address is not one.
    #[error("{0} is not an address")]
    Address(String),
}

/// The ways to all other nodes.
pub struct Peers {
    network: Arc<dyn Network>,
    lines: Mutex<BTreeMap<NodeId, Way>>,
    pub(crate) traffic: Traffic,
}

/// The way to one node.
#[derive(Clone)]
struct Way {
    address: String,
    /// The process that the map says is there.
    boot_id: u64,
    control: Channel,
    data: Channel,
    broken: Arc<Notify>,
}

impl Peers {
    /// Knows nobody yet.
    pub fn new(world: &World) -> Arc<Self> {
        Arc::new(Self {
            network: Arc::clone(&world.network),
            lines: Mutex::default(),
            traffic: Traffic::new(Arc::clone(&world.random)),
        })
    }

    /// Keeps the addresses as the map has them, for as long as the map is kept up to date.
    pub(crate) async fn follow(self: Arc<Self>, mut map: watch::Receiver<Arc<ClusterMap>>) {
        loop {
            let current = Arc::clone(&map.borrow_and_update());
            self.update(&current);
            if map.changed().await.is_err() {
                return;
            }
        }
    }

    fn update(&self, map: &ClusterMap) {
        for node in map.nodes.values() {
            if let Err(error) = self.line_at(node.node_id, &node.address, true) {
                tracing::warn!(node = node.node_id, %error, "no way to a node");
            }
            if self.is_another_process(node.node_id, node.boot_id) {
                self.traffic.renewed(node.node_id);
            }
        }
        let is_known = |node: NodeId| map.nodes.is_empty() || map.nodes.contains_key(&node);
        self.lock().retain(|node, _| is_known(*node));
        self.traffic.retain(is_known);
    }

    /// Notes the process that a node is; true if it was another before.
    fn is_another_process(&self, node: NodeId, boot_id: u64) -> bool {
        let mut lines = self.lock();
        let way = lines.get_mut(&node);
        way.is_some_and(|way| std::mem::replace(&mut way.boot_id, boot_id) != boot_id)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, Way>> {
        self.lines.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The line to a node; made for this address if there is none, or, with `replace`, if it goes to another address.
    fn line_at(&self, node: NodeId, address: &str, replace: bool) -> Result<Way, PeerError> {
        let mut lines = self.lock();
        if let Some(line) = lines.get(&node)
            && (line.address == address || !replace)
        {
            return Ok(line.clone());
        }
        let (broken, boot_id) = lines
            .get(&node)
            .map(|line| (Arc::clone(&line.broken), line.boot_id))
            .unwrap_or_default();
        let line = Way {
            address: address.to_owned(),
            boot_id,
            control: self.channel(address, Some(Arc::clone(&broken)))?,
            data: self.channel(address, None)?,
            broken,
        };
        lines.insert(node, line.clone());
        Ok(line)
    }

    fn line(&self, node: NodeId) -> Result<Way, PeerError> {
        self.lock().get(&node).cloned().ok_or(PeerError::Unknown(node))
    }

    fn channel(&self, address: &str, broken: Option<Arc<Notify>>) -> Result<Channel, PeerError> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"));
        let endpoint = endpoint.map_err(|_| PeerError::Address(address.to_owned()))?;
        let endpoint = endpoint
            .connect_timeout(CONNECT_LIMIT)
            .http2_keep_alive_interval(KEEPALIVE_EVERY)
            .keep_alive_timeout(KEEPALIVE_LIMIT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW);
        let connector = connector::Connector::new(Arc::clone(&self.network), address, broken);
        Ok(endpoint.connect_with_connector_lazy(connector))
    }

    /// For effects, fills and calls.
    pub fn client(&self, node: NodeId) -> Result<PeerClient<Channel>, PeerError> {
        Ok(sized(self.line(node)?.data))
    }

    /// For Raft, heartbeats and proposals.
    pub(crate) fn control(&self, node: NodeId) -> Result<PeerClient<Channel>, PeerError> {
        Ok(sized(self.line(node)?.control))
    }

    /// The same, to a node that the map may not know yet.
    pub(crate) fn control_at(&self, node: NodeId, address: &str) -> Result<PeerClient<Channel>, PeerError> {
        Ok(sized(self.line_at(node, address, false)?.control))
    }

    /// To whoever is at this address.
    pub fn at(&self, address: &str) -> Result<PeerClient<Channel>, PeerError> {
        Ok(sized(self.channel(address, None)?))
    }

    /// The operator's service of whoever is at this address.
    pub fn control_service_at(&self, address: &str) -> Result<ControlClient<Channel>, PeerError> {
        Ok(ControlClient::new(self.channel(address, None)?))
    }

    /// Notified when the control connection to this node breaks.
    pub(crate) fn broken(&self, node: NodeId) -> Option<Arc<Notify>> {
        self.lock().get(&node).map(|line| Arc::clone(&line.broken))
    }

    pub(crate) fn address(&self, node: NodeId) -> Option<String> {
        self.lock().get(&node).map(|line| line.address.clone())
    }

    /// Tries to connect, and hangs up: says whether somebody listens there.
    pub(crate) async fn knock(&self, address: &str) -> std::io::Result<()> {
        self.network.connect(address).await.map(drop)
    }
}

fn sized(channel: Channel) -> PeerClient<Channel> {
    PeerClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}
