//! A table against a map of lists: enough keys to split leaves and to empty them, of any length, many of which agree in
//! their first eight bytes.

use proptest::prelude::*;

use super::*;

/// A key's versions, the newest last.
type Versions = Vec<(Lsn, Option<Vec<u8>>)>;
type Model = BTreeMap<Vec<u8>, Versions>;

#[derive(Clone, Debug)]
enum Step {
    /// At the next LSN: each key's row, or its removal.
    Write(Vec<Vec<u8>>, Option<Vec<u8>>),
    /// The same for many keys one behind the other, upwards or downwards, all with the same beginning.
    Run {
        beginning: &'static [u8],
        first: u16,
        count: u16,
        up: bool,
        puts: bool,
    },
    /// Everything is committed.
    Prune,
    /// What was written after this share of what is not committed, in eighths, is taken back.
    Undo(u64),
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(vec![0u8, 1, 0xFF]), 0..30)
}

fn step() -> impl Strategy<Value = Step> {
    let row = || prop::option::weighted(0.7, prop::collection::vec(any::<u8>(), 0..40));
    let beginning = prop::sample::select(vec![
        &b""[..],
        b"\x01customer-",
        b"\x01a name longer than what lies in the tree",
    ]);
    let run = (beginning, 0u16..600, 1u16..300, any::<bool>(), any::<bool>());
    prop_oneof![
        3 => (prop::collection::vec(key(), 1..150), row()).prop_map(|(keys, row)| Step::Write(keys, row)),
        3 => run.prop_map(|(beginning, first, count, up, puts)| Step::Run { beginning, first, count, up, puts }),
        1 => Just(Step::Prune),
        1 => (0u64..=8).prop_map(Step::Undo),
    ]
}

#[derive(Default)]
struct Both {
    table: Table,
    model: Model,
    lsn: Lsn,
    committed: Lsn,
}

impl Both {
    fn write(&mut self, keys: impl IntoIterator<Item = Vec<u8>>, row: Option<&[u8]>) {
        self.lsn += 1;
        for key in keys {
            self.table.write(&Key::new(&key), self.lsn, row);
            if row.is_none() && !self.model.contains_key(&key) {
                continue;
            }
            let versions = self.model.entry(key).or_default();
            // The last of a transaction counts; a removal of what is removed is none.
            match versions.last() {
                Some((_, None)) if row.is_none() => continue,
                Some((lsn, _)) if *lsn == self.lsn => drop(versions.pop()),
                _ => {}
            }
            versions.push((self.lsn, row.map(Vec::from)));
        }
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Write(keys, row) => self.write(keys.iter().cloned(), row.as_deref()),
            Step::Run {
                beginning,
                first,
                count,
                up,
                puts,
            } => {
                let mut keys: Vec<_> = (*first..first + count)
                    .map(|key| [*beginning, &key.to_be_bytes()].concat())
                    .collect();
                if !up {
                    keys.reverse();
                }
                self.write(keys, puts.then_some(b"row"));
            }
            Step::Prune => {
                self.committed = self.lsn;
                for key in self.model.keys() {
                    let (pins, mut kept_by) = (Pins::new(), Vec::new());
                    self.table.prune(&Key::new(key), self.lsn, &pins, &mut kept_by);
                    assert!(kept_by.is_empty());
                }
                self.model.retain(|_, versions| {
                    versions.drain(..versions.len() - 1);
                    versions[0].1.is_some()
                });
            }
            Step::Undo(eighths) => {
                let lsn = self.committed + (self.lsn - self.committed) * eighths / 8;
                for key in self.model.keys() {
                    self.table.undo_after(&Key::new(key), lsn);
                }
                self.model.retain(|_, versions| {
                    versions.retain(|version| version.0 <= lsn);
                    !versions.is_empty()
                });
                self.lsn = lsn;
            }
        }
    }

    fn check(&self, probes: &[Vec<u8>]) {
        let expected: Vec<_> = self.model.iter().collect();
        self.check_rows(self.table.after(None), &expected);
        for probe in probes.iter().chain(self.model.keys().step_by(37)) {
            let at = expected.partition_point(|(key, _)| *key < probe);
            self.check_rows(self.table.from(&Key::new(probe)), &expected[at..]);
            let below: Vec<_> = expected[..at].iter().rev().copied().collect();
            self.check_rows(self.table.back(Some(&Key::new(probe))), &below);
            let at = expected.partition_point(|(key, _)| *key <= probe);
            self.check_rows(self.table.after(Some(probe)), &expected[at..]);
            let found = self.table.get(&Key::new(probe)).map(Version::lsn);
            assert_eq!(
                found,
                self.model.get(probe).map(|versions| versions[versions.len() - 1].0)
            );
        }
        let all = self.model.values();
        let rows = all
            .clone()
            .filter(|versions| versions.last().is_some_and(|last| last.1.is_some()));
        let stats = self.table.stats();
        assert_eq!(stats.rows, rows.count() as u64);
        assert_eq!(stats.versions, all.map(|versions| versions.len() as u64).sum::<u64>());
        assert_eq!(stats.bytes, self.table.counted());
    }

    fn check_rows<'a>(&self, rows: impl Iterator<Item = (Key, &'a Version)>, expected: &[(&Vec<u8>, &Versions)]) {
        let mut expected = expected.iter();
        for (key, version) in rows {
            let (of, versions) = expected.next().expect("no more rows than there are");
            assert_eq!(key.as_bytes(), &of[..]);
            assert!(version.is_alone() == (versions.len() == 1));
            for snapshot in self.committed..=self.lsn {
                let seen = versions.iter().rev().find(|(lsn, _)| *lsn <= snapshot);
                let seen = seen.and_then(|(lsn, row)| Some((*lsn, row.as_deref()?)));
                assert_eq!(version.at(snapshot), seen, "{of:?} at {snapshot}");
            }
        }
        assert!(expected.next().is_none(), "no fewer rows than there are");
    }
}

impl Table {
    /// `Stats::bytes`, by looking at everything.
    fn counted(&self) -> u64 {
        let mut bytes = self.leaves.bytes();
        for leaf in self.leaves.iter() {
            let first = leaf.first_key().expect("no leaf is empty");
            let found = self.leaves.place(&first).map(|place| self.leaves.at(place));
            assert!(
                found.is_some_and(|found| std::ptr::eq(found, leaf)),
                "keys are in their leaf"
            );
            assert!(leaf.is_fitting(), "few places are free, also when many rows went");
            bytes += leaf.size();
            bytes += leaf.entries().iter().map(|entry| entry.version.counted()).sum::<u64>();
        }
        bytes
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn a_table_is_its_model(steps in prop::collection::vec(step(), 1..16), probes in prop::collection::vec(key(), 4)) {
        let mut both = Both::default();
        for step in &steps {
            both.take(step);
            both.check(&probes);
        }
        // Everything goes.
        both.write(both.model.keys().cloned().collect::<Vec<_>>(), None);
        both.take(&Step::Prune);
        prop_assert_eq!(both.table.stats(), Stats::default());
        prop_assert!(both.table.leaves.is_empty());
    }

    #[test]
    fn a_version_gives_back_what_it_was_made_of(
        key in prop::collection::vec(any::<u8>(), 0..40), lsn: Lsn, shift in 0u32..64,
        row in prop::option::of(prop::collection::vec(any::<u8>(), 0..40)),
    ) {
        let lsn = lsn >> shift;
        let version = Version::new(&key, lsn, row.as_deref());
        prop_assert_eq!(version.lsn(), lsn);
        prop_assert_eq!(version.row(), row.as_deref());
        prop_assert_eq!(version.key(crate::key::head(&key)), Key::new(&key));
    }
}

#[test]
fn leaves_are_full_of_ascending_keys_and_fit_shuffled_ones() {
    let bytes_a_row = |factor: u64| {
        let mut table = Table::default();
        for number in 0..10_000u64 {
            let key = (number * factor % 10_007).to_be_bytes();
            table.write(&Key::new(&key), number + 1, Some(b""));
        }
        let versions: u64 = table.after(None).map(|(_, version)| version.size()).sum();
        (table.stats().bytes - versions) as f64 / 10_000.0
    };
    assert!(bytes_a_row(1) < 17.5, "{}", bytes_a_row(1));
    assert!(bytes_a_row(7_919) < 20.0, "{}", bytes_a_row(7_919));
}

#[test]
fn keys_that_begin_alike_are_told_apart_without_their_rows() {
    let mut table = Table::default();
    for number in 0..10_000u64 {
        let key = format!("customer-{:05}", number * 7_919 % 10_007);
        table.write(&Key::new(key.as_bytes()), number + 1, Some(b""));
    }
    assert!(table.leaves.iter().count() > 100);
    assert!(table.leaves.iter().all(Leaf::is_told_apart));
}
