//! What a partition has to tell of its records.

use std::collections::BTreeSet;

use bytes::Bytes;
use volt_engine::changes::ConflictRule;
use volt_engine::effects::{Effects, EffectsBuilder, LogPayload, TransactionId};
use volt_engine::partition::Partition;
use volt_engine::row::encode_row;
use volt_engine::{Lsn, TableId};

use super::outgoing::{self, Outgoing};
use crate::replication::Record;

const TABLE: TableId = 3;

const TRANSACTION: TransactionId = TransactionId {
    began_micros: 1,
    node: 1,
    boot: 1,
    sequence: 1,
};

fn effects(table: TableId, key: u8, bytes: usize) -> Effects {
    let mut partition = Partition::new();
    partition.set_tracked([(TABLE, ConflictRule::LastWriter), (TABLE + 1, ConflictRule::LastWriter)]);
    let mut effects = EffectsBuilder::default();
    let row = encode_row(&[volt_engine::value::ValueRef::Bytea(&vec![0; bytes])]);
    effects.put(table, &[key], &row);
    partition.track(effects.finish(), 5, 1).expect("it fits")
}

fn records(payloads: &[LogPayload]) -> Vec<Record> {
    let record = |(place, payload): (usize, &LogPayload)| Record {
        lsn: place as Lsn + 1,
        epoch: 1,
        payload: Bytes::clone(&payload.encode()),
    };
    payloads.iter().enumerate().map(record).collect()
}

/// The keys that are told, and up to where.
fn told(payloads: &[LogPayload], after: Lsn, committed: Lsn) -> Option<(Vec<u8>, Lsn)> {
    let records = records(payloads);
    let beyond = records.iter().filter(|record| record.lsn > after);
    let Outgoing { changes, to } = outgoing::next(&BTreeSet::from([TABLE]), (after, committed), beyond)?;
    Some((changes.iter().map(|change| change.key[0]).collect(), to))
}

fn write(table: TableId, key: u8) -> LogPayload {
    LogPayload::Write(effects(table, key, 1))
}

fn prepared(key: u8) -> LogPayload {
    LogPayload::Prepared {
        transaction: TRANSACTION,
        home: 1,
        effects: effects(TABLE, key, 1),
    }
}

#[test]
fn committed_changes_of_the_links_tables_are_told_in_order() {
    let payloads = [
        write(TABLE, 1),
        LogPayload::EpochStart,
        write(TABLE + 1, 2),
        write(TABLE, 3),
        write(TABLE, 4),
    ];
    assert_eq!(told(&payloads, 0, 4), Some((vec![1, 3], 4)));
    assert_eq!(told(&payloads, 1, 3), Some((vec![], 3)));
    assert_eq!(told(&payloads, 4, 5), Some((vec![4], 5)));
}

#[test]
fn a_prepared_transaction_is_told_when_it_is_decided() {
    let commit = [
        write(TABLE, 1),
        prepared(2),
        LogPayload::EpochStart,
        LogPayload::Commit(TRANSACTION),
        write(TABLE, 3),
    ];
    assert_eq!(told(&commit, 0, 3), Some((vec![1], 1)), "not before");
    assert_eq!(told(&commit, 1, 5), Some((vec![2, 3], 5)));
    let abort = [prepared(2), LogPayload::Abort(TRANSACTION), write(TABLE, 3)];
    assert_eq!(told(&abort, 0, 3), Some((vec![3], 3)));
    // Told up to the middle of it, by nobody of ours: its rows are looked for.
    assert_eq!(told(&commit, 2, 5), None);
}

#[test]
fn a_piece_is_bounded_and_no_record_is_split() {
    let large = |key| LogPayload::Write(effects(TABLE, key, 600 << 10));
    let payloads = [large(1), large(2), large(3)];
    assert_eq!(told(&payloads, 0, 3), Some((vec![1, 2], 2)));
    let many: Vec<LogPayload> = (0..1_100).map(|_| write(TABLE, 1)).collect();
    assert_eq!(told(&many, 0, 1_100).map(|(_, to)| to), Some(1_000));
}
