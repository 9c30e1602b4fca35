//! Transactions: the coordinator, on the node that has the client, and the participants, on the primaries.
//!
//! | transaction | path |
//! | --- | --- |
//! | one partition | its program is run by the primary, serially, there and then (`Coordinator::run_single`) |
//! | one partition, a procedure | the same, all its statements in one go (`procedure`) |
//! | several | two-phase commit, the decision replicated in the home partition first (`two_phase`) |
//! | `BEGIN ... COMMIT` | optimistic: run at a snapshot, validated and applied at the end (`interactive`, `optimistic`) |
//! | reads of backups | each partition's own committed prefix (`backup`) |
//! | reads of several | a snapshot: hold all, read their LSNs, let go (`snapshot`) |
//! | steps of a standby | two-phase commit of what primaries have read from the archive (`follow`) |

mod arriving;
mod backup;
mod calls;
mod expiry;
mod follow;
mod holding;
mod incoming;
mod indexes;
mod interactive;
mod journal;
mod keyed;
mod memory;
mod moving;
mod optimistic;
pub(crate) mod participant;
mod pins;
mod procedure;
mod request;
mod resolve;
mod sequences;
mod serve;
mod snapshot;
mod stuck;
mod two_phase;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::{Status, Streaming};
use volt_engine::effects::TransactionId;
use volt_engine::error::StatementError;
use volt_engine::idempotency::Keyed;
use volt_engine::plan::{Program, StatementContext};
use volt_engine::procedure::Notice;
use volt_engine::row::RowRef;
use volt_engine::value::{Value, ValueRef};
use volt_engine::{NodeId, PartitionId};
use volt_proto::v1;

use backup::Balancer;
use calls::{CallError, Calls};
use participant::{Participant, Ran};
use request::{Failure, Reply, Request};

use crate::config::NodeConfig;
use crate::error::SqlError;
use crate::metadata::map::ClusterMap;
use crate::peers::retry::pause_after;
use crate::replication::Replicas;
use crate::statement::{CommitWait, RowSink};
use crate::world::PlantedBug;
pub(crate) use expiry::Expiry;
pub(crate) use follow::{Destination, FollowWork, Needs, cleared};
pub use interactive::Interactive;
pub use journal::AllWrites;
pub(crate) use memory::MemoryGuard;
pub use memory::{MemoryFigures, default_limit};
pub(crate) use sequences::{Sequences, Taken};
pub use snapshot::{Snapshot, Wanted};

/// A statement that finds no primary, or one that is being replaced, is tried again for so long.
const RETRY_LIMIT: Duration = Duration::from_secs(10);
/// Longest wait for another node's answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest wait for a majority of the metadata group to say who leads it.
const CONFIRM_LIMIT: Duration = Duration::from_secs(1);

/// What a statement did, before it is committed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Executed {
    /// Rows returned or changed.
    pub affected: u64,
    /// What to wait for before anyone hears of it.
    pub wait: Option<CommitWait>,
}

/// Runs transactions for this node's clients.
pub struct Coordinator {
    pub(crate) participant: Arc<Participant>,
    replicas: Arc<Replicas>,
    calls: Calls,
    /// Who reads of backups went to.
    pub(crate) balancer: Balancer,
    /// For the names of transactions.
    sequence: AtomicU64,
}

impl Coordinator {
    pub(crate) fn new(replicas: Arc<Replicas>, config: &NodeConfig) -> Arc<Self> {
        let memory = Arc::new(MemoryGuard::new(Arc::clone(&replicas.world.memory), config));
        let sequences = Sequences::new(Arc::clone(&replicas.metadata));
        let participant = Arc::new(Participant::new(Arc::clone(&replicas), memory, sequences));
        let calls = Calls::new(Arc::clone(&replicas.peers), Arc::clone(&replicas.metadata));
        Arc::new(Self {
            participant,
            replicas,
            calls,
            balancer: Balancer::default(),
            sequence: AtomicU64::new(0),
        })
    }

    /// Starts what looks after abandoned holds and snapshots, after memory, and after rows that expire.
    pub(crate) fn start(self: &Arc<Self>) {
        self.participant.memory.start(&self.replicas);
        tokio::spawn(expiry::run(Arc::clone(&self.participant)));
        tokio::spawn(resolve::run(Arc::clone(self)));
        tokio::spawn(moving::run(Arc::clone(self)));
    }

    /// Serves another node's line of requests.
    pub(crate) async fn serve_calls(
        &self,
        calls: Streaming<v1::CallBatch>,
        answers: mpsc::Sender<Result<v1::ReplyBatch, Status>>,
    ) {
        calls::serve(Arc::clone(&self.participant), calls, answers).await;
    }

    /// A random part of a pause.
    pub(crate) fn jitter(&self, pause: Duration) -> Duration {
        let most = pause.as_micros() as u64;
        Duration::from_micros(self.replicas.world.random.next_u64() % most.max(1))
    }

    pub(crate) fn context(&self) -> StatementContext {
        StatementContext {
            now_micros: self.replicas.world.clock.unix_micros(),
        }
    }

    /// The cluster map, as this node knows it.
    pub(crate) fn cluster_map(&self) -> Arc<ClusterMap> {
        self.map()
    }

    /// The map is as new as what the metadata group's leader has committed, if that answers soon.
    pub(crate) async fn catch_up_with_leader(&self) {
        self.replicas.metadata.catch_up_with_leader().await;
    }

    /// True when this node leads the metadata group, as far as it knows.
    pub(crate) fn leads_metadata(&self) -> bool {
        self.replicas.metadata.is_leader()
    }

    /// The same, by a majority's word; and this node's map has all that was on record before.
    pub(crate) async fn surely_leads_metadata(&self) -> bool {
        self.replicas.metadata.is_confirmed(CONFIRM_LIMIT).await
    }

    /// Whether a simulation has planted this bug.
    pub(crate) fn has(&self, bug: PlantedBug) -> bool {
        self.participant.has(bug)
    }

    /// This process.
    pub(crate) fn boot_id(&self) -> u64 {
        self.replicas.boot_id
    }

    fn new_transaction(&self, began_micros: i64) -> TransactionId {
        TransactionId {
            began_micros,
            node: self.replicas.node_id,
            boot: self.replicas.boot_id,
            sequence: self.sequence.fetch_add(1, Ordering::Relaxed),
        }
    }

    // ---- One partition

    /// Runs a program here and now. None: this node doesn't lead the partition, or it is held, or there is something
    /// to wait for before even an error may be told; nothing was done.
    pub fn try_local(
        &self,
        partition: PartitionId,
        program: &Program,
        parameters: &[Value],
        sink: &mut dyn RowSink,
    ) -> Option<Result<Executed, SqlError>> {
        match self
            .participant
            .run(partition, program, parameters, &self.context(), None, &mut |row| {
                sink.row(row)
            }) {
            Ran::Done { affected, wait } => Some(Ok(Executed { affected, wait })),
            Ran::Failed { error, wait: None } => Some(Err(error)),
            Ran::Failed { .. } | Ran::NotPrimary | Ran::Held => None,
        }
    }

    /// Runs a program in one partition, wherever its primary is, and returns when it is committed: how many rows it
    /// returned or changed. Tries again while nothing can have been done, and with a key until somebody knows.
    pub async fn run_single(
        &self,
        partition: PartitionId,
        program: &Arc<Program>,
        parameters: &[Value],
        key: Option<Keyed>,
        sink: &mut dyn RowSink,
    ) -> Result<u64, SqlError> {
        let repeat = Repeat::of(program.is_read_only(), key.is_some());
        let request = Request::Run {
            partition,
            program: Program::clone(program),
            parameters: parameters.to_vec(),
            context: self.context(),
            key,
        };
        let ran = self.run_at_primary(partition, request, repeat).await?;
        give_rows(&ran.rows, sink)?;
        Ok(ran.affected)
    }

    /// Has the primary of a partition do something there, wherever it is, and returns when that is committed: encoded rows,
    /// and how many it returned or changed. Tries again while nothing can have been done, or a repetition does no harm.
    async fn run_at_primary(
        &self,
        partition: PartitionId,
        request: Request,
        repeat: Repeat,
    ) -> Result<AtPrimary, SqlError> {
        let mut retry = self.begin()?;
        // A try of which nobody knows what became.
        let mut lost = None;
        loop {
            let ended = match self.ask_primary(partition, request.clone()).await {
                Ok(Reply::Ran {
                    rows,
                    affected,
                    notices,
                }) => {
                    return Ok(AtPrimary {
                        rows,
                        affected,
                        notices,
                    });
                }
                Ok(Reply::Failed(Failure::Sql(error))) => Err(error),
                Ok(Reply::Failed(Failure::Busy)) => Err(busy(partition)),
                Err(CallError::Lost) if repeat != Repeat::Read => Err(SqlError::unknown_outcome(format!(
                    "the connection to the primary of partition {partition} was lost; the write may or may not have happened"
                ))),
                Ok(Reply::Failed(Failure::NotPrimary | Failure::Wounded)) => Ok("it has no primary that can serve"),
                Err(CallError::Lost | CallError::NotSent) => Ok("its primary can't be reached"),
                Ok(other) => Err(SqlError::internal(format!("unexpected reply {other:?}"))),
            };
            let why = match ended {
                Ok(why) => why,
                Err(error) if repeat == Repeat::Keyed && error.is_unknown_outcome() => {
                    retry.extend_once(lost.is_some());
                    lost = Some(error);
                    "its primary was lost"
                }
                Err(error) => return Err(settled(error, lost)),
            };
            self.pause(&mut retry, &[partition], || format!("partition {partition}: {why}"))
                .await
                .map_err(|error| settled(error, lost.clone()))?;
        }
    }

    /// Returns when all of these are committed, or with the first that can't be, by its place, and why.
    pub async fn wait_committed(&self, waits: &[CommitWait]) -> Result<(), (usize, SqlError)> {
        self.replicas.wait_committed(waits).await
    }

    // ---- Asking

    /// Asks the primary of `partition`, as this node's map has it.
    pub(crate) async fn ask_primary(&self, partition: PartitionId, request: Request) -> Result<Reply, CallError> {
        match self.primary_of(partition) {
            Some(node) => self.ask(node, request).await,
            None => Ok(Reply::Failed(Failure::NotPrimary)),
        }
    }

    fn primary_of(&self, partition: PartitionId) -> Option<NodeId> {
        self.map().partitions.get(&partition)?.primary
    }

    fn map(&self) -> Arc<ClusterMap> {
        self.replicas.metadata.map()
    }

    async fn ask(&self, node: NodeId, request: Request) -> Result<Reply, CallError> {
        if node == self.replicas.node_id {
            return Ok(self.participant.serve(request).await);
        }
        self.calls.call(node, &request, CALL_TIMEOUT).await
    }

    /// The primaries of these partitions; None while one has none.
    /// One of these partitions: one whose primary is here, if there is one.
    pub(crate) fn nearest(&self, partitions: &[PartitionId]) -> Option<PartitionId> {
        let map = self.replicas.metadata.map();
        let is_here = |partition: &&PartitionId| {
            let partition = map.partitions.get(partition);
            partition.is_some_and(|partition| partition.primary == Some(self.replicas.node_id))
        };
        let here = partitions.iter().find(is_here);
        here.or(partitions.first()).copied()
    }

    fn by_primary(
        &self,
        partitions: impl IntoIterator<Item = PartitionId>,
    ) -> Option<BTreeMap<NodeId, Vec<PartitionId>>> {
        let map = self.replicas.metadata.map();
        let mut nodes: BTreeMap<NodeId, Vec<PartitionId>> = BTreeMap::new();
        for partition in partitions {
            let primary = map.partitions.get(&partition)?.primary?;
            nodes.entry(primary).or_default().push(partition);
        }
        Some(nodes)
    }

    /// The tries of a statement; an error at once on a node that has lost the cluster.
    fn begin(&self) -> Result<Retry, SqlError> {
        if self.replicas.metadata.lease().is_given_up() {
            return Err(self.unavailable(String::new()));
        }
        Ok(Retry::new())
    }

    /// Waits for the cluster map to change, or a pause that grows with the tries; an error when it has been tried for long enough, or when one
    /// of these partitions is no more: what was planned for it must be planned again.
    async fn pause<'a>(
        &self,
        retry: &mut Retry,
        partitions: impl IntoIterator<Item = &'a PartitionId>,
        why: impl FnOnce() -> String,
    ) -> Result<(), SqlError> {
        let known = self.replicas.metadata.map();
        if !partitions
            .into_iter()
            .all(|partition| known.partitions.contains_key(partition))
        {
            // Or it was dropped, which planning the statement again will say.
            return Err(StatementError::TableMoved.into());
        }
        retry.tries += 1;
        let left = retry.deadline.saturating_duration_since(Instant::now());
        let pause = pause_after(retry.tries, left, self.replicas.world.random.next_u64());
        let Some(pause) = pause.filter(|_| !self.replicas.metadata.lease().is_given_up()) else {
            return Err(self.unavailable(why()));
        };
        self.replicas.peers.traffic.retried();
        let mut map = self.replicas.metadata.watch();
        map.mark_unchanged();
        if tokio::time::timeout(pause, map.changed()).await.is_ok() {
            retry.tries = 0; // there is news: the next pause is a short one
        }
        Ok(())
    }

    pub(crate) fn unavailable(&self, why: String) -> SqlError {
        if self.replicas.metadata.lease().is_valid() {
            return SqlError::unavailable(why);
        }
        SqlError::unavailable("this node has lost contact with the cluster and serves nothing until it is back")
            .hint("Connect to another node.")
    }
}

/// What a partition's primary did.
struct AtPrimary {
    /// Encoded rows.
    rows: Vec<bytes::Bytes>,
    /// Rows returned or changed.
    affected: u64,
    /// What a procedure told.
    notices: Vec<Notice>,
}

/// What is done when nobody knows what became of a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Repeat {
    /// The client is told so.
    Never,
    /// It only reads: it is done again.
    Read,
    /// It has an idempotency key: it is asked for again, and happens once.
    Keyed,
}

impl Repeat {
    fn of(read_only: bool, has_key: bool) -> Self {
        match (read_only, has_key) {
            (true, _) => Self::Read,
            (false, true) => Self::Keyed,
            (false, false) => Self::Never,
        }
    }
}

/// What the client hears of a last try that failed. If an earlier one was lost, that one may still happen.
fn settled(error: SqlError, lost: Option<SqlError>) -> SqlError {
    match lost {
        None => error,
        Some(lost) => lost
            .detail(format!("Tried again: {}", error.message))
            .hint("Try again with the same key."),
    }
}

/// How long something has been tried.
struct Retry {
    deadline: Instant,
    tries: u32,
}

impl Retry {
    fn new() -> Self {
        Self {
            deadline: Instant::now() + RETRY_LIMIT,
            tries: 0,
        }
    }

    /// When a try was lost, there is time for as many again; not a second time.
    fn extend_once(&mut self, again: bool) {
        if !again {
            self.deadline = Instant::now() + RETRY_LIMIT;
        }
    }
}

fn busy(partition: PartitionId) -> SqlError {
    SqlError::new(
        "55P03",
        format!("partition {partition} stayed held by other transactions for too long"),
    )
    .hint("Try again.")
}

fn give_rows(rows: &[bytes::Bytes], sink: &mut dyn RowSink) -> Result<(), SqlError> {
    let mut values: Vec<ValueRef<'_>> = Vec::new();
    for row in rows {
        let row = RowRef::parse(row).map_err(SqlError::internal)?;
        values.clear();
        values.extend(row.values());
        sink.row(&values);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_try_that_was_lost_no_error_says_that_nothing_happened() {
        let refused = || SqlError::unavailable("no primary");
        assert_eq!(settled(refused(), None), refused());
        let told = settled(refused(), Some(SqlError::unknown_outcome("lost")));
        assert!(told.is_unknown_outcome());
        assert_eq!(told.detail.as_deref(), Some("Tried again: no primary"));
        assert_eq!(Repeat::of(true, true), Repeat::Read);
        assert_eq!(Repeat::of(false, false), Repeat::Never);
    }
}
