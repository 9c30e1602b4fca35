//! What a partition of a standby lacks, of an archive in a directory that is simulated.

use std::sync::Arc;

use volt_engine::catalog::Table;
use volt_engine::effects::{Effect, EffectsBuilder};

use super::super::super::layout::{ArchivedRecord, Kind, Segment};
use super::super::super::tests::{archive, put_log};
use super::*;

fn map() -> ClusterMap {
    let mut map = ClusterMap::default();
    let table = Table {
        id: 1,
        name: "t".to_owned(),
        columns: Vec::new(),
        primary_key: Vec::new(),
        partition_column: None,
        group: 1,
        indexes: Vec::new(),
        checks: Vec::new(),
        ttl: None,
        view: None,
        tracking: None,
        version_base: 0,
    };
    map.tables.insert(1, Arc::new(table));
    map
}

fn at(lsn: Lsn, epoch: Epoch) -> Option<Position> {
    Some(Position {
        at_micros: 1,
        lsn,
        epoch,
        ..Position::default()
    })
}

async fn read(store: &Store, from: Option<Position>, to: (Lsn, Epoch)) -> Result<Staged, ArchiveError> {
    stage(store, (1, from), (None, to), &map()).await
}

/// Rows that it brings; None: it is whole.
fn brought(staged: &Staged) -> Option<Vec<Lsn>> {
    let Staged::Parts(parts) = staged else { return None };
    let key = |effect: Effect<'_>| Some(Lsn::from_be_bytes(effect.key?.try_into().ok()?));
    let all = parts.iter().flat_map(Effects::iter);
    Some(all.filter_map(|effect| key(effect.ok()?)).collect())
}

#[tokio::test]
async fn records_behind_where_it_is_and_no_others() {
    let (_, store) = archive().await;
    for (from, to, expected) in [
        (None, 3, vec![1, 2, 3]),
        (at(3, 1), 8, (4..=8).collect()),
        (at(6, 1), 12, (7..=12).collect()),
        (at(12, 1), 12, vec![]),
    ] {
        let staged = read(&store, from, (to, 1)).await.expect("it is all there");
        assert_eq!(brought(&staged), Some(expected), "{from:?} to {to}");
        assert!(!staged.is_large());
    }
    let beyond = read(&store, at(3, 1), (15, 1)).await;
    assert!(matches!(beyond, Err(ArchiveError::Missing(_))));
}

#[tokio::test]
async fn who_was_half_way_or_lacks_records_that_are_gone_gets_all() {
    let (_, store) = archive().await;
    let half_way = at(3, 1).map(|position| Position {
        toward_micros: Some(9),
        ..position
    });
    let all = read(&store, half_way, (8, 1)).await.expect("it is all there");
    assert!(all.is_large());
    let Staged::Whole(state) = all else {
        panic!("nobody knows how much it has");
    };
    assert_eq!((state.applied(), state.stats().rows), (8, 8));
    let first = Segment {
        first: 1,
        last: 4,
        previous_epoch: 0,
        first_epoch: 1,
        last_epoch: 1,
    };
    store.remove(&first.path(1)).await.expect("it can be removed");
    let all = read(&store, at(2, 1), (8, 1)).await.expect("there is a base");
    assert_eq!(brought(&all), None);
    let some = read(&store, at(4, 1), (8, 1)).await.expect("it has the others");
    assert_eq!(brought(&some), Some((5..=8).collect()));
}

#[tokio::test]
async fn what_only_a_deposed_primary_had_is_no_way_to_what_came_instead() {
    let (_, store) = archive().await;
    // The next primary had 10 of the 12 records of the first.
    put_log(&store, 1, 11..=14, 2).await;
    let some = read(&store, at(10, 1), (14, 2)).await.expect("it is all there");
    assert_eq!(brought(&some), Some((11..=14).collect()));
    let all = read(&store, at(12, 1), (14, 2)).await.expect("there is a base");
    assert_eq!(brought(&all), None);
}

#[tokio::test]
async fn transactions_over_several_partitions_count_when_they_are_committed() {
    let (_, store) = archive().await;
    let transaction = |sequence| TransactionId {
        began_micros: 1,
        node: 1,
        boot: 1,
        sequence,
    };
    let effects = |table: TableId, key: Lsn| {
        let mut effects = EffectsBuilder::default();
        effects.put(table, &key.to_be_bytes(), &volt_engine::row::encode_row(&[]));
        effects.finish()
    };
    let prepared = |sequence, effects| LogPayload::Prepared {
        transaction: transaction(sequence),
        home: 1,
        effects,
    };
    let payloads = [
        prepared(1, effects(1, 100)),
        LogPayload::Commit(transaction(1)),
        prepared(2, effects(1, 200)),
        LogPayload::Abort(transaction(2)),
        // Nobody knows table 9 any more; and how far the archived cluster was once in another archive is nothing to this one.
        LogPayload::Write(effects(9, 300)),
        LogPayload::Write(effects(FOLLOWED, 400)),
        LogPayload::EpochStart,
        prepared(3, effects(1, 500)),
    ];
    let records = (13..).zip(&payloads).map(|(lsn, payload)| ArchivedRecord {
        lsn,
        epoch: 1,
        payload: payload.encode(),
    });
    let records: Vec<ArchivedRecord> = records.collect();
    let segment = Segment {
        first: 13,
        last: 20,
        previous_epoch: 1,
        first_epoch: 1,
        last_epoch: 1,
    };
    let put = store.put(&segment.path(1), Kind::Log, &records).await;
    put.expect("it can be written");
    let some = read(&store, at(12, 1), (19, 1)).await.expect("it is all there");
    assert_eq!(brought(&some), Some(vec![100]));
    let torn = read(&store, at(12, 1), (20, 1)).await;
    assert!(matches!(torn, Err(ArchiveError::Missing(why)) if why.contains("half-way")));
}

#[tokio::test]
async fn a_way_that_is_known_needs_no_list_and_one_that_is_gone_is_looked_for() {
    let (_, store) = archive().await;
    let contents = store.contents(1).await.expect("it is there");
    let known = way(&store, 1, &contents, at(3, 1), (8, 1)).await.expect("it is there");
    let known = known.expect("there is one");
    let bases: Vec<u64> = contents.bases.iter().map(|base| base.lsn).collect();
    assert!(
        known.iter().all(|(segment, _)| segment.last > 3),
        "{known:?} with bases {bases:?}"
    );
    let half = vec![known[0]];
    let stage = async |way: &Way, to| stage(&store, (1, at(3, 1)), (Some(way), to), &map()).await;
    let some = stage(&known, (8, 1)).await.expect("it is there");
    assert_eq!(brought(&some), Some((4..=8).collect()));
    // One that does not lead there is none.
    let some = stage(&half, (8, 1)).await.expect("it is there");
    assert_eq!(brought(&some), Some((4..=8).collect()));
    store.remove(&known[0].0.path(1)).await.expect("it can be removed");
    let all = stage(&known, (8, 1)).await.expect("there is a base");
    assert_eq!(brought(&all), None);
}
