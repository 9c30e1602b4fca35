//! A consistent cut of several partitions: hold all of them, read their LSNs, let go; then read at leisure.
//!
//! While all are held, no transaction over several of them is half-way, so the cut has all of each or nothing of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::join_all;
use futures::stream::BoxStream;
use volt_engine::effects::TransactionId;
use volt_engine::plan::{Expr, StatementContext};
use volt_engine::{Lsn, NodeId, PartitionId, TableId};

use super::calls::CallError;
use super::request::{Failure, Reply, Request, ScanRequest};
use super::{Coordinator, busy};
use crate::error::SqlError;

/// A cut, kept by the primaries until this is dropped.
pub struct Snapshot {
    transaction: TransactionId,
    at: BTreeMap<PartitionId, (NodeId, Lsn)>,
    context: StatementContext,
    coordinator: Arc<Coordinator>,
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let nodes: std::collections::BTreeSet<NodeId> = self.at.values().map(|&(node, _)| node).collect();
        for node in nodes {
            let (coordinator, transaction) = (Arc::clone(&self.coordinator), self.transaction);
            runtime.spawn(async move { coordinator.ask(node, Request::Unpin { transaction }).await });
        }
    }
}

impl Coordinator {
    /// A consistent cut of these partitions, of which everything is committed.
    pub async fn snapshot(self: &Arc<Self>, partitions: &[PartitionId]) -> Result<Arc<Snapshot>, SqlError> {
        // A task of its own: a client that goes away must not leave partitions held.
        let (coordinator, partitions) = (Arc::clone(self), partitions.to_vec());
        let taken = tokio::spawn(async move { coordinator.take_snapshot(&partitions).await });
        taken
            .await
            .unwrap_or_else(|error| Err(SqlError::unavailable(format!("the snapshot was not taken: {error}"))))
    }

    async fn take_snapshot(self: &Arc<Self>, partitions: &[PartitionId]) -> Result<Arc<Snapshot>, SqlError> {
        let context = self.context();
        let mut retry = self.begin()?;
        loop {
            let transaction = self.new_transaction(context.now_micros);
            let why = match self.try_snapshot(transaction, partitions, context).await {
                Ok(snapshot) => return Ok(Arc::new(snapshot)),
                Err(Failure::Sql(error)) => return Err(error),
                Err(Failure::Busy) => return Err(busy(partitions.first().copied().unwrap_or(0))),
                Err(Failure::Wounded) => "an older transaction came first",
                Err(Failure::NotPrimary) => "a primary can't be reached",
            };
            self.pause(&mut retry, partitions, || {
                format!("a snapshot of {} partitions: {why}", partitions.len())
            })
            .await?;
        }
    }

    async fn try_snapshot(
        self: &Arc<Self>,
        transaction: TransactionId,
        partitions: &[PartitionId],
        context: StatementContext,
    ) -> Result<Snapshot, Failure> {
        let nodes = self.by_primary(partitions.iter().copied()).ok_or(Failure::NotPrimary)?;
        let holds = nodes.iter().map(|(&node, partitions)| {
            let hold = Request::Hold {
                transaction,
                partitions: partitions.clone(),
                pin: true,
            };
            async move { (node, self.ask(node, hold).await) }
        });
        let (mut at, mut failed) = (BTreeMap::new(), None);
        for (node, reply) in join_all(holds).await {
            match held(reply) {
                Ok(held) => at.extend(held.into_iter().map(|(partition, lsn)| (partition, (node, lsn)))),
                Err(failure) => failed = Some(failure),
            }
        }
        // Dropping it lets go of the pins, whatever happens next.
        let snapshot = Snapshot {
            transaction,
            at,
            context,
            coordinator: Arc::clone(self),
        };
        let releases = nodes.iter().map(|(&node, partitions)| {
            let cut = partitions
                .iter()
                .filter_map(|partition| Some((*partition, snapshot.at.get(partition)?.1)));
            let cut = if failed.is_none() { cut.collect() } else { Vec::new() };
            self.ask(
                node,
                Request::Release {
                    transaction,
                    partitions: partitions.clone(),
                    snapshot: cut,
                },
            )
        });
        let released = join_all(releases).await;
        if let Some(failure) = failed {
            return Err(failure);
        }
        for reply in released {
            match reply {
                Ok(Reply::Done) => {}
                Ok(Reply::Failed(failure)) => return Err(failure),
                Ok(_) | Err(CallError::NotSent | CallError::Lost) => return Err(Failure::NotPrimary),
            }
        }
        Ok(snapshot)
    }

    /// The rows of a table in one partition at the cut, in key order: encoded rows, a chunk at a time.
    pub fn scan(
        self: &Arc<Self>,
        snapshot: &Arc<Snapshot>,
        partition: PartitionId,
        table: TableId,
        project: Vec<usize>,
        filter: Option<Expr>,
    ) -> BoxStream<'static, Result<Vec<Bytes>, SqlError>> {
        let scan = Scan {
            coordinator: Arc::clone(self),
            snapshot: Arc::clone(snapshot),
            partition,
            table,
            project,
            filter,
            after: Some(None),
        };
        futures::stream::unfold(scan, |mut scan| async move {
            let rows = scan.next().await?;
            Some((rows, scan))
        })
        .boxed()
    }
}

struct Scan {
    coordinator: Arc<Coordinator>,
    snapshot: Arc<Snapshot>,
    partition: PartitionId,
    table: TableId,
    project: Vec<usize>,
    filter: Option<Expr>,
    /// The key to go on after; None: at the end.
    after: Option<Option<Vec<u8>>>,
}

impl Scan {
    async fn next(&mut self) -> Option<Result<Vec<Bytes>, SqlError>> {
        let after = self.after.take()?;
        let Some(&(node, lsn)) = self.snapshot.at.get(&self.partition) else {
            return Some(Err(SqlError::internal("a partition outside the snapshot")));
        };
        let request = Request::Scan(ScanRequest {
            transaction: self.snapshot.transaction,
            partition: self.partition,
            snapshot: lsn,
            table: self.table,
            after,
            filter: self.filter.clone(),
            project: Some(self.project.clone()),
            context: self.snapshot.context,
        });
        match self.coordinator.ask(node, request).await {
            Ok(Reply::Chunk { rows, next }) => {
                self.after = next.map(Some);
                Some(Ok(rows))
            }
            Ok(Reply::Failed(Failure::Sql(error))) => Some(Err(error)),
            _ => Some(Err(SqlError::unavailable(format!(
                "partition {}: its primary was lost while the snapshot was read",
                self.partition
            ))
            .hint("Run the query again."))),
        }
    }
}

fn held(reply: Result<Reply, CallError>) -> Result<Vec<(PartitionId, Lsn)>, Failure> {
    match reply {
        Ok(Reply::Held(held)) => Ok(held),
        Ok(Reply::Failed(failure)) => Err(failure),
        Ok(_) | Err(CallError::NotSent | CallError::Lost) => Err(Failure::NotPrimary),
    }
}
