//! The versions of one row, the newest first.
//!
//! An older version stays while a pinned snapshot sees it, or while the version that replaced it may be undone.
//!
//! A version is one heap block: a byte that tells what follows; its LSN, little-endian, without the zeros at its end;
//! the key's length, four bytes, if it is not in the first byte; the key's bytes beyond the eighth; the row. The first
//! byte: the LSN's length - 1 (3 bits), the key's length or `LONG_KEY` (4 bits), and whether it is a tombstone.

use std::cmp::Ordering;

use super::Pins;
use super::block::Block;
pub(super) use super::block::LINK_SIZE;
use crate::Lsn;
use crate::key::Key;

const LONG_KEY: u8 = 15;
const TOMBSTONE: u8 = 0x80;
/// The bytes of a key that lie in the leaf.
const KEY_HEAD: usize = 8;

/// The newest version and the older ones behind it; eight bytes that lie in a leaf.
pub(crate) struct Version(Block);

/// A block, read.
struct Parts<'a> {
    key_length: usize,
    key_tail: &'a [u8],
    row: &'a [u8],
}

fn block(key: &[u8], lsn: Lsn, row: Option<&[u8]>) -> Block {
    let lsn_length = (8 - lsn.leading_zeros() as usize / 8).max(1);
    let mut head = [0; 13];
    head[1..9].copy_from_slice(&lsn.to_le_bytes());
    let mut end = 1 + lsn_length;
    let code = match u8::try_from(key.len()) {
        Ok(length) if length < LONG_KEY => length,
        _ => {
            head[end..end + 4].copy_from_slice(&(key.len() as u32).to_le_bytes());
            end += 4;
            LONG_KEY
        }
    };
    let tombstone = if row.is_none() { TOMBSTONE } else { 0 };
    head[0] = (lsn_length as u8 - 1) | code << 3 | tombstone;
    let tail = key.get(KEY_HEAD..).unwrap_or_default();
    Block::new([&head[..end], tail, row.unwrap_or_default()])
}

#[inline]
fn lsn_length(first: u8) -> usize {
    usize::from(first & 7) + 1
}

#[inline]
fn lsn_of(bytes: &[u8]) -> Lsn {
    let length = lsn_length(bytes[0]);
    match bytes[1..].first_chunk::<8>() {
        Some(bytes) => u64::from_le_bytes(*bytes) & (u64::MAX >> (64 - 8 * length)),
        None => bytes[1..=length]
            .iter()
            .rev()
            .fold(0, |lsn, &byte| lsn << 8 | u64::from(byte)),
    }
}

#[inline]
fn is_tombstone(bytes: &[u8]) -> bool {
    bytes[0] & TOMBSTONE != 0
}

#[inline]
fn parts(bytes: &[u8]) -> Parts<'_> {
    let rest = &bytes[1 + lsn_length(bytes[0])..];
    let (key_length, rest) = match (bytes[0] >> 3 & 15, rest.split_first_chunk()) {
        (LONG_KEY, Some((length, rest))) => (u32::from_le_bytes(*length) as usize, rest),
        (length, _) => (usize::from(length), rest),
    };
    let (key_tail, row) = rest.split_at(key_length.saturating_sub(KEY_HEAD));
    Parts {
        key_length,
        key_tail,
        row,
    }
}

#[inline]
fn row_of(bytes: &[u8]) -> Option<&[u8]> {
    (!is_tombstone(bytes)).then(|| parts(bytes).row)
}

impl Version {
    pub(super) fn new(key: &[u8], lsn: Lsn, row: Option<&[u8]>) -> Self {
        Self(block(key, lsn, row))
    }

    /// The LSN of the record that wrote it.
    #[inline]
    pub(crate) fn lsn(&self) -> Lsn {
        lsn_of(self.0.bytes())
    }

    /// Asks the memory for the newest version, which will be looked at soon.
    #[inline]
    pub(super) fn prefetch(&self) {
        self.0.prefetch();
    }

    /// The row; None: it was removed.
    #[inline]
    pub(crate) fn row(&self) -> Option<&[u8]> {
        row_of(self.0.bytes())
    }

    /// The rows of all versions, the newest first.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &[u8]> {
        let versions = std::iter::successors(Some(&self.0), |block| block.older());
        versions.filter_map(|block| row_of(block.bytes()))
    }

    /// The key, of which the leaf has the first eight bytes.
    #[inline]
    pub(super) fn key(&self, head: u64) -> Key {
        let parts = parts(self.0.bytes());
        Key::from_parts(head, parts.key_length, parts.key_tail)
    }

    /// This version's key against another that agrees with it in the first eight bytes, with zeros for those that
    /// either lacks.
    #[inline]
    pub(super) fn compare_beyond_head(&self, key: &[u8]) -> Ordering {
        let parts = parts(self.0.bytes());
        match key.get(KEY_HEAD..) {
            Some(tail) if parts.key_length > KEY_HEAD => parts.key_tail.cmp(tail),
            _ => parts.key_length.cmp(&key.len()),
        }
    }

    /// Nothing is behind it.
    pub(super) fn is_alone(&self) -> bool {
        self.0.older().is_none()
    }

    /// Bytes of the newest version; each one behind another takes `LINK_SIZE` besides.
    pub(super) fn size(&self) -> u64 {
        self.0.size() as u64
    }

    /// The version that a snapshot at `snapshot` sees: (its LSN, its row). None: no row there.
    #[inline]
    pub(crate) fn at(&self, snapshot: Lsn) -> Option<(Lsn, &[u8])> {
        let mut block = &self.0;
        loop {
            let bytes = block.bytes();
            let lsn = lsn_of(bytes);
            if lsn <= snapshot {
                return Some((lsn, row_of(bytes)?));
            }
            block = block.older()?;
        }
    }

    /// Another row at the newest version's LSN.
    pub(super) fn replace_row(&mut self, key: &[u8], row: Option<&[u8]>) {
        self.0.replace(block(key, self.lsn(), row));
    }

    /// A newer version takes its place, and it goes behind it.
    pub(super) fn push(&mut self, key: &[u8], lsn: Lsn, row: Option<&[u8]>) {
        assert!(lsn > self.lsn(), "versions are written in LSN order");
        self.0.push(block(key, lsn, row));
    }

    /// The one behind it takes its place. False: there is none, and nothing is done.
    pub(super) fn pop(&mut self) -> bool {
        self.0.pop()
    }

    /// Drops the versions behind it that nobody needs, and names the pins that keep the others. Returns how many
    /// were dropped, and their bytes.
    pub(super) fn prune(&mut self, committed: Lsn, pins: &Pins, kept_by: &mut Vec<Lsn>) -> Pruned {
        let mut pruned = Pruned::default();
        let mut newer = self.lsn();
        let mut place = &mut self.0;
        while let Some(older) = place.older() {
            let lsn = lsn_of(older.bytes());
            let pinned = pins.range(lsn..newer.max(lsn)).next();
            if newer <= committed && pinned.is_none() {
                pruned.drop_behind(place);
                continue;
            }
            // The newest commits later, which looks here again; a pin has to be waited for.
            if newer <= committed {
                kept_by.extend(pinned.map(|(&pin, _)| pin));
            }
            newer = lsn;
            match place.older_mut() {
                Some(older) => place = older,
                None => break,
            }
        }
        while self.drop_last_if_tombstone(committed, &mut pruned) {}
        pruned
    }

    /// A committed tombstone with nothing behind it says no more than its absence does.
    fn drop_last_if_tombstone(&mut self, committed: Lsn, pruned: &mut Pruned) -> bool {
        let mut place = &mut self.0;
        loop {
            let Some(older) = place.older() else { return false };
            if older.older().is_none() {
                let drops = is_tombstone(older.bytes()) && lsn_of(older.bytes()) <= committed;
                if drops {
                    pruned.drop_behind(place);
                }
                return drops;
            }
            match place.older_mut() {
                Some(older) => place = older,
                None => return false,
            }
        }
    }
}

/// What went.
#[derive(Default)]
pub(super) struct Pruned {
    pub(super) versions: u64,
    pub(super) bytes: u64,
}

impl Pruned {
    fn drop_behind(&mut self, place: &mut Block) {
        let size = place.older().map_or(0, Block::size) as u64;
        if place.drop_behind() {
            self.versions += 1;
            self.bytes += size + LINK_SIZE;
        }
    }
}

#[cfg(test)]
impl Version {
    /// Bytes of all its versions.
    pub(super) fn counted(&self) -> u64 {
        let chain = std::iter::successors(Some(&self.0), |block| block.older());
        let links = chain.clone().count() as u64 - 1;
        chain.map(|block| block.size() as u64).sum::<u64>() + links * LINK_SIZE
    }
}

impl std::fmt::Debug for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:02x?}", self.lsn(), self.row())
    }
}
