//! Indexes against walks over all rows: whatever was written, committed, cut, pinned and let go, and while they are built.

use proptest::prelude::*;

use super::super::view::seen_at;
use super::*;
use crate::Lsn;
use crate::catalog::{IndexColumn, IndexState};
use crate::effects::{Effects, EffectsBuilder, LogPayload};
use crate::key::encode_key;
use crate::plan::{BinaryOp, Expr, StatementContext};
use crate::row::{RowRef, encode_row};
use crate::transaction::Writes;
use crate::value::{Value, ValueRef};

const CONTEXT: StatementContext = StatementContext { now_micros: 0 };
const TABLE: TableId = 1;

/// Key, and two values, the first of which may be NULL.
type Change = (u8, Option<(Option<i32>, i32)>);

#[derive(Clone, Debug)]
enum Step {
    Write(Vec<Change>),
    /// Of what is applied but not committed, this share, in eighths.
    CommitTo(u64),
    /// Cut behind this share of what is applied but not committed.
    Cut(u64),
    /// The newest state, or the newest committed one.
    Pin(bool),
    Unpin(usize),
    /// So many rows into what is not complete.
    Build(usize),
    /// The second index goes and comes again.
    Renew,
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let value = (prop::option::weighted(0.8, 0i32..4), 0i32..3);
    prop::collection::vec((0u8..12, prop::option::weighted(0.7, value)), 1..6)
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => changes().prop_map(Step::Write),
        3 => (1u64..9).prop_map(Step::CommitTo),
        2 => (0u64..8).prop_map(Step::Cut),
        2 => any::<bool>().prop_map(Step::Pin),
        2 => (0usize..4).prop_map(Step::Unpin),
        2 => (1usize..6).prop_map(Step::Build),
        1 => Just(Step::Renew),
    ]
}

/// (a DESC, b), and (b) of the rows where a > 1.
fn definitions() -> [Definition; 2] {
    let column = |place, descending| IndexColumn { place, descending };
    let of = |id, columns, predicate| Definition {
        name: format!("t_{id}"),
        shape: IndexShape {
            id,
            columns,
            predicate,
            missing: missing(),
        },
        unique: false,
        view: None,
        constraint: false,
        state: IndexState::Ready,
        source: String::new(),
    };
    let above = Expr::Binary {
        op: BinaryOp::Greater,
        left: Box::new(Expr::Column(1)),
        right: Box::new(Expr::Literal(Value::Int(1))),
    };
    [
        of(1, vec![column(1, true), column(2, false)], None),
        of(2, vec![column(2, false)], Some(above)),
    ]
}

/// What a row has in b that lacks it: those that have it are written without.
const MISSING: i32 = 2;

fn missing() -> Vec<Value> {
    vec![Value::Null, Value::Null, Value::Int(MISSING)]
}

/// The row with a b.
fn whole(row: &[u8]) -> Vec<u8> {
    let missing = missing();
    let row = RowRef::new(row).with_missing(&missing);
    encode_row(&[row.get(0), row.get(1), row.get(2)])
}

fn effects(changes: &[Change]) -> Effects {
    let mut effects = EffectsBuilder::default();
    for (key, row) in changes {
        let id = ValueRef::Int(i32::from(*key));
        let key = encode_key([id]);
        match row {
            Some((a, b)) => {
                let a = a.map_or(ValueRef::Null, ValueRef::Int);
                let row = [id, a, ValueRef::Int(*b)];
                let columns = if *b == MISSING { 2 } else { 3 };
                effects.put(TABLE, &key, &encode_row(&row[..columns]));
            }
            None => effects.remove(TABLE, &key),
        }
    }
    effects.finish()
}

impl Partition {
    /// Calls `take` with each row that a snapshot sees, with a transaction's `writes` in the places of what they change,
    /// and whose values in an index lie from `from` on, below `to`: in the index's order, or from the last to the first,
    /// until that says stop. False: the index can't be read by, because there is none, or it is not complete.
    #[allow(clippy::too_many_arguments)] // each is one clause of the query
    fn rows_by_index(
        &self,
        table: TableId,
        index: IndexId,
        snapshot: Lsn,
        writes: &Writes,
        (from, to): (&[u8], Option<&[u8]>),
        backward: bool,
        mut take: impl FnMut(&[u8]) -> bool,
    ) -> bool {
        let span = Span {
            from: Key::new(from),
            to: to.map(Key::new),
        };
        let stored = self.tables.get(&table);
        let Some(found) = by_index(stored, index, seen_at(snapshot), writes.table(table), &span, backward) else {
            return false;
        };
        for (_, _, seen) in found {
            if seen.row.is_some_and(|row| !take(row)) {
                break;
            }
        }
        true
    }
}

/// The rows of a snapshot whose values lie in a span, in the index's order, by looking at all.
fn expected(
    partition: &Partition,
    index: &IndexShape,
    at: Lsn,
    writes: &Writes,
    span: &Span,
    backward: bool,
) -> Vec<Vec<u8>> {
    let all = partition.scan_at(TABLE, at, writes, None, usize::MAX, None, &[], &CONTEXT, None);
    let rows: Vec<Vec<u8>> = all.unwrap().rows.iter().map(|row| whole(row)).collect();
    let entry = |row: &Vec<u8>| {
        let values = values_of(index, row)?;
        let within = values >= span.from && span.to.as_ref().is_none_or(|to| values < *to);
        let key = encode_key([RowRef::new(row).get(0)]);
        within.then(|| (values, key, row.clone()))
    };
    let mut found: Vec<_> = rows.iter().filter_map(entry).collect();
    found.sort();
    if backward {
        found.reverse();
    }
    found.into_iter().map(|(_, _, row)| row).collect()
}

struct Harness {
    partition: Partition,
    pins: Vec<Lsn>,
}

impl Harness {
    fn take(&mut self, step: &Step) {
        let partition = &mut self.partition;
        let open = partition.applied - partition.committed;
        match step {
            Step::Write(changes) => {
                let payload = LogPayload::Write(effects(changes));
                partition.apply_record(partition.applied + 1, &payload).unwrap();
            }
            Step::CommitTo(share) => partition.commit_to(partition.committed + open * share / 8),
            Step::Cut(share) => {
                let to = partition.committed + open * share / 8;
                partition.undo_after(to);
                for pin in self.pins.extract_if(.., |pin| *pin > to) {
                    partition.unpin(pin);
                }
            }
            Step::Pin(newest) => {
                let at = if *newest {
                    partition.applied
                } else {
                    partition.committed
                };
                assert!(partition.pin(at));
                self.pins.push(at);
            }
            Step::Unpin(which) if *which < self.pins.len() => partition.unpin(self.pins.remove(*which)),
            Step::Unpin(_) => {}
            Step::Build(rows) => {
                partition.build_indexes(*rows);
            }
            Step::Renew => {
                let [first, second] = definitions();
                partition.set_indexes(TABLE, std::slice::from_ref(&first));
                partition.set_indexes(TABLE, &[first, second]);
            }
        }
    }

    /// Returns how many answers there were.
    fn check(&self, writes: &Writes, span: &Span, backward: bool) -> usize {
        let partition = &self.partition;
        let mut answers = 0;
        let snapshots = self
            .pins
            .iter()
            .copied()
            .chain([partition.committed, partition.applied]);
        for at in snapshots {
            for definition in definitions() {
                let mut found = Vec::new();
                let bounds = (span.from.as_bytes(), span.to.as_ref().map(Key::as_bytes));
                let take = |row: &[u8]| {
                    found.push(whole(row));
                    true
                };
                if partition.rows_by_index(TABLE, definition.shape.id, at, writes, bounds, backward, take) {
                    answers += 1;
                    let expected = expected(partition, &definition.shape, at, writes, span, backward);
                    assert_eq!(found, expected, "{definition:?} at {at}");
                }
            }
        }
        answers
    }

    /// No entry is there without a version.
    fn check_entries(&self) {
        let table = &self.partition.tables[&TABLE];
        for index in [1, 2] {
            let Some(index) = table.index(index) else { return };
            for (values, key) in index.entries(&Span::all(), false) {
                let version = table.get(key).expect("an entry's row has versions");
                let has = version
                    .rows()
                    .any(|row| values_of(index.shape(), row).as_ref() == Some(values));
                assert!(has, "{values:?} of {key:?}");
            }
        }
    }
}

fn span() -> impl Strategy<Value = Span> {
    let end = || prop::collection::vec(0i32..4, 0..2);
    (end(), prop::option::of(end()), any::<bool>()).prop_map(|(from, to, descending)| {
        let flip = if descending { 0xFF } else { 0 };
        let key = |values: Vec<i32>| {
            let bytes = encode_key(values.into_iter().map(ValueRef::Int));
            Key::new(&bytes.iter().map(|byte| byte ^ flip).collect::<Vec<_>>())
        };
        let (from, to) = (key(from), to.map(key));
        Span { from, to }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn an_index_finds_what_a_walk_finds(
        before in prop::collection::vec(step(), 0..8), steps in prop::collection::vec(step(), 1..24),
        own in changes(), span in span(), backward: bool,
    ) {
        let mut harness = Harness { partition: Partition::new(), pins: Vec::new() };
        before.iter().for_each(|step| harness.take(step));
        harness.partition.set_indexes(TABLE, &definitions());
        let own = Writes::of(&effects(&own)).unwrap();
        for step in &steps {
            harness.take(step);
            harness.check(&Writes::default(), &Span::all(), false);
            harness.check(&own, &span, backward);
            harness.check_entries();
        }
        while !harness.partition.build_indexes(3) {}
        let answers = harness.check(&own, &span, backward);
        prop_assert_eq!(answers, 2 * (harness.pins.len() + 2));
        harness.check_entries();
        // Everything goes, and so do the entries.
        let all: Vec<Change> = (0..12).map(|key| (key, None)).collect();
        harness.take(&Step::Write(all));
        harness.partition.commit_to(harness.partition.applied);
        for pin in std::mem::take(&mut harness.pins) {
            harness.partition.unpin(pin);
        }
        prop_assert_eq!(harness.partition.stats(), crate::partition::Stats::default());
    }
}

#[test]
fn an_index_is_built_in_steps_and_read_when_it_is_complete() {
    let mut partition = Partition::new();
    let changes: Vec<Change> = (0..12).map(|key| (key, Some((Some(2), i32::from(key))))).collect();
    partition
        .apply_record(1, &LogPayload::Write(effects(&changes)))
        .unwrap();
    let bytes = partition.stats().bytes;
    partition.set_indexes(TABLE, &definitions());
    let read = |partition: &Partition| {
        let mut rows = 0;
        let all = (&[][..], None);
        let count = |_: &[u8]| {
            rows += 1;
            true
        };
        let can = partition.rows_by_index(TABLE, 1, 1, &Writes::default(), all, false, count);
        can.then_some(rows)
    };
    assert!(!partition.build_indexes(5));
    assert_eq!(read(&partition), None);
    assert!(!partition.build_indexes(5));
    assert!(partition.build_indexes(5));
    assert_eq!(read(&partition), Some(12));
    assert_eq!(partition.stats().bytes - bytes, 2 * 12 * size_of::<(Key, Key)>() as u64);
    partition.set_indexes(TABLE, &definitions()[1..]);
    assert_eq!(read(&partition), None);
    partition.set_indexes(TABLE, &[]);
    assert_eq!(partition.stats().bytes, bytes);
}

#[test]
fn null_is_not_what_a_row_has_that_lacks_the_column() {
    let mut harness = Harness {
        partition: Partition::new(),
        pins: Vec::new(),
    };
    harness.partition.set_indexes(TABLE, &definitions());
    while !harness.partition.build_indexes(10) {}
    let (id, a) = (ValueRef::Int(1), ValueRef::Int(2));
    for (lsn, row) in [vec![id, a], vec![id, a, ValueRef::Null], vec![id, a]]
        .into_iter()
        .enumerate()
    {
        let mut effects = EffectsBuilder::default();
        effects.put(TABLE, &encode_key([id]), &encode_row(&row));
        let lsn = lsn as Lsn + 1;
        let record = LogPayload::Write(effects.finish());
        harness
            .partition
            .apply_record(lsn, &record)
            .expect("records are in order");
        harness.partition.commit_to(lsn);
        assert!(harness.check(&Writes::default(), &Span::all(), false) > 0);
    }
}
