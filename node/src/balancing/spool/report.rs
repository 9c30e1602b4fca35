//! What is told of the spool directory: figures of this node, and `system.spool`, which any node reads off the directory.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use volt_engine::NodeId;

use super::item::ItemName;
use super::outcome::Outcome;
use super::presence::{self, Presence};
use super::{hand_name, node_of};
use crate::world::Disk;

/// Files that are shown of each state: the newest of those that are done or have failed.
const MAX_SHOWN: usize = 1_000;
/// The longest result that is one.
const MAX_RESULT_BYTES: usize = 64 << 10;

/// What this node has done since its start.
#[derive(Default)]
pub(crate) struct SpoolFigures {
    done: AtomicU64,
    failed: AtomicU64,
    loaded: AtomicU64,
    rejected: AtomicU64,
    taken_over: AtomicU64,
}

/// The same as numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpoolCounts {
    /// Files that are loaded.
    pub done: u64,
    /// Files that can't be.
    pub failed: u64,
    /// Rows.
    pub loaded: u64,
    /// Rows that were rejected.
    pub rejected: u64,
    /// Files that this node took from nodes which were gone, for itself or another.
    pub taken_over: u64,
}

impl SpoolFigures {
    pub(super) fn finished(&self, is_done: bool) {
        let counter = if is_done { &self.done } else { &self.failed };
        counter.fetch_add(1, Relaxed);
    }

    pub(super) fn loaded(&self, loaded: u64, rejected: u64) {
        self.loaded.fetch_add(loaded, Relaxed);
        self.rejected.fetch_add(rejected, Relaxed);
    }

    pub(super) fn took_over(&self) {
        self.taken_over.fetch_add(1, Relaxed);
    }

    /// Now.
    pub(crate) fn counts(&self) -> SpoolCounts {
        SpoolCounts {
            done: self.done.load(Relaxed),
            failed: self.failed.load(Relaxed),
            loaded: self.loaded.load(Relaxed),
            rejected: self.rejected.load(Relaxed),
            taken_over: self.taken_over.load(Relaxed),
        }
    }
}

/// A file, as the directory shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SpoolFile {
    /// As it was dropped.
    pub(crate) file: String,
    /// None: it is not for the spool.
    pub(crate) table: Option<String>,
    /// `waiting`, `claimed`, `done`, `failed` or `ignored`.
    pub(crate) state: &'static str,
    /// Who has it.
    pub(crate) node: Option<NodeId>,
    /// None: nobody says.
    pub(crate) loaded: Option<u64>,
    /// None: nobody says.
    pub(crate) rejected: Option<u64>,
    /// Where it lies, below the directory.
    pub(crate) path: String,
    /// Why it failed.
    pub(crate) message: Option<String>,
}

/// Looks at the directory.
#[derive(Clone)]
pub(crate) struct SpoolView {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
}

impl SpoolView {
    pub(crate) fn new(disk: Arc<dyn Disk>, directory: &Path) -> Self {
        Self {
            disk,
            directory: directory.to_owned(),
        }
    }

    /// All files that are there, or the first ones. A directory that can't be read shows none.
    pub(crate) async fn files(&self) -> Vec<SpoolFile> {
        let mut shown = Vec::new();
        for name in self.names("", false).await {
            let item = ItemName::parse(&name);
            let state = if item.is_some() { "waiting" } else { "ignored" };
            shown.push(file(item.as_ref(), name, state));
        }
        for path in self.disk.list(&self.directory.join("nodes")).await.unwrap_or_default() {
            if let Some(node) = node_of(&path) {
                shown.extend(self.claimed(node, &path).await);
            }
        }
        for state in ["done", "failed"] {
            shown.extend(self.ended(state).await);
        }
        shown
    }

    async fn claimed(&self, node: NodeId, presence: &Path) -> Vec<SpoolFile> {
        let said = self.disk.read_range(presence, 0, presence::MAX_BYTES).await.ok();
        let said = said.and_then(|said| Presence::parse(&said)).unwrap_or_default();
        let hand = hand_name(node);
        let names = self.names(&hand, false).await.into_iter();
        let claimed = names.filter_map(|name| {
            let item = ItemName::parse(&name)?;
            let is_doing = said.file == name;
            Some(SpoolFile {
                node: Some(node),
                loaded: is_doing.then_some(said.loaded),
                rejected: is_doing.then_some(said.rejected),
                ..file(Some(&item), format!("{hand}/{name}"), "claimed")
            })
        });
        claimed.collect()
    }

    async fn ended(&self, state: &'static str) -> Vec<SpoolFile> {
        let mut shown = Vec::new();
        for name in self.names(state, true).await {
            let Some(item) = ItemName::parse(&name) else { continue };
            let result = self.directory.join(state).join(format!("{name}.result"));
            let result = self.disk.read_range(&result, 0, MAX_RESULT_BYTES).await.ok();
            let outcome = result.and_then(|result| serde_json::from_slice::<Outcome>(&result).ok());
            let outcome = outcome.as_ref();
            shown.push(SpoolFile {
                loaded: outcome.map(|outcome| outcome.loaded),
                rejected: outcome.map(|outcome| outcome.rejected),
                message: outcome.and_then(|outcome| outcome.message.clone()),
                ..file(Some(&item), format!("{state}/{name}"), state)
            });
        }
        shown
    }

    /// Names of a directory's files; `items`: only files of the spool, the newest claims.
    async fn names(&self, directory: &str, items: bool) -> Vec<String> {
        let files = self
            .disk
            .list(&self.directory.join(directory))
            .await
            .unwrap_or_default();
        let names = files
            .iter()
            .filter_map(|path| path.file_name()?.to_str().map(str::to_owned));
        let mut names: Vec<String> = if items {
            let mut found: Vec<ItemName> = names.filter_map(|name| ItemName::parse(&name)).collect();
            found.sort_by(|one, other| other.cmp(one));
            found.iter().map(ItemName::full).collect()
        } else {
            names.collect()
        };
        names.truncate(MAX_SHOWN);
        names
    }
}

fn file(item: Option<&ItemName>, path: String, state: &'static str) -> SpoolFile {
    SpoolFile {
        file: item.map_or_else(|| path.clone(), |item| item.dropped.clone()),
        table: item.map(|item| item.table.clone()),
        state,
        path,
        ..SpoolFile::default()
    }
}
