//! Where the entries go that are read back at a start.

use async_trait::async_trait;
use volt_engine::PartitionId;

use super::log::layout::Checked;

/// An entry was refused: its checksum is right, but it can't follow the ones before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// Its place, as the reader gave it.
    pub(crate) place: u64,
    /// Why.
    pub(crate) what: String,
}

/// Takes the entries of a checkpoint, then those of the log, in order.
///
/// Which refusal comes back must not depend on time: it is the one with the lowest place, as if the entries were applied
/// one after another.
#[async_trait]
pub(crate) trait EntrySink: Send {
    /// Takes the next entry. Places grow.
    fn put(&mut self, place: u64, partition: PartitionId, entry: Checked<'_>);

    /// Waits until more may be put, which is asked for once a block; or says what was refused.
    async fn room(&mut self) -> Result<(), Refusal>;

    /// Waits until everything that was put is applied; or says what was refused.
    async fn settle(&mut self) -> Result<(), Refusal>;
}

/// Gives each entry to a function at once.
pub(crate) struct InOrder<F> {
    take: F,
    refused: Option<Refusal>,
}

impl<F> InOrder<F> {
    pub(crate) fn new(take: F) -> Self {
        Self { take, refused: None }
    }
}

#[async_trait]
impl<F: FnMut(PartitionId, super::log::LogEntry) -> Result<(), String> + Send> EntrySink for InOrder<F> {
    fn put(&mut self, place: u64, partition: PartitionId, entry: Checked<'_>) {
        if self.refused.is_some() {
            return;
        }
        let taken = match entry.decode() {
            Ok(entry) => (self.take)(partition, entry),
            Err(unreadable) => Err(unreadable.to_string()),
        };
        self.refused = taken.err().map(|what| Refusal { place, what });
    }

    async fn room(&mut self) -> Result<(), Refusal> {
        self.settle().await
    }

    async fn settle(&mut self) -> Result<(), Refusal> {
        self.refused.clone().map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use bytes::BytesMut;
    use uuid::Uuid;

    use super::*;
    use crate::recovery::checkpoint;
    use crate::recovery::log::layout::{self, CHECKPOINT, Header, Magic, SEGMENT, VERSION};
    use crate::recovery::log::{LogEntry, LogError, reader};
    use crate::world::simulated::{SimulatedDisk, SimulatedRandom};

    const CLUSTER: Uuid = Uuid::nil();
    const BLOCK_BYTES: usize = 1000;
    const ENTRIES: usize = 500;

    /// Counts, and refuses from some call on.
    struct Meter {
        rooms: usize,
        refuses_at: usize,
        /// Not when it is asked for room, but when all is to be settled.
        refuses_late: bool,
        since_room: usize,
        most: usize,
        entries: usize,
    }

    impl Meter {
        fn new(refuses_at: usize) -> Self {
            Self {
                rooms: 0,
                refuses_at,
                refuses_late: false,
                since_room: 0,
                most: 0,
                entries: 0,
            }
        }
    }

    #[async_trait]
    impl EntrySink for Meter {
        fn put(&mut self, _: u64, _: PartitionId, entry: Checked<'_>) {
            self.since_room += entry.bytes().len();
            self.most = self.most.max(self.since_room);
            self.entries += 1;
        }

        async fn room(&mut self) -> Result<(), Refusal> {
            (self.rooms, self.since_room) = (self.rooms + 1, 0);
            match self.refuses_late {
                true => Ok(()),
                false => self.settle().await,
            }
        }

        async fn settle(&mut self) -> Result<(), Refusal> {
            let (place, what) = (77, "no more".to_owned());
            match self.rooms >= self.refuses_at {
                true => Err(Refusal { place, what }),
                false => Ok(()),
            }
        }
    }

    fn file(magic: Magic) -> Vec<u8> {
        let header = Header {
            version: VERSION,
            cluster: CLUSTER,
            sequence: 1,
            salt: 5,
        };
        let mut bytes = BytesMut::from(header.encode(magic));
        for lsn in 0..ENTRIES as u64 {
            layout::encode(1, &LogEntry::Committed { lsn }, &mut bytes);
        }
        if magic == CHECKPOINT {
            layout::encode_end(ENTRIES as u64, 1, &mut bytes);
        }
        bytes.to_vec()
    }

    /// Something follows that no such file holds.
    fn damaged(magic: Magic) -> Vec<u8> {
        let mut bytes = BytesMut::from(&file(magic)[..]);
        layout::encode_end(1, 1, &mut bytes);
        bytes.to_vec()
    }

    async fn read(magic: Magic, bytes: Vec<u8>, meter: &mut Meter) -> Result<(), LogError> {
        let disk = SimulatedDisk::new(SimulatedRandom::new(1), false);
        let folder = Path::new("log");
        if magic == SEGMENT {
            disk.put(&reader::segment_file(folder, 1), bytes);
            let end = reader::replay(&disk.mount(), (folder, 1), CLUSTER, BLOCK_BYTES, meter).await;
            return end.map(drop);
        }
        disk.put(&checkpoint::path_of(1, checkpoint::SUFFIX), bytes);
        let loaded = checkpoint::load(&disk.mount(), CLUSTER, BLOCK_BYTES, meter).await;
        loaded.map(drop)
    }

    #[tokio::test]
    async fn the_reader_asks_for_room_once_a_block_and_ends_when_something_is_refused() {
        for magic in [SEGMENT, CHECKPOINT] {
            let mut meter = Meter::new(usize::MAX);
            read(magic, file(magic), &mut meter).await.unwrap();
            assert_eq!(meter.entries, ENTRIES);
            assert!(meter.most <= BLOCK_BYTES + layout::ENTRY_BYTES, "{}", meter.most);
            let mut meter = Meter::new(3);
            assert_refused(magic, &read(magic, file(magic), &mut meter).await);
            assert!(
                meter.entries <= 3 * BLOCK_BYTES / layout::ENTRY_BYTES,
                "{}",
                meter.entries
            );
        }
    }
    fn assert_refused(magic: Magic, read: &Result<(), LogError>) {
        match read {
            Err(LogError::Refused(what)) => assert_eq!((magic, what.as_str()), (SEGMENT, "no more")),
            Err(LogError::Corrupt { offset, what, .. }) => {
                assert_eq!((magic, *offset, what.as_str()), (CHECKPOINT, 77, "no more"));
            }
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_refusal_is_told_and_not_the_damage_behind_it() {
        for magic in [SEGMENT, CHECKPOINT] {
            let mut meter = Meter::new(usize::MAX);
            let error = read(magic, damaged(magic), &mut meter).await.unwrap_err();
            assert!(matches!(error, LogError::Corrupt { .. }), "{error}");
            // Refused in the last block, for whose end nobody is asked.
            let mut meter = Meter::new(meter.rooms);
            meter.refuses_late = true;
            assert_refused(magic, &read(magic, damaged(magic), &mut meter).await);
            assert_eq!(meter.entries, ENTRIES);
        }
    }
}
