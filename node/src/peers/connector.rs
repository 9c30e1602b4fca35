//! How tonic connects: through the world's network; and a byte stream that tells when the other end breaks it.

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

/// A stream that tells when the other end ends or breaks it. Not when this end gives it up for want of a sign of life:
/// that is silence, of which the heartbeats judge.
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

    /// Passes a result on, and tells if it is an error that the other end made.
    fn seen<T>(&mut self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &polled
            && !is_silence(error.kind())
        {
            self.tell();
        }
        polled
    }
}

/// What the kernel says when nobody answers.
fn is_silence(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::TimedOut
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
    )
}

impl AsyncRead for Telling {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        if matches!(polled, Poll::Ready(Ok(()))) && buffer.filled().len() == before && buffer.remaining() > 0 {
            self.tell();
        }
        self.seen(polled)
    }
}

impl AsyncWrite for Telling {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.seen(polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(context);
        self.seen(polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, buffers);
        self.seen(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Reads give this error, writes end well.
    struct Failing(io::ErrorKind);

    impl AsyncRead for Failing {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Err(self.0.into()))
        }
    }

    impl AsyncWrite for Failing {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(self.0.into()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn telling(stream: impl Stream + 'static) -> (Telling, Arc<Notify>) {
        let broken = Arc::<Notify>::default();
        let telling = Telling {
            stream: Box::new(stream),
            broken: Some(Arc::clone(&broken)),
        };
        (telling, broken)
    }

    fn was_told(broken: &Notify) -> bool {
        broken.notified().now_or_never().is_some()
    }

    #[tokio::test]
    async fn a_reset_and_an_end_are_told() {
        let (mut stream, broken) = telling(Failing(io::ErrorKind::ConnectionReset));
        assert!(stream.read_u8().await.is_err() && was_told(&broken));
        let (mut stream, broken) = telling(Failing(io::ErrorKind::BrokenPipe));
        assert!(stream.write_u8(1).await.is_err() && was_told(&broken));
        let (mut stream, broken) = telling(tokio::io::duplex(10).0);
        assert!(stream.read_u8().await.is_err() && was_told(&broken));
    }

    #[tokio::test]
    async fn silence_is_not() {
        let (mut stream, broken) = telling(Failing(io::ErrorKind::TimedOut));
        assert!(stream.read_u8().await.is_err() && !was_told(&broken));
        // Given up by this end.
        let (here, _there) = tokio::io::duplex(10);
        let (stream, broken) = telling(here);
        drop(stream);
        assert!(!was_told(&broken));
    }
}
