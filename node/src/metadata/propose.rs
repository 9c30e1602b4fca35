//! Proposing: from any node, to the group's leader, with a deadline.

use std::time::Duration;

use openraft::error::{ClientWriteError, RaftError};
use tokio::time::Instant;
use tonic::{Code, Status};
use volt_engine::NodeId;
use volt_proto::v1::{ProposeRequest, ProposeResponse};

use super::command::{Applied, Command, CommandResult, Refusal};
use super::handle::Metadata;
use super::raft::node_of;
use crate::error::SqlError;
use crate::peers::retry::half_and_random_half;
use crate::peers::{Line, never_left};

/// Longest time for a proposal, retries included.
const LIMIT: Duration = Duration::from_secs(10);
/// Longest wait for one answer of the leader's.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(3);
/// The longest pause before another attempt; the shortest is half of it.
const AGAIN_AFTER: Duration = Duration::from_millis(20);
/// Longest wait until this node, too, has applied what was committed.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(2);

/// Why a proposal came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// It was committed, and changed nothing.
    #[error("{0}")]
    Refused(Refusal),
    /// Nothing was done: the group's leader can't be reached.
    #[error("the metadata group can't be reached: {0}")]
    Unavailable(String),
    /// It may have been done, or may still be.
    #[error("the outcome is unknown: {0}")]
    Unknown(String),
}

impl From<ProposeError> for Status {
    fn from(error: ProposeError) -> Self {
        let text = error.to_string();
        match error {
            ProposeError::Unavailable(_) | ProposeError::Unknown(_) => Self::unavailable(text),
            ProposeError::Refused(refusal) => match refusal {
                Refusal::StaleEpoch { .. } | Refusal::StaleBoot(_) => Self::aborted(text),
                Refusal::NoSuchNode(_)
                | Refusal::NoSuchPartition(_)
                | Refusal::NoSuchTable(_)
                | Refusal::NoSuchIndex(_)
                | Refusal::NoSuchView(_)
                | Refusal::NoSuchSequence(_)
                | Refusal::NoSuchLink(_)
                | Refusal::NoSuchProcedure(_) => Self::not_found(text),
                Refusal::Invalid(_) => Self::invalid_argument(text),
                _ => Self::failed_precondition(text),
            },
        }
    }
}

impl From<ProposeError> for SqlError {
    fn from(error: ProposeError) -> Self {
        let text = error.to_string();
        match error {
            ProposeError::Unavailable(_) => Self::unavailable(text),
            ProposeError::Unknown(_) => Self::unknown_outcome(text),
            ProposeError::Refused(refusal) => match refusal {
                Refusal::TableExists(_) => Self::new("42P07", text),
                Refusal::Restoring(_) => Self::new("57P03", text),
                Refusal::Standby(url) => Self::of_standby(&url),
                Refusal::NoSuchTable(_) | Refusal::NoSuchSequence(_) => Self::new("42P01", text),
                Refusal::SequenceUsedUp(_) => Self::new("2200H", text),
                Refusal::SequenceNeeded { .. } => Self::new("2BP01", text),
                Refusal::LinkExists(_) => Self::new("42710", text),
                Refusal::NoSuchLink(_) => Self::new("42704", text),
                Refusal::NeededByLink { .. } => Self::new("2BP01", text),
                Refusal::ProcedureExists(_) => Self::new("42723", text),
                Refusal::NoSuchProcedure(_) => Self::new("42883", text),
                Refusal::ColumnExists { .. } => Self::new("42701", text),
                Refusal::NoSuchColumn { .. } => Self::new("42703", text),
                Refusal::TableMoves(_) => Self::new("55006", text)
                    .hint("system.moves says how far it is; ALTER TABLE ... SET of what it has keeps it where it is."),
                Refusal::MoveNeeded { .. } => {
                    Self::new("2BP01", text).hint("Drop the procedure, and make it again when the table has moved.")
                }
                Refusal::StaleCatalog => Self::new("40001", text),
                Refusal::NoSuchIndex(_) => Self::new("42704", text),
                Refusal::IndexNeeded { .. } => Self::new("2BP01", text).hint("It goes with its table."),
                Refusal::NeededByTtl { ref table, .. } => {
                    let hint = format!("ALTER TABLE {table} DROP TTL drops it too.");
                    Self::new("2BP01", text).hint(hint)
                }
                Refusal::NoTtl(_) => Self::new("42704", text),
                Refusal::NoSuchView(_) => Self::new("42P01", text),
                Refusal::CannotReplace(_) => Self::new("42P16", text),
                Refusal::NeededByView { .. } => Self::new("2BP01", text).hint("Drop the view first."),
                Refusal::Needed { .. } => Self::new("2BP01", text).hint("Drop the procedure first."),
                Refusal::NoSuchNode(_) | Refusal::NoSuchPartition(_) => Self::new("42704", text),
                Refusal::StaleEpoch { .. } | Refusal::StaleBoot(_) => Self::new("40001", text),
                Refusal::Invalid(_) => Self::new("22023", text),
                _ => Self::new("55000", text),
            },
        }
    }
}

/// How one attempt ended.
enum Attempt {
    /// Applied at this index.
    Answered(u64, CommandResult),
    /// It never reached a leader: nothing was done.
    NotSent(String),
    /// Nobody knows.
    Lost(String),
}

impl Command {
    /// Doing it twice is the same as doing it once, the answer included.
    fn is_repeatable(&self) -> bool {
        !matches!(
            self,
            Self::CreateTable { .. }
                | Self::DropTables { .. }
                | Self::AlterColumns { .. }
                | Self::CreateSequence { .. }
                | Self::DropSequences { .. }
                | Self::CreateProcedure { replace: false, .. }
                | Self::DropProcedures { .. }
                | Self::RenameProcedure { .. }
                | Self::ChangePartition { .. }
                | Self::TakeMode { .. }
        )
    }

    /// Rests on what only the leader knows (leases, verdicts), so that it is taken from nobody else.
    fn is_leaders_own(&self) -> bool {
        matches!(
            self,
            Self::Initialise { .. }
                | Self::NodeDead { .. }
                | Self::NodeAlive { .. }
                | Self::ChangePartitions { .. }
                | Self::Drained { .. }
                | Self::SetEndangered { .. }
                | Self::AcceptLoss { .. }
        )
    }
}

impl Metadata {
    /// Returns when this node knows all that was committed before the call.
    pub async fn refresh(&self) -> Result<(), ProposeError> {
        // Changes nothing: there is no such node.
        let barrier = Command::RecoveryDone { node_id: 0 };
        self.propose(barrier).await.map(drop)
    }

    /// Has a command committed and applied by the group, and returns when this node has applied it too.
    pub async fn propose(&self, command: Command) -> Result<Applied, ProposeError> {
        let deadline = Instant::now() + LIMIT;
        let mut lost = None;
        loop {
            let why = match self.attempt(&command).await {
                Attempt::Answered(index, result) => {
                    self.caught_up(index).await;
                    return result.map_err(ProposeError::Refused);
                }
                Attempt::Lost(why) if !command.is_repeatable() => return Err(ProposeError::Unknown(why)),
                Attempt::Lost(why) => lost.insert(why).clone(),
                Attempt::NotSent(why) => why,
            };
            tracing::debug!(why, leader = self.leader(), "a proposal is tried again");
            if Instant::now() >= deadline {
                let unknown = lost.map(ProposeError::Unknown);
                return Err(unknown.unwrap_or(ProposeError::Unavailable(why)));
            }
            self.peers.traffic.retried();
            let pause = half_and_random_half(AGAIN_AFTER, self.world.random.next_u64());
            tokio::time::sleep(pause).await;
        }
    }

    /// As the leader, without retries: what was decided a moment ago may be wrong in the next.
    pub(crate) async fn propose_as_leader(&self, command: Command) -> Result<Applied, ProposeError> {
        match self.attempt_here(command).await {
            Attempt::Answered(_, result) => result.map_err(ProposeError::Refused),
            Attempt::NotSent(why) => Err(ProposeError::Unavailable(why)),
            Attempt::Lost(why) => Err(ProposeError::Unknown(why)),
        }
    }

    async fn attempt(&self, command: &Command) -> Attempt {
        let Some(leader) = self.leading_member() else {
            return Attempt::NotSent("there is no leader now".to_owned());
        };
        if Some(leader) == self.own_member() {
            return self.attempt_here(command.clone()).await;
        }
        if command.is_leaders_own() {
            return Attempt::NotSent("this node doesn't lead".to_owned());
        }
        self.attempt_at(node_of(leader), command).await
    }

    async fn attempt_here(&self, command: Command) -> Attempt {
        let Some(raft) = self.raft() else {
            return Attempt::NotSent("this node belongs to no cluster".to_owned());
        };
        match tokio::time::timeout(ATTEMPT_LIMIT, raft.client_write(command)).await {
            Ok(Ok(response)) => Attempt::Answered(response.log_id.index, response.data),
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_)))) => {
                Attempt::NotSent("this node no longer leads".to_owned())
            }
            Ok(Err(error)) => Attempt::Lost(error.to_string()),
            Err(_) => Attempt::Lost("the group didn't commit it in time".to_owned()),
        }
    }

    async fn attempt_at(&self, leader: NodeId, command: &Command) -> Attempt {
        let Ok(command) = postcard::to_stdvec(command) else {
            return Attempt::NotSent("the command can't be encoded".to_owned());
        };
        let mut client = match self.peers.control(leader) {
            Ok(client) => client,
            Err(error) => return Attempt::NotSent(error.to_string()),
        };
        let underway = match self.peers.traffic.begin(leader, Line::Control) {
            Ok(underway) => underway,
            Err(refused) => return Attempt::NotSent(format!("node {leader}: {refused}")),
        };
        let call = client.propose(ProposeRequest {
            command: command.into(),
        });
        let answer = tokio::time::timeout(ATTEMPT_LIMIT, call).await;
        match &answer {
            Ok(Err(status)) if never_left(status) => underway.not_sent(),
            Ok(Err(status)) if status.code() == Code::Unavailable => underway.lost(),
            Err(_) => underway.lost(),
            Ok(_) => underway.answered(),
        }
        match answer {
            Err(_) => Attempt::Lost(format!("node {leader} didn't answer in time")),
            Ok(Err(status)) if never_left(&status) || status.code() == Code::FailedPrecondition => {
                Attempt::NotSent(status.message().to_owned())
            }
            Ok(Err(status)) => Attempt::Lost(status.message().to_owned()),
            Ok(Ok(answer)) => {
                let ProposeResponse { result, index, .. } = answer.into_inner();
                match postcard::from_bytes(&result) {
                    Ok(result) => Attempt::Answered(index, result),
                    Err(_) => Attempt::Lost("the leader's answer can't be read".to_owned()),
                }
            }
        }
    }

    /// Waits until this node has applied the entry, so that whoever proposed it finds it in the map here.
    async fn caught_up(&self, index: u64) {
        let mut applied = self.published.index.subscribe();
        let waited = tokio::time::timeout(CATCH_UP_LIMIT, applied.wait_for(|applied| *applied >= index));
        if waited.await.is_err() {
            tracing::warn!(index, "this node is late in applying the metadata log");
        }
    }

    /// Serves another node's proposal: answers only as the leader.
    pub(crate) async fn serve_propose(&self, asked: ProposeRequest) -> Result<ProposeResponse, Status> {
        let command: Command =
            postcard::from_bytes(&asked.command).map_err(|_| Status::invalid_argument("the command can't be read"))?;
        if command.is_leaders_own() {
            return Err(Status::permission_denied(
                "only the metadata group's leader decides that",
            ));
        }
        if self.leading_member().is_none() || self.leading_member() != self.own_member() {
            return Err(Status::failed_precondition("this node doesn't lead the metadata group"));
        }
        match self.attempt_here(command).await {
            Attempt::Answered(index, result) => {
                let result = postcard::to_stdvec(&result).map_err(|error| Status::internal(error.to_string()))?;
                Ok(ProposeResponse {
                    result: result.into(),
                    index,
                    leader_address: String::new(),
                })
            }
            Attempt::NotSent(why) => Err(Status::failed_precondition(why)),
            Attempt::Lost(why) => Err(Status::unknown(why)),
        }
    }
}
