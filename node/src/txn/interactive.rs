//! Interactive transactions, on their coordinator: `BEGIN ... COMMIT` of a client.
//!
//! Optimistic: each statement runs at the transaction's snapshot of its partition, with the transaction's own writes over it;
//! what was read is remembered, what is written is kept here. The end validates and applies: in one partition
//! serially, in several by two-phase commit. Nothing is held between statements.
//!
//! Serializable: a partition's snapshot is taken when it is first read, and every read is validated while all partitions
//! are held; a transaction that only read several partitions validates each once more after its last read, so that all
//! its reads were true at that read's moment. Snapshot isolation and READ ONLY: one cut of all partitions at the first
//! statement; of the reads, only the keys that are written are validated (first committer wins).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::future::try_join_all;
use volt_engine::effects::Effects;
use volt_engine::idempotency::Keyed;
use volt_engine::placement::partition_index;
use volt_engine::plan::Program;
use volt_engine::transaction::{Reads, Writes};
use volt_engine::value::{Value, ValueRef};
use volt_engine::{GroupId, NodeId, PartitionId, TableId};

use super::calls::CallError;
use super::journal::{AllWrites, Journal};
use super::optimistic::conflict;
use super::participant::Ran;
use super::request::{AttemptRequest, Attempted, Buffered, Failure, KeyedAt, Reply, Request, Work, check_returned};
use super::snapshot::Snapshot;
use super::{Coordinator, Repeat, busy, give_rows};
use crate::error::SqlError;
use crate::statement::{CommitWait, Isolation, RowSink, TransactionModes};

/// What a transaction may remember of its reads in one partition: they travel with its effects in one message.
const MAX_READS_BYTES: usize = 2 << 20;

/// A cut is taken again when a table was dropped meanwhile, so often.
const MAX_CUTS: usize = 10;

/// See the module.
pub struct Interactive {
    coordinator: Arc<Coordinator>,
    modes: TransactionModes,
    snapshot: Arc<Snapshot>,
    reads: BTreeMap<PartitionId, Reads>,
    journal: Journal,
    /// Where each table lay when it was used first.
    places: BTreeMap<TableId, Option<GroupId>>,
}

impl Interactive {
    /// Begins a transaction; it reads nothing yet.
    pub fn begin(coordinator: &Arc<Coordinator>, modes: TransactionModes) -> Self {
        Self {
            coordinator: Arc::clone(coordinator),
            modes,
            snapshot: Arc::new(Snapshot::new(coordinator, coordinator.context())),
            reads: BTreeMap::new(),
            journal: Journal::default(),
            places: BTreeMap::new(),
        }
    }

    /// Its modes.
    pub fn modes(&self) -> TransactionModes {
        self.modes
    }

    /// What it has written so far.
    pub fn writes(&self) -> Arc<AllWrites> {
        Arc::clone(self.journal.writes())
    }

    /// A place to come back to.
    pub fn savepoint(&self) -> usize {
        self.journal.savepoint()
    }

    /// Takes back what was written after a savepoint. What was read counts all the same: the client was told of it.
    pub fn rewind(&mut self, savepoint: usize) -> Result<(), SqlError> {
        self.journal.rewind(savepoint)
    }

    /// Runs a program in each of these partitions: all of it or nothing is done. Returns the rows returned or changed.
    pub async fn run(
        &mut self,
        parts: Vec<(PartitionId, Arc<Program>)>,
        parameters: &[Value],
        sink: &mut dyn RowSink,
    ) -> Result<u64, SqlError> {
        self.take_cut_if_one_is_due().await?;
        if let Some((partition, program)) = parts.first() {
            self.note_place(program.table, *partition)?;
        }
        let attempts = parts
            .iter()
            .map(|(partition, program)| self.attempt(*partition, program, parameters));
        let attempts = try_join_all(attempts).await?;
        let (mut affected, mut done) = (0, Vec::new());
        let mut results = Vec::new();
        for ((partition, _), attempted) in parts.iter().zip(attempts) {
            self.note_reads(*partition, attempted.reads)?;
            results.push((*partition, attempted.result));
        }
        let writes = parts.iter().any(|(_, program)| !program.is_read_only());
        let mut returned = Vec::new();
        for (partition, result) in results {
            let (rows, count, effects) = result?;
            if writes {
                returned.extend(rows);
                check_returned(&returned)?;
            } else {
                give_rows(&rows, sink)?;
            }
            affected += count;
            done.extend(effects.map(|effects| (partition, effects)));
        }
        self.journal.push(done)?;
        give_rows(&returned, sink)?;
        Ok(affected)
    }

    /// The snapshot, with these tables' partitions in it, all of whose rows are about to be read.
    pub async fn read_tables(&mut self, tables: &[(TableId, Vec<PartitionId>)]) -> Result<Arc<Snapshot>, SqlError> {
        self.take_cut_if_one_is_due().await?;
        let mut missing: Vec<PartitionId> = tables
            .iter()
            .flat_map(|(_, partitions)| partitions)
            .copied()
            .filter(|partition| self.snapshot.at(*partition).is_none())
            .collect();
        missing.sort_unstable();
        missing.dedup();
        if !missing.is_empty() {
            if self.reads_one_cut() {
                return Err(after_the_cut());
            }
            self.coordinator.extend(&self.snapshot, &missing).await?;
        }
        for (table, partitions) in tables {
            if let Some(partition) = partitions.first() {
                self.note_place(*table, *partition)?;
            }
            for partition in partitions {
                self.reads.entry(*partition).or_default().note_range(*table, &[], None);
            }
        }
        Ok(Arc::clone(&self.snapshot))
    }

    /// Commits; with a key, once, however often that is asked for. What is to be waited for before the client is told is
    /// returned when this node can wait for it.
    pub async fn commit(self, key: Option<Keyed>) -> Result<Option<CommitWait>, SqlError> {
        self.check_tables()?;
        let mut parts = self.parts();
        let writes_nothing = parts.values().all(Work::is_read_only);
        if writes_nothing && (self.snapshot.moments() < 2 || self.reads_one_cut()) {
            return Ok(None);
        }
        if writes_nothing {
            return self.validate_each(parts, None).await;
        }
        let key = key.map(|keyed| self.coordinator.place_of_key(keyed)).transpose()?;
        if let Some(at) = &key {
            let nothing = || Work::Buffered(Buffered::nothing());
            parts.entry(at.partition).or_insert_with(nothing);
        }
        if parts.len() == 1 {
            return self.validate_each(parts, key.map(|at| at.keyed)).await;
        }
        self.coordinator.run_works(parts, &[], key).await.map(|_| None)
    }

    // ---- Statements

    /// It reads one cut of everything, and what it only reads is not validated.
    fn reads_one_cut(&self) -> bool {
        self.modes.read_only || self.modes.isolation == Isolation::Snapshot
    }

    /// Takes that cut with the first statement. The partitions of a table that is dropped meanwhile are left out of it:
    /// nobody has named them yet.
    async fn take_cut_if_one_is_due(&mut self) -> Result<(), SqlError> {
        if !self.reads_one_cut() || self.snapshot.moments() > 0 {
            return Ok(());
        }
        let mut tries = 1;
        loop {
            let all: Vec<PartitionId> = self.coordinator.map().partitions.keys().copied().collect();
            let taken = self.coordinator.extend(&self.snapshot, &all).await;
            let map = self.coordinator.map();
            let is_dropped = |partition| !map.partitions.contains_key(partition);
            if taken.is_ok() || tries == MAX_CUTS || !all.iter().any(is_dropped) {
                return taken;
            }
            tries += 1;
        }
    }

    async fn attempt(
        &self,
        partition: PartitionId,
        program: &Program,
        parameters: &[Value],
    ) -> Result<Attempted, SqlError> {
        let at = self.snapshot.at(partition);
        if at.is_none() && self.reads_one_cut() {
            return Err(after_the_cut());
        }
        let writes = self.journal.writes().get(&partition);
        let request = AttemptRequest {
            transaction: self.snapshot.transaction(),
            partition,
            snapshot: at.map(|(_, lsn)| lsn),
            writes: writes
                .map(|writes| self.coordinator.writes_seen(writes, program.table, None))
                .unwrap_or_default(),
            program: program.clone(),
            parameters: parameters.to_vec(),
            context: self.snapshot.context(),
        };
        match at {
            Some((node, _)) => self.attempt_at(node, request).await,
            None => self.attempt_first(request).await,
        }
    }

    async fn attempt_at(&self, node: NodeId, request: AttemptRequest) -> Result<Attempted, SqlError> {
        let partition = request.partition;
        match self.coordinator.ask(node, Request::Attempt(request)).await {
            Ok(Reply::Attempted(attempted)) => Ok(attempted),
            Ok(Reply::Failed(Failure::Sql(error))) => Err(error),
            Ok(Reply::Failed(_)) | Err(CallError::NotSent | CallError::Lost) => Err(conflict().detail(format!(
                "The transaction's snapshot of partition {partition} is gone: its node was lost, or the transaction was idle for too long."
            ))),
            Ok(other) => Err(SqlError::internal(format!("unexpected reply {other:?}"))),
        }
    }

    /// Takes the snapshot of a partition with the statement that needs it.
    async fn attempt_first(&self, request: AttemptRequest) -> Result<Attempted, SqlError> {
        let partition = request.partition;
        let mut retry = self.coordinator.begin()?;
        loop {
            let primary = self.coordinator.primary_of(partition);
            let why = match primary {
                None => "it has no primary that can serve",
                Some(node) => match self.ask_first(node, &request).await {
                    Ok(Reply::Attempted(attempted)) => {
                        self.snapshot.add([(partition, (node, attempted.snapshot))]);
                        return Ok(attempted);
                    }
                    Ok(Reply::Failed(Failure::Sql(error))) => return Err(error),
                    Ok(Reply::Failed(Failure::Busy)) => return Err(busy(partition)),
                    Ok(Reply::Failed(Failure::NotPrimary | Failure::Wounded)) => "it has no primary that can serve",
                    Err(CallError::NotSent | CallError::Lost) => "its primary can't be reached",
                    Ok(other) => return Err(SqlError::internal(format!("unexpected reply {other:?}"))),
                },
            };
            self.coordinator
                .pause(&mut retry, &[partition], || format!("partition {partition}: {why}"))
                .await?;
        }
    }

    async fn ask_first(&self, node: NodeId, request: &AttemptRequest) -> Result<Reply, CallError> {
        self.snapshot.asked([node].into_iter());
        self.coordinator.ask(node, Request::Attempt(request.clone())).await
    }

    /// What it has written to a table, and what it was shown of it, it would not meet again where the table lies after a move.
    fn note_place(&mut self, table: TableId, partition: PartitionId) -> Result<(), SqlError> {
        let map = self.coordinator.map();
        let group = map.partitions.get(&partition).map(|info| info.group);
        match *self.places.entry(table).or_insert(group) == group {
            true => Ok(()),
            false => Err(conflict().detail("A table that this transaction has used has moved to other partitions.")),
        }
    }

    fn note_reads(&mut self, partition: PartitionId, new: Reads) -> Result<(), SqlError> {
        let reads = self.reads.entry(partition).or_default();
        reads.add(new);
        if reads.bytes() > MAX_READS_BYTES {
            let limit = MAX_READS_BYTES >> 20;
            let message = format!("a transaction may remember {limit} MiB of reads in one partition");
            return Err(SqlError::new("54000", message).hint("Read or change fewer rows, or all of them by one range."));
        }
        Ok(())
    }

    // ---- The end

    /// What it wrote must not go into a table that was dropped meanwhile.
    fn check_tables(&self) -> Result<(), SqlError> {
        let map = self.coordinator.map();
        let mut written = self.journal.writes().values().flat_map(Writes::tables);
        match written.find(|table| !map.tables.contains_key(table)) {
            None => Ok(()),
            Some(_) => Err(SqlError::new(
                "42P01",
                "a table was dropped while this transaction wrote to it",
            )),
        }
    }

    /// What is to be validated and applied in each partition.
    fn parts(&self) -> BTreeMap<PartitionId, Work> {
        let mut parts = BTreeMap::new();
        let partitions: BTreeSet<PartitionId> =
            self.reads.keys().chain(self.journal.writes().keys()).copied().collect();
        for partition in partitions {
            let at = self.snapshot.at(partition);
            let (_, snapshot) = at.expect("what was read or written is in the snapshot");
            let writes = self.journal.writes().get(&partition).cloned().unwrap_or_default();
            let reads = self.reads.get(&partition).cloned().unwrap_or_default();
            let reads = if self.reads_one_cut() {
                reads.written(&writes)
            } else {
                reads
            };
            if reads.is_empty() && writes.is_empty() {
                continue;
            }
            let buffered = Buffered {
                snapshot,
                reads,
                effects: writes.to_effects(),
            };
            parts.insert(partition, Work::Buffered(buffered));
        }
        parts
    }

    /// One after the other; at most one of them writes.
    async fn validate_each(
        &self,
        parts: BTreeMap<PartitionId, Work>,
        key: Option<Keyed>,
    ) -> Result<Option<CommitWait>, SqlError> {
        let mut last = None;
        for (partition, work) in parts {
            if let Work::Buffered(buffered) = work {
                last = self.coordinator.apply(partition, buffered, key.clone()).await?;
            }
        }
        Ok(last)
    }
}

fn after_the_cut() -> SqlError {
    conflict().detail("A table was created after this transaction's snapshot was taken.")
}

impl Coordinator {
    /// Ends an interactive transaction in one partition, wherever its primary is.
    async fn apply(
        self: &Arc<Self>,
        partition: PartitionId,
        buffered: Buffered,
        key: Option<Keyed>,
    ) -> Result<Option<CommitWait>, SqlError> {
        // With a key it waits here, so that it can be tried again when this node is deposed.
        if key.is_none() {
            match self.participant.apply(partition, &buffered, None) {
                Ran::Done { wait, .. } => return Ok(wait),
                Ran::Failed { error, .. } => return Err(error),
                Ran::NotPrimary | Ran::Held => {}
            }
        }
        let writes = buffered.effects != Effects::default();
        let repeat = Repeat::of(!writes, key.is_some());
        let request = Request::Apply {
            partition,
            buffered,
            key,
        };
        self.run_at_primary(partition, request, repeat).await.map(|_| None)
    }

    /// The partition that keeps the key of a transaction of several statements: one of the lowest replication group, by the
    /// key's hash, whatever the transaction writes.
    fn place_of_key(&self, keyed: Keyed) -> Result<KeyedAt, SqlError> {
        let map = self.map();
        let group = map.groups.values().next().filter(|group| !group.partitions.is_empty());
        let group = group.ok_or_else(|| SqlError::unavailable("no partition can keep the idempotency key"))?;
        let index = partition_index(ValueRef::Text(keyed.key.as_str()), group.partitions.len() as u32);
        let partition = group.partitions[index as usize];
        Ok(KeyedAt { partition, keyed })
    }
}
