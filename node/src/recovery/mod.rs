//! What survives a process: the node's log on disk, and coming back from it.

pub mod log;
