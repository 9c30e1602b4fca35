//! The log against a disk that loses, tears and damages.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;
use volt_engine::PartitionId;

use super::*;
use crate::recovery::sink::InOrder;
use crate::world::World;
use crate::world::simulated::{DiskFault, NoNetwork, SimulatedClock, SimulatedDisk, SimulatedRandom};

const CLUSTER: Uuid = Uuid::from_u128(7);
/// Small, so that a test meets several segments.
const SEGMENT_BYTES: u64 = 400;
/// Small, so that headers and entries lie across blocks.
const BLOCK_BYTES: usize = 33;

fn disk(seed: u64) -> Arc<SimulatedDisk> {
    SimulatedDisk::new(SimulatedRandom::new(seed), false)
}

fn world(disk: &Arc<SimulatedDisk>) -> World {
    let clock = SimulatedClock::new(Duration::ZERO, 0);
    World::simulated(clock, Arc::new(NoNetwork), Arc::clone(disk), SimulatedRandom::new(1))
}

fn options(durability: Durability) -> LogOptions {
    LogOptions {
        segment_bytes: SEGMENT_BYTES,
        block_bytes: BLOCK_BYTES,
        ..LogOptions::new(durability)
    }
}

async fn open(
    disk: &Arc<SimulatedDisk>,
    durability: Durability,
) -> Result<(Log, Vec<(PartitionId, LogEntry)>), LogError> {
    let mut entries = Vec::new();
    let mut take = InOrder::new(|partition, entry| {
        entries.push((partition, entry));
        Ok(())
    });
    let log = Log::open(&world(disk), options(durability), CLUSTER, &mut take).await?;
    Ok((log, entries))
}

fn record(lsn: Lsn) -> (PartitionId, LogEntry) {
    let payload = Bytes::from(vec![lsn as u8; 5 + (lsn as usize * 7) % 60]);
    (
        1 + (lsn % 3) as PartitionId,
        LogEntry::Record {
            epoch: 1 + lsn / 10,
            lsn,
            payload,
        },
    )
}

fn one_of_each() -> Vec<(PartitionId, LogEntry)> {
    vec![
        record(1),
        (1, LogEntry::Committed { lsn: 1 }),
        (2, LogEntry::Truncate { after: 4, epoch: 9 }),
        (3, LogEntry::Reset { epoch: 8 }),
        (
            3,
            LogEntry::FillChunk {
                chunk: Bytes::from_static(b"some state"),
            },
        ),
        (
            3,
            LogEntry::FillDone {
                lsn: 77,
                epoch: 8,
                epochs: Bytes::from_static(b"1 2"),
            },
        ),
        (2, LogEntry::Dropped),
    ]
}

/// A log of one batch an entry; returns how many entries were safe.
async fn write(disk: &Arc<SimulatedDisk>, entries: &[(PartitionId, LogEntry)]) {
    let (log, _) = open(disk, Durability::Fsync).await.unwrap();
    for (partition, entry) in entries {
        let ticket = log.append(*partition, entry);
        log.wait_safe(ticket).await.unwrap();
    }
    log.close().await.unwrap();
    disk.kill();
}

fn segments(disk: &SimulatedDisk) -> Vec<(PathBuf, Vec<u8>)> {
    disk.files()
        .into_iter()
        .filter(|(path, _)| path.starts_with("log"))
        .collect()
}

#[tokio::test]
async fn what_was_appended_is_replayed_over_several_opens_and_segments() {
    let disk = disk(1);
    let mut expected = one_of_each();
    write(&disk, &expected).await;
    for round in 0..4 {
        let (log, found) = open(&disk, Durability::Fsync).await.unwrap();
        assert_eq!(found, expected, "round {round}");
        let batch: Vec<_> = (0..9).map(|n| record(100 + round * 10 + n)).collect();
        for (partition, entry) in &batch {
            log.append(*partition, entry);
        }
        expected.extend(batch);
        log.close().await.unwrap();
        disk.kill();
    }
    assert!(segments(&disk).len() > 3, "{:?}", segments(&disk).len());
}

#[tokio::test]
async fn a_segment_torn_at_any_byte_gives_a_prefix_that_goes_on() {
    let source = disk(2);
    let entries: Vec<_> = (1..=20).map(record).collect();
    write(&source, &entries).await;
    let files = segments(&source);
    let (last, content) = files.last().unwrap();
    let before_last = {
        let copy = disk(3);
        for (path, bytes) in &files[..files.len() - 1] {
            copy.put(path, bytes.clone());
        }
        open(&copy, Durability::Fsync).await.unwrap().1.len()
    };
    assert!(before_last < entries.len());
    let mut seen = before_last;
    for length in 0..=content.len() {
        let copy = disk(4);
        for (path, bytes) in &files {
            copy.put(path, bytes.clone());
        }
        copy.put(last, content[..length].to_vec());
        let (log, found) = open(&copy, Durability::Fsync)
            .await
            .unwrap_or_else(|error| panic!("cut at {length}: {error}"));
        assert_eq!(found, entries[..found.len()], "cut at {length}");
        assert!(found.len() >= seen && found.len() >= before_last, "cut at {length}");
        seen = found.len();
        // What is appended now is found behind it.
        let (partition, entry) = record(99);
        log.append(partition, &entry);
        log.close().await.unwrap();
        copy.kill();
        let (_, again) = open(&copy, Durability::Fsync).await.unwrap();
        assert_eq!(again.len(), found.len() + 1);
        assert_eq!(again.last(), Some(&record(99)));
    }
    assert_eq!(seen, entries.len());
}

#[tokio::test]
async fn a_flipped_bit_is_found_wherever_it_is() {
    let source = disk(5);
    let entries: Vec<_> = (1..=20).map(record).collect();
    write(&source, &entries).await;
    let files = segments(&source);
    for (place, (path, content)) in files.iter().enumerate() {
        let is_last = place + 1 == files.len();
        for at in 0..content.len() {
            let copy = disk(6);
            for (path, bytes) in &files {
                copy.put(path, bytes.clone());
            }
            let mut damaged = content.clone();
            damaged[at] ^= 1 << (at % 8);
            copy.put(path, damaged);
            match open(&copy, Durability::Fsync).await {
                Err(LogError::Corrupt { file, offset, .. }) => {
                    assert_eq!(&file, path);
                    assert!(offset as usize <= at);
                }
                Err(other) => panic!("{} at {at}: {other}", path.display()),
                // Only behind the last mark, where it can't be told from a torn write.
                Ok((_, found)) => {
                    assert!(is_last, "{} at {at}", path.display());
                    assert!(
                        found.len() >= entries.len() - 2,
                        "{} at {at}: {}",
                        path.display(),
                        found.len()
                    );
                    assert_eq!(found, entries[..found.len()]);
                }
            }
        }
    }
}

#[tokio::test]
async fn after_a_power_cut_everything_announced_is_there() {
    for seed in 0..200 {
        let disk = disk(seed);
        let random = SimulatedRandom::new(seed);
        let mut expected: Vec<(PartitionId, LogEntry)> = Vec::new();
        for _ in 0..4 {
            let (log, found) = open(&disk, Durability::Fsync)
                .await
                .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            assert!(
                found.len() >= expected.len(),
                "seed {seed}: {} of {}",
                found.len(),
                expected.len()
            );
            assert_eq!(found[..expected.len()], expected, "seed {seed}");
            let mut appended = found;
            for _ in 0..random.below(12) {
                let entry = record(1 + appended.len() as Lsn);
                log.append(entry.0, &entry.1);
                appended.push(entry);
                if random.below(2) == 0 {
                    tokio::task::yield_now().await;
                }
            }
            let first_ticket_after = appended.len() as u64;
            let safe = *log.safe().borrow();
            let appended_now = log.append(1, &LogEntry::Dropped);
            let unsafe_tail = appended_now - 1 - safe;
            expected = appended[..(first_ticket_after - unsafe_tail) as usize].to_vec();
            disk.crash();
            // The last append must not be seen later as if it were expected.
            drop(log);
            let (_, found) = open(&disk, Durability::Fsync)
                .await
                .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            assert!(found.len() >= expected.len(), "seed {seed}");
            expected = found;
            disk.kill();
        }
    }
}

#[tokio::test]
async fn an_error_of_the_disk_stops_the_log_for_good() {
    for fault in [DiskFault::Full, DiskFault::Broken] {
        let disk = disk(8);
        let (log, _) = open(&disk, Durability::Fsync).await.unwrap();
        let (partition, entry) = record(1);
        log.wait_safe(log.append(partition, &entry)).await.unwrap();
        disk.set_fault(fault);
        let lost = log.append(partition, &record(2).1);
        assert!(matches!(log.wait_safe(lost).await, Err(LogError::Io { .. })));
        disk.set_fault(DiskFault::None);
        let later = log.append(partition, &record(3).1);
        assert!(log.wait_safe(later).await.is_err());
        assert_eq!(Some(log.wait_failure().await), log.failure());
        assert_eq!(*log.safe().borrow(), 1);
        disk.kill();
        let (_, found) = open(&disk, Durability::Fsync).await.unwrap();
        assert_eq!(found, [record(1)]);
    }
}

#[tokio::test]
async fn async_is_safe_when_written_and_flushed_soon() {
    let disk = disk(9);
    let (log, _) = open(&disk, Durability::Async).await.unwrap();
    let (partition, entry) = record(1);
    log.wait_safe(log.append(partition, &entry)).await.unwrap();
    tokio::time::sleep(2 * ASYNC_FLUSH_INTERVAL).await;
    disk.crash();
    let (_, found) = open(&disk, Durability::Async).await.unwrap();
    assert_eq!(found, [record(1)]);
}

#[tokio::test]
async fn memory_is_safe_at_once_and_makes_no_file() {
    let disk = disk(10);
    let (log, _) = open(&disk, Durability::Memory).await.unwrap();
    let (partition, entry) = record(1);
    let ticket = log.append(partition, &entry);
    assert_eq!(*log.safe().borrow(), ticket);
    log.close().await.unwrap();
    assert!(disk.files().is_empty());
}

#[tokio::test]
async fn a_missing_segment_and_another_cluster_are_errors() {
    let disk = disk(11);
    write(&disk, &(1..=20).map(record).collect::<Vec<_>>()).await;
    let mut take = InOrder::new(|_, _| Ok(()));
    let other = Log::open(&world(&disk), options(Durability::Fsync), Uuid::from_u128(8), &mut take).await;
    assert!(matches!(other.err(), Some(LogError::OtherCluster { .. })));
    crate::world::Disk::remove(&disk.mount(), Path::new("log/00000000000000000002.log"))
        .await
        .unwrap();
    assert!(matches!(
        open(&disk, Durability::Fsync).await.err(),
        Some(LogError::Corrupt { .. })
    ));
}

#[tokio::test]
async fn a_payload_that_looks_like_a_mark_is_none() {
    // A torn entry whose payload is a mark under another salt: cut, not called damage.
    let mut forged = bytes::BytesMut::new();
    layout::encode_flushed_to(12345, 1 << 40, &mut forged);
    let disk = disk(12);
    let entries = [
        record(1),
        (
            1,
            LogEntry::Record {
                epoch: 1,
                lsn: 2,
                payload: forged.freeze(),
            },
        ),
    ];
    write(&disk, &entries).await;
    let (path, mut content) = segments(&disk).pop().unwrap();
    let end = content.len() - layout::ENTRY_BYTES;
    content[end - 1] ^= 1;
    disk.put(&path, content);
    let (_, found) = open(&disk, Durability::Fsync).await.unwrap();
    assert_eq!(found, [record(1)]);
}

#[test]
fn a_mark_vouches_for_what_precedes_it_in_its_own_segment_alone() {
    let mut rest = bytes::BytesMut::from(&b"torn"[..]);
    layout::encode_flushed_to(7, 1000, &mut rest);
    rest.extend_from_slice(b"and more");
    assert!(layout::is_vouched_for(&rest, 999, 7));
    assert!(!layout::is_vouched_for(&rest, 1000, 7));
    assert!(!layout::is_vouched_for(&rest, 999, 8));
}
