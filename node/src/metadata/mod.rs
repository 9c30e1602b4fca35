//! The metadata group: Raft over the cluster map and the catalog. The only authority on who is primary, who is in
//! sync, who is a node, and what the tables are. Knows nothing of SQL.

pub mod apply;
pub mod command;
pub mod map;
pub mod placement;
