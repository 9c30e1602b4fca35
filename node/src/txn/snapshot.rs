//! A consistent cut of several partitions: hold all of them, read their LSNs, let go; then read at leisure.
//!
//! While all are held, no transaction over several of them is half-way, so the cut has all of each or nothing of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use futures::StreamExt;
use futures::future::join_all;
use futures::stream::BoxStream;
use volt_engine::effects::{Effects, TransactionId};
use volt_engine::plan::{Program, StatementContext};
use volt_engine::transaction::Writes;
use volt_engine::value::Value;
use volt_engine::{Epoch, Lsn, NodeId, PartitionId, TableId};

use super::calls::CallError;
use super::journal::AllWrites;
use super::request::{Failure, Held, Reply, Request, ScanRequest};
use super::{Coordinator, busy};
use crate::error::SqlError;

/// A cut, kept by the primaries until this is dropped. An interactive transaction's grows with what it reads: it is one
/// cut only if what it read still stands at the end.
pub struct Snapshot {
    /// Its name with the primaries.
    transaction: TransactionId,
    kept: Mutex<Kept>,
    context: StatementContext,
    coordinator: Arc<Coordinator>,
}

/// What a snapshot is of, and who keeps it.
#[derive(Debug, Default)]
struct Kept {
    /// What may be read: committed, and of one moment with whatever was added with it.
    at: BTreeMap<PartitionId, (NodeId, Lsn)>,
    /// Of the records there, of partitions that were held for it.
    epochs: BTreeMap<PartitionId, Epoch>,
    /// How often something was added.
    moments: usize,
    /// Who may keep something for it, read or not.
    nodes: BTreeSet<NodeId>,
}

impl Snapshot {
    /// Of no partition yet.
    pub(super) fn new(coordinator: &Arc<Coordinator>, context: StatementContext) -> Self {
        Self {
            transaction: coordinator.new_transaction(context.now_micros),
            kept: Mutex::default(),
            context,
            coordinator: Arc::clone(coordinator),
        }
    }

    pub(super) fn transaction(&self) -> TransactionId {
        self.transaction
    }

    /// The time of its statement, or its transaction.
    pub(crate) fn context(&self) -> StatementContext {
        self.context
    }

    /// Who keeps a partition, and at which LSN.
    pub(crate) fn at(&self, partition: PartitionId) -> Option<(NodeId, Lsn)> {
        self.kept().at.get(&partition).copied()
    }

    /// The record at which a partition is read that was held for it.
    pub(crate) fn record(&self, partition: PartitionId) -> Option<(Lsn, Epoch)> {
        let kept = self.kept();
        let (_, lsn) = *kept.at.get(&partition)?;
        Some((lsn, *kept.epochs.get(&partition)?))
    }

    /// How many moments it is of; one, and it is a cut.
    pub(super) fn moments(&self) -> usize {
        self.kept().moments
    }

    /// Adds what is committed and was there at one moment.
    pub(super) fn add(&self, cut: impl IntoIterator<Item = (PartitionId, (NodeId, Lsn))>) {
        let mut kept = self.kept();
        for (partition, (node, lsn)) in cut {
            kept.at.insert(partition, (node, lsn));
            kept.nodes.insert(node);
        }
        kept.moments += 1;
    }

    /// Adds a cut.
    fn add_held(&self, cut: &BTreeMap<PartitionId, (NodeId, Held)>) {
        self.add(
            cut.iter()
                .map(|(&partition, &(node, held))| (partition, (node, held.lsn))),
        );
        let epochs = cut.iter().map(|(&partition, (_, held))| (partition, held.epoch));
        self.kept().epochs.extend(epochs);
    }

    /// Notes that these may keep something for it, whatever comes of it: they are told when it is dropped.
    pub(super) fn asked(&self, nodes: impl Iterator<Item = NodeId>) {
        self.kept().nodes.extend(nodes);
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().expect("no panic under this lock")
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let nodes = std::mem::take(&mut self.kept().nodes);
        for node in nodes {
            let (coordinator, transaction) = (Arc::clone(&self.coordinator), self.transaction);
            runtime.spawn(async move { coordinator.ask(node, Request::Unpin { transaction }).await });
        }
    }
}

impl Coordinator {
    /// A consistent cut of these partitions, of which everything is committed.
    pub async fn snapshot(self: &Arc<Self>, partitions: &[PartitionId]) -> Result<Arc<Snapshot>, SqlError> {
        let snapshot = Arc::new(Snapshot::new(self, self.context()));
        self.extend(&snapshot, partitions).await?;
        Ok(snapshot)
    }

    /// Adds a consistent cut of these partitions, which it must not have yet.
    pub(super) async fn extend(
        self: &Arc<Self>,
        snapshot: &Arc<Snapshot>,
        partitions: &[PartitionId],
    ) -> Result<(), SqlError> {
        // A task of its own: a client that goes away must not leave partitions held.
        let (coordinator, snapshot) = (Arc::clone(self), Arc::clone(snapshot));
        let partitions = partitions.to_vec();
        let taken = tokio::spawn(async move { coordinator.take_cut(&snapshot, &partitions).await });
        taken
            .await
            .unwrap_or_else(|error| Err(SqlError::unavailable(format!("the snapshot was not taken: {error}"))))
    }

    async fn take_cut(&self, snapshot: &Snapshot, partitions: &[PartitionId]) -> Result<(), SqlError> {
        let began_micros = snapshot.context.now_micros;
        let mut retry = self.begin()?;
        loop {
            let holding = self.begin_holding(began_micros);
            let why = match self.try_cut(snapshot, holding.transaction, partitions).await {
                Ok(()) => return Ok(()),
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

    async fn try_cut(
        &self,
        snapshot: &Snapshot,
        holding: TransactionId,
        partitions: &[PartitionId],
    ) -> Result<(), Failure> {
        let nodes = self.by_primary(partitions.iter().copied()).ok_or(Failure::NotPrimary)?;
        snapshot.asked(nodes.keys().copied());
        let holds = nodes.iter().map(|(&node, partitions)| {
            let hold = Request::Hold {
                transaction: holding,
                partitions: partitions.clone(),
                pin_for: Some(snapshot.transaction),
            };
            async move { (node, self.ask(node, hold).await) }
        });
        // Noted as read only when it is confirmed: what is held may be taken away, or undone.
        let (mut cut, mut failed) = (BTreeMap::new(), None);
        for (node, reply) in join_all(holds).await {
            match held(reply) {
                Ok(held) => cut.extend(held.into_iter().map(|held| (held.partition, (node, held)))),
                Err(failure) => failed = Some(failure),
            }
        }
        let releases = nodes.iter().map(|(&node, partitions)| {
            let confirm = partitions
                .iter()
                .filter_map(|&partition| Some((partition, cut.get(&partition)?.1.lsn)));
            let confirm = if failed.is_none() {
                confirm.collect()
            } else {
                Vec::new()
            };
            self.ask(
                node,
                Request::Release {
                    transaction: holding,
                    partitions: partitions.clone(),
                    snapshot: confirm,
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
        snapshot.add_held(&cut);
        Ok(())
    }

    /// What of a transaction's writes whoever reads a table beyond a key must know: its own there, or, of a materialized
    /// view, all of its source's.
    pub(super) fn writes_seen(&self, writes: &Writes, table: TableId, after: Option<&[u8]>) -> Effects {
        let map = self.map();
        match map.tables.get(&table).and_then(|table| table.view.as_ref()) {
            Some(view) => writes.of_table(view.source, None),
            None => writes.of_table(table, after),
        }
    }

    /// The rows of a table in one partition at the cut, with these writes over them, in key order: encoded rows, a chunk
    /// at a time.
    pub fn scan(
        self: &Arc<Self>,
        snapshot: &Arc<Snapshot>,
        wanted: Wanted,
        writes: Arc<AllWrites>,
    ) -> BoxStream<'static, Result<Vec<Bytes>, SqlError>> {
        let scan = Scan {
            coordinator: Arc::clone(self),
            snapshot: Arc::clone(snapshot),
            wanted,
            writes,
            after: Some(None),
        };
        futures::stream::unfold(scan, |mut scan| async move {
            let rows = scan.next().await?;
            Some((rows, scan))
        })
        .boxed()
    }
}

/// What a scan reads.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Where.
    pub partition: PartitionId,
    /// Of which table.
    pub table: TableId,
    /// These columns, in this order.
    pub project: Vec<usize>,
    /// What rows have in columns that they lack (`Table::missing`).
    pub missing: Vec<Value>,
    /// What rows' versions are beyond their LSNs (`Table::version_base`).
    pub version_base: i64,
    /// How many columns the table had lost when this was planned.
    pub dropped_columns: usize,
    /// What finds the rows and gives these columns, if they needn't all be looked at.
    pub program: Option<Arc<Program>>,
}

struct Scan {
    coordinator: Arc<Coordinator>,
    snapshot: Arc<Snapshot>,
    wanted: Wanted,
    writes: Arc<AllWrites>,
    /// The key to go on after; None: at the end.
    after: Option<Option<Vec<u8>>>,
}

impl Scan {
    async fn next(&mut self) -> Option<Result<Vec<Bytes>, SqlError>> {
        let after = self.after.take()?;
        let Some((node, lsn)) = self.snapshot.at(self.wanted.partition) else {
            return Some(Err(SqlError::internal("a partition outside the snapshot")));
        };
        let writes = self.writes.get(&self.wanted.partition);
        let seen = |writes| {
            self.coordinator
                .writes_seen(writes, self.wanted.table, after.as_deref())
        };
        let writes = writes.map(seen);
        let request = Request::Scan(ScanRequest {
            transaction: self.snapshot.transaction,
            partition: self.wanted.partition,
            snapshot: lsn,
            table: self.wanted.table,
            writes: writes.unwrap_or_default(),
            program: self.wanted.program.as_deref().filter(|_| after.is_none()).cloned(),
            after,
            project: Some(self.wanted.project.clone()),
            missing: self.wanted.missing.clone(),
            version_base: self.wanted.version_base,
            dropped_columns: self.wanted.dropped_columns,
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
                self.wanted.partition
            ))
            .hint("Run the query again."))),
        }
    }
}

fn held(reply: Result<Reply, CallError>) -> Result<Vec<Held>, Failure> {
    match reply {
        Ok(Reply::Held(held)) => Ok(held),
        Ok(Reply::Failed(failure)) => Err(failure),
        Ok(_) | Err(CallError::NotSent | CallError::Lost) => Err(Failure::NotPrimary),
    }
}
