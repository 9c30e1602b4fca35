//! Expiry against a map from keys to times: whatever was written, committed, cut and pinned, and while the index is built.
//! A view counts the rows, and shows that what expires is gone from it too.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::catalog::{Index, IndexColumn, IndexShape, IndexState, ViewShape};
use crate::effects::{Effects, LogPayload};
use crate::key::encode_key;
use crate::plan::{Expr, StatementContext};
use crate::row::{RowRef, encode_row};
use crate::transaction::Writes;
use crate::value::{Value, ValueRef};
use crate::{IndexId, Lsn};

const TABLE: TableId = 1;
/// The number of its rows.
const COUNTED: TableId = 2;
const INDEX: IndexId = 7;
const SECOND: i64 = 1_000_000;
const LIFETIME: i64 = 10 * SECOND;

type Rows = BTreeMap<u8, Option<i64>>;

#[derive(Clone, Debug)]
enum Step {
    /// Keys with their times, in seconds; None: the row goes.
    Write(Vec<(u8, Option<Option<i64>>)>),
    /// At this second; so many at a time.
    Expire(i64, u32),
    CommitTo(u64),
    Cut(u64),
    Pin,
    Unpin,
    Build(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let time = prop::option::weighted(0.85, -3i64..20);
    let changes = prop::collection::vec((0u8..16, prop::option::weighted(0.85, time)), 1..8);
    prop_oneof![
        6 => changes.prop_map(Step::Write),
        4 => (5i64..32, 1u32..5).prop_map(|(now, batch)| Step::Expire(now, batch)),
        2 => (1u64..9).prop_map(Step::CommitTo),
        2 => (0u64..8).prop_map(Step::Cut),
        1 => Just(Step::Pin),
        1 => Just(Step::Unpin),
        3 => (1usize..12).prop_map(Step::Build),
    ]
}

fn index() -> Index {
    let columns = vec![IndexColumn {
        place: 1,
        descending: false,
    }];
    Index {
        name: "t_ttl_idx".to_owned(),
        shape: IndexShape {
            missing: Vec::new(),
            id: INDEX,
            columns,
            predicate: None,
        },
        unique: false,
        constraint: false,
        view: None,
        state: IndexState::Ready,
        source: String::new(),
    }
}

fn ttl(batch_size: u32) -> Ttl {
    Ttl {
        column: 1,
        lifetime_micros: LIFETIME,
        batch_size,
        max_frequency: 1,
        index: INDEX,
    }
}

struct Harness {
    partition: Partition,
    data_type: DataType,
    /// The rows after each record.
    states: Vec<Rows>,
    pins: Vec<Lsn>,
}

impl Harness {
    fn new(data_type: DataType) -> Self {
        let mut partition = Partition::new();
        let counted = ViewShape {
            missing: Vec::new(),
            source: TABLE,
            filter: None,
            groups: vec![Expr::Literal(Value::Boolean(true))],
            aggregates: Vec::new(),
        };
        partition.set_views([(COUNTED, &counted)]);
        while !partition.build_views(1) {}
        Self {
            partition,
            data_type,
            states: vec![Rows::new()],
            pins: Vec::new(),
        }
    }

    fn rows(&self) -> &Rows {
        self.states.last().unwrap()
    }

    fn apply(&mut self, effects: Effects, rows: Rows) {
        let next = self.partition.applied + 1;
        self.partition.apply_record(next, &LogPayload::Write(effects)).unwrap();
        self.states.push(rows);
    }

    fn write(&mut self, changes: &[(u8, Option<Option<i64>>)]) {
        let mut effects = EffectsBuilder::default();
        let mut rows = self.rows().clone();
        for &(id, row) in changes {
            let key = encode_key([ValueRef::Int(i32::from(id))]);
            let Some(time) = row else {
                rows.remove(&id);
                effects.remove(TABLE, &key);
                continue;
            };
            rows.insert(id, time);
            let time = time.map_or(ValueRef::Null, |time| match self.data_type {
                DataType::Timestamp => ValueRef::Timestamp(time * SECOND),
                DataType::Int => ValueRef::Int(i32::try_from(time).unwrap()),
                _ => ValueRef::BigInt(time),
            });
            effects.put(TABLE, &key, &encode_row(&[ValueRef::Int(i32::from(id)), time]));
        }
        self.apply(effects.finish(), rows);
    }

    /// All that has expired goes, in batches.
    fn expire(&mut self, now: i64, batch: u32) {
        let is_expired = |time: &Option<i64>| time.is_some_and(|time| time * SECOND < now * SECOND - LIFETIME);
        let is_built = self.partition.has_built(TABLE, INDEX);
        let mut after = None;
        loop {
            let of = (TABLE, &ttl(batch), self.data_type);
            let expired = self.partition.expire(of, now * SECOND, after.as_ref());
            assert!(expired.outcome.affected <= u64::from(batch));
            let mut rows = self.rows().clone();
            let removed = expired.outcome.effects.clone().unwrap_or_default();
            for effect in removed.iter() {
                let gone = rows.extract_if(.., |id, time| {
                    effect.as_ref().unwrap().key == Some(&encode_key([ValueRef::Int(i32::from(*id))])[..])
                        && is_expired(time)
                });
                assert_eq!(gone.count(), 1, "it was there and had expired");
            }
            assert_eq!(self.rows().len() - rows.len(), expired.outcome.affected as usize);
            assert_eq!(expired.outcome.effects.is_some(), expired.outcome.affected > 0);
            if let Some(effects) = expired.outcome.effects {
                self.apply(effects, rows);
            }
            if expired.reached.is_none() {
                break;
            }
            after = expired.reached;
        }
        let left = self.rows().values().filter(|time| is_expired(time)).count();
        assert!(left == 0 || !is_built, "{left} rows are left");
    }

    fn take(&mut self, step: &Step) {
        let open = self.partition.applied - self.partition.committed;
        match step {
            Step::Write(changes) => self.write(changes),
            Step::Expire(now, batch) => self.expire(*now, *batch),
            Step::CommitTo(share) => {
                let to = self.partition.committed + open * share / 8;
                self.partition.commit_to(to);
            }
            Step::Cut(share) => {
                let to = self.partition.committed + open * share / 8;
                self.partition.undo_after(to);
                self.states.truncate(to as usize + 1);
                for pin in self.pins.extract_if(.., |pin| *pin > to) {
                    self.partition.unpin(pin);
                }
                while !self.partition.build_views(1) {}
            }
            Step::Pin => {
                assert!(self.partition.pin(self.partition.applied));
                self.pins.push(self.partition.applied);
            }
            Step::Unpin => {
                if let Some(pin) = self.pins.pop() {
                    self.partition.unpin(pin);
                }
            }
            Step::Build(rows) => {
                if !self.partition.has_indexes(TABLE, &[index()]) {
                    self.partition.set_indexes(TABLE, &[index()]);
                }
                self.partition.build_indexes(*rows);
            }
        }
    }

    fn scan(&self, table: TableId, at: Lsn) -> Vec<Vec<Value>> {
        let context = StatementContext { now_micros: 0 };
        let chunk = self.partition.scan_at(
            table,
            at,
            &Writes::default(),
            None,
            usize::MAX,
            None,
            &[],
            &context,
            None,
        );
        let rows = chunk.unwrap().rows;
        rows.iter().map(|row| RowRef::new(row).to_values()).collect()
    }

    /// The newest state, and what snapshots see, is the map's.
    fn check(&self) {
        for at in self.pins.iter().copied().chain([self.partition.applied]) {
            let expected = &self.states[at as usize];
            let found = self.scan(TABLE, at);
            let ids: Vec<Value> = expected.keys().map(|id| Value::Int(i32::from(*id))).collect();
            assert!(found.iter().map(|row| &row[0]).eq(&ids), "{found:?} at {at}");
        }
        let count = match self.rows().len() {
            0 => Vec::new(),
            rows => vec![vec![Value::Boolean(true), Value::BigInt(rows as i64)]],
        };
        assert_eq!(self.scan(COUNTED, self.partition.applied), count);
    }
}

proptest! {
    #[test]
    fn exactly_what_has_expired_goes_in_batches(
        data_type in prop_oneof![Just(DataType::Timestamp), Just(DataType::Int), Just(DataType::BigInt)],
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let mut harness = Harness::new(data_type);
        for step in &steps {
            harness.take(step);
            harness.check();
        }
        while !harness.partition.has_built(TABLE, INDEX) {
            harness.take(&Step::Build(64));
            if harness.rows().is_empty() {
                break;
            }
        }
        harness.expire(40, 3);
        harness.check();
        prop_assert!(harness.rows().values().all(Option::is_none), "only NULL never expires");
    }
}

#[test]
fn a_row_is_as_old_as_its_microsecond_or_second_says() {
    for (data_type, time) in [
        (DataType::Timestamp, ValueRef::Timestamp(5 * SECOND)),
        (DataType::BigInt, ValueRef::BigInt(5)),
    ] {
        let mut partition = Partition::new();
        partition.set_indexes(TABLE, &[index()]);
        let mut effects = EffectsBuilder::default();
        let key = encode_key([ValueRef::Int(1)]);
        effects.put(TABLE, &key, &encode_row(&[ValueRef::Int(1), time]));
        partition.apply_record(1, &LogPayload::Write(effects.finish())).unwrap();
        let at = |now| {
            partition
                .expire((TABLE, &ttl(9), data_type), now, None)
                .outcome
                .affected
        };
        assert_eq!((at(15 * SECOND), at(15 * SECOND + 1)), (0, 1));
        assert_eq!((at(i64::MIN), at(i64::MAX)), (0, 1));
    }
}

#[test]
fn a_table_without_its_index_keeps_its_rows() {
    let mut harness = Harness::new(DataType::Text);
    harness.take(&Step::Write(vec![(1, Some(Some(0)))]));
    harness.expire(100, 1);
    assert_eq!(harness.rows().len(), 1);
    harness.take(&Step::Build(9));
    let of = (TABLE, &ttl(1), DataType::Text);
    let expired = harness.partition.expire(of, i64::MAX, None);
    assert_eq!(expired, Expired::default(), "a text says no time");
}
