//! The interval strategy through something that the nodes share: each renews a mark there, and looks at the others'. It
//! finds a node that is cut off from what the nodes share though its messages come through.
//!
//! A medium only renews and looks. Who is to blame is decided from what it says, the same for every medium: who can't use
//! it blames nobody (`Sightings::could_not_look`), and a node that never had a mark there is not looked for.

pub mod database;
pub mod directory;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};
use volt_engine::NodeId;

use super::Membership;
use super::interval::Mark;
use crate::metadata::failure::Medium;
use database::Database;
use directory::Directory;

/// What is renewed in a round.
#[derive(Clone, Copy, Debug)]
pub struct Own<'a> {
    /// The cluster's UUID: several clusters may share a medium.
    pub cluster_uuid: &'a str,
    /// This node.
    pub node_id: NodeId,
    /// Its process, and the round.
    pub mark: Mark,
}

/// Why a round came to nothing.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NoLook(pub String);

/// What the nodes share.
#[async_trait]
pub trait LivenessMedium: Send + Sync {
    /// Which one it is.
    fn medium(&self) -> Medium;

    /// Renews this node's mark, and only then looks at those of `others`: who has none, or one that is no mark, is not
    /// among what it returns. A mark that is not renewed is an error.
    async fn renew_and_look(&self, own: Own<'_>, others: &[NodeId]) -> Result<BTreeMap<NodeId, Mark>, NoLook>;
}

impl Membership {
    /// Keeps this node's mark in everything that the nodes share.
    pub(super) fn keep_marks(self: &Arc<Self>) -> Vec<JoinHandle<()>> {
        let Some(settings) = self.config.detection.interval.clone() else {
            return Vec::new();
        };
        let directory = settings.liveness_directory.map(|directory| {
            let directory = Directory::new(Arc::clone(&self.world.disk), directory);
            Arc::new(directory) as Arc<dyn LivenessMedium>
        });
        let database = settings.liveness_database.map(|database| {
            let database = Database::new(self.world.clone(), database);
            Arc::new(database) as Arc<dyn LivenessMedium>
        });
        let media = directory.into_iter().chain(database);
        media
            .map(|medium| tokio::spawn(Arc::clone(self).keep_mark(medium, settings.every)))
            .collect()
    }

    /// A round each interval. One is under way at most: a medium that hangs keeps one task.
    async fn keep_mark(self: Arc<Self>, medium: Arc<dyn LivenessMedium>, every: Duration) {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut sequence, mut round): (u64, Option<JoinHandle<()>>) = (0, None);
        loop {
            ticks.tick().await;
            if round.as_ref().is_some_and(|round| !round.is_finished()) {
                self.could_not_look(medium.medium(), "the round before is still under way");
                continue;
            }
            sequence += 1;
            let (this, medium) = (Arc::clone(&self), Arc::clone(&medium));
            round = Some(tokio::spawn(async move {
                this.mark_and_look(medium.as_ref(), sequence, every).await;
            }));
        }
    }

    async fn mark_and_look(&self, medium: &dyn LivenessMedium, sequence: u64, every: Duration) {
        let (map, own) = (self.metadata.map(), self.metadata.node_id());
        if map.cluster_uuid.is_empty() {
            return;
        }
        let others: Vec<NodeId> = map.nodes.keys().copied().filter(|node| *node != own).collect();
        let own = Own {
            cluster_uuid: &map.cluster_uuid,
            node_id: own,
            mark: Mark {
                boot_id: self.metadata.boot_id(),
                sequence,
            },
        };
        let (began, kind) = (self.now(), medium.medium());
        let looked = medium.renew_and_look(own, &others).await;
        let now = self.now();
        let marks = match looked {
            Err(error) => return self.could_not_look(kind, &error.to_string()),
            // Marks of different moments.
            Ok(_) if now.saturating_sub(began) > every => {
                return self.could_not_look(kind, "it took more than an interval");
            }
            Ok(marks) => marks,
        };
        let mut state = self.lock();
        if state.blind.remove(&kind) {
            tracing::info!(medium = %kind, "this node's mark of life is renewed again");
        }
        for node in others {
            state.sightings.saw_mark(node, kind, marks.get(&node).copied(), now);
        }
    }

    fn could_not_look(&self, medium: Medium, why: &str) {
        let mut state = self.lock();
        if state.blind.insert(medium) {
            tracing::warn!(%medium, why, "this node's mark of life was not renewed; it blames nobody there");
        }
        state.sightings.could_not_look(medium);
    }
}
