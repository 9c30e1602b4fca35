//! Effects: what one transaction did to one partition. Logged, replicated and replayed as these bytes.
//!
//! Layout of `Effects`: a sequence of `put` (1, table u32, key length varint, key, row length varint, row), `remove`
//! (2, table u32, key length varint, key) and `clear` (3, table u32), which removes every row that the table has then.
//! Integers are little-endian. The last effect on a key wins.
//!
//! A record of the log carries a `LogPayload`: what its partition does at that LSN.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::codec::{Reader, put_counted};
use crate::error::{CorruptError, StatementError};
use crate::row::RowRef;
use crate::{NodeId, PartitionId, TableId};

/// The encoded rows that a transaction put and the keys that it removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effects(pub Bytes);

/// Names a transaction over several partitions, for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TransactionId {
    /// When it began, microseconds since 1970 on its coordinator's clock: its age for wound-wait; the older wins.
    pub began_micros: i64,
    /// Its coordinator.
    pub node: NodeId,
    /// The coordinator's boot id: a restarted coordinator never repeats a name.
    pub boot: u64,
    /// Counts the coordinator's transactions.
    pub sequence: u64,
}

/// What a record does to its partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogPayload {
    /// A transaction of this partition alone.
    Write(Effects),
    /// This partition's part of a transaction over several: kept aside until its decision; the partition is held.
    Prepared {
        /// Which.
        transaction: TransactionId,
        /// The partition whose log holds the decision.
        home: PartitionId,
        /// What it will do here.
        effects: Effects,
    },
    /// The prepared transaction's effects happen now, at this record's LSN.
    Commit(TransactionId),
    /// The prepared transaction's effects never happen. Also written by a home partition that never saw it prepared.
    Abort(TransactionId),
    /// Nothing: the first record of a new primary.
    EpochStart,
}

/// The most that one transaction may do to one partition, in bytes: a record travels and is logged whole.
pub const MAX_EFFECTS_BYTES: usize = 8 << 20;

const PUT: u8 = 1;
const REMOVE: u8 = 2;
const CLEAR: u8 = 3;

/// What an effect takes at most besides its key and its row.
const MAX_FRAME: usize = 1 + size_of::<TableId>() + 2 * 10;

/// Collects effects.
#[derive(Clone, Debug, Default)]
pub struct EffectsBuilder(Vec<u8>);

impl EffectsBuilder {
    /// Goes on after these.
    pub(crate) fn after(effects: Option<Effects>) -> Self {
        Self(effects.map_or_else(Vec::new, |effects| effects.0.into()))
    }

    /// With room for so many bytes.
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    /// A row takes this key's place.
    pub fn put(&mut self, table: TableId, key: &[u8], row: &[u8]) {
        // Once, not at each of its parts.
        self.0.reserve(MAX_FRAME + key.len() + row.len());
        self.head(PUT, table, key);
        put_counted(&mut self.0, row);
    }

    /// The key's row goes.
    pub fn remove(&mut self, table: TableId, key: &[u8]) {
        self.head(REMOVE, table, key);
    }

    /// Every row of the table goes.
    pub fn clear(&mut self, table: TableId) {
        self.0.push(CLEAR);
        self.0.extend_from_slice(&table.to_le_bytes());
    }

    fn head(&mut self, op: u8, table: TableId, key: &[u8]) {
        self.0.push(op);
        self.0.extend_from_slice(&table.to_le_bytes());
        put_counted(&mut self.0, key);
    }

    /// An error when they are more than a record may hold.
    pub(crate) fn check_size(&self) -> Result<(), StatementError> {
        match self.0.len() <= MAX_EFFECTS_BYTES {
            true => Ok(()),
            false => Err(StatementError::TooManyEffects),
        }
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many bytes they take.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The effects, if there are any.
    pub fn finish_if_any(self) -> Option<Effects> {
        if self.is_empty() { None } else { Some(self.finish()) }
    }

    /// The effects.
    pub fn finish(self) -> Effects {
        Effects(self.0.into())
    }
}

/// One change of one row, or of a whole table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effect<'a> {
    /// The table.
    pub table: TableId,
    /// The row's key; None: every row of the table goes.
    pub key: Option<&'a [u8]>,
    /// The new row; None: it goes.
    pub row: Option<&'a [u8]>,
}

impl Effects {
    /// How much they take, in bytes.
    pub fn size(&self) -> usize {
        self.0.len()
    }

    /// As they are kept and sent: equal effects have equal bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// True when a row is put, of effects that were checked.
    pub fn puts(&self) -> bool {
        self.iter_checked().any(|effect| effect.row.is_some())
    }

    /// Reads all of it, so that applying it can't fail.
    pub fn check(&self) -> Result<(), CorruptError> {
        self.iter().try_for_each(|effect| effect.map(|_| ()))
    }

    /// Each change, in order, of effects that were checked: rows are not looked into again.
    pub(crate) fn iter_checked(&self) -> impl Iterator<Item = Effect<'_>> {
        let mut reader = Reader::new(&self.0);
        std::iter::from_fn(move || read_effect_frame(&mut reader).ok())
    }

    /// Each change, in order; the first that can't be read is an error and ends it.
    pub fn iter(&self) -> impl Iterator<Item = Result<Effect<'_>, CorruptError>> {
        let mut reader = Reader::new(&self.0);
        let mut failed = false;
        std::iter::from_fn(move || {
            if failed || reader.is_empty() {
                return None;
            }
            let effect = read_effect(&mut reader);
            failed = effect.is_err();
            Some(effect)
        })
    }
}

fn read_effect<'a>(reader: &mut Reader<'a>) -> Result<Effect<'a>, CorruptError> {
    let effect = read_effect_frame(reader)?;
    if let Some(row) = effect.row {
        RowRef::parse(row)?;
    }
    Ok(effect)
}

fn read_effect_frame<'a>(reader: &mut Reader<'a>) -> Result<Effect<'a>, CorruptError> {
    let op = reader.u8()?;
    let table = reader.u32()?;
    let (key, row) = match op {
        PUT => (Some(reader.counted()?), Some(reader.counted()?)),
        REMOVE => (Some(reader.counted()?), None),
        CLEAR => (None, None),
        _ => return Err(CorruptError::UnknownTag(op)),
    };
    Ok(Effect { table, key, row })
}

impl LogPayload {
    /// Kind (1 byte), then: Write: effects; Prepared: transaction, home (u32), effects; Commit, Abort: transaction.
    /// A transaction: began_micros (i64), node (u32), boot (u64), sequence (u64). All little-endian.
    pub fn encode(&self) -> Bytes {
        let effects = match self {
            Self::Write(effects) | Self::Prepared { effects, .. } => effects.0.len(),
            _ => 0,
        };
        let others = if matches!(self, Self::Write(_)) { 1 } else { 33 };
        let mut out = Vec::with_capacity(others + effects);
        match self {
            Self::Write(effects) => {
                out.push(1);
                out.extend_from_slice(&effects.0);
            }
            Self::Prepared {
                transaction,
                home,
                effects,
            } => {
                out.push(2);
                transaction.encode(&mut out);
                out.extend_from_slice(&home.to_le_bytes());
                out.extend_from_slice(&effects.0);
            }
            Self::Commit(transaction) => {
                out.push(3);
                transaction.encode(&mut out);
            }
            Self::Abort(transaction) => {
                out.push(4);
                transaction.encode(&mut out);
            }
            Self::EpochStart => out.push(5),
        }
        out.into()
    }

    /// Reads what `encode` wrote; everything is checked, so that applying can't fail.
    pub fn decode(bytes: &Bytes) -> Result<Self, CorruptError> {
        let mut reader = Reader::new(bytes);
        let payload = match reader.u8()? {
            1 => Self::Write(rest(bytes, &mut reader)?),
            2 => Self::Prepared {
                transaction: TransactionId::decode(&mut reader)?,
                home: reader.u32()?,
                effects: rest(bytes, &mut reader)?,
            },
            3 => Self::Commit(TransactionId::decode(&mut reader)?),
            4 => Self::Abort(TransactionId::decode(&mut reader)?),
            5 => Self::EpochStart,
            kind => return Err(CorruptError::UnknownTag(kind)),
        };
        reader.finish()?;
        Ok(payload)
    }
}

fn rest(bytes: &Bytes, reader: &mut Reader<'_>) -> Result<Effects, CorruptError> {
    let effects = Effects(bytes.slice(bytes.len() - reader.rest().len()..));
    *reader = Reader::new(&[]);
    effects.check()?;
    Ok(effects)
}

impl TransactionId {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.began_micros.to_le_bytes());
        out.extend_from_slice(&self.node.to_le_bytes());
        out.extend_from_slice(&self.boot.to_le_bytes());
        out.extend_from_slice(&self.sequence.to_le_bytes());
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, CorruptError> {
        Ok(Self {
            began_micros: reader.u64()? as i64,
            node: reader.u32()?,
            boot: reader.u64()?,
            sequence: reader.u64()?,
        })
    }
}

#[cfg(test)]
mod tests;
