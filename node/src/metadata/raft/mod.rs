//! The Raft group under the cluster map: openraft with a log and snapshots of our own, on the world's disk.

pub(crate) mod log;
pub(crate) mod machine;
pub(crate) mod network;
mod reader;
pub(crate) mod salvage;
pub(crate) mod voters;

use std::io::Cursor;

use openraft::{AnyError, BasicNode, Entry, LogId, StorageError, StorageIOError, TokioRuntime};
use volt_engine::NodeId;

use super::command::{Command, CommandResult};

openraft::declare_raft_types!(
    /// The types of the metadata group.
    pub Group:
        D = Command,
        R = CommandResult,
        NodeId = MemberId,
        Node = BasicNode,
        Entry = Entry<Group>,
        SnapshotData = Cursor<Vec<u8>>,
        AsyncRuntime = TokioRuntime,
);

/// A member of the group: a node in one incarnation. A node that lost its volume is another member, so that it never
/// votes as its former self.
pub(crate) type MemberId = u64;

/// Bits of a member's number that are its incarnation.
const INCARNATION_BITS: u32 = 20;

/// The member that a node is in this incarnation.
pub(crate) fn member(node: NodeId, incarnation: u64) -> MemberId {
    (u64::from(node) << INCARNATION_BITS) | (incarnation & ((1 << INCARNATION_BITS) - 1))
}

/// The node that a member is.
pub(crate) fn node_of(member: MemberId) -> NodeId {
    u32::try_from(member >> INCARNATION_BITS).unwrap_or(0)
}

pub(crate) type Failure = StorageError<MemberId>;

fn reading(error: &(impl std::error::Error + 'static)) -> Failure {
    StorageIOError::read_logs(AnyError::new(error)).into()
}

fn writing(error: &(impl std::error::Error + 'static)) -> Failure {
    StorageIOError::write_logs(AnyError::new(error)).into()
}

/// Explicit little-endian layout of a log id: term, leader, index.
fn put_log_id(buffer: &mut Vec<u8>, id: &LogId<MemberId>) {
    for number in [id.leader_id.term, id.leader_id.node_id, id.index] {
        buffer.extend_from_slice(&number.to_le_bytes());
    }
}

fn take_log_id(bytes: &mut &[u8]) -> Option<LogId<MemberId>> {
    let (term, leader, index) = (take_u64(bytes)?, take_u64(bytes)?, take_u64(bytes)?);
    Some(LogId::new(openraft::CommittedLeaderId::new(term, leader), index))
}

fn take_u64(bytes: &mut &[u8]) -> Option<u64> {
    let (number, rest) = bytes.split_first_chunk::<8>()?;
    *bytes = rest;
    Some(u64::from_le_bytes(*number))
}

fn take_u8(bytes: &mut &[u8]) -> Option<u8> {
    let (byte, rest) = bytes.split_first()?;
    *bytes = rest;
    Some(*byte)
}

fn corrupt(what: &str) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, format!("{what} is corrupt"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members() {
        assert_eq!(node_of(member(3, 7)), 3);
        assert_ne!(member(3, 1), member(3, 2));
    }
}
