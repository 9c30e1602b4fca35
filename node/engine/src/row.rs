//! The one encoding of a row: the same bytes in memory, in effects, in the log, in a checkpoint and between nodes.
//!
//! Self-describing, so that a row can be read without its table: a column count, then each value behind its tag.
//! Columns that a row lacks at its end (added later) read as NULL.
