//! The peer port: one gRPC server over the world's listener.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tonic_health::server::HealthReporter;
use volt_proto::MAX_MESSAGE_BYTES;
use volt_proto::v1::control_server::ControlServer;
use volt_proto::v1::peer_server::PeerServer;

use super::operator::ControlService;
use super::peer::PeerService;
use super::{DataPlane, health};
use crate::membership::Membership;
use crate::metadata::Metadata;
use crate::peers::{KEEPALIVE_EVERY, KEEPALIVE_LIMIT, Peers};
use crate::world::{Listener, Stream};

/// How much of a stream may be on its way, unacknowledged by the reader.
const STREAM_WINDOW: u32 = 4 << 20;
/// The same for a whole connection.
const CONNECTION_WINDOW: u32 = 16 << 20;
/// Pause after a failed accept: the machine is out of descriptors, or worse.
const ACCEPT_AGAIN: Duration = Duration::from_millis(20);

/// Who answers on the peer port.
#[derive(Clone)]
pub struct Services {
    /// The metadata group.
    pub metadata: Arc<Metadata>,
    /// Heartbeats and reports.
    pub membership: Arc<Membership>,
    /// The ways to the other nodes.
    pub peers: Arc<Peers>,
    /// Replication and transactions.
    pub data: Arc<dyn DataPlane>,
    /// As `NodeConfig::started_at`.
    pub started_at: i64,
}

/// Serves the peer port until the listener's world ends, or the future is dropped.
pub async fn serve(listener: Box<dyn Listener>, services: Services) -> Result<(), tonic::transport::Error> {
    let Services {
        metadata,
        membership,
        peers,
        data,
        started_at,
    } = services;
    let reporter = HealthReporter::new();
    let health_service = tonic_health::pb::health_server::HealthServer::new(
        tonic_health::server::HealthService::from_health_reporter(reporter.clone()),
    );
    let health = tokio::spawn(health::report(reporter, Arc::clone(&metadata), Arc::clone(&data)));
    let control = ControlService {
        metadata: Arc::clone(&metadata),
        data: Arc::clone(&data),
        membership: Arc::clone(&membership),
        peers,
        started_at,
    };
    let peer = PeerServer::new(PeerService {
        metadata,
        membership,
        data,
    })
    .max_decoding_message_size(MAX_MESSAGE_BYTES)
    .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let served = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_EVERY))
        .http2_keepalive_timeout(Some(KEEPALIVE_LIMIT))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .add_service(peer)
        .add_service(ControlServer::new(control))
        .add_service(health_service)
        .serve_with_incoming(incoming(listener))
        .await;
    health.abort();
    served
}

fn incoming(listener: Box<dyn Listener>) -> impl stream::Stream<Item = io::Result<Accepted>> {
    stream::unfold(listener, |listener| async move {
        let accepted = accept(&*listener).await;
        Some((Ok(accepted), listener))
    })
}

/// The next connection; a failure to accept one is no reason to stop.
pub(super) async fn accept(listener: &dyn Listener) -> Accepted {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return Accepted(stream),
            Err(error) => {
                tracing::warn!(%error, "could not accept a connection");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

/// A connection, as tonic and axum want it.
pub(super) struct Accepted(Box<dyn Stream>);

impl Connected for Accepted {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
}
