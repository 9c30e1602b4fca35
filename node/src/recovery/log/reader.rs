//! Reading the log after a start: a segment at a time, so that a segment is what bounds the memory.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use uuid::Uuid;
use volt_engine::PartitionId;

use super::layout::{self, Framed, HEADER_BYTES, Header, VERSION};
use super::{LogEntry, LogError};
use crate::world::Disk;

const SUFFIX: &str = "log";

/// Where the log ends, and goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct End {
    /// The segment to go on with; 0 when there is none yet.
    pub sequence: u64,
    /// Its good bytes; fewer than a header: it is to be started again.
    pub length: u64,
    /// Its header's salt.
    pub salt: u64,
}

/// The file of a segment.
pub(super) fn segment_file(folder: &Path, sequence: u64) -> PathBuf {
    folder.join(format!("{sequence:020}.{SUFFIX}"))
}

/// Gives every entry, in order, to `take`; finds the end, and what is torn behind it, which the writer will cut.
pub(super) async fn replay(
    disk: &dyn Disk,
    folder: &Path,
    cluster: Uuid,
    take: &mut (dyn FnMut(PartitionId, LogEntry) -> Result<(), String> + Send),
) -> Result<End, LogError> {
    let segments = segments(disk, folder).await?;
    let mut end = End {
        sequence: 0,
        length: 0,
        salt: 0,
    };
    for (place, (sequence, file)) in segments.iter().enumerate() {
        let is_last = place + 1 == segments.len();
        let bytes = disk
            .read(file)
            .await
            .map_err(|error| LogError::io(format!("reading {}", file.display()), &error))?;
        if is_last && bytes.len() <= HEADER_BYTES && Header::decode(&bytes).is_none() {
            // Made just before the end: its header was not yet flushed, so nothing was in it.
            tracing::warn!(file = %file.display(), "the log's last segment has no whole header; starting it again");
            return Ok(End {
                sequence: *sequence,
                length: 0,
                salt: 0,
            });
        }
        end = Segment {
            file,
            sequence: *sequence,
            bytes,
            is_last,
        }
        .replay(cluster, take)?;
    }
    Ok(end)
}

/// The segments by number; they must follow each other.
async fn segments(disk: &dyn Disk, folder: &Path) -> Result<Vec<(u64, PathBuf)>, LogError> {
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
    for pair in segments.windows(2) {
        let expected: u64 = pair[0].0 + 1;
        if pair[1].0 != expected {
            let file = segment_file(folder, expected);
            return Err(LogError::Corrupt {
                file,
                offset: 0,
                what: "the segment is missing".to_owned(),
            });
        }
    }
    Ok(segments)
}

struct Segment<'a> {
    file: &'a Path,
    sequence: u64,
    bytes: Bytes,
    is_last: bool,
}

impl Segment<'_> {
    /// Returns where its good part ends.
    fn replay(
        &self,
        cluster: Uuid,
        take: &mut (dyn FnMut(PartitionId, LogEntry) -> Result<(), String> + Send),
    ) -> Result<End, LogError> {
        let salt = self.check_header(cluster)?.salt;
        let mut offset = HEADER_BYTES;
        while offset < self.bytes.len() {
            match layout::decode(&self.bytes[offset..]) {
                Ok((framed, size)) => {
                    if let Framed::Entry(partition, entry) = framed {
                        take(partition, entry).map_err(LogError::Refused)?;
                    }
                    offset += size;
                }
                Err(unreadable) => {
                    if !self.is_last || layout::is_vouched_for(&self.bytes, offset, salt) {
                        return Err(self.corrupt(offset, unreadable.to_string()));
                    }
                    let lost = self.bytes.len() - offset;
                    tracing::warn!(file = %self.file.display(), offset, lost, %unreadable, "the log's torn tail is cut");
                    break;
                }
            }
        }
        Ok(End {
            sequence: self.sequence,
            length: offset as u64,
            salt,
        })
    }

    fn check_header(&self, cluster: Uuid) -> Result<Header, LogError> {
        let Some(header) = Header::decode(&self.bytes) else {
            return Err(self.corrupt(0, "the header's checksum is wrong".to_owned()));
        };
        let file = self.file.to_owned();
        if header.version != VERSION {
            return Err(LogError::Version {
                file,
                version: header.version,
            });
        }
        if header.cluster != cluster {
            return Err(LogError::OtherCluster {
                file,
                found: header.cluster,
                expected: cluster,
            });
        }
        if header.sequence != self.sequence {
            return Err(self.corrupt(0, format!("the header says that it is segment {}", header.sequence)));
        }
        Ok(header)
    }

    fn corrupt(&self, offset: usize, what: String) -> LogError {
        LogError::Corrupt {
            file: self.file.to_owned(),
            offset: offset as u64,
            what,
        }
    }
}
