//! Replication links: which tables' changes go to which other database.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use volt_engine::TableId;

/// A link's number, never reused. Starts at 1.
pub type LinkId = u64;

/// Most links of a cluster: each has a connection on every node.
pub const MAX_LINKS: usize = 64;

/// A replication link: every change of its tables is told to another database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Its number: what the other database knows of it belongs to that.
    pub id: LinkId,
    /// Its name.
    pub name: String,
    /// Whose changes.
    pub tables: BTreeSet<TableId>,
    /// Where to.
    pub target: LinkTarget,
    /// Nothing is told for now.
    pub is_paused: bool,
}

/// The other database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkTarget {
    /// `postgres://USER@HOST:PORT/DATABASE`, without a password.
    pub url: String,
    /// The file on each node that has the password.
    pub password_file: Option<String>,
}
