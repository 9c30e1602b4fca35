//! Calls to a node's control service, from outside the node.

use anyhow::{Context, bail};
use tokio::time::Duration;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use volt_proto::v1::control_client::ControlClient;
use volt_proto::v1::{GetStatusRequest, GetStatusResponse, InitialiseRequest, InitialiseResponse};

/// How long a node may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// How long `status` waits.
const STATUS_TIMEOUT: Duration = Duration::from_secs(1);
/// How long `initialise` waits.
const INITIALISE_TIMEOUT: Duration = Duration::from_secs(20);
/// The same, when the archive is looked through for a moment first.
const RESTORE_TIMEOUT: Duration = Duration::from_secs(600);

/// One node's control service. Connects when it is used.
#[derive(Clone)]
pub struct Control {
    address: String,
    client: ControlClient<Channel>,
}

impl Control {
    /// The node whose peer protocol is at `host:port`.
    pub fn to(address: &str) -> anyhow::Result<Self> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .with_context(|| format!("\"{address}\" is not an address"))?
            .connect_timeout(CONNECT_TIMEOUT);
        Ok(Self {
            address: address.to_owned(),
            client: ControlClient::new(endpoint.connect_lazy()),
        })
    }

    /// What the node knows of itself and of the cluster; None: it doesn't answer.
    pub async fn status(&self) -> Option<GetStatusResponse> {
        let mut client = self.client.clone();
        let answer = tokio::time::timeout(STATUS_TIMEOUT, client.get_status(GetStatusRequest {})).await;
        Some(answer.ok()?.ok()?.into_inner())
    }

    /// Makes a new cluster of this node.
    pub async fn initialise(&self, request: InitialiseRequest) -> anyhow::Result<InitialiseResponse> {
        let mut client = self.client.clone();
        let address = &self.address;
        let limit = match request.restore_from.is_empty() {
            true => INITIALISE_TIMEOUT,
            false => RESTORE_TIMEOUT,
        };
        match tokio::time::timeout(limit, client.initialise(request)).await {
            Err(_) => bail!("the node at {address} does not answer"),
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) if status.code() == Code::AlreadyExists => {
                bail!(
                    "the node at {address} belongs to a cluster already: {}",
                    status.message()
                )
            }
            Ok(Err(status)) => bail!("cannot initialise the node at {address}: {}", status.message()),
        }
    }
}
