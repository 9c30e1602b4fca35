//! A partition against a model that keeps every state there ever was.
//!
//! Random transactions, decisions, commits, cuts and pins; after every step, what a snapshot may read, what the
//! partition says of its prepared transaction and decisions, and its statistics must be the model's. Then two replicas,
//! one by the same records and one by a dump, must be the same.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::dump::tests::{copy, copy_over};
use super::{Partition, Projection, VERSION_COLUMN};
use crate::effects::{Effects, EffectsBuilder, LogPayload, TransactionId};
use crate::plan::StatementContext;
use crate::row::{RowRef, encode_row};
use crate::transaction::Writes;
use crate::value::ValueRef;
use crate::{Lsn, TableId};

const CONTEXT: StatementContext = StatementContext { now_micros: 0 };
const TABLES: [TableId; 2] = [1, 2];

#[derive(Clone, Debug)]
enum Step {
    Write(Vec<Change>),
    Prepare(Vec<Change>),
    Decide(bool),
    /// An abort of a transaction that was never prepared here.
    AbortUnseen,
    EpochStart,
    /// Of what is applied but not committed, this share, in eighths.
    CommitTo(u64),
    /// Cut behind this share of what is applied but not committed.
    Cut(u64),
    /// The newest state (true), or the newest committed one.
    Pin(bool),
    /// Of the pins, this one.
    Unpin(usize),
}

/// (table, key, row or None to remove it); without a key, all of the table goes.
type Change = (TableId, Option<u8>, Option<i32>);

type Rows = BTreeMap<(TableId, Vec<u8>), (Lsn, i32)>;

/// One state of the partition, in full.
#[derive(Clone, Debug, Default, PartialEq)]
struct State {
    rows: Rows,
    prepared: Option<(TransactionId, Effects, Lsn)>,
    decisions: BTreeMap<TransactionId, bool>,
}

#[derive(Default)]
struct Model {
    /// `states[lsn]`; the last is the newest.
    states: Vec<State>,
    records: Vec<LogPayload>,
    committed: Lsn,
    pins: Vec<Lsn>,
    transactions: u64,
}

impl Model {
    fn applied(&self) -> Lsn {
        self.records.len() as Lsn
    }

    fn newest(&self) -> &State {
        self.states.last().expect("there is always the empty state")
    }

    fn next_transaction(&mut self) -> TransactionId {
        self.transactions += 1;
        TransactionId {
            began_micros: self.transactions as i64,
            node: 1,
            boot: 7,
            sequence: self.transactions,
        }
    }

    fn push(&mut self, payload: LogPayload) {
        let lsn = self.applied() + 1;
        let mut state = self.newest().clone();
        match &payload {
            LogPayload::Write(effects) => change_rows(&mut state.rows, effects, lsn),
            LogPayload::Prepared {
                transaction, effects, ..
            } => {
                state.prepared = Some((*transaction, effects.clone(), lsn));
            }
            LogPayload::Commit(transaction) => {
                let (_, effects, _) = state.prepared.take().expect("only what is prepared is committed");
                change_rows(&mut state.rows, &effects, lsn);
                state.decisions.insert(*transaction, true);
            }
            LogPayload::Abort(transaction) => {
                state.prepared.take_if(|(prepared, _, _)| prepared == transaction);
                state.decisions.insert(*transaction, false);
            }
            LogPayload::EpochStart => {}
        }
        self.states.push(state);
        self.records.push(payload);
    }
}

fn change_rows(rows: &mut Rows, effects: &Effects, lsn: Lsn) {
    for effect in effects.iter() {
        let effect = effect.unwrap();
        let Some(key) = effect.key else {
            rows.retain(|(table, _), _| *table != effect.table);
            continue;
        };
        let at = (effect.table, key.to_vec());
        match effect.row {
            Some(row) => rows.insert(at, (lsn, number(row))),
            None => rows.remove(&at),
        };
    }
}

fn number(row: &[u8]) -> i32 {
    match RowRef::parse(row).unwrap().get(0) {
        ValueRef::Int(number) => number,
        other => panic!("{other:?}"),
    }
}

fn effects(changes: &[Change]) -> Effects {
    let mut builder = EffectsBuilder::default();
    for (table, key, row) in changes {
        match (key, row) {
            (Some(key), Some(row)) => builder.put(*table, &[*key], &encode_row(&[ValueRef::Int(*row)])),
            (Some(key), None) => builder.remove(*table, &[*key]),
            (None, _) => builder.clear(*table),
        }
    }
    builder.finish()
}

fn change() -> impl Strategy<Value = Change> {
    (
        1u32..=2,
        prop::option::weighted(0.9, 0u8..5),
        prop::option::weighted(0.6, any::<i32>()),
    )
}

fn step() -> impl Strategy<Value = Step> {
    let changes = || prop::collection::vec(change(), 1..4);
    prop_oneof![
        8 => changes().prop_map(Step::Write),
        3 => changes().prop_map(Step::Prepare),
        4 => any::<bool>().prop_map(Step::Decide),
        1 => Just(Step::AbortUnseen),
        1 => Just(Step::EpochStart),
        4 => (0u64..=8).prop_map(Step::CommitTo),
        2 => (0u64..=8).prop_map(Step::Cut),
        2 => any::<bool>().prop_map(Step::Pin),
        2 => any::<usize>().prop_map(Step::Unpin),
    ]
}

/// The payload of a step that makes a record, if it may happen now.
fn record(model: &mut Model, step: &Step) -> Option<LogPayload> {
    let prepared = model.newest().prepared.as_ref().map(|(transaction, _, _)| *transaction);
    match step {
        Step::Write(changes) if prepared.is_none() => Some(LogPayload::Write(effects(changes))),
        Step::Prepare(changes) if prepared.is_none() => {
            let transaction = model.next_transaction();
            Some(LogPayload::Prepared {
                transaction,
                home: 9,
                effects: effects(changes),
            })
        }
        Step::Decide(true) => prepared.map(LogPayload::Commit),
        Step::Decide(false) => prepared.map(LogPayload::Abort),
        Step::AbortUnseen => Some(LogPayload::Abort(model.next_transaction())),
        Step::EpochStart => Some(LogPayload::EpochStart),
        _ => None,
    }
}

fn take(model: &mut Model, partition: &mut Partition, step: &Step) {
    if let Some(payload) = record(model, step) {
        partition.apply_record(model.applied() + 1, &payload).unwrap();
        return model.push(payload);
    }
    let between = |model: &Model, eighths: u64| model.committed + (model.applied() - model.committed) * eighths / 8;
    match step {
        Step::CommitTo(eighths) => {
            model.committed = between(model, *eighths);
            partition.commit_to(model.committed);
        }
        Step::Cut(eighths) => {
            let lsn = between(model, *eighths);
            model.states.truncate(lsn as usize + 1);
            model.records.truncate(lsn as usize);
            partition.undo_after(lsn);
        }
        Step::Pin(newest) => {
            let lsn = if *newest { model.applied() } else { model.committed };
            assert!(partition.pin(lsn));
            model.pins.push(lsn);
        }
        Step::Unpin(which) if !model.pins.is_empty() => {
            let lsn = model.pins.swap_remove(which % model.pins.len());
            partition.unpin(lsn);
        }
        _ => {}
    }
}

fn version(row: &[u8]) -> Lsn {
    match RowRef::parse(row).unwrap().get(1) {
        ValueRef::BigInt(lsn) => lsn as Lsn,
        other => panic!("{other:?}"),
    }
}

/// All rows at a snapshot, with their versions, through `scan_at` in small chunks.
fn scan(partition: &Partition, table: TableId, snapshot: Lsn) -> Vec<(i32, Lsn)> {
    let (mut rows, mut after) = (Vec::new(), None);
    loop {
        let chunk = partition
            .scan_at(
                table,
                snapshot,
                &Writes::default(),
                after.as_deref(),
                40,
                None,
                &[],
                &CONTEXT,
                Some(Projection {
                    columns: &[0, VERSION_COLUMN],
                    missing: &[],
                    version_base: 0,
                }),
            )
            .unwrap();
        rows.extend(chunk.rows.iter().map(|row| (number(row), version(row))));
        match chunk.next {
            Some(next) => after = Some(next),
            None => return rows,
        }
    }
}

fn check_snapshot(model: &Model, partition: &Partition, snapshot: Lsn) {
    let state = &model.states[snapshot as usize];
    for table in TABLES {
        let expected: Vec<(i32, Lsn)> = state
            .rows
            .iter()
            .filter(|((of, _), _)| *of == table)
            .map(|(_, (lsn, number))| (*number, *lsn))
            .collect();
        assert_eq!(
            scan(partition, table, snapshot),
            expected,
            "table {table} at {snapshot}"
        );
    }
}

/// The LSNs that may be read: from `committed` on, and the pinned ones that were not cut off.
fn readable(model: &Model) -> Vec<Lsn> {
    let pinned = model.pins.iter().copied().filter(|&pin| pin < model.committed);
    pinned.chain(model.committed..=model.applied()).collect()
}

fn check(model: &Model, partition: &Partition) {
    assert_eq!(partition.applied(), model.applied());
    for snapshot in readable(model) {
        check_snapshot(model, partition, snapshot);
    }
    check_settled(model.newest(), partition);
    let stats = partition.stats();
    assert_eq!(stats.rows, model.newest().rows.len() as u64);
    if model.pins.is_empty() && model.committed == model.applied() {
        assert_eq!(stats.versions, stats.rows, "nothing is kept for nobody");
        assert!(partition.kept.is_empty() && partition.touched.is_empty());
    }
    let uncommitted = (model.committed + 1..=model.applied()).rev();
    let is_commit = |lsn: &Lsn| matches!(model.records[*lsn as usize - 1], LogPayload::Commit(_));
    assert_eq!(partition.uncommitted_decision(), { uncommitted }.find(is_commit));
}

fn check_settled(state: &State, partition: &Partition) {
    let prepared = partition
        .prepared()
        .map(|prepared| (prepared.transaction, prepared.effects.clone(), prepared.lsn));
    assert_eq!(prepared, state.prepared);
    for sequence in 1..40 {
        let transaction = TransactionId {
            began_micros: sequence as i64,
            node: 1,
            boot: 7,
            sequence,
        };
        assert_eq!(
            partition.decision(transaction),
            state.decisions.get(&transaction).copied()
        );
    }
}

/// A learner filled from any readable snapshot, and a replica of the same records, are the same partition.
fn check_replicas(model: &Model, partition: &Partition, max_bytes: usize) {
    let mut replica = Partition::new();
    for (at, payload) in model.records.iter().enumerate() {
        let lsn = at as Lsn + 1;
        replica.apply_record(lsn, payload).unwrap();
        replica.commit_to(lsn);
    }
    assert_eq!(
        replica.checksum_at(replica.applied()),
        partition.checksum_at(partition.applied())
    );
    for snapshot in readable(model) {
        let mut learner = copy(partition, snapshot, max_bytes);
        let (copied, _) = copy_over(partition, &learner, max_bytes);
        assert_eq!(
            copied.checksum_at(copied.applied()),
            partition.checksum_at(partition.applied())
        );
        assert_eq!(
            learner.checksum_at(snapshot),
            partition.checksum_at(snapshot),
            "filled at {snapshot}"
        );
        check_settled(&model.states[snapshot as usize], &learner);
        for lsn in snapshot + 1..=model.applied() {
            learner.apply_record(lsn, &model.records[lsn as usize - 1]).unwrap();
        }
        check_snapshot(model, &learner, model.applied());
        check_settled(model.newest(), &learner);
        assert_eq!(
            learner.checksum_at(learner.applied()),
            partition.checksum_at(partition.applied())
        );
        assert_eq!(learner.stats().rows, partition.stats().rows);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn a_partition_is_its_model(steps in prop::collection::vec(step(), 1..40), max_bytes in 1usize..200) {
        let mut model = Model { states: vec![State::default()], ..Model::default() };
        let mut partition = Partition::new();
        for step in &steps {
            take(&mut model, &mut partition, step);
            check(&model, &partition);
        }
        check_replicas(&model, &partition, max_bytes);
        for pin in std::mem::take(&mut model.pins) {
            partition.unpin(pin);
        }
        model.committed = model.applied();
        partition.commit_to(model.committed);
        check(&model, &partition);
    }

    #[test]
    fn any_bytes_are_loaded_or_refused(chunk in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Partition::new().load_chunk(&chunk);
    }

    #[test]
    fn a_damaged_dump_is_loaded_or_refused(changes in prop::collection::vec(change(), 1..20), at: prop::sample::Index, byte: u8) {
        let mut partition = Partition::new();
        partition.apply_record(1, &LogPayload::Write(effects(&changes))).unwrap();
        let (chunk, _) = partition.dump_chunk(1, None, 10_000);
        let mut chunk = chunk.to_vec();
        let place = at.index(chunk.len());
        chunk[place] = byte;
        let _ = Partition::new().load_chunk(&chunk);
    }
}

fn transaction(sequence: u64) -> TransactionId {
    TransactionId {
        began_micros: 0,
        node: 1,
        boot: 7,
        sequence,
    }
}

#[test]
fn a_record_out_of_place_changes_nothing() {
    let mut partition = Partition::new();
    let put = effects(&[(1, Some(1), Some(1))]);
    let prepare = |sequence| LogPayload::Prepared {
        transaction: transaction(sequence),
        home: 1,
        effects: put.clone(),
    };
    assert!(partition.apply_record(1, &LogPayload::Commit(transaction(1))).is_err());
    partition.apply_record(1, &prepare(1)).unwrap();
    assert!(partition.apply_record(2, &prepare(2)).is_err());
    assert!(partition.apply_record(2, &LogPayload::Write(put.clone())).is_err());
    assert!(partition.apply_record(2, &LogPayload::Commit(transaction(2))).is_err());
    partition.apply_record(2, &LogPayload::Commit(transaction(1))).unwrap();
    assert!(partition.apply_record(3, &LogPayload::Abort(transaction(1))).is_err());
    assert!(partition.apply_record(3, &prepare(1)).is_err());
    assert!(
        partition
            .apply_record(3, &LogPayload::Write(Effects(bytes::Bytes::from_static(&[1, 2]))))
            .is_err()
    );
    assert_eq!(partition.applied(), 2);
    assert_eq!(partition.stats().rows, 1);
}

#[test]
#[should_panic(expected = "without gaps")]
fn a_gap_is_never_applied() {
    let _ = Partition::new().apply_record(2, &LogPayload::EpochStart);
}

#[test]
#[should_panic(expected = "stays")]
fn what_is_committed_is_never_undone() {
    let mut partition = Partition::new();
    partition.apply_record(1, &LogPayload::EpochStart).unwrap();
    partition.commit_to(1);
    partition.undo_after(0);
}

#[test]
fn a_snapshot_that_is_gone_is_not_pinned() {
    let mut partition = Partition::new();
    for lsn in 1..=3 {
        partition.apply_record(lsn, &LogPayload::EpochStart).unwrap();
    }
    assert!(partition.pin(1));
    partition.commit_to(3);
    assert!(!partition.pin(2));
    assert!(partition.pin(1), "it is kept already");
    assert!(partition.is_pinned(1) && !partition.is_pinned(2));
    partition.unpin(1);
    assert!(partition.is_pinned(1), "once is not twice");
    partition.unpin(1);
    assert!(!partition.pin(1) && !partition.is_pinned(1));
}

#[test]
fn a_table_that_is_gone_leaves_nothing() {
    let mut partition = Partition::new();
    partition
        .apply_record(
            1,
            &LogPayload::Write(effects(&[(1, Some(1), Some(1)), (2, Some(1), Some(1))])),
        )
        .unwrap();
    partition
        .apply_record(
            2,
            &LogPayload::Write(effects(&[(1, Some(1), Some(2)), (2, Some(1), None)])),
        )
        .unwrap();
    partition.retain_tables(|table| table == 1);
    partition.commit_to(2);
    assert_eq!((partition.stats().rows, partition.stats().versions), (1, 1));
}
