//! Views against the aggregates of all rows: whatever was written, cleared, committed, cut, pinned and let go, and while they
//! are built; and what a transaction reads of one stands only if it is still so.

use std::collections::BTreeMap;

use proptest::prelude::*;
use rust_decimal::Decimal;

use super::*;
use crate::catalog::{Column, Index, IndexColumn, IndexShape, IndexState, ViewAggregate};
use crate::effects::{Effects, EffectsBuilder, LogPayload};
use crate::key::encode_key;
use crate::partition::Projection;
use crate::plan::{Access, Action, BinaryOp, Expr, Program, StatementContext};
use crate::row::{RowRef, encode_row};
use crate::transaction::Reads;
use crate::value::{DataType, Value, ValueRef};

const CONTEXT: StatementContext = StatementContext { now_micros: 0 };
const TABLE: TableId = 1;
/// By `a`, of the rows whose `b` is not 2.
const GROUPED: TableId = 2;
/// Of all rows together.
const WHOLE: TableId = 3;

/// `a` and `b` may be NULL; `c` is in hundredths.
type Row = (Option<i32>, Option<i64>, i32);
type Change = (u8, Option<Row>);

#[derive(Clone, Debug)]
enum Step {
    Write(Vec<Change>),
    Clear,
    CommitTo(u64),
    Cut(u64),
    Pin(bool),
    Unpin(usize),
    Build(usize),
    BuildIndexes(usize),
    /// The second view goes and comes again.
    Renew,
    /// The state goes through a dump.
    Move,
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let row = (
        prop::option::weighted(0.8, 0i32..3),
        prop::option::weighted(0.8, 0i64..5),
        0i32..3,
    );
    prop::collection::vec((0u8..12, prop::option::weighted(0.7, row)), 1..6)
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => changes().prop_map(Step::Write),
        1 => Just(Step::Clear),
        3 => (1u64..9).prop_map(Step::CommitTo),
        2 => (0u64..8).prop_map(Step::Cut),
        2 => any::<bool>().prop_map(Step::Pin),
        2 => (0usize..4).prop_map(Step::Unpin),
        4 => (1usize..6).prop_map(Step::Build),
        2 => (1usize..6).prop_map(Step::BuildIndexes),
        1 => Just(Step::Renew),
        1 => Just(Step::Move),
    ]
}

fn not_two() -> Expr {
    Expr::Binary {
        op: BinaryOp::IsDistinctFrom,
        left: Box::new(Expr::Column(2)),
        right: Box::new(Expr::Literal(Value::BigInt(2))),
    }
}

fn indexes() -> [Index; 2] {
    let index = |id, places: &[usize], predicate| Index {
        name: format!("t_{id}"),
        shape: IndexShape {
            missing: missing(),
            id,
            columns: places
                .iter()
                .map(|&place| IndexColumn {
                    place,
                    descending: false,
                })
                .collect(),
            predicate,
        },
        unique: false,
        constraint: false,
        view: None,
        state: IndexState::Ready,
        source: String::new(),
    };
    [index(1, &[1, 2], Some(not_two())), index(2, &[2], None)]
}

/// What a row has in its last column that lacks it: those that have it are written without.
const MISSING: i32 = 1;

fn missing() -> Vec<Value> {
    let last = Value::Numeric(Decimal::new(i64::from(MISSING), 2));
    vec![Value::Null, Value::Null, Value::Null, last]
}

fn views() -> [(TableId, ViewShape); 2] {
    let extreme = |greatest, index| ViewAggregate::Extreme {
        column: 2,
        data_type: DataType::BigInt,
        greatest,
        index,
    };
    let sum = |column, scale| ViewAggregate::Sum {
        argument: Expr::Column(column),
        scale,
    };
    let aggregates = |index| {
        vec![
            ViewAggregate::Count(Expr::Column(2)),
            sum(2, 0),
            extreme(false, index),
            sum(3, 2),
            extreme(true, index),
        ]
    };
    let grouped = ViewShape {
        missing: missing(),
        source: TABLE,
        filter: Some(not_two()),
        groups: vec![Expr::Column(1)],
        aggregates: aggregates(1),
    };
    let whole = ViewShape {
        missing: missing(),
        source: TABLE,
        filter: None,
        groups: vec![Expr::Literal(Value::Boolean(true))],
        aggregates: aggregates(2),
    };
    [(GROUPED, grouped), (WHOLE, whole)]
}

fn set(partition: &mut Partition, views: &[(TableId, ViewShape)]) {
    partition.set_views(views.iter().map(|(table, shape)| (*table, shape)));
}

fn effects(changes: &[Change]) -> Effects {
    let mut effects = EffectsBuilder::default();
    for (key, row) in changes {
        let id = ValueRef::Int(i32::from(*key));
        let key = encode_key([id]);
        match row {
            Some((a, b, c)) => {
                let a = a.map_or(ValueRef::Null, ValueRef::Int);
                let b = b.map_or(ValueRef::Null, ValueRef::BigInt);
                let columns = if *c == MISSING { 3 } else { 4 };
                let c = ValueRef::Numeric(Decimal::new(i64::from(*c), 2));
                effects.put(TABLE, &key, &encode_row(&[id, a, b, c][..columns]));
            }
            None => effects.remove(TABLE, &key),
        }
    }
    effects.finish()
}

fn rows(partition: &Partition, table: TableId, at: Lsn, writes: &Writes) -> Result<Vec<Vec<Value>>, StatementError> {
    let missing = missing();
    let of_source = (table == TABLE).then_some(Projection {
        columns: &[0, 1, 2, 3],
        missing: &missing,
        version_base: 0,
    });
    let chunk = partition.scan_at(table, at, writes, None, usize::MAX, None, &[], &CONTEXT, of_source)?;
    Ok(chunk.rows.iter().map(|row| RowRef::new(row).to_values()).collect())
}

/// The view's rows, from all rows of the source.
fn expected(partition: &Partition, view: TableId, at: Lsn, writes: &Writes) -> Vec<Vec<Value>> {
    let mut groups: BTreeMap<Vec<u8>, (Value, Vec<Vec<Value>>)> = BTreeMap::new();
    for row in rows(partition, TABLE, at, writes).unwrap() {
        let (group, counts) = match view {
            GROUPED => (row[1].clone(), row[2] != Value::BigInt(2)),
            _ => (Value::Boolean(true), true),
        };
        if counts {
            let key = encode_key([group.as_ref()]);
            groups.entry(key).or_insert((group, Vec::new())).1.push(row);
        }
    }
    let row = |(group, rows): (Value, Vec<Vec<Value>>)| {
        let number = |row: &Vec<Value>| match &row[2] {
            Value::BigInt(number) => Some(*number),
            _ => None,
        };
        let cents = |row: &Vec<Value>| match &row[3] {
            Value::Numeric(number) => *number,
            other => panic!("{other:?}"),
        };
        let numbers: Vec<i64> = rows.iter().filter_map(number).collect();
        let count = Value::BigInt(i64::try_from(numbers.len()).unwrap());
        let extreme = |number: Option<&i64>| number.map_or(Value::Null, |number| Value::BigInt(*number));
        let total = Value::BigInt(i64::try_from(rows.len()).unwrap());
        vec![
            group,
            total.clone(),
            count.clone(),
            Value::Numeric(Decimal::from(numbers.iter().sum::<i64>())),
            count,
            extreme(numbers.iter().min()),
            Value::Numeric(rows.iter().map(cents).sum()),
            total,
            extreme(numbers.iter().max()),
        ]
    };
    groups.into_values().map(row).collect()
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
            Step::Write(changes) => self.write(effects(changes)),
            Step::Clear => {
                let mut effects = EffectsBuilder::default();
                effects.clear(TABLE);
                self.write(effects.finish());
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
                partition.build_views(*rows);
            }
            Step::BuildIndexes(rows) => {
                partition.build_indexes(*rows);
            }
            Step::Renew => {
                let views = views();
                set(partition, &views[..1]);
                set(partition, &views);
            }
            Step::Move => self.move_through_a_dump(),
        }
    }

    fn write(&mut self, effects: Effects) {
        let next = self.partition.applied + 1;
        self.partition.apply_record(next, &LogPayload::Write(effects)).unwrap();
    }

    fn move_through_a_dump(&mut self) {
        let (chunk, next) = self.partition.dump_chunk(self.partition.applied, None, usize::MAX);
        assert!(next.is_none());
        let mut moved = Partition::new();
        moved.load_chunk(&chunk).unwrap();
        let applied = self.partition.applied;
        assert_eq!(moved.checksum_at(applied), self.partition.checksum_at(applied));
        moved.set_indexes(TABLE, &indexes());
        set(&mut moved, &views());
        self.partition = moved;
        self.pins.clear();
    }

    /// Returns how many answers there were.
    fn check(&self, writes: &Writes) -> usize {
        let partition = &self.partition;
        let mut answers = 0;
        let newest = [partition.committed, partition.applied];
        for at in self.pins.iter().copied().chain(newest) {
            for view in [GROUPED, WHOLE] {
                let Ok(found) = rows(partition, view, at, writes) else {
                    continue;
                };
                answers += 1;
                assert_eq!(found, expected(partition, view, at, writes), "view {view} at {at}");
            }
        }
        answers
    }

    fn build(&mut self) {
        while !self.partition.build_views(3) {}
    }
}

fn read(access: Access) -> Program {
    let column = |name: &str| Column {
        name: name.to_owned(),
        data_type: DataType::Int,
        nullable: true,
        default: None,
        is_dropped: false,
        missing: Value::Null,
    };
    Program {
        table: GROUPED,
        table_name: "v".to_owned(),
        columns: ["a", "rows", "count", "sum", "count2", "min", "sum2", "count3", "max"]
            .map(column)
            .to_vec(),
        primary_key: vec![0],
        checks: Vec::new(),
        returning: None,
        repeats: false,
        on_conflict: None,
        missing: Vec::new(),
        action: Action::Select {
            access,
            filter: None,
            stages: Vec::new(),
            project: (0..9).map(Expr::Column).collect(),
            limit: None,
            offset: 0,
        },
    }
}

fn attempt(partition: &Partition, at: Lsn, writes: &Writes, program: &Program) -> (Reads, Option<Vec<Vec<Value>>>) {
    let mut found = Vec::new();
    let mut take = |row: &[ValueRef<'_>]| found.push(row.iter().map(|value| value.to_value()).collect());
    let attempt = partition.attempt(at, writes, program, &[], &CONTEXT, &mut take);
    (attempt.reads, attempt.result.is_ok().then_some(found))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 768, ..ProptestConfig::default() })]

    #[test]
    fn a_view_has_what_its_query_finds(
        before in prop::collection::vec(step(), 0..8), steps in prop::collection::vec(step(), 1..24), own in changes(),
    ) {
        let mut harness = Harness { partition: Partition::new(), pins: Vec::new() };
        before.iter().for_each(|step| harness.take(step));
        harness.partition.set_indexes(TABLE, &indexes());
        set(&mut harness.partition, &views());
        let own = Writes::of(&effects(&own)).unwrap();
        for step in &steps {
            harness.take(step);
            harness.check(&Writes::default());
            harness.check(&own);
        }
        harness.build();
        harness.partition.commit_to(harness.partition.applied);
        prop_assert!(harness.check(&own) >= 4);
        // Everything goes, and so do the views' rows.
        let all: Vec<Change> = (0..12).map(|key| (key, None)).collect();
        harness.take(&Step::Write(all));
        harness.partition.commit_to(harness.partition.applied);
        for pin in std::mem::take(&mut harness.pins) {
            harness.partition.unpin(pin);
        }
        prop_assert_eq!(harness.partition.stats(), crate::partition::Stats::default());
    }

    #[test]
    fn what_a_transaction_read_of_a_view_stands_only_if_it_is_still_so(
        before in changes(), own in changes(), later in prop::collection::vec(changes(), 0..3),
        point in prop::option::of(0i32..3),
    ) {
        let mut harness = Harness { partition: Partition::new(), pins: Vec::new() };
        harness.partition.set_indexes(TABLE, &indexes());
        set(&mut harness.partition, &views());
        harness.build();
        harness.take(&Step::Write(before));
        harness.partition.commit_to(harness.partition.applied);
        harness.take(&Step::Pin(true));
        let snapshot = harness.partition.applied;
        let own = Writes::of(&effects(&own)).unwrap();
        let program = read(match point {
            Some(a) => Access::Point(vec![Expr::Literal(Value::Int(a))]),
            None => Access::Scan,
        });
        let (reads, first) = attempt(&harness.partition, snapshot, &own, &program);
        let mut seen = expected(&harness.partition, GROUPED, snapshot, &own);
        if let Some(a) = point {
            seen.retain(|row| row[0] == Value::Int(a));
        }
        prop_assert_eq!(first.as_ref(), Some(&seen));
        prop_assert!(harness.partition.stands(&reads, snapshot));
        for changes in later {
            harness.take(&Step::Write(changes));
        }
        let (_, second) = attempt(&harness.partition, harness.partition.applied, &own, &program);
        if harness.partition.stands(&reads, snapshot) {
            // The own writes' rows are as they were: their keys were read, if they were read at all.
            let unchanged = |partition: &Partition| {
                own.table(TABLE).is_none_or(|rows| rows.keys().all(|key| {
                    let version = partition.tables.get(&TABLE).and_then(|rows| rows.get(key));
                    version.is_none_or(|version| version.lsn() <= snapshot)
                }))
            };
            if unchanged(&harness.partition) {
                prop_assert_eq!(first, second);
            }
        }
    }
}

#[test]
fn a_view_is_read_once_it_is_complete_and_at_no_older_snapshot() {
    let mut harness = Harness {
        partition: Partition::new(),
        pins: Vec::new(),
    };
    let row = Some((Some(1), Some(1), 1));
    harness.take(&Step::Write((0..4).map(|key| (key, row)).collect()));
    harness.partition.commit_to(1);
    harness.take(&Step::Pin(true));
    harness.take(&Step::Write(vec![(4, row)]));
    set(&mut harness.partition, &views());
    let none = Writes::default();
    assert!(!harness.partition.build_views(4));
    assert_eq!(
        rows(&harness.partition, GROUPED, 2, &none),
        Err(StatementError::ViewNotBuilt)
    );
    assert!(!harness.partition.has_built_view(GROUPED));
    assert!(harness.partition.build_views(4));
    assert!(harness.partition.has_built_view(GROUPED));
    assert_eq!(
        rows(&harness.partition, GROUPED, 1, &none),
        Err(StatementError::ViewTooYoung)
    );
    assert_eq!(rows(&harness.partition, GROUPED, 2, &none).unwrap().len(), 1);
    let nobody = read(Access::Point(vec![Expr::Literal(Value::Int(9))]));
    let (reads, _) = attempt(&harness.partition, 2, &none, &nobody);
    assert!(harness.partition.stands(&reads, 2));
    // It was complete when the second record was there, and is not without it.
    harness.partition.undo_after(1);
    assert!(!harness.partition.has_built_view(GROUPED));
    assert!(!harness.partition.stands(&reads, 2), "nothing is known of it");
    harness.build();
    assert_eq!(
        rows(&harness.partition, GROUPED, 1, &none).unwrap()[0][1],
        Value::BigInt(4)
    );
}

#[test]
fn a_change_of_what_a_view_does_not_look_at_writes_nothing() {
    let mut harness = Harness {
        partition: Partition::new(),
        pins: Vec::new(),
    };
    let grouped = &views()[..1];
    set(&mut harness.partition, grouped);
    harness.build();
    harness.take(&Step::Write(vec![(1, Some((Some(1), Some(2), 1)))]));
    assert!(
        rows(&harness.partition, GROUPED, 1, &Writes::default())
            .unwrap()
            .is_empty()
    );
    harness.take(&Step::Write(vec![(1, Some((Some(2), Some(2), 2)))]));
    let versions = harness.partition.tables.get(&GROUPED);
    assert!(versions.is_none_or(|rows| rows.stats().versions == 0));
}
