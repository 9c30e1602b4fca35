//! A table's rows between two keys, in order and packed: sixteen bytes a row besides its versions.
//!
//! An entry holds eight bytes of its key as a number, its head, which decides most comparisons without a look at the
//! row: the first eight, or, where these are alike, those behind what all keys of the leaf begin with, its prefix. The
//! key's bytes beyond the eighth lie with the version. The array has few places more than entries, whatever their order of
//! coming: it grows by the steps in which allocators grow, and a full leaf splits into two arrays that fit, or, when
//! the new key is behind all others, begins another one.

use std::cmp::Ordering;

use super::version::Version;
use crate::key::{Key, head};

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

/// The entries of some leaves, one after another.
pub(super) struct Rows<'a, L> {
    /// What is left of a leaf, and how its keys begin.
    begun: &'a [Entry],
    start: Start,
    leaves: L,
}

/// What a prefix says of the first eight bytes of keys.
#[derive(Clone, Copy)]
struct Start {
    bytes: u64,
    bits: u32,
}

impl Start {
    /// A key's first eight bytes, from its head.
    #[inline]
    fn and(self, head: u64) -> u64 {
        self.bytes | head.checked_shr(self.bits).unwrap_or(0)
    }
}

impl<'a, L: Iterator<Item = &'a Leaf>> Rows<'a, L> {
    /// From this entry of the first leaf on, then those of all others.
    pub(super) fn new(first: Option<(&'a Leaf, usize)>, leaves: L) -> Self {
        let none = Start { bytes: 0, bits: 0 };
        Self {
            begun: first.map_or(&[], |(leaf, begin)| &leaf.entries[begin..]),
            start: first.map_or(none, |(leaf, _)| leaf.start()),
            leaves,
        }
    }
}

impl<'a, L: Iterator<Item = &'a Leaf>> Iterator for Rows<'a, L> {
    type Item = (Key, &'a Version);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.begun.is_empty() {
            let leaf = self.leaves.next()?;
            (self.begun, self.start) = (&leaf.entries, leaf.start());
            self.begun.iter().take(AHEAD).for_each(|entry| entry.version.prefetch());
        }
        let (entry, rest) = self.begun.split_first()?;
        if let Some(entry) = rest.get(AHEAD - 1) {
            entry.version.prefetch();
        }
        self.begun = rest;
        Some((entry.version.key(self.start.and(entry.head)), &entry.version))
    }
}

/// The entries of some leaves, from the last to the first.
pub(super) struct RowsBack<'a, L> {
    left: &'a [Entry],
    start: Start,
    leaves: L,
}

impl<'a, L: Iterator<Item = &'a Leaf>> RowsBack<'a, L> {
    /// From before this entry of the last leaf on, then those of all others.
    pub(super) fn new(last: Option<(&'a Leaf, usize)>, leaves: L) -> Self {
        let none = Start { bytes: 0, bits: 0 };
        Self {
            left: last.map_or(&[], |(leaf, end)| &leaf.entries[..end]),
            start: last.map_or(none, |(leaf, _)| leaf.start()),
            leaves,
        }
    }
}

impl<'a, L: Iterator<Item = &'a Leaf>> Iterator for RowsBack<'a, L> {
    type Item = (Key, &'a Version);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        // The key that a walk begins below may be the least of its leaf.
        while self.left.is_empty() {
            let leaf = self.leaves.next()?;
            (self.left, self.start) = (&leaf.entries, leaf.start());
        }
        let (entry, rest) = self.left.split_last()?;
        if let Some(place) = rest.len().checked_sub(AHEAD) {
            rest[place].version.prefetch();
        }
        self.left = rest;
        Some((entry.version.key(self.start.and(entry.head)), &entry.version))
    }
}

/// Invariant: the entries' keys ascend and begin with the prefix, their heads are of what follows it, and there are
/// `FULL` at most.
#[derive(Debug, Default)]
pub(super) struct Leaf {
    prefix: Key,
    entries: Vec<Entry>,
}

/// An array of `length` entries has so many places: four steps a doubling.
fn places(length: usize) -> usize {
    let step = (length.next_power_of_two() / 8).max(1);
    length.next_multiple_of(step)
}

fn fitting(entries: impl ExactSizeIterator<Item = Entry>) -> Vec<Entry> {
    let mut own = Vec::with_capacity(places(entries.len()));
    own.extend(entries);
    own
}

/// How many bytes two keys have in common at their beginning.
pub(super) fn shared(one: &[u8], other: &[u8]) -> usize {
    one.iter().zip(other).take_while(|(one, other)| one == other).count()
}

impl Leaf {
    #[inline]
    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Where the key is (Ok), or would be.
    ///
    /// Two rounds of reads that need not wait for each other; a binary search waits for memory at each step.
    #[inline]
    pub(super) fn find(&self, key: &Key) -> Result<usize, usize> {
        let mut rest = key.as_bytes();
        if !self.prefix.as_bytes().is_empty() {
            match rest.strip_prefix(self.prefix.as_bytes()) {
                Some(behind) => rest = behind,
                None => return Err(if *key < self.prefix { 0 } else { self.entries.len() }),
            }
        }
        let head = head(rest);
        let less = |entry: &Entry| entry.head < head;
        let groups = self.entries.chunks_exact(GROUP).filter(|group| less(&group[GROUP - 1]));
        let begin = groups.count() * GROUP;
        let rest = &self.entries[begin..];
        let at = begin + rest[..rest.len().min(GROUP)].iter().filter(|entry| less(entry)).count();
        let ties = &self.entries[at..];
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
        &mut self.entries[at].version
    }

    fn start(&self) -> Start {
        Start {
            bytes: head(self.prefix.as_bytes()),
            bits: (self.prefix.as_bytes().len() * 8).try_into().unwrap_or(u32::MAX),
        }
    }

    fn key(&self, entry: &Entry) -> Key {
        entry.version.key(self.start().and(entry.head))
    }

    /// The least key.
    pub(super) fn first_key(&self) -> Option<Key> {
        self.entries.first().map(|entry| self.key(entry))
    }

    /// Puts an entry where `find` said. The second half of a leaf that was full is returned.
    pub(super) fn insert(&mut self, at: usize, key: &Key, version: Version) -> Option<Self> {
        if self.entries.len() < FULL {
            self.insert_here(at, key, version);
            return None;
        }
        let mut second = Self {
            prefix: self.prefix.clone(),
            entries: Vec::new(),
        };
        // Keys that ascend leave full leaves behind.
        if at < FULL {
            second.entries = fitting(self.entries.drain(FULL / 2..));
            // A new array, because to shrink the old one is for many allocators to leave it as it is.
            self.entries = fitting(self.entries.drain(..));
        }
        match at.checked_sub(FULL / 2) {
            Some(_) if at == FULL => second.insert_here(0, key, version),
            Some(at) => second.insert_here(at, key, version),
            None => self.insert_here(at, key, version),
        }
        self.tell_apart();
        second.tell_apart();
        Some(second)
    }

    fn insert_here(&mut self, at: usize, key: &Key, version: Version) {
        let shared = shared(self.prefix.as_bytes(), key.as_bytes());
        if shared < self.prefix.as_bytes().len() {
            self.set_prefix(Key::new(&key.as_bytes()[..shared]));
        }
        let length = self.entries.len();
        if length == self.entries.capacity() {
            self.entries.reserve_exact(places(length + 1) - length);
        }
        let head = head(&key.as_bytes()[shared..]);
        self.entries.insert(at, Entry { head, version });
    }

    /// Where heads are alike, finds the longest prefix.
    fn tell_apart(&mut self) {
        let [first, .., last] = self.entries.as_slice() else {
            return;
        };
        if self.is_told_apart() {
            return;
        }
        let (first, last) = (self.key(first), self.key(last));
        let shared = shared(first.as_bytes(), last.as_bytes());
        self.set_prefix(Key::new(&first.as_bytes()[..shared]));
    }

    /// No heads are alike.
    pub(super) fn is_told_apart(&self) -> bool {
        self.entries.windows(2).all(|pair| pair[0].head < pair[1].head)
    }

    fn set_prefix(&mut self, prefix: Key) {
        let start = self.start();
        for entry in &mut self.entries {
            let key = entry.version.key(start.and(entry.head));
            entry.head = head(&key.as_bytes()[prefix.as_bytes().len()..]);
        }
        self.prefix = prefix;
    }

    pub(super) fn remove(&mut self, at: usize) -> Version {
        let entry = self.entries.remove(at);
        if places(self.entries.len()) <= self.entries.capacity() / 2 {
            self.entries = fitting(self.entries.drain(..));
        }
        entry.version
    }

    /// Bytes of its array, and of a long prefix.
    pub(super) fn size(&self) -> u64 {
        (self.entries.capacity() * size_of::<Entry>() + self.prefix.heap_size()) as u64
    }

    #[cfg(test)]
    pub(super) fn is_fitting(&self) -> bool {
        self.entries.capacity() < 2 * places(self.entries.len())
    }
}
