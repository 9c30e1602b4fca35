//! Doors for fuzzing: each takes whatever bytes there are, and must neither panic nor take memory out of proportion. The
//! crate `fuzz` calls them, and `tests/fuzz` replays and mutates its corpus.

pub use crate::gateway::fuzzing::{messages, parameters, startup};
pub use crate::query::fuzzing::{procedure, sql};
pub use crate::recovery::fuzzing::{checkpoint, example_checkpoint, example_segment, segment};
