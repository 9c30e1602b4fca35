use openraft::CommittedLeaderId;

use super::*;
use crate::metadata::command::Command;
use crate::world::simulated::{SimulatedDisk, SimulatedRandom};

fn entry(index: u64) -> Entry<Group> {
    let payload = EntryPayload::Normal(Command::RemoveNode { node_id: index as u32 });
    Entry {
        log_id: LogId::new(CommittedLeaderId::new(3, 9), index),
        payload,
    }
}

fn kept(entries: std::ops::Range<u64>, purged: Option<u64>) -> Kept {
    let purged = purged.map(|index| entry(index).log_id);
    Kept {
        purged,
        entries: entries.map(|index| (index, entry(index))).collect(),
    }
}

#[test]
fn comes_back_whole_and_torn() {
    let file = encode_all(&kept(5..9, Some(4))).unwrap();
    for length in LOG_HEADER.len()..=file.len() {
        let mut back = Kept::default();
        let whole = replay(&file[..length], &mut back).unwrap();
        assert!(whole <= length);
        assert!(
            back.entries
                .values()
                .zip(5..)
                .all(|(back, index)| back.log_id.index == index)
        );
    }
    let mut back = Kept::default();
    assert_eq!(replay(&file, &mut back).unwrap(), file.len());
    assert_eq!(back.entries.len(), 4);
    assert_eq!(back.purged.unwrap().index, 4);
}

/// Three writes, as `Log` makes them: bytes and where each begins.
async fn three_writes() -> (Vec<u8>, Vec<usize>) {
    let disk = SimulatedDisk::new(SimulatedRandom::new(1), false);
    let mut log = Log::open(Arc::new(disk.mount()), Planted::default()).await.unwrap();
    let mut begins = Vec::new();
    for entries in [0..2, 2..3, 3..6] {
        begins.push(log.length);
        let bodies: Vec<Vec<u8>> = entries.map(|index| encode_entry(&entry(index)).unwrap()).collect();
        log.write(&bodies).await.unwrap();
    }
    let files = disk.files();
    let (_, bytes) = files.into_iter().find(|(path, _)| path == Path::new(LOG)).unwrap();
    assert_eq!(bytes.len(), log.length);
    (bytes, begins)
}

#[tokio::test]
async fn damage_in_front_of_a_mark_is_an_error_that_names_the_place() {
    let (bytes, _) = three_writes().await;
    for at in LOG_HEADER.len()..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x40;
        let mut back = Kept::default();
        match replay(&damaged, &mut back) {
            Err(error) => {
                assert!(at < bytes.len() - MARK, "a torn end is no damage: {at}");
                assert!(error.to_string().contains("metadata/log, at offset"), "{error}");
            }
            Ok(whole) => {
                assert_eq!(whole, bytes.len() - MARK, "damage at {at} went unseen");
                assert_eq!(back.entries.len(), 6);
            }
        }
    }
}

/// What is not on the disk yet is the mark of the write before, and the last write.
#[tokio::test]
async fn the_last_write_may_be_torn_in_any_order() {
    let (mut bytes, begins) = three_writes().await;
    bytes.truncate(bytes.len() - MARK);
    for missing in [begins[2] - MARK, begins[2]] {
        // The beginning is missing, the end is there.
        let mut torn = bytes.clone();
        torn[missing..begins[2] + 40].fill(0);
        let mut back = Kept::default();
        assert_eq!(replay(&torn, &mut back).unwrap(), missing);
        assert_eq!(back.entries.len(), 3);
    }
}

/// A write that lost its mark has it from the next one, whatever becomes of that.
#[tokio::test]
async fn the_next_write_vouches_for_one_without_a_mark() {
    let (bytes, begins) = three_writes().await;
    let (mark, third) = (begins[2] - MARK, begins[2]);
    for left in [mark, mark + 3, third, third + 3] {
        let disk = SimulatedDisk::new(SimulatedRandom::new(1), false);
        let mounted: Arc<dyn Disk> = Arc::new(disk.mount());
        mounted.create_directory(Path::new(DIRECTORY)).await.unwrap();
        let torn = Bytes::copy_from_slice(&bytes[..left]);
        mounted.write_atomic(Path::new(LOG), torn).await.unwrap();
        let mut log = Log::open(Arc::clone(&mounted), Planted::default()).await.unwrap();
        assert_eq!(log.last(), Some(entry(2).log_id));
        log.append_by_hand(&[entry(3)]).await.unwrap();
        // Of the new write no entry is whole.
        let mut damaged = mounted.read(Path::new(LOG)).await.unwrap().to_vec();
        damaged.truncate(third + 3);
        assert_eq!(replay(&damaged, &mut Kept::default()).unwrap(), third);
        damaged[mark - 1] ^= 1;
        assert!(
            replay(&damaged, &mut Kept::default()).is_err(),
            "{left} bytes were left"
        );
    }
}

#[test]
fn a_purged_file_is_vouched_for_as_a_whole() {
    let mut file = encode_all(&kept(5..9, Some(4))).unwrap();
    file[LOG_HEADER.len() + PREFIX] ^= 1;
    assert!(replay(&file, &mut Kept::default()).is_err());
}

#[test]
fn a_cut_holds() {
    let mut file = encode_all(&kept(0..6, None)).unwrap();
    let mut body = vec![CUT];
    body.extend_from_slice(&3u64.to_le_bytes());
    put_record(&mut file, &body);
    put_record(&mut file, &encode_entry(&entry(3)).unwrap());
    let mut back = Kept::default();
    replay(&file, &mut back).unwrap();
    assert_eq!(back.entries.keys().copied().collect::<Vec<_>>(), [0, 1, 2, 3]);
}

#[test]
fn votes() {
    for vote in [Vote::new(3, 7), Vote::new_committed(4, 1 << 40)] {
        let bytes = encode_vote(&vote);
        assert_eq!(decode_vote(&bytes).unwrap(), vote);
        let damaged = decode_vote(&bytes[..bytes.len() - 1]).expect_err("it is cut off");
        assert!(damaged.to_string().contains(VOTE), "{damaged}");
    }
}
