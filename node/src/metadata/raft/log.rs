//! The group's log and vote on disk.
//!
//! `metadata/vote`: one checksummed record, replaced as a whole and synced before the vote is told to anyone.
//! `metadata/log`: a header, then records in order; each is its length, its CRC-32C and its body. A body is an entry,
//! "cut from this index on", "everything up to here is purged", or a mark: "the file is on the disk up to this record".
//! A mark follows every write once that is on the disk. It is not flushed itself: the next write does that, and no write
//! vouches for it. What a crash tore off the end is cut away when the file is opened; damage in front of a mark can't be
//! that, and the file is refused, for what it held may be what this member's vote was counted for. So only damage to the
//! last write of a machine that lost its power right behind it is taken for a torn end. A purge writes the file anew, so
//! that it stays as small as what is kept; all that is kept is also in memory.

use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{Entry, EntryPayload, LogId, LogState, OptionalSend, RaftLogReader, Vote};

use super::reader::{Kept, LogReader};
use super::{Failure, Group, MemberId, corrupt, put_log_id, reading, take_log_id, take_u8, take_u64, writing};
use crate::world::{AppendFile, Disk, Planted, PlantedBug};

const DIRECTORY: &str = "metadata";
const LOG: &str = "metadata/log";
const VOTE: &str = "metadata/vote";
const LOG_HEADER: &[u8; 8] = b"VOLTMLG1";
const VOTE_HEADER: &[u8; 8] = b"VOLTMVT1";
/// Length and checksum before every body.
const PREFIX: usize = 8;
/// A mark's kind and place.
const MARK_BODY: usize = 9;
/// A whole mark.
const MARK: usize = PREFIX + MARK_BODY;
/// A body that claims to be longer is not one of ours.
const MAX_BODY: usize = 64 << 20;

const ENTRY: u8 = 1;
const CUT: u8 = 2;
const PURGED: u8 = 3;
const MARK_KIND: u8 = 4;
const BLANK: u8 = 0;
const COMMAND: u8 = 1;
const MEMBERSHIP: u8 = 2;

/// The log; one writer.
pub(crate) struct Log {
    disk: Arc<dyn Disk>,
    /// Never contended; an append file alone couldn't be shared.
    file: tokio::sync::Mutex<Box<dyn AppendFile>>,
    /// Of the file, all of it on the disk but a mark at its end.
    length: usize,
    /// It ends with a mark.
    is_marked: bool,
    vote: Option<Vote<MemberId>>,
    kept: LogReader,
    planted: Planted,
}

impl Log {
    /// Opens it, made if absent.
    pub(crate) async fn open(disk: Arc<dyn Disk>, planted: Planted) -> io::Result<Self> {
        disk.create_directory(Path::new(DIRECTORY)).await?;
        let vote = match read_if_any(&*disk, VOTE).await? {
            Some(bytes) => Some(decode_vote(&bytes)?),
            None => None,
        };
        let mut kept = Kept::default();
        let (length, is_marked) = match read_if_any(&*disk, LOG).await? {
            Some(bytes) => {
                let whole = replay(&bytes, &mut kept)?;
                (whole, ends_with_mark(&bytes[..whole]))
            }
            None => (0, false),
        };
        if length == 0 {
            disk.write_atomic(Path::new(LOG), Bytes::from_static(LOG_HEADER))
                .await?;
        }
        let length = length.max(LOG_HEADER.len());
        let file = disk.open_append(Path::new(LOG), Some(length as u64)).await?;
        let kept = LogReader::new(kept);
        Ok(Self {
            disk,
            file: tokio::sync::Mutex::new(file),
            length,
            is_marked,
            vote,
            kept,
            planted,
        })
    }

    /// The vote, as it was told last.
    pub(super) fn vote(&self) -> Option<Vote<MemberId>> {
        self.vote
    }

    /// The last entry's place, or the last that was purged.
    pub(super) fn last(&self) -> Option<LogId<MemberId>> {
        let kept = self.kept.lock();
        let last = kept.entries.values().next_back().map(|entry| entry.log_id);
        last.or(kept.purged)
    }

    /// The entries behind this place.
    pub(super) fn behind(&self, place: Option<LogId<MemberId>>) -> Vec<Entry<Group>> {
        let first = place.map_or(0, |place| place.index + 1);
        self.kept
            .lock()
            .entries
            .range(first..)
            .map(|(_, entry)| entry.clone())
            .collect()
    }

    /// Appends these behind the last, while no member runs.
    pub(super) async fn append_by_hand(&mut self, entries: &[Entry<Group>]) -> io::Result<()> {
        let bodies: io::Result<Vec<Vec<u8>>> = entries.iter().map(encode_entry).collect();
        self.write(&bodies?).await
    }

    /// After an error nothing more is written: the group's member stops.
    async fn write(&mut self, bodies: &[Vec<u8>]) -> io::Result<()> {
        let mut buffer = Vec::new();
        if !self.is_marked {
            put_record(&mut buffer, &mark_body(self.length));
        }
        for body in bodies {
            put_record(&mut buffer, body);
        }
        let length = buffer.len();
        let (file, buffers) = (self.file.get_mut(), [Bytes::from(buffer)]);
        match self.planted.has(PlantedBug::GroupLogNotFlushed) {
            true => file.append(&buffers).await?,
            false => file.append_and_sync(&buffers).await?,
        }
        self.length += length;
        let mut mark = Vec::with_capacity(MARK);
        put_record(&mut mark, &mark_body(self.length));
        file.append(&[Bytes::from(mark)]).await?;
        self.length += MARK;
        self.is_marked = true;
        Ok(())
    }
}

async fn read_if_any(disk: &dyn Disk, path: &str) -> io::Result<Option<Bytes>> {
    match disk.read(Path::new(path)).await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn put_record(buffer: &mut Vec<u8>, body: &[u8]) {
    buffer.extend_from_slice(&(body.len() as u32).to_le_bytes());
    buffer.extend_from_slice(&crc32c::crc32c(body).to_le_bytes());
    buffer.extend_from_slice(body);
}

/// The first whole record's body and what follows it; None: torn, or the end.
fn take_record(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (checksum, rest) = rest.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length) as usize;
    // Zeros, which a torn write may leave, have the checksum of an empty body.
    if length == 0 || length > MAX_BODY {
        return None;
    }
    let body = rest.get(..length)?;
    (crc32c::crc32c(body) == u32::from_le_bytes(*checksum)).then(|| (body, &rest[length..]))
}

/// Fills `kept`; returns how much of the file is whole.
fn replay(bytes: &[u8], kept: &mut Kept) -> io::Result<usize> {
    let Some(mut rest) = bytes.strip_prefix(LOG_HEADER) else {
        return Err(corrupt(&format!("the header of {LOG}")));
    };
    let mut whole = LOG_HEADER.len();
    let damaged = |offset: usize| corrupt(&format!("{LOG}, at offset {offset},"));
    while let Some((body, after)) = take_record(rest) {
        replay_body(body, kept).ok_or_else(|| damaged(whole))?;
        whole += PREFIX + body.len();
        rest = after;
    }
    if is_marked_behind(bytes, whole) {
        return Err(damaged(whole));
    }
    if !rest.is_empty() {
        tracing::warn!(bytes = rest.len(), "cut a torn end off the metadata log");
    }
    Ok(whole)
}

/// True when a mark stands behind `offset`: what is there was on the disk before the mark was written.
fn is_marked_behind(bytes: &[u8], offset: usize) -> bool {
    // The record at the offset itself is the unreadable one.
    (offset + 1..bytes.len()).any(|at| {
        // The cheap test first.
        let is_one = bytes[at..].starts_with(&(MARK_BODY as u32).to_le_bytes());
        is_one && take_record(&bytes[at..]).is_some_and(|(body, _)| *body == mark_body(at))
    })
}

fn ends_with_mark(bytes: &[u8]) -> bool {
    let Some(at) = bytes.len().checked_sub(MARK) else {
        return false;
    };
    take_record(&bytes[at..]).is_some_and(|(body, _)| *body == mark_body(at))
}

/// A mark says where it stands, so that nothing else looks like one.
fn mark_body(at: usize) -> [u8; MARK_BODY] {
    let mut body = [MARK_KIND; MARK_BODY];
    body[1..].copy_from_slice(&(at as u64).to_le_bytes());
    body
}

fn replay_body(mut body: &[u8], kept: &mut Kept) -> Option<()> {
    match take_u8(&mut body)? {
        ENTRY => {
            let entry = decode_entry(body)?;
            kept.entries.insert(entry.log_id.index, entry);
        }
        CUT => {
            let since = take_u64(&mut body)?;
            kept.entries.split_off(&since);
        }
        PURGED => {
            let upto = take_log_id(&mut body)?;
            kept.entries = kept.entries.split_off(&(upto.index + 1));
            kept.purged = Some(upto);
        }
        MARK_KIND => {}
        _ => return None,
    }
    Some(())
}

fn encode_entry(entry: &Entry<Group>) -> io::Result<Vec<u8>> {
    let mut body = vec![ENTRY];
    put_log_id(&mut body, &entry.log_id);
    let (kind, payload) = match &entry.payload {
        EntryPayload::Blank => (BLANK, Ok(Vec::new())),
        EntryPayload::Normal(command) => (COMMAND, postcard::to_stdvec(command)),
        EntryPayload::Membership(membership) => (MEMBERSHIP, postcard::to_stdvec(membership)),
    };
    body.push(kind);
    body.extend_from_slice(&payload.map_err(io::Error::other)?);
    Ok(body)
}

fn decode_entry(mut body: &[u8]) -> Option<Entry<Group>> {
    let log_id = take_log_id(&mut body)?;
    let payload = match take_u8(&mut body)? {
        BLANK => EntryPayload::Blank,
        COMMAND => EntryPayload::Normal(postcard::from_bytes(body).ok()?),
        MEMBERSHIP => EntryPayload::Membership(postcard::from_bytes(body).ok()?),
        _ => return None,
    };
    Some(Entry { log_id, payload })
}

fn purged_body(upto: &LogId<MemberId>) -> Vec<u8> {
    let mut body = vec![PURGED];
    put_log_id(&mut body, upto);
    body
}

fn encode_vote(vote: &Vote<MemberId>) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend_from_slice(&vote.leader_id.term.to_le_bytes());
    body.extend_from_slice(&vote.leader_id.node_id.to_le_bytes());
    body.push(u8::from(vote.committed));
    let mut buffer = VOTE_HEADER.to_vec();
    put_record(&mut buffer, &body);
    buffer
}

fn decode_vote(bytes: &[u8]) -> io::Result<Vote<MemberId>> {
    let decode = || {
        let (mut body, _) = take_record(bytes.strip_prefix(VOTE_HEADER)?)?;
        let (term, member) = (take_u64(&mut body)?, take_u64(&mut body)?);
        let committed = take_u8(&mut body)? == 1;
        Some(if committed {
            Vote::new_committed(term, member)
        } else {
            Vote::new(term, member)
        })
    };
    decode().ok_or_else(|| corrupt(VOTE))
}

/// Keeps a vote, before it is told.
pub(super) async fn write_vote(disk: &dyn Disk, vote: &Vote<MemberId>) -> io::Result<()> {
    disk.write_atomic(Path::new(VOTE), encode_vote(vote).into()).await
}

impl RaftLogReader<Group> for Log {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry<Group>>, Failure> {
        self.kept.try_get_log_entries(range).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry<Group>>, Failure> {
        self.kept.limited_get_log_entries(start, end).await
    }
}

impl RaftLogStorage<Group> for Log {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> Result<LogState<Group>, Failure> {
        let kept = self.kept.lock();
        let last = kept.entries.values().next_back().map(|entry| entry.log_id);
        Ok(LogState {
            last_purged_log_id: kept.purged,
            last_log_id: last.or(kept.purged),
        })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.kept.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<MemberId>) -> Result<(), Failure> {
        write_vote(&*self.disk, vote).await.map_err(|error| writing(&error))?;
        self.vote = Some(*vote);
        Ok(())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<MemberId>>, Failure> {
        Ok(self.vote)
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<Group>) -> Result<(), Failure>
    where
        I: IntoIterator<Item = Entry<Group>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry<Group>> = entries.into_iter().collect();
        let bodies: io::Result<Vec<Vec<u8>>> = entries.iter().map(encode_entry).collect();
        let bodies = bodies.map_err(|error| reading(&error))?;
        self.kept
            .lock()
            .entries
            .extend(entries.into_iter().map(|entry| (entry.log_id.index, entry)));
        let written = self.write(&bodies).await;
        let result = written.as_ref().copied().map_err(writing);
        callback.log_io_completed(written);
        result
    }

    async fn truncate(&mut self, log_id: LogId<MemberId>) -> Result<(), Failure> {
        self.kept.lock().entries.split_off(&log_id.index);
        let mut body = vec![CUT];
        body.extend_from_slice(&log_id.index.to_le_bytes());
        self.write(&[body]).await.map_err(|error| writing(&error))
    }

    async fn purge(&mut self, log_id: LogId<MemberId>) -> Result<(), Failure> {
        let file = {
            let mut kept = self.kept.lock();
            kept.entries = kept.entries.split_off(&(log_id.index + 1));
            kept.purged = Some(log_id);
            encode_all(&kept).map_err(|error| writing(&error))?
        };
        let length = file.len() as u64;
        self.disk
            .write_atomic(Path::new(LOG), file.into())
            .await
            .map_err(|error| writing(&error))?;
        let opened = self.disk.open_append(Path::new(LOG), Some(length)).await;
        *self.file.get_mut() = opened.map_err(|error| writing(&error))?;
        self.length = length as usize;
        self.is_marked = true;
        Ok(())
    }
}

/// The whole file for what is kept. It is written whole or not at all, as the mark at its end says.
fn encode_all(kept: &Kept) -> io::Result<Vec<u8>> {
    let mut file = LOG_HEADER.to_vec();
    if let Some(purged) = &kept.purged {
        put_record(&mut file, &purged_body(purged));
    }
    for entry in kept.entries.values() {
        put_record(&mut file, &encode_entry(entry)?);
    }
    let mark = mark_body(file.len());
    put_record(&mut file, &mark);
    Ok(file)
}

#[cfg(test)]
mod tests;
