//! The handle: this node's member of the metadata group, the newest map, and the node's lease.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use openraft::{BasicNode, Config, Raft, ServerState, SnapshotPolicy};
use tokio::sync::{SetOnce, watch};
use volt_engine::NodeId;
use volt_engine::changes::origin_of;

use super::command::Joining;
use super::hazard::Hazard;
use super::identity::{self, Founding, Identity};
use super::lease::Lease;
use super::map::ClusterMap;
use super::raft::log::Log;
use super::raft::machine::{Machine, Published};
use super::raft::network::Lines;
use super::raft::{Group, MemberId, member, node_of};
use crate::config::{Detection, NodeConfig};
use crate::peers::Peers;
use crate::world::World;

/// An election is called after so many heartbeats without a leader, at least, and up to twice as many.
const ELECTION_HEARTBEATS: u64 = 4;
/// A snapshot of the map is taken after so many entries.
const SNAPSHOT_AFTER: u64 = 1_000;
/// Entries that stay in the log behind a snapshot, for members that are a little late.
const KEPT_ENTRIES: u64 = 200;
/// Longest time for a snapshot to reach a member.
const SNAPSHOT_LIMIT_MS: u64 = 5_000;

/// Why a node can't start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its files can't be read or written.
    #[error("the metadata group's files: {0}")]
    Disk(#[from] io::Error),
    /// The group's member didn't start.
    #[error("the metadata group's member: {0}")]
    Raft(String),
    /// The directory is another node's.
    #[error("the data directory belongs to node {theirs}, this is node {ours}")]
    OtherNode {
        /// What was asked for.
        ours: NodeId,
        /// What the identity file says.
        theirs: NodeId,
    },
}

/// This node's part of the metadata group.
pub struct Metadata {
    pub(super) world: World,
    pub(super) config: NodeConfig,
    pub(super) boot_id: u64,
    pub(super) peers: Arc<Peers>,
    pub(super) published: Arc<Published>,
    /// Only one initialisation or joining at a time.
    pub(super) entering: tokio::sync::Mutex<()>,
    identity: Mutex<Option<Identity>>,
    /// Its member of the group, or why there will be none.
    raft: SetOnce<Result<Raft<Group>, String>>,
    lease: Lease,
    stands_back: Arc<AtomicBool>,
    /// What this node thinks of every node's future.
    hazards: Mutex<Arc<BTreeMap<NodeId, Hazard>>>,
}

impl Metadata {
    /// Opens what the data directory holds. A node that has an identity takes part in the group at once; one that has
    /// none waits for `initialise` or `enter`.
    pub async fn open(
        world: World,
        config: NodeConfig,
        boot_id: u64,
        peers: Arc<Peers>,
    ) -> Result<Arc<Self>, OpenError> {
        let identity = identity::read(&*world.disk).await?;
        if let Some(identity) = &identity
            && identity.node_id != config.node_id
        {
            return Err(OpenError::OtherNode {
                ours: config.node_id,
                theirs: identity.node_id,
            });
        }
        let lease = Lease::new(Arc::clone(&world.clock));
        let metadata = Arc::new(Self {
            world,
            config,
            boot_id,
            peers,
            published: Arc::default(),
            entering: tokio::sync::Mutex::default(),
            identity: Mutex::new(identity.clone()),
            raft: SetOnce::new(),
            lease,
            stands_back: Arc::default(),
            hazards: Mutex::default(),
        });
        tokio::spawn(Arc::clone(&metadata.peers).follow(metadata.watch()));
        if let Some(identity) = identity {
            metadata.start_member(&identity).await?;
            if let Some(founding) = identity.founded_with {
                metadata.found(&identity, founding).await?;
            }
        }
        Ok(metadata)
    }

    /// The newest map that this node knows.
    pub fn map(&self) -> Arc<ClusterMap> {
        Arc::clone(&self.published.map.borrow())
    }

    /// The catalog version of the newest map, or already that of the next: never less than that of a map which anybody here has seen.
    pub fn catalog_version(&self) -> u64 {
        self.published.catalog_version.load(Ordering::Acquire)
    }

    /// Follows the map.
    pub fn watch(&self) -> watch::Receiver<Arc<ClusterMap>> {
        self.published.map.subscribe()
    }

    /// The doors of this node.
    pub(crate) fn world(&self) -> &World {
        &self.world
    }

    /// This node's lease.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// How likely each node is to fail soon, as far as this node sees.
    pub fn hazards(&self) -> Arc<BTreeMap<NodeId, Hazard>> {
        Arc::clone(&self.hazards.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    pub(crate) fn publish_hazards(&self, hazards: BTreeMap<NodeId, Hazard>) {
        *self.hazards.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(hazards);
    }

    /// This node's number.
    pub fn node_id(&self) -> NodeId {
        self.config.node_id
    }

    /// How this node finds failures.
    pub fn detection(&self) -> &Detection {
        &self.config.detection
    }

    /// This process's number.
    pub fn boot_id(&self) -> u64 {
        self.boot_id
    }

    /// Who this node is; None: it belongs to no cluster yet.
    pub fn identity(&self) -> Option<Identity> {
        self.lock_identity().clone()
    }

    /// The group's leader, as this node knows it.
    pub fn leader(&self) -> Option<NodeId> {
        self.leading_member().map(node_of)
    }

    /// What stands for this cluster in versions of rows.
    pub(crate) fn origin(&self) -> u64 {
        origin_of(&self.map().cluster_uuid)
    }

    /// True when this node leads the group, as far as it knows.
    pub fn is_leader(&self) -> bool {
        self.term_as_leader().is_some()
    }

    /// The nodes that vote in the group, as this node knows them.
    pub fn voters(&self) -> BTreeSet<NodeId> {
        let Some(raft) = self.raft() else {
            return BTreeSet::new();
        };
        let metrics = raft.metrics();
        metrics
            .borrow()
            .membership_config
            .membership()
            .voter_ids()
            .map(node_of)
            .collect()
    }

    /// Those, and who leads it: a leader that has lost its vote, as one that is drained, may lead on until it ends.
    pub fn deciders(&self) -> BTreeSet<NodeId> {
        let mut deciders = self.voters();
        if !deciders.is_empty() {
            deciders.extend(self.leading_member().map(node_of));
        }
        deciders
    }

    /// Returns when this node's member can't go on (its log can't be written, say), with the reason; waits until there is one.
    pub async fn wait_failure(&self) -> String {
        let mut metrics = match self.raft.wait().await {
            Ok(raft) => raft.metrics(),
            Err(why) => return why.clone(),
        };
        loop {
            if let Err(why) = &metrics.borrow_and_update().running_state {
                return why.to_string();
            }
            if metrics.changed().await.is_err() {
                return "it has stopped".to_owned();
            }
        }
    }

    /// Stops the member. The files can be opened again afterwards.
    pub async fn shutdown(&self) {
        if let Some(raft) = self.raft() {
            let _ = raft.shutdown().await;
        }
    }

    fn lock_identity(&self) -> MutexGuard<'_, Option<Identity>> {
        self.identity.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(crate) fn raft(&self) -> Option<&Raft<Group>> {
        self.raft.get()?.as_ref().ok()
    }

    pub(super) fn leading_member(&self) -> Option<MemberId> {
        let metrics = self.raft()?.metrics();
        metrics.borrow().current_leader
    }

    /// The term in which this node leads; None: it doesn't.
    pub(crate) fn term_as_leader(&self) -> Option<u64> {
        let metrics = self.raft()?.metrics();
        let metrics = metrics.borrow();
        (metrics.state == ServerState::Leader && metrics.running_state.is_ok()).then_some(metrics.current_term)
    }

    pub(crate) fn own_member(&self) -> Option<MemberId> {
        self.lock_identity()
            .as_ref()
            .map(|identity| member(identity.node_id, identity.incarnation))
    }

    /// This node, as it introduces itself.
    pub(super) fn introduction(&self) -> Joining {
        let identity = self.identity();
        Joining {
            node_id: self.config.node_id,
            name: self.config.name.clone(),
            address: self.config.peer_address(),
            sql_address: self.config.sql_address(),
            zone: self.config.zone.clone(),
            boot_id: self.boot_id,
            incarnation: identity.as_ref().map_or(0, |identity| identity.incarnation),
            cluster_uuid: identity.map_or_else(String::new, |identity| identity.cluster_uuid),
        }
    }

    /// Writes down who this node is from now on, and starts its member.
    pub(super) async fn become_somebody(&self, identity: Identity) -> Result<(), OpenError> {
        identity::write(&*self.world.disk, &identity).await?;
        *self.lock_identity() = Some(identity.clone());
        self.start_member(&identity).await
    }

    async fn start_member(&self, identity: &Identity) -> Result<(), OpenError> {
        let (kept, started) = match self.open_member(identity).await {
            Ok(raft) => (Ok(raft), Ok(())),
            Err(error) => (Err(error.to_string()), Err(error)),
        };
        let is_first = self.raft.set(kept).is_ok();
        assert!(is_first, "a process has one member");
        started
    }

    async fn open_member(&self, identity: &Identity) -> Result<Raft<Group>, OpenError> {
        let id = member(identity.node_id, identity.incarnation);
        let (disk, planted) = (&self.world.disk, self.world.planted);
        let log = Log::open(Arc::clone(disk), planted).await?;
        let machine = Machine::open(Arc::clone(disk), Arc::clone(&self.published), planted).await?;
        let lines = Lines {
            from: id,
            peers: Arc::clone(&self.peers),
            stands_back: Arc::clone(&self.stands_back),
        };
        let config = self.raft_config()?;
        let raft = Raft::new(id, Arc::new(config), lines, log, machine).await;
        raft.map_err(|error| OpenError::Raft(error.to_string()))
    }

    /// The election timeout is drawn here, once, so that openraft's own generator has nothing left to choose.
    fn raft_config(&self) -> Result<Config, OpenError> {
        let heartbeat = u64::try_from(self.config.heartbeat.as_millis())
            .unwrap_or(u64::MAX)
            .max(1);
        let least = heartbeat * ELECTION_HEARTBEATS;
        let timeout = least + self.world.random.next_u64() % least;
        let config = Config {
            cluster_name: "volt".to_owned(),
            heartbeat_interval: heartbeat,
            election_timeout_min: timeout,
            election_timeout_max: timeout + 1,
            install_snapshot_timeout: SNAPSHOT_LIMIT_MS,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(SNAPSHOT_AFTER),
            max_in_snapshot_log_to_keep: KEPT_ENTRIES,
            replication_lag_threshold: SNAPSHOT_AFTER + KEPT_ENTRIES,
            ..Config::default()
        };
        config.validate().map_err(|error| OpenError::Raft(error.to_string()))
    }

    /// Makes this node the group's first and only member, and the map's first entry. May be repeated.
    pub(super) async fn found(&self, identity: &Identity, founding: Founding) -> Result<(), OpenError> {
        let Some(raft) = self.raft() else {
            return Err(OpenError::Raft("it isn't running".to_owned()));
        };
        let id = member(identity.node_id, identity.incarnation);
        let first = BTreeMap::from([(id, BasicNode::new(self.config.peer_address()))]);
        let is_made = raft
            .is_initialized()
            .await
            .map_err(|error| OpenError::Raft(error.to_string()))?;
        if !is_made {
            raft.initialize(first)
                .await
                .map_err(|error| OpenError::Raft(error.to_string()))?;
        }
        let node = Joining {
            incarnation: 1,
            ..self.introduction()
        };
        let cluster_uuid = identity.cluster_uuid.clone();
        let command = super::command::Command::Initialise {
            cluster_uuid,
            partitions: founding.partitions,
            node,
            awaits_restoration: founding.awaits_restoration,
        };
        // On a restart the others may be needed for this, and then it was done long ago.
        if is_made {
            return Ok(());
        }
        self.propose(command)
            .await
            .map(drop)
            .map_err(|error| OpenError::Raft(error.to_string()))
    }

    /// Calls an election, if this member may.
    pub(crate) async fn elect(&self) {
        if let Some(raft) = self.raft() {
            let _ = raft.trigger().elect().await;
        }
    }

    /// While this member can't write, or hears nobody, it neither leads nor wants to: its followers, who hear nothing of it
    /// any more, elect another.
    pub(crate) fn stand_back(&self, back: bool) {
        self.stands_back.store(back, Ordering::Release);
        if let Some(raft) = self.raft() {
            raft.runtime_config().heartbeat(!back);
            raft.runtime_config().elect(!back);
        }
    }

    /// True when a majority confirms that this node leads, and all that was committed before is applied here.
    pub(crate) async fn is_confirmed(&self, limit: Duration) -> bool {
        let Some(raft) = self.raft() else { return false };
        matches!(tokio::time::timeout(limit, raft.ensure_linearizable()).await, Ok(Ok(_)))
    }
}
