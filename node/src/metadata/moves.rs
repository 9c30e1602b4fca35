//! A table that moves to another replication group's partitions, with the materialized views of it.
//!
//! | phase | in the old partitions | in the new ones |
//! | --- | --- | --- |
//! | copying | served | closed; each old partition's primary copies its rows, and what has changed since |
//! | closing | closed; each primary copies what has changed last | closed |
//! | no move any more | closed, emptied | served |

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use volt_engine::{GroupId, PartitionId, TableId};

use super::map::ClusterMap;

/// A move that is under way; known by its table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TableMove {
    /// Which of the table's moves it is: the catalog's version with which it began here. What is said late of another one counts for nothing.
    pub number: u64,
    /// The table, and the materialized views of it.
    pub tables: BTreeSet<TableId>,
    /// Where they go.
    pub to: GroupId,
    /// How far it is.
    pub phase: MovePhase,
    /// Old partitions that have come as far as the phase goes.
    pub done: BTreeSet<PartitionId>,
}

/// How far a table's move is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MovePhase {
    /// Rows are copied while they are written.
    Copying,
    /// Nobody reads or writes them until the last changes are there, too.
    Closing,
}

impl MovePhase {
    /// As `system.moves` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Copying => "copying",
            Self::Closing => "closing",
        }
    }
}

impl ClusterMap {
    /// The move that takes this table, or materialized view, along.
    pub fn move_of(&self, table: TableId) -> Option<&TableMove> {
        let taking = |one: &&TableMove| one.tables.contains(&table);
        self.moves.values().find(taking)
    }

    /// Whether partitions of this group have, or get, rows of the table.
    pub fn has_rows_in(&self, table: TableId, group: GroupId) -> bool {
        let lies = self.tables.get(&table).is_some_and(|table| table.group == group);
        lies || self.move_of(table).is_some_and(|one| one.to == group)
    }

    /// Tables that partitions of this group don't serve: those of other groups, and those that are about to go there.
    pub fn closed_in(&self, group: GroupId) -> impl Iterator<Item = TableId> {
        let closing = |table: TableId| {
            let phase = self.move_of(table).map(|one| one.phase);
            phase == Some(MovePhase::Closing)
        };
        let closed = move |&id: &TableId| self.tables[&id].group != group || closing(id);
        self.tables.keys().copied().filter(closed)
    }

    /// The partition that gets the rows of this one.
    pub fn moves_to(&self, one: &TableMove, from: PartitionId) -> Option<PartitionId> {
        let index = self.partitions.get(&from)?.index;
        self.groups.get(&one.to)?.partitions.get(index as usize).copied()
    }
}
