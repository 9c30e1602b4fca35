//! An archive in a directory that is simulated: what is found in it, and what of it may go.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;
use volt_engine::effects::{EffectsBuilder, LogPayload};
use volt_engine::partition::Partition;
use volt_engine::{Epoch, Lsn};

use super::cuts::Moments;
use super::layout::{ArchivedRecord, Base, BaseEnd, Cut, Kind, Segment, catalog, cuts_path};
use super::read::{find, load_newest};
use super::restore::begin;
use super::retain::tidy;
use super::store::{ArchiveError, Store};
use crate::metadata::map::ClusterMap;
use crate::replication::epochs::EpochHistory;
use crate::world::World;
use crate::world::simulated::{NoNetwork, SimulatedClock, SimulatedDisk, SimulatedRandom};

pub(super) const URL: &str = "file:///backups";
pub(super) const CLUSTER: Uuid = Uuid::from_u128(7);

pub(super) fn world() -> World {
    let clock = SimulatedClock::new(Duration::ZERO, 0);
    let random = SimulatedRandom::new(1);
    World::simulated(
        clock,
        Arc::new(NoNetwork),
        SimulatedDisk::new(random.clone(), false),
        random,
    )
}

fn record(lsn: Lsn, epoch: Epoch) -> ArchivedRecord {
    let mut effects = EffectsBuilder::default();
    let row = volt_engine::row::encode_row(&[]);
    effects.put(1, &lsn.to_be_bytes(), &row);
    let payload = LogPayload::Write(effects.finish()).encode();
    ArchivedRecord { lsn, epoch, payload }
}

/// These records, behind one of epoch 1, if they are not the first.
pub(super) async fn put_log(store: &Store, partition: u32, lsns: std::ops::RangeInclusive<Lsn>, epoch: Epoch) {
    let records: Vec<ArchivedRecord> = lsns.clone().map(|lsn| record(lsn, epoch)).collect();
    let segment = Segment {
        first: *lsns.start(),
        last: *lsns.end(),
        previous_epoch: u64::from(*lsns.start() > 1),
        first_epoch: epoch,
        last_epoch: epoch,
    };
    let put = store.put(&segment.path(partition), Kind::Log, &records).await;
    put.expect("it can be written");
}

pub(super) async fn put_base(store: &Store, partition: u32, lsn: Lsn) {
    let mut state = Partition::new();
    for lsn in 1..=lsn {
        let payload = LogPayload::decode(&record(lsn, 1).payload).expect("it is sound");
        state.apply_record(lsn, &payload).expect("it is sound");
    }
    let (chunk, more) = state.dump_chunk(lsn, None, usize::MAX);
    assert_eq!(more, None);
    let base = Base { lsn, epoch: 1 };
    let mut history = EpochHistory::default();
    history.note(1, 1);
    let end = BaseEnd { objects: 1, history };
    let chunks: Vec<Bytes> = vec![chunk];
    store
        .put(&base.chunks(partition, 0), Kind::BaseChunks, &chunks)
        .await
        .expect("it can be written");
    store
        .put(&base.whole(partition), Kind::BaseEnd, &end)
        .await
        .expect("it can be written");
}

async fn put_cut(store: &Store, at_micros: i64, partitions: &[(u32, Lsn)]) {
    let cut = Cut {
        at_micros,
        map_version: at_micros as u64,
        partitions: partitions
            .iter()
            .map(|&(partition, lsn)| (partition, (lsn, 1)))
            .collect(),
        sequences: BTreeMap::new(),
    };
    store
        .put(&cuts_path(at_micros, 1), Kind::Cuts, &vec![cut])
        .await
        .expect("it can be written");
    let map = ClusterMap {
        version: at_micros as u64,
        ..ClusterMap::default()
    };
    store
        .put(&catalog(at_micros as u64), Kind::Catalog, &map)
        .await
        .expect("it can be written");
}

pub(super) async fn archive() -> (World, Store) {
    let world = world();
    let store = Store::new(&world, URL, CLUSTER).expect("a directory");
    store.sign().await.expect("it can be written");
    put_log(&store, 1, 1..=4, 1).await;
    put_log(&store, 1, 5..=9, 1).await;
    put_base(&store, 1, 6).await;
    put_log(&store, 1, 10..=12, 1).await;
    put_log(&store, 2, 1..=3, 1).await;
    put_cut(&store, 100, &[(1, 3), (2, 1)]).await;
    put_cut(&store, 200, &[(1, 8), (2, 3)]).await;
    put_cut(&store, 300, &[(1, 12), (2, 3)]).await;
    // The records up to it were not archived any more.
    put_cut(&store, 400, &[(1, 15), (2, 3)]).await;
    (world, store)
}

async fn rows(store: &Store, lsn: Lsn) -> Result<u64, ArchiveError> {
    let epoch = u64::from(lsn > 0);
    let state = find(store, 1, (lsn, epoch)).await?.load(store).await?;
    assert_eq!(state.applied(), lsn);
    Ok(state.stats().rows)
}

#[tokio::test]
async fn a_state_is_what_its_records_made() {
    let (_, store) = archive().await;
    for lsn in [0, 3, 4, 6, 7, 12] {
        assert_eq!(rows(&store, lsn).await.expect("it is there"), lsn);
    }
    assert!(matches!(rows(&store, 13).await, Err(ArchiveError::Missing(_))));
    let newest = load_newest(&store, 1).await.expect("it is there");
    assert_eq!(newest.applied(), 12);
}

#[tokio::test]
async fn the_newest_moment_that_is_whole_is_restored() {
    let (world, _) = archive().await;
    let at = async |until| {
        let begun = begin(&world, URL, until).await;
        begun.map(|(map, restoration)| (map.version, restoration.at_micros))
    };
    assert_eq!(at(i64::MAX).await.expect("there is one"), (300, 300));
    assert_eq!(at(299).await.expect("there is one"), (200, 200));
    assert_eq!(at(100).await.expect("there is one"), (100, 100));
    assert!(matches!(at(99).await, Err(ArchiveError::Missing(_))));
}

#[tokio::test]
async fn who_has_a_moment_looks_at_no_older_object() {
    let (world, store) = archive().await;
    // That it is damaged is not seen.
    let older = Path::new("/backups").join(CLUSTER.to_string()).join(cuts_path(200, 1));
    let written = world.disk.write_atomic(&older, Bytes::from_static(b"x")).await;
    written.expect("it can be written");
    for (since, expected) in [
        (201, vec![400, 300]),
        (300, vec![400, 300]),
        (301, vec![400]),
        (401, vec![]),
    ] {
        let mut moments = Moments::since(&store, since).await.expect("it is there");
        let mut found = Vec::new();
        while let Some(cut) = moments.next().await.expect("all can be read") {
            found.push(cut.at_micros);
        }
        assert_eq!(found, expected, "since {since}");
    }
}

#[tokio::test]
async fn of_several_archives_one_must_be_named() {
    let (world, store) = archive().await;
    let other = Store::new(&world, URL, Uuid::from_u128(8)).expect("a directory");
    other.sign().await.expect("it can be written");
    assert!(matches!(begin(&world, URL, 300).await, Err(ArchiveError::Missing(_))));
    let (_, restoration) = begin(&world, &store.url(URL), 300).await.expect("it is named");
    assert_eq!(restoration.url, format!("{URL}/{CLUSTER}"));
    assert!(matches!(
        begin(&world, "file:///nothing", 300).await,
        Err(ArchiveError::Missing(_))
    ));
}

#[tokio::test]
async fn what_a_moment_that_is_kept_needs_stays() {
    let (world, store) = archive().await;
    // Nothing is older than the oldest.
    assert_eq!(tidy(&store, 100).await.expect("it works"), 0);
    // From 300 on, of which 200 is the moment before.
    let removed = tidy(&store, 250).await.expect("it works");
    assert_eq!(
        removed, 3,
        "the cut and the catalog of 100, and the records up to 4, which are in the base"
    );
    let at = async |until| {
        begin(&world, URL, until)
            .await
            .map(|(_, restoration)| restoration.at_micros)
    };
    assert_eq!(at(260).await.expect("it is kept"), 200);
    assert!(at(150).await.is_err());
    assert_eq!(rows(&store, 8).await.expect("it is there"), 8);
}

#[tokio::test]
async fn what_is_damaged_is_named_and_not_used() {
    let (world, store) = archive().await;
    let segment = Segment {
        first: 10,
        last: 12,
        previous_epoch: 1,
        first_epoch: 1,
        last_epoch: 1,
    };
    let path: PathBuf = Path::new("/backups").join(CLUSTER.to_string()).join(segment.path(1));
    let mut bytes = world.disk.read(&path).await.expect("it is there").to_vec();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    world
        .disk
        .write_atomic(&path, bytes.into())
        .await
        .expect("it can be written");
    let error = rows(&store, 12).await.expect_err("it is damaged");
    assert!(error.to_string().contains("00000000000000000010-"), "{error}");
    assert_eq!(rows(&store, 9).await.expect("it is before"), 9);
}
