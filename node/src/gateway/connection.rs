//! A session's loop: read once, handle every whole message where it lies, wait once for commits, write once.

use bytes::{Buf, BytesMut};
use tokio::io::AsyncReadExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::extended::Inline;
use super::messages::{self, Malformed, Severity};
use super::metrics::{GatewayMetrics, Tally};
use super::output::Settled;
use super::session::{Failure, Session};
use super::{BUFFER_BYTES, MAX_MESSAGE_BYTES};
use crate::error::SqlError;
use crate::world::Stream;

/// Whether a session goes on.
#[derive(PartialEq, Eq)]
enum Next {
    Message,
    Goodbye,
}

/// Serves a session until its client leaves, breaks the protocol, or the gateway stops.
pub(crate) async fn serve(
    session: &mut Session,
    stream: &mut dyn Stream,
    mut input: BytesMut,
    metrics: &GatewayMetrics,
    stop: &CancellationToken,
) -> std::io::Result<()> {
    let stopped = stop.cancelled();
    tokio::pin!(stopped);
    let mut arrived = Instant::now();
    loop {
        let handled = batch(session, stream, &mut input).await;
        if let Err(Failure::Connection(error)) = handled {
            return Err(error);
        }
        if session.send(stream).await? == Settled::GroupFailed {
            session.discard();
        }
        let tally = std::mem::take(&mut session.tally);
        if tally != Tally::default() {
            metrics.count(tally, arrived.elapsed().as_micros() as u64);
        }
        match handled {
            Ok(Next::Message) => {}
            Ok(Next::Goodbye) => return Ok(()),
            Err(Failure::Protocol(malformed)) => return farewell(session, stream, &malformed.into()).await,
            Err(Failure::Sql(error)) => return farewell(session, stream, &error).await,
            Err(Failure::Told | Failure::Connection(_)) => return Ok(()),
        }
        make_room(&mut input);
        tokio::select! {
            biased;
            read = stream.read_buf(&mut input) => if read? == 0 { return Ok(()) },
            () = &mut stopped => {
                let error = SqlError::new("57P01", "terminating connection due to administrator command");
                return farewell(session, stream, &error).await;
            }
        }
        arrived = Instant::now();
    }
}

/// Handles every whole message of the input.
async fn batch(session: &mut Session, stream: &mut dyn Stream, input: &mut BytesMut) -> Result<Next, Failure> {
    let mut at = 0;
    let next = loop {
        let Some((kind, length)) = messages::frame(&input[at..])? else {
            break Next::Message;
        };
        let body = &input[at + 5..at + length];
        at += length;
        match message(session, stream, kind, body).await {
            Ok(Next::Message) => {}
            Ok(Next::Goodbye) => break Next::Goodbye,
            Err(Failure::Sql(error)) => {
                session.tell(&error);
                session.discard();
            }
            Err(Failure::Told) => session.discard(),
            Err(other) => return Err(other),
        }
        if session.output.is_full() && session.send(stream).await? == Settled::GroupFailed {
            session.discard();
        }
    };
    input.advance(at);
    Ok(next)
}

/// Handles one message; what needn't wait is done before the first await.
async fn message(session: &mut Session, stream: &mut dyn Stream, kind: u8, body: &[u8]) -> Result<Next, Failure> {
    match kind {
        b'S' => session.sync(),
        b'X' => return Ok(Next::Goodbye),
        _ if session.discarding => {}
        b'B' => session.bind(body)?,
        b'D' => session.describe(body)?,
        b'E' => {
            if session.execute_inline(body)? == Inline::Waits {
                session.execute(body, stream).await?;
            }
        }
        b'P' => session.parse(body).await?,
        b'Q' => session.query(body, stream).await?,
        b'C' => session.close(body)?,
        b'H' => {
            if session.send(stream).await? == Settled::GroupFailed {
                return Err(Failure::Told);
            }
        }
        b'F' => return Err(SqlError::unsupported("the function call protocol").into()),
        b'd' | b'c' | b'f' => {} // of a COPY that has failed; the protocol says that they are ignored
        _ => return Err(Malformed("invalid frontend message type").into()),
    }
    Ok(Next::Message)
}

/// Room for the next read: more when the first message is longer than what there is, less after a large one.
fn make_room(input: &mut BytesMut) {
    if input.is_empty() && input.capacity() > 4 * BUFFER_BYTES {
        *input = BytesMut::with_capacity(BUFFER_BYTES);
        return;
    }
    if input.capacity() - input.len() < BUFFER_BYTES / 2 {
        // Grows with what has come, not with what a header promises.
        let more = input.len().clamp(BUFFER_BYTES, MAX_MESSAGE_BYTES);
        input.reserve(more);
    }
}

/// Tells the client why its connection ends. What it was promised is out by now; a failure to tell changes nothing.
pub(crate) async fn farewell(session: &mut Session, stream: &mut dyn Stream, error: &SqlError) -> std::io::Result<()> {
    messages::error_response(&mut session.output.bytes, Severity::Fatal, error);
    session.output.write(stream).await
}
