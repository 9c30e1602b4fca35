use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::Lsn;
use crate::changes::{ConflictRule, changes_of};
use crate::effects::{Effects, LogPayload};

const TABLE: TableId = 3;
const KEYS: u8 = 3;

fn row(rank: i32, text: &str) -> Vec<u8> {
    encode_row(&[ValueRef::Int(rank), ValueRef::Text(text)])
}

/// A cluster of one partition.
struct Cluster {
    origin: u64,
    partition: Partition,
    /// Its changes, and those of others that it took.
    changes: Vec<Change>,
}

impl Cluster {
    fn new(origin: u64, rule: ConflictRule) -> Self {
        let mut partition = Partition::new();
        partition.set_tracked([(TABLE, rule)]);
        Self {
            origin,
            partition,
            changes: Vec::new(),
        }
    }

    fn apply(&mut self, effects: Effects) {
        self.changes.extend(changes_of(&effects));
        let lsn: Lsn = self.partition.applied() + 1;
        let write = LogPayload::Write(effects);
        self.partition.apply_record(lsn, &write).expect("it is sound");
        self.partition.commit_to(lsn);
    }

    /// A client writes a row, or removes it.
    fn write(&mut self, key: u8, micros: i64, row: Option<&[u8]>) {
        let mut effects = EffectsBuilder::default();
        match row {
            Some(row) => effects.put(TABLE, &[key], row),
            None if self.partition.newest_row(TABLE, &[key]).is_none() => return,
            None => effects.remove(TABLE, &[key]),
        }
        let tracked = self.partition.track(effects.finish(), micros, self.origin);
        self.apply(tracked.expect("it fits"));
    }

    fn take(&mut self, changes: &[Change]) -> Incorporated {
        let done = self.partition.incorporate("link", changes, 5).expect("it fits");
        if let Some(effects) = done.outcome.effects.clone() {
            self.apply(effects);
        }
        done
    }

    fn rows(&self) -> Vec<(u8, Option<Vec<u8>>)> {
        let row = |key| self.partition.newest_row(TABLE, &[key]).map(<[u8]>::to_vec);
        (0..KEYS).map(|key| (key, row(key))).collect()
    }
}

fn two(rule: ConflictRule) -> (Cluster, Cluster) {
    (Cluster::new(1, rule), Cluster::new(2, rule))
}

#[test]
fn a_change_is_taken_once_and_known_afterwards() {
    let (mut a, mut b) = two(ConflictRule::LastWriter);
    a.write(0, 10, Some(&row(1, "first")));
    a.write(0, 20, Some(&row(1, "second")));
    let changes = a.changes.clone();
    assert_eq!(b.take(&changes).outcome.affected, 2);
    // Again, and the older one after the newer.
    assert_eq!(b.take(&changes), Incorporated::nothing(&b));
    assert_eq!(b.take(&changes[..1]), Incorporated::nothing(&b));
    assert_eq!(b.rows(), a.rows());
    // What it took goes round, and is known where it came from.
    let around = b.changes.clone();
    assert_eq!(a.take(&around), Incorporated::nothing(&a));
}

impl Incorporated {
    fn nothing(cluster: &Cluster) -> Self {
        let mut nothing = Self::default();
        nothing.outcome.observed = cluster.partition.applied();
        nothing
    }
}

#[test]
fn who_has_seen_a_change_is_in_no_conflict_with_it() {
    let (mut a, mut b) = two(ConflictRule::LastWriter);
    a.write(0, 10, Some(&row(1, "a")));
    b.take(&a.changes.clone());
    // Its clock is behind.
    b.write(0, 3, Some(&row(1, "b")));
    let done = a.take(&b.changes.clone());
    assert_eq!((done.outcome.affected, done.conflicts), (1, 0));
    assert_eq!(a.rows(), b.rows());
}

#[test]
fn of_two_that_did_not_know_of_each_other_the_later_stays_and_both_are_kept() {
    let (mut a, mut b) = two(ConflictRule::LastWriter);
    a.write(0, 10, Some(&row(1, "earlier")));
    b.write(0, 20, Some(&row(1, "later")));
    let (of_a, of_b) = (a.changes.clone(), b.changes.clone());
    assert_eq!(a.take(&of_b).conflicts, 1);
    assert_eq!(b.take(&of_a).conflicts, 1);
    assert_eq!(b.take(&of_a).conflicts, 1, "met again");
    for (cluster, remote_stays) in [(&a, true), (&b, false)] {
        assert_eq!(cluster.rows()[0].1, Some(row(1, "later")));
        let [conflict] = &cluster.partition.conflicts()[..] else {
            panic!("one is kept")
        };
        assert_eq!(conflict.remote_stays, remote_stays);
        let both: BTreeSet<Option<Vec<u8>>> = [conflict.local.clone(), conflict.remote.clone()].into();
        assert_eq!(both, [Some(row(1, "earlier")), Some(row(1, "later"))].into());
        assert_eq!((conflict.met_micros, conflict.link.as_str()), (5, "link"));
    }
}

#[test]
fn the_greatest_stays_also_against_a_removal() {
    let (mut a, mut b) = two(ConflictRule::Greatest(0));
    a.write(0, 10, Some(&row(5, "removed at 5")));
    a.write(0, 90, None);
    b.write(0, 20, Some(&row(7, "seven")));
    b.write(1, 20, Some(&row(2, "two")));
    a.write(1, 10, Some(&row(3, "removed at 3")));
    a.write(1, 11, None);
    let (of_a, of_b) = (a.changes.clone(), b.changes.clone());
    a.take(&of_b);
    b.take(&of_a);
    assert_eq!(a.rows(), b.rows());
    assert_eq!(a.rows()[0].1, Some(row(7, "seven")));
    assert_eq!(a.rows()[1].1, None);
}

/// A column may prefer what is earlier by the clock: what its cluster does next is later than all that the row was.
#[test]
fn a_change_is_later_than_whatever_its_row_was() {
    let (mut a, mut b) = two(ConflictRule::Greatest(0));
    let mut c = Cluster::new(3, ConflictRule::Greatest(0));
    a.write(0, 33, Some(&row(4, "late")));
    let first = a.changes.clone();
    c.take(&first);
    b.write(0, 1, Some(&row(7, "early, and greater")));
    a.take(&b.changes.clone());
    a.write(0, 1, None);
    // The removal comes to the third before what it removes.
    let removal = a.changes[2..].to_vec();
    c.take(&removal);
    c.take(&b.changes.clone());
    b.take(&a.changes.clone());
    assert_eq!((a.rows(), c.rows()), (b.rows(), b.rows()));
    assert_eq!(a.rows()[0].1, None);
}

#[test]
fn copies_fill_what_is_empty_and_yield_to_what_was_changed() {
    let (_, mut b) = two(ConflictRule::LastWriter);
    let copy = |key, text| Change {
        table: TABLE,
        key: vec![key],
        row: Some(row(0, text)),
        version: RowVersion::UNTRACKED,
        replaced: RowVersion::UNTRACKED,
        rank: Vec::new(),
    };
    b.write(1, 10, Some(&row(0, "mine")));
    let done = b.take(&[copy(0, "b"), copy(1, "b")]);
    assert_eq!((done.outcome.affected, done.conflicts), (1, 0));
    // Both had it before anybody kept versions: the same one stays everywhere.
    assert_eq!(b.take(&[copy(0, "b")]).conflicts, 0);
    let done = b.take(&[copy(0, "a"), copy(0, "c")]);
    assert_eq!((done.outcome.affected, done.conflicts), (1, 1));
    assert_eq!(b.rows()[0].1, Some(row(0, "c")));
    assert_eq!(b.rows()[1].1, Some(row(0, "mine")));
}

#[test]
fn the_oldest_conflicts_go() {
    let mut a = Cluster::new(1, ConflictRule::LastWriter);
    a.write(0, i64::MAX / 2, Some(&row(0, "mine")));
    let late = |micros| Change {
        table: TABLE,
        key: vec![0],
        row: None,
        version: RowVersion { micros, origin: 9 },
        replaced: RowVersion { micros: 1, origin: 9 },
        rank: Vec::new(),
    };
    for first in (0..i64::try_from(MAX_CONFLICTS_KEPT).unwrap() + 100).step_by(100) {
        let changes: Vec<Change> = (first..first + 100).map(|micros| late(10 + micros)).collect();
        a.take(&changes);
    }
    let kept = a.partition.conflicts();
    assert_eq!(kept.len() as u64, MAX_CONFLICTS_KEPT);
    assert_eq!(kept[0].remote_version.micros, 110);
}

#[derive(Clone, Debug)]
enum Step {
    /// A client of a cluster.
    Write {
        at: usize,
        key: u8,
        micros: i64,
        value: Option<u8>,
    },
    /// Some of what one cluster has is told to another.
    Tell {
        from: usize,
        to: usize,
        first: usize,
        count: usize,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let write = (
        0..3_usize,
        0..KEYS,
        1..40_i64,
        proptest::option::weighted(0.75, any::<u8>()),
    )
        .prop_map(|(at, key, micros, value)| Step::Write { at, key, micros, value });
    let tell = (0..3_usize, 0..3_usize, 0..40_usize, 1..6_usize).prop_map(|(from, to, first, count)| Step::Tell {
        from,
        to,
        first,
        count,
    });
    proptest::collection::vec(prop_oneof![write, tell], 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// Whatever was written where, and told in what order, how often and in what pieces: once all is told, all have the same.
    #[test]
    fn clusters_come_to_the_same_rows(steps in steps(), by_column in any::<bool>(), order in any::<[usize; 6]>()) {
        let rule = if by_column { ConflictRule::Greatest(0) } else { ConflictRule::LastWriter };
        let mut clusters: Vec<Cluster> = (1..=3).map(|origin| Cluster::new(origin, rule)).collect();
        for (place, step) in steps.into_iter().enumerate() {
            match step {
                Step::Write { at, key, micros, value } => {
                    // A column that rows are ranked by grows.
                    let rank = i32::try_from(place).unwrap();
                    let row = value.map(|value| row(rank, &format!("{place} {value}")));
                    clusters[at].write(key, micros, row.as_deref());
                }
                Step::Tell { from, to, first, count } if from != to => {
                    let changes: Vec<Change> = clusters[from].changes.iter().skip(first).take(count).cloned().collect();
                    clusters[to].take(&changes);
                }
                Step::Tell { .. } => {}
            }
        }
        // Each tells each other one what it has by now, once, in some order.
        let all: Vec<Vec<Change>> = clusters.iter().map(|cluster| cluster.changes.clone()).collect();
        let mut pairs = vec![(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)];
        for place in order {
            let (from, to): (usize, usize) = pairs.remove(place % pairs.len());
            clusters[to].take(&all[from]);
        }
        let rows: Vec<_> = clusters.iter().map(Cluster::rows).collect();
        prop_assert_eq!(&rows[0], &rows[1]);
        prop_assert_eq!(&rows[0], &rows[2]);
    }
}
