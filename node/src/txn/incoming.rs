//! Changes of another cluster, in one partition of this one.

use std::sync::Arc;

use volt_engine::PartitionId;
use volt_engine::changes::Change;
use volt_engine::effects::LogPayload;
use volt_engine::partition::Conflict;
use volt_engine::row::RowRef;
use volt_engine::value::ValueRef;

use super::participant::{EncodedRows, Participant, Ran, write_wait};
use super::request::{Reply, Request};
use super::{Coordinator, Repeat};
use crate::error::SqlError;
use crate::links::LinkReport;
use crate::metadata::map::NodeState;
use crate::replication::lock;

/// What came of another cluster's changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Rows that changed.
    pub(crate) applied: u64,
    /// Changes that met others.
    pub(crate) conflicts: u64,
}

impl Participant {
    /// Does them, if this node leads the partition and nobody holds it; the number of conflicts goes to `rows`.
    pub(super) fn incorporate(
        &self,
        partition: PartitionId,
        link: &str,
        changes: &[Change],
        rows: &mut EncodedRows,
    ) -> Ran {
        let ran = self.replicas.with_catalog(partition, |replica| {
            if let Some(not) = self.not_now(replica, false) {
                return not;
            }
            let mut tables = changes.iter().map(|change| change.table);
            if let Err(error) = tables.try_for_each(|table| replica.engine.check_open(table)) {
                let error = SqlError::from(error);
                return Ran::Failed { error, wait: None };
            }
            replica.complete_unique_indexes();
            let now_micros = self.replicas.world.clock.unix_micros();
            let incorporated = replica.engine.incorporate(link, changes, now_micros);
            if !self.lease_is_valid() {
                return Ran::NotPrimary;
            }
            let incorporated = incorporated.map_err(SqlError::from).and_then(|incorporated| {
                self.memory.admit(incorporated.outcome.effects.as_ref())?;
                Ok(incorporated)
            });
            let incorporated = match incorporated {
                Ok(incorporated) => incorporated,
                Err(error) => return Ran::Failed { error, wait: None },
            };
            rows.push(&[ValueRef::BigInt(incorporated.conflicts.cast_signed())]);
            let affected = incorporated.outcome.affected;
            // Also what is known already must be safe before the other cluster hears that it is.
            let lsn = match incorporated.outcome.effects {
                Some(effects) => self.replicas.append(replica, &LogPayload::Write(effects)),
                None => incorporated.outcome.observed,
            };
            let wait = write_wait(replica, partition, lsn);
            Ran::Done { affected, wait }
        });
        ran.unwrap_or(Ran::NotPrimary)
    }

    /// The conflicts of the partitions that this node leads.
    pub(super) fn conflicts(&self) -> Vec<(PartitionId, Vec<Conflict>)> {
        let conflicts = |slot: &crate::replication::Slot| {
            let replica = lock(slot);
            replica.reign()?;
            Some((replica.partition, replica.engine.conflicts()))
        };
        self.replicas.all().iter().filter_map(conflicts).collect()
    }
}

impl Coordinator {
    /// Takes changes of another cluster into a partition; returns when that is committed.
    pub(crate) async fn take_changes(
        &self,
        partition: PartitionId,
        link: String,
        changes: Vec<Change>,
    ) -> Result<Taken, SqlError> {
        let request = Request::Incorporate {
            partition,
            link,
            changes,
        };
        // A change that comes twice is known.
        let ran = self.run_at_primary(partition, request, Repeat::Read).await?;
        let conflicts = ran.rows.first().map(|row| RowRef::new(row).get(0));
        Ok(Taken {
            applied: ran.affected,
            conflicts: match conflicts {
                Some(ValueRef::BigInt(conflicts)) => conflicts.cast_unsigned(),
                _ => 0,
            },
        })
    }

    /// What every living node tells, of those that answer.
    pub(super) async fn ask_all(self: &Arc<Self>, request: Request) -> Vec<(volt_engine::NodeId, Reply)> {
        let map = self.cluster_map();
        let dead = |state| matches!(state, NodeState::Dead { .. });
        let nodes = map.nodes.values().filter(|node| !dead(node.state));
        let asked = nodes.map(|node| async { (node.node_id, self.ask(node.node_id, request.clone()).await) });
        let answers = futures::future::join_all(asked).await;
        answers
            .into_iter()
            .filter_map(|(node, reply)| Some((node, reply.ok()?)))
            .collect()
    }

    /// How far each node has told its partitions over links.
    pub(crate) async fn links_of_all(self: &Arc<Self>) -> Vec<(volt_engine::NodeId, LinkReport)> {
        let replies = self.ask_all(Request::Links).await;
        let told = |(node, reply)| match reply {
            Reply::Links(report) => Some((node, report)),
            _ => None,
        };
        replies.into_iter().filter_map(told).collect()
    }

    /// The conflicts of every partition, in its order.
    pub(crate) async fn conflicts_of_all(self: &Arc<Self>) -> Vec<(PartitionId, Vec<Conflict>)> {
        let replies = self.ask_all(Request::Conflicts).await;
        let told = |(_, reply)| match reply {
            Reply::Conflicts(conflicts) => Some(conflicts),
            _ => None,
        };
        let mut conflicts: Vec<_> = replies.into_iter().filter_map(told).flatten().collect();
        conflicts.sort_by_key(|(partition, _)| *partition);
        conflicts
    }
}
