//! A table's rows between two keys, in order and packed: sixteen bytes a row besides its versions.
//!
//! An entry holds its key's first eight bytes as a number, which decides most comparisons without a look at the row;
//! the rest of the key lies with the version. The array has few places more than entries, whatever their order of
//! coming: it grows by the steps in which allocators grow, and a full leaf splits into two arrays that fit, or, when
//! the new key is behind all others, begins another one.

use std::cmp::Ordering;

use super::version::Version;
use crate::key::Key;

/// Entries of a full leaf.
pub(super) const FULL: usize = 64;

/// Entries that are searched together.
const GROUP: usize = 8;

/// A walk asks the memory for rows so far ahead.
const AHEAD: usize = 8;

#[derive(Debug)]
pub(super) struct Entry {
    head: u64,
    pub(super) version: Version,
}

impl Entry {
    pub(super) fn new(key: &Key, version: Version) -> Self {
        Self {
            head: key.head(),
            version,
        }
    }

    #[inline]
    pub(super) fn key(&self) -> Key {
        self.version.key(self.head)
    }
}

/// The entries of some leaves, one after another.
pub(super) struct Rows<'a, L> {
    /// What is left of a leaf.
    pub(super) begun: &'a [Entry],
    pub(super) leaves: L,
}

impl<'a, L: Iterator<Item = &'a Leaf>> Iterator for Rows<'a, L> {
    type Item = (Key, &'a Version);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.begun.is_empty() {
            self.begun = self.leaves.next()?.entries();
            self.begun.iter().take(AHEAD).for_each(|entry| entry.version.prefetch());
        }
        let (entry, rest) = self.begun.split_first()?;
        if let Some(entry) = rest.get(AHEAD - 1) {
            entry.version.prefetch();
        }
        self.begun = rest;
        Some((entry.version.key(entry.head), &entry.version))
    }
}

/// Invariant: the entries' keys ascend, and there are `FULL` at most.
#[derive(Debug, Default)]
pub(super) struct Leaf(Vec<Entry>);

/// An array of `length` entries has so many places: four steps a doubling.
fn places(length: usize) -> usize {
    let step = (length.next_power_of_two() / 8).max(1);
    length.next_multiple_of(step)
}

impl Leaf {
    #[inline]
    pub(super) fn entries(&self) -> &[Entry] {
        &self.0
    }

    /// Where the key is (Ok), or would be.
    ///
    /// Two rounds of reads that need not wait for each other; a binary search waits for memory at each step.
    #[inline]
    pub(super) fn find(&self, key: &Key) -> Result<usize, usize> {
        let head = key.head();
        let less = |entry: &Entry| entry.head < head;
        let groups = self.0.chunks_exact(GROUP).filter(|group| less(&group[GROUP - 1]));
        let begin = groups.count() * GROUP;
        let rest = &self.0[begin..];
        let at = begin + rest[..rest.len().min(GROUP)].iter().filter(|entry| less(entry)).count();
        let ties = &self.0[at..];
        match ties {
            [entry, next, ..] if entry.head == head && next.head == head => {}
            [entry, ..] if entry.head == head => {
                return match entry.version.compare_beyond_head(key.as_bytes()) {
                    Ordering::Equal => Ok(at),
                    Ordering::Less => Err(at + 1),
                    Ordering::Greater => Err(at),
                };
            }
            _ => return Err(at),
        }
        let ties = &ties[..ties.partition_point(|entry| entry.head == head)];
        let found = ties.binary_search_by(|entry| entry.version.compare_beyond_head(key.as_bytes()));
        found.map(|place| at + place).map_err(|place| at + place)
    }

    #[inline]
    pub(super) fn version_mut(&mut self, at: usize) -> &mut Version {
        &mut self.0[at].version
    }

    /// Puts an entry where `find` said. The second half of a leaf that was full is returned.
    pub(super) fn insert(&mut self, at: usize, entry: Entry) -> Option<Self> {
        if self.0.len() < FULL {
            self.insert_here(at, entry);
            return None;
        }
        // Keys that ascend leave full leaves behind.
        if at == FULL {
            return Some(Self(vec![entry]));
        }
        let mut second = Self::of(self.0.drain(FULL / 2..));
        // A new array, because to shrink the old one is for many allocators to leave it as it is.
        *self = Self::of(self.0.drain(..));
        match at.checked_sub(FULL / 2) {
            Some(at) => second.insert_here(at, entry),
            None => self.insert_here(at, entry),
        }
        Some(second)
    }

    fn insert_here(&mut self, at: usize, entry: Entry) {
        let length = self.0.len();
        if length == self.0.capacity() {
            self.0.reserve_exact(places(length + 1) - length);
        }
        self.0.insert(at, entry);
    }

    pub(super) fn remove(&mut self, at: usize) -> Version {
        let entry = self.0.remove(at);
        if places(self.0.len()) <= self.0.capacity() / 2 {
            *self = Self::of(self.0.drain(..));
        }
        entry.version
    }

    fn of(entries: impl ExactSizeIterator<Item = Entry>) -> Self {
        let mut own = Vec::with_capacity(places(entries.len()));
        own.extend(entries);
        Self(own)
    }

    /// Bytes of its array.
    pub(super) fn size(&self) -> u64 {
        (self.0.capacity() * size_of::<Entry>()) as u64
    }

    #[cfg(test)]
    pub(super) fn is_fitting(&self) -> bool {
        self.0.capacity() < 2 * places(self.0.len())
    }
}
