//! How new the map here is: a look that is to see what other nodes were told a moment ago asks the group's leader first.

use std::time::Duration;

use tokio::time::timeout;
use tonic::{Code, Status};
use volt_proto::v1::{NewestRequest, NewestResponse};

use super::handle::Metadata;
use super::raft::node_of;
use crate::peers::{Line, never_left};

/// Longest wait for the leader's answer, and for what it says to be applied here: whoever looks at nodes that die must not wait.
const LIMIT: Duration = Duration::from_millis(250);

impl Metadata {
    /// Returns when this node knows all that was committed before the call, or after 250 ms: without a leader that a majority hears,
    /// what is known here is as good as it gets.
    pub(crate) async fn catch_up_with_leader(&self) {
        let caught_up = async {
            let newest = self.newest().await?;
            let mut applied = self.published.index.subscribe();
            let waited = applied.wait_for(|applied| *applied >= newest).await;
            waited.map(drop).map_err(|_| Status::unavailable("this node ends"))
        };
        match timeout(LIMIT, caught_up).await {
            Ok(Ok(())) => {}
            Ok(Err(status)) => tracing::debug!(%status, "the map here may not be the newest"),
            Err(_) => tracing::debug!("the map here may not be the newest: its leader doesn't answer in time"),
        }
    }

    /// The index that an entry had when this was called, or a later one, which whoever has applied it knows all until then.
    async fn newest(&self) -> Result<u64, Status> {
        let leader = self.leading_member();
        let leader = leader.ok_or_else(|| Status::unavailable("there is no leader now"))?;
        if Some(leader) == self.own_member() {
            return Ok(self.serve_newest().await?.index);
        }
        let leader = node_of(leader);
        let client = self.peers.control(leader);
        let mut client = client.map_err(|error| Status::unavailable(error.to_string()))?;
        let underway = self.peers.traffic.begin(leader, Line::Control);
        let underway = underway.map_err(|refused| Status::unavailable(refused.to_string()))?;
        let answer = client.newest(NewestRequest {}).await;
        match &answer {
            Err(status) if never_left(status) => underway.not_sent(),
            Err(status) if status.code() == Code::Unavailable => underway.lost(),
            _ => underway.answered(),
        }
        Ok(answer?.into_inner().index)
    }

    /// Serves that question: answers only as the leader, of which a majority says that it is.
    pub(crate) async fn serve_newest(&self) -> Result<NewestResponse, Status> {
        let raft = self.raft();
        let raft = raft.ok_or_else(|| Status::failed_precondition("this node belongs to no cluster"))?;
        match raft.get_read_log_id().await {
            Ok((newest, _)) => Ok(NewestResponse {
                index: newest.map_or(0, |id| id.index),
            }),
            Err(error) => Err(Status::failed_precondition(error.to_string())),
        }
    }
}
