//! What a partition has to tell: the changes of its next committed records, or, when these are there no more, of all rows that were
//! written since.

use std::collections::BTreeSet;

use volt_engine::changes::{Change, changes_of};
use volt_engine::effects::{Effects, LogPayload, TransactionId};
use volt_engine::{Lsn, TableId};

use crate::replication::Record;

/// Records that are looked at in a step, at most: nobody else has the partition meanwhile.
const MAX_RECORDS: usize = 10_000;
/// Changes that are told in one piece, about: a record is never split.
const MAX_CHANGES: usize = 1_000;
/// Bytes of them, about.
const MAX_BYTES: usize = 1 << 20;

/// What comes next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Outgoing {
    /// The changes, in their order.
    pub(super) changes: Vec<Change>,
    /// All up to this record is told with them. Never a record of which the decision is still to come.
    pub(super) to: Lsn,
}

/// The changes of `tables` in the records beyond `told`, which come without a gap, as far as they are committed. None: a transaction was
/// decided whose effects lie before them.
pub(super) fn next<'a>(
    tables: &BTreeSet<TableId>,
    (told, committed): (Lsn, Lsn),
    records: impl Iterator<Item = &'a Record>,
) -> Option<Outgoing> {
    let mut outgoing = Outgoing {
        changes: Vec::new(),
        to: told,
    };
    let mut prepared: Option<(TransactionId, Effects)> = None;
    let mut bytes = 0;
    for record in records.take(MAX_RECORDS) {
        if record.lsn > committed || outgoing.changes.len() >= MAX_CHANGES || bytes >= MAX_BYTES {
            break;
        }
        let payload = LogPayload::decode(&record.payload).expect("a record that passed its checksum is sound");
        let effects = match payload {
            LogPayload::Write(effects) => Some(effects),
            LogPayload::Prepared {
                transaction, effects, ..
            } => {
                prepared = Some((transaction, effects));
                None
            }
            LogPayload::Commit(transaction) => {
                let of = prepared.take().filter(|(of, _)| *of == transaction);
                Some(of?.1)
            }
            LogPayload::Abort(transaction) => {
                prepared = prepared.filter(|(of, _)| *of != transaction);
                None
            }
            LogPayload::EpochStart => None,
        };
        let changes = effects.iter().flat_map(changes_of);
        for change in changes.filter(|change| tables.contains(&change.table)) {
            bytes += size_of(&change);
            outgoing.changes.push(change);
        }
        if prepared.is_none() {
            outgoing.to = record.lsn;
        }
    }
    Some(outgoing)
}

pub(super) fn size_of(change: &Change) -> usize {
    change.key.len() + change.row.as_ref().map_or(0, Vec::len)
}
