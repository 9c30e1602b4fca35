//! What the tests across processes share: histories and the checkers of the invariants that they must satisfy, and
//! real processes.

pub mod fuzzing;
pub mod history;
pub mod http;
pub mod linearizable;
pub mod object_stores;
pub mod operator;
pub mod postgres;
pub mod processes;
pub mod proxy;
pub mod replicas;
pub mod serializable;
pub mod tools;
pub mod trace;
