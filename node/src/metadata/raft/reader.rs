//! What the log keeps in memory, for readers: for openraft, which sends it to other members.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::RangeBounds;
use std::sync::{Arc, Mutex, MutexGuard};

use openraft::{Entry, EntryPayload, LogId, OptionalSend, RaftLogReader};

use super::{Failure, Group, MemberId};
use crate::metadata::command::Command;

/// Bytes of modules in the entries that are sent in one message, about: a member that is behind gets them in several, each
/// of which arrives between two heartbeats.
const SENT_BYTES: usize = 1 << 20;

/// What the log keeps, for readers.
#[derive(Clone, Default)]
pub(crate) struct LogReader {
    kept: Arc<Mutex<Kept>>,
}

#[derive(Default)]
pub(super) struct Kept {
    pub(super) purged: Option<LogId<MemberId>>,
    pub(super) entries: BTreeMap<u64, Entry<Group>>,
}

impl LogReader {
    pub(super) fn new(kept: Kept) -> Self {
        Self {
            kept: Arc::new(Mutex::new(kept)),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// What makes an entry large.
fn module_bytes(entry: &Entry<Group>) -> usize {
    match &entry.payload {
        EntryPayload::Normal(Command::CreateProcedure { procedure, .. }) => procedure.module_bytes(),
        _ => 0,
    }
}

impl RaftLogReader<Group> for LogReader {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry<Group>>, Failure> {
        Ok(self
            .lock()
            .entries
            .range(range)
            .map(|(_, entry)| entry.clone())
            .collect())
    }

    /// One at least, if there is one.
    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry<Group>>, Failure> {
        let kept = self.lock();
        let mut bytes = 0;
        let fits = |(_, entry): &(&u64, &Entry<Group>)| {
            let is_first = bytes == 0;
            bytes += module_bytes(entry);
            is_first || bytes <= SENT_BYTES
        };
        let entries = kept.entries.range(start..end).take_while(fits);
        Ok(entries.map(|(_, entry)| entry.clone()).collect())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use openraft::CommittedLeaderId;
    use volt_engine::procedure::{Body, MAX_MODULE_BYTES, Procedure};

    use super::*;

    fn module(bytes: usize) -> Command {
        let procedure = Procedure {
            id: 0,
            name: "p".to_owned(),
            language: "wasm".to_owned(),
            source: String::new(),
            parameters: Vec::new(),
            columns: Vec::new(),
            partition_by: None,
            body: Body::Module(Bytes::from(vec![0; bytes])),
            statements: Vec::new(),
        };
        Command::CreateProcedure {
            procedure: Box::new(procedure),
            replace: true,
        }
    }

    #[tokio::test]
    async fn large_entries_are_sent_one_at_a_time_and_small_ones_together() {
        let other = |node_id| Command::RemoveNode { node_id };
        let large = MAX_MODULE_BYTES;
        let commands = [
            other(1),
            other(2),
            module(large),
            module(1),
            module(large),
            module(large / 2),
            module(large / 2),
        ];
        let entry = |(index, command)| {
            let log_id = LogId::new(CommittedLeaderId::new(1, 1), index);
            let payload = EntryPayload::Normal(command);
            (index, Entry { log_id, payload })
        };
        let entries = (1..).zip(commands).map(entry).collect();
        let mut reader = LogReader::new(Kept { purged: None, entries });
        let (mut from, mut sent) = (1, Vec::new());
        while from < 8 {
            let entries = reader.limited_get_log_entries(from, 8).await.unwrap();
            sent.push(entries.len());
            from += entries.len() as u64;
        }
        assert_eq!(sent, [3, 1, 1, 2]);
        assert_eq!(reader.limited_get_log_entries(1, 3).await.unwrap().len(), 2);
    }
}
