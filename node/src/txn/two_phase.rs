//! Writes on several partitions, atomically: hold and run everywhere, vote everywhere, decide in the home partition.
//!
//! The decision is a record of the home partition (the lowest participant), committed before anyone is told. Whoever
//! is left with a vote and no decision asks the home partition (`resolve`). Gray and Reuter 1993, section 12.5, with
//! the coordinator's log replaced by a replicated partition, as in Spanner.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::join_all;
use volt_engine::effects::TransactionId;
use volt_engine::plan::Program;
use volt_engine::value::Value;
use volt_engine::{NodeId, PartitionId};

use super::calls::CallError;
use super::request::{Failure, Part, Reply, Request, Work};
use super::{Coordinator, Retry, busy};
use crate::error::SqlError;

/// How one try ended.
enum Try {
    /// Committed: rows changed.
    Committed(u64),
    /// Nothing happened, and it is worth another try.
    Again(&'static str),
    /// Nothing happened, and this is why.
    Failed(SqlError),
    /// Nobody could say.
    Unknown,
}

impl Coordinator {
    /// Writes on several partitions, each with its own program: all or none. Returns the rows changed.
    pub async fn run_multi(
        self: &Arc<Self>,
        parts: Vec<(PartitionId, Arc<Program>)>,
        parameters: &[Value],
    ) -> Result<u64, SqlError> {
        let work = |program: Arc<Program>| Work::Program(Box::new(Arc::unwrap_or_clone(program)));
        let parts = parts.into_iter().map(|(partition, program)| (partition, work(program)));
        self.run_works(parts.collect(), parameters).await
    }

    /// The same for any work.
    pub(super) async fn run_works(
        self: &Arc<Self>,
        parts: BTreeMap<PartitionId, Work>,
        parameters: &[Value],
    ) -> Result<u64, SqlError> {
        // A task of its own: a client that goes away must not leave it half-way.
        let (coordinator, parameters) = (Arc::clone(self), parameters.to_vec());
        let run = tokio::spawn(async move { coordinator.try_works(parts, &parameters).await });
        run.await
            .unwrap_or_else(|error| Err(SqlError::unknown_outcome(format!("the transaction stopped: {error}"))))
    }

    async fn try_works(
        self: &Arc<Self>,
        parts: BTreeMap<PartitionId, Work>,
        parameters: &[Value],
    ) -> Result<u64, SqlError> {
        let began_micros = self.context().now_micros;
        let mut retry = self.begin()?;
        loop {
            // A wounded transaction keeps its age, so that it is the oldest some day; its name is new.
            let transaction = self.new_transaction(began_micros);
            let why = match self.try_multi(transaction, &parts, parameters).await {
                Try::Committed(affected) => return Ok(affected),
                Try::Failed(error) => return Err(error),
                Try::Unknown => {
                    return Err(SqlError::unknown_outcome(
                        "the primary that decides was lost; the transaction happens on all its partitions or on none",
                    ));
                }
                Try::Again(why) => why,
            };
            self.pause(&mut retry, parts.keys(), || {
                format!("a transaction on {} partitions: {why}", parts.len())
            })
            .await?;
        }
    }

    async fn try_multi(
        self: &Arc<Self>,
        transaction: TransactionId,
        parts: &BTreeMap<PartitionId, Work>,
        parameters: &[Value],
    ) -> Try {
        let Some(nodes) = self.by_primary(parts.keys().copied()) else {
            return Try::Again("a partition has no primary");
        };
        let affected = match self.execute_everywhere(transaction, &nodes, parts, parameters).await {
            Ok(affected) => affected,
            Err(ended) => {
                self.release_everywhere(transaction, &nodes);
                return ended;
            }
        };
        // Everything that was read stood while everything was held: that is the transaction's moment. Who only read is
        // let go; if it still was held, so were all.
        let reads_only = |partition: &PartitionId| parts[partition].is_read_only();
        let (readers, voters) = divide(&nodes, reads_only);
        if !self.release_readers(transaction, &readers, parts).await {
            self.release_everywhere(transaction, &nodes);
            return Try::Again("an older transaction came first");
        }
        let nodes = voters;
        let Some(home) = nodes.values().flatten().copied().min() else {
            return Try::Committed(affected);
        };
        if !self.vote_everywhere(transaction, &nodes, home).await {
            self.decide_everywhere(transaction, nodes, home, false).await;
            return Try::Again("a participant could not vote");
        }
        match self.decide_everywhere(transaction, nodes, home, true).await {
            Some(true) => Try::Committed(affected),
            Some(false) => Try::Again("it was aborted by its home partition"),
            None => Try::Unknown,
        }
    }

    async fn execute_everywhere(
        &self,
        transaction: TransactionId,
        nodes: &BTreeMap<NodeId, Vec<PartitionId>>,
        parts: &BTreeMap<PartitionId, Work>,
        parameters: &[Value],
    ) -> Result<u64, Try> {
        let context = self.context();
        let asked = nodes.iter().map(|(&node, partitions)| {
            let part = |partition: &PartitionId| Part {
                partition: *partition,
                work: parts[partition].clone(),
            };
            let parts = partitions.iter().map(part).collect();
            self.ask(
                node,
                Request::Execute {
                    transaction,
                    parts,
                    parameters: parameters.to_vec(),
                    context,
                },
            )
        });
        let mut affected = 0;
        for reply in join_all(asked).await {
            match reply {
                Ok(Reply::Executed { affected: rows }) => affected += rows,
                Ok(Reply::Failed(Failure::Sql(error))) => return Err(Try::Failed(error)),
                Ok(Reply::Failed(Failure::Wounded)) => return Err(Try::Again("an older transaction came first")),
                Ok(Reply::Failed(Failure::Busy)) => {
                    return Err(Try::Failed(busy(nodes.values().flatten().copied().next().unwrap_or(0))));
                }
                Ok(Reply::Failed(Failure::NotPrimary)) | Err(CallError::NotSent | CallError::Lost) => {
                    return Err(Try::Again("a primary can't be reached"));
                }
                Ok(other) => return Err(Try::Failed(SqlError::internal(format!("unexpected reply {other:?}")))),
            }
        }
        Ok(affected)
    }

    /// Lets go of partitions that were only read; false if one was not held any more.
    async fn release_readers(
        &self,
        transaction: TransactionId,
        readers: &BTreeMap<NodeId, Vec<PartitionId>>,
        parts: &BTreeMap<PartitionId, Work>,
    ) -> bool {
        let asked = readers.iter().map(|(&node, partitions)| {
            let read = |&partition: &PartitionId| match &parts[&partition] {
                Work::Buffered(buffered) => Some((partition, buffered.snapshot)),
                Work::Program(_) => None,
            };
            let release = Request::Release {
                transaction,
                partitions: partitions.clone(),
                snapshot: partitions.iter().filter_map(read).collect(),
            };
            self.ask(node, release)
        });
        join_all(asked)
            .await
            .iter()
            .all(|reply| matches!(reply, Ok(Reply::Done)))
    }

    async fn vote_everywhere(
        &self,
        transaction: TransactionId,
        nodes: &BTreeMap<NodeId, Vec<PartitionId>>,
        home: PartitionId,
    ) -> bool {
        let asked = nodes.iter().map(|(&node, partitions)| {
            self.ask(
                node,
                Request::Prepare {
                    transaction,
                    partitions: partitions.clone(),
                    home,
                },
            )
        });
        join_all(asked)
            .await
            .iter()
            .all(|reply| matches!(reply, Ok(Reply::Done)))
    }

    /// Asks the home partition for the decision; then tells the others, who wait for it, without waiting for them.
    async fn decide_everywhere(
        self: &Arc<Self>,
        transaction: TransactionId,
        nodes: BTreeMap<NodeId, Vec<PartitionId>>,
        home: PartitionId,
        commit: bool,
    ) -> Option<bool> {
        let decision = self.decide_home(transaction, home, commit).await;
        let commit = decision?;
        let coordinator = Arc::clone(self);
        tokio::spawn(async move {
            // One who isn't reached asks the home partition himself, a second later.
            let told = nodes.iter().filter_map(|(&node, partitions)| {
                let partitions: Vec<_> = partitions
                    .iter()
                    .copied()
                    .filter(|&partition| partition != home)
                    .collect();
                (!partitions.is_empty()).then(|| {
                    coordinator.ask(
                        node,
                        Request::Decide {
                            transaction,
                            partitions,
                            commit,
                        },
                    )
                })
            });
            join_all(told).await;
        });
        decision
    }

    async fn decide_home(&self, transaction: TransactionId, home: PartitionId, commit: bool) -> Option<bool> {
        let mut retry = Retry::new();
        loop {
            // Asking again is safe: the first decision on record stands.
            let request = Request::Decide {
                transaction,
                partitions: vec![home],
                commit,
            };
            if let Ok(Reply::Decision(Some(decided))) = self.ask_primary(home, request).await {
                return Some(decided);
            }
            self.pause(&mut retry, &[home], String::new).await.ok()?;
        }
    }

    fn release_everywhere(self: &Arc<Self>, transaction: TransactionId, nodes: &BTreeMap<NodeId, Vec<PartitionId>>) {
        for (&node, partitions) in nodes {
            let (coordinator, partitions) = (Arc::clone(self), partitions.clone());
            tokio::spawn(async move {
                coordinator
                    .ask(
                        node,
                        Request::Release {
                            transaction,
                            partitions,
                            snapshot: Vec::new(),
                        },
                    )
                    .await
            });
        }
    }
}

/// Those for which it is true, and the others; nodes that have none are left out.
fn divide(
    nodes: &BTreeMap<NodeId, Vec<PartitionId>>,
    is_first: impl Fn(&PartitionId) -> bool,
) -> (BTreeMap<NodeId, Vec<PartitionId>>, BTreeMap<NodeId, Vec<PartitionId>>) {
    let (mut first, mut second) = (BTreeMap::new(), BTreeMap::new());
    for (&node, partitions) in nodes {
        for &partition in partitions {
            let to = if is_first(&partition) { &mut first } else { &mut second };
            to.entry(node).or_insert_with(Vec::new).push(partition);
        }
    }
    (first, second)
}
