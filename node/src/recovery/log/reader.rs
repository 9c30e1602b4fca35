//! Reading the log after a start: block after block, so that the blocks are what bounds the memory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::LogError;
use super::blocks::Blocks;
use super::layout::{self, Framed, HEADER_BYTES, Header, Magic, SEGMENT, Unreadable, VERSION};
use crate::recovery::sink::{EntrySink, Refusal};
use crate::world::Disk;

const SUFFIX: &str = "log";

/// Where the log ends, and goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::recovery) struct End {
    /// The segment to go on with; 0 when there is none yet.
    pub sequence: u64,
    /// Its good bytes; fewer than a header: it is to be started again.
    pub length: u64,
    /// Its header's salt.
    pub salt: u64,
    /// How long each segment is, by number; those that were not replayed too.
    pub lengths: BTreeMap<u64, u64>,
}

/// The file of a segment.
pub(in crate::recovery) fn segment_file(folder: &Path, sequence: u64) -> PathBuf {
    folder.join(format!("{sequence:020}.{SUFFIX}"))
}

/// Gives every entry from segment `first` on, in order, to `sink`; finds the end, and what is torn behind it, which the
/// writer will cut.
pub(in crate::recovery) async fn replay(
    disk: &dyn Disk,
    (folder, first): (&Path, u64),
    cluster: Uuid,
    block_bytes: usize,
    sink: &mut dyn EntrySink,
) -> Result<End, LogError> {
    let read = read(disk, (folder, first), cluster, block_bytes, sink).await;
    // What is refused stands before the place where reading failed.
    sink.settle().await.map_err(refused)?;
    read
}

fn refused(refusal: Refusal) -> LogError {
    LogError::Refused(refusal.what)
}

async fn read(
    disk: &dyn Disk,
    (folder, first): (&Path, u64),
    cluster: Uuid,
    block_bytes: usize,
    sink: &mut dyn EntrySink,
) -> Result<End, LogError> {
    let segments = segments(disk, folder, first).await?;
    let mut end = End {
        sequence: 0,
        length: 0,
        salt: 0,
        lengths: BTreeMap::new(),
    };
    // Of the segments before, so that places grow.
    let mut length_before = 0;
    for (place, (sequence, file)) in segments.iter().enumerate() {
        if *sequence < first {
            // A crash came before it was removed. Its length is not worth a look.
            end.lengths.insert(*sequence, 0);
            continue;
        }
        let is_last = place + 1 == segments.len();
        let mut blocks = Blocks::open(disk, file, block_bytes).await;
        blocks.reach(HEADER_BYTES + 1).await?;
        let bytes = blocks.bytes();
        if is_last && bytes.len() <= HEADER_BYTES && Header::decode(bytes, SEGMENT).is_none() {
            // Made just before the end: its header was not yet flushed, so nothing was in it.
            tracing::warn!(file = %file.display(), "the log's last segment has no whole header; starting it again");
            (end.sequence, end.length) = (*sequence, 0);
            return Ok(end);
        }
        let mut segment = Segment {
            file,
            sequence: *sequence,
            blocks,
            is_last,
            length_before,
        };
        (end.length, end.salt) = segment.replay(cluster, sink).await?;
        end.sequence = *sequence;
        end.lengths.insert(end.sequence, end.length);
        length_before += end.length;
    }
    Ok(end)
}

/// The segments by number; they must follow each other, and `first` must be among them, unless there was never any.
async fn segments(disk: &dyn Disk, folder: &Path, first: u64) -> Result<Vec<(u64, PathBuf)>, LogError> {
    let files = disk
        .list(folder)
        .await
        .map_err(|error| LogError::io(format!("listing {}", folder.display()), &error))?;
    let mut segments = Vec::new();
    for file in files {
        let is_segment = file.extension().is_some_and(|extension| extension == SUFFIX);
        let number = file
            .file_stem()
            .and_then(|stem| stem.to_str())
            .and_then(|stem| stem.parse().ok());
        match number {
            Some(number) if is_segment => segments.push((number, file)),
            _ => tracing::warn!(file = %file.display(), "not a segment of the log; left alone"),
        }
    }
    segments.sort();
    let lowest = segments.first().map_or(1, |(number, _)| *number);
    let gap = segments
        .windows(2)
        .find(|pair| pair[1].0 != pair[0].0 + 1)
        .map(|pair| pair[0].0 + 1);
    let reaches = segments.last().map_or(1, |(number, _)| *number) >= first;
    if let Some(missing) = gap.or((lowest > first || !reaches).then_some(first)) {
        return Err(LogError::Corrupt {
            file: segment_file(folder, missing),
            offset: 0,
            what: "the segment is missing".to_owned(),
        });
    }
    Ok(segments)
}

struct Segment<'a> {
    file: &'a Path,
    sequence: u64,
    blocks: Blocks<'a>,
    is_last: bool,
    length_before: u64,
}

impl Segment<'_> {
    /// Returns where its good part ends, and its salt.
    async fn replay(&mut self, cluster: Uuid, sink: &mut dyn EntrySink) -> Result<(u64, u64), LogError> {
        let salt = check_header(self.file, self.blocks.bytes(), (SEGMENT, self.sequence), cluster)?.salt;
        self.blocks.skip(HEADER_BYTES);
        loop {
            let unreadable = match layout::decode(self.blocks.bytes()) {
                Ok((framed, size)) => {
                    match framed {
                        Framed::Entry(partition, entry) => {
                            sink.put(self.length_before + self.blocks.offset(), partition, entry);
                        }
                        Framed::FlushedTo(_) => {}
                        Framed::End { .. } => {
                            let what = "a checkpoint's end in a segment".to_owned();
                            return Err(corrupt(self.file, self.blocks.offset(), what));
                        }
                    }
                    self.blocks.skip(size);
                    continue;
                }
                Err(unreadable) => unreadable,
            };
            if unreadable == Unreadable::Short {
                sink.room().await.map_err(refused)?;
                if self.blocks.more().await? {
                    continue;
                }
            }
            if !self.blocks.bytes().is_empty() {
                self.check_torn(salt, unreadable).await?;
            }
            return Ok((self.blocks.offset(), salt));
        }
    }

    /// What begins here can't be read: a torn tail, or damage, which is an error.
    async fn check_torn(&mut self, salt: u64, unreadable: Unreadable) -> Result<(), LogError> {
        let offset = self.blocks.offset();
        if self.is_last {
            while self.blocks.more().await? {}
        }
        if !self.is_last || layout::is_vouched_for(self.blocks.bytes(), offset, salt) {
            return Err(corrupt(self.file, offset, unreadable.to_string()));
        }
        let lost = self.blocks.bytes().len();
        tracing::warn!(file = %self.file.display(), offset, lost, %unreadable, "the log's torn tail is cut");
        Ok(())
    }
}

/// The header of a segment or a checkpoint of this number.
pub(in crate::recovery) fn check_header(
    file: &Path,
    bytes: &[u8],
    (magic, sequence): (Magic, u64),
    cluster: Uuid,
) -> Result<Header, LogError> {
    let Some(header) = Header::decode(bytes, magic) else {
        return Err(corrupt(file, 0, "the header's checksum is wrong".to_owned()));
    };
    if header.version != VERSION {
        return Err(LogError::Version {
            file: file.to_owned(),
            version: header.version,
        });
    }
    if header.cluster != cluster {
        return Err(LogError::OtherCluster {
            file: file.to_owned(),
            found: header.cluster,
            expected: cluster,
        });
    }
    if header.sequence != sequence {
        return Err(corrupt(
            file,
            0,
            format!("the header says that it is number {}", header.sequence),
        ));
    }
    Ok(header)
}

pub(in crate::recovery) fn corrupt(file: &Path, offset: u64, what: String) -> LogError {
    LogError::Corrupt {
        file: file.to_owned(),
        offset,
        what,
    }
}
