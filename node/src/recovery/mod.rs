//! What survives: the node's log, reading it back, and bringing a node back into sync.

pub mod log;
pub(crate) mod rejoin;
pub(crate) mod replay;
