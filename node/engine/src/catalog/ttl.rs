//! What expires: USING TTL of a table.

use serde::{Deserialize, Serialize};

use crate::IndexId;
use crate::key::encode_key;
use crate::value::{DataType, ValueRef};

/// Microseconds of a second.
const SECOND: i64 = 1_000_000;

/// Rows go when a column of theirs says a time that is longer ago than this. NULL never expires.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ttl {
    /// The place of the column in the table's: a TIMESTAMP, or an INT or BIGINT of seconds since 1970.
    pub column: usize,
    /// How long a row lives, in microseconds.
    pub lifetime_micros: i64,
    /// Rows that one transaction removes, at most.
    pub batch_size: u32,
    /// Such transactions of each partition a second, at most.
    pub max_frequency: u32,
    /// The index of the column by which they are found. It goes with this.
    pub index: IndexId,
}

impl Ttl {
    /// True when a column of this type says a time.
    pub fn takes(data_type: DataType) -> bool {
        matches!(data_type, DataType::Timestamp | DataType::Int | DataType::BigInt)
    }

    /// The greatest key of a value that has expired at this time; None: the column says no time.
    pub(crate) fn last_expired(&self, data_type: DataType, now_micros: i64) -> Option<Vec<u8>> {
        let last = now_micros.saturating_sub(self.lifetime_micros).saturating_sub(1);
        match data_type {
            DataType::Timestamp => Some(encode_key([ValueRef::Timestamp(last)])),
            DataType::Int | DataType::BigInt => Some(encode_key([ValueRef::BigInt(last.div_euclid(SECOND))])),
            _ => None,
        }
    }
}
