//! Who lives, who is dead, and who takes over. Detectors turn what was seen into evidence, `verdict` turns evidence
//! into verdicts, `promotion` and `rebalance` turn those and the map into changes: all of it pure.
//!
//! `Membership` feeds them: `heartbeat` talks with the other nodes and watches the connections, `reign` is the loop
//! that runs where the metadata group's leader is, and proposes what was decided.

pub mod detector;
pub mod ends;
pub mod fitness;
mod foresight;
pub mod hazard;
mod heartbeat;
pub mod interval;
pub mod liveness;
pub(crate) mod majority;
pub mod neighbours;
pub mod preempt;
mod probe;
pub mod promotion;
pub mod questions;
pub mod rebalance;
mod reign;
pub mod verdict;
mod voters;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;
use volt_engine::{NodeId, PartitionId};
use volt_proto::v1::{LedPartition, ReplicaEnd};

use crate::config::{Durability, FailoverMode, NodeConfig};
use crate::metadata::Metadata;
use crate::metadata::failure::{Finding, Medium};
use crate::metadata::lease::LeaseBook;
use crate::metadata::placement::Placements;
use crate::peers::Peers;
use crate::world::World;
use ends::Ends;
use fitness::{QuorumWatch, Told};
use foresight::Foresight;
use interval::{DiskTrouble, DiskWatch};
use neighbours::Neighbours;
use promotion::Wait;
use questions::Questions;
use verdict::{Judge, Sightings};

/// After a power cut, how long to wait for the rest of an in-sync set when every member has all that is committed.
const PATIENCE_FSYNC: Duration = Duration::from_secs(1);
/// The same when members may lack what was committed: they all should come first.
const PATIENCE_MEMORY: Duration = Duration::from_secs(15);

/// Says how far this node's replicas reach; the replication layer's.
pub trait ReplicaReport: Send + Sync {
    /// The end of every replica that this node holds. After a start, only when they have been read back.
    fn ends(&self) -> Vec<ReplicaEnd>;
    /// How far each partition that this node leads has committed; nothing without a lease.
    fn led(&self) -> Vec<LedPartition>;
    /// Another node leads these, and had committed so much when, or after, it was asked.
    fn heard_of(&self, led: &[LedPartition], asked: Duration);
    /// The longest flush of a log since this was last asked; None: there was none.
    fn longest_flush(&self) -> Option<Duration> {
        None
    }
}

/// This node's eyes, and its judgement while it leads the metadata group.
pub struct Membership {
    config: NodeConfig,
    world: World,
    metadata: Arc<Metadata>,
    peers: Arc<Peers>,
    report: Arc<dyn ReplicaReport>,
    state: Mutex<State>,
    /// Something was seen that the reign should look at now.
    nudge: Notify,
}

#[derive(Default)]
struct State {
    sightings: Sightings,
    /// How far each replica reaches, as the nodes say.
    ends: Ends,
    reign: Option<Reign>,
    /// This node's own disk.
    disk: DiskWatch,
    /// In what this node can't renew its mark of life.
    blind: BTreeSet<Medium>,
    /// What the others' answers say of how they reach this node.
    told: BTreeMap<NodeId, Told>,
    /// Whether a majority confirms that this node leads.
    quorum: QuorumWatch,
    /// How this node and the others have been.
    foresight: Foresight,
    /// The nodes whose heartbeats come here, as the newest map says.
    neighbours: Neighbours,
    /// Where partitions belong.
    placements: Placements,
}

/// What the group's leader keeps for as long as it leads.
struct Reign {
    term: u64,
    book: LeaseBook,
    /// Since when each partition waits for members that restarted.
    waiting_since: BTreeMap<PartitionId, Duration>,
    /// The newest reasons, for whoever asks.
    waiting: BTreeMap<PartitionId, Wait>,
    /// What each dead node's verdict said.
    deaths: BTreeMap<NodeId, Finding>,
    /// Since when each node is dead in the map.
    dead_since: BTreeMap<NodeId, Duration>,
    /// Processes about whose death a proposal is, or may be, on its way.
    condemned: BTreeSet<(NodeId, u64)>,
    /// The map's version at the last rebalancing.
    balanced: u64,
    /// Of which partitions something may have to be decided.
    questions: Questions,
}

impl Membership {
    /// Not yet running.
    pub fn new(
        world: World,
        config: NodeConfig,
        metadata: Arc<Metadata>,
        peers: Arc<Peers>,
        report: Arc<dyn ReplicaReport>,
    ) -> Arc<Self> {
        let (state, nudge) = (Mutex::default(), Notify::new());
        Arc::new(Self {
            config,
            world,
            metadata,
            peers,
            report,
            state,
            nudge,
        })
    }

    /// Starts the heartbeats and the reign. Returns at once; they stop with the runtime, or when aborted.
    pub fn start(self: &Arc<Self>) -> Vec<tokio::task::JoinHandle<()>> {
        let mut tasks = vec![
            tokio::spawn(Arc::clone(self).follow_nodes()),
            tokio::spawn(Arc::clone(self).reign()),
            tokio::spawn(Arc::clone(self).confirm()),
            tokio::spawn(Arc::clone(self).keep_voters()),
            tokio::spawn(Arc::clone(self).probe_disk()),
            tokio::spawn(Arc::clone(self).keep_fit()),
            tokio::spawn(Arc::clone(self).foresee()),
        ];
        tasks.extend(self.keep_marks());
        tasks
    }

    /// Partitions without a living primary and what they wait for; known only where the metadata group's leader is.
    pub fn waiting(&self) -> BTreeMap<PartitionId, Wait> {
        self.lock()
            .reign
            .as_ref()
            .map(|reign| reign.waiting.clone())
            .unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.world.clock.boot_time()
    }

    fn judge_of(&self) -> Judge<'_> {
        Judge {
            observer: self.metadata.node_id(),
            detection: &self.config.detection,
        }
    }

    /// Why this node can't answer for what it holds.
    fn disk_trouble(&self) -> Option<DiskTrouble> {
        let settings = self.config.detection.interval.as_ref()?;
        self.lock().disk.trouble(settings, self.now())
    }

    fn is_manual(&self) -> bool {
        self.config.failover == FailoverMode::Manual
    }

    fn patience(&self) -> Duration {
        match self.config.durability {
            Durability::Fsync => PATIENCE_FSYNC,
            Durability::Memory | Durability::Async => PATIENCE_MEMORY,
        }
    }
}

#[cfg(test)]
mod detector_scripts;
#[cfg(test)]
mod hazard_trial;
#[cfg(test)]
mod scripts;
