//! What the objects of an archive are called, and their bytes.
//!
//! | object, below the archive's URL | holds |
//! | --- | --- |
//! | `UUID.cluster` | that there is an archive of this cluster; what follows is in the folder `UUID` |
//! | `log/PARTITION/FIRST-LAST-EPOCH-EPOCH-EPOCH` | consecutive committed records: the LSNs of the first and the last, and the epochs of the one before, the first and the last |
//! | `base/PARTITION/LSN-EPOCH-N` | rows of the partition as they were at that LSN, in chunks of a dump |
//! | `base/PARTITION/LSN-EPOCH-whole` | how many of these there are, and the epochs up to it: without it the base is none |
//! | `cut/MICROS-BOOT` | consistent cuts of all partitions, the last of which was taken at that time by that process |
//! | `catalog/VERSION` | the cluster map of that version, for its catalog |
//!
//! Numbers are decimal and have leading zeros, so that names sort as they do; a boot is 16 hexadecimal digits. An object is
//! never written again with other content. Its bytes, little-endian: `VOLTARC` and a zero; version u32 (2); kind u8; the
//! cluster's UUID, 16; length of the body u64; CRC-32C of all of that and the body u32; the body, which is postcard's.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use volt_engine::{Epoch, Lsn, PartitionId, SequenceId};

use crate::metadata::sequence::Sequence;
use crate::replication::epochs::EpochHistory;

const MAGIC: &[u8; 8] = b"VOLTARC\0";
const VERSION: u32 = 2;
const HEAD_BYTES: usize = 8 + 4 + 1 + 16 + 8 + 4;

/// Records of a partition, in order and without gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Segment {
    pub(crate) first: Lsn,
    pub(crate) last: Lsn,
    /// Of the record before the first; 0: there is none.
    pub(crate) previous_epoch: Epoch,
    /// Of the first record.
    pub(crate) first_epoch: Epoch,
    /// Of the last one.
    pub(crate) last_epoch: Epoch,
}

/// The state of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Base {
    pub(crate) lsn: Lsn,
    /// Of the record there.
    pub(crate) epoch: Epoch,
}

/// One record of a segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ArchivedRecord {
    pub(crate) lsn: Lsn,
    pub(crate) epoch: Epoch,
    /// An encoded `LogPayload`.
    pub(crate) payload: Bytes,
}

/// What makes a base whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct BaseEnd {
    /// Objects of chunks.
    pub(crate) objects: u32,
    /// Up to its LSN.
    pub(crate) history: EpochHistory,
}

/// Every partition at one moment: of each transaction over several of them all is there or nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cut {
    /// When, in microseconds since 1970 on the clock of who took it: all that was acknowledged when it began is in it.
    pub(crate) at_micros: i64,
    /// The version of the cluster map that has its catalog.
    pub(crate) map_version: u64,
    /// Each partition's LSN, and the epoch of its record there.
    pub(crate) partitions: BTreeMap<PartitionId, (Lsn, Epoch)>,
    /// The sequences: what they have handed out.
    pub(crate) sequences: BTreeMap<SequenceId, Sequence>,
}

/// What an object holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Log = 1,
    BaseChunks = 2,
    BaseEnd = 3,
    Cuts = 4,
    Catalog = 5,
}

/// Why an object's bytes can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Damage {
    #[error("it is no object of an archive, or is cut short")]
    NoObject,
    #[error("version {0} is not known")]
    Version(u32),
    #[error("it belongs to another cluster, or holds something else")]
    Elsewhere,
    #[error("its checksum is wrong")]
    Checksum,
    #[error("its content can't be read")]
    Content,
}

/// The folder of a partition's records.
pub(crate) fn log_of(partition: PartitionId) -> PathBuf {
    Path::new("log").join(format!("{partition:06}"))
}

/// The folder of a partition's bases.
pub(crate) fn bases_of(partition: PartitionId) -> PathBuf {
    Path::new("base").join(format!("{partition:06}"))
}

/// The folder of cuts.
pub(crate) const CUTS: &str = "cut";
/// The folder of catalogs.
pub(crate) const CATALOGS: &str = "catalog";
/// The last part of the name of what makes a base whole.
const WHOLE: &str = "whole";
/// Ends the name that says whose archive there is.
pub(crate) const CLUSTER: &str = "cluster";

pub(crate) fn catalog(map_version: u64) -> PathBuf {
    Path::new(CATALOGS).join(format!("{map_version:020}"))
}

impl Segment {
    pub(crate) fn path(&self, partition: PartitionId) -> PathBuf {
        let Self {
            first,
            last,
            previous_epoch,
            first_epoch,
            last_epoch,
        } = self;
        let lsns = format!("{first:020}-{last:020}");
        log_of(partition).join(format!(
            "{lsns}-{previous_epoch:010}-{first_epoch:010}-{last_epoch:010}"
        ))
    }

    /// From the last part of its path.
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        let mut parts = name.split('-').map(str::parse);
        let mut next = || parts.next()?.ok();
        let (first, last) = (next()?, next()?);
        let (previous_epoch, first_epoch, last_epoch) = (next()?, next()?, next()?);
        let ascends = previous_epoch <= first_epoch && first_epoch <= last_epoch;
        let is_sound = first >= 1 && first <= last && ascends && parts.next().is_none();
        is_sound.then_some(Self {
            first,
            last,
            previous_epoch,
            first_epoch,
            last_epoch,
        })
    }
}

impl Base {
    fn part(&self, partition: PartitionId, part: &str) -> PathBuf {
        bases_of(partition).join(format!("{:020}-{:010}-{part}", self.lsn, self.epoch))
    }

    pub(crate) fn chunks(&self, partition: PartitionId, number: u32) -> PathBuf {
        self.part(partition, &format!("{number:06}"))
    }

    pub(crate) fn whole(&self, partition: PartitionId) -> PathBuf {
        self.part(partition, WHOLE)
    }

    /// From a name: the base of which it is a part, and whether it is what makes that whole.
    pub(crate) fn of_name(name: &str) -> Option<(Self, bool)> {
        let mut parts = name.split('-');
        let base = Self {
            lsn: parts.next()?.parse().ok()?,
            epoch: parts.next()?.parse().ok()?,
        };
        let part = parts.next()?;
        let is_part = part == WHOLE || part.parse::<u32>().is_ok();
        (is_part && parts.next().is_none()).then_some((base, part == WHOLE))
    }
}

/// Sorts before the names of segments and bases of this LSN or later, and behind all others.
pub(crate) fn from_lsn(lsn: Lsn) -> String {
    format!("{lsn:020}")
}

pub(crate) fn cuts_path(at_micros: i64, boot: u64) -> PathBuf {
    Path::new(CUTS).join(format!("{}-{boot:016x}", cuts_before(at_micros)))
}

/// Sorts before the names of objects whose last cut is of this moment or later, and behind all others.
pub(crate) fn cuts_before(at_micros: i64) -> String {
    format!("{at_micros:020}")
}

/// When the last cut of these was taken.
pub(crate) fn cuts_of_name(name: &str) -> Option<i64> {
    let (micros, boot) = name.split_once('-')?;
    u64::from_str_radix(boot, 16).ok()?;
    micros.parse().ok()
}

/// An object of this content.
pub(crate) fn seal<T: Serialize>(kind: Kind, cluster: Uuid, content: &T) -> Result<Bytes, postcard::Error> {
    let body = postcard::to_stdvec(content)?;
    let mut out = BytesMut::with_capacity(HEAD_BYTES + body.len());
    out.put_slice(MAGIC);
    out.put_u32_le(VERSION);
    out.put_u8(kind as u8);
    out.put_slice(cluster.as_bytes());
    out.put_u64_le(body.len() as u64);
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&out), &body);
    out.put_u32_le(checksum);
    out.put_slice(&body);
    Ok(out.freeze())
}

/// The content of an object.
pub(crate) fn open<T: DeserializeOwned>(kind: Kind, cluster: Uuid, object: &Bytes) -> Result<T, Damage> {
    if object.len() < HEAD_BYTES || !object.starts_with(MAGIC) {
        return Err(Damage::NoObject);
    }
    let body = object.slice(HEAD_BYTES..);
    let mut head = object.slice(MAGIC.len()..HEAD_BYTES);
    let version = head.get_u32_le();
    if version != VERSION {
        return Err(Damage::Version(version));
    }
    let is_kind = head.get_u8() == kind as u8;
    let theirs = head.copy_to_bytes(16);
    if head.get_u64_le() != body.len() as u64 {
        return Err(Damage::NoObject);
    }
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&object[..HEAD_BYTES - 4]), &body);
    if head.get_u32_le() != checksum {
        return Err(Damage::Checksum);
    }
    if !is_kind || theirs != cluster.as_bytes().as_slice() {
        return Err(Damage::Elsewhere);
    }
    match postcard::take_from_bytes(&body) {
        Ok((content, [])) => Ok(content),
        _ => Err(Damage::Content),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: Uuid = Uuid::from_u128(7);

    #[test]
    fn names_are_read_back_and_sort_like_their_numbers() {
        let segment = |first, last| Segment {
            first,
            last,
            previous_epoch: 1,
            first_epoch: 2,
            last_epoch: 11,
        };
        let path = segment(9, 12).path(3);
        assert_eq!(
            path,
            Path::new("log/000003/00000000000000000009-00000000000000000012-0000000001-0000000002-0000000011")
        );
        assert_eq!(Segment::of_name(name(&path)), Some(segment(9, 12)));
        assert!(segment(9, 12).path(3) < segment(10, 10).path(3));
        let before = segment(9, 12).path(3);
        let from = segment(10, 10).path(3);
        assert!(name(&before) < from_lsn(10).as_str() && from_lsn(10).as_str() < name(&from));
        let base = Base { lsn: 5, epoch: 1 };
        assert!(name(&base.whole(3)) < from_lsn(6).as_str() && from_lsn(5).as_str() < name(&base.chunks(3, 0)));
        assert_eq!(Base::of_name(name(&base.whole(3))), Some((base, true)));
        assert_eq!(Base::of_name(name(&base.chunks(3, 1))), Some((base, false)));
        assert_eq!(cuts_of_name(name(&cuts_path(77, 255))), Some(77));
        let (before, at) = (cuts_path(76, u64::MAX), cuts_path(77, 0));
        assert!(name(&before) < cuts_before(77).as_str() && cuts_before(77).as_str() < name(&at));
    }

    fn name(path: &Path) -> &str {
        path.file_name().and_then(|name| name.to_str()).expect("a name")
    }

    #[test]
    fn other_names_are_none() {
        for name in [
            "",
            "1-2-x",
            "1-2-1-1",
            "2-1-1-1-1",
            "0-1-1-1-1",
            "1-2-1-2-1",
            "1-2-2-1-1",
            "1-2-1-1-1-1",
            "1-x-1-1-1",
            "1-2-1-1-1.unfinished",
        ] {
            assert_eq!(Segment::of_name(name), None, "{name}");
            assert_eq!(Base::of_name(name), None, "{name}");
        }
    }

    #[test]
    fn objects_are_opened_as_what_they_are_or_not_at_all() {
        let records = vec![ArchivedRecord {
            lsn: 1,
            epoch: 1,
            payload: Bytes::from_static(b"payload"),
        }];
        let sealed = seal(Kind::Log, CLUSTER, &records).expect("it can be written");
        let read = |object: &Bytes| open::<Vec<ArchivedRecord>>(Kind::Log, CLUSTER, object);
        assert_eq!(read(&sealed), Ok(records));
        let other = open::<Vec<ArchivedRecord>>(Kind::Log, Uuid::from_u128(8), &sealed);
        assert_eq!(other, Err(Damage::Elsewhere));
        assert_eq!(open::<BaseEnd>(Kind::BaseEnd, CLUSTER, &sealed), Err(Damage::Elsewhere));
        for at in 0..sealed.len() {
            let mut bent = sealed.to_vec();
            bent[at] ^= 1;
            assert!(read(&bent.into()).is_err(), "byte {at} is another");
            assert!(read(&sealed.slice(..at)).is_err(), "cut at {at}");
        }
    }
}
