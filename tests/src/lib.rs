//! What the tests across processes share: histories and the checkers of the invariants that they must satisfy.

pub mod history;
pub mod linearizable;
pub mod processes;
pub mod replicas;
pub mod trace;
