//! Copies of partitions, by chunks and by ranges that another partition still has.

use super::super::{DumpCursor, Partition, with_versions, without_versions};
use crate::Lsn;
use crate::effects::{EffectsBuilder, LogPayload};
use crate::row::encode_row;
use crate::value::ValueRef;

/// By a dump in chunks of this size.
pub(in crate::partition) fn copy(partition: &Partition, snapshot: Lsn, max_bytes: usize) -> Partition {
    let (mut copied, mut after) = (Partition::new(), None);
    loop {
        let (chunk, next) = partition.dump_chunk(snapshot, after, max_bytes);
        copied.load_chunk(&chunk).unwrap();
        // Again, as a sender does that did not hear the answer.
        copied.load_chunk(&chunk).unwrap();
        match next {
            Some(next) => after = Some(next),
            None => return copied,
        }
    }
}

/// The newest state, over what `base` still has of it; and how many ranges that were.
pub(in crate::partition) fn copy_over(partition: &Partition, base: &Partition, max_bytes: usize) -> (Partition, usize) {
    let snapshot = partition.applied();
    let (mut copied, mut after, mut reused) = (Partition::new(), None::<DumpCursor>, 0);
    loop {
        let (chunk, next) = partition.dump_chunk(snapshot, after.clone(), max_bytes);
        let range = after.filter(DumpCursor::is_among_rows);
        let held = range.and_then(|after| base.dump_range(snapshot, &after, next.as_ref(), chunk.len()));
        reused += usize::from(held.as_ref() == Some(&chunk));
        copied
            .load_chunk(&held.filter(|held| *held == chunk).unwrap_or(chunk))
            .unwrap();
        let Some(next) = next else { return (copied, reused) };
        let cursor = DumpCursor::decode(&next.encode()).unwrap();
        assert_eq!(cursor, next);
        after = Some(cursor);
    }
}

#[test]
fn a_range_that_did_not_change_is_the_chunk_that_it_was() {
    let put = |keys: std::ops::Range<u8>| {
        let mut effects = EffectsBuilder::default();
        keys.for_each(|key| effects.put(1, &[key], &encode_row(&[ValueRef::Int(7)])));
        LogPayload::Write(effects.finish())
    };
    let mut partition = Partition::new();
    partition.apply_record(1, &put(0..100)).unwrap();
    let base = copy(&partition, 1, 50);
    let (copied, all) = copy_over(&partition, &base, 50);
    assert!(all > 10 && copied.stats().rows == 100, "all but the first: {all}");
    partition.apply_record(2, &put(50..51)).unwrap();
    assert_eq!(copy_over(&partition, &base, 50).1, all - 1);
    // What the base has too much, is seen too, at the end and within.
    let mut base = copy(&partition, 2, 50);
    base.apply_record(3, &put(200..201)).unwrap();
    assert_eq!(copy_over(&partition, &base, 50).1, all - 1);
    // A range with more rows than there should be is not read to its end.
    let after = DumpCursor::decode(&[2, 1, 0, 0, 0, 1, 0]).unwrap();
    assert!(base.dump_range(3, &after, None, 60).is_none());
    assert!(DumpCursor::decode(&[2, 1, 0, 0, 0, 1, 0, 9]).is_err());
}

/// What another database has of a partition's rows: their keys and values, but for those that `but` is true of.
fn unversioned(partition: &Partition, but: impl Fn(&[u8]) -> bool) -> Partition {
    let mut base = Partition::new();
    for (&table, rows) in &partition.tables {
        for (key, version) in rows.after(None) {
            let (_, row) = version.at(partition.applied()).unwrap();
            if !but(key.as_bytes()) {
                base.take_unversioned(table, key.as_bytes(), row);
            }
        }
    }
    base
}

#[test]
fn rows_without_lsns_are_the_chunk_when_these_come() {
    let mut partition = Partition::new();
    for key in 0..100_u8 {
        let mut effects = EffectsBuilder::default();
        effects.put(1, &[key], &encode_row(&[ValueRef::Int(i32::from(key))]));
        let (lsn, payload) = (Lsn::from(key) + 1, LogPayload::Write(effects.finish()));
        partition.apply_record(lsn, &payload).unwrap();
    }
    partition.commit_to(100);
    let base = unversioned(&partition, |key| key == [50]);
    let (mut copied, mut after, mut same) = (Partition::new(), None::<DumpCursor>, 0);
    loop {
        let (chunk, next) = partition.dump_chunk(100, after.clone(), 50);
        let (rows, versions) = without_versions(&chunk).unwrap();
        let range = after.filter(DumpCursor::is_among_rows);
        let held = range.and_then(|after| base.dump_range(100, &after, next.as_ref(), chunk.len()));
        let held = held.filter(|held| *held == rows);
        same += usize::from(held.is_some());
        let told = held.map_or(chunk.clone(), |held| with_versions(&held, &versions).unwrap());
        assert_eq!(told, chunk);
        copied.load_chunk(&told).unwrap();
        after = match next {
            Some(next) => Some(next),
            None => break,
        };
    }
    assert_eq!(copied.checksum_at(100), partition.checksum_at(100));
    assert!(same > 10, "{same}");
    let (rows, versions) = without_versions(&partition.dump_chunk(100, None, 50).0).unwrap();
    assert!(with_versions(&rows, &versions[8..]).is_err(), "one is missing");
    assert!(without_versions(&rows[..rows.len() - 1]).is_err(), "cut short");
}
