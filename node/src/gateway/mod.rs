//! The PostgreSQL protocol, version 3, in front of a [`Database`](crate::statement::Database).
//!
//! The front end decides what users see of the engine, so the statement path is our own loop: it reads once, handles
//! every whole message where it lies in the buffer, runs what it can inline, waits for commits once a batch, and
//! writes once. No allocation and no boxed future a message.
//!
//! What must hold:
//! - Nothing reaches the client before the commits it depends on: no row, no completion (`output`).
//! - What a client sends can't make a session panic or take memory without a bound; every bound is named here.
//! - An error in the extended protocol discards everything up to the next Sync; a `Sync` is always answered.

mod block;
mod cancel;
pub(crate) mod codec;
mod command;
mod connection;
mod extended;
#[cfg(feature = "simulation")]
pub(crate) mod fuzzing;
mod messages;
mod metrics;
mod options;
mod output;
mod server;
mod session;
mod simple;
mod sink;
mod startup;
#[cfg(test)]
mod tests;

pub use metrics::{GatewayMetrics, LATENCY_BOUNDS_MICROS};
pub use server::{Gateway, Limits};

/// The largest message that a client may send.
const MAX_MESSAGE_BYTES: usize = 64 << 20;
/// The largest first message of a connection.
const MAX_STARTUP_BYTES: usize = 10_000;
/// Bytes taken from the socket by one read, and the most that an idle session keeps of either buffer's capacity.
const BUFFER_BYTES: usize = 64 << 10;
/// Responses are written out when so many bytes are waiting, also within a batch or a result.
const FLUSH_BYTES: usize = 256 << 10;
/// The largest result that may wait in memory, because its rows wait for a commit or its producer doesn't pause.
const MAX_RESULT_BYTES: usize = 256 << 20;
/// Rows of a suspended portal that a session keeps, in bytes.
const MAX_PORTAL_BYTES: usize = 64 << 20;
/// Named prepared statements of one session.
const MAX_STATEMENTS: usize = 4096;
/// Named portals of one session between two Syncs.
const MAX_PORTALS: usize = 256;
/// Connections that have not finished their startup.
const MAX_STARTING: usize = 256;
/// Seconds that a client has for its startup.
const STARTUP_SECONDS: u64 = 10;
