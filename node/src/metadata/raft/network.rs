//! The group's messages, over the peers' control channels. Every message names the member it is for: a node that has
//! lost its volume is not who it was, and refuses what was meant for its former self.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use openraft::error::{InstallSnapshotError, NetworkError, RPCError, RaftError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse, VoteRequest,
    VoteResponse,
};
use openraft::{AnyError, BasicNode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tonic::{Code, Status};
use volt_proto::v1::RaftMessage;

use super::{Group, MemberId, node_of};
use crate::peers::Peers;

/// Pause before a member that couldn't be reached is tried again.
const BACKOFF: Duration = Duration::from_millis(50);

/// Makes lines to members.
pub(crate) struct Lines {
    /// This member.
    pub from: MemberId,
    /// The way to the others.
    pub peers: Arc<Peers>,
    /// This member stands back: what a leader sends is not sent, for it keeps followers from electing another.
    pub stands_back: Arc<AtomicBool>,
}

/// The line to one member.
pub(crate) struct Line {
    from: MemberId,
    to: MemberId,
    address: String,
    peers: Arc<Peers>,
    stands_back: Arc<AtomicBool>,
}

impl RaftNetworkFactory<Group> for Lines {
    type Network = Line;

    async fn new_client(&mut self, target: MemberId, node: &BasicNode) -> Line {
        Line {
            from: self.from,
            to: target,
            address: node.addr.clone(),
            peers: Arc::clone(&self.peers),
            stands_back: Arc::clone(&self.stands_back),
        }
    }
}

enum Call {
    Append,
    Vote,
    Snapshot,
}

type Outcome<T, E> = Result<T, RPCError<MemberId, BasicNode, E>>;

impl Line {
    async fn call<Q: Serialize, A: DeserializeOwned, E: std::error::Error>(
        &self,
        call: Call,
        request: &Q,
        option: &RPCOption,
    ) -> Outcome<A, E> {
        if self.stands_back.load(Ordering::Acquire) && !matches!(call, Call::Vote) {
            let error = AnyError::error("this member stands back");
            return Err(RPCError::Unreachable(Unreachable::new(&error)));
        }
        let payload = postcard::to_stdvec(request).map_err(|error| broken(&error))?;
        let message = RaftMessage {
            from: self.from,
            to: self.to,
            payload: payload.into(),
        };
        let mut client = self
            .peers
            .control_at(node_of(self.to), &self.address)
            .map_err(|error| broken(&error))?;
        let answer = async {
            match call {
                Call::Append => client.raft_append(message).await,
                Call::Vote => client.raft_vote(message).await,
                Call::Snapshot => client.raft_snapshot(message).await,
            }
        };
        let answer = tokio::time::timeout(option.hard_ttl(), answer)
            .await
            .map_err(|error| broken(&error))?;
        let answer = answer.map_err(|status| unreached(&status))?;
        postcard::from_bytes(&answer.get_ref().payload).map_err(|error| broken(&error))
    }
}

fn broken<E: std::error::Error>(error: &(impl std::error::Error + 'static)) -> RPCError<MemberId, BasicNode, E> {
    RPCError::Network(NetworkError::new(error))
}

fn unreached<E: std::error::Error>(status: &Status) -> RPCError<MemberId, BasicNode, E> {
    // The status' text alone: its sources are not worth keeping.
    let error = AnyError::error(status.message());
    match status.code() {
        Code::Unavailable | Code::FailedPrecondition => RPCError::Unreachable(Unreachable::new(&error)),
        _ => RPCError::Network(NetworkError::new(&error)),
    }
}

impl RaftNetwork<Group> for Line {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Group>,
        option: RPCOption,
    ) -> Outcome<AppendEntriesResponse<MemberId>, RaftError<MemberId>> {
        self.call(Call::Append, &request, &option).await
    }

    async fn install_snapshot(
        &mut self,
        request: InstallSnapshotRequest<Group>,
        option: RPCOption,
    ) -> Outcome<InstallSnapshotResponse<MemberId>, RaftError<MemberId, InstallSnapshotError>> {
        self.call(Call::Snapshot, &request, &option).await
    }

    async fn vote(
        &mut self,
        request: VoteRequest<MemberId>,
        option: RPCOption,
    ) -> Outcome<VoteResponse<MemberId>, RaftError<MemberId>> {
        self.call(Call::Vote, &request, &option).await
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(BACKOFF))
    }
}
