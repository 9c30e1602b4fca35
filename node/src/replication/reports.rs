//! What each node knows of its own replicas, asked of all of them.

use std::time::Duration;

use futures::future::join_all;
use tokio::time::timeout;
use tonic::Status;
use volt_engine::NodeId;
use volt_proto::v1;

use super::Replicas;
use super::fill::progress::Progress;

/// A node that takes longer to answer is left out.
const ANSWER_WAIT: Duration = Duration::from_secs(1);

/// This node's answer.
pub(crate) fn serve(replicas: &Replicas) -> Result<v1::RecoveriesResponse, Status> {
    let fills = postcard::to_stdvec(&replicas.filling.own());
    let fills = fills.map_err(|error| Status::internal(error.to_string()))?;
    Ok(v1::RecoveriesResponse { fills: fills.into() })
}

impl Replicas {
    /// The fills of each living node that answers, the oldest of a node first.
    pub(crate) async fn fills_of_all(&self) -> Vec<(NodeId, Vec<Progress>)> {
        let map = self.metadata.map();
        let nodes = map.nodes.values().filter(|node| node.state.is_alive());
        let asked = nodes.map(|node| async { (node.node_id, self.fills_of(node.node_id).await) });
        let answers = join_all(asked).await;
        let told = answers.into_iter().filter_map(|(node, fills)| Some((node, fills?)));
        told.collect()
    }

    /// A node's fills, the oldest first. None: it doesn't tell.
    pub(crate) async fn fills_of(&self, node: NodeId) -> Option<Vec<Progress>> {
        if node == self.node_id {
            return Some(self.filling.own());
        }
        let mut client = self.peers.client(node).ok()?;
        let answer = timeout(ANSWER_WAIT, client.recoveries(v1::RecoveriesRequest {}));
        postcard::from_bytes(&answer.await.ok()?.ok()?.into_inner().fills).ok()
    }
}
