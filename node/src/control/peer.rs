//! The peer service: metadata and membership answer what is theirs, the rest is the data plane's.

use std::sync::Arc;

use openraft::error::RaftError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tonic::{Request, Response, Status, Streaming};
use volt_proto::v1::peer_server::Peer;
use volt_proto::v1::{
    ArchiveRequest, ArchiveResponse, CallBatch, CompareRequest, CompareResponse, FillChunk, FillRequest,
    HeartbeatRequest, HeartbeatResponse, HelloRequest, HelloResponse, JoinRequest, JoinResponse, NewestRequest,
    NewestResponse, ProposeRequest, ProposeResponse, RaftMessage, RecoveriesRequest, RecoveriesResponse,
    ReplicateRequest, ReplicateResponse, ReplyBatch,
};

use super::{Answers, DataPlane};
use crate::archive;
use crate::membership::Membership;
use crate::metadata::Metadata;
use crate::metadata::raft::{Group, MemberId, node_of};

/// Answers peers.
pub(super) struct PeerService {
    pub metadata: Arc<Metadata>,
    pub membership: Arc<Membership>,
    pub data: Arc<dyn DataPlane>,
}

impl PeerService {
    /// The member, if the message is for it and not for who this node was before it lost its volume.
    fn member(&self, message: &RaftMessage) -> Result<&openraft::Raft<Group>, Status> {
        let raft = self
            .metadata
            .raft()
            .ok_or_else(|| Status::unavailable("this node belongs to no cluster yet"))?;
        if self.metadata.own_member() != Some(message.to) {
            return Err(Status::failed_precondition(format!(
                "member {} is not here",
                message.to
            )));
        }
        Ok(raft)
    }
}

fn decode<T: DeserializeOwned>(message: &RaftMessage) -> Result<T, Status> {
    postcard::from_bytes(&message.payload).map_err(|_| Status::invalid_argument("the payload can't be read"))
}

/// The answer to a member's message, from the member that it was for.
fn encode<T: Serialize, E: std::error::Error>(
    asked: (MemberId, MemberId),
    answer: Result<T, RaftError<MemberId, E>>,
) -> Result<Response<RaftMessage>, Status> {
    let answer = answer.map_err(|error| Status::internal(error.to_string()))?;
    let payload = postcard::to_stdvec(&answer).map_err(|error| Status::internal(error.to_string()))?;
    let (from, to) = asked;
    Ok(Response::new(RaftMessage {
        from: to,
        to: from,
        payload: payload.into(),
    }))
}

#[tonic::async_trait]
impl Peer for PeerService {
    type ReplicateStream = Answers<ReplicateResponse>;
    type FillStream = Answers<FillChunk>;
    type CallsStream = Answers<ReplyBatch>;

    async fn hello(&self, _: Request<HelloRequest>) -> Result<Response<HelloResponse>, Status> {
        let identity = self.metadata.identity();
        Ok(Response::new(HelloResponse {
            cluster_uuid: identity
                .as_ref()
                .map_or_else(String::new, |identity| identity.cluster_uuid.clone()),
            node_id: self.metadata.node_id(),
            incarnation: identity.map_or(0, |identity| identity.incarnation),
            boot_id: self.metadata.boot_id(),
        }))
    }

    async fn raft_append(&self, request: Request<RaftMessage>) -> Result<Response<RaftMessage>, Status> {
        let message = request.into_inner();
        let answer = self.member(&message)?.append_entries(decode(&message)?).await;
        encode((message.from, message.to), answer)
    }

    async fn raft_vote(&self, request: Request<RaftMessage>) -> Result<Response<RaftMessage>, Status> {
        let message = request.into_inner();
        let raft = self.member(&message)?;
        self.membership.before_vote(node_of(message.from)).await;
        let answer = raft.vote(decode(&message)?).await;
        encode((message.from, message.to), answer)
    }

    async fn raft_snapshot(&self, request: Request<RaftMessage>) -> Result<Response<RaftMessage>, Status> {
        let message = request.into_inner();
        let answer = self.member(&message)?.install_snapshot(decode(&message)?).await;
        encode((message.from, message.to), answer)
    }

    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        self.metadata.serve_join(request.into_inner()).await.map(Response::new)
    }

    async fn propose(&self, request: Request<ProposeRequest>) -> Result<Response<ProposeResponse>, Status> {
        self.metadata
            .serve_propose(request.into_inner())
            .await
            .map(Response::new)
    }

    async fn newest(&self, _: Request<NewestRequest>) -> Result<Response<NewestResponse>, Status> {
        self.metadata.serve_newest().await.map(Response::new)
    }

    async fn heartbeat(&self, request: Request<HeartbeatRequest>) -> Result<Response<HeartbeatResponse>, Status> {
        Ok(Response::new(self.membership.serve_heartbeat(request.get_ref())))
    }

    async fn replicate(
        &self,
        request: Request<Streaming<ReplicateRequest>>,
    ) -> Result<Response<Self::ReplicateStream>, Status> {
        self.data.replicate(request.into_inner()).await.map(Response::new)
    }

    async fn fill(&self, request: Request<Streaming<FillRequest>>) -> Result<Response<Self::FillStream>, Status> {
        self.data.fill(request.into_inner()).await.map(Response::new)
    }

    async fn recoveries(&self, _: Request<RecoveriesRequest>) -> Result<Response<RecoveriesResponse>, Status> {
        self.data.recoveries().map(Response::new)
    }

    async fn archive(&self, _: Request<ArchiveRequest>) -> Result<Response<ArchiveResponse>, Status> {
        archive::serve_report(&self.data.archive_report()?).map(Response::new)
    }

    async fn compare(&self, request: Request<CompareRequest>) -> Result<Response<CompareResponse>, Status> {
        self.data.compare(request.into_inner()).await.map(Response::new)
    }

    async fn calls(&self, request: Request<Streaming<CallBatch>>) -> Result<Response<Self::CallsStream>, Status> {
        self.data.calls(request.into_inner()).await.map(Response::new)
    }
}
