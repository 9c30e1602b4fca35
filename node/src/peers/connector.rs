//! How tonic connects: through the world's network; and a byte stream that tells when it breaks.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tonic::Status;
use tonic::transport::Uri;
use tower::Service;

use crate::world::{Network, Stream};

/// Connects to one address.
#[derive(Clone)]
pub(super) struct Connector {
    network: Arc<dyn Network>,
    address: Arc<str>,
    broken: Option<Arc<Notify>>,
}

/// There was no connection, so that nothing of the request has left.
#[derive(Debug, thiserror::Error)]
#[error("can't connect to {address}: {source}")]
pub(super) struct ConnectFailed {
    address: Arc<str>,
    source: io::Error,
}

/// True when the call failed for want of a connection: nothing of it has left this node.
pub fn never_left(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if error.is::<ConnectFailed>() {
            return true;
        }
        source = error.source();
    }
    false
}

impl Connector {
    pub(super) fn new(network: Arc<dyn Network>, address: &str, broken: Option<Arc<Notify>>) -> Self {
        Self {
            network,
            address: address.into(),
            broken,
        }
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Telling>;
    type Error = ConnectFailed;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ConnectFailed>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectFailed>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self {
            network,
            address,
            broken,
        } = self.clone();
        Box::pin(async move {
            match network.connect(&address).await {
                Ok(stream) => Ok(TokioIo::new(Telling { stream, broken })),
                Err(source) => Err(ConnectFailed { address, source }),
            }
        })
    }
}

/// A stream that tells when it ends or breaks.
pub(super) struct Telling {
    stream: Box<dyn Stream>,
    broken: Option<Arc<Notify>>,
}

impl Telling {
    fn tell(&mut self) {
        if let Some(broken) = self.broken.take() {
            broken.notify_one();
        }
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        self.tell();
    }
}

impl AsyncRead for Telling {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        match &polled {
            Poll::Ready(Err(_)) => self.tell(),
            Poll::Ready(Ok(())) if buffer.filled().len() == before && buffer.remaining() > 0 => self.tell(),
            _ => {}
        }
        polled
    }
}

impl AsyncWrite for Telling {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
