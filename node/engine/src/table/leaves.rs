//! Which leaf has a key: two levels of arrays over a table's leaves.
//!
//! A branch has up to `FULL` leaves in key order, and between each two of them a separator: the least key that belongs to
//! the second. The same lies between branches. What decides a search is eight bytes of each separator, its head, in an array of
//! its own: those that all separators of the array share are left out. So the heads of a million rows are 200 KB, which a
//! cache holds, and a search in them waits for nothing.
//!
//! The first leaf has whatever lies below the first separator: one that goes leaves its range to its neighbour.

use super::leaf::{Leaf, shared};
use crate::key::{Key, head};

/// Leaves of a full branch; in tests few, so that branches split and go.
const FULL: usize = if cfg!(test) { 6 } else { 128 };

/// Keys in order. Invariants: all begin with `prefix`, which is as long as it can be; `heads` are of what follows it.
#[derive(Debug, Default)]
struct Separators {
    prefix: Key,
    heads: Vec<u64>,
    keys: Vec<Key>,
}

/// Invariant: a separator between each two leaves.
#[derive(Debug)]
struct Branch {
    separators: Separators,
    leaves: Vec<Leaf>,
}

/// Where a leaf is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    branch: usize,
    leaf: usize,
}

/// See the module. Invariants: a separator between each two branches, and no branch is empty.
#[derive(Debug, Default)]
pub(super) struct Leaves {
    separators: Separators,
    branches: Vec<Branch>,
    length: usize,
    /// Bytes that separators hold outside of themselves.
    heap: u64,
}

impl Separators {
    /// How many of them are not beyond the key.
    #[inline]
    fn place(&self, key: &Key) -> usize {
        let bytes = key.as_bytes();
        let Some(rest) = bytes.strip_prefix(self.prefix.as_bytes()) else {
            return if bytes < self.prefix.as_bytes() {
                0
            } else {
                self.keys.len()
            };
        };
        let head = head(rest);
        let from = self.heads.partition_point(|other| *other < head);
        if self.heads.get(from) != Some(&head) {
            return from;
        }
        let to = from + self.heads[from..].partition_point(|other| *other == head);
        from + self.keys[from..to].partition_point(|other| other <= key)
    }

    fn insert(&mut self, at: usize, key: Key) {
        self.heads.insert(at, 0);
        self.keys.insert(at, key);
        if !self.set_prefix() {
            self.heads[at] = self.head(at);
        }
    }

    fn remove(&mut self, at: usize) -> Key {
        self.heads.remove(at);
        let key = self.keys.remove(at);
        self.set_prefix();
        key
    }

    /// Those from here on.
    fn split_off(&mut self, at: usize) -> Self {
        let mut second = Self {
            prefix: self.prefix.clone(),
            heads: self.heads.split_off(at),
            keys: self.keys.split_off(at),
        };
        self.set_prefix();
        second.set_prefix();
        second
    }

    fn head(&self, at: usize) -> u64 {
        head(&self.keys[at].as_bytes()[self.prefix.as_bytes().len()..])
    }

    /// Finds the longest prefix; true: it is another one, and all heads are new.
    fn set_prefix(&mut self) -> bool {
        let (Some(first), Some(last)) = (self.keys.first(), self.keys.last()) else {
            self.prefix = Key::least();
            return true;
        };
        let shared = &first.as_bytes()[..shared(first.as_bytes(), last.as_bytes())];
        if shared == self.prefix.as_bytes() {
            return false;
        }
        self.prefix = Key::new(shared);
        for at in 0..self.keys.len() {
            self.heads[at] = self.head(at);
        }
        true
    }
}

/// The leaf before or behind a separator that goes with it: of the first one the separator behind it goes.
fn separator_of(leaf: usize) -> usize {
    leaf.saturating_sub(1)
}

impl Leaves {
    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// What it takes besides what the leaves hold; free places are left out.
    pub(super) fn bytes(&self) -> u64 {
        self.heap + (self.length * size_of::<(u64, Key, Leaf)>()) as u64
    }

    /// The leaf that has the key, if anything does.
    #[inline]
    pub(super) fn place(&self, key: &Key) -> Option<Place> {
        let branch = self.separators.place(key);
        let leaf = self.branches.get(branch)?.separators.place(key);
        Some(Place { branch, leaf })
    }

    pub(super) fn first_place(&self) -> Option<Place> {
        (!self.is_empty()).then_some(Place { branch: 0, leaf: 0 })
    }

    pub(super) fn last_place(&self) -> Option<Place> {
        let branch = self.branches.len().checked_sub(1)?;
        let leaf = self.branches[branch].leaves.len() - 1;
        Some(Place { branch, leaf })
    }

    #[inline]
    pub(super) fn at(&self, place: Place) -> &Leaf {
        &self.branches[place.branch].leaves[place.leaf]
    }

    #[inline]
    pub(super) fn at_mut(&mut self, place: Place) -> &mut Leaf {
        &mut self.branches[place.branch].leaves[place.leaf]
    }

    /// All of them, in order.
    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = &Leaf> {
        self.branches.iter().flat_map(|branch| &branch.leaves)
    }

    /// Those behind a place, in order; None: there are none.
    pub(super) fn behind(&self, place: Option<Place>) -> impl Iterator<Item = &Leaf> + use<'_> {
        let (own, others) = match place {
            Some(Place { branch, leaf }) => (&self.branches[branch].leaves[leaf + 1..], &self.branches[branch + 1..]),
            None => (&[][..], &[][..]),
        };
        own.iter().chain(others.iter().flat_map(|branch| &branch.leaves))
    }

    /// Those before a place, from the last to the first; None: there are none.
    pub(super) fn before(&self, place: Option<Place>) -> impl Iterator<Item = &Leaf> + use<'_> {
        let (own, others) = match place {
            Some(Place { branch, leaf }) => (&self.branches[branch].leaves[..leaf], &self.branches[..branch]),
            None => (&[][..], &[][..]),
        };
        let others = others.iter().rev().flat_map(|branch| branch.leaves.iter().rev());
        own.iter().rev().chain(others)
    }

    /// The first leaf, which has all keys.
    pub(super) fn begin(&mut self, leaf: Leaf) {
        debug_assert!(self.is_empty(), "there is one already");
        self.branches.push(Branch {
            separators: Separators::default(),
            leaves: vec![leaf],
        });
        self.length = 1;
    }

    /// Puts a leaf behind another one, which keeps the keys below `key`.
    pub(super) fn insert_behind(&mut self, place: Place, key: Key, leaf: Leaf) {
        self.length += 1;
        self.heap += key.heap_size() as u64;
        let at = place.leaf + 1;
        let branch = &mut self.branches[place.branch];
        if branch.leaves.len() < FULL {
            branch.separators.insert(at - 1, key);
            branch.leaves.insert(at, leaf);
            return;
        }
        if at == FULL {
            // Keys that ascend leave full branches behind.
            let leaves = vec![leaf];
            let separators = Separators::default();
            self.insert_branch(place.branch + 1, key, Branch { separators, leaves });
            return;
        }
        let mut second = Branch {
            separators: branch.separators.split_off(FULL / 2),
            leaves: branch.leaves.split_off(FULL / 2),
        };
        let between = branch.separators.remove(FULL / 2 - 1);
        let (half, at) = match at.checked_sub(FULL / 2) {
            Some(at @ 1..) => (&mut second, at),
            _ => (branch, at),
        };
        half.separators.insert(at - 1, key);
        half.leaves.insert(at, leaf);
        self.insert_branch(place.branch + 1, between, second);
    }

    fn insert_branch(&mut self, at: usize, key: Key, branch: Branch) {
        self.separators.insert(at - 1, key);
        self.branches.insert(at, branch);
    }

    /// Takes a leaf out; its neighbour has its keys from now on.
    pub(super) fn remove(&mut self, place: Place) -> Leaf {
        self.length -= 1;
        let branch = &mut self.branches[place.branch];
        let leaf = branch.leaves.remove(place.leaf);
        if !branch.leaves.is_empty() {
            let gone = branch.separators.remove(separator_of(place.leaf));
            self.heap -= gone.heap_size() as u64;
            return leaf;
        }
        self.branches.remove(place.branch);
        if !self.branches.is_empty() {
            let gone = self.separators.remove(separator_of(place.branch));
            self.heap -= gone.heap_size() as u64;
        }
        leaf
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Keys of few and many bytes in common.
    fn key() -> impl Strategy<Value = Vec<u8>> {
        let alike = |prefix: usize| {
            prop::collection::vec(any::<u8>(), 0..3).prop_map(move |end| [vec![7; prefix], end].concat())
        };
        prop_oneof![alike(0), alike(1), alike(9), alike(25)]
    }

    proptest! {
        #[test]
        fn separators_are_a_sorted_list(keys in prop::collection::btree_set(key(), 0..40), gone in prop::collection::vec(any::<prop::sample::Index>(), 0..20), probes in prop::collection::vec(key(), 20)) {
            let mut separators = Separators::default();
            let mut model: Vec<Vec<u8>> = Vec::new();
            // In no order.
            let mut shuffled: Vec<Vec<u8>> = keys.into_iter().collect();
            shuffled.sort_by_key(|key| key.iter().rev().copied().collect::<Vec<_>>());
            for key in shuffled {
                let at = model.partition_point(|other| *other <= key);
                prop_assert_eq!(separators.place(&Key::new(&key)), at);
                separators.insert(at, Key::new(&key));
                model.insert(at, key);
            }
            for index in gone {
                if !model.is_empty() {
                    let at = index.index(model.len());
                    let key = model.remove(at);
                    prop_assert_eq!(separators.remove(at), Key::new(&key));
                }
            }
            for probe in probes.iter().chain(&model) {
                let at = model.partition_point(|other| other <= probe);
                prop_assert_eq!(separators.place(&Key::new(probe)), at, "{:?} in {:?}", probe, model);
            }
        }
    }
}
