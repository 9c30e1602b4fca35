//! Calls to nodes.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use tonic::transport::{Channel, Endpoint};
use volt_proto::v1::control_client::ControlClient;
use volt_proto::v1::{GetStatusRequest, GetStatusResponse};

use super::{Ordinal, PodSeen};
use crate::resources::PEER_PORT;

/// Longest wait for a node to answer what it knows.
pub const CALL_LIMIT: Duration = Duration::from_secs(2);

/// A client of the node in the pod with this address.
pub async fn connect(ip: &str) -> Result<ControlClient<Channel>, tonic::transport::Error> {
    connect_at(ip, PEER_PORT).await
}

/// The same, at another port.
pub async fn connect_at(ip: &str, port: u16) -> Result<ControlClient<Channel>, tonic::transport::Error> {
    let host = if ip.contains(':') {
        format!("[{ip}]")
    } else {
        ip.to_owned()
    };
    let endpoint = Endpoint::from_shared(format!("http://{host}:{port}"))?
        .connect_timeout(CALL_LIMIT)
        .http2_keep_alive_interval(Duration::from_secs(2))
        .keep_alive_timeout(Duration::from_secs(3))
        .keep_alive_while_idle(true);
    Ok(ControlClient::new(endpoint.connect().await?))
}

/// Asks all of them at the same time.
pub(super) async fn ask_all(pods: &BTreeMap<Ordinal, PodSeen>) -> BTreeMap<Ordinal, GetStatusResponse> {
    let asked = pods.iter().filter_map(|(ordinal, pod)| {
        let ip = pod.ip.clone()?;
        Some(async move {
            let call = async {
                let mut node = connect(&ip).await.ok()?;
                node.get_status(GetStatusRequest {}).await.ok()
            };
            let answer = tokio::time::timeout(CALL_LIMIT, call).await.ok().flatten()?;
            Some((*ordinal, answer.into_inner()))
        })
    });
    join_all(asked).await.into_iter().flatten().collect()
}
