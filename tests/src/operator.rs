//! The operator's protocol to real nodes: initialise, ask, and see when the cluster is whole.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tokio::time::{sleep, timeout};
use tonic::transport::{Channel, Endpoint};
use volt_proto::v1::control_client::ControlClient;
use volt_proto::v1::{GetStatusRequest, GetStatusResponse, InitialiseRequest};

const CALL_TIMEOUT: Duration = Duration::from_secs(2);
/// For calls that wait until something has come about: a node gives up long before.
const WORK_TIMEOUT: Duration = Duration::from_secs(30);

/// The service that a node has for the operator, at this peer port.
pub async fn control(peer_port: u16) -> Result<ControlClient<Channel>> {
    let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{peer_port}"))?;
    let endpoint = endpoint.connect_timeout(CALL_TIMEOUT).timeout(WORK_TIMEOUT);
    Ok(ControlClient::new(endpoint.connect().await?))
}

/// Makes the node at this peer port the first of a new cluster; tries until `limit`.
pub async fn initialise(peer_port: u16, partitions: u32, limit: Duration) -> Result<()> {
    let end = Instant::now() + limit;
    loop {
        let attempt = async {
            let mut control = control(peer_port).await?;
            // Another one for each: clusters that are linked know each other by it.
            let cluster_uuid = format!("00000000-0000-4000-8000-{peer_port:012}");
            control
                .initialise(InitialiseRequest {
                    cluster_uuid,
                    partitions,
                    ..Default::default()
                })
                .await?;
            anyhow::Ok(())
        };
        match timeout(CALL_TIMEOUT, attempt).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) if Instant::now() > end => bail!("initialise: {error:#}"),
            Err(_) if Instant::now() > end => bail!("initialise: no answer"),
            _ => sleep(Duration::from_millis(100)).await,
        }
    }
}

/// What the node at this peer port knows.
pub async fn status(peer_port: u16) -> Result<GetStatusResponse> {
    let call = async {
        let mut control = control(peer_port).await?;
        anyhow::Ok(control.get_status(GetStatusRequest {}).await?.into_inner())
    };
    timeout(CALL_TIMEOUT, call).await?
}

/// Returns what the node at this peer port knows, as soon as that is so.
pub async fn status_when(
    peer_port: u16,
    what: &str,
    limit: Duration,
    is_so: impl Fn(&GetStatusResponse) -> bool,
) -> Result<GetStatusResponse> {
    let end = Instant::now() + limit;
    loop {
        let found = status(peer_port).await;
        match found {
            Ok(status) if is_so(&status) => return Ok(status),
            found if Instant::now() > end => bail!("{what}: not within {limit:?}: {found:?}"),
            _ => sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Why a cluster of so many nodes is not whole in this node's eyes; None if it is.
fn missing(status: &GetStatusResponse, nodes: usize) -> Option<String> {
    let alive = status.nodes.iter().filter(|node| node.is_alive).count();
    if alive < nodes {
        return Some(format!("{alive} of {nodes} nodes live"));
    }
    if !status.serving {
        return Some("it does not serve".to_owned());
    }
    // A group that is still growing may be led by one node alone, whatever becomes of the others.
    let voters = status.metadata_voters.len();
    if voters < nodes.min(3) {
        return Some(format!("the metadata group has {voters} voters"));
    }
    let lacking = status.partitions.iter().find(|partition| {
        partition.primary == 0 || partition.in_sync.len() < (partition.replication as usize + 1).min(nodes)
    });
    lacking.map(|partition| format!("{partition:?}"))
}

/// Returns when all nodes at these peer ports see a whole cluster.
pub async fn whole(peer_ports: &[u16], limit: Duration) -> Result<()> {
    let end = Instant::now() + limit;
    for port in peer_ports {
        loop {
            let lacks = match status(*port).await {
                Ok(status) => missing(&status, peer_ports.len()),
                Err(error) => Some(format!("{error:#}")),
            };
            match lacks {
                None => break,
                Some(what) if Instant::now() > end => bail!("not whole at port {port}: {what}"),
                Some(_) => sleep(Duration::from_millis(100)).await,
            }
        }
    }
    Ok(())
}
