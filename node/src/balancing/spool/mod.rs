//! Load balancing through a file system: files that are dropped into a directory which the nodes share are loaded into tables, each by one node.
//!
//! ```text
//!   DIRECTORY/monday.orders.csv                    dropped: renamed to this name when whole
//!   DIRECTORY/node-2/monday.orders.csv.ID          in the hands of node 2
//!   DIRECTORY/done/monday.orders.csv.ID            loaded; .result and .rejects beside it
//!   DIRECTORY/failed/monday.orders.csv.ID          not, or not all of it; .result says why
//!   DIRECTORY/nodes/node-2                         renewed by node 2 while it takes part
//! ```
//!
//! *Who takes a file.* The lowest of the nodes that are present gives files to nodes by the strategy (`dispatch.rs`), and takes them from nodes that
//! are gone: dead in the cluster map, or silent in `nodes/` for `LEASE`. Giving is a rename, which succeeds once, so that two nodes which take
//! themselves for the lowest do no harm.
//!
//! *Loaded once.* A claim promises nothing: whoever was frozen may go on behind its successor's back. What a file came to is decided by the
//! database: each batch of rows is a transaction that also puts the batch's row into the table `volt_spool` (`ledger.rs`), so it happens
//! once. Batches are a function of the file's bytes alone (`batch.rs`), and the file's identity, its ID, is given with its first claim.
//!
//! What must hold: nobody loads a batch whose row may have been forgotten (`ledger::KEPT`).

mod batch;
mod csv;
pub(super) mod dispatch;
pub(super) mod item;
mod json_lines;
mod ledger;
mod load;
mod outcome;
mod presence;
mod report;
mod rows;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::JoinHandle;
use tokio::time::{Duration, MissedTickBehavior, interval};
use volt_engine::NodeId;

use super::{Candidate, Strategy};
use crate::metadata::Metadata;
use crate::metadata::map::NodeState;
use crate::statement::Database;
use crate::world::World;
use dispatch::Sight;
use item::ItemName;
use presence::{Presence, Sightings};

pub use report::SpoolCounts;
pub(crate) use report::{SpoolFigures, SpoolFile, SpoolView};

/// A node that has not renewed its presence for so long loses its files to others.
const LEASE: Duration = Duration::from_secs(5);
/// Files of one node at a time: the others wait for whoever is done first.
const MAX_IN_HAND: usize = 4;

/// How files are looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolSettings {
    /// The directory that the nodes share.
    pub directory: PathBuf,
    /// How often it is looked at.
    pub every: Duration,
    /// Who takes a file.
    pub strategy: Strategy,
}

/// This node's part in it.
pub(crate) struct Spool {
    world: World,
    metadata: Arc<Metadata>,
    database: Arc<dyn Database>,
    settings: SpoolSettings,
    figures: Arc<SpoolFigures>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    sequence: u64,
    turn: u64,
    sightings: Sightings,
    /// What this node does now, as it tells the others.
    doing: Presence,
}

impl Spool {
    pub(crate) fn new(
        (world, metadata, database): (World, Arc<Metadata>, Arc<dyn Database>),
        settings: SpoolSettings,
        figures: Arc<SpoolFigures>,
    ) -> Arc<Self> {
        Arc::new(Self {
            world,
            metadata,
            database,
            settings,
            figures,
            state: Mutex::default(),
        })
    }

    /// Takes part until the tasks are aborted.
    pub(crate) fn start(self: &Arc<Self>) -> Vec<JoinHandle<()>> {
        let (sharing, loading) = (Arc::clone(self), Arc::clone(self));
        vec![
            tokio::spawn(async move { sharing.keep_sharing().await }),
            tokio::spawn(async move { loading.keep_loading().await }),
        ]
    }

    /// Renews this node's presence and gives files out. In a task of its own, so that a long file does not make it look gone.
    async fn keep_sharing(&self) {
        let mut ticks = interval(self.settings.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Err(error) = self.share().await {
                tracing::warn!(directory = %self.settings.directory.display(), %error, "the spool directory can't be used now");
            }
        }
    }

    async fn keep_loading(&self) {
        let mut ticks = interval(self.settings.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Err(error) = self.load_all_in_hand().await {
                tracing::warn!(directory = %self.settings.directory.display(), %error, "a file of the spool directory can't be used now");
            }
        }
    }

    /// One round.
    async fn share(&self) -> std::io::Result<()> {
        let disk = &self.world.disk;
        disk.create_directory(&self.directory("nodes")).await?;
        disk.create_directory(&self.hand(self.metadata.node_id())).await?;
        self.renew().await?;
        let present = self.look_around().await?;
        if present.first().map(|candidate| candidate.node) != Some(self.metadata.node_id()) {
            return Ok(());
        }
        let sight = self.sight(present).await?;
        for given in self.decide(&sight) {
            self.give(&given).await?;
        }
        Ok(())
    }

    async fn renew(&self) -> std::io::Result<()> {
        let presence = {
            let mut state = self.state();
            state.sequence += 1;
            state.doing.boot_id = self.metadata.boot_id();
            state.doing.sequence = state.sequence;
            state.doing.clone()
        };
        let path = self.directory("nodes").join(hand_name(self.metadata.node_id()));
        self.world.disk.write_atomic(&path, presence.render()).await
    }

    /// Who takes part now, by number.
    async fn look_around(&self) -> std::io::Result<Vec<Candidate>> {
        let mut seen = Vec::new();
        for (node, path) in self.numbered("nodes").await? {
            let content = self.world.disk.read_range(&path, 0, presence::MAX_BYTES).await;
            seen.extend(
                content
                    .ok()
                    .and_then(|content| Some((node, Presence::parse(&content)?))),
            );
        }
        let (now, map) = (self.world.clock.boot_time(), self.metadata.map());
        let mut state = self.state();
        for (node, presence) in seen {
            state.sightings.saw(node, presence, now);
        }
        let active = map.nodes.values().filter(|node| node.state == NodeState::Active);
        let present = active.filter_map(|node| {
            let presence = state.sightings.present(node.node_id, now)?;
            Some(Candidate {
                node: node.node_id,
                capacity: node.weight,
                latency_micros: presence.row_micros,
            })
        });
        Ok(present.collect())
    }

    /// What there is to give.
    async fn sight(&self, present: Vec<Candidate>) -> std::io::Result<Sight> {
        let waiting = items(self.world.disk.list(&self.settings.directory).await?);
        let mut in_hand = std::collections::BTreeMap::new();
        for (node, _) in self.numbered("nodes").await? {
            in_hand.insert(node, items(self.world.disk.list(&self.hand(node)).await?));
        }
        Ok(Sight {
            waiting,
            in_hand,
            present,
        })
    }

    fn decide(&self, sight: &Sight) -> Vec<dispatch::Given> {
        let seconds = self.now_seconds();
        let mut state = self.state();
        let mut draw = || self.world.random.next_u64();
        dispatch::give(sight, self.settings.strategy, &mut state.turn, seconds, &mut draw)
    }

    /// A file that somebody else has given meanwhile is not there any more.
    async fn give(&self, given: &dispatch::Given) -> std::io::Result<()> {
        let from = match given.from {
            None => self.settings.directory.clone(),
            Some(node) => self.hand(node),
        };
        let (from, to) = (from.join(given.was.full()), self.hand(given.to).join(given.item.full()));
        match self.world.disk.rename(&from, &to).await {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(()) => {
                if let Some(gone) = given.from {
                    tracing::info!(file = given.item.full(), gone, to = given.to, "a file was taken over");
                    self.figures.took_over();
                }
                Ok(())
            }
        }
    }

    /// The files of a directory that are named by nodes.
    async fn numbered(&self, directory: &str) -> std::io::Result<Vec<(NodeId, PathBuf)>> {
        let files = self.world.disk.list(&self.directory(directory)).await?;
        let numbered = files.into_iter().filter_map(|path| Some((node_of(&path)?, path)));
        Ok(numbered.collect())
    }

    fn directory(&self, name: &str) -> PathBuf {
        self.settings.directory.join(name)
    }

    /// Where a node has its files.
    fn hand(&self, node: NodeId) -> PathBuf {
        self.directory(&hand_name(node))
    }

    fn now_seconds(&self) -> i64 {
        self.world.clock.unix_micros() / 1_000_000
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn hand_name(node: NodeId) -> String {
    format!("node-{node}")
}

fn node_of(path: &Path) -> Option<NodeId> {
    path.file_name()?.to_str()?.strip_prefix("node-")?.parse().ok()
}

/// Those of the files that are for the spool.
fn items(files: Vec<PathBuf>) -> Vec<ItemName> {
    let name = |path: &PathBuf| ItemName::parse(path.file_name()?.to_str()?);
    files.iter().filter_map(name).collect()
}
