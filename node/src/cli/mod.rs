//! The commands of the `volt-node` program, each behind its arguments.

pub mod init;
pub mod logging;
pub mod recover_quorum;
pub mod sql;
pub mod start;
