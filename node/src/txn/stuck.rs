//! Moves of tables that can't go on now, for `system.moves`: where a table goes it is refused, as by a node that has no memory left.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use volt_engine::{PartitionId, TableId};

use super::Coordinator;
use super::participant::Participant;
use super::request::{Reply, Request};
use crate::error::SqlError;

/// The table, and the partition that it leaves.
type Origin = (TableId, PartitionId);

/// What is said where it goes.
pub(super) type Stuck = Mutex<BTreeMap<Origin, String>>;

impl Participant {
    /// Notes why a table is refused, and returns that; None: it is not any more.
    pub(super) fn note_stuck(
        &self,
        table: TableId,
        partition: PartitionId,
        refused: Option<&SqlError>,
    ) -> Option<String> {
        let mut stuck = self.stuck.lock().expect("no panic under this lock");
        let Some(error) = refused else {
            stuck.remove(&(table, partition));
            return None;
        };
        let why = match &error.detail {
            Some(detail) => format!("{}. {detail}", error.message),
            None => error.message.clone(),
        };
        stuck.insert((table, partition), why.clone());
        Some(why)
    }

    /// Of those that are moved from here no longer nothing is told.
    pub(super) fn keep_stuck(&self, is_moving: impl Fn(&Origin) -> bool) {
        let mut stuck = self.stuck.lock().expect("no panic under this lock");
        stuck.retain(|from, _| is_moving(from));
    }

    /// What this node tells of them.
    pub(super) fn stuck_moves(&self) -> Vec<(TableId, PartitionId, String)> {
        let stuck = self.stuck.lock().expect("no panic under this lock");
        let told = |(&(table, partition), why): (&Origin, &String)| (table, partition, why.clone());
        stuck.iter().map(told).collect()
    }
}

impl Coordinator {
    /// What all nodes tell of them.
    pub(crate) async fn stuck_moves_of_all(self: &Arc<Self>) -> BTreeMap<Origin, String> {
        if self.cluster_map().moves.is_empty() {
            return BTreeMap::new();
        }
        let replies = self.ask_all(Request::Moves).await;
        let told = replies.into_iter().filter_map(|(_, reply)| match reply {
            Reply::Moves(stuck) => Some(stuck),
            _ => None,
        });
        let told = told.flatten();
        told.map(|(table, partition, why)| ((table, partition), why)).collect()
    }
}
