//! The operator's protocol over the simulated network: how a run initialises its cluster and sees when it is whole.

use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::time::{sleep, timeout};
use tonic::transport::{Channel, Endpoint, Uri};
use volt_proto::v1::control_client::ControlClient;
use volt_proto::v1::{
    DrainRequest, GetStatusRequest, GetStatusResponse, InitialiseRequest, NodeState, NodeStatus, RemoveNodeRequest,
};

use crate::archive::URL;
use crate::plan::LEFT;
use crate::shared::{Phase, Shared};

/// The peer protocol's port on every simulated node.
pub const PEER_PORT: u16 = 7000;
/// Partitions of a simulated cluster: few, so that clients meet in them.
const PARTITIONS: u32 = 4;
const CALL_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a node may take to leave, other faults among it.
const LEAVES_WITHIN: Duration = Duration::from_secs(40);
/// From one look at a node that leaves to the next.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

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
    let request = InitialiseRequest {
        cluster_uuid: "00000000-0000-4000-8000-00000000cafe".to_owned(),
        partitions: PARTITIONS,
        ..Default::default()
    };
    matches!(timeout(CALL_TIMEOUT, control.initialise(request)).await, Ok(Ok(_)))
}

/// Makes node 1 the first node of a cluster that is as the archived one was at this moment, in microseconds since 1970, or 0 for the newest
/// that is in the archive; the moment that it is.
pub async fn restore(until: i64) -> Result<i64, String> {
    let mut control = control(1).await.ok_or("node 1 does not answer")?;
    let request = InitialiseRequest {
        cluster_uuid: "00000000-0000-4000-8000-00000000beef".to_owned(),
        partitions: PARTITIONS,
        restore_from: URL.to_owned(),
        restore_until_micros: until,
        is_standby: false,
    };
    let restored = timeout(CALL_TIMEOUT, control.initialise(request)).await;
    let restored = restored.map_err(|_| "node 1 does not answer in time")?;
    restored
        .map(|restored| restored.into_inner().restored_micros)
        .map_err(|status| status.to_string())
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
async fn missing(node: u32, members: &[u32]) -> Option<String> {
    let Some(status) = status(node).await else {
        return Some(format!("node {node} does not answer"));
    };
    let alive = status.nodes.iter().filter(|known| known.is_alive).count();
    if alive < members.len() {
        return Some(format!("node {node} sees {alive} living nodes"));
    }
    if status.restoration.is_some() {
        return Some(format!("node {node} is being restored"));
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
pub async fn whole(members: &[u32], limit: Duration) -> Result<(), String> {
    let end = tokio::time::Instant::now() + limit;
    loop {
        let mut lacks = None;
        for node in members {
            lacks = missing(*node, members).await;
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

/// Sees a node out, should one be to leave while work goes on. Err: why it is still there.
pub async fn usher(shared: Shared) -> Result<(), String> {
    let leaving = loop {
        let (leaving, phase) = {
            let run = shared.run();
            (run.leaving, run.phase)
        };
        match leaving {
            Some(node) => break node,
            None if phase != Phase::Work => return Ok(()),
            None => sleep(LOOK_AGAIN).await,
        }
    };
    let end = tokio::time::Instant::now() + LEAVES_WITHIN;
    while let Err(what) = leave(&shared, leaving).await {
        if tokio::time::Instant::now() > end {
            return Err(format!("node {leaving} does not leave: {what}"));
        }
        sleep(LOOK_AGAIN).await;
    }
    shared.note(&format!("node {leaving} is forgotten"));
    shared.run().happened.insert(LEFT.to_owned());
    Ok(())
}

/// The operator's next step on a node's way out. Err: it is still there.
async fn leave(shared: &Shared, leaving: u32) -> Result<(), String> {
    let mut lacks = "nobody answers".to_owned();
    for asked in shared.members().into_iter().filter(|member| *member != leaving) {
        let Some(status) = status(asked).await else {
            continue;
        };
        let Some(known) = status.nodes.iter().find(|known| known.node_id == leaving) else {
            // One that has not heard of it yet knows nothing of others either.
            match status.nodes.is_empty() || shared.members().contains(&leaving) {
                true => continue,
                false => return Ok(()),
            }
        };
        lacks = format!("node {asked} sees {known:?}, voters {:?}", status.metadata_voters);
        let Some(mut control) = control(asked).await else {
            continue;
        };
        let may_end = holds_nothing(known) && !status.metadata_voters.contains(&leaving);
        let told = match known.state() {
            NodeState::Drained | NodeState::Dead if may_end => {
                // Its process ends before it is forgotten.
                shared.run().members.remove(&leaving);
                let remove = control.remove_node(RemoveNodeRequest { node_id: leaving });
                timeout(CALL_TIMEOUT, remove).await.map(|told| told.map(drop))
            }
            NodeState::Active | NodeState::Unspecified | NodeState::Dead => {
                let drain = control.drain(DrainRequest { node_id: leaving });
                timeout(CALL_TIMEOUT, drain).await.map(|told| told.map(drop))
            }
            NodeState::Draining | NodeState::Drained => return Err(lacks),
        };
        if let Ok(Ok(())) = told {
            return Err(lacks);
        }
        lacks += &format!(", and says {told:?}");
    }
    Err(lacks)
}

fn holds_nothing(node: &NodeStatus) -> bool {
    node.primaries + node.backups + node.learners == 0
}
