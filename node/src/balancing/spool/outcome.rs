//! What is left of a file: where it lies, and what is beside it. The same, whoever writes it: it is made of what the database has noted.

use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use volt_engine::NodeId;
use volt_engine::value::ValueRef;

use super::Spool;
use super::item::{ItemId, ItemName};
use super::ledger::{self, Entries, Reject};
use crate::error::SqlError;
use crate::gateway::codec::text;

/// Bytes of a record that its reject repeats.
const MAX_RECORD_SHOWN: u64 = 16 << 10;
const MICROS_PER_SECOND: i64 = 1_000_000;

/// What is in `.result`: a JSON object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Outcome {
    pub(super) file: String,
    pub(super) table: String,
    /// `done` or `failed`.
    pub(super) state: String,
    pub(super) loaded: u64,
    pub(super) rejected: u64,
    /// Rows that each node has loaded.
    pub(super) nodes: BTreeMap<NodeId, u64>,
    pub(super) claimed_at: String,
    /// Of the last batch; None: there was none.
    pub(super) finished_at: Option<String>,
    /// Why it failed.
    pub(super) sqlstate: Option<String>,
    pub(super) message: Option<String>,
}

/// A line of `.rejects`.
#[derive(Serialize)]
struct Rejected<'a> {
    line: u64,
    sqlstate: &'a str,
    message: &'a str,
    record: &'a str,
}

impl Outcome {
    fn of(item: &ItemName, id: ItemId, entries: &Entries, error: Option<&SqlError>) -> Self {
        let (loaded, rejected) = ledger::sums(entries);
        let mut nodes = BTreeMap::new();
        for entry in entries.values() {
            *nodes.entry(entry.node).or_default() += entry.loaded;
        }
        let whole = |error: &SqlError| match &error.hint {
            Some(hint) => format!("{} {hint}", error.message),
            None => error.message.clone(),
        };
        Self {
            file: item.dropped.clone(),
            table: item.table.clone(),
            state: if error.is_some() { "failed" } else { "done" }.to_owned(),
            loaded,
            rejected,
            nodes,
            claimed_at: time(id.claimed_at),
            finished_at: entries.values().map(|entry| entry.at).max().map(time),
            sqlstate: error.map(|error| error.sqlstate.clone()),
            message: error.map(whole),
        }
    }
}

/// As SQL writes it.
fn time(seconds: i64) -> String {
    let mut written = Vec::new();
    text::put(
        &mut written,
        ValueRef::Timestamp(seconds.saturating_mul(MICROS_PER_SECOND)),
    );
    String::from_utf8_lossy(&written).into_owned()
}

impl Spool {
    /// All of it is loaded.
    pub(super) async fn finish(&self, item: &ItemName, id: ItemId, entries: &Entries) -> io::Result<()> {
        self.close(item, "done", entries, &Outcome::of(item, id, entries, None))
            .await?;
        self.figures.finished(true);
        Ok(())
    }

    /// It can't be loaded; what was, stays.
    pub(super) async fn fail(&self, item: &ItemName, id: ItemId, error: &SqlError) -> io::Result<()> {
        tracing::warn!(file = item.full(), %error, "a file can't be loaded");
        let entries = match self.entries(id).await {
            Ok(entries) => entries,
            // What it came to must be told right: later.
            Err(error) => {
                tracing::warn!(file = item.full(), %error, "it is not known how far a file was loaded");
                return self.give_back(item).await;
            }
        };
        let outcome = Outcome::of(item, id, &entries, Some(error));
        match self.close(item, "failed", &entries, &outcome).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            closed => closed.map(|()| self.figures.finished(false)),
        }
    }

    /// Any node may take it again.
    pub(super) async fn give_back(&self, item: &ItemName) -> io::Result<()> {
        let name = item.full();
        let from = self.hand(self.metadata.node_id()).join(&name);
        match self
            .world
            .disk
            .rename(&from, &self.settings.directory.join(&name))
            .await
        {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            given => given,
        }
    }

    /// What is beside it comes first: a file that lies here has all of it.
    async fn close(&self, item: &ItemName, directory: &str, entries: &Entries, outcome: &Outcome) -> io::Result<()> {
        let (name, directory) = (item.full(), self.directory(directory));
        let file = self.hand(self.metadata.node_id()).join(&name);
        self.world.disk.create_directory(&directory).await?;
        if outcome.rejected > 0 {
            self.write_rejects(&file, &directory.join(format!("{name}.rejects")), entries)
                .await?;
        }
        let mut result = serde_json::to_vec_pretty(outcome)?;
        result.push(b'\n');
        let beside = directory.join(format!("{name}.result"));
        self.world.disk.write_atomic(&beside, result.into()).await?;
        self.world.disk.rename(&file, &directory.join(&name)).await
    }

    async fn write_rejects(
        &self,
        file: &std::path::Path,
        rejects: &std::path::Path,
        entries: &Entries,
    ) -> io::Result<()> {
        let disk = &self.world.disk;
        // Of each node its own: another may write the same.
        let aside = rejects.with_extension(format!("rejects.{}", super::hand_name(self.metadata.node_id())));
        let mut written = disk.open_append(&aside, Some(0)).await?;
        for entry in entries.values() {
            let mut lines = entry.rejects.clone();
            lines.sort_by_key(|reject| reject.line);
            for reject in &lines {
                let length = usize::try_from(reject.length.min(MAX_RECORD_SHOWN)).unwrap_or(0);
                let record = disk.read_range(file, reject.offset, length).await?;
                written.append(&[line(reject, &record)?]).await?;
            }
        }
        written.sync().await?;
        drop(written);
        disk.rename(&aside, rejects).await
    }
}

fn line(reject: &Reject, record: &[u8]) -> io::Result<Bytes> {
    let mut line = serde_json::to_vec(&Rejected {
        line: reject.line,
        sqlstate: &reject.sqlstate,
        message: &reject.message,
        record: String::from_utf8_lossy(record).trim_end_matches(['\r', '\n']),
    })?;
    line.push(b'\n');
    Ok(line.into())
}
