//! The responses that are on their way to a client, and what must be committed before they may leave.
//!
//! What must hold: `write` sends nothing while a wait is open. When a wait fails, the responses of its statement and of
//! everything after it up to the next ReadyForQuery are replaced by one ErrorResponse: what a client sees is
//! a statement that failed, and a group of messages that was discarded up to its Sync.

use tokio::io::AsyncWriteExt;

use super::messages::{READY, Severity, error_response};
use super::{BUFFER_BYTES, FLUSH_BYTES};
use crate::error::SqlError;
use crate::statement::{CommitWait, Database};
use crate::world::Stream;

/// Responses of a batch.
#[derive(Default)]
pub(crate) struct Output {
    /// The bytes; whoever appends appends whole messages.
    pub(crate) bytes: Vec<u8>,
    waits: Vec<CommitWait>,
    /// Where in `bytes` the responses of each wait's statement begin.
    starts: Vec<usize>,
    /// Where in `bytes` each ReadyForQuery begins.
    readies: Vec<usize>,
    /// Statements whose wait failed, until somebody takes the count.
    pub(crate) failed_waits: u64,
}

/// How a batch's waits ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Settled {
    /// The group of messages that is still open goes on.
    Fine,
    /// The group of messages that is still open has failed; the rest of it is to be discarded.
    GroupFailed,
}

impl Output {
    /// The statement whose responses begin at `start` may be answered when this is committed.
    pub(crate) fn wait_for(&mut self, wait: CommitWait, start: usize) {
        self.waits.push(wait);
        self.starts.push(start);
    }

    /// Ends a group of messages, with this status of the transaction block.
    pub(crate) fn ready(&mut self, status: u8) {
        self.readies.push(self.bytes.len());
        self.bytes.extend_from_slice(READY);
        self.bytes.push(status);
    }

    /// True when so much is waiting that it should leave before anything is added.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes.len() >= FLUSH_BYTES
    }

    /// Waits for everything that the responses depend on, and replaces those that can't be given.
    pub(crate) async fn settle(&mut self, database: &dyn Database) -> Settled {
        let mut settled = Settled::Fine;
        while !self.waits.is_empty() {
            let Err((place, error)) = database.wait_committed(&self.waits).await else {
                break;
            };
            settled = self.fail(place.min(self.waits.len() - 1), &error);
        }
        self.waits.clear();
        self.starts.clear();
        self.readies.clear();
        settled
    }

    /// Replaces a statement's responses, and forgets all waits up to the end of its group.
    fn fail(&mut self, place: usize, error: &SqlError) -> Settled {
        self.failed_waits += 1;
        let start = self.starts[place];
        let end = self.readies.iter().copied().find(|ready| *ready >= start);
        let mut response = Vec::new();
        error_response(&mut response, Severity::Error, error);
        let length = response.len();
        let Some(end) = end else {
            self.bytes.truncate(start);
            self.bytes.extend_from_slice(&response);
            self.waits.clear();
            self.starts.clear();
            return Settled::GroupFailed;
        };
        self.bytes.splice(start..end, response);
        let later = self.starts.partition_point(|start| *start < end).max(place + 1);
        self.waits.drain(..later);
        self.starts.drain(..later);
        self.readies.retain(|ready| *ready >= end);
        for at in self.starts.iter_mut().chain(&mut self.readies) {
            *at = *at - end + start + length;
        }
        Settled::Fine
    }

    /// Sends what is there; everything must be settled.
    pub(crate) async fn write(&mut self, stream: &mut dyn Stream) -> std::io::Result<()> {
        debug_assert!(self.waits.is_empty());
        if self.bytes.is_empty() {
            return Ok(());
        }
        stream.write_all(&self.bytes).await?;
        stream.flush().await?;
        self.bytes.clear();
        if self.bytes.capacity() > 2 * FLUSH_BYTES {
            self.bytes.shrink_to(BUFFER_BYTES);
        }
        Ok(())
    }
}
