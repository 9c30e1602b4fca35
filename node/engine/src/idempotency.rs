//! Idempotency keys: a request that carries one happens once, however often it is repeated.
//!
//! What the request came to is a row of a reserved table of its partition, put there by the same effects as all that it did:
//! so it is logged, replicated, filled, checkpointed and undone with it, and a new primary knows it. A second table has
//! the keys in the order of their times, for the oldest to be found when they are due (`partition::Partition::keep`).

use serde::{Deserialize, Serialize};

use crate::TableId;
use crate::codec::{Reader, put_counted};
use crate::error::StatementError;
use crate::hash::Hasher;
use crate::row::{RowRef, encode_row, encode_row_into};
use crate::value::{Value, ValueRef};

/// Ids from here on are the system's own; no table of the catalog has one.
pub const FIRST_RESERVED_TABLE: TableId = TableId::MAX - 15;
/// By key: fingerprint, time, rows affected, the result's rows.
pub(crate) const KEYS: TableId = TableId::MAX;
/// By time and key: the key.
pub(crate) const KEYS_BY_TIME: TableId = TableId::MAX - 1;
/// By table and key: what is kept of a tracked row's last change (`changes`).
pub(crate) const ROW_VERSIONS: TableId = TableId::MAX - 2;
/// By version, table and key: changes of other clusters that met others (`partition::incoming`).
pub(crate) const CONFLICTS: TableId = TableId::MAX - 3;
/// One row: how far a partition of a standby has followed an archive (`followed`).
pub const FOLLOWED: TableId = TableId::MAX - 4;
/// The tables that every partition has by itself.
pub const RESERVED_TABLES: [TableId; 5] = [KEYS, KEYS_BY_TIME, ROW_VERSIONS, CONFLICTS, FOLLOWED];

/// The longest key, in bytes.
pub const MAX_KEY_BYTES: usize = 255;
/// The largest result that is kept, in bytes, its rows encoded.
pub const MAX_KEPT_RESULT_BYTES: usize = 64 << 10;
/// What a key adds to a transaction's effects at most, without a result.
pub(crate) const MAX_RECORD_BYTES: usize = 64 << 10;

/// What is kept of keys in one partition.
#[derive(Clone, Copy, Debug)]
pub struct KeyLimits {
    /// A key is due after this, in microseconds.
    pub kept_for_micros: i64,
    /// With more keys than this, the oldest are due.
    pub keys: u64,
    /// With more memory in use than this, in bytes, the oldest are due.
    pub bytes: u64,
}

impl KeyLimits {
    /// Due keys go a few at a time, with new ones: when there are so many times more than there should be, new ones are refused.
    pub(crate) const SLACK: u64 = 4;
}

/// A day; about a quarter of a million keys.
pub const KEY_LIMITS: KeyLimits = KeyLimits {
    kept_for_micros: 24 * 3_600 * 1_000_000,
    keys: 262_144,
    bytes: 64 << 20,
};

/// What a client calls a request: 1 to 255 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// The key's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for IdempotencyKey {
    type Error = StatementError;

    fn try_from(key: String) -> Result<Self, StatementError> {
        match key.len() {
            1..=MAX_KEY_BYTES => Ok(Self(key)),
            _ => Err(StatementError::InvalidKey),
        }
    }
}

impl From<IdempotencyKey> for String {
    fn from(key: IdempotencyKey) -> Self {
        key.0
    }
}

/// A key, and what it was given for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keyed {
    /// The key.
    pub key: IdempotencyKey,
    /// Of the request; the same key with another one is a mistake.
    pub fingerprint: u64,
}

impl Keyed {
    /// A statement with its parameters.
    pub fn statement(key: IdempotencyKey, text: &str, parameters: &[Value]) -> Self {
        let values: Vec<ValueRef<'_>> = parameters.iter().map(Value::as_ref).collect();
        let hash = Hasher::new().u64(text.len() as u64).bytes(text.as_bytes());
        let fingerprint = hash.bytes(&encode_row(&values)).finish();
        Self { key, fingerprint }
    }

    /// A block of statements. Which ones is not compared: repeated, they may read other values, and write others.
    pub fn block(key: IdempotencyKey) -> Self {
        Self::statement(key, "BEGIN", &[])
    }
}

/// The rows of a result that is to be kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeptRows(Vec<u8>);

impl KeptRows {
    /// One more row. Beyond the bound nothing more is taken, and keeping them is an error.
    pub fn push(&mut self, values: &[ValueRef<'_>]) {
        if self.check().is_ok() {
            let mut row = Vec::new();
            encode_row_into(&mut row, values.iter().copied());
            put_counted(&mut self.0, &row);
        }
    }

    /// An error when they are too large to be kept.
    pub fn check(&self) -> Result<(), StatementError> {
        match self.0.len() <= MAX_KEPT_RESULT_BYTES {
            true => Ok(()),
            false => Err(StatementError::TooLargeToKeep),
        }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Each row of what `KeptRows` wrote.
pub(crate) fn kept_rows(bytes: &[u8]) -> impl Iterator<Item = RowRef<'_>> {
    let mut reader = Reader::new(bytes);
    std::iter::from_fn(move || {
        if reader.is_empty() {
            return None;
        }
        reader.counted().ok().map(RowRef::new)
    })
}
