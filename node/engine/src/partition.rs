//! A partition: tables of versioned rows, changed only by effects in LSN order, read at any LSN still kept.
//!
//! The API that the replication and query layers build on (all pure; the caller holds the partition's mutex):
//!
//! - `run` executes a row program against the newest state and returns its effects *without applying them*;
//! - `apply_record` applies one log record (`LogPayload`) at its LSN; versions it replaces stay until `commit_to`
//!   passes them and no pinned snapshot needs them;
//! - `undo_after(lsn, payloads)` takes back what records beyond `lsn` did (a deposed primary);
//! - `scan_at` reads a table at a snapshot, in key order, resumable by key;
//! - `pin`/`unpin` keep a snapshot's versions;
//! - `dump`/`load` carry the whole state at an LSN in chunks, for a learner's fill.
