//! Chunks of rows without their LSNs, for a learner that has its rows from where there are none: the hash is taken of the chunk without
//! them, and they alone are sent.

use bytes::Bytes;

use super::super::Partition;
use super::{LAYOUT, ROW};
use crate::codec::Reader;
use crate::error::CorruptError;
use crate::{Lsn, TableId};

const LSN_BYTES: usize = size_of::<Lsn>();

/// A chunk of nothing but rows, with 0 in place of each LSN; and these, 8 bytes each, little-endian, in the order of the rows.
pub fn without_versions(chunk: &[u8]) -> Result<(Bytes, Bytes), CorruptError> {
    let places = places(chunk)?;
    let (mut rows, mut versions) = (chunk.to_vec(), Vec::with_capacity(places.len() * LSN_BYTES));
    for place in places {
        versions.extend_from_slice(&chunk[place..place + LSN_BYTES]);
        rows[place..place + LSN_BYTES].fill(0);
    }
    Ok((rows.into(), versions.into()))
}

/// The chunk of these rows with these LSNs, as many as there are rows.
pub fn with_versions(rows: &[u8], versions: &[u8]) -> Result<Bytes, CorruptError> {
    let places = places(rows)?;
    if places.len() * LSN_BYTES != versions.len() {
        return Err(CorruptError::OutOfPlace("LSNs of other rows"));
    }
    let mut chunk = rows.to_vec();
    for (place, version) in places.into_iter().zip(versions.chunks_exact(LSN_BYTES)) {
        chunk[place..place + LSN_BYTES].copy_from_slice(version);
    }
    Ok(chunk.into())
}

/// Where each row's LSN begins.
fn places(chunk: &[u8]) -> Result<Vec<usize>, CorruptError> {
    let mut reader = Reader::new(chunk);
    match reader.u8()? {
        LAYOUT => {}
        layout => return Err(CorruptError::UnknownTag(layout)),
    }
    reader.u64()?;
    let mut places = Vec::new();
    while !reader.is_empty() {
        match reader.u8()? {
            ROW => {}
            tag => return Err(CorruptError::UnknownTag(tag)),
        }
        reader.u32()?;
        places.push(chunk.len() - reader.rest().len());
        reader.u64()?;
        reader.counted()?;
        reader.counted()?;
    }
    Ok(places)
}

impl Partition {
    /// Takes a row of which nobody knows the LSN, into a partition that is to be a learner's base and nothing else. A row with the same key
    /// is replaced.
    pub fn take_unversioned(&mut self, table: TableId, key: &[u8], row: &[u8]) {
        assert_eq!(self.applied, 0, "a base has applied nothing");
        self.tables.entry(table).or_default().restore(key, 0, row);
    }
}
