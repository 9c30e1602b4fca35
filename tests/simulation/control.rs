//! The operator's protocol over the simulated network: how a run initialises its cluster and sees when it is whole.

use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::time::{sleep, timeout};
use tonic::transport::{Channel, Endpoint, Uri};
use volt_proto::v1::control_client::ControlClient;
use volt_proto::v1::{GetStatusRequest, GetStatusResponse, InitialiseRequest};

use crate::plan::NODES;

/// The peer protocol's port on every simulated node.
pub const PEER_PORT: u16 = 7000;
/// Partitions of a simulated cluster: few, so that clients meet in them.
const PARTITIONS: u32 = 4;
const CALL_TIMEOUT: Duration = Duration::from_secs(2);

async fn control(node: u32) -> Option<ControlClient<Channel>> {
    let connector = tower::service_fn(|address: Uri| async move {
        let host = address.host().unwrap_or_default().to_owned();
        let stream = turmoil::net::TcpStream::connect((host, PEER_PORT)).await?;
        Ok::<_, std::io::Error>(TokioIo::new(stream))
    });
    let endpoint = Endpoint::from_shared(format!("http://node-{node}:{PEER_PORT}")).ok()?;
    let channel = timeout(CALL_TIMEOUT, endpoint.connect_with_connector(connector))
        .await
        .ok()?
        .ok()?;
    Some(ControlClient::new(channel))
}

/// Makes node 1 the first node of a new cluster.
pub async fn initialise() -> bool {
    let Some(mut control) = control(1).await else {
        return false;
    };
    let cluster_uuid = "00000000-0000-4000-8000-00000000cafe".to_owned();
    let request = InitialiseRequest {
        cluster_uuid,
        partitions: PARTITIONS,
    };
    matches!(timeout(CALL_TIMEOUT, control.initialise(request)).await, Ok(Ok(_)))
}

async fn status(node: u32) -> Option<GetStatusResponse> {
    let mut control = control(node).await?;
    timeout(CALL_TIMEOUT, control.get_status(GetStatusRequest {}))
        .await
        .ok()?
        .ok()
        .map(tonic::Response::into_inner)
}

/// Why the node does not see a whole cluster; None if it does.
async fn missing(node: u32) -> Option<String> {
    let Some(status) = status(node).await else {
        return Some(format!("node {node} does not answer"));
    };
    let alive = status.nodes.iter().filter(|known| known.is_alive).count();
    if alive < NODES as usize {
        return Some(format!("node {node} sees {alive} living nodes"));
    }
    if !status.serving {
        return Some(format!("node {node} does not serve"));
    }
    let lacking = |partition: &&volt_proto::v1::PartitionStatus| {
        partition.in_sync.len() < partition.replication as usize + 1 || partition.primary == 0
    };
    status.partitions.iter().find(lacking).map(|partition| {
        format!(
            "node {node} sees partition {} of epoch {} led by {}, in sync {:?}, learning {:?}",
            partition.partition_id, partition.epoch, partition.primary, partition.in_sync, partition.learners
        )
    })
}

/// Returns when every node sees a whole cluster, or, after `limit`, with what is missing.
pub async fn whole(limit: Duration) -> Result<(), String> {
    let end = tokio::time::Instant::now() + limit;
    loop {
        let mut lacks = None;
        for node in 1..=NODES {
            lacks = missing(node).await;
            if lacks.is_some() {
                break;
            }
        }
        match lacks {
            None => return Ok(()),
            Some(what) if tokio::time::Instant::now() > end => return Err(what),
            Some(_) => sleep(Duration::from_millis(200)).await,
        }
    }
}
