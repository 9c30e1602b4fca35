//! Writes on several partitions, atomically: hold and run everywhere, vote everywhere, decide in the home partition.
//!
//! The decision is a record of the home partition (the lowest participant of the strongest replication mode), committed before anyone is told. Whoever
//! is left with a vote and no decision asks the home partition (`resolve`). Gray and Reuter 1993, section 12.5, with
//! the coordinator's log replaced by a replicated partition, as in Spanner.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::join_all;
use volt_engine::effects::TransactionId;
use volt_engine::idempotency::Keyed;
use volt_engine::plan::Program;
use volt_engine::value::Value;
use volt_engine::{NodeId, PartitionId};

use super::calls::CallError;
use super::keyed::is_key_of;
use super::request::{Buffered, Changed, Failure, KeyedAt, Part, Reply, Request, Work};
use super::{Coordinator, Retry, busy, give_rows, settled};
use crate::error::SqlError;
use crate::statement::RowSink;
use crate::world::{CrashPoint, PlantedBug};

/// How one try ended.
enum Try {
    /// Committed, with what is changed.
    Committed(Changed),
    /// Nothing happened, and it is worth another try.
    Again(&'static str),
    /// Nothing happened, and this is why.
    Failed(SqlError),
    /// Nobody could say.
    Unknown,
}

impl Coordinator {
    /// Writes on several partitions, each with its own program: all or none. How many rows are changed; those that are
    /// returned of them go to the sink.
    pub async fn run_multi(
        self: &Arc<Self>,
        parts: Vec<(PartitionId, Arc<Program>)>,
        parameters: &[Value],
        key: Option<Keyed>,
        sink: &mut dyn RowSink,
    ) -> Result<u64, SqlError> {
        let work = |program: Arc<Program>| Work::Program(Box::new(Arc::unwrap_or_clone(program)));
        let parts = parts.into_iter().map(|(partition, program)| (partition, work(program)));
        let parts: BTreeMap<_, _> = parts.collect();
        // The same when it is repeated, for the statement's parts are.
        let lowest = parts.keys().next().copied();
        let key = key.zip(lowest).map(|(keyed, partition)| KeyedAt { partition, keyed });
        let changed = self.run_works(parts, parameters, key).await?;
        give_rows(&changed.rows, sink)?;
        Ok(changed.affected)
    }

    /// A write with a key that one partition keeps, whichever ones it writes to.
    pub async fn run_keyed_at(
        self: &Arc<Self>,
        partition: PartitionId,
        keyed: Keyed,
        mut parts: Vec<(PartitionId, Arc<Program>)>,
        parameters: &[Value],
        sink: &mut dyn RowSink,
    ) -> Result<u64, SqlError> {
        if let [(only, program)] = parts.as_slice()
            && *only == partition
        {
            return self.run_single(partition, program, parameters, Some(keyed), sink).await;
        }
        let work = |(partition, program): (PartitionId, Arc<Program>)| {
            let program = Box::new(Arc::unwrap_or_clone(program));
            (partition, Work::Program(program))
        };
        let mut works: BTreeMap<_, _> = parts.drain(..).map(work).collect();
        let nothing = || Work::Buffered(Buffered::nothing());
        works.entry(partition).or_insert_with(nothing);
        let key = Some(KeyedAt { partition, keyed });
        let changed = self.run_works(works, parameters, key).await?;
        give_rows(&changed.rows, sink)?;
        Ok(changed.affected)
    }

    /// The same for any work.
    pub(super) async fn run_works(
        self: &Arc<Self>,
        parts: BTreeMap<PartitionId, Work>,
        parameters: &[Value],
        key: Option<KeyedAt>,
    ) -> Result<Changed, SqlError> {
        // A task of its own: a client that goes away must not leave it half-way.
        let (coordinator, parameters) = (Arc::clone(self), parameters.to_vec());
        let run = tokio::spawn(async move { coordinator.try_works(parts, &parameters, key).await });
        run.await
            .unwrap_or_else(|error| Err(SqlError::unknown_outcome(format!("the transaction stopped: {error}"))))
    }

    async fn try_works(
        self: &Arc<Self>,
        parts: BTreeMap<PartitionId, Work>,
        parameters: &[Value],
        key: Option<KeyedAt>,
    ) -> Result<Changed, SqlError> {
        let began_micros = self.context().now_micros;
        let mut retry = self.begin()?;
        // A try of which nobody knows what became.
        let mut lost = None;
        loop {
            // A wounded transaction keeps its age, so that it is the oldest some day; its name is new.
            let holding = self.begin_holding(began_micros);
            let tried = self
                .try_multi(holding.transaction, &parts, parameters, key.as_ref())
                .await;
            // What it may still hold without a vote is of no use any more.
            drop(holding);
            let why = match tried {
                Try::Committed(changed) => return Ok(changed),
                Try::Failed(error) => return Err(settled(error, lost)),
                Try::Unknown => {
                    let error = SqlError::unknown_outcome(
                        "the primary that decides was lost; the transaction happens on all its partitions or on none",
                    );
                    if key.is_none() {
                        return Err(error);
                    }
                    retry.extend_once(lost.is_some());
                    lost = Some(error);
                    "the primary that decides was lost"
                }
                Try::Again(why) => why,
            };
            self.pause(&mut retry, parts.keys(), || {
                format!("a transaction on {} partitions: {why}", parts.len())
            })
            .await
            .map_err(|error| settled(error, lost.clone()))?;
        }
    }

    async fn try_multi(
        self: &Arc<Self>,
        transaction: TransactionId,
        parts: &BTreeMap<PartitionId, Work>,
        parameters: &[Value],
        key: Option<&KeyedAt>,
    ) -> Try {
        let Some(nodes) = self.by_primary(parts.keys().copied()) else {
            return Try::Again("a partition has no primary");
        };
        let executed = self
            .execute_everywhere(transaction, &nodes, parts, parameters, key)
            .await;
        let changed = match executed {
            Ok(changed) => changed,
            Err(ended) => {
                self.release_everywhere(transaction, &nodes);
                return ended;
            }
        };
        // Everything that was read stood while everything was held: that is the transaction's moment. Who only read is
        // let go; if it still was held, so were all.
        let reads_only = |partition: &PartitionId| parts[partition].is_read_only() && !is_key_of(key, *partition);
        let (readers, voters) = divide(&nodes, reads_only);
        if !self.release_readers(transaction, &readers, parts).await {
            self.release_everywhere(transaction, &nodes);
            return Try::Again("an older transaction came first");
        }
        let nodes = voters;
        let map = self.replicas.metadata.map();
        let mode = |partition: PartitionId| map.partitions.get(&partition).map(|info| info.mode);
        let voting = nodes.values().flatten().copied();
        // The decision must not be lost with a primary while others have acted on it.
        let Some(home) = voting.min_by_key(|partition| (mode(*partition), *partition)) else {
            return Try::Committed(changed);
        };
        if key.is_some()
            && let Err(error) = changed.to_kept().check()
        {
            self.release_everywhere(transaction, &nodes);
            return Try::Failed(error.into());
        }
        let key = key.map(|at| (at.clone(), changed.clone()));
        self.replicas.world.pass(CrashPoint::TwoPhaseRun).await;
        if !self.vote_everywhere(transaction, &nodes, home, key.as_ref()).await {
            self.decide_everywhere(transaction, nodes, home, false).await;
            return Try::Again("a participant could not vote");
        }
        self.replicas.world.pass(CrashPoint::TwoPhaseVoted).await;
        match self.decide_everywhere(transaction, nodes, home, true).await {
            Some(true) => Try::Committed(changed),
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
        key: Option<&KeyedAt>,
    ) -> Result<Changed, Try> {
        let context = self.context();
        let asked = nodes.iter().map(|(&node, partitions)| {
            let part = |partition: &PartitionId| Part {
                partition: *partition,
                work: parts[partition].clone(),
            };
            let keeps = partitions.iter().any(|partition| is_key_of(key, *partition));
            let request = Request::Execute {
                transaction,
                parts: partitions.iter().map(part).collect(),
                parameters: parameters.to_vec(),
                context,
                key: key.filter(|_| keeps).cloned(),
            };
            async move { (keeps, self.ask(node, request).await) }
        });
        let mut replies = join_all(asked).await;
        // Who keeps the key has the first word: if it happened before, what the others met is what it did.
        replies.sort_by_key(|(keeps, _)| !keeps);
        let mut changed = Changed::default();
        let first = parts.keys().next().copied().unwrap_or(0);
        for (keeps, reply) in replies {
            match executed(reply, first) {
                Ok(more) => changed.add(more).map_err(|error| Try::Failed(error.into()))?,
                Err(Try::Failed(error)) if !keeps => return Err(self.failed_elsewhere(transaction, key, error).await),
                Err(ended) => return Err(ended),
            }
        }
        Ok(changed)
    }

    /// An error of a partition that doesn't keep the key. It counts if the key's partition was held all the while: whoever
    /// had taken it may have been the same request, and this error what that did.
    async fn failed_elsewhere(&self, transaction: TransactionId, key: Option<&KeyedAt>, error: SqlError) -> Try {
        let Some(at) = key else {
            return Try::Failed(error);
        };
        let confirm = Request::Release {
            transaction,
            partitions: vec![at.partition],
            snapshot: vec![(at.partition, 0)],
        };
        match self.ask_primary(at.partition, confirm).await {
            Ok(Reply::Done) => Try::Failed(error),
            _ => Try::Again("the partition that keeps the key was not held all the while"),
        }
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
                Work::Program(_) | Work::Follow(_) => None,
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
        key: Option<&(KeyedAt, Changed)>,
    ) -> bool {
        let asked = nodes.iter().map(|(&node, partitions)| {
            let keeps = |(at, _): &&(KeyedAt, Changed)| partitions.contains(&at.partition);
            self.ask(
                node,
                Request::Prepare {
                    transaction,
                    partitions: partitions.clone(),
                    home,
                    key: key.filter(keeps).cloned(),
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
        if self.replicas.world.planted.has(PlantedBug::DecisionNotReplicated) {
            self.tell_the_others(transaction, &nodes, home, commit).await;
            self.replicas.world.pass(CrashPoint::TwoPhaseDecided).await;
        }
        let decision = self.decide_home(transaction, home, commit).await;
        let commit = decision?;
        self.replicas.world.pass(CrashPoint::TwoPhaseDecided).await;
        let coordinator = Arc::clone(self);
        tokio::spawn(async move { coordinator.tell_the_others(transaction, &nodes, home, commit).await });
        decision
    }

    /// One who isn't reached asks the home partition himself, a second later.
    async fn tell_the_others(
        &self,
        transaction: TransactionId,
        nodes: &BTreeMap<NodeId, Vec<PartitionId>>,
        home: PartitionId,
        commit: bool,
    ) {
        let (_, others) = divide(nodes, |&partition| partition == home);
        let told = others.into_iter().map(|(node, partitions)| {
            let decide = Request::Decide {
                transaction,
                partitions,
                commit,
            };
            self.ask(node, decide)
        });
        join_all(told).await;
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

/// What a node changes, or how its answer ends this try.
fn executed(reply: Result<Reply, CallError>, first: PartitionId) -> Result<Changed, Try> {
    match reply {
        Ok(Reply::Executed(changed)) => Ok(changed),
        Ok(Reply::Before(changed)) => Err(Try::Committed(changed)),
        Ok(Reply::Failed(Failure::Sql(error))) if error.is_unknown_outcome() => Err(Try::Unknown),
        Ok(Reply::Failed(Failure::Sql(error))) => Err(Try::Failed(error)),
        Ok(Reply::Failed(Failure::Wounded)) => Err(Try::Again("an older transaction came first")),
        Ok(Reply::Failed(Failure::Busy)) => Err(Try::Failed(busy(first))),
        Ok(Reply::Failed(Failure::NotPrimary)) | Err(CallError::NotSent | CallError::Lost) => {
            Err(Try::Again("a primary can't be reached"))
        }
        Ok(other) => Err(Try::Failed(SqlError::internal(format!("unexpected reply {other:?}")))),
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
